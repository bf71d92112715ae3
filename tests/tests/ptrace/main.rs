//! Two sources, one program: what the kernel's probes saw is what the stops saw, wherever the latter does not say that it cannot.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

mod corpus;
mod loaded;
mod released;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use serde_json::{Value, json};
use tests::observe::said;
use tests::privilege::lacking;
use tests::rabbit::Broker;
use tests::sameness::{conversations, differences, facts};
use tests::scene::{Scene, Session};
use tests::venv::Venv;
use tests::{deadline, target};

const LIMIT: Duration = Duration::from_secs(120);
const PYTHON: &str = "/usr/bin/python3";

/// All ways, or those that an unprivileged user has: then the two by ptrace are held against each other.
fn ways() -> &'static [&'static str] {
    if lacking("eBPF, to hold ptrace against it") {
        &["ptrace", FILTERED]
    } else {
        &["ebpf", "ptrace", FILTERED]
    }
}

/// Fails with what only one of them saw.
fn assert_same(what: &str, ebpf: &BTreeSet<String>, ptrace: &BTreeSet<String>) {
    let differences = differences(ebpf, ptrace);
    assert!(differences.is_empty(), "{what}: {} differences:\n{}", differences.len(), differences.join("\n"));
}

/// ptrace with a filter.
const FILTERED: &str = "seccomp";

fn backend(way: &str) -> &str {
    if way == FILTERED { "ptrace" } else { way }
}

/// `way`: a backend, or [`FILTERED`]; the session has that name.
fn attach(scene: &Scene, way: &str) -> Command {
    let mut command = scene.observer().unwrap();
    command.args(["attach", "--quiet", "--name", way, "--backend", backend(way)]).stdin(Stdio::null());
    command.args((way == FILTERED).then_some("--seccomp"));
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("PYTHONHASHSEED", "0");
    command
}

/// Nothing of it is lost, and it is what it says.
fn session(scene: &Scene, way: &str) -> Session {
    let session = scene.session(way).unwrap();
    assert_eq!(session.header["backend"], backend(way));
    assert_eq!(session.kind("lost").count(), 0);
    session
}

/// Runs a command in all ways and holds what they saw against each other.
fn assert_witnesses_agree(words: &[&str], code: i32) {
    let scene = Scene::new().unwrap();
    let mut seen = ways().iter().map(|backend| {
        let mut observed = attach(&scene, backend);
        let mut observed = Running(observed.arg("--").args(words).stdout(Stdio::null()).spawn().unwrap());
        let what = format!("{backend}: {words:?} ends");
        let status = deadline::until(&what, LIMIT, || observed.0.try_wait().unwrap());
        assert_eq!(status.code(), Some(code), "{backend}: {words:?}");
        // A terminal has the number that is free.
        facts(&session(&scene, backend), |fact| {
            let path = fact[1]["path"].as_str().unwrap_or_default();
            (!path.starts_with("/dev/pts/")).then(|| fact.clone())
        })
    });
    let first = seen.next().unwrap();
    assert!(first.len() > 4, "{first:?}");
    for (way, other) in ways().iter().skip(1).zip(seen) {
        assert_same(&format!("{way}: {}", words.join(" ")), &first, &other);
    }
}

fn script(name: &str) -> String {
    target::folder().join(name).to_str().unwrap().to_owned()
}

#[test]
fn ends_are_the_same() {
    let ends = script("ends.py");
    assert_witnesses_agree(&[PYTHON, &ends, "os_exit", "23"], 23);
    assert_witnesses_agree(&[PYTHON, &ends, "exit_in_a_thread", "4"], 4);
    assert_witnesses_agree(&[PYTHON, &ends, "thread_exits"], 0);
    assert_witnesses_agree(&["sh", "-c", "kill -9 $$"], 137);
    assert_witnesses_agree(&["sh", "-c", "trap 'exit 6' USR1; kill -USR1 $$"], 6);
    // A pipeline, a failed command, a directory that is left, and a child that nobody waits for.
    assert_witnesses_agree(
        &[
            "sh",
            "-c",
            "cd /usr; cat </etc/hostname | head -c 1; ./nosuch; (cd share; exec true) & wait; exit 3",
        ],
        3,
    );
}

#[test]
fn what_confuses_a_tracer_confuses_neither() {
    let ways = [
        ("exec_in_a_thread", 11),
        ("leader_first", 12),
        ("stops_itself", 13),
        ("many_threads", 14),
        ("killed_while_busy", 15),
        ("daemon", 16),
        ("empty_argv", 0),
        ("large_environment", 18),
        ("interrupted_read", 19),
        ("zombies", 20),
        ("killed_while_stopped", 21),
        ("vfork", 22),
        ("job_control", 23),
    ];
    for (way, code) in ways {
        assert_witnesses_agree(&[PYTHON, &script("misbehaves.py"), way], code);
    }
}

#[test]
fn signals_of_the_tree_are_the_same() {
    // What a process waits for while it is blocked, and what ends it.
    if lacking("eBPF") {
        return;
    }
    let scene = Scene::new().unwrap();
    let [ebpf, ptrace] = ["ebpf", "ptrace"].map(|backend| {
        let file = scene.path(backend);
        let mut observed = attach(&scene, backend);
        observed.args(["--", PYTHON, &script("signals.py")]).arg(&file).arg("until-term");
        let mut observed = observed.spawn().unwrap();
        let pid = deadline::until("it waits for signals", LIMIT, || {
            fs::read_to_string(&file).ok()?.lines().next()?.strip_prefix("ready ")?.parse::<i32>().ok()
        });
        kill(Pid::from_raw(pid), Signal::SIGUSR1).unwrap();
        deadline::until("it took one", LIMIT, || fs::read_to_string(&file).ok()?.lines().nth(1).map(drop));
        kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
        assert_eq!(observed.wait().unwrap().code(), Some(0));
        let session = session(&scene, backend);
        let signal =
            |event: &Value| json!([event["signal"], event["code"], event["sender"]["pid"], event["group"]]);
        session.of_process(pid as u64, "signal").map(signal).collect::<Vec<_>>()
    });
    assert_eq!(ebpf.len(), 2);
    assert_eq!(ebpf, ptrace);
}

/// Ends with its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

#[test]
fn a_worker_and_its_broker_are_the_same() {
    const MESSAGES: usize = 3;
    if lacking("eBPF") {
        return;
    }
    let venv = Venv::ensure().unwrap();
    let broker = Broker::start(&[]).unwrap();
    let scene = Scene::new().unwrap();
    let [ebpf, ptrace, filtered] = ["ebpf", "ptrace", FILTERED].map(|backend| {
        let script = format!(
            "python send.py minimal_worker:count_words {MESSAGES} needle; exec python -m dramatiq -p 1 -t 1 minimal_worker"
        );
        let mut observed = attach(&scene, backend);
        observed.args(["--", "sh", "-c", &script]).current_dir(target::folder());
        observed.env("PATH", venv.path()).env("BROKER_URL", broker.url());
        let mut observed = Running(observed.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        deadline::until("the messages are acknowledged", LIMIT, || {
            let acks = scene.session(backend).ok()?;
            let acks = acks.kind("output").filter(|event| event["bytes"]["text"].as_str().is_some_and(|text| text.contains("counted")));
            (acks.count() >= MESSAGES).then_some(())
        });
        kill(Pid::from_raw(observed.0.id() as i32), Signal::SIGTERM).unwrap();
        assert_eq!(observed.0.wait().unwrap().code(), Some(0), "{backend}");
        // pika wakes itself by pairs of sockets on ports of the kernel's choice.
        let broker = |fact: &Value| fact[1]["peer"]["port"].is_null() || fact[1]["peer"]["port"] == broker.port();
        let volatile = ["\"output\"", "/tmp/", "/dev/shm/"];
        let facts = facts(&session(&scene, backend), |fact| {
            let text = fact.to_string();
            (broker(fact) && !volatile.iter().any(|part| text.contains(part))).then(|| fact.clone())
        });
        (facts, conversations(scene.observer().unwrap().args(["show", backend])).unwrap())
    });
    assert!(ebpf.0.len() > 300, "{}", ebpf.0.len());
    assert_same("worker", &ebpf.0, &ptrace.0);
    assert!(ebpf.1.iter().any(|said| said.contains("basic.ack")), "{:?}", ebpf.1);
    assert_eq!(ebpf.1, ptrace.1);
    assert_same("filtered worker", &ebpf.0, &filtered.0);
    assert_eq!(ebpf.1, filtered.1);
}

#[test]
fn what_a_filtered_command_leaves_running_is_ended_with_it_and_a_thread_that_sits_is_seen() {
    let scene = Scene::new().unwrap();
    // A child in a call that is recorded at neither end, and its parent, which stays until that was told of.
    let code = "import os, signal, sys\nif os.fork() == 0:\n    signal.pause()\nsignal.pause()";
    let mut observed = attach(&scene, FILTERED);
    observed.args(["--for", "4s", "--", PYTHON, "-c", code]);
    assert_eq!(observed.status().unwrap().code(), Some(143));
    let session = session(&scene, FILTERED);
    let sat: BTreeSet<u64> = session
        .kind("stuck")
        .filter(|event| event["syscall"] == "pause")
        .filter_map(|event| event["pid"].as_u64())
        .collect();
    assert_eq!(sat.len(), 2, "{:?}", session.kind("stuck").collect::<Vec<_>>());
    let ended: BTreeSet<u64> = session
        .kind("exit")
        .filter(|event| event["signal"] == Signal::SIGTERM as i32)
        .filter_map(|event| event["pid"].as_u64())
        .collect();
    assert_eq!(ended, sat);
}

#[test]
fn imports_are_inferred_and_said_to_be() {
    let scene = Scene::new().unwrap();
    let status = attach(&scene, "ptrace").args(["--", PYTHON, "-c", "import colorsys"]).status().unwrap();
    assert!(status.success());
    let mut show = scene.observer().unwrap();
    let output = show.args(["show", "ptrace", "--imports", "--format", "json"]).output().unwrap();
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    let process = &shown["processes"][0];
    assert_eq!(process["interpreter"]["imports"], "inferred", "{}", process["interpreter"]);
    assert!(process["interpreter"]["why"].as_str().unwrap().contains("ptrace"));
    let modules = process["modules"].as_array().unwrap();
    let module = modules.iter().find(|module| module["name"] == "colorsys").unwrap();
    assert_eq!(module["inferred"], true);
}

/// An unprivileged user's program, and what `observer attach --pid` of the same user says of it.
fn refused_as_nobody(scene: &Scene, prelude: &str) -> String {
    let nobody = |program: &str| {
        let setpriv =
            ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "--inh-caps=-all", "--"];
        let words: &[&str] = if geteuid().is_root() { &setpriv } else { &["env"] };
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg(program).stdin(Stdio::null());
        command
    };
    let observer = scene.path("observer");
    fs::copy(target::observer().unwrap(), &observer).unwrap();
    fs::set_permissions(&observer, PermissionsExt::from_mode(0o755)).unwrap();
    let code = format!("import ctypes, signal\n{prelude}\nprint('ready', flush=True)\nsignal.pause()");
    let target = nobody(PYTHON).args(["-c", &code]).stdout(Stdio::piped()).spawn().unwrap();
    let mut target = Running(target);
    let mut word = String::new();
    BufReader::new(target.0.stdout.take().unwrap()).read_line(&mut word).unwrap();
    let output = nobody(observer.to_str().unwrap())
        .arg("--state-dir")
        .arg(scene.path("own"))
        .args(["attach", "--backend", "ptrace", "--pid", &target.0.id().to_string()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(125));
    said(&output)
}

#[test]
fn what_cannot_be_traced_is_said_with_its_reason() {
    let scene = Scene::new().unwrap();
    let text = refused_as_nobody(&scene, "ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)");
    assert!(text.contains("it is not dumpable") && text.contains("sudo"), "{text}");

    // Another tracer is there already: an observer.
    let mut first = attach(&scene, "ptrace");
    let file = scene.path("signals");
    first.args(["--", PYTHON, &script("signals.py")]).arg(&file).arg("until-term");
    let first = Running(first.spawn().unwrap());
    let pid = deadline::until("it waits for signals", LIMIT, || {
        fs::read_to_string(&file).ok()?.lines().next()?.strip_prefix("ready ")?.parse::<i32>().ok()
    });
    let mut second = scene.observer().unwrap();
    second.args(["attach", "--backend", "ptrace", "--pid", &pid.to_string()]).stdin(Stdio::null());
    let output = second.output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    let text = said(&output);
    assert!(text.contains(&format!("process {} traces it already", first.0.id())), "{text}");
}
