//! What is recorded by rule is its user's, and seen by nobody else but those who see everything.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tests::daemon::{Daemon, rule};
use tests::deadline;
use tests::person::Person;
use tests::privilege::lacking;
use tests::scene::Scene;

use super::super::LIMIT;
use super::{PYTHON, Running, sessions, text, verb};

/// A group, made where there is none, and gone again then.
struct Group(Option<&'static str>);

impl Group {
    fn ensure(name: &'static str) -> Self {
        if Command::new("getent").args(["group", name]).output().unwrap().status.success() {
            return Self(None);
        }
        let made = Command::new("groupadd").args(["--system", name]).output().unwrap();
        assert!(made.status.success(), "{}", text(&made.stderr));
        Self(Some(name))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(name) = self.0 {
            let _ = Command::new("groupdel").arg(name).output();
        }
    }
}

/// A worker's command line; there is no dramatiq in this interpreter, so it fails at once.
fn failing(person: &Person, python: &Path, module: &str) {
    let mut worker = person.command(python);
    worker.args(["-I", "-m", "dramatiq", module]).stderr(Stdio::null()).stdin(Stdio::null());
    assert_eq!(worker.status().unwrap().code(), Some(1));
}

fn config(module: &str) -> String {
    // `-I` stands before `-m`.
    rule(module, "keep = \"always\"").replace("[\"-m\"", "[\"-I\", \"-m\"")
}

#[test]
fn a_worker_is_its_users_and_members_of_the_group_see_all() {
    if lacking("users and a group of its own") {
        return;
    }
    let scene = Scene::new().unwrap();
    let group = Group::ensure("observer");
    let one = Person::new(&scene, "obsr").unwrap();
    let (other, member) = (Person::new(&scene, "obss").unwrap(), Person::new(&scene, "obsv").unwrap());
    let joined = Command::new("usermod").args(["-aG", "observer", &member.name]).output().unwrap();
    assert!(joined.status.success(), "{}", text(&joined.stderr));
    let module = format!("ruled_{}", std::process::id());
    let daemon = Daemon::start(&scene.path(""), &config(&module)).unwrap();
    for person in [&one, &other] {
        failing(person, Path::new(PYTHON), &module);
    }
    daemon.idle().unwrap();
    let owners = |person: &Person| {
        let mut owners: Vec<u64> =
            sessions(&daemon, person).iter().map(|session| session["owner"].as_u64().unwrap()).collect();
        owners.sort_unstable();
        owners
    };
    let (a, b) = (u64::from(one.uid), u64::from(other.uid));
    assert_eq!((owners(&one), owners(&other)), (vec![a], vec![b]));
    let mut both = [a, b];
    both.sort_unstable();
    assert_eq!(owners(&member), both);
    for session in sessions(&daemon, &member) {
        let path = PathBuf::from(session["path"].as_str().unwrap());
        let (file, folder) = (fs::metadata(&path).unwrap(), fs::metadata(path.parent().unwrap()).unwrap());
        assert_eq!((file.mode() & 0o7777, folder.mode() & 0o7777), (0o640, 0o2750));
        assert_eq!(file.gid(), folder.gid());
        let shown = verb(&daemon, &member, &["show", session["id"].as_str().unwrap()]);
        assert!(shown.status.success(), "{}", text(&shown.stderr));
        // To see is not to write.
        assert!(!verb(&daemon, &member, &["rm", session["id"].as_str().unwrap()]).status.success());
    }
    let theirs = &sessions(&daemon, &other)[0];
    assert!(!verb(&daemon, &one, &["show", theirs["path"].as_str().unwrap()]).status.success());
    drop(daemon);
    drop(member);
    drop(group);
}

#[test]
fn a_worker_that_is_setuid_is_roots() {
    if lacking("setuid programs") {
        return;
    }
    let scene = Scene::new().unwrap();
    let person = Person::new(&scene, "obsw").unwrap();
    let python = scene.path("python3-of-root");
    fs::copy(PYTHON, &python).unwrap();
    fs::set_permissions(&python, fs::Permissions::from_mode(0o4755)).unwrap();
    let module = format!("setuid_{}", std::process::id());
    let daemon = Daemon::start(&scene.path(""), &config(&module)).unwrap();
    failing(&person, &python, &module);
    daemon.idle().unwrap();
    let all = daemon.sessions().unwrap();
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(all[0]["owner"], 0);
    assert!(all[0]["path"].as_str().unwrap().contains("/users/0/"));
    assert!(sessions(&daemon, &person).is_empty());
    assert!(!super::place(&daemon, &person).exists());
}

#[test]
fn a_file_that_never_ends_in_the_place_of_an_environments_own_holds_nobody_up() {
    if lacking("users of its own") {
        return;
    }
    let scene = Scene::new().unwrap();
    let (one, other) = (Person::new(&scene, "obsx").unwrap(), Person::new(&scene, "obsy").unwrap());
    let module = format!("endless_{}", std::process::id());
    let daemon = Daemon::start(&scene.path(""), &config(&module)).unwrap();
    let bin = one.home.join("venv").join("bin");
    let make = format!("mkdir -p $1; ln -s {PYTHON} $1/python3; mkfifo $1/../pyvenv.cfg");
    let made = one.command("sh").args(["-ec", &make, "sh"]).arg(&bin).status().unwrap();
    assert!(made.success());
    // It hangs itself, looking for its environment; the exec is what counts.
    let mut hung = one.command(bin.join("python3"));
    let mut hung = Running::start(hung.args(["-I", "-m", "dramatiq", &module]).stderr(Stdio::null()));
    let recorded = deadline::until("it is recorded", LIMIT, || {
        let status = daemon.status().ok()?;
        status["recordings"].as_array()?.iter().find(|one| one["pid"] == hung.pid()).cloned()
    });
    assert_eq!(recorded["uid"], one.uid);
    failing(&other, Path::new(PYTHON), &module);
    hung.end();
    daemon.idle().unwrap();
    let all: Vec<Value> = daemon.sessions().unwrap();
    assert_eq!(all.len(), 2, "{all:?}");
}
