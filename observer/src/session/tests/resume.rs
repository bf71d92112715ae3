//! A recorder that was killed, again and again, and the one that goes on.

use std::{
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Command, Stdio},
};

use amq_protocol::{
    frame::AMQPFrame,
    protocol::{AMQPClass, connection},
    types::FieldTable,
};
use rusqlite::Connection;

use super::store::{ending, read};
use crate::{
    diagnose::{self, case::Case},
    event::{Body, Direction, Event, Fd, Hop, NoteLevel, Pid, SocketId},
    fold,
    model::{
        fixture::{self, MASTER, WORKER, exec, output},
        wire::{Wire, ack, body, deliver, encode},
    },
    render,
    session::{
        Alive, Filter, Invoker, Recorder, Redactor, Resumed, Ring, Session, SessionError, State, StateDir,
        StreamEnd,
        testing::{STARTED_NS, event, header, record, state_dir},
    },
};

const CHILD: &str = "OBSERVER_TEST_CHILD";
const RING: Ring = Ring { head_bytes: 64 << 10, latest_bytes: 256 << 10 };

fn reopen(dir: &StateDir) -> Result<(Recorder, Resumed), SessionError> {
    Recorder::reopen(dir, "a", Redactor::open(dir).unwrap())
}

fn data(at_ns: u64, direction: Direction, offset: u64, bytes: &[u8], since_attach: bool) -> Event {
    let body = Body::Data {
        socket: SocketId(7),
        fd: Fd(3),
        direction,
        offset,
        len: bytes.len() as u64,
        syscall: "send".into(),
        errno: 0,
        since_attach,
        redacted: vec![],
    };
    Event { bytes: bytes.to_vec(), ..event(STARTED_NS + at_ns, body) }
}

fn note(at_ns: u64) -> Event {
    event(at_ns, Body::Note { level: NoteLevel::Info, text: "x".repeat(1_000) })
}

#[test]
fn killed_twenty_times_it_goes_on_twenty_times() {
    if let Some(path) = std::env::var_os(CHILD) {
        let dir = StateDir::open(Some(&PathBuf::from(path)), &Invoker::current()).unwrap();
        let (mut recorder, from) = match reopen(&dir) {
            Ok((recorder, resumed)) => (recorder, resumed.last_ns),
            Err(_) => (record(&dir, header("a", "one"), vec![]).with_ring(RING), STARTED_NS),
        };
        recorder.append(
            vec![event(
                from + 1,
                Body::Gap { since_ns: from, gone: vec![], why: "the recorder was killed".into() },
            )],
            None,
        );
        for n in from + 2.. {
            let output = Event {
                bytes: vec![b'o'; 900],
                ..event(n, super::bodies::all().into_iter().find(|body| body.kind() == "output").unwrap())
            };
            recorder.append(vec![output], None);
            recorder.commit();
            writeln!(std::io::stderr(), "committed {n}").unwrap();
        }
    }
    let (_scratch, dir) = state_dir();
    let mut committed = STARTED_NS;
    for round in 1..=20 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "session::tests::resume::killed_twenty_times_it_goes_on_twenty_times",
                "--nocapture",
            ])
            .env(CHILD, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let number = |line: String| line.strip_prefix("committed ").and_then(|n| n.parse::<u64>().ok());
        let enough = committed + 100 + 17 * round;
        assert!(lines.by_ref().filter_map(number).any(|n| n >= enough), "round {round}");
        child.kill().unwrap();
        child.wait().unwrap();
        committed = lines.filter_map(number).last().unwrap_or(enough);
        let path = dir.find("one").unwrap();
        let session = Session::open(&path).unwrap();
        assert_eq!(session.state(), State::CutShort);
        let gaps = read(&session, &Filter { kinds: vec!["gap".into()], ..Filter::default() });
        assert_eq!(gaps.len() as u64, round, "all stay, whatever the ring lets go of");
        let last = read(&session, &Filter::default()).last().unwrap().1.at_ns;
        assert!((committed..=committed + 1).contains(&last), "{last}, committed {committed}");
    }
    let (recorder, resumed) = reopen(&dir).unwrap();
    assert!(resumed.last_ns >= committed);
    let path = recorder.path().to_owned();
    assert_eq!(recorder.finish(ending()), None);
    let sound: String =
        Connection::open(&path).unwrap().query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
    let session = Session::open(&path).unwrap();
    assert_eq!(session.state(), State::Done);
    let all = read(&session, &Filter::default());
    let evicted: Vec<u64> = all
        .iter()
        .filter_map(|(_, event)| match event.body {
            Body::Lost { hop: Hop::Evicted, count, .. } => Some(count),
            _ => None,
        })
        .collect();
    assert_eq!(evicted.len(), 1, "one row, over all twenty recorders");
    let given = resumed.last_ns - STARTED_NS;
    assert_eq!(all.len() as u64 - 1 + evicted[0], given, "each is there or counted");
    let latest = all.iter().filter(|(_, event)| event.body.kind() == "output").count();
    assert!((200..400).contains(&latest), "{latest} kept by the ring");
}

#[test]
fn it_is_told_what_was_there_when_it_was_killed() {
    let (_scratch, dir) = state_dir();
    let of = |pid: u32, at_ns: u64, body: Body| Event { pid: Pid(pid), ..event(STARTED_NS + at_ns, body) };
    let exit = |pid, at_ns| of(pid, at_ns, Body::Exit { code: Some(0), signal: None, core_dumped: false });
    let exec = super::bodies::all().into_iter().find(|body| body.kind() == "exec").unwrap();
    let recorder = record(
        &dir,
        header("a", "one"),
        vec![
            of(10, 1, exec),
            of(10, 2, Body::Fork { child: Pid(20) }),
            of(10, 3, Body::Fork { child: Pid(21) }),
            of(10, 4, Body::Fork { child: Pid(22) }),
            exit(21, 5),
            of(0, 6, Body::Gap { since_ns: 0, gone: vec![Pid(22)], why: String::new() }),
            data(7, Direction::Sent, 0, b"AMQP\x00\x00\x09\x01", false),
            data(8, Direction::Received, 40, b"12345", false),
        ],
    );
    drop(recorder);
    let (recorder, resumed) = reopen(&dir).unwrap();
    assert_eq!(resumed.header, header("a", "one"));
    assert_eq!(resumed.last_ns, STARTED_NS + 8);
    let alive = |pid, started_ns| Alive { pid: Pid(pid), started_ns };
    assert_eq!(resumed.alive, [alive(10, None), alive(20, Some(STARTED_NS + 2))]);
    let end = |direction, end| StreamEnd { socket: SocketId(7), direction, end };
    assert_eq!(resumed.streams, [end(Direction::Sent, 8), end(Direction::Received, 45)]);
    // It is being recorded again, and only once.
    assert_eq!(Session::open(recorder.path()).unwrap().state(), State::Recording);
    assert!(matches!(reopen(&dir), Err(SessionError::Recording { .. })));
    recorder.finish(ending());
    assert!(matches!(reopen(&dir), Err(SessionError::Ended { .. })));
    assert!(!dir.path().join("a.recording").exists());
}

/// A frame that carries a SASL response, and where in it the secret is cut in two.
fn start_ok() -> (Vec<u8>, usize) {
    let ok = connection::StartOk {
        client_properties: FieldTable::default(),
        mechanism: "PLAIN".into(),
        response: "\0guest\0s3cret-and-more".into(),
        locale: "en_US".into(),
    };
    let method = AMQPClass::Connection(connection::AMQPMethod::StartOk(ok));
    let frame = encode(&AMQPFrame::Method(0, method));
    let half = frame.windows(6).position(|text| text == b"s3cret").unwrap() + 3;
    (frame, half)
}

#[test]
fn a_stream_that_goes_on_has_a_hole_and_no_secret() {
    let (_scratch, dir) = state_dir();
    let (secret, half) = start_ok();
    let before = vec![
        data(1, Direction::Sent, 0, b"AMQP\x00\x00\x09\x01", false),
        data(2, Direction::Sent, 8, &secret[..half], false),
    ];
    drop(record(&dir, header("a", "one"), before));
    let (mut recorder, _) = reopen(&dir).unwrap();
    recorder.append(
        vec![
            // The rest of the frame, counted from 0 by a kernel that knows nothing of what was before.
            data(3, Direction::Sent, 0, &secret[half..], true),
            data(4, Direction::Received, 0, b"12345", true),
            data(5, Direction::Sent, (secret.len() - half) as u64, b"\x08\x00\x00\x00\x00\x00\x00\xce", true),
            // A connection that was made meanwhile and was given the number of the old one.
            event(
                STARTED_NS + 6,
                Body::Socket { socket: SocketId(7), fd: Fd(3), family: 2, socket_type: 1, protocol: 0 },
            ),
            data(7, Direction::Sent, 0, b"AMQP\x00\x00\x09\x01", false),
        ],
        None,
    );
    recorder.finish(ending());
    let session = Session::open(&dir.find("one").unwrap()).unwrap();
    let stored = read(&session, &Filter { kinds: vec!["data".into()], ..Filter::default() });
    let offsets: Vec<u64> = stored
        .iter()
        .map(|(_, event)| match event.body {
            Body::Data { offset, .. } => offset,
            _ => 0,
        })
        .collect();
    let end = 8 + half as u64;
    let rest = (secret.len() - half) as u64;
    assert_eq!(offsets, [0, 8, end + 1, 1, end + 1 + rest, 0]);
    assert!(stored.iter().all(|(_, event)| {
        !event.bytes.windows(4).any(|text| [b"s3cr", b"-and", b"more"].contains(&text.try_into().unwrap()))
    }));
    assert!(stored[2].1.bytes.iter().all(|byte| *byte == b'*'), "nothing of the rest of the frame");
    assert_eq!(
        stored[4].1.bytes, b"\x08\x00\x00\x00\x00\x00\x00\xce",
        "a whole frame is seen: readable again"
    );
}

/// A worker that is well: it consumes, gets a message every 100 ms and acknowledges it at once; `hole`: in which nobody watched.
fn well(recorder: &mut Recorder, wire: &mut Wire, tags: std::ops::RangeInclusive<u64>) {
    for tag in tags {
        let mut events = Vec::new();
        let at_us = 1_000_000 + tag * 100_000;
        wire.received(
            &mut events,
            at_us,
            &deliver(tag, "default", false, &body("default", &format!("m-{tag}"), "")),
        );
        wire.sent(&mut events, at_us + 50_000, &ack(tag, false));
        events.push(output(at_us + 60_000, WORKER, crate::event::OutputStream::Pipe, &"log ".repeat(200)));
        recorder.append(events, None);
    }
}

fn begin(recorder: &mut Recorder) -> Wire {
    let mut events = vec![
        fixture::at(100, MASTER, MASTER, exec(&["python", "-m", "dramatiq", "minimal_worker"])),
        fixture::at(300_000, MASTER, MASTER, Body::Fork { child: Pid(WORKER) }),
    ];
    let mut wire = Wire::connect(&mut events, 400_000, 62, WORKER, 4715);
    wire.open(&mut events, 500_000);
    wire.consume(&mut events, 600_000, "default", 4);
    recorder.append(events, None);
    wire
}

fn explain(dir: &StateDir, look: impl FnOnce(&Case<'_>, &diagnose::Explanation)) {
    let session = Session::open(&dir.find("failing").unwrap()).unwrap();
    let model = fold::fold(&session, &Filter::default(), None).unwrap();
    let ending = session.ending();
    let case = Case::new(session.header(), ending.as_ref(), &model);
    look(&case, &diagnose::explain(&case));
}

fn over(tags: u64) -> crate::session::Ending {
    crate::session::Ending {
        ended_ns: fixture::STARTED_NS + (1_000_000 + tags * 100_000 + 100_000) * 1_000,
        code: None,
        signal: None,
        reason: "let-go".into(),
    }
}

#[test]
fn a_worker_whose_middle_made_room_is_as_well_as_before() {
    let (_scratch, dir) = state_dir();
    let mut recorder =
        Recorder::create(&dir, fixture::header(), Redactor::open(&dir).unwrap()).unwrap().with_ring(RING);
    let mut wire = begin(&mut recorder);
    well(&mut recorder, &mut wire, 1..=2_000);
    assert_eq!(recorder.finish(over(2_000)), None);
    explain(&dir, |case, explanation| {
        let evicted = case.model.troubles.evicted().unwrap();
        assert!(evicted.count > 1_000 && evicted.essential == 0, "{evicted:?}");
        let codes: Vec<_> = explanation.findings.iter().map(|finding| finding.code.name()).collect();
        assert_eq!(codes[0], "healthy", "{codes:?}");
        let warned = |finding: &&diagnose::finding::Finding| {
            finding.severity != diagnose::catalogue::Severity::Ok && finding.code.name() != "stopped"
        };
        assert!(explanation.findings.iter().find(warned).is_none(), "{codes:?}");
        for kind in
            [diagnose::case::Kind::Processes, diagnose::case::Kind::Streams, diagnose::case::Kind::Output]
        {
            assert!((case.confidence(1.0, &[kind]) - 1.0).abs() < 1e-9, "{kind:?} was not touched");
        }
        assert_eq!(case.model.amqp.lives.outcomes.held(), &[], "what was not seen settled may have been");
    });
}

#[test]
fn a_worker_that_was_not_watched_for_a_while_is_explained_with_the_gap() {
    let (_scratch, dir) = state_dir();
    let mut recorder =
        Recorder::create(&dir, fixture::header(), Redactor::open(&dir).unwrap()).unwrap().with_ring(RING);
    let mut wire = begin(&mut recorder);
    recorder.append(vec![fixture::at(700_000, MASTER, MASTER, Body::Fork { child: Pid(4799) })], None);
    well(&mut recorder, &mut wire, 1..=20);
    // A delivery whose settlement nobody saw.
    let mut events = Vec::new();
    wire.received(&mut events, 3_100_000, &deliver(21, "default", false, &body("default", "m-21", "")));
    recorder.append(events, None);
    recorder.commit();
    drop(recorder);
    let id = fixture::header().id;
    let (mut recorder, resumed) = Recorder::reopen(&dir, &id, Redactor::open(&dir).unwrap()).unwrap();
    let gap =
        Body::Gap { since_ns: resumed.last_ns, gone: vec![Pid(4799)], why: "the service was killed".into() };
    recorder.append(vec![fixture::at(60_000_000, 0, 0, gap)], None);
    // As the kernel tells of a connection that was there when it began to look.
    let mut wire = Wire::connect(&mut Vec::new(), 0, 62, WORKER, 4715);
    let mut events = Vec::new();
    for tag in 600..=640 {
        let at_us = 60_100_000 + (tag - 600) * 100_000;
        wire.received(
            &mut events,
            at_us,
            &deliver(tag, "default", false, &body("default", &format!("m-{tag}"), "")),
        );
        wire.sent(&mut events, at_us + 50_000, &ack(tag, false));
    }
    for event in &mut events {
        if let Body::Data { since_attach, .. } = &mut event.body {
            *since_attach = true;
        }
    }
    recorder.append(events, None);
    assert_eq!(recorder.finish(over(640)), None);
    explain(&dir, |case, explanation| {
        assert_eq!(explanation.verdict.code.name(), "healthy", "{:?}", explanation.findings);
        let work = case.model.amqp.lives.outcomes.of(Pid(WORKER)).unwrap();
        assert!(work.acked >= 20 + 40, "{work:?}");
        let vanished = case.model.processes.get(Pid(4799)).unwrap();
        let exit = vanished.exit.as_ref().unwrap();
        assert!(!vanished.alive() && (exit.code, exit.signal) == (None, None));
        assert!(case.model.processes.get(Pid(WORKER)).unwrap().alive());
        let gaps = case.model.troubles.gaps();
        assert_eq!((gaps.len(), case.model.troubles.lost()), (1, 1));
        assert!(
            case.confidence(1.0, &[diagnose::case::Kind::Streams]) < 1.0,
            "what was not seen may have been"
        );
        let mut out = Vec::new();
        render::explain::write(&mut out, case, explanation, 100, false).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.contains("nobody watched for") && text.contains("gone meanwhile: process 4799"),
            "{text}"
        );
    });
}

#[test]
fn what_lies_in_the_place_of_a_session_is_not_gone_on_with() {
    let (scratch, dir) = state_dir();
    let victim = scratch.path().join("victim.sqlite");
    drop(record(&dir, header("a", "one"), vec![note(STARTED_NS)]));
    let path = dir.path_of("a");
    std::fs::rename(&path, &victim).unwrap();
    let before = std::fs::read(&victim).unwrap();
    std::os::unix::fs::symlink(&victim, &path).unwrap();
    assert!(matches!(reopen(&dir), Err(SessionError::Strange { .. })));
    std::fs::remove_file(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(matches!(reopen(&dir), Err(SessionError::Strange { .. })), "and nobody waits");
    std::fs::remove_file(&path).unwrap();
    std::fs::copy(&victim, &path).unwrap();
    let wal = dir.path().join("a.sqlite-wal");
    std::os::unix::fs::symlink(&victim, &wal).unwrap();
    assert!(matches!(reopen(&dir), Err(SessionError::Strange { .. })));
    std::fs::remove_file(&wal).unwrap();
    // Somebody's trigger would run in our process.
    Connection::open(&path)
        .unwrap()
        .execute_batch("CREATE TRIGGER t AFTER INSERT ON events BEGIN DELETE FROM events; END")
        .unwrap();
    let refused = reopen(&dir).map(drop).unwrap_err().to_string();
    assert!(refused.contains("tables are not those"), "{refused}");
    assert_eq!(std::fs::read(&victim).unwrap(), before);
}

#[test]
fn what_made_room_counts_where_a_process_began_or_ended_in_it() {
    use crate::event::{EVICTED, EVICTED_ESSENTIAL};
    use diagnose::case::Kind;
    let lost = |at_us, what: &str| {
        fixture::at(at_us, 0, 0, Body::Lost { hop: Hop::Evicted, what: what.into(), cpu: None, count: 9 })
    };
    let log = |at_us| output(at_us, MASTER, crate::event::OutputStream::Stderr, "x\n");
    let start = fixture::at(1, MASTER, MASTER, exec(&["python", "-m", "dramatiq", "w"]));
    let fork = |at_us| fixture::at(at_us, MASTER, MASTER, Body::Fork { child: Pid(WORKER) });
    let confidence = |events: &[Event], kind| {
        let model = crate::model::Model::fold(fixture::STARTED_NS, events);
        Case::new(&fixture::header(), None, &model).confidence(1.0, &[kind])
    };
    let untouched = [start.clone(), fork(5), log(10), lost(100, EVICTED), log(150)];
    let inside = [start.clone(), log(10), fork(50), lost(100, EVICTED), log(150)];
    let after = [start.clone(), log(10), lost(100, EVICTED), log(150), fork(160)];
    for kind in [Kind::Files, Kind::Streams, Kind::Output] {
        assert!((confidence(&untouched, kind) - 1.0).abs() < 1e-9, "{kind:?}");
        assert!((confidence(&after, kind) - 1.0).abs() < 1e-9, "{kind:?}");
        assert!(confidence(&inside, kind) < 1.0, "{kind:?}");
    }
    assert!((confidence(&inside, Kind::Processes) - 1.0).abs() < 1e-9, "their beginnings and ends are kept");
    let essential = [start, fork(5), log(10), lost(100, EVICTED_ESSENTIAL), log(150)];
    assert!(confidence(&essential, Kind::Processes) < 1.0);
}
