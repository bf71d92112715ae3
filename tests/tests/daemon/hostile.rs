//! Clients that say what nobody should: none of it disturbs the service, or anybody else.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::daemon::{Daemon, rule};
use tests::deadline;
use tests::person::Person;
use tests::privilege::lacking;
use tests::scene::{Scene, Session};
use tests::target;

use super::{LIMIT, module, worker};

const PYTHON: &str = "/usr/bin/python3";
/// What memory may grow by: an allocator keeps some of what it once had.
const GROWS_BYTES: u64 = 16 << 20;
/// Silence is borne for ten seconds.
const BORNE: f64 = 20.0;

fn knocks(daemon: &Daemon, person: &Person, words: &[&str]) -> Command {
    let mut knocks = person.command(PYTHON);
    knocks.arg("-I").arg(target::folder().join("knocks.py")).arg(daemon.socket()).args(words);
    knocks.stdin(Stdio::piped()).stdout(Stdio::piped());
    knocks
}

/// What became of each of these pieces, all sent at once by clients of one user: seconds until it was hung up on, and the answers.
fn pieces(daemon: &Daemon, person: &Person, pieces: &Value) -> Vec<(f64, Vec<Value>)> {
    let mut child = knocks(daemon, person, &["pieces"]).spawn().unwrap();
    serde_json::to_writer(child.stdin.take().unwrap(), pieces).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn rss_bytes(daemon: &Daemon) -> u64 {
    daemon.status().unwrap()["rss_bytes"].as_u64().unwrap()
}

/// The service still does what it is for.
fn records_a_worker(daemon: &Daemon, scene: &Scene, module: &str) {
    worker(&scene.path(""), &[module]).status().unwrap();
    daemon.idle().unwrap();
    let explained = daemon.json(&["explain", module]).unwrap();
    assert_eq!(explained["verdict"]["code"], "module-not-found", "{}", explained["verdict"]);
    assert_eq!(explained["lost"]["total"], 0);
}

/// Another user's recording, beside all that.
struct Beside(Child);

impl Beside {
    fn start(daemon: &Daemon, person: &Person) -> Self {
        let mut observer = person.command(target::observer().unwrap());
        observer.args([
            "attach",
            "--backend",
            "service",
            "--name",
            "beside",
            "--quiet",
            "--",
            "sh",
            "-c",
            "read line; exit 7",
        ]);
        observer.env("OBSERVER_SOCKET", daemon.socket()).stdin(Stdio::piped());
        let child = observer.spawn().unwrap();
        deadline::until("it is recorded", LIMIT, || {
            let status = daemon.status().ok()?;
            status["recordings"].as_array()?.iter().any(|one| one["name"] == "beside").then_some(())
        });
        Self(child)
    }

    fn was_not_disturbed(mut self, daemon: &Daemon, person: &Person) {
        drop(self.0.stdin.take());
        assert_eq!(self.0.wait().unwrap().code(), Some(7));
        let mut show = person.command(target::observer().unwrap());
        let session = Session::of(show.args(["show", "beside", "--state-dir"]).arg(daemon.base())).unwrap();
        assert_eq!(session.header["ending"]["code"], 7);
        assert_eq!(session.kind("lost").count() + session.kind("gap").count(), 0);
    }
}

#[test]
fn what_is_no_request_is_answered_or_hung_up_on_within_a_bound() {
    if lacking("users of its own") {
        return;
    }
    let scene = Scene::new().unwrap();
    let (one, other) = (Person::new(&scene, "obs5").unwrap(), Person::new(&scene, "obs6").unwrap());
    let module = module(&scene.path(""), "garbage", "import not_to_be_found\n");
    let daemon = Daemon::start(&scene.path(""), &rule(&module, "")).unwrap();
    let beside = Beside::start(&daemon, &other);
    let before = rss_bytes(&daemon);
    let line = |text: &str| json!({"hex": hex(format!("{text}\n").as_bytes())});
    let long = "x".repeat(100_000);
    let all = json!([
        {"hex": hex(&(0..=255).collect::<Vec<u8>>())},
        {"hex": "fffe0a"},
        {"hex": "78", "times": 10 << 20},
        {"hex": "5b", "times": 200_000},
        line(&format!("{{\"op\":{}1{}", "{\"a\":".repeat(20_000), "}".repeat(20_001))),
        line(&format!("{{\"op\":\"record\",\"pid\":1,\"command\":[{}\"\"]}}", "\"\",".repeat(60_000))),
        {"hex": "00", "times": 1000},
        line("\u{0}{\"op\":\"status\"}"),
        line("{\"op\":\"no-such-thing\"}"),
        line("{\"op\":[]}"),
        line("[]"),
        line("{\"op\":\"record\",\"pid\":\"1\"}"),
        line("{\"op\":\"record\",\"pid\":-1}"),
        line("{\"op\":\"record\",\"pid\":4294967296}"),
        line("{\"op\":\"pin\",\"id\":\"../../../etc/passwd\",\"on\":true}"),
        line("{\"op\":\"let-go\",\"id\":\"a\\n\\u001b[31m\\u0000\"}"),
        line(&format!("{{\"op\":\"wait\",\"id\":\"{long}\"}}")),
        line(&format!("{{\"op\":\"record\",\"pid\":1,\"name\":\"{long}\"}}")),
        {"hex": hex(b"{\"op\":\"sta"), "silent": true},
        {"hex": "", "silent": true},
    ]);
    for (piece, (seconds, answers)) in all.as_array().unwrap().iter().zip(pieces(&daemon, &one, &all)) {
        let piece = format!("{piece:.200}");
        assert!(seconds < BORNE, "{piece}: {seconds} s");
        for answer in &answers {
            assert_eq!(answer["reply"], "error", "{piece}");
            assert!(!answer["message"].as_str().unwrap().contains('\u{1b}'), "{piece}: {answer}");
        }
    }
    beside.was_not_disturbed(&daemon, &other);
    records_a_worker(&daemon, &scene, &module);
    let grown = rss_bytes(&daemon).saturating_sub(before);
    assert!(grown < GROWS_BYTES, "{grown} bytes");
}

#[test]
fn thousands_of_connections_of_one_user_and_one_who_does_not_read_leave_room_for_others() {
    if lacking("users of its own") {
        return;
    }
    let scene = Scene::new().unwrap();
    let (one, other) = (Person::new(&scene, "obs7").unwrap(), Person::new(&scene, "obs8").unwrap());
    let module = module(&scene.path(""), "hoard", "import not_to_be_found\n");
    let daemon = Daemon::start(&scene.path(""), &rule(&module, "")).unwrap();
    let before = rss_bytes(&daemon);
    let mute = knocks(&daemon, &one, &["mute"]).spawn().unwrap();
    deadline::until("it is connected", LIMIT, || {
        (daemon.status().ok()?["clients"].as_u64()? > 1).then_some(())
    });
    // One client of ours has more than a thousand descriptors only if it may.
    let mut hoards: Vec<Child> =
        (0..4).map(|_| knocks(&daemon, &one, &["hoard", "900"]).spawn().unwrap()).collect();
    for hoard in &mut hoards {
        let mut line = String::new();
        BufReader::new(hoard.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let held: u64 = line.trim().parse().unwrap();
        assert!(held <= 40, "{held} connections are held");
    }
    let begun = Instant::now();
    let beside = Beside::start(&daemon, &other);
    assert!(begun.elapsed() < LIMIT / 3, "{:?}", begun.elapsed());
    let output = mute.wait_with_output().unwrap();
    let (seconds, in_vain): (f64, bool) = serde_json::from_slice(&output.stdout).unwrap();
    assert!(seconds < BORNE && !in_vain, "who does not read was borne for {seconds} s");
    for mut hoard in hoards {
        drop(hoard.stdin.take());
        hoard.wait().unwrap();
    }
    deadline::until("all are gone", Duration::from_secs(30), || {
        (daemon.status().ok()?["clients"] == 1).then_some(())
    });
    beside.was_not_disturbed(&daemon, &other);
    records_a_worker(&daemon, &scene, &module);
    let grown = rss_bytes(&daemon).saturating_sub(before);
    assert!(grown < GROWS_BYTES, "{grown} bytes");
}

#[test]
fn thousands_of_random_requests_do_nothing() {
    if lacking("users of its own") {
        return;
    }
    let scene = Scene::new().unwrap();
    let (one, other) = (Person::new(&scene, "obs9").unwrap(), Person::new(&scene, "obs0").unwrap());
    let module = module(&scene.path(""), "fuzzed", "import not_to_be_found\n");
    let daemon = Daemon::start(&scene.path(""), &rule(&module, "")).unwrap();
    let beside = Beside::start(&daemon, &other);
    let before = rss_bytes(&daemon);
    let clients: Vec<Child> = ["1", "2", "3"]
        .iter()
        .map(|seed| knocks(&daemon, &one, &["fuzz", seed, "1000"]).spawn().unwrap())
        .collect();
    for client in clients {
        let output = client.wait_with_output().unwrap();
        assert!(output.status.success());
        let counts: Value = serde_json::from_slice(&output.stdout).unwrap();
        let kinds: Vec<&String> = counts.as_object().unwrap().keys().collect();
        assert!(kinds.iter().all(|kind| ["error", "status", "hung up"].contains(&kind.as_str())), "{counts}");
        assert!(counts["error"].as_u64() > Some(300) && counts["status"].as_u64() > Some(10), "{counts}");
    }
    assert_eq!(daemon.status().unwrap()["begun"], 1, "that beside it");
    assert!(!daemon.base().join("users").join(one.uid.to_string()).exists());
    beside.was_not_disturbed(&daemon, &other);
    records_a_worker(&daemon, &scene, &module);
    let grown = rss_bytes(&daemon).saturating_sub(before);
    assert!(grown < GROWS_BYTES, "{grown} bytes");
}
