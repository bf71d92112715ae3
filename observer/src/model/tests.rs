//! What the fold must get right.

use super::{
    Model,
    fixture::{MASTER, STARTED_NS, WORKER, at, connect, events, inet, open, output},
};
use crate::event::{Body, Disconnect, Event, Fd, Known, OutputStream, Pid, SocketId, Tid};

fn fold(events: &[Event]) -> Model {
    Model::fold(STARTED_NS, events)
}

#[test]
fn the_process_tree_knows_who_started_and_who_killed_whom() {
    let model = fold(&events());
    let worker = model.processes.get(Pid(WORKER)).unwrap();
    assert_eq!(worker.parent, Some(Pid(MASTER)));
    assert_eq!(worker.forked_at_ns, Some(STARTED_NS + 300_000_000));
    assert!(worker.execs.is_empty(), "it runs its parent's program");
    let exit = worker.exit.as_ref().unwrap();
    assert_eq!((exit.code, exit.signal), (None, Some(9)));
    assert_eq!(exit.by.as_ref().unwrap().pid, Pid(999));
    let roots: Vec<_> = model.processes.roots().map(|process| process.pid).collect();
    assert_eq!(roots, [Pid(MASTER)], "the shell that started it is not observed");
}

#[test]
fn a_process_id_used_again_is_another_process() {
    let exit =
        |since_us| at(since_us, 20, 20, Body::Exit { code: Some(0), signal: None, core_dumped: false });
    let fork = |since_us| at(since_us, 10, 10, Body::Fork { child: Pid(20) });
    let model = fold(&[fork(1), exit(2), fork(3)]);
    assert_eq!(model.processes.children(Pid(10)).count(), 2);
    assert!(model.processes.get(Pid(20)).unwrap().alive());
}

#[test]
fn a_process_stays_stopped_until_it_runs_again() {
    let state = |since_us, state| at(since_us, 10, 10, Body::State { state });
    let stopped = fold(&[state(1, 'T'), state(2, 'T')]);
    let process = stopped.processes.get(Pid(10)).unwrap();
    assert_eq!((process.stopped.map(|mark| mark.at_ns), process.stops), (Some(STARTED_NS + 1_000), 1));
    let resumed = fold(&[state(1, 'T'), state(2, 'R')]);
    assert_eq!(resumed.processes.get(Pid(10)).unwrap().stopped, None);
}

#[test]
fn imports_are_the_modules_opened_each_once() {
    let model = fold(&events());
    let worker = &model.files.imports[&Pid(WORKER)];
    assert_eq!(worker.own.keys().collect::<Vec<_>>(), ["/app/minimal_worker.py", "/app/settings.py"]);
    assert_eq!(
        worker.packages.iter().map(|(name, count)| (name.as_str(), *count)).collect::<Vec<_>>(),
        [("pika", 2)]
    );
    let master = &model.files.imports[&Pid(MASTER)];
    assert_eq!((master.own.len(), master.stdlib, master.packages["dramatiq"]), (0, 1, 1));
}

#[test]
fn a_file_written_is_not_imported() {
    let mut written = open(1, WORKER, "/app/generated.py", Ok(3));
    if let Body::Open(call) = &mut written.body {
        call.flags = 0o101;
    }
    assert!(fold(&[written]).files.imports.is_empty());
}

#[test]
fn what_does_not_exist_is_counted_and_what_is_refused_is_named() {
    let model = fold(&events());
    assert_eq!((model.files.missing[&Pid(MASTER)], model.files.missing[&Pid(WORKER)]), (1, 1));
    let refused: Vec<_> = model.files.refused.keys().cloned().collect();
    assert_eq!(refused, [("/etc/shadow".to_owned(), 13)]);
}

#[test]
fn connections_know_their_result_and_end() {
    let model = fold(&events());
    let broker = |connection: &&crate::model::connection::Connection| connection.peer == inet(5672);
    let results: Vec<_> =
        model.connections.iter().filter(broker).map(|connection| connection.result).collect();
    assert_eq!(results, [Some(111), Some(111), Some(0)]);
    let amqp = model.connections.iter().find(|connection| connection.is_amqp).unwrap();
    assert_eq!((amqp.pid, amqp.sent_bytes, amqp.received_bytes), (Pid(WORKER), 8, 12));
    assert_eq!(amqp.end.unwrap().how, Disconnect::ResetByUs);
    assert_eq!(amqp.established_after_ns, Some(200_000));
}

#[test]
fn both_ends_of_a_wakeup_pair_are_a_loop_and_nothing_else_is() {
    let model = fold(&events());
    let loops: Vec<_> = model
        .connections
        .iter()
        .filter(|connection| model.connections.is_own_loop(connection))
        .map(|connection| connection.socket.0)
        .collect();
    assert_eq!(loops, [51, 52]);
}

#[test]
fn one_socket_may_try_more_than_once() {
    let model = fold(&[connect(1_000, 60, 5672, 111), connect(2_000, 60, 5673, 0)]);
    assert_eq!(model.connections.iter().count(), 2);
}

#[test]
fn an_attempt_settled_before_its_call_returns_is_one_attempt() {
    for errno in [0, 111] {
        let socket = SocketId(60);
        let (peer, local) = (inet(5672), inet(51_000));
        // An interrupt's, in a process that has nothing to do with it.
        let settled = at(990, 1, 1, Body::Connected { socket, peer, local, errno, duration_ns: 70_000 });
        let model = fold(&[settled, connect(1_000, 60, 5672, if errno == 0 { 115 } else { errno })]);
        let all: Vec<_> = model.connections.iter().collect();
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].pid, all[0].result), (Pid(WORKER), Some(errno)));
    }
}

#[test]
fn asking_again_for_the_result_is_no_attempt() {
    let model = fold(&[connect(1_000, 60, 5672, 0), connect(9_000, 60, 5672, 106)]);
    assert_eq!(model.connections.iter().map(|connection| connection.result).collect::<Vec<_>>(), [Some(0)]);
}

#[test]
fn a_datagram_socket_reaches_nobody() {
    let socket = SocketId(60);
    let made =
        at(1, WORKER, WORKER, Body::Socket { socket, fd: Fd(9), family: 2, socket_type: 2, protocol: 17 });
    assert!(
        fold(&[made, connect(100, 60, 5672, 0)]).connections.iter().all(|connection| connection.is_datagram)
    );
}

#[test]
fn a_descriptor_closed_by_another_process_ends_nothing() {
    let close = |pid| at(5, pid, pid, Body::Close { socket: SocketId(60), fd: Fd(9) });
    assert!(!fold(&[connect(1, 60, 5672, 0), close(MASTER)]).connections.iter().next().unwrap().closed);
    assert!(fold(&[connect(1, 60, 5672, 0), close(WORKER)]).connections.iter().next().unwrap().closed);
}

#[test]
fn connections_are_bounded_and_keep_the_latest() {
    let mut model = Model::new(STARTED_NS);
    for socket in 0..10_500 {
        model.add(socket + 1, &connect(socket, socket, 5672, 111));
    }
    assert_eq!((model.connections.iter().count(), model.connections.left_out), (10_000, 500));
    assert_eq!(model.connections.iter().last().unwrap().socket, SocketId(10_499));
}

#[test]
fn a_relayed_line_stands_once_as_the_workers() {
    let model = fold(&events());
    let tail: Vec<_> =
        model.outputs.tail().map(|line| (line.pid.0, line.bytes.starts_with(b"[INFO]"))).collect();
    assert_eq!(tail, [(WORKER, true), (WORKER, false), (MASTER, false)]);
}

#[test]
fn lines_are_joined_across_writes_and_bounded() {
    let piece = |since_us, text: &str| output(since_us, MASTER, OutputStream::Stdout, text);
    let long = "x".repeat(1_000);
    let mut written = vec![piece(1, "be"), piece(2, "gin\nrest"), piece(3, &long), piece(4, "\n")];
    written.extend((0..100).map(|n| piece(5 + n, &format!("{n}\n"))));
    let model = fold(&written[..4]);
    let (_, _, stream) = model.outputs.iter().next().unwrap();
    assert_eq!(stream.last[0], b"begin");
    assert_eq!(stream.last[1].len(), 400);
    assert_eq!((stream.lines, stream.bytes), (2, 11 + 1_000));
    let model = fold(&written);
    let (_, _, stream) = model.outputs.iter().next().unwrap();
    assert_eq!((stream.lines, stream.last.len(), model.outputs.tail().count()), (102, 20, 20));
}

#[test]
fn a_thread_is_stuck_until_it_returns_or_ends() {
    let stuck = |tid| {
        let on = Known::unknown();
        at(
            10,
            WORKER,
            tid,
            Body::Stuck { syscall: "futex".to_owned(), since_ns: STARTED_NS, on, args: [0; 6] },
        )
    };
    let unstuck = at(
        20,
        WORKER,
        1,
        Body::Unstuck { syscall: "futex".to_owned(), since_ns: STARTED_NS, result: Known::Is(0) },
    );
    let gone = at(20, WORKER, 2, Body::ThreadExit { code: Some(0), signal: None });
    let model = fold(&[stuck(1), stuck(2), stuck(3), unstuck, gone]);
    assert_eq!(model.troubles.stuck().iter().map(|thread| thread.tid).collect::<Vec<_>>(), [Tid(3)]);
    let waits = model.troubles.waits[&(Pid(WORKER), "futex".to_owned())];
    assert_eq!((waits.count, waits.longest_ns), (1, 20_000));
    let all = fold(&events());
    assert!(all.troubles.stuck().is_empty(), "the process of the one that was stuck is gone");
    assert_eq!(all.troubles.lost(), 12);
}
