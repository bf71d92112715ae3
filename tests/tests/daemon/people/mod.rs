//! Several users on one machine: each has their own recorded as if the service were not there, and nobody gets at what is another's.

mod attach;
mod line;
mod others;
mod races;
mod rules;

use std::ffi::OsStr;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};
use tests::daemon::Daemon;
use tests::deadline;
use tests::person::Person;
use tests::scene::{Scene, Session};
use tests::target;

use super::LIMIT;

/// An interpreter that every user may run.
const PYTHON: &str = "/usr/bin/python3";

fn script(name: &str) -> String {
    target::folder().join(name).to_str().unwrap().to_owned()
}

/// A service that watches for nothing by itself.
fn service(scene: &Scene) -> Daemon {
    Daemon::start(&scene.path(""), "rules = []\n").unwrap()
}

/// `observer` as this person, who asks this service.
fn observer<S: AsRef<OsStr>>(daemon: &Daemon, person: &Person, words: &[S]) -> Command {
    let mut observer = person.command(target::observer().unwrap());
    observer.args(words).env("OBSERVER_SOCKET", daemon.socket()).stdin(Stdio::null()).current_dir("/");
    observer
}

/// `observer attach` by the service as this person; `--` and the command, or options, are to follow.
fn attach(daemon: &Daemon, person: &Person, name: &str) -> Command {
    observer(daemon, person, &["attach", "--backend", "service", "--name", name])
}

/// A verb on what the service has, as this person.
fn verb(daemon: &Daemon, person: &Person, words: &[&str]) -> Output {
    observer(daemon, person, words).arg("--state-dir").arg(daemon.base()).output().unwrap()
}

/// A session as its owner is shown it.
fn session(daemon: &Daemon, person: &Person, name: &str) -> Session {
    Session::of(observer(daemon, person, &["show", name]).arg("--state-dir").arg(daemon.base())).unwrap()
}

/// What `observer ls` tells this person.
fn sessions(daemon: &Daemon, person: &Person) -> Vec<Value> {
    let output = verb(daemon, person, &["--format", "json", "ls"]);
    let mut listed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let Value::Array(sessions) = listed["sessions"].take() else { panic!("no sessions in {listed}") };
    sessions
}

/// What the service answers this person to these requests, each on a connection of its own.
fn ask(daemon: &Daemon, person: &Person, requests: &[Value]) -> Vec<Value> {
    let mut knocks = person.command(PYTHON);
    knocks.args(["-I", &script("knocks.py")]).arg(daemon.socket()).arg("lines");
    let mut knocks = knocks.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = knocks.stdin.take().unwrap();
    for request in requests {
        writeln!(lines, "{request}").unwrap();
    }
    drop(lines);
    let output = knocks.wait_with_output().unwrap();
    let answers: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(answers.len(), requests.len(), "{requests:?}: {answers:?}");
    answers
}

/// One request.
fn ask_one(daemon: &Daemon, person: &Person, request: Value) -> Value {
    ask(daemon, person, &[request]).remove(0)
}

/// Waits until something is recorded of this person, and gives it back.
fn recorded(daemon: &Daemon, person: &Person) -> Value {
    deadline::until("it is recorded", LIMIT, || {
        let status = daemon.status().ok()?;
        status["recordings"].as_array()?.iter().find(|one| one["uid"] == json!(person.uid)).cloned()
    })
}

/// The directory of a person's sessions.
fn place(daemon: &Daemon, person: &Person) -> PathBuf {
    daemon.base().join("users").join(person.uid.to_string())
}

/// Ended with the test.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// Waits until a process has become the program of this name.
fn becomes(pid: u32, name: &str) {
    deadline::until(&format!("process {pid} is {name}"), LIMIT, || {
        let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        (comm.trim_end() == name).then_some(())
    });
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
