//! The same of recorded sessions of failures: cut conversations, refusals, other protocols at the broker's port.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};

use serde_json::Value;
use tests::observe::said;
use tests::scenario::fixture::{self, Fixture};
use tests::{target, tshark};

/// The first of every family.
pub(super) fn first_of_each() -> Vec<Fixture> {
    let (fixtures, _) = fixture::all(&fixture::folder()).unwrap();
    let mut families = BTreeSet::new();
    let family = |fixture: &Fixture| fixture.scenario.name.split('/').next().unwrap().to_owned();
    fixtures.into_iter().filter(|fixture| families.insert(family(fixture))).collect()
}

fn observer(words: &[&str]) -> Vec<u8> {
    let output = Command::new(target::observer().unwrap()).args(words).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", said(&output));
    output.stdout
}

#[test]
fn every_kind_of_failure_can_be_exported_and_is_read_by_others() {
    let mut methods = 0;
    for fixture in first_of_each() {
        let name = &fixture.scenario.name;
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        let session = path("session.sqlite");
        fixture.unpack(session.as_ref()).unwrap();
        let shown = observer(&["show", &session, "--amqp", "--format", "json"]);
        let shown: Value = serde_json::from_slice(&shown).unwrap();
        for format in ["html", "jsonl", "markdown", "pcapng", "perfetto"] {
            observer(&["export", &session, "--format", format, "-o", &path(format)]);
        }
        super::read_by("perfetto_trace.py", &[path("perfetto").as_ref()]);
        let pandas = super::read_by_pandas(path("jsonl").as_ref());
        assert!(pandas["said"].as_u64().unwrap() > 0, "{name}");
        let odd = |said: &Value| {
            ["not-amqp", "malformed", "unknown-method"].iter().any(|odd| said["name"] == **odd)
        };
        let connections = shown["connections"].as_array().unwrap();
        let ports: BTreeSet<u64> =
            connections.iter().filter_map(|one| one["peer"]["port"].as_u64()).collect();
        let Some(port) = ports.first().filter(|_| ports.len() == 1) else { continue };
        let port = u16::try_from(*port).unwrap();
        let packets = path("pcapng");
        let ours = tshark::decoded(&shown).unwrap();
        let theirs = tshark::dissect(packets.as_ref(), port).unwrap();
        methods += ours.values().map(|said| said.client.len() + said.server.len()).sum::<usize>();
        assert_eq!(ours, theirs, "{name}");
        if !shown["said"].as_array().unwrap().iter().any(odd) {
            assert_eq!(tshark::read(packets.as_ref(), port, &["-Y", "_ws.malformed"]).unwrap(), "", "{name}");
        }
    }
    assert!(methods > 300, "{methods} methods were compared");
}
