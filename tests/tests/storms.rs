//! Many at once, very short, very large: nothing vital is lost, and what is lost is counted.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use serde_json::Value;
use tempfile::NamedTempFile;
use tests::observe::{Event, State, said};
use tests::privilege::skip;
use tests::target;
use tests::venv::Venv;

/// A process as its parent knew it.
#[derive(Debug)]
struct Child {
    pid: u32,
    parent: u32,
    program: String,
    code: i64,
}

fn children(result: &NamedTempFile) -> Vec<Child> {
    let lines: Vec<(u32, u32, String, i64)> =
        serde_json::from_slice(&fs::read(result.path()).unwrap()).unwrap();
    let child = |(pid, parent, program, code)| Child { pid, parent, program, code };
    lines.into_iter().map(child).collect()
}

/// A listener that takes whoever comes; its thread ends with the test.
fn welcoming() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || listener.incoming().for_each(drop));
    port
}

fn run(mut command: Command) {
    let output = command
        .current_dir("/")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONHASHSEED", "0")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}: {}", output.status, said(&output));
}

fn python(script: &str, arguments: &[&str]) -> Vec<String> {
    let python = Venv::ensure().unwrap().python();
    let script = target::folder().join(script);
    let words = [python.to_str().unwrap(), script.to_str().unwrap()];
    words.iter().chain(arguments).map(|word| (*word).to_owned()).collect()
}

/// Checks that each child was recorded from fork to exit, once, with its parent, its program, its arguments and its connection.
fn all_there(events: &[Event], children: &[Child], port: u16) {
    let mut by_pid: BTreeMap<u32, Vec<&Event>> = BTreeMap::new();
    let mut parents: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for event in events {
        by_pid.entry(event.pid).or_default().push(event);
        if event.kind == "fork" {
            parents.entry(event.int("child").unwrap() as u32).or_default().push(event.pid);
        }
    }
    for child in children {
        let Child { pid, parent, program, code } = child;
        let of_kind = |kind: &str| -> Vec<&Event> {
            by_pid.get(pid).into_iter().flatten().copied().filter(|event| event.kind == kind).collect()
        };
        assert_eq!(parents.get(pid), Some(&vec![*parent]), "{child:?}");
        let (execs, failed) = (of_kind("exec"), of_kind("exec-failed"));
        if *code == 127 {
            assert!(execs.is_empty(), "{child:?}: {execs:?}");
            assert_eq!(failed.len(), 1, "{child:?}");
            assert_eq!((failed[0].text("path"), failed[0].int("errno")), (Some(program.as_str()), Some(2)));
        } else {
            assert!(failed.is_empty(), "{child:?}: {failed:?}");
            assert_eq!(execs.len(), 1, "{child:?}");
            assert_eq!(execs[0].text("path"), Some(program.as_str()));
            assert_eq!(execs[0].int("ppid"), Some(i64::from(*parent)), "{child:?}");
            assert!(execs[0].texts("argv").is_some(), "{child:?}");
        }
        let exits = of_kind("exit");
        assert_eq!(exits.len(), 1, "{child:?}");
        assert_eq!((exits[0].int("code"), exits[0].int("signal")), (Some(*code), None), "{child:?}");
        // The shell's own child does not connect.
        let connects = of_kind("connect");
        let wanted = usize::from(children.iter().all(|other| other.pid != *parent));
        assert_eq!(connects.len(), wanted, "{child:?}");
        assert!(
            connects.iter().all(|event| event.data["peer"]["port"] == port && event.int("errno") == Some(0))
        );
        // By time: a program whose environment is long in coming may be told of after its end.
        let at = |events: &[&Event]| events.first().map(|event| event.at_ns);
        assert!(execs.is_empty() || at(&connects) <= at(&execs), "{child:?}");
        assert!(at(&execs) < at(&exits), "{child:?}");
    }
    let known: BTreeSet<u32> = children.iter().map(|child| child.pid).collect();
    assert_eq!(known.len(), children.len(), "a process id came twice");
}

/// What was lost, which may only be what a flood may evict: file calls, output and the bytes of streams.
fn lost_but_not_vital(state: &State) -> BTreeMap<String, i64> {
    let lost = state.lost().unwrap();
    assert!(
        lost.keys().all(|what| matches!(what.as_str(), "file" | "output" | "data" | "slow-call")),
        "{lost:?}"
    );
    lost
}

/// A storm needs a processor, and its observer another: two storms at once would test the scheduler.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

const VITAL: &[&str] = &["fork", "exec", "exec-failed", "exit", "connect"];

#[test]
fn five_hundred_short_processes_lose_nothing() {
    let _one = one_at_a_time();
    let port = welcoming();
    let result = NamedTempFile::new().unwrap();
    let state = State::new().unwrap();
    let words = python("children.py", &["500", &port.to_string(), result.path().to_str().unwrap()]);
    run(state.attach(&[], &words).unwrap());
    let children = children(&result);
    assert_eq!(children.len(), 600, "a fifth of them are shells with a child of their own");
    all_there(&state.events(VITAL).unwrap(), &children, port);
    lost_but_not_vital(&state);
}

#[test]
fn programs_with_huge_environments_evict_nothing_vital() {
    let _one = one_at_a_time();
    let port = welcoming();
    let result = NamedTempFile::new().unwrap();
    let state = State::new().unwrap();
    let words = python("children.py", &["60", &port.to_string(), result.path().to_str().unwrap()]);
    let mut command = state.attach(&[], &words).unwrap();
    command.envs((0..12).map(|number| (format!("LARGE_{number}"), noise(number, 120_000))));
    run(command);
    let events = state.events(VITAL).unwrap();
    all_there(&events, &children(&result), port);
    // Of an environment a part may be lost. Then it is said how much, and counted.
    let lost = state.lost().unwrap();
    let bulk = ["file", "output", "data", "slow-call", "arguments"];
    assert!(lost.keys().all(|what| bulk.contains(&what.as_str())), "{lost:?}");
    let cut: Vec<&Event> =
        events.iter().filter(|event| event.kind == "exec" && event.texts("env").is_none()).collect();
    assert!(cut.iter().all(|event| event.data["env"]["missing_bytes"].as_i64() > Some(0)));
    assert_eq!(cut.is_empty(), !lost.contains_key("arguments"), "{lost:?}");
}

#[test]
fn a_process_of_a_millisecond_is_recorded_completely() {
    let folder = tempfile::tempdir().unwrap();
    let words = ["/bin/true", "one", "", "two words", "caf\u{e9}\n"];
    let state = State::new().unwrap();
    let mut command = state.attach(&[], &words).unwrap();
    command.env_clear().env("ONE", "1").env("EMPTY", "").current_dir(folder.path());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}: {}", output.status, said(&output));

    let shown = state.show(&["--all", "--env"]).unwrap();
    let of_kind = |kind: &str| -> Vec<Value> {
        let events = shown["events"].as_array().unwrap().iter();
        events.filter(|event| event["kind"] == kind).cloned().collect()
    };
    let [exec] = of_kind("exec").try_into().unwrap();
    assert_eq!(exec["path"], "/bin/true");
    assert_eq!(exec["argv"], Value::from(words.to_vec()));
    let mut env: Vec<&str> =
        exec["env"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    env.sort_unstable();
    assert_eq!(env, ["EMPTY=", "ONE=1"]);
    assert_eq!(exec["cwd"], folder.path().to_str().unwrap());
    let [exit] = of_kind("exit").try_into().unwrap();
    assert_eq!((&exit["code"], &exit["signal"]), (&Value::from(0), &Value::Null));
    assert_eq!(exit["pid"], exec["pid"]);
    let took_ns = exit["at_ns"].as_u64().unwrap() - exec["at_ns"].as_u64().unwrap();
    assert!(took_ns < 50_000_000, "{took_ns} ns are no short life");
}

/// `len` bytes that do not repeat, and in which nothing looks like a secret.
fn noise(seed: usize, len: usize) -> String {
    let mut state = seed as u64 ^ 0x9e37_79b9_7f4a_7c15;
    let letter = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'a' + ((state >> 40) % 26) as u8)
    };
    std::iter::repeat_with(letter).take(len).collect()
}

/// Runs a program with this environment and compares what was recorded of it; secrets are given with an empty name for their mark.
fn recorded_whole(environment: &[(String, String)], secrets: &BTreeSet<String>) {
    let state = State::new().unwrap();
    let mut command = state.attach(&[], &["/bin/true"]).unwrap();
    command.env_clear().envs(environment.iter().map(|(name, value)| (name, value)));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}: {}", output.status, said(&output));
    assert_eq!(state.lost().unwrap(), BTreeMap::new());
    let execs = state.events(&["exec"]).unwrap();
    assert_eq!(execs.len(), 1);
    let recorded: BTreeMap<&str, &str> =
        execs[0].texts("env").unwrap().into_iter().map(|one| one.split_once('=').unwrap()).collect();
    assert_eq!(recorded.len(), environment.len());
    for (name, value) in environment {
        let recorded = recorded[name.as_str()];
        if secrets.contains(name) {
            assert!(
                recorded.starts_with("«redacted:") && recorded.ends_with('»'),
                "{name} is {recorded:.80}"
            );
        } else {
            // Not assert_eq: a failure need not print a megabyte.
            assert!(
                recorded == value,
                "{name} is not what it was, {} bytes of {}",
                recorded.len(),
                value.len()
            );
        }
    }
    let raw = state.raw().unwrap();
    for (_, value) in environment.iter().filter(|(name, _)| secrets.contains(name)) {
        let start = &value.as_bytes()[..value.len().min(24)];
        assert!(!raw.windows(start.len()).any(|bytes| bytes == start), "a secret is on the disk");
    }
}

#[test]
fn an_environment_of_a_megabyte_and_a_half_is_recorded_byte_for_byte() {
    // MAX_ARG_STRLEN (execve(2)): 128 KiB for one string.
    let mut environment: Vec<(String, String)> =
        (0..12).map(|number| (format!("LARGE_{number}"), noise(number, 131_000))).collect();
    environment.push(("DB_PASSWORD".into(), noise(77, 40)));
    environment.push(("API_KEY".into(), noise(78, 2_000)));
    environment.push(("UNICODE".into(), "caf\u{e9} \u{1f407}\n\t\u{1b}[1m".into()));
    recorded_whole(&environment, &["DB_PASSWORD".to_owned(), "API_KEY".to_owned()].into());
}

#[test]
fn an_environment_of_thirty_thousand_variables_is_recorded_byte_for_byte() {
    let mut environment: Vec<(String, String)> =
        (0..30_000).map(|number| (format!("V{number}"), noise(number, number % 40))).collect();
    environment.push(("SESSION_TOKEN".into(), noise(99_999, 30)));
    recorded_whole(&environment, &["SESSION_TOKEN".to_owned()].into());
}

/// What there is of the file calls of a run.
#[derive(Debug)]
struct Storm {
    recorded: i64,
    /// Of those, opens of the flood's file.
    opens: i64,
    lost: i64,
}

/// Runs the program with so many opens, while so many children come and go.
fn storm(opens: usize, children_count: usize, stop: bool) -> Storm {
    let port = welcoming();
    let result = NamedTempFile::new().unwrap();
    let state = State::new().unwrap();
    let arguments = [
        opens.to_string(),
        children_count.to_string(),
        port.to_string(),
        result.path().to_str().unwrap().to_owned(),
    ];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(stop.then_some("stop")).collect();
    run(state.attach(&[], &python("storm.py", &arguments)).unwrap());

    all_there(&state.events(VITAL).unwrap(), &children(&result), port);
    let lost = lost_but_not_vital(&state);
    let files = state.events(&["open", "stat", "access", "readlink", "scan", "chdir"]).unwrap();
    let storm = target::folder().join("storm.py");
    let path = std::str::from_utf8(storm.as_os_str().as_bytes()).unwrap();
    let flood = files.iter().filter(|event| event.kind == "open" && event.text("path") == Some(path)).count();
    let lost = lost.get("file").copied().unwrap_or_default();
    Storm { recorded: files.len() as i64, opens: flood as i64, lost }
}

#[test]
fn in_a_flood_of_opens_every_one_is_recorded_or_counted_and_nothing_vital_is_lost() {
    let _one = one_at_a_time();
    // What else is done is the same in every run, so a run without the flood says how many file calls that are.
    let quiet = storm(0, 200, false);
    let flooded = storm(300_000, 200, false);
    assert_eq!(
        flooded.recorded + flooded.lost,
        quiet.recorded + quiet.lost + 300_000,
        "{quiet:?}, {flooded:?}"
    );
    assert!(flooded.opens + flooded.lost >= 300_000, "{flooded:?}");
    assert_eq!(flooded.lost == 0, flooded.opens == quiet.opens + 300_000, "{quiet:?}, {flooded:?}");
}

#[test]
fn what_is_lost_while_the_observer_stands_still_is_counted_exactly_and_nothing_vital_is_among_it() {
    if target::backend() == "ptrace" {
        skip("a target stands still with its tracer, so there is nothing to lose");
        return;
    }
    let _one = one_at_a_time();
    let quiet = storm(0, 20, false);
    assert_eq!(quiet.lost, 0);
    let flooded = storm(300_000, 20, true);
    assert!(flooded.lost > 0, "the ring held 300,000 opens: {flooded:?}");
    assert_eq!(flooded.recorded + flooded.lost, quiet.recorded + 300_000, "{quiet:?}, {flooded:?}");
}
