//! The flight recorder: what stays, what goes, what is said of it, and copies of it made on the way.

use std::os::unix::fs::PermissionsExt;

use super::{
    bodies,
    store::{ending, read},
};
use crate::{
    event::{Body, Direction, EVICTED, EVICTED_ESSENTIAL, Event, Fd, Hop, NoteLevel, Pid, SocketId},
    session::{
        Filter, Header, Recorder, Ring, Session, SessionError, State, StateDir,
        testing::{STARTED_NS, event, header, record, state_dir},
    },
};

const KIB: u64 = 1 << 10;
const RING: Ring = Ring { head_bytes: 64 * KIB, latest_bytes: 256 * KIB };

/// An event of an ordinary kind, of about a kilobyte.
fn output(at_ns: u64) -> Event {
    let body = bodies::all().into_iter().find(|body| body.kind() == "output").unwrap();
    Event { bytes: vec![b'x'; 900], ..event(STARTED_NS + at_ns, body) }
}

fn fork(at_ns: u64, child: u32) -> Event {
    event(STARTED_NS + at_ns, Body::Fork { child: Pid(child) })
}

fn recorder(dir: &StateDir, ring: Ring) -> Recorder {
    record(dir, header("a", "one"), vec![]).with_ring(ring)
}

fn size(recorder: &Recorder) -> u64 {
    let wal = format!("{}-wal", recorder.path().display());
    recorder.path().metadata().unwrap().len() + std::fs::metadata(wal).unwrap().len()
}

/// What stands for evicted events: what, when since the start, how many.
fn evicted(session: &Session) -> Vec<(String, u64, u64)> {
    let lost = read(session, &Filter { kinds: vec!["lost".into()], ..Filter::default() });
    lost.into_iter()
        .map(|(_, event)| match event.body {
            Body::Lost { hop: Hop::Evicted, what, cpu: None, count } => {
                (what, event.at_ns - STARTED_NS, count)
            }
            body => panic!("{body:?}"),
        })
        .collect()
}

fn reopened(dir: &StateDir) -> Session {
    Session::open(&dir.find("one").unwrap()).unwrap()
}

#[test]
fn the_beginning_and_the_latest_stay_and_one_row_stands_for_the_rest() {
    let (_scratch, dir) = state_dir();
    let mut recorder = recorder(&dir, RING);
    recorder.append((1..=5_000).map(output).collect(), None);
    assert_eq!(recorder.finish(ending()), None);
    let session = reopened(&dir);
    let all = read(&session, &Filter::default());
    let outputs: Vec<u64> =
        all.iter().filter(|(_, e)| e.body.kind() == "output").map(|(_, e)| e.at_ns - STARTED_NS).collect();
    let gone = 5_000 - outputs.len() as u64;
    let head = outputs.iter().zip(1..).take_while(|(at, n)| **at == *n).count() as u64;
    assert!((60..=70).contains(&head), "{head} of about a kilobyte at the beginning");
    let rest = outputs.len() as u64 - head;
    assert!((220..=280).contains(&rest), "{rest} of the latest");
    assert_eq!(outputs[outputs.len() - 1], 5_000);
    assert!(outputs[head as usize..].windows(2).all(|pair| pair[1] == pair[0] + 1), "one hole");
    assert_eq!(evicted(&session), [(EVICTED.to_owned(), head + gone, gone)], "at the last that went");
    // In order of time it stands between what stayed on either side.
    let at = all.iter().position(|(_, event)| event.body.kind() == "lost").unwrap();
    assert_eq!((at as u64, all[at].0), (head, head + 1));
}

#[test]
fn the_file_stays_bounded_however_much_is_recorded() {
    let (_scratch, dir) = state_dir();
    let mut recorder = recorder(&dir, RING);
    let mut at_ns = 0;
    let mut round = |recorder: &mut Recorder| {
        // As events come: now and then an essential one among them.
        let batch = (0..2_000).flat_map(|_| {
            at_ns += 1;
            [Some(output(at_ns)), (at_ns % 20 == 0).then(|| fork(at_ns, at_ns as u32))]
        });
        recorder.append(batch.flatten().collect(), None);
        recorder.commit();
        size(recorder)
    };
    let (mut first, mut last) = (0, 0);
    for n in 0..20 {
        last = round(&mut recorder);
        first = if n == 4 { last } else { first };
    }
    // A hundred times the ring went through it. SQLite's log is four megabytes before it is taken up.
    assert!(last < 8 << 20, "{last} bytes");
    assert!(last <= first + (first / 4), "{first} bytes, and in the end {last}");
    recorder.finish(ending());
    let whole = dir.find("one").unwrap().metadata().unwrap().len();
    assert!(whole < 2 * (2 * RING.head_bytes + RING.latest_bytes), "{whole} bytes when finished");
}

#[test]
fn essential_events_outlive_what_was_around_them_and_then_go_too() {
    let (_scratch, dir) = state_dir();
    let mut recorder = recorder(&dir, RING);
    let batch = (1..=3_000).flat_map(|n| [Some(output(n)), (n % 100 == 0).then(|| fork(n, n as u32))]);
    recorder.append(batch.flatten().collect(), None);
    recorder.commit();
    let session = reopened(&dir);
    let forks = read(&session, &Filter { kinds: vec!["fork".into()], ..Filter::default() });
    assert_eq!(forks.len(), 30, "all are there");
    let gone = evicted(&session);
    assert_eq!((gone.len(), gone[0].0.as_str()), (1, EVICTED));
    // Beyond their own room even they go, the oldest first.
    recorder.append((4_000..14_000).map(|n| fork(n, n as u32)).collect(), None);
    recorder.commit();
    let forks = read(&session, &Filter { kinds: vec!["fork".into()], ..Filter::default() });
    let kept: Vec<u64> = forks.iter().map(|(_, event)| event.at_ns - STARTED_NS).collect();
    let gone = evicted(&session);
    let essential: u64 = gone.iter().filter(|one| one.0 == EVICTED_ESSENTIAL).map(|one| one.2).sum();
    let outputs = read(&session, &Filter { kinds: vec!["output".into()], ..Filter::default() }).len() as u64;
    let ordinary: u64 = gone.iter().filter(|one| one.0 == EVICTED).map(|one| one.2).sum();
    assert_eq!(kept.len() as u64 + essential, 10_030, "each is there or counted");
    assert_eq!(outputs + ordinary, 3_000, "each is there or counted");
    assert!(essential > 3_000 && kept.last() == Some(&13_999), "{essential} went");
    assert!(kept.windows(2).all(|pair| pair[1] == pair[0] + 1), "the oldest went first");
    let bytes = 2 * RING.head_bytes + RING.latest_bytes;
    assert!(size(&recorder) < 5 * (1 << 20) + 2 * bytes, "{} bytes", size(&recorder));
}

#[test]
fn the_beginning_of_every_stream_is_essential() {
    let (_scratch, dir) = state_dir();
    let mut recorder = recorder(&dir, RING);
    let data = |at_ns: u64, socket: u64, offset: u64| Event {
        bytes: vec![b'y'; 500],
        ..event(
            STARTED_NS + at_ns,
            Body::Data {
                socket: SocketId(socket),
                fd: Fd(3),
                direction: Direction::Received,
                offset,
                len: 500,
                syscall: "recv".into(),
                errno: 0,
                since_attach: false,
                redacted: vec![],
            },
        )
    };
    recorder.append((1..=500).map(output).collect(), None);
    recorder.append((0..100).map(|n| data(600 + n, 7, n * 500)).collect(), None);
    recorder.append((1_000..=3_000).map(output).collect(), None);
    recorder.finish(ending());
    let kept = read(&reopened(&dir), &Filter { kinds: vec!["data".into()], ..Filter::default() });
    assert_eq!(kept.len(), 17, "what begins in the first eight kibibytes");
}

#[test]
fn a_copy_is_a_finished_session_and_the_recording_goes_on() {
    let (_scratch, dir) = state_dir();
    let mut recorder = recorder(&dir, RING);
    recorder.append((1..=1_000).map(output).collect(), None);
    let own = Header { command: vec!["S3CRET".into()], ..header("copy", "one-failed") };
    let to = dir.path_of("copy");
    recorder.snapshot(&to, &own, &ending()).unwrap();
    let refused = recorder.snapshot(&to, &own, &ending()).unwrap_err().to_string();
    assert!(refused.contains("write a copy of a session to"), "{refused}");
    let copy = Session::open(&to).unwrap();
    let before = read(&copy, &Filter::default());
    assert_eq!(before, read(&reopened(&dir), &Filter::default()), "the same events, with the same numbers");
    assert_eq!((copy.state(), copy.ending()), (State::Done, Some(ending())));
    let told = copy.header();
    assert_eq!((told.id.as_str(), told.name.as_str()), ("copy", "one-failed"));
    assert_eq!(told.command, recorder.header().command, "a command is taken where it is redacted");
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&to), mode(recorder.path()));
    recorder.append((1_001..=2_000).map(output).collect(), None);
    assert_eq!(recorder.finish(ending()), None);
    assert_eq!(read(&copy, &Filter::default()), before);
    let latest = read(&reopened(&dir), &Filter::default()).into_iter().map(|(_, event)| event.at_ns).max();
    assert_eq!(latest, Some(STARTED_NS + 2_000));
    let mut left: Vec<_> = dir
        .path()
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["a.sqlite", "copy.sqlite", "key"]);
}

#[test]
fn a_copy_follows_no_link_and_replaces_nothing() {
    let (scratch, dir) = state_dir();
    let victim = scratch.path().join("victim");
    std::fs::write(&victim, "precious").unwrap();
    let mut recorder = recorder(&dir, RING);
    for planted in ["copy.sqlite", "copy.part"] {
        let planted = dir.path().join(planted);
        std::os::unix::fs::symlink(&victim, &planted).unwrap();
        let refused = recorder.snapshot(&dir.path_of("copy"), &header("copy", "copy"), &ending());
        assert!(matches!(refused, Err(SessionError::Io { .. })), "{refused:?}");
        assert!(planted.is_symlink(), "what somebody else put there stays");
        std::fs::remove_file(&planted).unwrap();
        std::fs::hard_link(&victim, &planted).unwrap();
        assert!(recorder.snapshot(&dir.path_of("copy"), &header("copy", "copy"), &ending()).is_err());
        std::fs::remove_file(&planted).unwrap();
    }
    assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
    assert!(recorder.snapshot(&dir.path_of("copy"), &header("copy", "copy"), &ending()).is_ok());
}

#[test]
fn a_full_disk_ends_a_ring_as_it_ends_everything() {
    let (_scratch, dir) = state_dir();
    let mut recorder = recorder(&dir, Ring { head_bytes: 64 * KIB, latest_bytes: 8 << 20 });
    recorder.limit_pages(300);
    recorder.append((1..=5_000).map(output).collect(), None);
    assert!(recorder.trouble().unwrap().contains("full"));
    assert!(recorder.finish(ending()).is_some());
    let notes = read(&reopened(&dir), &Filter { kinds: vec!["note".into()], ..Filter::default() });
    assert!(matches!(&notes[..], [(_, Event { body: Body::Note { level: NoteLevel::Trouble, .. }, .. })]));
}
