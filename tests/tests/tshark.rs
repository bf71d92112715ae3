//! What was decoded from a process's reads and writes is what Wireshark decodes from the packets of the same connections.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

use std::collections::BTreeSet;
use std::process::Stdio;

use tests::observe::{State, said};
use tests::rabbit::Broker;
use tests::target;
use tests::tshark::{Capture, decoded};
use tests::venv::Venv;

const MESSAGES: usize = 40;

#[test]
fn tshark_lists_the_same_methods() {
    let venv = Venv::ensure().unwrap();
    let broker = Broker::start(&[]).unwrap();
    let state = State::new().unwrap();
    let capture = Capture::start(broker.port()).unwrap();
    let script = format!(
        "python send.py echo_worker:echo {MESSAGES} needle && python conversation.py && exec python -m dramatiq -p 1 -t 2 echo_worker"
    );
    let observer = state
        .attach(&[], &["sh", "-c", &script])
        .unwrap()
        .current_dir(target::folder())
        .env("PATH", venv.path())
        .env("BROKER_URL", broker.url())
        .env("ECHO_MESSAGES", MESSAGES.to_string())
        .stdout(Stdio::null())
        .output()
        .unwrap();
    assert!(observer.status.success(), "{}: {}", observer.status, said(&observer));
    let packets = capture.finish().unwrap();
    let recorded = decoded(&state.show(&["--amqp"]).unwrap()).unwrap();

    assert_eq!(
        recorded.keys().collect::<Vec<_>>(),
        packets.keys().collect::<Vec<_>>(),
        "the same connections"
    );
    for (port, theirs) in &packets {
        let ours = &recorded[port];
        assert_eq!(ours.client, theirs.client, "the client at port {port} said");
        assert_eq!(ours.server, theirs.server, "the server said to port {port}");
    }

    // And it was worth comparing.
    let all: Vec<&str> = packets
        .values()
        .flat_map(|conversation| conversation.client.iter().chain(&conversation.server))
        .map(String::as_str)
        .collect();
    let count = |name: &str| all.iter().filter(|method| **method == name).count();
    assert!(count("basic.publish") >= 2 * MESSAGES && count("basic.ack") >= 2 * MESSAGES, "{all:?}");
    let kinds: BTreeSet<&str> = all.iter().copied().collect();
    for kind in [
        "channel.close",
        "basic.return",
        "basic.nack",
        "basic.reject",
        "basic.get-empty",
        "exchange.declare-ok",
    ] {
        assert!(kinds.contains(kind), "{kind}: {kinds:?}");
    }
}
