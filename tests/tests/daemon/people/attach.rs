//! `observer attach` by the service, for who has no right of their own: nothing of the command is changed, and the session is its user's.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde_json::Value;
use tests::deadline;
use tests::person::Person;
use tests::privilege::lacking;
use tests::scene::{Scene, written};

use super::super::LIMIT;
use super::{
    PYTHON, Running, attach, becomes, observer, place, recorded, script, service, session, sessions, text,
    verb,
};

/// Runs a command as a shell with limits and a mask of its own does, and returns what it wrote of its standing.
fn standing(mut shell: Command, words: &Command, file: &Path) -> Value {
    shell.args(["-c", "umask 027; ulimit -S -n 77; ulimit -c 0; exec \"$@\"", "sh"]);
    shell.arg(words.get_program()).args(words.get_args());
    shell.env("OBSERVER_TEST_A", "=b=\nc").env("PASSWORD", "hunter2-in-the-clear").current_dir("/usr/share");
    let output = shell.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}: {}", text(&output.stdout), text(&output.stderr));
    let standing = written(file).unwrap();
    fs::remove_file(file).unwrap();
    standing
}

#[test]
fn a_users_command_finds_everything_as_without_us_and_its_session_is_theirs() {
    if lacking("a user of its own") {
        return;
    }
    let scene = Scene::new().unwrap();
    let person = Person::new(&scene, "obsa").unwrap();
    let mut daemon = service(&scene);
    let file = scene.path("standing.json");
    let mut alone = Command::new(PYTHON);
    alone.args(["-I", &script("standing.py")]).arg(&file).arg("two words");
    let mut observed = Command::new(tests::target::observer().unwrap());
    observed.args(["attach", "--backend", "service", "--quiet", "--name", "mine", "--"]);
    observed.arg(PYTHON).args(alone.get_args());
    let shell = || {
        let mut shell = person.command("sh");
        shell.env("OBSERVER_SOCKET", daemon.socket());
        shell
    };
    let mut without = standing(shell(), &alone, &file);
    let mut with = standing(shell(), &observed, &file);
    // Pipes of their own, made for each of the two.
    for standing in [&mut without, &mut with] {
        for fd in ["1", "2"] {
            let target = standing["fds"][fd].take();
            assert!(target[0].as_str().unwrap().starts_with("pipe:"), "{target}");
        }
    }
    for (name, value) in without.as_object().unwrap() {
        assert_eq!(value, &with[name], "{name}: on the left alone, on the right observed");
    }
    assert_eq!(with["status"]["Umask"], "0027");
    assert!(with["status"]["Uid"].as_str().unwrap().starts_with(&person.uid.to_string()));

    // It lies where it should, and is theirs.
    daemon.idle().unwrap();
    let listed = sessions(&daemon, &person);
    assert_eq!(listed.len(), 1, "{listed:?}");
    let path = Path::new(listed[0]["path"].as_str().unwrap());
    assert_eq!(path.parent().unwrap(), place(&daemon, &person).canonicalize().unwrap());
    let facts = fs::metadata(path).unwrap();
    assert_eq!(facts.uid(), person.uid);
    assert!([0o600, 0o640].contains(&(facts.mode() & 0o7777)), "{:o}", facts.mode());

    // What it holds, without the secret.
    let shown = session(&daemon, &person, "mine");
    let exec = shown.kind("exec").next().unwrap();
    assert_eq!(exec["argv"][0], PYTHON);
    let env = exec["env"].as_array().unwrap();
    let has = |start: &str| env.iter().any(|one| one.as_str().is_some_and(|one| one.starts_with(start)));
    assert!(has("OBSERVER_TEST_A==b=") && has("PASSWORD=«redacted:"), "{env:?}");
    let raw = fs::read(path).unwrap();
    assert!(!raw.windows(7).any(|part| part == b"hunter2"), "a secret is on the disk");
    assert!(shown.kind("open").any(|open| open["path"] == "/proc/self/status"));
    assert_eq!(shown.header["ending"]["code"], 0);

    let explained = verb(&daemon, &person, &["explain", "mine"]);
    assert!(explained.status.success(), "{}", text(&explained.stderr));
    assert!(verb(&daemon, &person, &["pin", "mine"]).status.code() == Some(0));
    let removed = verb(&daemon, &person, &["rm", "mine"]);
    assert!(removed.status.success(), "{}", text(&removed.stderr));
    assert!(sessions(&daemon, &person).is_empty() && !path.exists());
    assert!(daemon.end().unwrap().success());
}

#[test]
fn the_status_is_the_commands_own() {
    if lacking("a user of its own") {
        return;
    }
    let scene = Scene::new().unwrap();
    let person = Person::new(&scene, "obsb").unwrap();
    let daemon = service(&scene);
    let status = |name: &str, words: &[&str]| {
        attach(&daemon, &person, name).args(["--quiet", "--"]).args(words).output().unwrap().status.code()
    };
    assert_eq!(status("three", &["sh", "-c", "exit 3"]), Some(3));
    assert_eq!(status("killed", &["sh", "-c", "kill -9 $$"]), Some(137));
    assert_eq!(status("nowhere", &["no-such-command-anywhere"]), Some(127));
    assert_eq!(status("no-program", &["/etc/passwd"]), Some(126));
    let begun = Instant::now();
    let mut limited = attach(&daemon, &person, "limited");
    limited.args(["--quiet", "--for", "1s", "--", "sleep", "60"]);
    assert_eq!(limited.status().unwrap().code(), Some(143));
    assert!(begun.elapsed().as_secs() < 30);
    daemon.idle().unwrap();
    let ending = |name: &str| session(&daemon, &person, name).header["ending"].clone();
    assert_eq!(ending("three")["code"], 3);
    assert_eq!(ending("killed")["signal"], 9);
    assert_eq!(session(&daemon, &person, "nowhere").kind("exec").count(), 0);
    // A name is refused like a command line's own.
    let mut named = attach(&daemon, &person, "../\u{1b}[31mevil");
    let named = named.args(["--", "touch"]).arg(scene.path("ran")).output().unwrap();
    assert_eq!(named.status.code(), Some(125));
    assert!(!text(&named.stderr).contains('\u{1b}'), "{}", text(&named.stderr));
    assert!(!scene.path("ran").exists(), "what is not recorded is not run");
}

#[test]
fn a_signal_to_it_and_to_its_whole_group_reaches_the_command_once() {
    if lacking("a user of its own") {
        return;
    }
    let scene = Scene::new().unwrap();
    let person = Person::new(&scene, "obsc").unwrap();
    let daemon = service(&scene);
    let file = scene.path("signals");
    let mut observed = attach(&daemon, &person, "group");
    observed.args(["--", PYTHON, &script("signals.py")]).arg(&file).arg("until-term");
    let mut observed = observed.stderr(Stdio::null()).process_group(0).spawn().unwrap();
    let lines = |count: usize| {
        deadline::until(&format!("{count} lines"), LIMIT, || {
            let lines: Vec<String> = fs::read_to_string(&file).ok()?.lines().map(str::to_owned).collect();
            (lines.len() >= count).then_some(lines)
        })
    };
    lines(1);
    let us = Pid::from_raw(observed.id() as i32);
    for (index, signal) in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGUSR1].into_iter().enumerate() {
        killpg(us, signal).unwrap();
        lines(index + 2);
    }
    kill(us, Signal::SIGUSR2).unwrap();
    lines(5);
    // The highest number: read after what is pending, so whatever those would cause has been caused.
    kill(us, Signal::SIGTERM).unwrap();
    assert_eq!(observed.wait().unwrap().code(), Some(0));
    assert_eq!(lines(6)[1..], ["1", "2", "10", "12", "15"]);
}

#[test]
fn on_a_terminal_it_has_the_terminal() {
    if lacking("a user of its own") {
        return;
    }
    let scene = Scene::new().unwrap();
    let person = Person::new(&scene, "obst").unwrap();
    let daemon = service(&scene);
    let file = scene.path("standing.json");
    let mut terminal = person.command(PYTHON);
    terminal.arg(script("terminal.py")).arg(tests::target::observer().unwrap());
    terminal.args([
        "attach",
        "--backend",
        "service",
        "--name",
        "tty",
        "--",
        PYTHON,
        "-I",
        &script("standing.py"),
    ]);
    let output =
        terminal.arg(&file).env("OBSERVER_SOCKET", daemon.socket()).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stdout));
    let standing = written(&file).unwrap();
    assert_ne!(standing["terminal"], "0");
    assert_eq!(standing["process group"], standing["foreground group"]);
    for fd in ["0", "1", "2"] {
        assert!(standing["fds"][fd][0].as_str().unwrap().starts_with("/dev/pts/"), "{}", standing["fds"]);
    }
    assert!(session(&daemon, &person, "tty").kind("exec").next().unwrap()["tty"].is_string());
}

#[test]
fn a_process_of_their_own_is_recorded_and_let_go_of() {
    if lacking("a user of its own") {
        return;
    }
    let scene = Scene::new().unwrap();
    let person = Person::new(&scene, "obsd").unwrap();
    let daemon = service(&scene);
    let file = scene.path("signals");
    let mut running =
        Running::start(person.command(PYTHON).arg(script("signals.py")).arg(&file).arg("until-term"));
    becomes(running.pid(), "python3");
    deadline::until("it is ready", LIMIT, || fs::read(&file).ok().filter(|text| !text.is_empty()));
    let mut observed = observer(&daemon, &person, &["attach", "--backend", "service", "--pid"]);
    let mut observed = observed.arg(running.pid().to_string()).stderr(Stdio::piped()).spawn().unwrap();
    let known = recorded(&daemon, &person);
    assert_eq!(known["pid"], running.pid());
    let pid = Pid::from_raw(running.pid() as i32);
    kill(pid, Signal::SIGHUP).unwrap();
    // What Ctrl-C sends.
    kill(Pid::from_raw(observed.id() as i32), Signal::SIGINT).unwrap();
    let status = observed.wait().unwrap();
    assert_eq!(status.code(), Some(0));
    daemon.idle().unwrap();
    assert!(running.0.try_wait().unwrap().is_none(), "it was only let go of");
    let shown = session(&daemon, &person, known["name"].as_str().unwrap());
    assert_eq!(shown.header["attached"], running.pid());
    assert!(shown.kind("signal").any(|signal| signal["signal"] == 1));
    kill(pid, Signal::SIGTERM).unwrap();
    assert!(running.0.wait().unwrap().success());
}
