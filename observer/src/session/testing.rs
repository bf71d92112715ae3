//! What tests of sessions share.

use super::{Header, Invoker, Recorder, Redactor, StateDir};
use crate::{
    capability::Description,
    capability::{Capability, State},
    event::{Body, Event, Origin, Pid, Tid},
};

pub(crate) const STARTED_NS: u64 = 1_000_000_000;

pub(crate) fn state_dir() -> (tempfile::TempDir, StateDir) {
    let scratch = tempfile::tempdir().unwrap();
    let dir = StateDir::open(Some(&scratch.path().join("state")), &Invoker::current()).unwrap();
    (scratch, dir)
}

pub(crate) fn header(id: &str, name: &str) -> Header {
    Header {
        id: id.into(),
        name: name.into(),
        command: ["python", "-m", "dramatiq", name].map(String::from).to_vec(),
        attached: None,
        backend: "ebpf".into(),
        started_at: "2026-01-01T00:00:00Z".into(),
        started_ns: STARTED_NS,
        observer_version: "0.0.0".into(),
        host: "host".into(),
        kernel: "6.1.0".into(),
        snaplen: 4096,
        sources: vec![Description { name: "ebpf".into(), unseen: vec!["io_uring".into()] }],
        capabilities: vec![Capability {
            name: "btf".into(),
            state: State::Works,
            found: "/sys/kernel/btf/vmlinux".into(),
            lost: String::new(),
            remedy: String::new(),
        }],
    }
}

pub(crate) fn event(at_ns: u64, body: Body) -> Event {
    Event { at_ns, pid: Pid(10), tid: Tid(11), observed_from: Origin::Ebpf, body, bytes: Vec::new() }
}

/// A recorder to which these events were given.
pub(crate) fn record(dir: &StateDir, header: Header, events: Vec<Event>) -> Recorder {
    let mut recorder = Recorder::create(dir, header, Redactor::open(dir).unwrap()).unwrap();
    recorder.append(events, None);
    recorder.commit();
    recorder
}
