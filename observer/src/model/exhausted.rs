//! Descriptors that ran out: calls that failed because a process, or the machine, may have no more files open. Knows events; draws no
//! conclusions.

use std::collections::BTreeMap;

use super::mark::Mark;
use crate::event::{Body, Event, Pid};

/// Beyond so many processes new ones are not kept.
const MAX_PROCESSES: usize = 10_000;
/// `errno`: no descriptor left in the process, no file left in the system.
const EMFILE: i32 = 24;
const ENFILE: i32 = 23;

/// What one process could not open for want of descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted {
    /// The first call.
    pub first: Mark,
    /// The last.
    pub last: Mark,
    /// Sockets among them.
    pub sockets: u64,
    /// Files among them.
    pub files: u64,
    /// The last error number: EMFILE of the process, ENFILE of the machine.
    pub errno: i32,
}

/// By process.
#[derive(Clone, Debug, Default)]
pub struct Exhaustion {
    by_pid: BTreeMap<Pid, Exhausted>,
    made: BTreeMap<Pid, u64>,
}

impl Exhaustion {
    /// Every process that ran out.
    pub fn iter(&self) -> impl Iterator<Item = (Pid, &Exhausted)> {
        self.by_pid.iter().map(|(pid, exhausted)| (*pid, exhausted))
    }

    /// When a process last made a socket, in nanoseconds on `CLOCK_MONOTONIC`.
    pub fn last_socket_ns(&self, pid: Pid) -> Option<u64> {
        self.made.get(&pid).copied()
    }

    pub(super) fn add(&mut self, id: u64, event: &Event) {
        let (errno, is_socket) = match &event.body {
            Body::SocketFailed { errno, .. } => (*errno, true),
            Body::Open(call) => (call.errno, false),
            Body::Socket { .. } => {
                if self.made.len() < MAX_PROCESSES || self.made.contains_key(&event.pid) {
                    self.made.insert(event.pid, event.at_ns);
                }
                return;
            }
            _ => return,
        };
        if !matches!(errno, EMFILE | ENFILE)
            || (self.by_pid.len() >= MAX_PROCESSES && !self.by_pid.contains_key(&event.pid))
        {
            return;
        }
        let mark = Mark::new(id, event);
        let fresh = Exhausted { first: mark, last: mark, sockets: 0, files: 0, errno };
        let known = self.by_pid.entry(event.pid).or_insert(fresh);
        (known.last, known.errno) = (mark, errno);
        known.sockets += u64::from(is_socket);
        known.files += u64::from(!is_socket);
    }
}
