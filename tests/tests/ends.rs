//! How things end, who ended them, and what a thread waits on when nothing ends.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail like the test")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tests::privilege::lacking;
use tests::scene::{Scene, Session};
use tests::{deadline, target};

const LIMIT: Duration = Duration::from_secs(60);
const PYTHON: &str = "/usr/bin/python3";

fn way(scene: &Scene, name: &str, words: &[&str]) -> Command {
    let mut command = scene.attach(name).unwrap();
    command.args(["--quiet", "--", PYTHON]).arg(target::folder().join("ends.py")).args(words);
    command
}

/// Ends with its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // As an observer that is killed lets its command live, the command comes first.
        let pid = self.0.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
            let _ = kill(Pid::from_raw(child), Signal::SIGKILL);
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// That the source says of itself that it cannot see this.
fn assert_unseen(session: &Session, what: &str) {
    let unseen = session.header["sources"][0]["unseen"].as_array().unwrap();
    assert!(unseen.iter().any(|line| line.as_str().unwrap().contains(what)), "{unseen:?}");
}

fn only<'a>(session: &'a Session, pid: u64, kind: &'a str) -> &'a Value {
    let found: Vec<&Value> = session.of_process(pid, kind).collect();
    assert_eq!(found.len(), 1, "{kind} of {pid}: {found:?}");
    found[0]
}

/// The process of `ends.py`.
fn python(session: &Session, way: &str) -> u64 {
    session.process_with(way).unwrap()
}

#[test]
fn an_exit_without_a_word_is_seen_with_its_status() {
    let scene = Scene::new().unwrap();
    assert_eq!(way(&scene, "silent", &["os_exit", "23"]).status().unwrap().code(), Some(23));
    let session = scene.session("silent").unwrap();
    let pid = python(&session, "os_exit");
    let call = only(&session, pid, "exit-call");
    assert_eq!(
        (call["code"].as_i64(), call["group"].as_bool(), number(&call["tid"])),
        (Some(23), Some(true), pid)
    );
    let exit = only(&session, pid, "exit");
    assert_eq!(
        (exit["code"].as_i64(), exit["signal"].as_i64(), exit["core_dumped"].as_bool()),
        (Some(23), None, Some(false))
    );
    assert_eq!(session.of_process(pid, "output").count(), 0);
}

#[test]
fn a_signal_that_is_handled_is_said_to_be_delivered() {
    let scene = Scene::new().unwrap();
    let line = "trap 'exit 6' USR1; kill -USR1 $$";
    assert_eq!(
        scene.attach("handled").unwrap().args(["--quiet", "--", "sh", "-c", line]).status().unwrap().code(),
        Some(6)
    );
    let session = scene.session("handled").unwrap();
    let pid = session.process_with(line).unwrap();
    let delivered = only(&session, pid, "signal-delivered");
    assert_eq!((delivered["signal"].as_i64(), delivered["handled"].as_bool()), (Some(10), Some(true)));
    assert_eq!(only(&session, pid, "signal")["sender"]["pid"], pid);
    assert_eq!(only(&session, pid, "exit")["code"], 6);
}

#[test]
fn an_exit_called_by_another_thread_names_that_thread() {
    let scene = Scene::new().unwrap();
    assert_eq!(way(&scene, "by-thread", &["exit_in_a_thread", "4"]).status().unwrap().code(), Some(4));
    let session = scene.session("by-thread").unwrap();
    let pid = python(&session, "exit_in_a_thread");
    let thread = number(&only(&session, pid, "thread")["child"]);
    assert_ne!(thread, pid);
    let call = only(&session, pid, "exit-call");
    assert_eq!(
        (number(&call["tid"]), call["group"].as_bool(), call["code"].as_i64()),
        (thread, Some(true), Some(4))
    );
    assert_eq!(only(&session, pid, "exit")["code"], 4);
    assert_eq!(session.kind("signal-delivered").count(), 0, "nobody was killed");
}

#[test]
fn a_thread_that_ends_is_told_from_a_process_that_does() {
    let scene = Scene::new().unwrap();
    assert!(way(&scene, "thread", &["thread_exits"]).status().unwrap().success());
    let session = scene.session("thread").unwrap();
    let pid = python(&session, "thread_exits");
    let thread = &only(&session, pid, "thread")["child"];
    let ended = only(&session, pid, "thread-exit");
    assert_eq!((&ended["tid"], ended["code"].as_i64()), (thread, Some(0)));
    let exit = only(&session, pid, "exit");
    assert!(number(&exit["at_ns"]) > number(&ended["at_ns"]));
}

#[test]
fn who_killed_it_is_named_with_its_command_line() {
    let scene = Scene::new().unwrap();
    for (signal, number_of) in [("TERM", 15), ("KILL", 9)] {
        let name = format!("killed-by-{signal}");
        let file = scene.path(&name);
        let mut observed =
            Running(way(&scene, &name, &["wait_for_signal", file.to_str().unwrap()]).spawn().unwrap());
        let pid = deadline::until("it waits", LIMIT, || fs::read_to_string(&file).ok()?.parse::<u64>().ok());
        // It waits: of who is gone, nobody can tell the command line.
        let line = format!("import os, sys; os.kill({pid}, {number_of}); sys.stdin.read()");
        let mut killer = Command::new(PYTHON);
        killer.args(["-c", &line, "the killer"]).stdin(Stdio::piped());
        let mut killer = killer.spawn().unwrap();
        let killer_pid = killer.id();
        assert_eq!(observed.0.wait().unwrap().code(), Some(128 + number_of));
        killer.wait().unwrap();
        let session = scene.session(&name).unwrap();
        // No tracer sees KILL come, and the session says so.
        if number_of == 9 && target::backend() == "ptrace" {
            assert_eq!(session.of_process(pid, "signal").count(), 0);
            assert_unseen(&session, "who sends SIGKILL");
            assert_eq!(only(&session, pid, "exit")["signal"], 9);
            continue;
        }
        let sent = only(&session, pid, "signal");
        assert_eq!(
            (sent["signal"].as_i64(), sent["code"].as_i64(), sent["group"].as_bool()),
            (Some(number_of.into()), Some(0), Some(true))
        );
        assert_eq!(sent["sender"]["pid"], killer_pid);
        assert_eq!(sent["sender"]["name"], "python3");
        assert_eq!(sent["sender"]["cmdline"], format!("{PYTHON} -c {line} the killer"));
        let exit = only(&session, pid, "exit");
        assert_eq!((exit["code"].as_i64(), exit["signal"].as_i64()), (None, Some(number_of.into())));
        // The kernel turns every deadly signal into KILL for the threads it ends; nobody sent that.
        assert_eq!(session.of_process(pid, "signal-delivered").count(), 0);
    }
}

#[test]
fn a_crash_says_its_signal_and_whether_core_was_dumped() {
    let scene = Scene::new().unwrap();
    let output = way(&scene, "crash", &["dump"]).current_dir(scene.path("")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8(output.stdout).unwrap();
    let told: Vec<u64> = told.split_whitespace().map(|word| word.parse().unwrap()).collect();
    let [child, signal, dumped] = told[..] else { panic!("{told:?}") };
    assert_eq!(signal, 11);
    let session = scene.session("crash").unwrap();
    let exit = only(&session, child, "exit");
    assert_eq!((exit["signal"].as_i64(), exit["core_dumped"].as_bool()), (Some(11), Some(dumped == 1)));
    let fault = only(&session, child, "signal");
    assert!(fault["code"].as_i64().unwrap() > 0, "the kernel's own: {fault}");
    assert_eq!(fault["sender"]["absent"], "none");
}

/// A memory control group of the test's own.
struct MemoryGroup(PathBuf);

impl MemoryGroup {
    fn new(limit: &str) -> Self {
        let name = format!("observer-test-{}", std::process::id());
        let one = Path::new("/sys/fs/cgroup/memory");
        let (folder, limits) = if one.join("memory.limit_in_bytes").exists() || one.join("tasks").exists() {
            (one.join(name), &["memory.limit_in_bytes"][..])
        } else {
            let root = Path::new("/sys/fs/cgroup");
            fs::write(root.join("cgroup.subtree_control"), "+memory").unwrap();
            (root.join(name), &["memory.max", "memory.swap.max"][..])
        };
        fs::create_dir(&folder).unwrap();
        let group = Self(folder);
        for file in limits {
            // There is no file for swap where there is none.
            let path = group.0.join(file);
            if path.exists() || *file != "memory.swap.max" {
                fs::write(path, if file.contains("swap") { "0" } else { limit }).unwrap();
            }
        }
        group
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // A group can be removed once the last process in it is reaped.
        let _ = deadline::poll("the control group is removed", LIMIT, || fs::remove_dir(&self.0).ok());
    }
}

#[test]
fn a_victim_of_the_memory_killer_is_named_as_one() {
    if lacking("a control group of its own") {
        return;
    }
    let scene = Scene::new().unwrap();
    let group = MemoryGroup::new("50000000");
    let join = format!("echo $$ >{}/cgroup.procs; exec {PYTHON} \"$@\"", group.0.display());
    let mut observed = scene.attach("victim").unwrap();
    observed
        .args(["--quiet", "--", "sh", "-c", &join, "sh"])
        .arg(target::folder().join("ends.py"))
        .arg("eat");
    assert_eq!(observed.status().unwrap().code(), Some(137));
    let session = scene.session("victim").unwrap();
    let pid = python(&session, "eat");
    match target::backend().as_str() {
        "ptrace" => assert_unseen(&session, "the out-of-memory killer"),
        _ => drop(only(&session, pid, "oom-victim")),
    }
    assert_eq!(only(&session, pid, "exit")["signal"], 9);
}

/// Starts a way of waiting, waits until the session says that a thread is stuck in `call`, lets it go on, and returns the session and the
/// word the target said first.
fn stuck_in(scene: &Scene, way_name: &str, argument: &str, call: &str) -> (Session, String) {
    let mut command = way(scene, way_name, &[way_name, argument]);
    let mut observed = Running(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(observed.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let stuck_thread = |session: &Session| {
        let Some(pid) = session.process_with(way_name) else { return false };
        session.of_process(pid, "stuck").any(|stuck| stuck["syscall"] == call && stuck["tid"] != pid)
    };
    deadline::until(&format!("a thread is stuck in {call}"), LIMIT, || {
        scene.session(way_name).ok().filter(stuck_thread)
    });
    writeln!(observed.0.stdin.take().unwrap(), "go on").unwrap();
    assert!(observed.0.wait().unwrap().success());
    (scene.session(way_name).unwrap(), line.trim().to_owned())
}

#[test]
fn a_thread_that_sits_in_a_call_is_told_with_what_it_waits_on_and_when_that_ends() {
    let scene = Scene::new().unwrap();
    let lock = scene.path("lock");
    let cases = [
        ("read_pipe", "", "read", "pipe:[{}]", 4),
        ("receive", "", "recvfrom", "socket:[{}]", 4),
        ("flock", lock.to_str().unwrap(), "flock", "{}", 0),
    ];
    for (name, argument, call, on, result) in cases {
        let (session, word) = stuck_in(&scene, name, argument, call);
        let pid = python(&session, name);
        let thread = &only(&session, pid, "thread")["child"];
        let stuck: Vec<&Value> =
            session.of_process(pid, "stuck").filter(|stuck| stuck["tid"] == *thread).collect();
        assert_eq!(stuck.len(), 1, "said once: {stuck:?}");
        let stuck = stuck[0];
        assert_eq!(stuck["on"], on.replace("{}", &word), "{call}");
        let since = number(&stuck["since_ns"]);
        let started = number(&only(&session, pid, "thread")["at_ns"]);
        let at = number(&stuck["at_ns"]);
        assert!(
            started <= since && at - since > 1_000_000_000,
            "{call}: since {since}, thread {started}, seen {at}"
        );
        let unstuck: Vec<&Value> =
            session.of_process(pid, "unstuck").filter(|unstuck| unstuck["tid"] == *thread).collect();
        assert_eq!(unstuck.len(), 1, "{unstuck:?}");
        assert_eq!((unstuck[0]["syscall"].as_str(), number(&unstuck[0]["since_ns"])), (Some(call), since));
        assert_eq!(unstuck[0]["result"].as_i64(), Some(result), "{call}");
        assert!(number(&unstuck[0]["at_ns"]) > at);
    }
}

#[test]
fn a_stopped_process_is_said_to_be_stopped_until_it_goes_on() {
    let scene = Scene::new().unwrap();
    let file = scene.path("waits");
    let mut observed =
        Running(way(&scene, "stopped", &["wait_for_signal", file.to_str().unwrap()]).spawn().unwrap());
    let pid = deadline::until("it waits", LIMIT, || fs::read_to_string(&file).ok()?.parse::<i32>().ok());
    let states = |session: &Session| -> Vec<String> {
        let states =
            session.of_process(pid as u64, "state").map(|state| state["state"].as_str().unwrap().to_owned());
        states.collect()
    };
    kill(Pid::from_raw(pid), Signal::SIGSTOP).unwrap();
    deadline::until("the session says T", LIMIT, || {
        (states(&scene.session("stopped").ok()?) == ["T"]).then_some(())
    });
    kill(Pid::from_raw(pid), Signal::SIGCONT).unwrap();
    let after = deadline::until("the session says it goes on", LIMIT, || {
        let states = states(&scene.session("stopped").ok()?);
        (states.len() == 2).then_some(states)
    });
    assert!(["R", "S"].contains(&after[1].as_str()), "{after:?}");
    assert_eq!(observed.0.try_wait().unwrap(), None, "a stopped command has not ended");
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    assert_eq!(observed.0.wait().unwrap().code(), Some(143));
}

#[test]
fn the_other_ends_of_standard_pipes_are_named() {
    let scene = Scene::new().unwrap();
    // We hold the other ends of the pipes we start the observer with, and nobody else. Between its fork and its program a child of another
    // test has them too: then once more.
    let mut turn = 0;
    deadline::until("we alone are named as holders", LIMIT, || {
        turn += 1;
        let name = format!("ours-{turn}");
        let mut command = scene.attach(&name).unwrap();
        command.args(["--quiet", "--", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut observed = Running(command.spawn().unwrap());
        deadline::until("the session shows the command", LIMIT, || {
            scene.session(&name).ok().filter(|session| session.kind("exec").count() == 1)
        });
        drop(observed.0.stdin.take());
        assert!(observed.0.wait().unwrap().success());
        let session = scene.session(&name).unwrap();
        let exec = session.kind("exec").next().unwrap();
        let alone = [0, 1].iter().all(|fd| {
            let end = &exec["stdio"][fd];
            assert_eq!(end["what"], "pipe", "{end}");
            let holders: Vec<u64> =
                end["other_end"].as_array().unwrap().iter().map(|holder| number(&holder["pid"])).collect();
            assert!(holders.contains(&std::process::id().into()), "{fd}: {holders:?}");
            holders == [u64::from(std::process::id())]
        });
        alone.then_some(())
    });

    // A shell's pipe is held by the shell's other child.
    let line = "cat </dev/zero | head -c 1000000 >/dev/null";
    assert!(
        scene.attach("shell").unwrap().args(["--quiet", "--", "sh", "-c", line]).status().unwrap().success()
    );
    let session = scene.session("shell").unwrap();
    let (cat, head) = (session.process_with("cat").unwrap(), session.process_with("head").unwrap());
    let end = |pid: u64, fd: usize| &session.of_process(pid, "exec").next().unwrap()["stdio"][fd];
    assert_eq!(end(cat, 1)["inode"], end(head, 0)["inode"]);
    assert_eq!((&end(cat, 1)["what"], &end(head, 0)["what"]), (&"pipe".into(), &"pipe".into()));
    // A relay like dramatiq's: the parent reads what its child writes.
    let script = "import subprocess\nchild = subprocess.Popen(['cat'], stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n\
                  input(); child.communicate(b'')";
    let mut command = scene.attach("relay").unwrap();
    command.args(["--quiet", "--", PYTHON, "-c", script]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut observed = Running(command.spawn().unwrap());
    deadline::until("the session shows the child", LIMIT, || {
        scene.session("relay").ok().filter(|session| session.process_with("cat").is_some())
    });
    writeln!(observed.0.stdin.take().unwrap()).unwrap();
    assert!(observed.0.wait().unwrap().success());
    let session = scene.session("relay").unwrap();
    let (parent, child) = (session.process_with(script).unwrap(), session.process_with("cat").unwrap());
    for fd in [0, 1] {
        let end = &session.of_process(child, "exec").next().unwrap()["stdio"][fd];
        assert_eq!(end["other_end"], serde_json::json!([{"pid": parent, "name": "python3"}]), "{fd}");
    }
}
