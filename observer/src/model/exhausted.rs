//! Descriptors that ran out: calls that failed because a process, or the machine, may have no more files open. Knows events; draws no
//! conclusions.

use std::collections::{BTreeMap, BTreeSet};

use super::mark::Mark;
use crate::event::{Body, Event, Pid, Tid};

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
    starved: BTreeSet<(Pid, Tid)>,
}

impl Exhaustion {
    /// Every process that ran out.
    pub fn iter(&self) -> impl Iterator<Item = (Pid, &Exhausted)> {
        self.by_pid.iter().map(|(pid, exhausted)| (*pid, exhausted))
    }

    /// Whether a thread of this process got no socket when it last asked for one.
    pub fn is_starved(&self, pid: Pid) -> bool {
        self.starved.range((pid, Tid(0))..=(pid, Tid(u32::MAX))).next().is_some()
    }

    pub(super) fn add(&mut self, id: u64, event: &Event) {
        let (errno, is_socket) = match &event.body {
            Body::SocketFailed { errno, .. } => (*errno, true),
            Body::Open(call) => (call.errno, false),
            Body::Socket { .. } => {
                self.starved.remove(&(event.pid, event.tid));
                return;
            }
            _ => return,
        };
        if !matches!(errno, EMFILE | ENFILE)
            || (self.by_pid.len() >= MAX_PROCESSES && !self.by_pid.contains_key(&event.pid))
        {
            return;
        }
        if is_socket && self.starved.len() < MAX_PROCESSES {
            self.starved.insert((event.pid, event.tid));
        }
        let mark = Mark::new(id, event);
        let fresh = Exhausted { first: mark, last: mark, sockets: 0, files: 0, errno };
        let known = self.by_pid.entry(event.pid).or_insert(fresh);
        (known.last, known.errno) = (mark, errno);
        known.sockets += u64::from(is_socket);
        known.files += u64::from(!is_socket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Fd, SocketId},
        model::fixture::at,
    };

    #[test]
    fn a_thread_without_a_socket_is_not_helped_by_one_of_another_thread() {
        let failed = |tid| at(10, 7, tid, Body::SocketFailed { family: 2, errno: EMFILE });
        let made = |tid| {
            let (socket, fd) = (SocketId(3), Fd(9));
            at(20, 7, tid, Body::Socket { socket, fd, family: 2, socket_type: 1, protocol: 6 })
        };
        let mut exhaustion = Exhaustion::default();
        exhaustion.add(1, &failed(8));
        exhaustion.add(2, &failed(9));
        exhaustion.add(3, &made(9));
        assert!(exhaustion.is_starved(Pid(7)));
        exhaustion.add(4, &made(8));
        assert!(!exhaustion.is_starved(Pid(7)));
        assert_eq!(exhaustion.iter().map(|(_, exhausted)| exhausted.sockets).collect::<Vec<_>>(), [2]);
    }
}
