//! What is recorded is what is read, and files that are none of ours are told apart.

use std::{ops::ControlFlow, path::Path};

use rusqlite::Connection;

use super::bodies;
use crate::{
    event::{Body, Event, FileCall, Known, Pid},
    session::{
        Ending, Filter, Session, SessionError, State, StateDir,
        testing::{STARTED_NS, event, header, record, state_dir},
    },
};

pub(super) fn ending() -> Ending {
    Ending { ended_ns: STARTED_NS + 100, code: Some(0), signal: None, reason: "exited".into() }
}

pub(super) fn read(session: &Session, filter: &Filter) -> Vec<(u64, Event)> {
    let mut events = Vec::new();
    let each = |id, event| {
        events.push((id, event));
        ControlFlow::Continue(())
    };
    assert_eq!(session.events(filter, each).unwrap(), 0, "all kinds are known");
    events
}

/// A finished session `a` of one of each kind of event, a nanosecond apart.
fn finished(dir: &StateDir) -> (Session, Vec<Event>) {
    let events: Vec<Event> =
        (0..).map(|n| STARTED_NS + n).zip(bodies::all()).map(|(at, body)| event(at, body)).collect();
    let mut recorder = record(dir, header("a", "one"), events.clone());
    let mut output =
        event(STARTED_NS + 50, bodies::all().into_iter().find(|body| body.kind() == "output").unwrap());
    output.bytes = vec![0, 255, b'x'];
    recorder.append(vec![output.clone()], None);
    assert_eq!(recorder.finish(ending()), None);
    (Session::open(&dir.find("one").unwrap()).unwrap(), events.into_iter().chain([output]).collect())
}

#[test]
fn every_kind_of_event_comes_back_as_it_went_in() {
    let (_scratch, dir) = state_dir();
    let (session, events) = finished(&dir);
    let (ids, read): (Vec<u64>, Vec<Event>) = read(&session, &Filter::default()).into_iter().unzip();
    assert_eq!(read, events);
    assert_eq!(ids, (1..=events.len() as u64).collect::<Vec<_>>());
    assert_eq!(session.header(), &header("a", "one"));
    assert_eq!((session.ending(), session.state()), (Some(ending()), State::Done));
}

#[test]
fn the_kind_is_the_json_tag() {
    for body in bodies::all() {
        assert_eq!(serde_json::to_value(&body).unwrap()["kind"], body.kind());
    }
}

#[test]
fn a_finished_session_is_one_file_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let (_scratch, dir) = state_dir();
    let (session, _) = finished(&dir);
    drop(session);
    let mut files: Vec<_> = dir
        .path()
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name(), entry.metadata().unwrap().permissions().mode() & 0o777))
        .collect();
    files.sort();
    assert_eq!(files, [("a.sqlite".into(), 0o600), ("key".into(), 0o600)]);
    assert_eq!(dir.path().metadata().unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn events_are_read_in_order_of_time_and_as_filtered() {
    let (_scratch, dir) = state_dir();
    let mut late = event(STARTED_NS + 5, Body::OomVictim);
    late.pid = Pid(77);
    let open = |at, path: &str| {
        let Some(Body::Open(call)) = bodies::all().into_iter().find(|body| body.kind() == "open") else {
            panic!()
        };
        event(STARTED_NS + at, Body::Open(FileCall { resolved: Known::Is(path.into()), ..call }))
    };
    let events = vec![late, open(9, "/a/\"q\".py"), open(3, "/b.py"), event(STARTED_NS + 3, Body::OomVictim)];
    record(&dir, header("a", "one"), events).finish(ending());
    let session = Session::open(&dir.find("a").unwrap()).unwrap();
    let ids = |filter| read(&session, &filter).into_iter().map(|(id, _)| id).collect::<Vec<_>>();
    let all = Filter::default();
    assert_eq!(ids(all.clone()), [3, 4, 1, 2]);
    assert_eq!(ids(Filter { ids: vec![1, 3, 99], ..all.clone() }), [3, 1]);
    assert_eq!(ids(Filter { kinds: vec!["open".into(), "exit".into()], ..all.clone() }), [3, 2]);
    assert_eq!(ids(Filter { pids: vec![Pid(77)], ..all.clone() }), [1]);
    assert_eq!(ids(Filter { path_contains: Some("/\"q".into()), ..all.clone() }), [2]);
    assert_eq!(ids(Filter { from_ns: Some(5), ..all.clone() }), [1, 2]);
    assert_eq!(ids(Filter { to_ns: Some(5), limit: Some(2), ..all.clone() }), [3, 4]);
    assert_eq!(ids(Filter { after_id: Some(2), ..all.clone() }), [3, 4]);
    assert_eq!(ids(Filter { kinds: vec!["' OR true --".into()], ..all.clone() }), [0; 0]);
    let mut seen = 0;
    let break_at_once = |_, _| {
        seen += 1;
        ControlFlow::Break(())
    };
    session.events(&all, break_at_once).unwrap();
    assert_eq!(seen, 1);
}

#[test]
fn the_views_answer_what_they_say() {
    let (_scratch, dir) = state_dir();
    let (session, _) = finished(&dir);
    let database = Connection::open(session.path()).unwrap();
    let one = |sql: &str| -> String {
        database
            .query_row(sql, [], |row| row.get::<_, rusqlite::types::Value>(0))
            .map(|value| match value {
                rusqlite::types::Value::Text(text) => text,
                value => format!("{value:?}"),
            })
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    };
    assert_eq!(one("SELECT group_concat(name || '=' || value, ' ') FROM environment"), "A=1 B==2");
    assert_eq!(one("SELECT argv || cwd || umask || ppid FROM execs"), "[\"none\"]/srv181");
    assert_eq!(one("SELECT path FROM files WHERE kind = 'open'"), "lib/\"ü\u{1b}");
    assert_eq!(one("SELECT file FROM imports"), "/srv/lib/x.py");
    assert_eq!(
        one("SELECT address || ' ' || port || ' ' || errno FROM sockets WHERE kind = 'connect'"),
        "::1 5672 115"
    );
    assert_eq!(one("SELECT address FROM sockets WHERE kind = 'bind'"), "@x");
    assert_eq!(one("SELECT stream || len_bytes FROM outputs LIMIT 1"), "stderr3");
    assert_eq!(one("SELECT code FROM exits"), "Integer(3)");
    assert_eq!(one("SELECT hop || what || count FROM losses"), "ringfile17");
    assert_eq!(one("SELECT name || state FROM capabilities"), "btfworks");
    assert_eq!(one("SELECT text FROM notes"), "«note»\n");
    assert_eq!(one("SELECT name || duration_ns || exit_code || reason FROM session"), "one1000exited");
    assert_eq!(one("SELECT group_concat(pid) FROM (SELECT pid FROM processes ORDER BY pid)"), "10,20");
    assert_eq!(one("SELECT ppid FROM processes WHERE pid = 20"), "Integer(10)");
    assert_eq!(one("PRAGMA user_version"), "Integer(1)");
}

#[test]
fn a_session_can_be_read_while_it_is_recorded() {
    let (_scratch, dir) = state_dir();
    let mut recorder = record(&dir, header("a", "one"), vec![event(1, Body::OomVictim)]);
    let session = Session::open(&dir.find("@").unwrap()).unwrap();
    assert_eq!((session.state(), read(&session, &Filter::default()).len()), (State::Recording, 1));
    recorder.append(vec![event(2, Body::OomVictim)], None);
    recorder.commit();
    assert_eq!(read(&session, &Filter::default()).len(), 2);
    recorder.finish(ending());
    assert_eq!((session.state(), session.ending()), (State::Done, Some(ending())));
    drop(session);
    let session = Session::open(&dir.find("@").unwrap()).unwrap();
    assert_eq!(read(&session, &Filter::default()).len(), 2);
}

fn refused(path: &Path) -> SessionError {
    Session::open(path)
        .map(|session| session.events(&Filter::default(), |_, _| ControlFlow::Continue(())))
        .map_or_else(|error| error, |read| read.map(|_| ()).unwrap_err())
}

#[test]
fn files_that_cannot_be_read_say_why() {
    let (_scratch, dir) = state_dir();
    let (session, _) = finished(&dir);
    let at = |name: &str| dir.path().join(name);
    let whole = std::fs::read(session.path()).unwrap();

    assert!(matches!(refused(&at("absent")), SessionError::NoSuchFile { .. }));

    std::fs::write(at("truncated"), &whole[..whole.len() / 2]).unwrap();
    let error = refused(&at("truncated"));
    assert!(matches!(error, SessionError::Damaged { .. }), "{error}");

    std::fs::write(at("text"), "a".repeat(8192)).unwrap();
    let error = refused(&at("text"));
    assert!(matches!(error, SessionError::Damaged { .. }), "{error}");

    Connection::open(at("other")).unwrap().execute_batch("CREATE TABLE events (x)").unwrap();
    let error = refused(&at("other"));
    assert!(matches!(error, SessionError::NotOurs { .. }), "{error}");

    std::fs::write(at("newer"), &whole).unwrap();
    Connection::open(at("newer")).unwrap().pragma_update(None, "user_version", 7).unwrap();
    let error = refused(&at("newer")).to_string();
    assert!(
        error.contains("recorded by a newer observer (schema 7, this one reads up to 1): upgrade"),
        "{error}"
    );
}

#[test]
fn kinds_of_a_newer_observer_are_counted_and_left_out() {
    let (_scratch, dir) = state_dir();
    let (session, events) = finished(&dir);
    let database = Connection::open(session.path()).unwrap();
    database.execute("UPDATE events SET kind = 'teleport' WHERE kind IN ('fork', 'oom-victim')", []).unwrap();
    let mut seen = 0;
    let count = |_, _| {
        seen += 1;
        ControlFlow::Continue(())
    };
    assert_eq!(session.events(&Filter::default(), count).unwrap(), 2);
    assert_eq!(seen, events.len() - 2);
}
