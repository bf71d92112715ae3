//! What people read, as snapshots; and that nothing hostile comes through.

use std::io::Write;

use super::{conversation::Narrator, json::Record, ladder, messages, queues, style::Line, summary, timeline};
use crate::{
    event::{Body, Direction, Event, Known, OutputStream, Pid},
    model::{
        Model,
        fixture::{self, HOSTILE, STARTED_NS, at, connect, events, exec, open, output},
        wire::{self, Wire},
    },
    session::Ending,
};

fn stripped(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut raw = Vec::new();
    write(&mut raw);
    let mut out = Vec::new();
    anstream::StripStream::new(&mut out).write_all(&raw).unwrap();
    String::from_utf8(out).unwrap()
}

fn screen(model: &Model, ending: Option<&Ending>, columns: usize) -> String {
    stripped(|out| summary::write(out, &fixture::header(), ending, model, columns).unwrap())
}

fn lines(lines: &[Line]) -> String {
    stripped(|out| lines.iter().for_each(|line| line.write(out, None).unwrap()))
}

#[test]
fn summary_of_a_failing_session() {
    let model = Model::fold(STARTED_NS, &events());
    insta::assert_snapshot!(screen(&model, Some(&fixture::ending()), 100));
}

#[test]
fn summary_of_a_session_that_was_cut_short() {
    let model = Model::fold(STARTED_NS, events().iter().take(29));
    insta::assert_snapshot!(screen(&model, None, 72));
}

#[test]
fn timeline_of_a_failing_session() {
    let all: Vec<Line> = events().iter().map(|event| timeline::line(event, STARTED_NS)).collect();
    insta::assert_snapshot!(lines(&all));
}

#[test]
fn environment_of_an_exec() {
    let event = &events()[0];
    insta::assert_snapshot!(lines(&timeline::environment(event)));
}

/// Everything a target can put into an event.
fn hostile_events() -> Vec<Event> {
    let mut all = events();
    all.push(at(1, 1, 1, exec(&[HOSTILE, HOSTILE])));
    all.push(open(2, 1, HOSTILE, Ok(3)));
    all.push(open(2, 1, &format!("/app/{HOSTILE}.py"), Ok(3)));
    all.push(open(3, 1, HOSTILE, Err(13)));
    all.push(output(4, 1, OutputStream::Stdout, HOSTILE));
    all.push(at(5, 1, 1, Body::ExecFailed { path: Known::Is(HOSTILE.to_owned()), errno: 2 }));
    let on = Known::Is(HOSTILE.to_owned());
    let args = [0; 6];
    all.push(at(6, 1, 1, Body::Stuck { syscall: HOSTILE.to_owned(), since_ns: 0, on, args }));
    all
}

#[test]
fn nothing_hostile_reaches_the_terminal() {
    let events = hostile_events();
    let mut header = fixture::header();
    header.name = HOSTILE.to_owned();
    header.command = vec![HOSTILE.to_owned()];
    header.host = HOSTILE.to_owned();
    let mut raw = Vec::new();
    summary::write(&mut raw, &header, None, &Model::fold(STARTED_NS, &events), 200).unwrap();
    for event in &events {
        timeline::line(event, STARTED_NS).write(&mut raw, None).unwrap();
        timeline::environment(event).iter().for_each(|line| line.write(&mut raw, None).unwrap());
    }
    let text = String::from_utf8(raw).unwrap();
    assert!(text.contains(r"\x1b[2J"), "it is shown, escaped");
    // What is left of the control characters are our own colours: ESC [ digits m.
    for (index, piece) in text.split('\u{1b}').enumerate() {
        let ours = piece.strip_prefix('[').is_some_and(|rest| {
            rest.find('m')
                .is_some_and(|end| rest[..end].bytes().all(|byte| byte.is_ascii_digit() || byte == b';'))
        });
        assert!(index == 0 || ours, "{piece:?}");
        assert!(!piece.contains(|c: char| (c.is_control() && c != '\n') || c == '\u{202e}'), "{piece:?}");
    }
}

#[test]
fn a_large_session_fits_the_screen() {
    let mut events = hostile_events();
    for pid in 10_000..10_300 {
        events.push(at(10, 4711, 4711, Body::Fork { child: Pid(pid) }));
        events.push(at(11, pid, pid, exec(&["python", &"long ".repeat(100)])));
        events.push(open(12, pid, &format!("/app/{pid}/{}.py", "deep/".repeat(50)), Ok(3)));
        events.push(open(13, pid, &format!("/root/{pid}"), Err(13)));
        events.push(output(14, pid, OutputStream::Stdout, &"世界".repeat(200)));
        events.push(output(15, pid, OutputStream::Stdout, "\n"));
        let mut refused = connect(16, u64::from(pid), 5672, 111);
        refused.pid = Pid(pid);
        events.push(refused);
    }
    let model = Model::fold(STARTED_NS, &events);
    for columns in [40, 80, 100, 250] {
        let text = screen(&model, Some(&fixture::ending()), columns);
        assert!(text.lines().count() <= 40, "{text}");
        for line in text.lines() {
            assert!(unicode_width::UnicodeWidthStr::width(line) <= columns, "{columns}: {line}");
        }
        for label in
            ["session", "processes", "imports", "connections", "trouble", "output", "not seen", "next"]
        {
            assert!(text.lines().any(|line| line.starts_with(label)), "{label} at {columns}: {text}");
        }
    }
}

#[test]
fn among_many_workers_the_one_that_died_is_shown() {
    let mut events = events();
    events.truncate(1);
    events.extend((5_000..5_050).map(|pid| at(10, 4711, 4711, Body::Fork { child: Pid(pid) })));
    events.push(at(20, 5_040, 5_040, Body::Exit { code: None, signal: Some(11), core_dumped: true }));
    let text = screen(&Model::fold(STARTED_NS, &events), None, 100);
    assert!(text.contains("5040 (forked)") && text.contains("killed by SIGSEGV, core dumped"), "{text}");
    assert!(text.contains("… and 42 more\n"), "{text}");
}

#[test]
fn an_event_is_one_flat_json_object() {
    let events = events();
    let record = |index: usize| serde_json::to_value(Record::new(7, &events[index], STARTED_NS)).unwrap();
    let open = record(1);
    assert_eq!(
        (&open["id"], &open["since_start_ns"], &open["kind"]),
        (&7.into(), &1_000_000.into(), &"open".into())
    );
    assert_eq!(open["result"], 3);
    assert!(open.get("bytes").is_none());
    let text = events.iter().position(|event| event.bytes.starts_with(b"AMQP")).unwrap();
    assert_eq!(record(text)["bytes"]["text"], "AMQP\u{0}\u{0}\t\u{1}");
    assert_eq!(record(text + 1)["bytes"]["base64"], "AQAAAAAABAAKAArO");
    let mut before = at(0, 1, 1, Body::OomVictim);
    before.at_ns = STARTED_NS - 5;
    assert_eq!(serde_json::to_value(Record::new(1, &before, STARTED_NS)).unwrap()["since_start_ns"], -5);
}

/// A worker that runs one message, is told a hostile one, and gives it back.
fn spoken() -> Vec<Event> {
    let mut all = events();
    all.truncate(15);
    let mut wire = Wire::connect(&mut all, 420_000, 2, fixture::WORKER, 4715);
    wire.open(&mut all, 430_000);
    wire.sent(&mut all, 440_000, &wire::declare("default"));
    wire.received(&mut all, 441_000, &wire::declare_ok("default", 1));
    wire.consume(&mut all, 442_000, "default", 4);
    let retry = r#""retries":1,"traceback":"Traceback:\nshop.Broken: no"#;
    for tag in 1..=12 {
        let id = format!("0f3a9c2b-0000-{tag}");
        wire.received(
            &mut all,
            450_000 + tag,
            &wire::deliver(tag, "default", false, &wire::body("default", &id, "")),
        );
    }
    let failed = wire::body("default.DQ", "0f3a9c2b-0000-1", &format!("{retry}\""));
    wire.sent(&mut all, 460_000, &wire::publish("default.DQ", &failed));
    wire.sent(&mut all, 461_000, &wire::ack(11, true));
    wire.missed(Direction::Received, 700);
    let canary = r#""observer_canary":true"#;
    wire.received(
        &mut all,
        465_000,
        &wire::deliver(13, "default", false, &wire::body("default", "c4-1", canary)),
    );
    let id = "evil \\u001b[2J\\u202e";
    wire.received(&mut all, 470_000, &wire::deliver(14, HOSTILE, true, &wire::body("default", id, "")));
    wire.received(&mut all, 471_000, &wire::deliver(15, HOSTILE, true, &wire::body("default", "last", "")));
    wire.sent(&mut all, 480_000, &wire::nack(14, true));
    wire.received(&mut all, 490_000, &wire::channel_close(406, HOSTILE, 60, 80));
    all
}

/// Everything `show` says of a session's AMQP.
fn told(events: &[Event], out: &mut Vec<u8>) {
    let mut model = Model::with_lives(STARTED_NS);
    let mut narrator = Narrator::new(STARTED_NS, false);
    for (id, event) in (1..).zip(events) {
        model.add_and_tell(id, event, &mut |said| narrator.hear(said));
    }
    model.finish_and_tell(&mut |said| narrator.hear(said));
    let mut lives: Vec<_> = model.amqp.lives.take_done().collect();
    lives.sort_by_key(|life| life.number);
    narrator.write(out, &model, &[]).unwrap();
    let mut lines = vec![messages::head()];
    lives.iter().for_each(|life| lines.extend(messages::lines(life, STARTED_NS, life.number > 12)));
    lines.push(messages::totals(&model.amqp.lives.totals));
    lines.extend(queues::lines(&model));
    for one in crate::model::ladder::ladders(&model) {
        lines.extend(ladder::lines(&one, STARTED_NS));
        lines.extend(ladder::fitted(&one, 60));
    }
    lines.iter().for_each(|line| line.write(out, None).unwrap());
}

#[test]
fn amqp_messages_queues_and_the_ladder_as_people_read_them() {
    insta::assert_snapshot!(stripped(|out| told(&spoken(), out)));
}

#[test]
fn nothing_hostile_comes_through_amqp() {
    let mut raw = Vec::new();
    told(&spoken(), &mut raw);
    let text = String::from_utf8(raw).unwrap();
    assert!(text.contains("[2J"), "it is shown, escaped");
    for piece in text.split('\u{1b}') {
        assert!(!piece.contains(|c: char| (c.is_control() && c != '\n') || c == '\u{202e}'), "{piece:?}");
        assert!(!piece.starts_with("[2J"), "{piece:?}");
    }
    assert!(!text.contains("s3cret"), "nor an argument");
}
