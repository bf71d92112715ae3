//! The service's directories: whose they are, who finds what in them, and what is planted there.

use std::{
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
};

use nix::{sys::stat::Mode, unistd::mkfifo};

use super::store::ending;
use crate::session::{
    Invoker, Recorder, Redactor, Session, SessionError, StateDir, service,
    testing::{header, record},
};

fn own() -> Invoker {
    Invoker::current()
}

/// The service's directory of a user; only root can give one away.
fn of(base: &Path, uid: u32, group: Option<u32>) -> StateDir {
    let uid = if own().uid == 0 { uid } else { own().uid };
    StateDir::service(base, uid, own().gid, group).unwrap()
}

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().permissions().mode() & 0o7777
}

fn session(dir: &StateDir, id: &str, name: &str, started_at: &str) {
    let mut header = header(id, name);
    header.started_at = started_at.into();
    record(dir, header, vec![]).finish(ending());
}

#[test]
fn each_user_has_a_directory_that_others_cannot_read() {
    let scratch = tempfile::tempdir().unwrap();
    let base = scratch.path().join("base");
    let dir = of(&base, 4711, None);
    assert_eq!(mode(dir.path()), 0o700);
    assert_eq!(mode(&base.join("users")), 0o711);
    let owner = if own().uid == 0 { 4711 } else { own().uid };
    assert_eq!(dir.path().metadata().unwrap().uid(), owner);
    assert_eq!(dir.path(), base.canonicalize().unwrap().join(format!("users/{owner}")));
    assert_eq!(base.join("users").metadata().unwrap().uid(), own().uid);
    let recorder = record(&dir, header("a", "one"), vec![]);
    let wal = format!("{}-wal", recorder.path().display());
    for path in [recorder.path(), Path::new(&wal), &dir.path().join("a.recording"), &dir.path().join("key")] {
        assert_eq!((mode(path), path.metadata().unwrap().uid()), (0o600, owner), "{}", path.display());
    }
}

#[test]
fn a_group_may_read_sessions_and_not_the_key() {
    let scratch = tempfile::tempdir().unwrap();
    let group = if own().uid == 0 { 4713 } else { own().gid };
    let dir = of(scratch.path(), 4711, Some(group));
    assert_eq!((mode(dir.path()), dir.path().metadata().unwrap().gid()), (0o2750, group));
    // Directories in it get their group from it.
    assert_eq!(mode(&scratch.path().join("users")), 0o2751);
    let mut recorder = record(&dir, header("a", "one"), vec![]);
    recorder.snapshot(&dir.path_of("copy"), &header("copy", "two"), &ending()).unwrap();
    let wal = format!("{}-wal", recorder.path().display());
    for path in [recorder.path(), Path::new(&wal), &dir.path().join("a.recording"), &dir.path_of("copy")] {
        let found = (mode(path), path.metadata().unwrap().gid());
        assert_eq!(found, (0o640, group), "{}", path.display());
    }
    assert_eq!(mode(&dir.path().join("key")), 0o600);
    // A second time, and after somebody changed the mode, it is as it should be.
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
    assert_eq!(mode(of(scratch.path(), 4711, Some(group)).path()), 0o2750);
}

#[test]
fn what_is_planted_in_the_place_of_a_directory_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let (base, victim) = (scratch.path().join("base"), scratch.path().join("victim"));
    std::fs::create_dir(&victim).unwrap();
    let before = mode(&victim);
    std::fs::create_dir_all(base.join("users")).unwrap();
    let place = base.join("users/4711");
    let refused = || StateDir::service(&base, 4711, 4711, None).map(drop).unwrap_err().to_string();
    symlink(&victim, &place).unwrap();
    assert!(refused().contains("cannot make service directory"), "{}", refused());
    std::fs::remove_file(&place).unwrap();
    mkfifo(&place, Mode::S_IRWXU).unwrap();
    assert!(refused().contains("Not a directory"), "{}", refused());
    std::fs::remove_file(&place).unwrap();
    std::fs::remove_dir(base.join("users")).unwrap();
    symlink(&victim, base.join("users")).unwrap();
    assert!(refused().contains("cannot make service directory"), "{}", refused());
    assert_eq!((mode(&victim), victim.metadata().unwrap().uid()), (before, own().uid));
    assert_eq!(victim.read_dir().unwrap().count(), 0);
}

#[test]
fn a_directory_that_is_somebody_elses_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    if own().uid != 0 {
        // Nobody else can make a directory that is not theirs, and one of theirs is no other's.
        let refused = StateDir::service(scratch.path(), own().uid + 1, own().gid, None).map(drop);
        assert!(refused.unwrap_err().to_string().contains("cannot make service directory"));
        return;
    }
    drop(of(scratch.path(), 4711, None));
    std::os::unix::fs::chown(scratch.path().join("users/4711"), Some(4712), None).unwrap();
    let refused = StateDir::service(scratch.path(), 4711, 4711, None).map(drop).unwrap_err().to_string();
    assert!(refused.contains("belongs to user 4712"), "{refused}");
}

#[test]
fn a_new_session_replaces_nothing_that_was_planted() {
    let scratch = tempfile::tempdir().unwrap();
    let victim = scratch.path().join("victim");
    std::fs::write(&victim, "precious").unwrap();
    let dir = of(&scratch.path().join("base"), 4711, None);
    let create = || Recorder::create(&dir, header("a", "one"), Redactor::with_key([0; 32])).map(drop);
    for name in ["a.sqlite", "a.recording", "a.sqlite-wal", "a.sqlite-shm", "a.sqlite-journal"] {
        let place = dir.path().join(name);
        symlink(&victim, &place).unwrap();
        let made = create();
        assert!(made.is_err(), "{name}, a link");
        std::fs::remove_file(&place).unwrap();
        mkfifo(&place, Mode::S_IRWXU).unwrap();
        assert!(create().is_err(), "{name}, a FIFO");
        std::fs::remove_file(&place).unwrap();
        std::fs::hard_link(&victim, &place).unwrap();
        assert!(create().is_err(), "{name}, another name of a file");
        std::fs::remove_file(&place).unwrap();
        assert_eq!(std::fs::read(&victim).unwrap(), b"precious", "{name}");
        assert_eq!(dir.path().read_dir().unwrap().count(), 0, "nothing is left of it");
    }
    create().unwrap();
    // Nor a session that is there.
    drop(std::fs::remove_file(dir.path().join("a.recording")));
    let before = std::fs::read(dir.path_of("a")).unwrap();
    assert!(create().is_err());
    assert_eq!(std::fs::read(dir.path_of("a")).unwrap(), before);
}

#[test]
fn a_person_finds_their_own_and_what_the_service_keeps_for_them() {
    let scratch = tempfile::tempdir().unwrap();
    let (state, base) = (scratch.path().join("state"), scratch.path().join("base"));
    let me = own();
    session(&StateDir::open(Some(&state), &me).unwrap(), "a", "worker", "2026-01-01T00:00:00Z");
    session(&of(&base, me.uid, None), "b", "worker", "2026-01-02T00:00:00Z");
    if me.uid == 0 {
        session(&of(&base, 4711, None), "c", "other", "2026-01-03T00:00:00Z");
    }
    // What is in nobody's directory is not looked for.
    std::fs::create_dir(base.join("users/stray")).unwrap();
    session(
        &StateDir::open(Some(&base.join("users/stray")), &me).unwrap(),
        "d",
        "stray",
        "2026-01-09T00:00:00Z",
    );
    let ids = |dir: &StateDir| -> Vec<(String, u32)> {
        dir.list().unwrap().into_iter().map(|listed| (listed.id, listed.owner)).collect()
    };
    let service: Vec<(String, u32)> =
        if me.uid == 0 { vec![("c".into(), 4711), ("b".into(), 0)] } else { vec![("b".into(), me.uid)] };
    let named = StateDir::open_to_read(Some(&base), &me, Path::new("/nowhere")).unwrap();
    assert_eq!(ids(&named), service, "what is said is what is shown");
    assert_eq!(ids(&StateDir::open_to_read(Some(&state), &me, &base).unwrap()), [("a".into(), me.uid)]);
    // As without --state-dir.
    let mut both = StateDir::open(Some(&state), &me).unwrap();
    both.also(&base, me.uid);
    assert_eq!(ids(&both), [service.clone(), vec![("a".into(), me.uid)]].concat());
    assert_eq!(both.find_listed("worker").unwrap().id, "b", "of one name the newest wins");
    let found = both.find_listed("b").unwrap();
    both.remove(&found, false).unwrap();
    assert_eq!(both.find_listed("worker").unwrap().id, "a");
}

#[test]
fn what_others_put_into_their_directory_is_not_trusted() {
    let scratch = tempfile::tempdir().unwrap();
    let base = scratch.path().join("base");
    let dir = of(&base, own().uid, None);
    let secret = StateDir::open(Some(&scratch.path().join("state")), &own()).unwrap();
    session(&secret, "secret", "secret", "2026-01-01T00:00:00Z");
    session(&dir, "good", "good", "2026-01-01T00:00:00Z");
    symlink(secret.path_of("secret"), dir.path_of("link")).unwrap();
    mkfifo(&dir.path_of("fifo"), Mode::S_IRWXU).unwrap();
    std::fs::create_dir(dir.path_of("dir")).unwrap();
    std::fs::copy(dir.path_of("good"), dir.path_of("wal")).unwrap();
    symlink(secret.path_of("secret"), dir.path().join("wal.sqlite-wal")).unwrap();
    let all = StateDir::open_to_read(Some(&base), &own(), Path::new("/nowhere")).unwrap();
    let listed = all.list().unwrap();
    let readable: Vec<&str> =
        listed.iter().filter(|one| one.summary.is_ok()).map(|one| one.id.as_str()).collect();
    assert_eq!(readable, ["good"]);
    for id in ["link", "fifo", "dir", "wal"] {
        let refused = Session::open(&dir.path_of(id)).map(drop).unwrap_err();
        assert!(matches!(refused, SessionError::Strange { .. }), "{id}: {refused}");
    }
}

#[test]
fn a_session_that_is_another_users_file_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = of(scratch.path(), 4711, None);
    session(&dir, "plain", "plain", "2026-01-01T00:00:00Z");
    let expected = Session::open_of(&dir.path_of("plain"), Some(4712));
    assert!(matches!(expected, Err(SessionError::Strange { .. })), "{expected:?}");
    if own().uid != 0 {
        // The rest needs files of two users.
        return;
    }
    let other = of(scratch.path(), 4712, None);
    session(&other, "theirs", "theirs", "2026-01-01T00:00:00Z");
    std::fs::hard_link(other.path_of("theirs"), dir.path_of("mine")).unwrap();
    let all = StateDir::open_to_read(Some(scratch.path()), &own(), Path::new("/nowhere")).unwrap();
    let listed = all.list().unwrap();
    let mine = listed.iter().find(|one| one.id == "mine").unwrap();
    assert!(matches!(mine.summary, Err(SessionError::Strange { .. })), "{:?}", mine.summary);
}

#[test]
fn a_hostile_schema_does_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = of(scratch.path(), own().uid, None);
    session(&dir, "a", "one", "2026-01-01T00:00:00Z");
    // A table that never ends, in the place of the one that is read.
    rusqlite::Connection::open(dir.path_of("a"))
        .unwrap()
        .execute_batch(
            "ALTER TABLE events RENAME TO old; CREATE VIEW events AS WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS id, 1 AS at_ns, 1 AS pid, 1 AS tid, 'note' AS kind, 'ebpf' AS origin, '{}' AS data, NULL AS bytes FROM n",
        )
        .unwrap();
    let session = Session::open(&dir.path_of("a")).unwrap();
    let read = session.events(&crate::session::Filter::default(), |_, _| std::ops::ControlFlow::Continue(()));
    assert!(matches!(read, Err(SessionError::Sqlite { .. })), "no view is read: {read:?}");
    // A header that would not fit in memory.
    let big = rusqlite::Connection::open(dir.path_of("a")).unwrap();
    big.execute("UPDATE meta SET value = zeroblob(70000000) WHERE key = 'header'", []).unwrap();
    drop(big);
    assert!(Session::open(&dir.path_of("a")).unwrap_err().to_string().contains("too big"));
}

#[test]
fn a_removal_stays_in_the_directory_and_follows_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let base = scratch.path().join("base");
    let (dir, victim) = (of(&base, 4711, None), scratch.path().join("victim"));
    let uid = if own().uid == 0 { 4711 } else { own().uid };
    std::fs::create_dir(&victim).unwrap();
    std::fs::write(victim.join("a.sqlite"), "precious").unwrap();
    session(&dir, "a", "one", "2026-01-01T00:00:00Z");
    symlink(victim.join("a.sqlite"), dir.path().join("a.sqlite-wal")).unwrap();
    let found = service::sessions(&base).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].id.as_str(), found[0].owner, &found[0].path), ("a", uid, &dir.path_of("a")));
    service::remove(&base, uid, "a").unwrap();
    service::remove(&base, uid, "a").unwrap();
    assert_eq!(
        dir.path().read_dir().unwrap().filter(|e| e.as_ref().unwrap().file_name() != "key").count(),
        0
    );
    for bad in ["../victim/a", "..", ".", "", "/etc/passwd", "a/b"] {
        assert!(matches!(service::remove(&base, uid, bad), Err(SessionError::BadName { .. })), "{bad}");
    }
    // The user's directory was replaced by a link.
    std::fs::remove_dir_all(dir.path()).unwrap();
    symlink(&victim, base.join(format!("users/{uid}"))).unwrap();
    assert!(service::remove(&base, uid, "a").is_err());
    assert!(service::sessions(&base).unwrap().is_empty(), "what is behind a link is not looked at");
    assert_eq!(std::fs::read(victim.join("a.sqlite")).unwrap(), b"precious");
}
