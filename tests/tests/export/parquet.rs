//! Parquet, read by DuckDB and by ClickHouse, from folders and from an object store: one table is one table, however many sessions are in it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use rusqlite::Connection;
use serde_json::Value;
use tests::deadline;
use tests::observe::said;
use tests::target;
use tests::venv::{self, Venv};

use super::fixtures::first_of_each;
use super::recorded;

const READERS: &str =
    "boto3==1.44.5\nchdb==4.4.0\nduckdb==2.0.1\nmoto[server]==5.2.5\npandas==3.1.1\npyarrow==26.0.1\n";
const PATIENCE: Duration = Duration::from_secs(60);

/// Tables of Parquet, and what counts their rows in a session. What was concluded is in no session.
const TABLES: [(&str, Option<&str>); 18] = [
    ("amqp_methods", Some("amqp_methods")),
    ("broker_events", Some("broker_events")),
    ("capabilities", Some("capabilities")),
    ("environment", Some("environment")),
    ("events", Some("events")),
    ("execs", Some("execs")),
    ("exits", Some("exits")),
    ("files", Some("files")),
    ("findings", None),
    ("imports", Some("imports")),
    ("losses", Some("losses")),
    ("messages", Some("messages")),
    ("notes", Some("notes")),
    ("outputs", Some("outputs")),
    ("processes", Some("processes")),
    ("queue_samples", Some("queue_samples")),
    ("sessions", Some("session")),
    ("sockets", Some("sockets")),
];

fn python(script: &str) -> Command {
    let venv = Venv::ensure_with(&venv::interpreter(), READERS).unwrap();
    let mut python = Command::new(venv.python());
    python.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/export").join(script));
    credentials(&mut python);
    python
}

/// What moto takes from anybody.
fn credentials(command: &mut Command) -> &mut Command {
    command
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env("AWS_REGION", "us-east-1")
        .env_remove("AWS_PROFILE")
}

fn printed(command: &mut Command) -> Value {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn export(session: &Path, to: &str) -> Command {
    let mut observer = Command::new(target::observer().unwrap());
    observer.arg("export").arg(session).args(["--format", "parquet", "-o", to]).stdin(Stdio::null());
    observer
}

fn exported(session: &Path, to: &str) {
    let output = export(session, to).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

/// Both readers' counts are those of the sessions; what they were asked of them beside.
fn holds(folder: &Path, sessions: &[PathBuf]) -> Value {
    let counted = printed(python("tables.py").arg(folder));
    let rows = counted["rows"].as_object().unwrap();
    let tables: Vec<&str> = TABLES.iter().map(|(table, _)| *table).collect();
    assert_eq!(rows.keys().collect::<Vec<_>>(), tables);
    let mut kinds: BTreeSet<(String, String, i64)> = BTreeSet::new();
    let mut expected: BTreeMap<&str, BTreeMap<String, i64>> = BTreeMap::new();
    for session in sessions {
        let database = Connection::open(session).unwrap();
        let number = |sql: &str| database.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        let id: String = database.query_row("SELECT id FROM session", [], |row| row.get(0)).unwrap();
        for (table, view) in TABLES {
            let Some(view) = view else { continue };
            let count = number(&format!("SELECT count(*) FROM {view}"));
            if count > 0 {
                expected.entry(table).or_default().insert(id.clone(), count);
            }
        }
        let mut rows = database.prepare("SELECT kind, count(*) FROM events GROUP BY kind").unwrap();
        let rows = rows.query_map([], |row| Ok((id.clone(), row.get(0)?, row.get(1)?))).unwrap();
        kinds.extend(rows.map(Result::unwrap));
    }
    for (table, view) in TABLES {
        if view.is_none() {
            continue;
        }
        let found: BTreeMap<String, i64> = rows[table]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| (row[2].as_str().unwrap().to_owned(), row[3].as_i64().unwrap()))
            .collect();
        assert_eq!(found, expected.remove(table).unwrap_or_default(), "{table}");
    }
    let found: BTreeSet<(String, String, i64)> = serde_json::from_value(counted["kinds"].clone()).unwrap();
    assert_eq!(found, kinds);
    assert_eq!(counted["clocks"], 0, "both clocks say the same");
    counted
}

/// Names of all files under a folder.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in folder.read_dir().into_iter().flatten().map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(entry.path()),
                false => found.push(entry.file_name().into_string().unwrap()),
            }
        }
    }
    found
}

#[test]
fn duckdb_and_clickhouse_count_the_same_rows_as_the_session_holds() {
    let (_broker, state) = recorded();
    let folder = tempfile::tempdir().unwrap();
    let session = state.session().unwrap();
    exported(&session, folder.path().to_str().unwrap());
    let counted = holds(folder.path(), std::slice::from_ref(&session));
    for table in
        ["amqp_methods", "broker_events", "environment", "findings", "imports", "messages", "queue_samples"]
    {
        assert_ne!(counted["rows"][table], Value::Array(Vec::new()), "{table}");
    }
    assert!(counted["words"].as_array().unwrap().contains(&"dramatiq".into()), "{}", counted["words"]);
    let text = files(folder.path());
    assert!(text.iter().all(|name| name == "part-0.parquet"), "{text:?}");
    // Again: what is there is replaced.
    exported(&session, folder.path().to_str().unwrap());
    holds(folder.path(), &[session]);
}

#[test]
fn a_fleet_in_one_folder_is_queried_as_one() {
    let scratch = tempfile::tempdir().unwrap();
    let fleet = scratch.path().join("fleet");
    let mut sessions = Vec::new();
    for (number, fixture) in first_of_each().into_iter().enumerate() {
        let session = scratch.path().join(format!("{number}.sqlite"));
        fixture.unpack(&session).unwrap();
        exported(&session, &format!("file://{}", fleet.display()));
        sessions.push(session);
    }
    assert!(sessions.len() > 10);
    let counted = holds(&fleet, &sessions);
    let verdicts = counted["verdicts"].as_array().unwrap();
    assert_eq!(verdicts.len(), sessions.len());
    for (session, verdict) in sessions.iter().map(|session| {
        let mut explain = Command::new(target::observer().unwrap());
        let explained = printed(explain.arg("explain").arg(session).args(["--format", "json"]));
        let found = verdicts.iter().find(|row| row[0] == explained["session"]["id"]).cloned();
        (explained, found.unwrap())
    }) {
        assert_eq!(verdict[1], session["session"]["id"]);
        assert_eq!(verdict[2], session["verdict"]["code"]);
        assert_eq!(verdict[3], session["lost"]["total"].to_string());
        assert_eq!(verdict[4], session["unseen"].as_array().unwrap().len().to_string());
    }
}

/// moto's S3; ends when it is dropped.
struct Store {
    server: Child,
    said: BufReader<ChildStdout>,
    port: String,
}

impl Store {
    fn start(options: &[&str]) -> Self {
        let mut server =
            python("store.py").args(options).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(server.stdout.take().unwrap());
        let mut store = Self { server, said, port: String::new() };
        store.port = store.next();
        store
    }

    fn next(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        assert!(line.ends_with('\n'), "the store ended");
        line.trim().to_owned()
    }

    fn export(&self, session: &Path, to: &str) -> Command {
        let mut export = export(session, to);
        credentials(&mut export)
            .env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", self.port))
            .env("AWS_ALLOW_HTTP", "true");
        export
    }

    /// Fetches what can be seen.
    fn fetch(&self, folder: &Path) -> Value {
        printed(python("bucket.py").arg(&self.port).arg(folder))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn kept() -> (tempfile::TempDir, PathBuf) {
    let scratch = tempfile::tempdir().unwrap();
    let session = scratch.path().join("session.sqlite");
    first_of_each().first().unwrap().unpack(&session).unwrap();
    (scratch, session)
}

#[test]
fn an_object_store_holds_the_same_and_shows_nothing_of_an_export_that_was_killed() {
    let (scratch, session) = kept();
    let mut store = Store::start(&["hold"]);
    let mut killed = store.export(&session, "s3://fleet/observer").spawn().unwrap();
    assert_eq!(store.next(), "held");
    killed.kill().unwrap();
    assert_eq!(killed.wait().unwrap().signal(), Some(9));
    let seen = store.fetch(scratch.path());
    assert_eq!(seen["names"], Value::Array(Vec::new()), "all is sent, and nothing to be seen");
    assert_eq!(seen["unfinished"], 18);
    let output = store.export(&session, "s3://fleet/observer").output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let seen = store.fetch(scratch.path());
    assert_eq!(seen["names"].as_array().unwrap().len(), 18);
    holds(&scratch.path().join("observer"), &[session]);
}

#[test]
fn what_is_wrong_with_an_object_store_is_told_with_what_to_do_next() {
    let (_scratch, session) = kept();
    let store = Store::start(&[]);
    let refused = |change: &dyn Fn(&mut Command), to: &str| {
        let mut export = store.export(&session, to);
        change(&mut export);
        let output = export.output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = said(&output);
        assert!(!said.contains("s3cret"), "{said}");
        said
    };
    let set = |name: &'static str, value: &'static str| {
        move |command: &mut Command| {
            command.env(name, value);
        }
    };
    let expect = |said: String, word: &str| assert!(said.contains(word), "{word}: {said}");
    expect(refused(&|_| {}, "s3://nowhere/x"), "there is no such bucket: make it");
    expect(refused(&set("AWS_ALLOW_HTTP", "false"), "s3://fleet/x"), "AWS_ALLOW_HTTP=true");
    expect(refused(&set("AWS_SECRET_ACCESS_KEY", ""), "s3://fleet/x"), "AWS_SECRET_ACCESS_KEY is not");
    expect(
        refused(
            &|command| {
                command
                    .env_remove("AWS_REGION")
                    .env_remove("AWS_DEFAULT_REGION")
                    .env_remove("AWS_ENDPOINT_URL");
            },
            "s3://fleet/x",
        ),
        "no region; set AWS_REGION",
    );
    // Nobody listens at port 1, where the machine's own credentials would be.
    expect(
        refused(
            &|command| {
                command
                    .env_remove("AWS_ACCESS_KEY_ID")
                    .env_remove("AWS_SECRET_ACCESS_KEY")
                    .env("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1");
            },
            "s3://fleet/x",
        ),
        "no credentials: set AWS_ACCESS_KEY_ID",
    );
    expect(refused(&|_| {}, "s3://me:s3cret@fleet/x"), "credentials belong in AWS_ACCESS_KEY_ID");
    expect(refused(&|_| {}, "gs://fleet/x"), "only file:// and s3:// are known");
    let output = Command::new(target::observer().unwrap())
        .arg("export")
        .arg(&session)
        .args(["--format", "parquet"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    expect(said(&output), "it is a folder of files; name one with -o");
}

#[test]
fn an_export_that_was_killed_leaves_no_part_that_a_query_would_read() {
    let (scratch, session) = kept();
    // Large enough to be met in the middle.
    let database = Connection::open(&session).unwrap();
    let count = || database.query_row("SELECT count(*) FROM events", [], |row| row.get::<_, i64>(0)).unwrap();
    while count() < 500_000 {
        let again = "INSERT INTO events (at_ns, pid, tid, kind, origin, data) SELECT at_ns, pid, tid, 'stat', origin, '{}' FROM events";
        database.execute_batch(again).unwrap();
    }
    let fleet = scratch.path().join("fleet");
    let to = fleet.to_str().unwrap();
    let mut killed = export(&session, to).spawn().unwrap();
    deadline::until("a second table is begun", PATIENCE, || (files(&fleet).len() > 1).then_some(()));
    killed.kill().unwrap();
    assert_eq!(killed.wait().unwrap().signal(), Some(9), "it was in the middle");
    let left = files(&fleet);
    assert!(
        !left.is_empty() && left.iter().all(|name| name.starts_with('.') && name.ends_with(".part")),
        "{left:?}"
    );
    exported(&session, to);
    let whole = files(&fleet).into_iter().filter(|name| name.ends_with(".parquet")).count();
    assert_eq!(whole, 18);
    holds(&fleet, &[session]);
}
