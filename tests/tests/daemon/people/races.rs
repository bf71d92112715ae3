//! Somebody ends in the middle of it: the client, the service. The command goes on, and its session is finished.

use std::fs;
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tests::daemon::Daemon;
use tests::deadline;
use tests::person::Person;
use tests::privilege::lacking;
use tests::scene::Scene;

use super::super::LIMIT;
use super::{PYTHON, ask_one, attach, recorded, script, service, session, sessions};

/// A command under `attach` that takes signals and says so, once it does.
fn start(daemon: &Daemon, person: &Person, scene: &Scene) -> (Child, Pid) {
    let file = scene.path("signals");
    let mut observed = attach(daemon, person, "goes-on");
    observed.args(["--", PYTHON, &script("signals.py")]).arg(&file).arg("until-term");
    let observed = observed.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let ready = lines(scene, 1).remove(0);
    (observed, Pid::from_raw(ready.strip_prefix("ready ").unwrap().parse().unwrap()))
}

fn lines(scene: &Scene, count: usize) -> Vec<String> {
    deadline::until(&format!("{count} lines"), LIMIT, || {
        let text = fs::read_to_string(scene.path("signals")).ok()?;
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        (lines.len() >= count).then_some(lines)
    })
}

fn signals(daemon: &Daemon, person: &Person) -> Vec<u64> {
    let shown = session(daemon, person, "goes-on");
    shown.kind("signal").filter_map(|signal| signal["signal"].as_u64()).collect()
}

#[test]
fn a_client_that_is_killed_leaves_its_command_to_go_on_and_to_be_recorded() {
    if lacking("a user of its own") {
        return;
    }
    let scene = Scene::new().unwrap();
    let person = Person::new(&scene, "obs1").unwrap();
    let daemon = service(&scene);
    let (mut observed, command) = start(&daemon, &person, &scene);
    observed.kill().unwrap();
    observed.wait().unwrap();
    kill(command, Signal::SIGHUP).unwrap();
    lines(&scene, 2);
    assert_eq!(recorded(&daemon, &person)["pid"], command.as_raw());
    kill(command, Signal::SIGTERM).unwrap();
    lines(&scene, 3);
    daemon.idle().unwrap();
    let shown = session(&daemon, &person, "goes-on");
    assert_eq!(shown.header["ending"]["code"], 0);
    assert_eq!(signals(&daemon, &person), [1, 15]);
    assert_eq!(sessions(&daemon, &person)[0]["state"], "done");
}

#[test]
fn a_service_that_is_killed_takes_nothing_from_the_command_and_goes_on_with_the_session() {
    if lacking("a user of its own") {
        return;
    }
    let scene = Scene::new().unwrap();
    let person = Person::new(&scene, "obs2").unwrap();
    let mut daemon = service(&scene);
    let (mut observed, command) = start(&daemon, &person, &scene);
    let id = recorded(&daemon, &person)["id"].clone();
    daemon.kill().unwrap();
    kill(command, Signal::SIGHUP).unwrap();
    lines(&scene, 2);
    daemon.restart().unwrap();
    assert_eq!(recorded(&daemon, &person)["id"], id);
    kill(command, Signal::SIGUSR1).unwrap();
    lines(&scene, 3);
    kill(command, Signal::SIGTERM).unwrap();
    assert_eq!(observed.wait().unwrap().code(), Some(0));
    daemon.idle().unwrap();
    let shown = session(&daemon, &person, "goes-on");
    assert_eq!(shown.kind("gap").count(), 1);
    assert_eq!(shown.header["ending"]["code"], 0);
    assert_eq!(signals(&daemon, &person), [10, 15], "of what happened in the gap nothing is known");
}

#[test]
fn the_status_is_right_though_the_service_is_gone() {
    if lacking("a user of its own") {
        return;
    }
    let scene = Scene::new().unwrap();
    let person = Person::new(&scene, "obs3").unwrap();
    let mut daemon = service(&scene);
    let (mut observed, command) = start(&daemon, &person, &scene);
    // What is seen is on the disk a tenth of a second later.
    deadline::until("something of it is written", LIMIT, || {
        let id = recorded(&daemon, &person)["id"].as_str()?.to_owned();
        (!tests::scene::Session::of(
            super::observer(&daemon, &person, &["show", &id]).arg("--state-dir").arg(daemon.base()),
        )
        .ok()?
        .events
        .is_empty())
        .then_some(())
    });
    daemon.kill().unwrap();
    kill(command, Signal::SIGKILL).unwrap();
    assert_eq!(observed.wait().unwrap().code(), Some(137));
    daemon.restart().unwrap();
    daemon.idle().unwrap();
    let shown = session(&daemon, &person, "goes-on");
    let gaps: Vec<&Value> = shown.kind("gap").collect();
    assert_eq!(gaps.len(), 1);
    assert!(gaps[0]["gone"].as_array().unwrap().contains(&json!(command.as_raw())), "{}", gaps[0]);
}

#[test]
fn a_client_that_is_gone_before_it_lets_its_command_run_leaves_nothing_under_way() {
    if lacking("a user of its own") {
        return;
    }
    let scene = Scene::new().unwrap();
    let person = Person::new(&scene, "obs4").unwrap();
    let daemon = service(&scene);
    // Held as ours is: it reads from a pipe that ends with its parent.
    let mut held = person.command("sh");
    held.args(["-c", "read line || exit 0; exec touch \"$0\""]).arg(scene.path("ran"));
    let mut held = held.stdin(Stdio::piped()).spawn().unwrap();
    super::becomes(held.id(), "sh");
    let begun = ask_one(
        &daemon,
        &person,
        json!({"op": "record", "pid": held.id(), "held": true, "command": ["touch"], "name": "never"}),
    );
    assert_eq!(begun["reply"], "begun", "{begun}");
    drop(held.stdin.take());
    held.wait().unwrap();
    daemon.idle().unwrap();
    assert!(!scene.path("ran").exists());
    let shown = session(&daemon, &person, "never");
    assert_eq!(shown.kind("exec").count(), 0);
    assert!(shown.header["ending"].is_object(), "{}", shown.header);
}
