//! What is written, read back with Parquet's own reader.

use std::{collections::BTreeMap, fs::File, io, path::PathBuf};

use arrow::{
    array::AsArray,
    datatypes::{DataType, Int64Type, TimestampNanosecondType},
    record_batch::RecordBatch,
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::{
    Folder,
    schema::written,
    tables::{SCHEMA, TABLES},
    write,
};
use crate::{
    event::Body,
    export::{ExportError, Progress, testing},
    fold,
    model::fixture::{self, HOSTILE, MASTER, WORKER},
    session::{Filter, Invoker, Recorder, Redactor, Session, StateDir},
};

/// Files by what they were called, in a folder of their own.
struct Kept {
    scratch: tempfile::TempDir,
    names: Vec<String>,
}

impl Folder for Kept {
    type File = File;

    fn create(&mut self, path: &str) -> io::Result<File> {
        self.names.push(path.to_owned());
        File::create(self.path(path))
    }

    fn close(&mut self, _: File) -> io::Result<()> {
        Ok(())
    }
}

impl Kept {
    fn of(session: &Session) -> Self {
        let mut kept = Self { scratch: tempfile::tempdir().unwrap(), names: Vec::new() };
        write(session, &mut kept, &Progress::default()).unwrap();
        kept
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name.replace('/', "+"))
    }

    fn reader(&self, table: &str) -> ParquetRecordBatchReaderBuilder<File> {
        let name = self.names.iter().find(|name| name.starts_with(&format!("{table}/"))).unwrap();
        ParquetRecordBatchReaderBuilder::try_new(File::open(self.path(name)).unwrap()).unwrap()
    }

    /// All rows of a table that is small.
    fn table(&self, table: &str) -> RecordBatch {
        let reader = self.reader(table);
        let schema = reader.schema().clone();
        let batches: Vec<RecordBatch> = reader.build().unwrap().map(Result::unwrap).collect();
        assert!(batches.len() <= 1);
        batches.into_iter().next().unwrap_or_else(|| RecordBatch::new_empty(schema))
    }

    fn rows(&self, table: &str) -> i64 {
        self.reader(table).metadata().file_metadata().num_rows()
    }
}

fn texts(batch: &RecordBatch, column: &str) -> Vec<Option<String>> {
    let column = batch.column_by_name(column).unwrap().as_string::<i32>();
    column.iter().map(|text| text.map(str::to_owned)).collect()
}

fn ints(batch: &RecordBatch, column: &str) -> Vec<Option<i64>> {
    batch.column_by_name(column).unwrap().as_primitive::<Int64Type>().iter().collect()
}

fn counted(session: &Session, table: &str) -> i64 {
    let database = rusqlite::Connection::open(session.path()).unwrap();
    let table = if table == "sessions" { "session" } else { table };
    database.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

/// The hand-made session, with what is derived when a recording ends.
fn derived() -> (tempfile::TempDir, Session) {
    let (scratch, session) = testing::session();
    let path = session.path().to_owned();
    let session = Session::open_to_derive(&path).unwrap();
    let derived = session.derive().unwrap();
    fold::fold(&session, &Filter::default(), Some(&derived)).unwrap();
    derived.finish().unwrap();
    (scratch, Session::open(&path).unwrap())
}

#[test]
fn every_table_has_its_columns_and_as_many_rows_as_in_the_session() {
    let (_scratch, session) = derived();
    let kept = Kept::of(&session);
    assert_eq!(kept.names.len(), TABLES.len());
    for table in TABLES {
        let reader = kept.reader(table.name);
        let columns: Vec<(String, DataType)> = reader
            .schema()
            .fields()
            .iter()
            .map(|field| (field.name().clone(), field.data_type().clone()))
            .collect();
        let names: Vec<String> = table.columns.iter().flat_map(written).map(|(name, _)| name).collect();
        assert_eq!(columns.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), names, "{}", table.name);
        for (name, kind) in columns {
            let utc = matches!(&kind, DataType::Timestamp(_, Some(zone)) if &**zone == "UTC");
            assert_eq!(utc, name.ends_with("_time"), "{name}: {kind}");
        }
        let about: BTreeMap<String, Option<String>> = reader
            .metadata()
            .file_metadata()
            .key_value_metadata()
            .unwrap()
            .iter()
            .map(|pair| (pair.key.clone(), pair.value.clone()))
            .collect();
        assert_eq!(about["observer.schema"].as_deref(), Some(SCHEMA));
        assert_eq!(about["observer.session.id"].as_ref(), Some(&session.header().id));
        assert_eq!(about["observer.session.name"].as_ref(), Some(&session.header().name));
        // Findings are nowhere in the session.
        if table.name != "findings" {
            assert_eq!(kept.rows(table.name), counted(&session, table.name), "{}", table.name);
        }
    }
    let filled: Vec<&str> =
        TABLES.iter().map(|table| table.name).filter(|name| kept.rows(name) > 0).collect();
    for name in ["amqp_methods", "environment", "files", "findings", "losses", "notes", "outputs", "sockets"]
    {
        assert!(filled.contains(&name), "the hand-made session has {name}: {filled:?}");
    }
}

#[test]
fn a_moment_stands_on_both_clocks_and_what_is_not_known_says_why() {
    let (_scratch, session) = testing::session();
    let kept = Kept::of(&session);
    let execs = kept.table("execs");
    assert_eq!(ints(&execs, "at_ns")[0], Some(i64::try_from(fixture::STARTED_NS).unwrap() + 100_000));
    let started: jiff::Timestamp = session.header().started_at.parse().unwrap();
    let wall = execs.column_by_name("at_time").unwrap().as_primitive::<TimestampNanosecondType>().value(0);
    assert_eq!(i128::from(wall), started.as_nanosecond() + 100_000);
    let argv = execs.column_by_name("argv").unwrap().as_list::<i32>().value(0);
    let argv: Vec<Option<&str>> = argv.as_string::<i32>().iter().collect();
    assert_eq!(argv, ["python", "-m", "dramatiq", "minimal_worker", "--path", "a b"].map(Some));
    let known = |column: &str| texts(&execs, &format!("{column}_known"))[0].clone().unwrap();
    assert_eq!(
        (known("argv"), known("user"), known("tty")),
        ("whole".into(), "unknown".into(), "none".into())
    );
    assert_eq!((ints(&execs, "uid")[0], &texts(&execs, "tty")[0]), (None, &None));
    let processes = kept.table("processes");
    let pids = ints(&processes, "pid");
    assert_eq!(pids, [Some(i64::from(MASTER)), Some(i64::from(WORKER))]);
    assert_eq!(texts(&processes, "role"), [Some("master".to_owned()), Some("worker".to_owned())]);
    assert_eq!(ints(&processes, "ppid")[1], Some(i64::from(MASTER)));
}

#[test]
fn the_session_and_what_was_concluded_are_there_with_what_was_lost_and_not_seen() {
    let (_scratch, session) = testing::session();
    let kept = Kept::of(&session);
    let (sessions, findings) = (kept.table("sessions"), kept.table("findings"));
    assert_eq!(texts(&sessions, "id"), [Some(session.header().id.clone())]);
    assert_eq!(texts(&sessions, "verdict")[0], texts(&findings, "code")[0]);
    assert_eq!(texts(&sessions, "title")[0], texts(&findings, "title")[0]);
    assert_eq!((ints(&sessions, "lost")[0], ints(&findings, "rank")[0]), (Some(12), Some(1)));
    assert_eq!(ints(&sessions, "events")[0], Some(counted(&session, "events")));
    assert_eq!(texts(&sessions, "state")[0].as_deref(), Some("done"));
    let unseen = sessions.column_by_name("unseen").unwrap().as_list::<i32>().value(0);
    assert_eq!(unseen.as_string::<i32>().value(0), "file calls made through io_uring");
    assert!(
        kept.names.last().unwrap().starts_with("sessions/"),
        "what says that the rest is there comes last"
    );
}

#[test]
fn hostile_names_make_no_path_and_hostile_text_stays_text() {
    let mut header = fixture::header();
    header.host = "../../etc/ho st=é".to_owned();
    header.started_at = "never".to_owned();
    let place = write::place(&header, "events");
    assert_eq!(
        place,
        format!(
            "events/host=..%2F..%2Fetc%2Fho%20st%3D%C3%A9/date=__HIVE_DEFAULT_PARTITION__/session={}/part-0.parquet",
            header.id
        )
    );
    header.host = String::new();
    assert!(write::place(&header, "events").contains("/host=__HIVE_DEFAULT_PARTITION__/"));
    let (_scratch, session) = testing::session();
    let kept = Kept::of(&session);
    let environment = kept.table("environment");
    let evil = texts(&environment, "name").iter().position(|name| name.as_deref() == Some("EVIL")).unwrap();
    assert_eq!(texts(&environment, "value")[evil].as_deref(), Some(HOSTILE));
}

#[test]
fn what_is_not_text_and_events_of_a_newer_observer_are_handed_on() {
    let mut events = fixture::events();
    for event in &mut events {
        if let Body::Output { .. } = event.body {
            event.bytes = b"\xff\xfe ok".to_vec();
        }
    }
    let (_scratch, session) = testing::session_of(events);
    let path = session.path().to_owned();
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute_batch("INSERT INTO events (at_ns, pid, tid, kind, origin, data) VALUES (1, 2, 3, 'telepathy', 'ebpf', '{\"a\":')")
        .unwrap();
    let session = Session::open(&path).unwrap();
    let kept = Kept::of(&session);
    assert_eq!(kept.rows("events"), counted(&session, "events"));
    assert!(texts(&kept.table("events"), "kind").contains(&Some("telepathy".to_owned())));
    assert_eq!(texts(&kept.table("outputs"), "text")[0].as_deref(), Some("\u{fffd}\u{fffd} ok"));
    let bytes = kept.table("events");
    let bytes = bytes.column_by_name("bytes").unwrap().as_binary::<i32>();
    assert!(bytes.iter().any(|bytes| bytes == Some(b"\xff\xfe ok")));
}

#[test]
fn a_session_that_was_cut_short_has_its_conversations_too() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = StateDir::open(Some(scratch.path()), &Invoker::current()).unwrap();
    let mut recorder = Recorder::create(&dir, fixture::header(), Redactor::open(&dir).unwrap()).unwrap();
    let path = recorder.path().to_owned();
    recorder.append(fixture::events(), None);
    recorder.commit();
    drop(recorder);
    let session = Session::open(&path).unwrap();
    let kept = Kept::of(&session);
    assert_eq!(counted(&session, "amqp_methods"), 0, "the session itself is not changed");
    let (_scratch, done) = derived();
    let whole = Kept::of(&done);
    assert_eq!(kept.rows("amqp_methods"), whole.rows("amqp_methods"));
    assert!(kept.rows("amqp_methods") > 0);
    assert_eq!(kept.rows("messages"), whole.rows("messages"));
    let sessions = kept.table("sessions");
    assert_eq!(
        (&texts(&sessions, "state")[0], ints(&sessions, "ended_ns")[0]),
        (&Some("cut-short".to_owned()), None)
    );
}

/// What takes some and then nothing more.
struct Full;

impl Folder for Full {
    type File = File;

    fn create(&mut self, _: &str) -> io::Result<File> {
        File::options().write(true).open("/dev/full")
    }

    fn close(&mut self, _: File) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_told_in_its_own_words() {
    let (_scratch, session) = testing::session();
    let error = write(&session, &mut Full, &Progress::default()).unwrap_err();
    let ExportError::Write(error) = error else { panic!("{error}") };
    assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
}
