//! What is refused, and that it says what to do next.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;
use tests::scene::Scene;
use tests::target;

use super::{assert_refuses, recorded, run, said, the_only_session};

#[test]
fn a_command_line_that_is_none_is_refused_before_anything_is_recorded() {
    let scene = Scene::new().unwrap();
    let attach = |words: &[&str]| run(scene.observer().unwrap().arg("attach").args(words));
    assert_refuses(
        &attach(&["--cmd", "python -m 'dramatiq"]),
        &["cannot split --cmd", "a quote is not closed", "after --"],
    );
    for nothing in [&[][..], &["--cmd", ""], &["--cmd", "  "], &["--", ""]] {
        assert_refuses(&attach(nothing), &["nothing to observe", "--cmd", "--pid"]);
    }
    assert!(!scene.state_dir().exists());
}

#[test]
fn a_wrong_option_of_attach_cannot_be_taken_for_the_commands_status() {
    let scene = Scene::new().unwrap();
    let marker = scene.path("marker");
    let with = |words: &[&str]| run(scene.observer().unwrap().args(words).args(["--", "touch"]).arg(&marker));
    assert_refuses(&with(&["attach", "--nmae", "x"]), &["--nmae"]);
    assert_refuses(&with(&["attach", "--for", "soon"]), &["soon"]);
    assert_refuses(&with(&["attach", "--cmd", "true"]), &["--cmd"]);
    assert_eq!(with(&["show", "--attach"]).status.code(), Some(2));
    assert_eq!(run(scene.observer().unwrap().args(["attach", "--help"])).status.code(), Some(0));
    assert!(!marker.exists());
}

#[test]
fn cmd_is_split_as_a_shell_splits_and_no_shell_is_run() {
    let scene = Scene::new().unwrap();
    let line = r#"echo 'one two' "three $HOME" four\ five; `six` * > seven"#;
    let output = run(scene.attach("split").unwrap().args(["--quiet", "--cmd", line]));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "one two three $HOME four five; `six` * > seven\n");
    let session = scene.session("split").unwrap();
    let exec = session.kind("exec").next().unwrap();
    assert_eq!(
        exec["argv"],
        serde_json::json!(["echo", "one two", "three $HOME", "four five;", "`six`", "*", ">", "seven"])
    );
}

#[test]
fn a_command_that_does_not_exist_is_127_and_the_attempts_are_recorded() {
    let scene = Scene::new().unwrap();
    let path = format!("{}:/usr/sbin:/usr/bin", scene.path("empty").display());
    let output =
        run(scene.attach("typo").unwrap().args(["--", "pyhton", "-m", "dramatiq"]).env("PATH", &path));
    assert_eq!(output.status.code(), Some(127));
    let said = said(&output);
    assert!(said.contains("cannot run pyhton") && said.contains(&path), "{said}");
    assert!(said.contains("observer show typo --kind exec-failed"), "{said}");
    let session = scene.session("typo").unwrap();
    let tried: Vec<&Value> = session.kind("exec-failed").collect();
    let paths: Vec<String> = path.split(':').map(|dir| format!("{dir}/pyhton")).collect();
    assert_eq!(tried.iter().map(|event| event["path"].as_str().unwrap()).collect::<Vec<_>>(), paths);
    assert!(tried.iter().all(|event| event["errno"] == nix::libc::ENOENT));
    assert_eq!(session.header["ending"]["code"], 127);
    assert_eq!(session.kind("exec").count(), 0);
}

#[test]
fn a_command_that_cannot_be_executed_is_126() {
    let scene = Scene::new().unwrap();
    let file = scene.path("notes.txt");
    fs::write(&file, "not a program").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let output = run(scene.attach("refused").unwrap().arg("--").arg(&file));
    assert_eq!(output.status.code(), Some(126));
    assert!(said(&output).contains(&format!("cannot run {}: EACCES", file.display())), "{}", said(&output));
    let session = scene.session("refused").unwrap();
    assert_eq!(
        session.kind("exec-failed").map(|event| &event["errno"]).collect::<Vec<_>>(),
        [nix::libc::EACCES]
    );

    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    let output = run(scene.attach("no-format").unwrap().arg("--").arg(&file));
    assert_eq!(output.status.code(), Some(126));
    assert!(said(&output).contains("ENOEXEC"), "{}", said(&output));
}

#[test]
fn a_state_directory_that_cannot_be_written_is_said_before_anything_starts() {
    let scene = Scene::new().unwrap();
    let marker = scene.path("marker");
    fs::write(scene.path("file"), "").unwrap();
    for dir in [scene.path("file"), scene.path("file/below"), "/proc/observer".into()] {
        let mut observed = Command::new(target::observer().unwrap());
        observed.arg("--state-dir").arg(&dir).args(["attach", "--", "touch"]).arg(&marker);
        assert_refuses(&run(&mut observed), &["state directory", dir.to_str().unwrap(), "--state-dir"]);
    }
    assert!(!marker.exists());
}

#[test]
fn an_unknown_session_name_suggests_those_that_are_near() {
    let scene = recorded("minimal_worker", &["true"]);
    for verb in [&["show"][..], &["rm"]] {
        let output = run(scene.observer().unwrap().args(verb).arg("minimal_wroker"));
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains("did you mean `minimal_worker`?"), "{}", said(&output));
    }
    let output = run(scene.observer().unwrap().args(["show", "zzz"]));
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("observer ls"), "{}", said(&output));
}

#[test]
fn a_name_can_be_used_once() {
    let scene = recorded("once", &["true"]);
    let marker = scene.path("marker");
    let output = run(scene.attach("once").unwrap().args(["--", "touch"]).arg(&marker));
    assert_refuses(&output, &["`once`", "already", "observer rm once"]);
    assert!(!marker.exists());
    let output = run(scene.attach("a/b").unwrap().args(["--", "touch"]).arg(&marker));
    assert_refuses(&output, &["`a/b` cannot name a session"]);
    assert!(!marker.exists());
}

#[test]
fn a_truncated_session_is_said_to_be_damaged_and_does_not_hide_the_others() {
    let scene = recorded("cut", &["true"]);
    let path = the_only_session(&scene);
    let whole = fs::read(&path).unwrap();
    run(scene.attach("whole").unwrap().args(["--quiet", "--", "true"]));
    for len in [0, 1, 100, whole.len() / 2] {
        fs::write(&path, &whole[..len]).unwrap();
        let output = run(scene.observer().unwrap().arg("show").arg(&path));
        assert_eq!(output.status.code(), Some(1), "{len}");
        assert!(said(&output).contains("cannot read"), "{len}: {}", said(&output));
        assert!(!said(&output).contains("panicked"), "{}", said(&output));
        let list = run(scene.observer().unwrap().args(["ls", "--format", "json"]));
        let list: Value = serde_json::from_slice(&list.stdout).unwrap();
        let names: Vec<&str> = list["sessions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|session| session["name"].as_str().unwrap())
            .collect();
        assert!(names.contains(&"whole"), "{names:?}");
    }
}

#[test]
fn a_session_of_a_newer_observer_is_refused_with_what_to_do() {
    let scene = recorded("newer", &["true"]);
    let path = the_only_session(&scene);
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let output = run(scene.observer().unwrap().arg("show").arg(&path));
    assert_eq!(output.status.code(), Some(1));
    for part in ["newer observer", "schema 99", "upgrade"] {
        assert!(said(&output).contains(part), "{}", said(&output));
    }
}
