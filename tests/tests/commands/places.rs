//! A full disk, no tracefs, a session that is being written.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::Value;
use tests::privilege::lacking;
use tests::scene::Scene;
use tests::{deadline, target};

use super::{LIMIT, PYTHON, run, said};

#[test]
fn a_full_disk_harms_the_recording_only_and_is_said() {
    if lacking("a file system of its own") {
        return;
    }
    let scene = Scene::new().unwrap();
    let done = scene.path("done");
    let copy = scene.path("copy");
    let script = format!(
        "import os, sys\nfor i in range(60000): os.stat('/etc/hostname'); os.write(1, b'x' * 100)\nopen({:?}, 'w').write('done')\nsys.exit(7)",
        done.to_str().unwrap()
    );
    fs::create_dir(scene.state_dir()).unwrap();
    fs::create_dir(&copy).unwrap();
    // The file system lives in a mount namespace of the test's own, and goes with it: what was recorded is copied out.
    let shell = "mount -t tmpfs -o size=3m tmpfs \"$1\" || exit 99; state=$1 copy=$2; shift 2; \
                 \"$@\"; status=$?; cp \"$state\"/* \"$copy\"; exit $status";
    let mut command = Command::new("unshare");
    command
        .args(["-m", "--propagation", "private", "sh", "-c", shell, "sh"])
        .arg(scene.state_dir())
        .arg(&copy);
    command.args(scene.attach_words("full").unwrap()).args(["--", PYTHON, "-c", &script]);
    let output = run(command.stdin(Stdio::null()));
    let said = said(&output);
    assert_eq!(output.status.code(), Some(7), "{said}");
    assert_eq!(output.stdout.len(), 6_000_000);
    assert_eq!(fs::read_to_string(done).unwrap(), "done");
    assert!(said.contains("full"), "{said}");
    let show = || {
        let mut show = Command::new(target::observer().unwrap());
        show.arg("--state-dir").arg(&copy);
        show
    };
    let session = tests::scene::Session::of(show().args(["show", "full"])).unwrap();
    assert_eq!(session.kind("exec").count(), 1);
    assert!(session.kind("stat").count() > 100);
    assert_eq!(session.header["ending"]["code"], 7);
    let lost: u64 = session
        .kind("lost")
        .filter(|event| event["hop"] == "store")
        .map(|event| event["count"].as_u64().unwrap())
        .sum();
    assert!(lost > 0);
}

#[test]
fn tracefs_is_not_needed_and_no_mount_is_left_behind() {
    if lacking("mounts of its own") {
        return;
    }
    let scene = Scene::new().unwrap();
    let shell = "umount -l /sys/kernel/tracing 2>/dev/null; umount -l /sys/kernel/debug 2>/dev/null; \
                 ! ls -d /sys/kernel/tracing/events 2>/dev/null || exit 99; sort /proc/self/mounts >\"$1/before\"; scene=$1; shift; \
                 \"$@\"; status=$?; sort /proc/self/mounts >\"$scene/after\"; exit $status";
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-c", shell, "sh"]).arg(scene.path(""));
    command.args(scene.attach_words("without").unwrap()).args(["--", "true"]);
    let output = run(command.stdin(Stdio::null()));
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(
        fs::read_to_string(scene.path("before")).unwrap(),
        fs::read_to_string(scene.path("after")).unwrap()
    );
    assert_eq!(scene.session("without").unwrap().kind("exec").count(), 1);
}

#[test]
fn a_session_can_be_read_while_it_is_recorded() {
    let scene = Scene::new().unwrap();
    let mut observed = scene.attach("now").unwrap();
    let mut observed =
        observed.args(["--quiet", "--", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    deadline::until("the session shows the command", LIMIT, || {
        scene.session("now").ok().filter(|session| session.kind("exec").count() == 1)
    });
    let list = run(scene.observer().unwrap().args(["ls", "--format", "json"]));
    let list: Value = serde_json::from_slice(&list.stdout).unwrap();
    assert_eq!(list["sessions"][0]["state"], "recording");
    let refused = run(scene.observer().unwrap().args(["rm", "now"]));
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    drop(observed.stdin.take());
    assert!(observed.wait().unwrap().success());
    assert!(run(scene.observer().unwrap().args(["rm", "now"])).status.success());
}
