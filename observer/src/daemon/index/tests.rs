//! The index survives what happens to it, and never says more than it knows.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::fs::{PermissionsExt, symlink},
    process::{Command, Stdio},
};

use super::*;
use crate::session::{Invoker, StateDir, testing};

const CHILD: &str = "OBSERVER_TEST_INDEX";

fn over(_: &Path) -> bool {
    true
}

fn entry(base: &Path, id: &str, began_ns: i128) -> Entry {
    let owner = Invoker::current().uid;
    let path = service::path_of(base, owner, id);
    Entry { id: id.into(), owner, path, began_ns, bytes: 10, healthy: true, pinned: false }
}

/// A finished session in the service's directory of whoever runs the test.
fn session(base: &Path, id: &str) -> PathBuf {
    let me = Invoker::current();
    let dir = StateDir::service(base, me.uid, me.gid, None).unwrap();
    let recorder = testing::record(&dir, testing::header(id, id), vec![]);
    let path = recorder.path().to_owned();
    recorder.finish(crate::session::Ending {
        ended_ns: 1,
        code: None,
        signal: None,
        reason: "let-go".into(),
    });
    path
}

fn base() -> (tempfile::TempDir, PathBuf) {
    let scratch = tempfile::tempdir().unwrap();
    let base = scratch.path().canonicalize().unwrap();
    (scratch, base)
}

#[test]
fn what_is_added_is_there_when_it_is_opened_again() {
    let (_scratch, base) = base();
    let (index, opened) = Index::open(&base, &over).unwrap();
    assert_eq!(opened, Opened::Rebuilt { sessions: 0, why: None });
    for (n, id) in (1..).zip(["a", "b", "c"]) {
        session(&base, id);
        index.add(&entry(&base, id, n)).unwrap();
    }
    assert!(index.pin("b", true).unwrap());
    assert!(!index.pin("nobody", true).unwrap());
    drop(index);
    let mode = base.join(FILE).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let (index, opened) = Index::open(&base, &over).unwrap();
    assert_eq!(opened, Opened::Whole);
    let all = index.list(None).unwrap();
    assert_eq!(all.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), ["c", "b", "a"]);
    assert!(all[1].pinned && all[1].healthy && !all[0].pinned);
    assert_eq!(all[2], entry(&base, "a", 1));
    assert_eq!(index.list(Some(all[0].owner + 1)).unwrap(), []);
    let (removed, trouble) = index
        .retain(&Limits { max_age_ns: 0, max_sessions: 0, max_bytes: 0, min_free_bytes: 0 }, 1_000, 0)
        .unwrap();
    assert!(trouble.is_none());
    assert_eq!(removed.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), ["a", "c"]);
    assert!(!entry(&base, "a", 1).path.exists() && entry(&base, "b", 1).path.exists());
    assert_eq!(index.list(None).unwrap().len(), 1);
}

#[test]
fn what_is_lost_or_damaged_is_made_anew_and_says_so() {
    let (_scratch, base) = base();
    let path = session(&base, "a");
    let recording = session(&base, "b");
    let (index, _) = Index::open(&base, &|path| path != recording).unwrap();
    assert_eq!(index.list(None).unwrap().len(), 1, "what is being recorded is left alone");
    index.pin("a", true).unwrap();
    drop(index);
    std::fs::write(base.join(FILE), "garbage".repeat(2_000)).unwrap();
    let (index, opened) = Index::open(&base, &over).unwrap();
    let Opened::Rebuilt { sessions: 2, why: Some(why) } = opened else { panic!("{opened:?}") };
    assert!(why.contains("index"), "{why}");
    let all = index.list(None).unwrap();
    assert!(all.iter().all(|one| !one.healthy && !one.pinned && one.bytes > 0));
    drop(index);
    // Another program's database, and pages that contradict each other.
    let whole = std::fs::read(base.join(FILE)).unwrap();
    std::fs::remove_file(base.join(FILE)).unwrap();
    Connection::open(base.join(FILE)).unwrap().execute_batch("PRAGMA user_version = 9").unwrap();
    assert!(matches!(Index::open(&base, &over).unwrap().1, Opened::Rebuilt { sessions: 2, why: Some(_) }));
    let mut torn = whole;
    let len = torn.len();
    torn[len / 2..].fill(0xff);
    std::fs::write(base.join(FILE), torn).unwrap();
    assert!(matches!(Index::open(&base, &over).unwrap().1, Opened::Rebuilt { sessions: 2, why: Some(_) }));
    // A session that its owner removed is forgotten.
    std::fs::remove_file(path).unwrap();
    let (index, opened) = Index::open(&base, &over).unwrap();
    assert_eq!((opened, index.list(None).unwrap().len()), (Opened::Whole, 1));
}

#[test]
fn a_link_in_its_place_is_not_followed() {
    let (scratch, base) = base();
    let victim = scratch.path().join("victim");
    std::fs::write(&victim, "precious").unwrap();
    symlink(&victim, base.join(FILE)).unwrap();
    let (_, opened) = Index::open(&base, &over).unwrap();
    assert!(matches!(opened, Opened::Rebuilt { why: Some(_), .. }), "{opened:?}");
    assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
    assert!(!base.join(FILE).is_symlink());
}

#[test]
fn killing_the_service_forgets_nothing_that_was_told() {
    if let Some(base) = std::env::var_os(CHILD).map(PathBuf::from) {
        let (index, _) = Index::open(&base, &over).unwrap();
        for n in 1.. {
            let id = format!("s{}", n % 50);
            index.add(&Entry { pinned: true, ..entry(&base, &id, n) }).unwrap();
            writeln!(std::io::stderr(), "added {n}").unwrap();
        }
    }
    let (_scratch, base) = base();
    (0..50).for_each(|n| drop(session(&base, &format!("s{n}"))));
    for round in 1..=5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "daemon::index::tests::killing_the_service_forgets_nothing_that_was_told",
                "--nocapture",
            ])
            .env(CHILD, &base)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let enough = format!("added {}", 60 + round * 7);
        assert!(lines.by_ref().any(|line| line == enough));
        child.kill().unwrap();
        child.wait().unwrap();
        let last = lines.last().unwrap_or(enough);
        let last: i128 = last.strip_prefix("added ").unwrap().parse().unwrap();
        let (index, opened) = Index::open(&base, &over).unwrap();
        assert_eq!(opened, Opened::Whole, "round {round}");
        let all = index.list(None).unwrap();
        assert_eq!(all.len(), 50);
        assert!(all.iter().all(|one| one.pinned));
        assert!((last..=last + 1).contains(&all[0].began_ns), "{} told, {} known", last, all[0].began_ns);
    }
}
