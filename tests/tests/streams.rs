//! What went over the wire is what was recorded, byte for byte, but for the password.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use tests::observe::{Event, State, said};
use tests::proxy::Proxy;
use tests::rabbit::Broker;
use tests::streams::{Stream, assemble};
use tests::venv::Venv;
use tests::{deadline, target};

const LIMIT: Duration = Duration::from_secs(60);
const PASSWORD: &str = "Rotkehlchen-7719-Zaunkoenig";
const ALL: &[&str] = &["--snaplen", "1048576", "--bodies"];

/// A broker with a user whose password is easily recognised.
fn broker() -> Broker {
    let broker = Broker::start(&[]).unwrap();
    broker.ctl(&["add_user", "observed", PASSWORD]).unwrap();
    broker.ctl(&["set_permissions", "observed", ".*", ".*", ".*"]).unwrap();
    broker
}

/// Runs a command to its good end, recorded, against the broker behind a new proxy.
fn observed(broker: &Broker, options: &[&str], words: &[&str]) -> (State, Proxy) {
    let proxy = Proxy::start(([127, 0, 0, 1], broker.port()).into()).unwrap();
    let state = State::new().unwrap();
    let output = state
        .attach(options, words)
        .unwrap()
        .current_dir(target::folder())
        .env("BROKER_URL", format!("amqp://observed:{PASSWORD}@{}", proxy.address()))
        .env("ECHO_MESSAGES", "50")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}: {}", output.status, said(&output));
    assert_eq!(state.lost().unwrap(), BTreeMap::new());
    (state, proxy)
}

fn worker(broker: &Broker, options: &[&str]) -> (State, Proxy) {
    let venv = Venv::ensure().unwrap();
    let sent = Command::new(venv.python())
        .args(["send_sizes.py", "echo_worker:echo", "50", "307200"])
        .current_dir(target::folder())
        .env("BROKER_URL", broker.url())
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(sent.success());
    let python = venv.python();
    observed(
        broker,
        options,
        &[python.to_str().unwrap(), "-m", "dramatiq", "-p", "1", "-t", "2", "echo_worker"],
    )
}

/// The recorded streams of every connection through the proxy beside what the proxy saw of it, to the server and to the client.
/// They are found by the client's port.
fn connections(state: &State, proxy: &Proxy) -> Vec<[(Stream, Vec<u8>); 2]> {
    let seen = deadline::until("every connection has ended", LIMIT, || {
        let seen = proxy.recorded();
        seen.iter().all(|record| record.closed).then_some(seen)
    });
    let events = state.events(&["connected", "data"]).unwrap();
    let streams = assemble(&events).unwrap();
    let sockets: BTreeMap<i64, i64> = events
        .iter()
        .filter(|event| event.kind == "connected" && event.int("errno") == Some(0))
        .filter(|event| event.data["peer"]["port"] == proxy.address().port())
        .map(|event| (event.data["local"]["port"].as_i64().unwrap(), event.int("socket").unwrap()))
        .collect();
    assert_eq!(sockets.len(), seen.len());
    let of =
        |socket, direction: &str| streams.get(&(socket, direction.to_owned())).cloned().unwrap_or_default();
    seen.into_iter()
        .map(|record| {
            let socket = sockets[&i64::from(record.client.port())];
            [(of(socket, "sent"), record.to_server), (of(socket, "received"), record.to_client)]
        })
        .collect()
}

/// Checks every byte that was kept of every connection, and that what was blanked is the password, whole and alone.
fn same_but_for_the_password(connections: &[[(Stream, Vec<u8>); 2]]) {
    for [(sent, to_server), (received, to_client)] in connections {
        assert_eq!(sent.differs_from(to_server), None);
        assert_eq!(received.differs_from(to_client), None);
        let blanked: Vec<&[u8]> = sent.redacted.iter().map(|range| &to_server[range.clone()]).collect();
        assert_eq!(blanked, [PASSWORD.as_bytes()]);
        assert!(received.redacted.is_empty());
    }
}

fn never_kept(state: &State) {
    let raw = state.raw().unwrap();
    let has = |text: &[u8]| raw.windows(text.len()).any(|bytes| bytes == text);
    assert!(has(b"observed"), "what was searched is not the session");
    assert!(!has(PASSWORD.as_bytes()));
    // A value in SQLite may be split between two pages, but not both halves of it.
    assert!(!has(&PASSWORD.as_bytes()[..14]) && !has(&PASSWORD.as_bytes()[14..]));
}

fn kept_whole(connections: &[[(Stream, Vec<u8>); 2]]) -> bool {
    connections.iter().flatten().all(|(stream, _)| stream.missing.is_empty())
}

#[test]
fn a_worker_and_its_broker_are_recorded_byte_for_byte() {
    let broker = broker();
    let (state, proxy) = worker(&broker, ALL);
    let whole = connections(&state, &proxy);
    // Two queues and their delay queues, each with a connection to declare and one to consume, and one that publishes.
    assert!(whole.len() >= 9, "{}", whole.len());
    same_but_for_the_password(&whole);
    assert!(kept_whole(&whole));
    never_kept(&state);
    let longest = whole.iter().flatten().flat_map(|(stream, _)| &stream.calls).map(|(_, len)| *len).max();
    assert!(longest > Some(65_536), "no call was long enough to be cut by default: {longest:?}");

    // With the default a long call is cut, and says so: what is there is right, and where it stands in the stream too.
    let (state, proxy) = worker(&broker, &["--bodies"]);
    let cut = connections(&state, &proxy);
    same_but_for_the_password(&cut);
    assert!(!kept_whole(&cut));
    never_kept(&state);
    for (stream, _) in cut.iter().flatten() {
        let long = stream.calls.iter().filter(|(_, len)| *len > 65_536);
        let missing: usize = long.map(|(_, len)| len - 65_536).sum();
        assert_eq!(stream.missing.iter().map(ExactSizeIterator::len).sum::<usize>(), missing);
    }
}

#[test]
fn a_script_that_uses_pika_alone_is_recorded_byte_for_byte() {
    let broker = broker();
    let python = Venv::ensure().unwrap().python();
    let (state, proxy) = observed(&broker, ALL, &[python.to_str().unwrap(), "pika_script.py"]);
    let connections = connections(&state, &proxy);
    assert_eq!(connections.len(), 1);
    same_but_for_the_password(&connections);
    assert!(kept_whole(&connections));
    never_kept(&state);
}

/// A whole Connection.Start, as far as anyone here reads it, and then noise that repeats only after a long while.
fn answer(len: usize) -> Vec<u8> {
    let mut bytes = vec![1, 0, 0, 0, 0, 0, 4, 0, 10, 0, 10, 0xce];
    let mut state = 1_u32;
    bytes.resize_with(len, || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    bytes
}

#[test]
fn every_call_that_moves_bytes_moves_them_in_one_stream() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = answer(250_000);
    let server = thread::spawn({
        let answer = answer.clone();
        move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut got = Vec::new();
            while !got.ends_with(b"go\xce") {
                let mut buffer = [0; 65_536];
                let len = client.read(&mut buffer).unwrap();
                assert!(len > 0, "the client left early");
                got.extend(&buffer[..len]);
            }
            client.write_all(&answer).unwrap();
            client.shutdown(std::net::Shutdown::Write).unwrap();
            client.read_to_end(&mut got).unwrap();
            got
        }
    });
    let venv = Venv::ensure().unwrap();
    let state = State::new().unwrap();
    let port_text = port.to_string();
    let python = venv.python();
    let script = target::folder().join("socket_calls.py");
    let words = [python.to_str().unwrap(), script.to_str().unwrap(), &port_text];
    let output = state.attach(ALL, &words).unwrap().output().unwrap();
    assert!(output.status.success(), "{}: {}", output.status, said(&output));
    let to_server = server.join().unwrap();
    assert_eq!(state.lost().unwrap(), BTreeMap::new());

    let events = state.events(&["data"]).unwrap();
    let streams = assemble(&events).unwrap();
    assert_eq!(streams.len(), 2, "one socket, two directions: {:?}", streams.keys());
    let of = |wanted: &str| streams.iter().find(|((_, direction), _)| direction == wanted).unwrap().1;
    let (sent, received) = (of("sent"), of("received"));
    assert_eq!(sent.differs_from(&to_server), None);
    assert_eq!(received.differs_from(&answer), None);
    assert!(sent.redacted.is_empty() && received.redacted.is_empty());

    // Only what was in no buffer of the program is missing, and its length is right.
    let missing = |syscalls: &[&str], direction: &str| -> i64 {
        let without: Vec<&Event> = events
            .iter()
            .filter(|event| event.text("direction") == Some(direction) && event.bytes.is_empty())
            .filter(|event| event.int("len") != Some(0))
            .collect();
        assert!(
            without.iter().all(|event| syscalls.contains(&event.text("syscall").unwrap())),
            "{without:?}"
        );
        without.iter().map(|event| event.int("len").unwrap()).sum()
    };
    assert_eq!(missing(&["sendfile", "splice"], "sent"), 35_000);
    assert_eq!(missing(&["splice"], "received"), 5_000);
    let calls =
        |stream: &Stream| -> BTreeSet<String> { stream.calls.iter().map(|(name, _)| name.clone()).collect() };
    let names =
        |names: &[&str]| -> BTreeSet<String> { names.iter().map(|name| (*name).to_owned()).collect() };
    assert_eq!(calls(sent), names(&["sendfile", "sendmsg", "sendto", "splice", "write", "writev"]));
    assert_eq!(calls(received), names(&["read", "readv", "recvfrom", "recvmsg", "splice"]));

    let fds: BTreeSet<i64> = events.iter().filter_map(|event| event.int("fd")).collect();
    assert!(fds.len() == 3 && fds.contains(&200), "the same stream under three descriptors: {fds:?}");
    let pids: BTreeSet<u32> = events.iter().map(|event| event.pid).collect();
    assert_eq!(pids.len(), 3, "and in three processes");
    let last = events.iter().rfind(|event| event.text("direction") == Some("received")).unwrap();
    assert_eq!((last.int("len"), last.int("errno")), (Some(0), Some(0)), "the end of the stream");
}
