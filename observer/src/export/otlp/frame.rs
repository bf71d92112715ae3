//! What is a session's own: its identifiers and its clock. Knows a session's header; nothing of what spans and logs say.
//!
//! An identifier is made of the session and of what it names, and of nothing else: what is sent twice has the same identifiers.

use sha2::{Digest, Sha256};

use crate::{event::Pid, export::started_at_ns, model::process::Process, session::Header};

/// Which span of one way of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Send,
    Process,
    Settle,
}

/// A session's identifiers and clock.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    session: Sha256,
    started_ns: u64,
    started_at_ns: u64,
}

impl Frame {
    pub(super) fn new(header: &Header) -> Self {
        let mut session = Sha256::new();
        for part in [header.id.as_str(), &header.host] {
            session.update((part.len() as u64).to_le_bytes());
            session.update(part);
        }
        session.update(header.started_ns.to_le_bytes());
        Self { session, started_ns: header.started_ns, started_at_ns: started_at_ns(header) }
    }

    /// A moment of the monotonic clock in nanoseconds since 1970.
    pub(super) fn unix_ns(&self, at_ns: u64) -> u64 {
        if at_ns >= self.started_ns {
            self.started_at_ns.saturating_add(at_ns - self.started_ns)
        } else {
            self.started_at_ns.saturating_sub(self.started_ns - at_ns)
        }
    }

    fn id(&self, what: &str, numbers: &[u64], len: usize) -> Vec<u8> {
        let mut hash = self.session.clone();
        hash.update(what);
        numbers.iter().for_each(|number| hash.update(number.to_le_bytes()));
        hash.finalize().into_iter().take(len).collect()
    }

    /// The trace of the session and its processes.
    pub(super) fn trace(&self) -> Vec<u8> {
        self.id("trace", &[], 16)
    }

    /// The span of the session itself.
    pub(super) fn session(&self) -> Vec<u8> {
        self.id("session", &[], 8)
    }

    /// The span of a process. A number that the kernel gave again is another process by the time it was first seen.
    pub(super) fn process(&self, process: &Process) -> Vec<u8> {
        let (Pid(pid), first_ns) = key(process);
        self.id("process", &[pid.into(), first_ns], 8)
    }

    /// The span of an import, by the event that told of it first.
    pub(super) fn import(&self, event: u64) -> Vec<u8> {
        self.id("import", &[event], 8)
    }

    /// The trace of a message.
    pub(super) fn message_trace(&self, number: u64) -> Vec<u8> {
        self.id("message trace", &[number], 16)
    }

    /// The span of a message's whole life.
    pub(super) fn message(&self, number: u64) -> Vec<u8> {
        self.id("message", &[number], 8)
    }

    /// A span of one of its ways through a queue.
    pub(super) fn step(&self, number: u64, passage: u64, step: Step) -> Vec<u8> {
        self.id("step", &[number, passage, step as u64], 8)
    }
}

/// What tells a process from every other of its session.
pub(super) fn key(process: &Process) -> (Pid, u64) {
    (process.pid, process.first_seen_ns)
}
