//! Claims about the broker's account beside what was observed, on events made by hand.

use super::{
    Model,
    fixture::{STARTED_NS, WORKER, at, exec},
    reconcile::{Account, Consumed, Holder, Reconciliation},
    wire::{Wire, declare},
};
use crate::event::{
    Body, Event, Pid,
    broker::{BrokerConnection, BrokerConsumer, QueueSample, Way},
};

/// A consumer thread of the worker.
const THREAD: u32 = 4715;
const RIVAL: u32 = 5000;

fn sample(since_us: u64, how: Way, (vhost, queue): (&str, &str), ready: u64, consumers: u64) -> Event {
    let sample = QueueSample {
        published: None,
        delivered: None,
        vhost: vhost.into(),
        queue: queue.into(),
        ready: Some(ready),
        unacked: None,
        consumers: Some(consumers),
        state: None,
        how,
        ours: false,
    };
    at(since_us, 0, 0, Body::QueueSample(sample))
}

/// A connection from this port of the loopback, and its consumer of a queue.
fn consumer(since_us: u64, port: u16, queue: &str, present: bool, local_pid: Option<u32>) -> [Event; 2] {
    let name = format!("127.0.0.1:{port} -> 127.0.0.1:5672");
    let connection = BrokerConnection {
        name: name.clone(),
        present,
        user: Some("guest".into()),
        vhost: Some("/".into()),
        peer_host: Some("::ffff:127.0.0.1".into()),
        peer_port: Some(port),
        port: Some(5672),
        client_properties: [("product".into(), "Pika Python Client Library".into())].into(),
        state: None,
        channels: None,
        connected_at_ms: None,
        node: None,
        local_pid: local_pid.map(Pid),
        local_parent_command: None,
        local_command: local_pid.map(|_| vec!["python".into(), "rival.py".into()]),
        how: Way::Management,
        ours: false,
    };
    let consumer = BrokerConsumer {
        connection: Some(name),
        channel: Some(1),
        vhost: "/".into(),
        queue: queue.into(),
        consumer_tag: format!("tag-{queue}"),
        present,
        prefetch: Some(4),
        ack_required: Some(true),
        how: Way::Management,
        ours: false,
    };
    [
        at(since_us, 0, 0, Body::BrokerConnection(Box::new(connection))),
        at(since_us, 0, 0, Body::BrokerConsumer(consumer)),
    ]
}

/// A worker that consumes `default` from port 40002.
fn worker() -> Vec<Event> {
    let mut events = Vec::new();
    let mut worker = Wire::connect(&mut events, 3_000, 2, WORKER, THREAD);
    worker.open(&mut events, 4_000);
    worker.sent(&mut events, 4_700, &declare("default"));
    worker.consume(&mut events, 5_000, "default", 4);
    events
}

fn both(events: &[Event]) -> Reconciliation {
    Reconciliation::of(&Model::fold(STARTED_NS, events)).unwrap()
}

fn account<'a>(both: &'a Reconciliation, vhost: &str, name: &str) -> &'a Account {
    both.queues.iter().find(|one| one.vhost.as_deref() == Some(vhost) && one.name == name).unwrap()
}

fn summary(events: &[Event]) -> String {
    let lines = crate::render::reconcile::summary(&both(events), STARTED_NS);
    let mut out = anstream::StripStream::new(Vec::new());
    lines.iter().for_each(|line| line.write(&mut out, None).unwrap());
    String::from_utf8(out.into_inner()).unwrap()
}

#[test]
fn where_the_broker_told_nothing_nothing_is_claimed() {
    assert_eq!(Reconciliation::of(&Model::fold(STARTED_NS, &worker())), None);
}

#[test]
fn backlog_elsewhere_is_told_with_what_the_worker_consumes_instead() {
    let mut events = worker();
    events.extend(consumer(900_000, 40_002, "default", true, Some(WORKER)));
    events.push(sample(1_000_000, Way::PassiveDeclare, ("/", "default"), 7, 1));
    for (vhost, queue) in [("/", "jobs"), ("/", "jobs.XQ"), ("shop", "default")] {
        events.push(sample(1_200_000, Way::Management, (vhost, queue), 3, 0));
    }
    let both = both(&events);
    let names: Vec<_> =
        both.backlog().iter().map(|one| (one.vhost.as_deref().unwrap(), one.name.as_str())).collect();
    assert_eq!(names, [("/", "jobs"), ("/", "jobs.XQ"), ("shop", "default")]);
    assert_eq!(both.consumed().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["default"]);
    assert_eq!(both.competing().count(), 0);
    let [ours] = account(&both, "/", "default").consumers.as_slice() else { panic!("{both:?}") };
    let Holder::Observed { pid, tid, .. } = ours.holder else { panic!("{ours:?}") };
    assert_eq!(
        (pid.0, tid.unwrap().0, ours.told, ours.since_ns),
        (WORKER, THREAD, true, STARTED_NS + 5_000_000)
    );
    assert_eq!(
        summary(&events),
        "jobs: 3 ready since +1.20 s, consumed by nobody (and 1 more queue); the worker consumes default\n"
    );
}

#[test]
fn a_rival_is_named_and_one_that_had_gone_before_is_none() {
    let mut events: Vec<Event> = consumer(1_000, 40_100, "default", true, None).into();
    events.extend(consumer(2_000, 40_100, "default", false, None));
    events.extend(worker());
    events.extend(consumer(900_000, 40_002, "default", true, Some(WORKER)));
    events.extend(consumer(900_000, 40_123, "default", true, Some(RIVAL)));
    events.push(sample(1_000_000, Way::PassiveDeclare, ("/", "default"), 0, 2));
    let told = both(&events);
    let competing: Vec<&Account> = told.competing().collect();
    let [default] = competing.as_slice() else { panic!("{told:?}") };
    let [rival] = default.competitors().collect::<Vec<_>>()[..] else { panic!("{default:?}") };
    let Holder::Other(client) = &rival.holder else { panic!("{rival:?}") };
    assert_eq!((client.local_pid, client.peer_port), (Some(Pid(RIVAL)), Some(40_123)));
    // A second connection of the same process, for its delay queue, is no second rival.
    events.extend(consumer(900_000, 40_124, "default", true, Some(RIVAL)));
    assert_eq!(
        summary(&events),
        "other consumers of default: pika [::ffff:127.0.0.1]:40123 (pid 5000 python rival.py)\n"
    );
    // Gone, but it was there while the worker consumed.
    events.extend(consumer(1_100_000, 40_123, "default", false, Some(RIVAL)));
    assert_eq!(both(&events).competing().count(), 1);
}

#[test]
fn a_consumer_behind_a_translated_address_is_known_by_its_tag() {
    let mut events = worker();
    events.extend(consumer(900_000, 61_000, "default", true, None));
    events.push(sample(1_000_000, Way::PassiveDeclare, ("/", "default"), 1, 1));
    let told = both(&events);
    assert_eq!(account(&told, "/", "default").consumed, Consumed::Observed);
    assert_eq!(told.competing().count(), 0);
    // The same tag in a process that is known to be another.
    let mut events = worker();
    events.extend(consumer(900_000, 61_000, "default", true, Some(RIVAL)));
    assert_eq!(both(&events).competing().count(), 1);
}

#[test]
fn a_worker_that_was_there_before_is_known_by_its_address() {
    let mut events = vec![at(0, WORKER, WORKER, exec(&["python", "-m", "dramatiq", "minimal_worker"]))];
    Wire::connect(&mut events, 1_000, 2, WORKER, THREAD);
    events.extend(consumer(900_000, 40_002, "default", true, None));
    let told = both(&events);
    let default = account(&told, "/", "default");
    assert_eq!(default.consumed, Consumed::Observed);
    let Holder::Observed { pid, tid, connection } = default.consumers[0].holder else { panic!("{told:?}") };
    assert_eq!((pid.0, tid, connection), (WORKER, None, None));
}

#[test]
fn consumers_that_are_counted_and_not_known_may_be_ours() {
    let jobs = ("/", "jobs");
    let events = [sample(1_000, Way::PassiveDeclare, jobs, 3, 1)];
    let told = both(&events);
    assert_eq!((account(&told, "/", "jobs").consumed, told.backlog().len()), (Consumed::Unknown, 0));
    let mut events = events.to_vec();
    events.extend(consumer(2_000, 40_123, "jobs", true, Some(RIVAL)));
    let told = both(&events);
    assert_eq!((account(&told, "/", "jobs").consumed, told.backlog().len()), (Consumed::Others, 1));
    assert!(
        summary(&events).contains("jobs in vhost /: 3 ready since +1.0 ms, consumed by pika "),
        "{}",
        summary(&events)
    );
}

#[test]
fn backlog_lasts_from_the_first_sample_that_had_some_and_old_statistics_do_not_end_it() {
    let jobs = ("/", "jobs");
    let mut events = vec![
        sample(1_000_000, Way::PassiveDeclare, jobs, 0, 0),
        sample(2_000_000, Way::PassiveDeclare, jobs, 5, 0),
        // Of 5 s ago, as the management API has it.
        sample(2_500_000, Way::Management, jobs, 0, 1),
        sample(3_000_000, Way::PassiveDeclare, jobs, 3, 0),
    ];
    let told = both(&events);
    let sampled = account(&told, "/", "jobs").sampled.as_ref().unwrap();
    assert_eq!((sampled.ready, sampled.consumers), (Some(3), Some(0)));
    assert_eq!(sampled.ready_since_ns, Some(STARTED_NS + 2_000_000_000));
    assert_eq!(sampled.highest_ready, Some((5, STARTED_NS + 2_000_000_000)));
    // Declares have stopped: then the other way is the better one.
    events.push(sample(30_000_000, Way::Management, jobs, 0, 1));
    let told = both(&events);
    let sampled = account(&told, "/", "jobs").sampled.as_ref().unwrap();
    assert_eq!((sampled.ready, sampled.ready_since_ns), (Some(0), None));
    assert_eq!(told.backlog().len(), 0);
}

#[test]
fn what_is_the_observers_own_is_left_out() {
    let mut events: Vec<Event> = consumer(1_000, 40_123, "amq.gen-x", true, None).into();
    events.push(sample(1_000, Way::Management, ("/", "amq.gen-x"), 9, 1));
    for event in &mut events {
        match &mut event.body {
            Body::QueueSample(one) => one.ours = true,
            Body::BrokerConnection(one) => one.ours = true,
            Body::BrokerConsumer(one) => one.ours = true,
            _ => {}
        }
    }
    assert_eq!(Reconciliation::of(&Model::fold(STARTED_NS, &events)), None);
}

#[test]
fn nothing_hostile_comes_through_what_a_rival_calls_itself() {
    const HOSTILE: &str = crate::model::fixture::HOSTILE;
    let mut events = worker();
    events.extend(consumer(900_000, 40_002, "default", true, Some(WORKER)));
    events.extend(consumer(900_000, 40_123, "default", true, Some(RIVAL)));
    events.push(sample(1_000_000, Way::Management, ("/", HOSTILE), 3, 0));
    for event in &mut events {
        if let Body::BrokerConnection(one) = &mut event.body
            && one.local_pid == Some(Pid(RIVAL))
        {
            one.client_properties =
                ["product", "connection_name"].map(|name| (name.into(), HOSTILE.into())).into();
            one.local_command = Some(vec![HOSTILE.into()]);
        }
    }
    let model = Model::fold(STARTED_NS, &events);
    let mut raw = Vec::new();
    let mut lines = crate::render::queues::lines(&model);
    lines.extend(crate::render::reconcile::summary(&both(&events), STARTED_NS));
    lines.iter().for_each(|line| line.write(&mut raw, None).unwrap());
    let text = String::from_utf8(raw).unwrap();
    assert!(text.matches("[2J").count() > 3, "it is shown, escaped: {text}");
    // The escapes that remain are our own styles.
    for piece in text.split('\u{1b}') {
        assert!(!piece.contains(|c: char| (c.is_control() && c != '\n') || c == '\u{202e}'), "{piece:?}");
        assert!(!piece.starts_with("[2J"), "{piece:?}");
    }
}

#[test]
fn where_one_of_ours_is_not_found_at_the_broker_a_stranger_may_be_it() {
    let heartbeat = b"\x08\0\0\0\0\0\0\xce";
    let mut events = Vec::new();
    let mut worker = Wire::connect(&mut events, 1_000, 2, WORKER, THREAD);
    worker.sent(&mut events, 2_000, heartbeat);
    for event in &mut events {
        if let Body::Data { since_attach, .. } = &mut event.body {
            *since_attach = true;
        }
    }
    events.push(sample(1_000_000, Way::PassiveDeclare, ("/", "default"), 3, 1));
    let mut elsewhere = events.clone();
    elsewhere.extend(consumer(900_000, 61_000, "default", true, None));
    let told = both(&elsewhere);
    assert_eq!(account(&told, "/", "default").consumers[0].holder, Holder::Unknown);
    assert_eq!(told.backlog().len(), 0);
    // Its process is known to be another.
    events.extend(consumer(900_000, 61_000, "default", true, Some(RIVAL)));
    let told = both(&events);
    assert_eq!((account(&told, "/", "default").consumed, told.backlog().len()), (Consumed::Others, 1));
}
