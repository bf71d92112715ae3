//! What users pass to actors stays out of the session, unless it is asked for.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rusqlite::Connection;
use tempfile::TempDir;
use tests::rabbit::Broker;
use tests::venv::Venv;
use tests::{deadline, target};

const LIMIT: Duration = Duration::from_secs(60);
/// Of a kind that a worker prints nowhere.
const NEEDLE: &str = "Rotkehlchen-7719-Zaunkoenig";

/// A state directory with the session of a worker that took one message whose argument is the needle.
fn recorded(broker: &Broker, options: &[&str]) -> TempDir {
    let state = TempDir::with_prefix("observer-state-").unwrap();
    let venv = Venv::ensure().unwrap();
    let in_folder = |program: &Path| {
        let mut command = Command::new(program);
        command.current_dir(target::folder()).env("BROKER_URL", broker.url()).stdin(Stdio::null());
        command
    };
    let sent = in_folder(&venv.python())
        .args(["send.py", "minimal_worker:count_words", "1", NEEDLE])
        .status()
        .unwrap();
    assert!(sent.success());
    let mut observer = in_folder(&target::observer().unwrap())
        .arg("--state-dir")
        .arg(state.path())
        .args(["attach", "--quiet", "--backend", &target::backend()])
        .args(options)
        .arg("--")
        .arg(venv.python())
        .args(["-m", "dramatiq", "-p", "1", "-t", "1", "minimal_worker"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // Unacknowledged messages count: an empty queue is one whose message was processed.
    deadline::until("the message is acknowledged", LIMIT, || {
        let queues = broker.ctl(&["list_queues", "messages", "--no-table-headers"]).unwrap();
        queues.lines().all(|line| line == "0").then_some(())
    });
    kill(Pid::from_raw(observer.id() as i32), Signal::SIGTERM).unwrap();
    assert!(observer.wait().unwrap().success());
    state
}

/// Everything the state directory holds.
fn files(state: &TempDir) -> Vec<u8> {
    let files = std::fs::read_dir(state.path()).unwrap().map(|file| file.unwrap().path());
    files.filter(|path| path.is_file()).flat_map(|path| std::fs::read(path).unwrap()).collect()
}

/// The recorded streams, chunk after chunk, as one text.
fn streams(state: &TempDir) -> String {
    let files = std::fs::read_dir(state.path()).unwrap().map(|file| file.unwrap().path());
    let session = files.into_iter().find(|path| path.extension().is_some_and(|end| end == "sqlite")).unwrap();
    let session = Connection::open(session).unwrap();
    let mut rows = session
        .prepare("SELECT bytes FROM events WHERE kind = 'data' AND bytes IS NOT NULL ORDER BY id")
        .unwrap();
    let chunks = rows.query_map([], |row| row.get::<_, Vec<u8>>(0)).unwrap();
    String::from_utf8_lossy(&chunks.flat_map(Result::unwrap).collect::<Vec<u8>>()).into_owned()
}

fn holds_needle(bytes: &[u8]) -> bool {
    bytes.windows(NEEDLE.len()).any(|window| window == NEEDLE.as_bytes())
}

#[test]
fn an_argument_is_in_the_session_only_when_bodies_are_asked_for() {
    let broker = Broker::start(&[]).unwrap();

    let state = recorded(&broker, &[]);
    let streams_by_default = streams(&state);
    assert!(!holds_needle(&files(&state)));
    assert!(!holds_needle(streams_by_default.as_bytes()));
    // The message is there, and readable but for its argument.
    let blank = "*".repeat(NEEDLE.len() + 2);
    let message = format!(r#""actor_name":"count_words","args":"{blank}","kwargs":""#);
    assert!(streams_by_default.contains(&message), "{streams_by_default:?}");
    assert!(streams_by_default.contains(r#""message_id":""#));

    let state = recorded(&broker, &["--bodies"]);
    assert!(streams(&state).contains(&format!(r#""args":["{NEEDLE}"]"#)));
    assert!(holds_needle(&files(&state)));
}
