//! What dramatiq said in words that are known: support for what is concluded from facts, never its only ground. Knows output; the words are
//! in `dramatiq.rs`.

use std::collections::BTreeMap;

use super::{
    dramatiq::{REMARKS, Remark},
    mark::Mark,
};
use crate::event::{Body, Event, Pid};

/// Processes and remarks told apart.
const MAX_KEPT: usize = 10_000;

/// One remark of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said {
    /// The first time.
    pub first: Mark,
    /// The last time.
    pub last: Mark,
    /// How often.
    pub count: u64,
}

/// All remarks.
#[derive(Clone, Debug, Default)]
pub struct Remarks {
    said: BTreeMap<(Pid, Remark), Said>,
}

impl Remarks {
    /// Whether, and when, a process said something. A master relays what its workers say: ask for the worker.
    pub fn of(&self, pid: Pid, remark: Remark) -> Option<&Said> {
        self.said.get(&(pid, remark))
    }

    pub(super) fn add(&mut self, id: u64, event: &Event) {
        if !matches!(event.body, Body::Output { errno: 0, .. }) {
            return;
        }
        for (remark, words) in REMARKS {
            if memchr::memmem::find(&event.bytes, words).is_none() {
                continue;
            }
            let mark = Mark::new(id, event);
            let key = (event.pid, remark);
            if self.said.len() < MAX_KEPT || self.said.contains_key(&key) {
                let said = self.said.entry(key).or_insert(Said { first: mark, last: mark, count: 0 });
                said.last = mark;
                said.count += 1;
            }
        }
    }
}
