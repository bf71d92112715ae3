//! Requests made of hand-made sessions: what is in them, and how it hangs together. Whether a receiver takes them is for one to say.

use std::collections::{HashMap, HashSet};

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value::Value},
    logs::v1::LogRecord,
};
use prost::Message;

use super::*;
use crate::{
    event::{Body, Import, Imported, Known},
    export::testing::{session, session_of},
    model::{
        fixture::{MASTER, STARTED_NS, WORKER, at},
        wire::{Wire, ack, body, deliver, nack, publish},
    },
    words::escape::is_plain,
};

/// 2026-11-23T16:15:00Z, when the hand-made session begins.
const BEGAN_NS: u64 = 1_795_450_500_000_000_000;
const PUBLISHER: u32 = 4800;

#[derive(Default)]
struct Sent {
    told: Told,
    spans: Vec<Span>,
    logs: Vec<LogRecord>,
    bytes: Vec<Vec<u8>>,
    resource: Vec<KeyValue>,
}

fn sent(session: &Session) -> Sent {
    let mut sent = Sent::default();
    let told = write(session, &Progress::default(), &mut |batch| {
        assert!((1..=batch::MOST_RECORDS).contains(&batch.records()));
        match batch {
            Batch::Traces(request) => {
                sent.bytes.push(request.encode_to_vec());
                for resource in request.resource_spans {
                    assert_eq!(resource.schema_url, names::SCHEMA_URL);
                    sent.resource = resource.resource.unwrap().attributes;
                    sent.spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
                }
            }
            Batch::Logs(request) => {
                sent.bytes.push(request.encode_to_vec());
                let scopes = request.resource_logs.into_iter().flat_map(|resource| resource.scope_logs);
                sent.logs.extend(scopes.flat_map(|scope| scope.log_records));
            }
        }
        Ok::<(), SessionError>(())
    });
    sent.told = told.unwrap();
    assert_eq!((sent.told.spans, sent.told.logs), (sent.spans.len() as u64, sent.logs.len() as u64));
    let ids: HashSet<_> = sent.spans.iter().map(|span| &span.span_id).collect();
    assert_eq!(ids.len(), sent.spans.len(), "every span has an id of its own");
    let by_id: HashMap<_, _> = sent.spans.iter().map(|span| (&span.span_id, span)).collect();
    for span in &sent.spans {
        assert_eq!((span.trace_id.len(), span.span_id.len()), (16, 8));
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano, "{span:?}");
        // Parents are there, in the same trace; links lead to spans that are there.
        if !span.parent_span_id.is_empty() {
            assert_eq!(by_id[&span.parent_span_id].trace_id, span.trace_id);
        }
        for link in &span.links {
            assert_eq!(by_id[&link.span_id].trace_id, link.trace_id);
        }
    }
    for record in &sent.logs {
        assert_eq!(by_id[&record.span_id].trace_id, record.trace_id);
    }
    sent
}

fn text(value: &Option<AnyValue>) -> String {
    match value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(is_so)) => is_so.to_string(),
        Some(Value::ArrayValue(list)) => {
            list.values.iter().map(|value| text(&Some(value.clone()))).collect::<Vec<_>>().join("|")
        }
        other => format!("{other:?}"),
    }
}

/// An attribute as text; empty when it is not there.
fn attribute(attributes: &[KeyValue], name: &str) -> String {
    attributes.iter().find(|one| one.key == name).map(|one| text(&one.value)).unwrap_or_default()
}

impl Sent {
    fn named(&self, name: &str) -> &Span {
        let found: Vec<&Span> = self.spans.iter().filter(|span| span.name == name).collect();
        assert_eq!(found.len(), 1, "{name}: {:?}", self.names());
        found[0]
    }

    fn names(&self) -> Vec<&str> {
        self.spans.iter().map(|span| span.name.as_str()).collect()
    }

    fn logs_named(&self, name: &str) -> Vec<&LogRecord> {
        self.logs.iter().filter(|record| record.event_name == name).collect()
    }
}

/// When a span is, in microseconds since the session began.
fn span_us(span: &Span) -> (u64, u64) {
    let us = |unix_ns: u64| (unix_ns - BEGAN_NS) / 1_000;
    (us(span.start_time_unix_nano), us(span.end_time_unix_nano))
}

/// What a span is linked to, and why.
fn links<'a>(sent: &'a Sent, span: &Span) -> Vec<(String, &'a str)> {
    let named = |id: &Vec<u8>| sent.spans.iter().find(|span| span.span_id == *id).unwrap().name.as_str();
    span.links.iter().map(|link| (attribute(&link.attributes, ours::LINK), named(&link.span_id))).collect()
}

fn import(since_us: u64, module: &str, depth: u32) -> Event {
    let module = Known::Is(module.to_owned());
    let body = Import { module, importer: Known::none(), function: Known::none(), level: None, depth };
    at(since_us, WORKER, WORKER, Body::Import(Box::new(body)))
}

fn imported(since_us: u64, module: &str, depth: u32, began_us: u64, exception: Option<&str>) -> Event {
    let since_ns = STARTED_NS + began_us * 1_000;
    let (module, loaded) = (Known::Is(module.to_owned()), exception.is_none());
    let exception = exception.map(str::to_owned);
    at(since_us, WORKER, WORKER, Body::Imported(Imported { module, since_ns, loaded, exception, depth }))
}

/// A publisher, and a worker that consumes `default`; what happens next is the caller's.
fn connected(events: &mut Vec<Event>) -> (Wire, Wire) {
    let mut consumer = Wire::connect(events, 1_000, 2, WORKER, 4715);
    consumer.open(events, 2_000);
    consumer.consume(events, 3_000, "default", 4);
    let mut publisher = Wire::connect(events, 4_000, 3, PUBLISHER, PUBLISHER);
    publisher.open(events, 5_000);
    (consumer, publisher)
}

#[test]
fn a_message_is_a_trace_from_publish_over_delivery_to_settlement() {
    let mut events = Vec::new();
    let (mut consumer, mut publisher) = connected(&mut events);
    let message = body("default", "m-1", "");
    publisher.sent(&mut events, 6_000, &publish("default", &message));
    consumer.received(&mut events, 7_000, &deliver(1, "default", false, &message));
    consumer.sent(&mut events, 9_000, &ack(1, false));
    let (_scratch, session) = session_of(events);
    let sent = sent(&session);
    let whole = sent.named("message add");
    let [send, process, settle] =
        ["send default", "process default", "ack default"].map(|name| sent.named(name));
    assert_eq!(
        [whole, send, process, settle].map(span_us),
        [(6_000, 9_000), (6_000, 6_000), (7_000, 9_000), (9_000, 9_000)]
    );
    assert!(whole.parent_span_id.is_empty());
    let parents = [send, process, settle].map(|span| &span.parent_span_id);
    assert_eq!(parents, [&whole.span_id, &whole.span_id, &process.span_id]);
    use SpanKind::{Client, Consumer, Internal, Producer};
    let kinds = [whole, send, process, settle].map(|span| span.kind());
    assert_eq!(kinds, [Internal, Producer, Consumer, Client]);
    let of_worker = links(&sent, process);
    assert_eq!(of_worker[1], ("published".to_owned(), "send default"), "from consumer to publisher");
    assert_eq!(of_worker[0], ("process".to_owned(), "program"));
    assert_eq!(attribute(&process.attributes, names::MESSAGING_MESSAGE_ID), "m-1");
    assert_eq!(attribute(&process.attributes, names::PROCESS_PID), WORKER.to_string());
    assert_eq!(attribute(&send.attributes, names::MESSAGING_OPERATION_TYPE), "send");
    assert_eq!(attribute(&settle.attributes, names::MESSAGING_OPERATION_NAME), "ack");
    assert_eq!(attribute(&whole.attributes, ours::MESSAGE_STATE), "acked");
    assert!(whole.status.is_none() && attribute(&whole.attributes, ours::UNFINISHED).is_empty());
    assert_eq!((sent.told.messages, sent.told.processes), (1, 2));
    let secret = b"s3cret";
    let leaks = |bytes: &Vec<u8>| bytes.windows(secret.len()).any(|window| window == secret);
    assert!(!sent.bytes.iter().any(leaks), "arguments of messages are no part of it");
}

#[test]
fn retries_and_redeliveries_are_linked_to_what_came_before() {
    let mut events = Vec::new();
    let (mut consumer, mut publisher) = connected(&mut events);
    let message = body("default", "m-1", "");
    let traceback = r#""retries":1,"traceback":"Traceback\nValueError: s3cret""#;
    let again = body("default", "m-1", traceback);
    publisher.sent(&mut events, 6_000, &publish("default", &message));
    consumer.received(&mut events, 7_000, &deliver(1, "default", false, &message));
    consumer.sent(&mut events, 8_000, &publish("default", &again));
    consumer.sent(&mut events, 9_000, &ack(1, false));
    consumer.received(&mut events, 10_000, &deliver(2, "default", false, &again));
    consumer.sent(&mut events, 11_000, &nack(2, true));
    consumer.received(&mut events, 12_000, &deliver(3, "default", true, &again));
    let (_scratch, session) = session_of(events);
    let sent = sent(&session);
    let of = |name: &str| sent.spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let [first, second, third] = of("process default")[..] else { panic!("{:?}", sent.names()) };
    let [_, retry] = of("send default")[..] else { panic!("{:?}", sent.names()) };
    let link_to = |span: &Span, why: &str| {
        let is = |link: &&opentelemetry_proto::tonic::trace::v1::span::Link| {
            attribute(&link.attributes, ours::LINK) == why
        };
        span.links.iter().find(is).map(|link| link.span_id.clone())
    };
    assert_eq!(link_to(retry, "comes after").as_ref(), Some(&first.span_id));
    assert_eq!(link_to(second, "published").as_ref(), Some(&retry.span_id));
    assert_eq!(link_to(third, "delivered before").as_ref(), Some(&second.span_id));
    // The exception stands where it was raised, and only its type.
    assert_eq!(first.events.len(), 1);
    assert_eq!(attribute(&first.events[0].attributes, names::EXCEPTION_TYPE), "ValueError");
    assert_eq!(first.status.as_ref().unwrap().message, "ValueError");
    assert!(second.events.is_empty() && second.status.is_none());
    assert_eq!(attribute(&second.attributes, ours::SETTLED), "requeued");
    // What has not ended says so, and goes on until the last that is known.
    assert_eq!(span_us(third), (12_000, 12_000));
    assert_eq!(attribute(&third.attributes, ours::UNFINISHED), "true");
    assert_eq!(attribute(&sent.named("message add").attributes, ours::UNFINISHED), "true");
}

#[test]
fn imports_stand_one_in_another_also_where_an_event_of_them_was_lost() {
    let (_scratch, session) = session_of(vec![
        import(1_000, "a", 0),
        import(2_000, "a.b", 1),
        imported(3_000, "a.b", 1, 2_000, None),
        // Its end is lost.
        import(4_000, "a.c", 1),
        import(5_000, "a.d", 1),
        imported(6_000, "a.d", 1, 5_000, Some("ModuleNotFoundError")),
        imported(7_000, "a", 0, 1_000, None),
        // Its beginning is.
        imported(9_000, "e", 0, 8_000, None),
        // At the end it still goes on.
        import(10_000, "f", 0),
        at(11_000, WORKER, WORKER, Body::ExitCall { code: 0, group: true }),
    ]);
    let sent = sent(&session);
    let process = sent.named("program");
    let (a, d) = (sent.named("import a"), sent.named("import a.d"));
    for (module, parent, wanted, unfinished) in [
        ("a", process, (1_000, 7_000), ""),
        ("a.b", a, (2_000, 3_000), ""),
        ("a.c", a, (4_000, 5_000), "true"),
        ("a.d", a, (5_000, 6_000), ""),
        ("e", process, (8_000, 9_000), ""),
        ("f", process, (10_000, 11_000), "true"),
    ] {
        let span = sent.named(&format!("import {module}"));
        assert_eq!(span.parent_span_id, parent.span_id, "{module}");
        assert_eq!(span_us(span), wanted, "{module}");
        assert_eq!(attribute(&span.attributes, ours::UNFINISHED), unfinished, "{module}");
    }
    assert_eq!(attribute(&d.events[0].attributes, names::EXCEPTION_TYPE), "ModuleNotFoundError");
    assert_eq!(sent.told.imports, 6);
    assert_eq!(attribute(&process.attributes, ours::IMPORTS), "6");
}

#[test]
fn of_too_many_imports_and_events_the_number_is_told() {
    let mut events = Vec::new();
    for number in 0..imports::MOST + 7 {
        let us = 10 * number;
        events.push(import(us, &format!("m{number}"), 0));
        events.push(imported(us + 5, &format!("m{number}"), 0, us, None));
    }
    let signal = Body::Signal { signal: 1, code: 0, sender: Known::none(), group: true, queued: true };
    events.extend((0..processes::MOST_OF_ONE + 3).map(|_| at(1_000_000, WORKER, WORKER, signal.clone())));
    let (_scratch, session) = session_of(events);
    let sent = sent(&session);
    assert_eq!(sent.told.imports, imports::MOST);
    let process = sent.named("program");
    assert_eq!(attribute(&process.attributes, ours::IMPORTS), imports::MOST.to_string());
    assert_eq!(attribute(&process.attributes, ours::IMPORTS_LEFT_OUT), "7");
    let signals = process.events.iter().filter(|event| event.name == "SIGHUP").count();
    assert_eq!((signals, process.dropped_events_count), (processes::MOST_OF_ONE, 3));
}

#[test]
fn imports_that_never_end_are_bounded_and_none_is_lost_that_does() {
    let (_scratch, session) = session();
    let frame = Frame::new(session.header());
    let mut known = Model::new(STARTED_NS);
    known.add(1, &import(0, "m", 0));
    let (mut imports, mut told) = (Imports::default(), 0);
    let mut take = |imports: &mut Imports, id: u64, event: &Event| {
        imports.take(&frame, &known.processes, id, event, &mut |_| told += 1);
    };
    for number in 0..imports::MOST_OPEN as u32 + 5 {
        let event = Event { tid: crate::event::Tid(number), ..import(1, "m", 0) };
        take(&mut imports, number.into(), &event);
    }
    assert_eq!(imports.held, imports::MOST_OPEN);
    let last = crate::event::Tid(imports::MOST_OPEN as u32 + 1);
    take(&mut imports, 0, &Event { tid: last, ..imported(2, "m", 0, 1, None) });
    take(
        &mut imports,
        0,
        &at(3, WORKER, WORKER, Body::Exit { code: Some(0), signal: None, core_dumped: false }),
    );
    assert_eq!((imports.held, told), (0, imports::MOST));
    let process = known.processes.get(Pid(WORKER)).unwrap();
    assert_eq!(imports.count(process).left_out, imports::MOST_OPEN as u64 + 1 - imports::MOST);
}

#[test]
fn processes_stand_below_those_that_started_them_with_what_happened_to_them() {
    let (_scratch, session) = session();
    let sent = sent(&session);
    let root = sent.named("session failing");
    let pid = |pid: u32| {
        let is = |span: &&Span| {
            attribute(&span.attributes, names::PROCESS_PID) == pid.to_string() && span.name.contains("python")
        };
        sent.spans.iter().find(is).unwrap()
    };
    let (master, worker) = (pid(MASTER), pid(WORKER));
    assert!(master.name.starts_with("master python -m dramatiq"), "{}", master.name);
    assert!(worker.name.starts_with("worker python -m dramatiq"), "{}", worker.name);
    assert!(root.parent_span_id.is_empty());
    assert_eq!(master.parent_span_id, root.span_id);
    assert_eq!(worker.parent_span_id, master.span_id);
    assert_eq!(span_us(worker), (300_000, 9_000_200));
    assert_eq!(worker.status.as_ref().unwrap().message, "killed by SIGKILL");
    assert_eq!(attribute(&master.attributes, names::PROCESS_EXIT_CODE), "1");
    assert_eq!(attribute(&worker.attributes, names::PROCESS_EXIT_CODE), "", "it has none");
    assert_eq!(attribute(&worker.attributes, names::PROCESS_EXIT_TIME), "2026-11-23T16:15:09.0002Z");
    let happened: Vec<&str> = worker.events.iter().map(|event| event.name.as_str()).collect();
    for name in ["connect", "TCP handshake", "SIGKILL", "disconnect", "killed by SIGKILL", ours::FINDING] {
        assert!(happened.contains(&name), "{name}: {happened:?}");
    }
    let refused =
        worker.events.iter().find(|event| attribute(&event.attributes, names::ERROR_TYPE) == "ECONNREFUSED");
    assert_eq!(attribute(&refused.unwrap().attributes, names::NETWORK_PEER_PORT), "5672");
    assert!(worker.events.is_sorted_by_key(|event| event.time_unix_nano));
}

#[test]
fn findings_output_losses_and_what_was_not_seen_are_logs() {
    let (_scratch, session) = session();
    let sent = sent(&session);
    let model = fold::fold(&session, &Filter::default(), None).unwrap();
    let findings = sent.logs_named(ours::FINDING);
    assert!(!findings.is_empty());
    assert_eq!(sent.told.findings, findings.len() as u64);
    let lost = sent.logs_named(ours::LOST);
    assert_eq!(lost.len(), 1);
    assert_eq!(
        (text(&lost[0].body).as_str(), attribute(&lost[0].attributes, ours::LOST_WHAT).as_str()),
        ("12 events lost", "file")
    );
    let unseen = sent.logs_named(ours::UNSEEN);
    assert_eq!(
        unseen.iter().map(|record| text(&record.body)).collect::<Vec<_>>(),
        ["file calls made through io_uring"]
    );
    assert_eq!(attribute(&sent.resource, ours::UNSEEN), "file calls made through io_uring");
    assert_eq!(attribute(&sent.resource, names::SERVICE_NAME), "failing");
    let [verdict] = sent.logs_named(ours::VERDICT)[..] else { panic!("one verdict") };
    assert_eq!(attribute(&verdict.attributes, ours::LOST), "12");
    assert_eq!(attribute(&sent.named("session failing").attributes, ours::LOST), "12");
    let output = sent.logs_named("");
    assert_eq!(output.len() as u64, model.counts["output"]);
    let ready = output
        .iter()
        .find(|record| text(&record.body) == "[INFO] Worker process is ready for action.")
        .unwrap();
    assert_eq!(
        (ready.severity_text.as_str(), attribute(&ready.attributes, ours::STREAM).as_str()),
        ("INFO", "pipe")
    );
    assert_eq!(ready.time_unix_nano, BEGAN_NS + 410_000_000);
    let critical = output.iter().find(|record| record.severity_text == "CRITICAL").unwrap();
    assert_eq!(attribute(&critical.attributes, names::LOG_IOSTREAM), "stderr");
}

#[test]
fn nothing_in_it_steers_a_terminal() {
    let (_scratch, session) = session();
    let sent = sent(&session);
    let harmless = |text: &str| text.chars().all(|c| c == '\n' || is_plain(c));
    let all = |attributes: &[KeyValue]| attributes.iter().all(|one| harmless(&text(&one.value)));
    for span in &sent.spans {
        assert!(harmless(&span.name) && all(&span.attributes), "{span:?}");
        assert!(span.events.iter().all(|event| harmless(&event.name) && all(&event.attributes)), "{span:?}");
        assert!(span.status.as_ref().is_none_or(|status| harmless(&status.message)));
    }
    for record in &sent.logs {
        assert!(harmless(&text(&record.body)) && all(&record.attributes), "{record:?}");
    }
    let hostile = |record: &LogRecord| text(&record.body).contains("\\x1b[2J");
    assert!(sent.logs.iter().any(hostile), "what was hostile is there, and harmless");
}

#[test]
fn what_is_sent_twice_is_the_same_and_another_sessions_is_not() {
    let (_scratch, one) = session();
    assert_eq!(sent(&one).bytes, sent(&one).bytes);
    let header = one.header();
    let other = Header { started_ns: header.started_ns + 1, ..header.clone() };
    let (frame, other) = (Frame::new(header), Frame::new(&other));
    assert_ne!(frame.trace(), other.trace());
    assert_ne!(frame.message(1), other.message(1));
    let ids = [frame.session(), frame.message(1), frame.message(2), frame.import(1)];
    let steps = [(1, 2), (2, 1)].map(|(number, passage)| frame.step(number, passage, frame::Step::Send));
    let distinct: HashSet<_> = ids.iter().chain(&steps).collect();
    assert_eq!(distinct.len(), 6);
}

#[test]
fn a_sink_that_fails_ends_it() {
    let (_scratch, session) = session();
    let mut asked = 0;
    let result: anyhow::Result<Told> = write(&session, &Progress::default(), &mut |_| {
        asked += 1;
        anyhow::bail!("full")
    });
    assert_eq!((result.unwrap_err().to_string().as_str(), asked), ("full", 1));
}
