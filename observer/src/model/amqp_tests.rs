//! Claims about connections, consumers, queues, messages and ladders, on conversations made by hand.

use proptest::prelude::*;

use super::{
    Model,
    fixture::{MASTER, STARTED_NS, WORKER, at, connect, exec, inet, output},
    ladder::{Ladder, Rung, ladders},
    message::{Confirmed, Life, Settled},
    wire::{self, Wire, ack, body, deliver, nack, publish},
};
use crate::event::{Body, Direction, Disconnect, Event, Hop, OutputStream, Pid, SocketId};

const SENDER: u32 = 4720;
/// dramatiq's consumer threads.
const THREAD: u32 = 4715;

/// The model and the lives, in the order of first appearance.
fn fold(events: &[Event]) -> (Model, Vec<Life>) {
    let mut model = Model::with_lives(STARTED_NS);
    let mut lives = Vec::new();
    for (id, event) in (1..).zip(events) {
        model.add(id, event);
        lives.extend(model.amqp.lives.take_done());
    }
    model.finish();
    lives.extend(model.amqp.lives.take_done());
    lives.sort_by_key(|life| life.number);
    (model, lives)
}

/// A publisher and a worker that consumes `default`, both ready.
fn pair() -> (Vec<Event>, Wire, Wire) {
    let mut events = Vec::new();
    let mut sender = Wire::connect(&mut events, 1_000, 1, SENDER, SENDER);
    sender.open(&mut events, 2_000);
    let mut worker = Wire::connect(&mut events, 3_000, 2, WORKER, THREAD);
    worker.open(&mut events, 4_000);
    worker.consume(&mut events, 5_000, "default", 4);
    (events, sender, worker)
}

#[test]
fn a_message_published_by_one_process_and_run_by_another_is_one_life() {
    let (mut events, mut sender, mut worker) = pair();
    let text = body("default", "m-1", "");
    sender.sent(&mut events, 10_000, &publish("default", &text));
    worker.received(&mut events, 12_000, &deliver(1, "default", false, &text));
    worker.sent(&mut events, 15_000, &ack(1, false));
    let (model, lives) = fold(&events);
    let [life] = lives.as_slice() else { panic!("{lives:?}") };
    assert_eq!(
        (life.message_id.as_deref(), life.actor.as_deref(), life.state()),
        (Some("m-1"), Some("add"), "acked")
    );
    let passage = &life.passages[0];
    assert_eq!(life.passages.len(), 1);
    assert_eq!(passage.published.unwrap().pid, Pid(SENDER));
    let delivered = passage.delivered.unwrap();
    assert_eq!((delivered.pid.0, delivered.tid.0), (WORKER, THREAD));
    let settled = passage.settled.unwrap();
    assert_eq!((settled.how, settled.mark.at_ns - delivered.at_ns), (Settled::Acked, 3_000_000));
    assert!(
        !format!("{lives:?}{:?}", serde_json::to_string(&lives)).contains("s3cret"),
        "arguments are not kept"
    );
    let queue = model.amqp.queues.get(Some("/"), "default").unwrap();
    assert_eq!(queue.published[&Pid(SENDER)], 1);
    assert_eq!(queue.delivered[&Pid(WORKER)], 1);
    assert_eq!(queue.settled[&Settled::Acked], 1);
}

#[test]
fn a_publish_told_after_the_delivery_it_caused_is_the_same_life() {
    let (mut events, mut sender, mut worker) = pair();
    let text = body("default", "m-1", "");
    worker.received(&mut events, 10_000, &deliver(1, "default", false, &text));
    worker.sent(&mut events, 10_050, &ack(1, false));
    sender.sent(&mut events, 10_060, &publish("default", &text));
    let (_, lives) = fold(&events);
    assert_eq!(lives.len(), 1);
    assert_eq!(lives[0].passages.len(), 1);
    assert_eq!((lives[0].state(), lives[0].passages[0].published.is_some()), ("acked", true));
}

#[test]
fn a_retry_is_a_passage_of_the_same_life() {
    let (mut events, _, mut worker) = pair();
    worker.consume(&mut events, 6_000, "default.DQ", 2000);
    let traceback = r#""retries":1,"eta":1700000000123,"traceback":"Traceback (most recent call last):\n  File x\nshop.Broken: s3cret\n""#;
    worker.received(&mut events, 10_000, &deliver(1, "default", false, &body("default", "m-1", "")));
    worker.sent(&mut events, 11_000, &publish("default.DQ", &body("default.DQ", "m-1", traceback)));
    worker.sent(&mut events, 12_000, &ack(1, false));
    worker.received(
        &mut events,
        13_000,
        &deliver(2, "default.DQ", false, &body("default.DQ", "m-1", traceback)),
    );
    // Held for 20 s: longer than a life that is over stays.
    let again = body("default", "m-1", r#""retries":1"#);
    worker.sent(&mut events, 20_013_000, &publish("default", &again));
    worker.sent(&mut events, 20_014_000, &ack(2, false));
    worker.received(&mut events, 20_015_000, &deliver(3, "default", false, &again));
    worker.sent(&mut events, 20_016_000, &nack(3, false));
    let (model, lives) = fold(&events);
    let [life] = lives.as_slice() else { panic!("{lives:?}") };
    let queues: Vec<_> = life.passages.iter().map(|passage| passage.queue.as_deref().unwrap()).collect();
    assert_eq!(queues, ["default", "default.DQ", "default"]);
    let delayed = &life.passages[1];
    assert_eq!((delayed.retries, delayed.failure.as_deref()), (Some(1), Some("shop.Broken")));
    assert_eq!(delayed.eta_ms, Some(1_700_000_000_123));
    assert_eq!(life.state(), "nacked");
    assert_eq!(model.amqp.lives.totals.messages, 1);
    assert!(!serde_json::to_string(life).unwrap().contains("s3cret"), "nor the text of the exception");
}

#[test]
fn what_was_not_settled_goes_back_and_comes_again() {
    let (mut events, _, mut worker) = pair();
    let text = body("default", "m-1", "");
    worker.received(&mut events, 10_000, &deliver(1, "default", false, &text));
    let (how, local) = (Disconnect::ResetByPeer, inet(40_002));
    let gone = Body::Disconnect { socket: SocketId(2), how, errno: 104, peer: inet(5672), local };
    events.push(at(11_000, WORKER, THREAD, gone));
    let mut other = Wire::connect(&mut events, 12_000, 3, WORKER + 1, WORKER + 1);
    other.open(&mut events, 13_000);
    other.consume(&mut events, 14_000, "default", 4);
    other.received(&mut events, 15_000_000, &deliver(1, "default", true, &text));
    other.sent(&mut events, 15_001_000, &ack(0, true));
    let (model, lives) = fold(&events);
    assert_eq!(lives.len(), 1);
    let passages = &lives[0].passages;
    assert_eq!(passages[0].settled.unwrap().how, Settled::Returned);
    assert!(passages[1].redelivered);
    assert_eq!(passages[1].settled.unwrap().how, Settled::Acked);
    let totals = model.amqp.lives.totals;
    assert_eq!((totals.delivered, totals.redelivered, totals.returned, totals.acked), (2, 1, 1, 1));
    let consumers: Vec<_> =
        model.amqp.consumers.iter().map(|one| (one.asked.pid.0, one.prefetch, one.ended.is_some())).collect();
    assert_eq!(consumers, [(WORKER, Some(4), true), (WORKER + 1, Some(4), false)]);
}

#[test]
fn an_acknowledgement_of_many_settles_each_and_no_more() {
    let (mut events, _, mut worker) = pair();
    for tag in 1..=5 {
        let text = body("default", &format!("m-{tag}"), "");
        worker.received(&mut events, 10_000 + tag, &deliver(tag, "default", false, &text));
    }
    worker.sent(&mut events, 11_000, &ack(3, true));
    worker.sent(&mut events, 11_001, &ack(3, false));
    let (model, lives) = fold(&events);
    let states: Vec<_> = lives.iter().map(Life::state).collect();
    assert_eq!(states, ["acked", "acked", "acked", "delivered", "delivered"]);
    assert_eq!((model.amqp.lives.totals.acked, model.amqp.lives.totals.unknown_tags), (3, 1));
}

#[test]
fn an_unroutable_publish_is_said_so_and_a_confirmed_one_too() {
    let (mut events, mut sender, _) = pair();
    sender.sent(&mut events, 9_000, &wire::confirm_select());
    let (lost, kept) = (body("nowhere", "m-1", ""), body("default", "m-2", ""));
    sender.sent(&mut events, 10_000, &[publish("nowhere", &lost), publish("default", &kept)].concat());
    sender.received(&mut events, 11_000, &wire::returned("nowhere", &lost));
    sender.received(&mut events, 12_000, &ack(2, true));
    let (_, lives) = fold(&events);
    assert_eq!(lives[0].state(), "unroutable");
    assert!(matches!(&lives[0].passages[0].confirmed, Some(Confirmed::Unroutable { code: 312, .. })));
    assert_eq!(lives[1].passages[0].confirmed, Some(Confirmed::Taken));
}

#[test]
fn a_hole_in_the_stream_is_counted_and_what_follows_is_told() {
    let (mut events, _, mut worker) = pair();
    worker.missed(Direction::Received, 5_000);
    for tag in 7..=30 {
        let text = body("default", &format!("m-{tag}"), "");
        worker.received(&mut events, 10_000 + tag, &deliver(tag, "default", false, &text));
    }
    worker.sent(&mut events, 11_000, &ack(6, false));
    worker.sent(&mut events, 11_001, &ack(30, false));
    let (model, lives) = fold(&events);
    let link = model.amqp.links().nth(1).unwrap();
    assert_eq!(link.unseen, 1);
    assert_eq!(lives.last().unwrap().state(), "acked");
    assert_eq!(model.amqp.lives.totals.unknown_tags, 1, "the delivery of 6 was in the hole");
}

#[test]
fn a_refused_declaration_is_the_queues_own() {
    let (mut events, _, mut worker) = pair();
    worker.sent(&mut events, 10_000, &[wire::declare("a"), wire::declare("b")].concat());
    worker.received(&mut events, 11_000, &wire::declare_ok("a", 7));
    worker.received(&mut events, 12_000, &wire::channel_close(406, "PRECONDITION_FAILED", 50, 10));
    let (model, _) = fold(&events);
    let answer = |name| {
        let declared = model.amqp.queues.get(Some("/"), name).unwrap().declared.as_ref().unwrap();
        serde_json::to_value(&declared.answer).unwrap()
    };
    assert_eq!(answer("a")["ok"]["messages"], 7);
    assert_eq!(answer("b")["refused"]["code"], 406);
}

#[test]
fn settled_messages_leave_the_heap() {
    let (mut events, mut sender, mut worker) = pair();
    let mut model = Model::with_lives(STARTED_NS);
    let mut most = 0;
    let mut lives = 0;
    let mut id = 0;
    // Ten seconds at 1,000 messages/s, each settled 2 ms after its publish.
    for number in 0..10_000_u64 {
        let text = body("default", &format!("m-{number}"), "");
        let since_us = 10_000 + number * 1_000;
        sender.sent(&mut events, since_us, &publish("default", &text));
        worker.received(&mut events, since_us + 100, &deliver(number + 1, "default", false, &text));
        worker.sent(&mut events, since_us + 200, &ack(number + 1, false));
        for event in events.drain(..) {
            id += 1;
            model.add(id, &event);
            lives += model.amqp.lives.take_done().count();
        }
        most = most.max(model.amqp.lives.held());
    }
    model.finish();
    lives += model.amqp.lives.take_done().count();
    assert_eq!(lives, 10_000);
    assert!(most < 1_100, "{most} lives were held at a time");
    assert_eq!(model.amqp.lives.held(), 0);
}

#[test]
fn deliveries_that_are_never_settled_do_not_grow_without_end() {
    let (mut events, _, mut worker) = pair();
    let mut model = Model::with_lives(STARTED_NS);
    let mut id = 0;
    for tag in 1..=100_007_u64 {
        worker.received(&mut events, 10_000 + tag, &deliver(tag, "default", false, ""));
        for event in events.drain(..) {
            id += 1;
            model.add(id, &event);
        }
        model.amqp.lives.take_done();
    }
    assert_eq!(model.amqp.lives.totals.untracked, 7, "the seven oldest are forgotten, and counted");
    // Of those seven, whatever comes is not news of a delivery that was missed.
    worker.sent(&mut events, 900_000, &ack(3, false));
    worker.sent(&mut events, 900_001, &ack(8, false));
    worker.sent(&mut events, 900_002, &ack(0, true));
    events.iter().for_each(|event| model.add(id + 1, event));
    let totals = model.amqp.lives.totals;
    assert_eq!((totals.delivered, totals.acked, totals.unknown_tags), (100_007, 100_000, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_message_has_exactly_one_life(steps in proptest::collection::vec((0_u64..20, 0_u8..4), 1..200)) {
        let (mut events, mut sender, mut worker) = pair();
        let (mut tag, mut now_us) = (0, 10_000);
        let mut ids = std::collections::BTreeSet::new();
        let mut deliveries = 0;
        for (number, what) in steps {
            now_us += 700_000;
            let text = body("default", &format!("m-{number}"), "");
            match what {
                0 => sender.sent(&mut events, now_us, &publish("default", &text)),
                1 => {
                    tag += 1;
                    deliveries += 1;
                    worker.received(&mut events, now_us, &deliver(tag, "default", false, &text));
                }
                2 => worker.sent(&mut events, now_us, &ack(tag, true)),
                _ => worker.sent(&mut events, now_us, &nack(tag, true)),
            }
            if what < 2 {
                ids.insert(number);
            }
        }
        let (model, lives) = fold(&events);
        // Identifiers come again after their life is over here: then it is another.
        let named: std::collections::BTreeSet<_> = lives.iter().map(|life| life.message_id.clone().unwrap()).collect();
        prop_assert_eq!(named.len(), ids.len());
        let passed: usize = lives.iter().map(|life| life.passages.iter().filter(|passage| passage.delivered.is_some()).count() + life.left_out as usize).sum();
        prop_assert_eq!(passed, deliveries);
        prop_assert_eq!(model.amqp.lives.totals.messages as usize, lives.len());
        prop_assert_eq!(model.amqp.lives.held(), 0);
    }
}

fn reached(ladder: &Ladder) -> Vec<Option<bool>> {
    ladder.rungs.iter().map(|step| step.reached).collect()
}

/// A master and its worker, up to the worker's import.
fn booted() -> Vec<Event> {
    let ready = "[INFO] Worker process is ready for action.\n";
    vec![
        at(100, MASTER, MASTER, exec(&["python", "-m", "dramatiq", "-p", "1", "minimal_worker"])),
        at(300_000, MASTER, MASTER, Body::Fork { child: Pid(WORKER) }),
        output(410_000, WORKER, OutputStream::Pipe, ready),
        output(410_500, MASTER, OutputStream::Stderr, ready),
    ]
}

#[test]
fn a_worker_climbs_and_each_rung_names_its_proof() {
    let mut events = booted();
    let mut worker = Wire::connect(&mut events, 420_000, 2, WORKER, THREAD);
    worker.open(&mut events, 430_000);
    worker.sent(&mut events, 440_000, &wire::declare("default"));
    worker.received(&mut events, 441_000, &wire::declare_ok("default", 1));
    worker.consume(&mut events, 442_000, "default", 4);
    worker.received(&mut events, 450_000, &deliver(1, "default", false, &body("default", "m", "")));
    let (model, _) = fold(&events);
    let all = ladders(&model);
    let [ladder] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!((ladder.pid.0, ladder.role), (WORKER, "worker"));
    let mut expected = [Some(true); 11];
    expected[Rung::Process as usize] = None;
    expected[Rung::Settle as usize] = Some(false);
    assert_eq!(reached(ladder), expected);
    for step in ladder.rungs.iter().filter(|step| step.reached == Some(true)) {
        let event = &events[usize::try_from(step.event.unwrap()).unwrap() - 1];
        assert_eq!(step.at_ns, Some(event.at_ns), "{step:?}");
    }
    worker.sent(&mut events, 410_000, &ack(1, false));
    let (model, _) = fold(&events);
    assert_eq!(reached(&ladders(&model)[0]), [Some(true); 11]);
    let json = serde_json::to_value(ladders(&model)).unwrap();
    assert_eq!(json[0]["rungs"][0]["rung"], "exec");
    assert!(json[0]["rungs"][0]["event"].is_u64());
}

#[test]
fn a_worker_nobody_answers_stands_before_connect() {
    let mut events = booted();
    events.extend((1..=3).map(|nth| connect(500_000 * nth, 70 + nth, 5672, 111)));
    let (model, _) = fold(&events);
    let ladder = &ladders(&model)[0];
    let steps = reached(ladder);
    assert_eq!(steps[..3], [Some(true); 3]);
    assert!(steps[3..].iter().all(|step| *step == Some(false)));
    let why = ladder.rungs[Rung::Connect as usize].why.as_deref().unwrap();
    assert!(why.starts_with("3 × 127.0.0.1:5672: ECONNREFUSED"), "{why}");
}

#[test]
fn what_may_have_been_lost_is_not_said_not_to_have_happened() {
    let mut events = booted();
    let lost = Body::Lost { hop: Hop::Ring, what: "stream".to_owned(), cpu: None, count: 3 };
    events.push(at(420_000, 0, 0, lost));
    let (model, _) = fold(&events);
    let steps = reached(&ladders(&model)[0]);
    assert!(steps[3..].iter().all(Option::is_none), "{steps:?}");
}

#[test]
fn a_master_without_workers_has_a_ladder_of_its_own() {
    let (model, _) = fold(&booted()[..1]);
    let all = ladders(&model);
    assert_eq!(all[0].role, "master");
    assert_eq!(reached(&all[0])[..2], [Some(true), Some(false)]);
}

#[test]
fn anything_that_speaks_amqp_has_a_ladder_from_connect_on() {
    let mut events = vec![at(100, SENDER, SENDER, exec(&["celery", "worker"]))];
    let mut wire = Wire::connect(&mut events, 1_000, 1, SENDER, SENDER);
    wire.open(&mut events, 2_000);
    let (model, _) = fold(&events);
    let ladder = &ladders(&model)[0];
    assert_eq!(ladder.role, "program");
    let steps = reached(ladder);
    assert_eq!(steps[..7], [Some(true), None, None, Some(true), Some(true), Some(true), Some(false)]);
}

#[test]
fn http_in_place_of_a_broker_is_named() {
    let mut events = booted();
    let mut wire = Wire::connect(&mut events, 1_000_000, 1, WORKER, THREAD);
    wire.sent(&mut events, 1_001_000, b"AMQP\0\0\x09\x01");
    wire.received(&mut events, 1_002_000, b"HTTP/1.1 400 Bad Request\r\nServer: Cowboy\r\n\r\n");
    let (model, _) = fold(&events);
    let steps = reached(&ladders(&model)[0]);
    assert_eq!(steps[3..5], [Some(true), Some(false)]);
}

#[test]
fn a_socket_number_used_again_is_another_connection() {
    let (mut events, _, mut worker) = pair();
    worker.received(&mut events, 10_000, &deliver(1, "default", false, &body("default", "m", "")));
    let socket =
        Body::Socket { socket: SocketId(2), fd: crate::event::Fd(9), family: 2, socket_type: 1, protocol: 0 };
    events.push(at(20_000, WORKER, THREAD, socket));
    let mut again = Wire::connect(&mut events, 21_000, 2, WORKER, THREAD);
    again.open(&mut events, 22_000);
    again.sent(&mut events, 30_000, &ack(1, false));
    let (model, lives) = fold(&events);
    assert_eq!(model.amqp.links().count(), 3);
    assert_eq!(lives[0].passages[0].settled.unwrap().how, Settled::Returned);
    assert_eq!(model.amqp.lives.totals.unknown_tags, 1);
}
