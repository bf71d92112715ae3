//! A recorded command runs a program that makes it somebody else, or gives it rights: what it does then is not its old user's to know.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;
use tests::person::Person;
use tests::privilege::lacking;
use tests::scene::{Scene, Session};

use super::super::LIMIT;
use super::{attach, script, service, session, text};

/// What `elevated.c` says.
const SAID: &[u8] = b"secret-of-root";

/// The program, with this owner, group and mode.
fn program(scene: &Scene, name: &str, group: u32, mode: u32) -> PathBuf {
    let file = scene.path(name);
    let made = Command::new("cc").arg("-o").arg(&file).arg(script("elevated.c")).output().unwrap();
    assert!(made.status.success(), "{}", text(&made.stderr));
    chown(&file, Some(0), Some(group)).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
    file
}

/// The events of the process that executed this program, after that.
fn afterwards<'a>(session: &'a Session, program: &str) -> (u64, Vec<&'a Value>) {
    let is_it = |event: &&Value| event["kind"] == "exec" && event["argv"][0] == program;
    let at = session
        .events
        .iter()
        .position(|event| is_it(&event))
        .unwrap_or_else(|| panic!("no exec of {program}"));
    let pid = session.events[at]["pid"].as_u64().unwrap();
    (pid, session.events[at + 1..].iter().filter(|event| event["pid"] == pid).collect())
}

/// Records `program marker` of each, in a shell that goes on afterwards, and judges each: whether its doings are in the session.
fn judge(programs: &[(PathBuf, bool)], person: &Person, scene: &Scene) {
    let daemon = service(scene);
    let marker = scene.path("marker");
    fs::write(&marker, "").unwrap();
    fs::set_permissions(&marker, fs::Permissions::from_mode(0o666)).unwrap();
    let lines: Vec<String> =
        programs.iter().map(|(file, _)| format!("{} {}", file.display(), marker.display())).collect();
    let command = format!("{}\ncat /etc/hostname >/dev/null", lines.join("\n"));
    let mut observed = attach(&daemon, person, "rights");
    let output =
        observed.args(["--quiet", "--", "sh", "-c", &command]).stderr(Stdio::piped()).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(output.stdout, SAID.repeat(programs.len()), "each of them ran");
    daemon.idle().unwrap();
    let shown = session(&daemon, person, "rights");
    let of_marker = |event: &Value| event["path"].as_str() == marker.to_str();
    for (file, told) in programs {
        let (pid, after) = afterwards(&shown, file.to_str().unwrap());
        assert_eq!(!after.is_empty(), *told, "{}: {after:?}", file.display());
        let opened = after.iter().any(|event| of_marker(event));
        assert_eq!(opened, *told, "{}, process {pid}", file.display());
    }
    let told = programs.iter().filter(|(_, told)| *told).count();
    let opens = shown.kind("open").filter(|event| of_marker(event)).count();
    assert_eq!(opens, 2 * told, "it opens the file, and so does its child");
    let path = super::sessions(&daemon, person)[0]["path"].as_str().unwrap().to_owned();
    let said = fs::read(path).unwrap().windows(SAID.len()).filter(|part| *part == SAID).count();
    assert_eq!(said > 0, told > 0, "what it said is on the disk {said} times");
    // And then it goes on.
    assert!(shown.kind("open").any(|event| event["path"] == "/etc/hostname"));
    assert_eq!(shown.header["ending"]["code"], 0);
    let shell = shown.kind("exec").next().unwrap()["pid"].as_u64().unwrap();
    assert_eq!(shown.of_process(shell, "exit").count(), 1);
}

#[test]
fn a_program_with_other_rights_is_not_told_of_and_its_caller_is_again() {
    if lacking("setuid programs") {
        return;
    }
    let scene = Scene::new().unwrap();
    let person = Person::new(&scene, "obso").unwrap();
    let capable = program(&scene, "capable", 0, 0o755);
    let given = Command::new("setcap").arg("cap_net_raw+ep").arg(&capable).output().unwrap();
    assert!(given.status.success(), "{}", text(&given.stderr));
    let programs = [
        (program(&scene, "plain", 0, 0o755), true),
        (program(&scene, "setuid", 0, 0o4755), false),
        (program(&scene, "setgid", 0, 0o2755), false),
        (capable, false),
        // Who may not read a program may not look at what it becomes either.
        (program(&scene, "unreadable", 0, 0o711), false),
        // And again: what was let go of is so for good.
        (program(&scene, "plainer", 0, 0o755), true),
    ];
    judge(&programs, &person, &scene);
}

#[test]
fn many_programs_with_other_rights_hold_nobody_up() {
    if lacking("setuid programs") {
        return;
    }
    let scene = Scene::new().unwrap();
    let (one, other) = (Person::new(&scene, "obsp").unwrap(), Person::new(&scene, "obsq").unwrap());
    let daemon = service(&scene);
    let elevated = program(&scene, "often", 0, 0o4755);
    let marker = scene.path("marker");
    let command = format!(
        "i=0; while [ $i -lt 2000 ]; do {} {}; i=$((i+1)); done",
        elevated.display(),
        marker.display()
    );
    let mut busy = attach(&daemon, &one, "busy");
    let mut busy = busy.args(["--quiet", "--", "sh", "-c", &command]).stdout(Stdio::null()).spawn().unwrap();
    super::recorded(&daemon, &one);
    let begun = std::time::Instant::now();
    let mut quick = attach(&daemon, &other, "quick");
    assert!(quick.args(["--quiet", "--", "true"]).status().unwrap().success());
    let took = begun.elapsed();
    assert!(busy.wait().unwrap().success());
    daemon.idle().unwrap();
    assert!(took < LIMIT / 6, "{took:?}");
    let shown = session(&daemon, &one, "busy");
    let execs = shown.kind("exec").filter(|exec| exec["argv"][0] == elevated.to_str().unwrap()).count();
    assert_eq!(execs, 2000, "each is told of as what was executed");
    assert_eq!(shown.kind("lost").count(), 0);
}
