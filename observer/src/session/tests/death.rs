//! A killed recorder and a full disk. Each test runs itself again as the child that suffers it.

use std::{
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Command, Stdio},
};

use super::store::{ending, read};
use crate::{
    event::{Body, Event, Hop, NoteLevel},
    session::{
        Filter, Invoker, Recorder, Session, State, StateDir,
        testing::{STARTED_NS, event, header, record, state_dir},
    },
};

const CHILD: &str = "OBSERVER_TEST_CHILD";

/// The directory a child works in; `None` in the test itself.
fn as_child() -> Option<StateDir> {
    let path = PathBuf::from(std::env::var_os(CHILD)?);
    Some(StateDir::open(Some(&path), &Invoker::current()).unwrap())
}

fn note(at_ns: u64) -> Event {
    event(at_ns, Body::Note { level: NoteLevel::Info, text: "x".repeat(1_000) })
}

#[test]
fn killing_the_recorder_loses_nothing_that_was_committed() {
    if let Some(dir) = as_child() {
        let mut recorder = record(&dir, header("a", "one"), vec![]);
        for n in 1.. {
            recorder.append(vec![note(STARTED_NS + n)], None);
            recorder.commit();
            writeln!(std::io::stderr(), "committed {n}").unwrap();
        }
    }
    let (_scratch, dir) = state_dir();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "session::tests::death::killing_the_recorder_loses_nothing_that_was_committed",
            "--nocapture",
        ])
        .env(CHILD, dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    // Past several checkpoints of SQLite's log.
    assert!(lines.by_ref().any(|line| line == "committed 2000"));
    let session = Session::open(&dir.find("one").unwrap()).unwrap();
    assert_eq!(session.state(), State::Recording);
    drop(session);
    child.kill().unwrap();
    child.wait().unwrap();
    let committed: usize = lines
        .filter_map(|line| line.strip_prefix("committed ").and_then(|count| count.parse().ok()))
        .last()
        .unwrap_or(2000);
    let session = Session::open(&dir.find("one").unwrap()).unwrap();
    assert_eq!((session.state(), session.ending()), (State::CutShort, None));
    let events = read(&session, &Filter::default()).len();
    assert!((committed..=committed + 1).contains(&events), "{events} of {committed}");
}

fn lost(session: &Session) -> u64 {
    read(session, &Filter { kinds: vec!["lost".into()], ..Filter::default() })
        .into_iter()
        .map(|(_, event)| match event.body {
            Body::Lost { hop: Hop::Store, what, count, .. } if what == "note" => count,
            body => panic!("{body:?}"),
        })
        .sum()
}

/// Stored notes of the flood, and whether the recorder's own word of trouble is there.
fn kept(session: &Session) -> (u64, bool) {
    let notes = read(session, &Filter { kinds: vec!["note".into()], ..Filter::default() });
    let trouble =
        |(_, event): &(u64, Event)| matches!(event.body, Body::Note { level: NoteLevel::Trouble, .. });
    (notes.iter().filter(|note| !trouble(note)).count() as u64, notes.iter().any(trouble))
}

fn fill(recorder: &mut Recorder) -> u64 {
    let mut given = 0;
    while recorder.trouble().is_none() {
        recorder.append((0..10).map(|n| note(STARTED_NS + given + n)).collect(), None);
        recorder.commit();
        given += 10;
        assert!(given < 100_000, "it never got full");
    }
    recorder.append((0..25).map(|n| note(STARTED_NS + given + n)).collect(), None);
    given + 25
}

#[test]
fn a_full_disk_ends_the_storing_and_not_the_recording() {
    if let Some(dir) = as_child() {
        let mut recorder = record(&dir, header("a", "one"), (0..500).map(|n| note(STARTED_NS + n)).collect());
        // Somebody else takes the rest of the disk, and then what the recorder gave back for its last words.
        let mut hog = std::fs::File::create(dir.path().join("hog")).unwrap();
        let mut take_all = || while hog.write_all(&[1; 512]).is_ok() {};
        take_all();
        let given = 500 + fill(&mut recorder);
        take_all();
        let trouble = recorder.finish(ending()).unwrap();
        assert!(trouble.contains("full") && trouble.contains("only counted"), "{trouble}");
        let session = Session::open(&dir.find("one").unwrap()).unwrap();
        assert_eq!((session.state(), session.ending()), (State::Done, Some(ending())));
        let (stored, told) = kept(&session);
        assert!(told && stored >= 500, "{stored} stored");
        assert_eq!(stored + lost(&session), given, "every event is stored or counted");
        writeln!(std::io::stderr(), "filled: {stored} of {given} stored").unwrap();
        return;
    }
    let (_scratch, dir) = state_dir();
    let own_disk = r#"mount -t tmpfs -o size=2m,mode=700 none "$OBSERVER_TEST_CHILD" && exec "$0" "$@""#;
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", own_disk])
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "session::tests::death::a_full_disk_ends_the_storing_and_not_the_recording",
            "--nocapture",
        ])
        .env(CHILD, dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("filled: "),
        "{said}{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[test]
fn what_cannot_be_stored_is_counted_until_there_is_room() {
    let (_scratch, dir) = state_dir();
    let mut recorder = record(&dir, header("a", "one"), vec![]);
    recorder.limit_pages(60);
    let given = fill(&mut recorder);
    assert!(recorder.trouble().unwrap().contains("only counted"));
    recorder.limit_pages(10_000);
    assert!(recorder.finish(ending()).is_some());
    let session = Session::open(&dir.find("one").unwrap()).unwrap();
    assert_eq!(kept(&session).0 + lost(&session), given);
    assert_eq!(session.ending(), Some(ending()));
}

#[test]
fn a_burst_that_fills_the_disk_leaves_what_came_first() {
    let (_scratch, dir) = state_dir();
    let mut recorder = record(&dir, header("a", "one"), Vec::new());
    recorder.limit_pages(300);
    // In one go, as after a wait for the processor: far less than the time between two commits.
    recorder.append((0..20_000).map(|n| note(STARTED_NS + n)).collect(), None);
    assert!(recorder.trouble().is_some());
    drop(recorder.finish(ending()));
    let session = Session::open(&dir.find("one").unwrap()).unwrap();
    let (stored, told) = kept(&session);
    assert!(told && stored > 500, "{stored} stored");
    assert_eq!(stored + lost(&session), 20_000, "every event is stored or counted");
}
