//! However the tracer ends, nothing it traced stands still: what ran goes on, and what was stopped stays so until it is continued.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::deadline;
use tests::observe::said;
use tests::scene::Scene;

use super::{LIMIT, PYTHON, Running, attach, script};

/// `lives_on.py`, in its three processes.
struct LivesOn<'a> {
    scene: &'a Scene,
}

impl LivesOn<'_> {
    fn numbers(&self, name: &str) -> Vec<u64> {
        let text = fs::read_to_string(self.scene.path(name)).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Its threads' counts, then its child's.
    fn counts(&self) -> Vec<u64> {
        [self.numbers("counts"), self.numbers("child")].concat()
    }

    fn wait_ready(&self) {
        deadline::until("all of it counts", LIMIT, || {
            let counts = self.counts();
            (counts.len() == 5 && counts.iter().all(|count| *count > 0)).then_some(())
        });
    }

    fn pids(&self) -> Vec<u32> {
        let line = self.scene.path("");
        let line = line.to_str().unwrap().trim_end_matches('/');
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid| {
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&words);
            words.contains("lives_on.py") && words.contains(line) && !words.contains("--state-dir")
        })
        .collect()
    }

    /// A field of every thread's status.
    fn of_threads(&self, field: &str) -> Vec<(u32, String)> {
        let mut found = Vec::new();
        for pid in self.pids() {
            for thread in fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
                let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
                let value =
                    status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(":\t")).unwrap();
                found.push((pid, value.to_owned()));
            }
        }
        found
    }

    fn wait_traced_by(&self, tracer: u32) {
        deadline::until("every thread of it is traced", LIMIT, || {
            let tracers = self.of_threads("TracerPid");
            let theirs = |thread: &str| fs::exists(format!("/proc/{tracer}/task/{thread}")).unwrap();
            (tracers.len() == 7 && tracers.iter().all(|(_, by)| by != "0" && theirs(by))).then_some(())
        });
    }

    fn assert_goes_on(&self, after: &str) {
        let before = self.counts();
        deadline::until(&format!("all of it counts on after {after}"), LIMIT, || {
            self.counts().iter().zip(&before).all(|(now, before)| now > before).then_some(())
        });
        let tracers = self.of_threads("TracerPid");
        assert!(tracers.len() == 7 && tracers.iter().all(|(_, by)| by == "0"), "{after}: {tracers:?}");
        let stopped = self.numbers("stopped")[0] as u32;
        // What was stopped when its tracer went runs for a moment, to stop again by itself. Small t: for a tracer.
        deadline::until(&format!("after {after} what was stopped is, and nothing else"), LIMIT, || {
            let states = self.of_threads("State");
            let as_before =
                |pid: u32, state: &str| !state.starts_with('t') && state.starts_with('T') == (pid == stopped);
            states.iter().all(|(pid, state)| as_before(*pid, state)).then_some(())
        });
    }

    /// What stands still did so by itself, and goes on when it is told to.
    fn assert_continues(&self) {
        assert!(!self.scene.path("continued").exists());
        kill(Pid::from_raw(self.numbers("stopped")[0] as i32), Signal::SIGCONT).unwrap();
        deadline::until("what was stopped goes on", LIMIT, || {
            self.scene.path("continued").exists().then_some(())
        });
    }
}

fn words(scene: &Scene) -> [String; 3] {
    [PYTHON.to_owned(), script("lives_on.py"), scene.path("").to_str().unwrap().to_owned()]
}

#[test]
fn a_command_goes_on_when_its_observer_is_killed() {
    let scene = Scene::new().unwrap();
    let lives_on = LivesOn { scene: &scene };
    let mut observer = attach(&scene, "ptrace").arg("--").args(words(&scene)).spawn().unwrap();
    lives_on.wait_ready();
    lives_on.wait_traced_by(observer.id());
    observer.kill().unwrap();
    assert_eq!(observer.wait().unwrap().signal(), Some(9));
    lives_on.assert_goes_on("SIGKILL");
    lives_on.assert_continues();
}

/// The observer, attached to a process: started as the end of these words.
fn attached(scene: &Scene, before: &[&str], pid: u32, after: &[&str]) -> Command {
    let ours = attach(scene, "ptrace");
    let mut command = match before {
        [] => Command::new(ours.get_program()),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(ours.get_program());
            command
        }
    };
    // A session's name is its own.
    command.args(ours.get_args().filter(|word| *word != "--name" && *word != "ptrace"));
    command.args(["ptrace", "--pid", &pid.to_string()]).args(after).stdin(Stdio::null());
    command
}

#[test]
fn a_process_attached_to_goes_on_however_the_observer_ends() {
    let scene = Scene::new().unwrap();
    let lives_on = LivesOn { scene: &scene };
    let [python, rest @ ..] = words(&scene);
    let target = Running(Command::new(python).args(rest).spawn().unwrap());
    lives_on.wait_ready();
    // ABRT is how a panic ends the program that is shipped (`panic = "abort"`).
    for (signal, status) in [
        (Signal::SIGINT, 0),
        (Signal::SIGTERM, 0),
        (Signal::SIGKILL, Signal::SIGKILL as i32),
        (Signal::SIGABRT, Signal::SIGABRT as i32),
        (Signal::SIGSEGV, Signal::SIGSEGV as i32),
    ] {
        let mut observer = attached(&scene, &["prlimit", "--core=0", "--"], target.0.id(), &[]);
        let mut observer = Running(observer.spawn().unwrap());
        lives_on.wait_traced_by(observer.0.id());
        kill(Pid::from_raw(observer.0.id() as i32), signal).unwrap();
        assert_eq!(observer.0.wait().unwrap().into_raw() & 0x7f, status, "{signal}");
        lives_on.assert_goes_on(signal.as_str());
    }
    let status = attached(&scene, &[], target.0.id(), &["--for", "300ms"]).status().unwrap();
    assert_eq!(status.code(), Some(0));
    lives_on.assert_goes_on("the end of its time");
    lives_on.assert_continues();
}

#[test]
fn a_process_attached_to_goes_on_when_the_observer_fails() {
    let scene = Scene::new().unwrap();
    let lives_on = LivesOn { scene: &scene };
    let [python, rest @ ..] = words(&scene);
    let target = Running(Command::new(python).args(rest).spawn().unwrap());
    lives_on.wait_ready();
    // Its session cannot be written any further after a moment. (It begins with a reserve of a mebibyte.)
    let limit = ["prlimit", "--fsize=1500000", "--"];
    let observer = attached(&scene, &limit, target.0.id(), &["--for", "3s"]).output().unwrap();
    let said = said(&observer);
    assert!(said.contains("cannot write session"), "{said}");
    lives_on.assert_goes_on("an error");
    lives_on.assert_continues();
}
