use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::mpsc::{Receiver, channel},
};

use super::*;
use crate::daemon::{journal::tests::report, settings::Span};

const PATIENCE: Duration = Duration::from_secs(60);

fn shell(script: &str, every_s: u64) -> Hook {
    let command = ["/bin/sh", "-c", script].map(String::from).to_vec();
    Hook { on: vec!["connection-*".into()], command, url: None, every: Span(every_s * 1_000_000_000) }
}

fn post(url: String) -> Hook {
    Hook { url: Some(url), command: Vec::new(), ..shell("", 0) }
}

/// Dropping the hooks lets them end: so tests need not wait for anything.
fn run(hooks: &[Hook], limits: Limits, reports: &[Report]) -> Counted {
    let hooks = Hooks::with_limits(hooks, limits).unwrap();
    reports.iter().for_each(|report| hooks.fire(report));
    let counts = Arc::clone(&hooks.counts);
    drop(hooks);
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    Counted {
        succeeded: read(&counts.succeeded),
        failed: read(&counts.failed),
        limited: read(&counts.limited),
        dropped: read(&counts.dropped),
    }
}

fn patient() -> Limits {
    Limits { farewell: PATIENCE, ..Limits::default() }
}

/// Takes one request a connection and answers it; what was asked comes out of the channel.
fn listener(answer: &'static str) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/alert?token=geheim1", listener.local_addr().unwrap());
    let (said, heard) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut text = Vec::new();
            let mut buffer = [0; 4096];
            let whole = |text: &[u8]| {
                let text = String::from_utf8_lossy(text).to_lowercase();
                let (head, body) = text.split_once("\r\n\r\n")?;
                let length = head.split_once("content-length: ")?.1.lines().next()?.parse::<usize>().ok()?;
                (body.len() >= length).then_some(())
            };
            while whole(&text).is_none() {
                match stream.read(&mut buffer).unwrap() {
                    0 => break,
                    length => text.extend_from_slice(&buffer[..length]),
                }
            }
            stream.write_all(answer.as_bytes()).unwrap();
            if said.send(String::from_utf8(text).unwrap()).is_err() {
                break;
            }
        }
    });
    (url, heard)
}

#[test]
fn a_command_gets_the_report_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let script = format!("cat >{}; env >{}; pwd >{}", at("stdin"), at("env"), at("cwd"));
    let counted = run(&[shell(&script, 0)], patient(), &[report()]);
    assert_eq!(counted, Counted { succeeded: 1, ..Counted::default() });
    let read = |name: &str| std::fs::read_to_string(at(name)).unwrap();
    let json: serde_json::Value = serde_json::from_str(&read("stdin")).unwrap();
    assert_eq!(
        (&json["code"], &json["occasion"], &json["pid"]),
        (&"connection-refused".into(), &"ended".into(), &4711.into())
    );
    assert_eq!(read("cwd"), "/\n");
    let variables = read("env");
    for line in [
        "OBSERVER_CODE=connection-refused",
        "OBSERVER_UNIT=worker.service",
        "OBSERVER_SUMMARY=It tried\\nPRIORITY=0\\x1b[31m",
    ] {
        assert!(variables.lines().any(|variable| variable == line), "{line}: {variables}");
    }
    let other = variables.lines().filter(|line| !line.starts_with("OBSERVER_"));
    let names: Vec<_> = other.filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    assert!(
        names.iter().all(|name| ["PATH", "PWD", "SHLVL", "_", "OLDPWD"].contains(name)),
        "the shell's own, and PATH: {names:?}"
    );
}

#[test]
fn only_its_codes_and_no_more_often_than_every() {
    let hooks = [shell("exit 0", 3600), shell("exit 3", 0)];
    let mut other = report();
    other.code = "module-not-found".into();
    let mut third = report();
    third.code = "connection-lost".into();
    let counted = run(&hooks, patient(), &[report(), report(), other, third]);
    // The first hook: once for each of two codes. The second: three times, and it fails.
    assert_eq!(counted, Counted { succeeded: 2, failed: 3, limited: 1, dropped: 0 });
}

#[test]
fn a_command_that_does_not_end_is_killed_with_what_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let pids = folder.path().join("pids").display().to_string();
    // Its child holds the output, so the end of the shell alone would not be the end.
    let script = format!("sleep 1000 & echo $! $$ >{pids}; wait");
    let limits = Limits { command: Duration::from_millis(700), ..patient() };
    let counted = run(&[shell(&script, 0)], limits, &[report()]);
    assert_eq!(counted, Counted { failed: 1, ..Counted::default() });
    for pid in std::fs::read_to_string(&pids).unwrap().split_whitespace() {
        gone(pid);
    }
}

/// Waits for the end of a process that has been killed and is not our child.
fn gone(pid: &str) {
    let until = Instant::now() + PATIENCE;
    let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    while state().is_some_and(|stat| !stat.contains(") Z ")) {
        assert!(Instant::now() < until, "{pid} lives on");
        std::thread::yield_now();
    }
}

#[test]
fn the_end_of_the_service_does_not_wait_for_a_hook() {
    let folder = tempfile::tempdir().unwrap();
    let (pid, ready) = (folder.path().join("pid"), folder.path().join("ready"));
    let made = nix::unistd::mkfifo(&ready, nix::sys::stat::Mode::S_IRWXU);
    made.unwrap();
    let script = format!("echo $$ >{}; echo >{}; exec sleep 1000", pid.display(), ready.display());
    let hooks = Hooks::with_limits(
        &[shell(&script, 0)],
        Limits { farewell: Duration::from_millis(50), ..Limits::default() },
    )
    .unwrap();
    hooks.fire(&report());
    std::fs::read_to_string(&ready).unwrap();
    drop(hooks);
    gone(std::fs::read_to_string(pid).unwrap().trim());
}

#[test]
fn whoever_reports_never_waits_and_what_is_too_much_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let gate = folder.path().join("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Nobody opens the gate for writing before all have been fired: so none of them can end before.
    let hooks = Hooks::with_limits(&[shell(&format!("cat {}", gate.display()), 0)], patient()).unwrap();
    for _ in 0..200 {
        hooks.fire(&report());
    }
    let counted = hooks.counted();
    // Four run, one is held by the worker, the queue is full: but how many the worker has taken by now is its own business.
    assert!((200 - 64 - 5..=200 - 64).contains(&usize::try_from(counted.dropped).unwrap()), "{counted:?}");
    assert_eq!((counted.succeeded, counted.limited), (0, 0));
    let (counts, dropped) = (Arc::clone(&hooks.counts), counted.dropped);
    let open = std::thread::spawn(move || {
        while counts.succeeded.load(Ordering::Relaxed) + counts.failed.load(Ordering::Relaxed) < 200 - dropped
        {
            // Opens only while somebody reads, and ends what they read by closing it.
            drop(std::fs::File::options().write(true).custom_flags_nonblock().open(&gate));
            std::thread::yield_now();
        }
    });
    let counts = Arc::clone(&hooks.counts);
    drop(hooks);
    open.join().unwrap();
    assert_eq!(counts.succeeded.load(Ordering::Relaxed), 200 - dropped);
}

trait Nonblocking {
    fn custom_flags_nonblock(&mut self) -> &mut Self;
}

impl Nonblocking for std::fs::OpenOptions {
    fn custom_flags_nonblock(&mut self) -> &mut Self {
        std::os::unix::fs::OpenOptionsExt::custom_flags(self, nix::libc::O_NONBLOCK)
    }
}

#[test]
fn a_command_may_ignore_its_input_and_flood_its_output() {
    let mut report = report();
    report.summary = "x".repeat(1 << 20);
    // A variable takes 128 KiB at most, so it would not even start if the summary was handed on whole.
    let hooks = [shell("exec 0<&-; head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2", 0)];
    assert_eq!(run(&hooks, patient(), &[report]), Counted { succeeded: 1, ..Counted::default() });
}

#[test]
fn a_program_that_is_not_there_fails() {
    let mut hook = shell("", 0);
    hook.command = vec!["/nonexistent/alert".into()];
    assert_eq!(run(&[hook], patient(), &[report()]), Counted { failed: 1, ..Counted::default() });
}

#[test]
fn a_report_is_posted_as_json() {
    let (url, heard) = listener("HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n");
    let counted = run(&[post(url)], patient(), &[report()]);
    assert_eq!(counted, Counted { succeeded: 1, ..Counted::default() });
    let request = heard.recv_timeout(PATIENCE).unwrap();
    assert!(request.starts_with("POST /alert?token=geheim1 HTTP/1.1\r\n"), "{request}");
    assert!(request.to_lowercase().contains("content-type: application/json\r\n"), "{request}");
    let body: serde_json::Value = serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(body["session"], "20260101-000000-0001");
}

#[test]
fn a_redirect_is_not_followed_and_a_refusal_is_a_failure() {
    let (elsewhere, heard) = listener("HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n");
    let answer = format!(
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: {elsewhere}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    let (url, asked) = listener(Box::leak(answer.into_boxed_str()));
    let counted = run(&[post(url), post("http://127.0.0.1:1/".into())], patient(), &[report()]);
    assert_eq!(counted, Counted { failed: 2, ..Counted::default() });
    asked.recv_timeout(PATIENCE).unwrap();
    assert!(heard.try_recv().is_err(), "the other was asked");
}

#[test]
fn an_answer_that_does_not_come_is_not_waited_for() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let limits = Limits { answer: Duration::from_millis(200), ..patient() };
    assert_eq!(run(&[post(url)], limits, &[report()]), Counted { failed: 1, ..Counted::default() });
}
