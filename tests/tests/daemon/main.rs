//! `observer daemon`, by itself and with real workers: what it records without being asked, what it keeps, and how it takes being killed.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

mod death;
mod hostile;
mod many;
mod people;
mod watch;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tests::target;
use tests::venv::Venv;

const LIMIT: Duration = Duration::from_secs(90);

/// A worker's module of the test's own, so that one test's service does not record another test's workers.
fn module(folder: &Path, name: &str, source: &str) -> String {
    let module = format!("{name}_{}", std::process::id());
    fs::write(folder.join(format!("{module}.py")), source).unwrap();
    module
}

/// What `minimal_worker.py` is.
fn minimal() -> String {
    fs::read_to_string(target::folder().join("minimal_worker.py")).unwrap()
}

/// `python -m dramatiq` with these words, in this folder.
fn worker(folder: &Path, words: &[&str]) -> Command {
    let mut worker = Command::new(Venv::ensure().unwrap().python());
    worker.args(["-m", "dramatiq"]).args(words).current_dir(folder);
    worker.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    worker
}

/// Ends a worker as a service manager does.
fn end(mut worker: Child) {
    use nix::{sys::signal, unistd::Pid};
    signal::kill(Pid::from_raw(worker.id() as i32), signal::Signal::SIGTERM).unwrap();
    let status = tests::deadline::until("the worker ends", LIMIT, || worker.try_wait().unwrap());
    assert!(status.success(), "{status}");
}
