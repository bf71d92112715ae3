//! What lives on when the observer is killed.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tests::rabbit::Broker;
use tests::scene::Scene;
use tests::venv::Venv;
use tests::{deadline, target};

use super::LIMIT;

#[test]
fn killing_the_observer_leaves_the_worker_consuming_and_the_session_readable() {
    let broker = Broker::start(&[]).unwrap();
    let venv = Venv::ensure().unwrap();
    let scene = Scene::new().unwrap();
    let log = scene.path("log");
    let send = || {
        let sent = Command::new(venv.python())
            .args(["send.py", "minimal_worker:count_words", "1", "to be or not to be"])
            .current_dir(target::folder())
            .env("BROKER_URL", broker.url())
            .status();
        assert!(sent.unwrap().success());
    };
    let counted = |count: usize| {
        deadline::until(&format!("{count} messages are processed"), LIMIT, || {
            let log = fs::read_to_string(&log).unwrap_or_default();
            (log.matches("counted 6 words").count() >= count).then_some(())
        });
    };
    let mut observed = scene
        .attach("killed")
        .unwrap()
        .args(["--quiet", "--", "python", "-m", "dramatiq", "-p", "1", "-t", "1", "minimal_worker"])
        .current_dir(target::folder())
        .env("PATH", venv.path())
        .env("BROKER_URL", broker.url())
        .stdout(fs::File::options().append(true).create(true).open(&log).unwrap())
        .stderr(fs::File::options().append(true).create(true).open(&log).unwrap())
        .spawn()
        .unwrap();
    let observer = observed.id();
    let master = deadline::until("the command runs", LIMIT, || {
        let children = fs::read_to_string(format!("/proc/{observer}/task/{observer}/children")).ok()?;
        children.split_whitespace().next()?.parse::<i32>().ok()
    });
    send();
    counted(1);
    // Something that happens all the time, so that what is missing shows as a gap before the kill.
    let mut ticking = Ticking::start(Pid::from_raw(master));
    ticking.for_a_second();
    let killed_ns = monotonic_ns();
    observed.kill().unwrap();
    ticking.stop();
    assert_eq!(observed.wait().unwrap().signal(), Some(9));

    send();
    counted(2);
    let list = scene.observer().unwrap().args(["ls", "--format", "json"]).output().unwrap();
    let list: Value = serde_json::from_slice(&list.stdout).unwrap();
    assert_eq!(list["sessions"][0]["state"], "cut-short");
    let screen = scene.observer().unwrap().arg("ls").output().unwrap();
    assert!(String::from_utf8(screen.stdout).unwrap().contains("cut short"));
    let session = scene.session("killed").unwrap();
    assert!(session.header["ending"].is_null());
    assert!(
        session.events.iter().any(|event| event["bytes"]["text"]
            .as_str()
            .is_some_and(|text| text.contains("counted 6 words")))
    );
    let recorded: Vec<u64> = session
        .of_process(master as u64, "signal")
        .filter(|event| event["signal"] == Signal::SIGWINCH as i32)
        .map(|event| event["at_ns"].as_u64().unwrap())
        .collect();
    let sent = ticking.sent_before(killed_ns - 200_000_000);
    assert!(sent > 10, "{sent} signals were sent in time");
    assert!(recorded.len() >= sent, "{} of {sent} signals older than 200 ms are recorded", recorded.len());

    kill(Pid::from_raw(master), Signal::SIGTERM).unwrap();
    deadline::until("the worker ends", LIMIT, || {
        (!Path::new(&format!("/proc/{master}")).exists()).then_some(())
    });
}

fn monotonic_ns() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

/// Sends a process WINCH, which nobody minds, over and over, and keeps when.
struct Ticking {
    stop: std::sync::mpsc::Sender<()>,
    thread: Option<std::thread::JoinHandle<()>>,
    sent: std::sync::Arc<std::sync::Mutex<Vec<u64>>>,
}

impl Ticking {
    fn start(pid: Pid) -> Self {
        let (stop, stopped) = std::sync::mpsc::channel();
        let sent = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let thread = std::thread::spawn({
            let sent = sent.clone();
            move || {
                while stopped.recv_timeout(Duration::from_millis(10))
                    == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
                {
                    kill(pid, Signal::SIGWINCH).unwrap();
                    sent.lock().unwrap().push(monotonic_ns());
                }
            }
        });
        Self { stop, thread: Some(thread), sent }
    }

    fn for_a_second(&self) {
        deadline::until("signals have been sent for a second", LIMIT, || {
            let sent = self.sent.lock().unwrap();
            (sent.last()? - sent.first()? > 1_000_000_000).then_some(())
        });
    }

    fn sent_before(&self, at_ns: u64) -> usize {
        self.sent.lock().unwrap().iter().filter(|sent| **sent < at_ns).count()
    }

    fn stop(&mut self) {
        self.stop.send(()).unwrap();
        self.thread.take().unwrap().join().unwrap();
    }
}
