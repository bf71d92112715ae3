//! Traces of hand-made sessions, read back with the same messages. That the format itself is right is for Perfetto's own to say.

use std::collections::HashMap;

use prost::Message;

use super::{
    proto::{COUNTER, INSTANT, SLICE_BEGIN, SLICE_END, TracePacket, TrackDescriptor, TrackEvent},
    *,
};
use crate::{
    event::{Import, Imported, Known, broker::Way},
    export::testing::{exported, session, session_of},
    model::{
        fixture::{WORKER, at},
        wire::{Wire, ack, body, deliver, publish},
    },
};

/// Of a flow: the name, the process, and which flows go on and which end here.
type Step<'a> = (&'a str, i32, (&'a [u64], &'a [u64]));

#[derive(Clone, PartialEq, Message)]
struct Packets {
    #[prost(message, repeated, tag = "1")]
    packet: Vec<TracePacket>,
}

struct Read {
    tracks: HashMap<u64, TrackDescriptor>,
    /// In order of time, what is of one time as it was written.
    events: Vec<(u64, TrackEvent)>,
}

fn read(session: &Session) -> Read {
    let bytes = exported(|out, progress| write(session, out, progress));
    let packets = Packets::decode(bytes.as_slice()).unwrap().packet;
    let clocks = &packets[0].clock_snapshot.as_ref().unwrap().clocks;
    let clocks: Vec<_> =
        clocks.iter().map(|clock| (clock.clock_id.unwrap(), clock.timestamp.unwrap())).collect();
    assert_eq!(clocks, [(3, 5_000_000_000), (1, 1_795_450_500_000_000_000)], "one moment on both clocks");
    let mut tracks = HashMap::new();
    let mut events = Vec::new();
    for packet in packets {
        if let Some(track) = packet.track_descriptor {
            tracks.insert(track.uuid.unwrap(), track);
        } else if let Some(event) = packet.track_event {
            assert!(tracks.contains_key(&event.track_uuid.unwrap()), "described before it is used");
            events.push((packet.timestamp.unwrap(), event));
        }
    }
    events.sort_by_key(|(at_ns, _)| *at_ns);
    Read { tracks, events }
}

impl Read {
    /// The slices of a category, as `outer/inner`, and how long each took; all slices of all tracks must nest.
    fn slices(&self, category: &str) -> Vec<(String, u64)> {
        let mut open = HashMap::<u64, Vec<(u64, String, bool)>>::new();
        let mut found = Vec::new();
        for (at_ns, event) in &self.events {
            let stack = open.entry(event.track_uuid.unwrap()).or_default();
            match event.r#type {
                Some(SLICE_BEGIN) => {
                    let is = event.categories == [category];
                    stack.push((*at_ns, event.name.clone().unwrap(), is));
                }
                Some(SLICE_END) => {
                    let names: Vec<&str> = stack.iter().map(|(_, name, _)| name.as_str()).collect();
                    let path = names.join("/");
                    let (from_ns, _, is) = stack.pop().expect("nothing to end");
                    if is {
                        found.push((path, at_ns - from_ns));
                    }
                }
                _ => {}
            }
        }
        assert!(open.values().all(Vec::is_empty), "all end: {open:?}");
        found
    }

    fn instants(&self, category: &str) -> Vec<&str> {
        let of =
            |event: &&(u64, TrackEvent)| event.1.r#type == Some(INSTANT) && event.1.categories == [category];
        self.events.iter().filter(of).map(|(_, event)| event.name.as_deref().unwrap()).collect()
    }
}

fn import(since_us: u64, module: &str, depth: u32) -> Event {
    let module = Known::Is(module.to_owned());
    let body = Import { module, importer: Known::none(), function: Known::none(), level: None, depth };
    at(since_us, WORKER, WORKER, Body::Import(Box::new(body)))
}

fn imported(since_us: u64, module: &str, depth: u32, began_us: u64) -> Event {
    let since_ns = crate::model::fixture::STARTED_NS + began_us * 1_000;
    let body =
        Imported { module: Known::Is(module.to_owned()), since_ns, loaded: true, exception: None, depth };
    at(since_us, WORKER, WORKER, Body::Imported(body))
}

#[test]
fn imports_nest_also_where_an_event_of_them_was_lost() {
    let (_scratch, session) = session_of(vec![
        import(1_000, "a", 0),
        import(2_000, "a.b", 1),
        imported(3_000, "a.b", 1, 2_000),
        // Its end is lost.
        import(4_000, "a.c", 1),
        import(5_000, "a.d", 1),
        imported(6_000, "a.d", 1, 5_000),
        imported(7_000, "a", 0, 1_000),
        // Its beginning is.
        imported(9_000, "e", 0, 8_000),
        // At the end it still goes on.
        import(10_000, "f", 0),
        at(11_000, WORKER, WORKER, Body::ExitCall { code: 0, group: true }),
    ]);
    let ms = |ms: u64| ms * 1_000_000;
    let wanted = [("a/a.b", 1), ("a/a.c", 1), ("a/a.d", 1), ("a", 6), ("e", 1), ("f", 1)]
        .map(|(path, took)| (path.to_owned(), ms(took)));
    assert_eq!(read(&session).slices("import"), wanted);
}

#[test]
fn a_message_is_a_flow_from_publish_over_delivery_to_settlement() {
    const PUBLISHER: u32 = 4800;
    let mut events: Vec<Event> = Vec::new();
    let text = body("default", "m-1", "");
    let mut consumer = Wire::connect(&mut events, 1_000, 2, WORKER, 4715);
    consumer.open(&mut events, 2_000);
    consumer.consume(&mut events, 3_000, "default", 4);
    let mut publisher = Wire::connect(&mut events, 4_000, 3, PUBLISHER, PUBLISHER);
    publisher.open(&mut events, 5_000);
    publisher.sent(&mut events, 6_000, &publish("default", &text));
    consumer.received(&mut events, 7_000, &deliver(1, "default", false, &text));
    consumer.sent(&mut events, 9_000, &ack(1, false));
    let (_scratch, session) = session_of(events);
    let read = read(&session);
    let flow: Vec<_> = read
        .events
        .iter()
        .filter(|(_, event)| !event.flow_ids.is_empty() || !event.terminating_flow_ids.is_empty())
        .map(|(_, event)| {
            let mut track = &read.tracks[&event.track_uuid.unwrap()];
            while let Some(parent) = track.parent_uuid {
                track = &read.tracks[&parent];
            }
            let ids = (event.flow_ids.as_slice(), event.terminating_flow_ids.as_slice());
            (event.name.as_deref().unwrap(), track.process.as_ref().unwrap().pid.unwrap(), ids)
        })
        .collect();
    let (worker, publisher) = (WORKER.cast_signed(), PUBLISHER.cast_signed());
    let wanted: [Step<'_>; 3] = [
        ("publish add", publisher, (&[1], &[])),
        ("add", worker, (&[1], &[])),
        ("acked add", worker, (&[], &[1])),
    ];
    assert_eq!(flow, wanted);
    assert_eq!(read.slices("message"), [("add".to_owned(), 2_000_000)]);
    let requests = read.slices("amqp");
    let count = |name: &str| requests.iter().filter(|(request, _)| request == name).count();
    assert_eq!((count("connection.open"), count("basic.consume")), (2, 1), "{requests:?}");
    let alone = read.instants("amqp");
    for name in ["protocol-header", "basic.publish", "basic.deliver", "basic.ack"] {
        assert!(alone.contains(&name), "{name}: {alone:?}");
    }
}

#[test]
fn queues_are_counters_and_ours_are_none() {
    let sample = |since_us, queue: &str, ready, ours| {
        let sample = QueueSample {
            vhost: "/".to_owned(),
            queue: queue.to_owned(),
            ready: Some(ready),
            unacked: None,
            consumers: Some(1),
            state: None,
            published: None,
            delivered: None,
            how: Way::PassiveDeclare,
            ours,
        };
        at(since_us, 0, 0, Body::QueueSample(sample))
    };
    let (_scratch, session) = session_of(vec![
        sample(1_000, "default", 3, false),
        sample(2_000, "x", 9, true),
        sample(3_000, "default", 0, false),
    ]);
    let read = read(&session);
    let counted =
        read.events.iter().filter(|(_, event)| event.r#type == Some(COUNTER)).map(|(at_ns, event)| {
            let name = read.tracks[&event.track_uuid.unwrap()].name.as_deref().unwrap();
            (name, (at_ns - crate::model::fixture::STARTED_NS) / 1_000_000, event.counter_value.unwrap())
        });
    assert_eq!(counted.collect::<Vec<_>>(), [("default ready", 1, 3), ("default ready", 3, 0)]);
}

#[test]
fn exits_findings_losses_and_what_was_not_seen_are_instants() {
    let (_scratch, session) = session();
    let read = read(&session);
    let process = read.instants("process");
    for name in ["exec", "SIGKILL", "killed by SIGKILL", "exit 1"] {
        assert!(process.contains(&name), "{name}: {process:?}");
    }
    assert_eq!(read.instants("lost"), ["12 events lost"]);
    assert!(!read.instants("finding").is_empty());
    let notes: Vec<String> = read
        .events
        .iter()
        .filter(|(_, event)| event.categories == ["recording"])
        .flat_map(|(_, event)| &event.debug_annotations)
        .map(|note| {
            format!(
                "{}={}",
                note.name(),
                note.string_value().to_owned() + &note.uint_value.map_or(String::new(), |n| n.to_string())
            )
        })
        .collect();
    for note in
        ["schema=observer.perfetto/1", "unseen=file calls made through io_uring", "lost=12", "lost file=12"]
    {
        assert!(notes.iter().any(|found| found == note), "{note}: {notes:?}");
    }
    assert_eq!(read.slices("syscall").len(), 1, "the thread that sits in futex, until its process ends");
    let texts = read.events.iter().flat_map(|(_, event)| {
        let notes = event.debug_annotations.iter().filter_map(|note| note.string_value.as_deref());
        notes.chain(event.name.as_deref()).collect::<Vec<_>>()
    });
    let names = read.tracks.values().filter_map(|track| track.name.as_deref());
    assert!(texts.chain(names).flat_map(str::chars).all(words::escape::is_plain));
}
