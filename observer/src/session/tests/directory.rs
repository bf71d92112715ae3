//! Finding, naming and listing sessions.

use std::{os::unix::fs::symlink, path::Path};

use crate::session::{
    Invoker, Recorder, Redactor, SessionError, State, StateDir,
    testing::{header, record, state_dir},
};

fn with(dir: &StateDir, id: &str, name: &str, started_at: &str) {
    let mut header = header(id, name);
    header.started_at = started_at.into();
    drop(record(dir, header, vec![]));
}

fn id_of(dir: &StateDir, wanted: &str) -> String {
    dir.find_listed(wanted).unwrap().id
}

#[test]
fn sessions_are_found_by_name_id_beginning_and_as_the_newest() {
    let (_scratch, dir) = state_dir();
    assert!(matches!(dir.find("@"), Err(SessionError::NoSessions { .. })));
    with(&dir, "20260101-0001", "worker", "2026-01-01T00:00:00Z");
    with(&dir, "20260103-0003", "other", "2026-01-03T00:00:00Z");
    with(&dir, "20260102-0002", "worker", "2026-01-02T00:00:00Z");
    assert_eq!(id_of(&dir, "worker"), "20260102-0002", "the newest of that name");
    assert_eq!(id_of(&dir, "20260101-0001"), "20260101-0001");
    assert_eq!(id_of(&dir, "20260103"), "20260103-0003");
    assert_eq!(id_of(&dir, "@"), "20260103-0003");
    assert_eq!(dir.find("/x/y.sqlite").unwrap(), Path::new("/x/y.sqlite"));
    let error = dir.find("2026010").unwrap_err().to_string();
    assert!(error.contains("is the beginning of 3 session ids"), "{error}");
    let error = dir.find("wroker").unwrap_err().to_string();
    assert!(error.contains("did you mean `worker`?"), "{error}");
    let error = dir.find("zzz").unwrap_err().to_string();
    assert!(error.contains("no session `zzz`") && error.contains("observer ls"), "{error}");
}

#[test]
fn names_are_counted_up_and_a_taken_one_is_refused() {
    let (_scratch, dir) = state_dir();
    let command = ["python", "-m", "dramatiq", "minimal_worker"].map(String::from);
    for (id, name) in [("a", "minimal_worker"), ("b", "minimal_worker-2"), ("c", "minimal_worker-3")] {
        assert_eq!(dir.name_for(&command).unwrap(), name);
        with(&dir, id, name, "2026-01-01T00:00:00Z");
    }
    let error = dir.check_name("minimal_worker-2").unwrap_err().to_string();
    assert!(error.contains("a session named `minimal_worker-2` already (b)"), "{error}");
    assert!(dir.check_name("free").is_ok());
    assert!(dir.check_name("-free").is_err());
    assert!(Recorder::create(&dir, header("../x", "n"), Redactor::open(&dir).unwrap()).is_err());
}

#[test]
fn what_cannot_be_read_is_listed_with_the_reason() {
    let (_scratch, dir) = state_dir();
    with(&dir, "a", "one", "2026-01-01T00:00:00Z");
    std::fs::write(dir.path().join("b.sqlite"), "garbage".repeat(1000)).unwrap();
    let sessions = dir.list().unwrap();
    assert_eq!(sessions.len(), 2);
    let unreadable = sessions.iter().find(|session| session.id == "b").unwrap();
    assert_eq!(unreadable.name(), "b");
    assert!(unreadable.summary.as_ref().unwrap_err().to_string().contains("not a database"));
    let readable = sessions.iter().find(|session| session.id == "a").unwrap();
    assert_eq!(readable.summary.as_ref().unwrap().state, State::CutShort);
}

#[test]
fn two_recordings_do_not_share_an_id() {
    let (_scratch, dir) = state_dir();
    let first = record(&dir, header("a", "one"), vec![]);
    assert!(Recorder::create(&dir, header("a", "two"), Redactor::open(&dir).unwrap()).is_err());
    assert_eq!(dir.find_listed("one").unwrap().summary.unwrap().state, State::Recording);
    drop(first);
}

#[test]
fn links_left_in_the_directory_are_not_followed() {
    let (scratch, dir) = state_dir();
    let victim = scratch.path().join("victim");
    std::fs::write(&victim, "precious").unwrap();
    symlink(&victim, dir.path().join("a.sqlite")).unwrap();
    symlink(&victim, dir.path().join("key")).unwrap();
    assert!(Redactor::open(&dir).is_err());
    assert!(Recorder::create(&dir, header("a", "one"), Redactor::with_key([0; 32])).is_err());
    assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
}

#[test]
fn a_directory_that_cannot_be_made_says_what_to_do() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = StateDir::open(Some(&file.join("below")), &Invoker::current()).unwrap_err().to_string();
    assert!(error.contains("cannot create state directory") && error.contains("--state-dir"), "{error}");
}

#[test]
fn what_root_makes_for_somebody_belongs_to_them() {
    use std::os::unix::fs::MetadataExt;
    let scratch = tempfile::tempdir().unwrap();
    let own = Invoker::current();
    // Only root can give files away; for everybody else they are their own anyway.
    let invoker = if own.uid == 0 { Invoker { uid: 4711, gid: 4712, ..own } } else { own };
    let dir = StateDir::open(Some(&scratch.path().join("a/b")), &invoker).unwrap();
    let recorder = record(&dir, header("a", "one"), vec![]);
    let wal = format!("{}-wal", recorder.path().display());
    for path in
        [dir.path(), &scratch.path().join("a"), recorder.path(), Path::new(&wal), &dir.path().join("key")]
    {
        let metadata = path.metadata().unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (invoker.uid, invoker.gid), "{}", path.display());
    }
}
