//! What was decoded from a process's reads and writes is what Wireshark decodes from the packets of the same connections.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;

use serde_json::Value;
use tests::observe::{State, said};
use tests::rabbit::Broker;
use tests::target;
use tests::tshark::{Capture, Conversation};
use tests::venv::Venv;

const MESSAGES: usize = 40;

/// What the session says was said, by the client's port.
fn recorded(shown: &Value) -> BTreeMap<u16, Conversation> {
    let ports: BTreeMap<u64, u16> = shown["connections"]
        .as_array()
        .unwrap()
        .iter()
        .map(|connection| {
            let port = connection["local"]["port"].as_u64().unwrap();
            (connection["connection"].as_u64().unwrap(), u16::try_from(port).unwrap())
        })
        .collect();
    let mut said: Vec<&Value> = shown["said"].as_array().unwrap().iter().collect();
    // A message is told when it is whole, and another channel may come between: by its first byte it stands where its method does.
    said.sort_by_key(|said| said["start"].as_u64().unwrap());
    let mut found = BTreeMap::<u16, Conversation>::new();
    for said in said {
        let name = said["name"].as_str().unwrap().to_owned();
        // No methods: of both witnesses only those are compared.
        if matches!(name.as_str(), "protocol-header" | "heartbeat") {
            continue;
        }
        let conversation = found.entry(ports[&said["connection"].as_u64().unwrap()]).or_default();
        match said["side"].as_str().unwrap() {
            "client" => conversation.client.push(name),
            "server" => conversation.server.push(name),
            side => panic!("{side}"),
        }
    }
    found
}

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
    let recorded = recorded(&state.show(&["--amqp"]).unwrap());

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
