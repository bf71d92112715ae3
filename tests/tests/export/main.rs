//! What is exported is read by programs we did not write: tshark, Perfetto's own messages, DuckDB, ClickHouse, rotel, jq, pandas and Chromium.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

mod fixtures;
mod html;
mod otlp;
mod parquet;
mod receiver;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rusqlite::Connection;
use serde_json::Value;
use tests::apt::{self, Package};
use tests::observe::{State, said};
use tests::rabbit::Broker;
use tests::target;
use tests::tshark;
use tests::venv::{self, Venv};

const MESSAGES: usize = 20;
const READERS: &str = "jsonschema==4.25.1\npandas==2.3.3\nperfetto==0.59.1\nprotobuf==7.36.2\n";

/// A broker, and a session of scripts and a worker that talk to it.
fn recorded() -> (Broker, State) {
    let venv = Venv::ensure().unwrap();
    let broker = Broker::start(&[]).unwrap();
    let state = State::new().unwrap();
    let script = format!(
        "python send.py echo_worker:echo {MESSAGES} needle && python conversation.py && exec python -m dramatiq -p 1 -t 2 echo_worker"
    );
    let observer = state
        .attach(&["--broker", &broker.url()], &["sh", "-c", &script])
        .unwrap()
        .current_dir(target::folder())
        .env("PATH", venv.path())
        .env("BROKER_URL", broker.url())
        .env("ECHO_MESSAGES", MESSAGES.to_string())
        .stdout(Stdio::null())
        .output()
        .unwrap();
    assert!(observer.status.success(), "{}: {}", observer.status, said(&observer));
    assert_eq!(state.lost().unwrap().values().sum::<i64>(), 0);
    (broker, state)
}

/// Where the newest session is exported to; gone with the folder.
fn exported(state: &State, format: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format);
    let mut export = state.verb(&["export", "@", "--format", format, "-o"]).unwrap();
    let output = export.arg(&path).output().unwrap();
    assert!(output.status.success(), "{}: {}", output.status, said(&output));
    assert_eq!(folder.path().read_dir().unwrap().count(), 1, "nothing is left beside it");
    (folder, path)
}

/// What a script of this folder prints of some files.
fn read_by(script: &str, files: &[&Path]) -> Value {
    let venv = Venv::ensure_with(&venv::interpreter(), READERS).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/export").join(script);
    let output = Command::new(venv.python()).arg(script).args(files).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What pandas says of exported events that are as their own schema says.
fn read_by_pandas(events: &Path) -> Value {
    let schema = events.with_extension("schema");
    let mut export = Command::new(target::observer().unwrap());
    let output = export.args(["export", "--schema", "jsonl"]).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    std::fs::write(&schema, output.stdout).unwrap();
    read_by("events.py", &[events, &schema])
}

#[test]
fn tshark_reads_the_same_methods_in_the_packets_as_we_in_the_session() {
    let (broker, state) = recorded();
    let (_folder, packets) = exported(&state, "pcapng");
    let ours = tshark::decoded(&state.show(&["--amqp"]).unwrap()).unwrap();
    let theirs = tshark::dissect(&packets, broker.port()).unwrap();
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>(), "the same connections");
    for (port, ours) in &ours {
        assert_eq!(ours.client, theirs[port].client, "the client at port {port} said");
        assert_eq!(ours.server, theirs[port].server, "the server said to port {port}");
    }
    let read = |options: &[&str]| tshark::read(&packets, broker.port(), options).unwrap();
    assert_eq!(
        read(&["-Y", "_ws.malformed || tcp.checksum.status == 0", "-o", "tcp.check_checksum:TRUE"]),
        ""
    );
    // Of its longest messages the session keeps the beginning: there is a gap, and it is told.
    let gaps = read(&["-Y", "frame.comment contains \"were not recorded\"", "-T", "fields", "-e", "tcp.len"]);
    assert!(!gaps.is_empty() && gaps.lines().all(|len| len == "0"), "{gaps}");
    let jumps = read(&["-Y", "tcp.analysis.lost_segment"]);
    assert_eq!(jumps.lines().count(), gaps.lines().count(), "nothing else is missing: {jumps}");
    // What begins in the middle of a packet, Wireshark may misread.
    let frames = read(&["-Y", "amqp.type", "-T", "fields", "-e", "amqp.type"]);
    assert!(frames.lines().all(|frames| !frames.contains(',')), "{frames}");
    let response = "amqp.method.arguments.response";
    let responses = read(&["-Y", response, "-T", "fields", "-e", response]);
    // `\0guest\0` and asterisks.
    assert!(
        !responses.is_empty() && responses.lines().all(|line| line.ends_with("2a2a2a2a2a")),
        "{responses}"
    );
    assert!(frames.lines().count() > 12 * MESSAGES);
}

#[test]
fn perfettos_own_messages_read_the_trace() {
    let (_broker, state) = recorded();
    let (_folder, path) = exported(&state, "perfetto");
    let trace = read_by("perfetto_trace.py", &[&path]);
    let list = |name: &str| trace[name].as_array().unwrap().clone();
    let (slices, instants) = (list("slices"), list("instants"));
    let of = |all: &[Value], category: &str| -> Vec<Value> {
        all.iter().filter(|one| one["category"] == category).cloned().collect()
    };
    let number = |value: &Value| value.as_u64().unwrap();

    // Imports stand one in another, as deep as the session says.
    let shown = state.show(&["--kind", "imported"]).unwrap();
    let recorded = shown["events"].as_array().unwrap();
    let depths: BTreeMap<u64, u64> =
        recorded.iter().map(|event| (number(&event["at_ns"]), number(&event["depth"]))).collect();
    let imports: Vec<Value> = of(&slices, "import");
    assert_eq!(imports.len(), recorded.len());
    for import in &imports {
        assert_eq!(Some(&number(&import["depth"])), depths.get(&number(&import["to_ns"])), "{import}");
        assert_eq!(import["track"]["kind"], "thread");
    }
    let json = imports.iter().find(|import| import["name"] == "json.decoder").unwrap();
    assert_eq!(json["parent"], "json");

    // Every method is there: as a slice with its answer, or by itself.
    let said = state.show(&["--amqp"]).unwrap();
    let told = said["said"].as_array().unwrap().len();
    let requests = of(&slices, "amqp");
    assert_eq!(2 * requests.len() + of(&instants, "amqp").len(), told);
    assert!(requests.iter().any(|request| request["name"] == "queue.declare"
        && request["to_ns"].as_u64() > request["from_ns"].as_u64()));

    // Every message is a flow of its own, from the publish in one process to the settlement in another.
    let messages = state.show(&["--messages"]).unwrap();
    let lives = messages["messages"].as_array().unwrap();
    let dramatiq: Vec<&Value> = lives.iter().filter(|life| life["actor"].is_string()).collect();
    assert_eq!(dramatiq.len(), 2 * MESSAGES);
    let flows = list("flows");
    let whole = |actor: &str| {
        let steps = [format!("publish {actor}"), actor.to_owned(), format!("acked {actor}")];
        flows.iter().filter(|flow| **flow == Value::from(steps.to_vec())).count()
    };
    assert_eq!((whole("echo"), whole("sink")), (MESSAGES, MESSAGES), "{flows:?}");

    // What a broker says of a queue, and how everything ended.
    let counters = trace["counters"].as_object().unwrap();
    assert!(
        ["echo ready", "sink ready"].iter().all(|name| counters.contains_key(*name)),
        "{:?}",
        counters.keys()
    );
    let exits = of(&instants, "process").iter().filter(|one| one["name"] == "exit 0").count();
    let ended = state.events(&["exit"]).unwrap().iter().filter(|event| event.int("code") == Some(0)).count();
    assert_eq!(exits, ended);
    assert!(!of(&instants, "finding").is_empty());
    let header = state.show(&["--limit", "0"]).unwrap();
    assert_eq!(trace["clocks"]["monotonic_ns"], header["session"]["started_ns"]);
}

#[test]
fn jq_and_pandas_count_the_same_events_as_the_session_holds() {
    apt::ensure(&[Package::new("jq", "tests read exported events with it")]).unwrap();
    let (_broker, state) = recorded();
    let (_folder, path) = exported(&state, "jsonl");
    let database = Connection::open(state.session().unwrap()).unwrap();
    let mut rows = database.prepare("SELECT kind, count(*) FROM events GROUP BY kind").unwrap();
    let counted: BTreeMap<String, u64> = rows
        .query_map([], |row| Ok((row.get(0)?, u64::from(row.get::<_, u32>(1)?))))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let total: u64 = counted.values().sum();

    let pandas = read_by_pandas(&path);
    assert_eq!(pandas["kinds"], serde_json::to_value(&counted).unwrap());
    assert_eq!((&pandas["said"], &pandas["lost"]["total"]), (&total.into(), &0.into()));
    assert!(!pandas["unseen"].as_array().unwrap().is_empty());

    let filter = "map(select(.id)) | group_by(.kind) | map({(.[0].kind): length}) | add";
    let jq = Command::new("jq").args(["--slurp", filter]).arg(&path).output().unwrap();
    assert!(jq.status.success(), "{}", said(&jq));
    assert_eq!(serde_json::from_slice::<BTreeMap<String, u64>>(&jq.stdout).unwrap(), counted);

    // The lines are the events that `show` prints.
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let shown = state.show(&[]).unwrap();
    assert_eq!(lines[1..lines.len() - 1], shown["events"].as_array().unwrap()[..]);
    let kinds: BTreeSet<&str> = counted.keys().map(String::as_str).collect();
    assert!(
        ["data", "exec", "import", "output", "queue-sample"].iter().all(|kind| kinds.contains(kind)),
        "{kinds:?}"
    );
}
