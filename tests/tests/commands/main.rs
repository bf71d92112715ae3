//! What the verbs answer when something is not as it should be, and that nothing they print can be mistaken or do harm.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail like the test")]

mod exports;
mod places;
mod printed;
mod privilege;
mod refusals;

use std::fs;
use std::process::{Command, Output};
use std::time::Duration;

use tests::scene::Scene;

const LIMIT: Duration = Duration::from_secs(60);
const PYTHON: &str = "/usr/bin/python3";

fn run(command: &mut Command) -> Output {
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// That attach itself failed, printed nothing on standard output, and said all of this.
fn assert_refuses(output: &Output, wanted: &[&str]) {
    let said = said(output);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    for part in wanted {
        assert!(said.contains(part), "{part:?} is not said: {said}");
    }
}

/// A scene with one finished session of this name.
fn recorded(name: &str, words: &[&str]) -> Scene {
    let scene = Scene::new().unwrap();
    let output = run(scene.attach(name).unwrap().args(["--quiet", "--"]).args(words));
    assert!(output.status.success(), "{}", said(&output));
    scene
}

fn the_only_session(scene: &Scene) -> std::path::PathBuf {
    let files = fs::read_dir(scene.state_dir()).unwrap().map(|entry| entry.unwrap().path());
    let mut sessions: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|end| end == "sqlite")).collect();
    assert_eq!(sessions.len(), 1);
    sessions.remove(0)
}
