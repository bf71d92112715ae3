//! The live view in a real terminal, tmux's, of real workers; and the lines where there is no terminal.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

mod attached;
mod lines;
mod screens;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::rabbit::Broker;
use tests::scene::Scene;
use tests::tmux::Tmux;
use tests::venv::Venv;
use tests::{deadline, target};

const LIMIT: Duration = Duration::from_secs(90);

/// A process that is asked to end, and waited for, however its test ends.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().cast_signed()), signal).unwrap();
    }

    fn ended(mut self) {
        let status = deadline::until("it ends", LIMIT, || self.0.try_wait().unwrap());
        assert!(status.success(), "{status}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGTERM);
            if deadline::poll("it ends", Duration::from_secs(20), || self.0.try_wait().ok().flatten())
                .is_err()
            {
                let _ = self.0.kill();
            }
            let _ = self.0.wait();
        }
    }
}

/// The observer with this scene's sessions, as a shell takes it.
fn observer(scene: &Scene) -> String {
    let words = [target::observer().unwrap(), "--state-dir".into(), scene.state_dir()];
    words.map(|word| word.to_string_lossy().into_owned()).join(" ")
}

/// A worker that is being recorded.
fn worker(scene: &Scene, name: &str, broker: &Broker) -> Running {
    let mut attach = scene.attach(name).unwrap();
    attach
        .args(["--quiet", "--broker", &broker.url(), "--"])
        .args(["python", "-m", "dramatiq", "-p1", "-t1", "minimal_worker"])
        .current_dir(target::folder())
        .env("PATH", Venv::ensure().unwrap().path())
        .env("BROKER_URL", broker.url())
        .stdout(Stdio::null());
    Running::start(&mut attach)
}

/// Sends messages to it.
fn send(broker: &Broker, count: u32) {
    let sent = Command::new(Venv::ensure().unwrap().python())
        .args(["send.py", "minimal_worker:count_words", &count.to_string(), "to be or not"])
        .current_dir(target::folder())
        .env("BROKER_URL", broker.url())
        .stdin(Stdio::null())
        .status();
    assert!(sent.unwrap().success());
}

fn is_recorded(scene: &Scene, name: &str) {
    deadline::until("it is being recorded", LIMIT, || {
        let listed = scene.observer().unwrap().arg("ls").output().unwrap();
        let text = String::from_utf8_lossy(&listed.stdout).into_owned();
        text.lines().any(|line| line.contains(name) && line.contains("recording")).then_some(())
    });
}

/// That the terminal is as it was: not in the alternate screen, its cursor shown, its modes those that were written to `before`.
fn is_as_before(tmux: &Tmux, scene: &Scene) {
    assert_eq!(tmux.modes().unwrap(), (false, true), "main screen, cursor shown");
    tmux.line(&format!("stty -g >{}", scene.path("after.new").display())).unwrap();
    tmux.line(&format!("mv {} {}", scene.path("after.new").display(), scene.path("after").display()))
        .unwrap();
    let after = scene.path("after");
    deadline::until("the shell says how the terminal is", LIMIT, || after.exists().then_some(()));
    let modes = |path: &Path| std::fs::read_to_string(path).unwrap();
    assert_eq!(modes(&after), modes(&scene.path("before")));
    std::fs::remove_file(after).unwrap();
}

fn note_how_it_is(tmux: &Tmux, scene: &Scene) {
    let before = scene.path("before");
    tmux.line(&format!("stty -g >{0}.new; mv {0}.new {0}; clear", before.display())).unwrap();
    deadline::until("the shell says how the terminal is", LIMIT, || before.exists().then_some(()));
}

/// The process with these words on its command line and this scene's sessions.
fn process_of(scene: &Scene, word: &str) -> Pid {
    let state = scene.state_dir().to_string_lossy().into_owned();
    let pid = deadline::until("the process", LIMIT, || {
        std::fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).into_owned();
            let is_it = line.contains(&state) && line.split('\0').any(|one| one == word);
            entry.file_name().to_str()?.parse().ok().filter(|_| is_it)
        })
    });
    Pid::from_raw(pid)
}
