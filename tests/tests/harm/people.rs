//! Who the command runs as, and whose the session is.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tests::person::Person;
use tests::privilege::lacking;
use tests::scene::{Scene, written};
use tests::target;

use super::{PYTHON, script};

fn assert_runs_as(standing: &Value, person: &Person, home: &Path) {
    let four = |id: u32| [id.to_string(), id.to_string(), id.to_string(), id.to_string()].join("\t");
    assert_eq!(standing["status"]["Uid"], four(person.uid));
    assert_eq!(standing["status"]["Gid"], four(person.gid));
    let mut groups: Vec<u32> = standing["status"]["Groups"]
        .as_str()
        .unwrap()
        .split_whitespace()
        .map(|id| id.parse().unwrap())
        .collect();
    groups.sort_unstable();
    assert_eq!(groups, person.groups().unwrap());
    assert_eq!(standing["status"]["CapEff"], "0000000000000000");
    let hex = standing["environment"].as_str().unwrap();
    let bytes: Vec<u8> =
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    let environment = String::from_utf8(bytes).unwrap();
    let variables: Vec<&str> = environment.split('\0').collect();
    for wanted in [
        format!("HOME={}", home.display()),
        format!("USER={}", person.name),
        format!("LOGNAME={}", person.name),
    ] {
        assert_eq!(
            variables.iter().filter(|variable| **variable == wanted).count(),
            1,
            "{wanted}: {variables:?}"
        );
    }
}

#[test]
fn under_sudo_the_command_runs_as_who_called_it_and_the_session_is_theirs() {
    if lacking("a user of its own") {
        return;
    }
    let scene = Scene::new().unwrap();
    let person = Person::new(&scene, "obssudo").unwrap();
    let home = person.home.clone();
    let file = scene.path("standing.json");
    let observed = Command::new(target::observer().unwrap())
        .args(["attach", "--name", "mine", "--quiet", "--", PYTHON, "-I", &script("standing.py")])
        .arg(&file)
        .envs([("SUDO_UID", person.uid.to_string()), ("SUDO_GID", person.gid.to_string())])
        .env("HOME", "/root")
        .env_remove("XDG_STATE_HOME")
        .current_dir(&home)
        .output()
        .unwrap();
    assert!(observed.status.success(), "{}", String::from_utf8_lossy(&observed.stderr));
    assert_runs_as(&written(&file).unwrap(), &person, &home);
    let state = home.join(".local/state/observer");
    let files: Vec<_> = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap()).collect();
    assert!(files.iter().any(|file| file.file_name().to_str().unwrap().ends_with(".sqlite")));
    for file in files {
        let facts = file.metadata().unwrap();
        assert_eq!((facts.uid(), facts.gid()), (person.uid, person.gid), "{:?}", file.file_name());
        assert_eq!(facts.permissions().mode() & 0o7777, 0o600, "{:?}", file.file_name());
    }
    for dir in [".local", ".local/state", ".local/state/observer"] {
        assert_eq!(fs::metadata(home.join(dir)).unwrap().uid(), person.uid, "{dir}");
    }
}

#[test]
fn a_command_can_be_run_as_another_user() {
    if lacking("a user of its own") {
        return;
    }
    let scene = Scene::new().unwrap();
    let person = Person::new(&scene, "obsuser").unwrap();
    let file = scene.path("standing.json");
    let run = |wanted: &str, name: &str| {
        let mut observed = scene.attach(name).unwrap();
        observed.args(["--quiet", "--user", wanted, "--", PYTHON, "-I", &script("standing.py")]).arg(&file);
        observed.current_dir("/").output().unwrap()
    };
    for (name, wanted) in [("by-name", person.name.clone()), ("by-id", person.uid.to_string())] {
        let observed = run(&wanted, name);
        assert!(observed.status.success(), "{}", String::from_utf8_lossy(&observed.stderr));
        assert_runs_as(&written(&file).unwrap(), &person, &person.home);
        fs::remove_file(&file).unwrap();
    }
    let unknown = run("no-such-user-here", "unknown");
    assert_eq!(unknown.status.code(), Some(125));
    let said = String::from_utf8(unknown.stderr).unwrap();
    assert!(said.contains("no such user: no-such-user-here"), "{said}");
    assert!(!file.exists());
}

/// Leave for one person to use sudo without a password; withdrawn when dropped.
struct Sudoer(PathBuf);

impl Sudoer {
    fn new(person: &Person) -> Self {
        let file = Path::new("/etc/sudoers.d").join(&person.name);
        fs::write(&file, format!("{} ALL=(ALL) NOPASSWD: SETENV: ALL\n", person.name)).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o440)).unwrap();
        Self(file)
    }
}

impl Drop for Sudoer {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn under_a_real_sudo_the_command_runs_in_its_callers_environment() {
    if lacking("a user of its own") {
        return;
    }
    let scene = Scene::new().unwrap();
    let person = Person::new(&scene, "sudoer").unwrap();
    let _leave = Sudoer::new(&person);
    // What sudo resets (a virtual environment's PATH above all) is the caller's again; what was given to sudo itself counts.
    let output = Command::new("runuser")
        .args(["-u", &person.name, "--", "env", "-i"])
        .args(["PATH=/opt/venv/bin:/usr/bin:/bin", "HOME=/elsewhere", "VIRTUAL_ENV=/opt/venv", "LEVEL=1"])
        .args(["sudo", "-n", "LEVEL=2"])
        .arg(target::observer().unwrap())
        .arg("--state-dir")
        .arg(scene.state_dir())
        .args(["attach", "--quiet", "--", "env"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<&str> = printed.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        ["HOME=/elsewhere", "LEVEL=2", "PATH=/opt/venv/bin:/usr/bin:/bin", "VIRTUAL_ENV=/opt/venv"]
    );
}
