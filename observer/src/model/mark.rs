//! Which event proves a thing, and when and where it happened. Knows events only.

use serde::Serialize;

use crate::event::{Event, Pid, Tid};

/// When something was done, by whom, and the event that proves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Mark {
    /// The event's id.
    pub event: u64,
    /// When, in nanoseconds on `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// In which process.
    pub pid: Pid,
    /// In which thread.
    pub tid: Tid,
}

impl Mark {
    /// The mark of an event.
    pub const fn new(id: u64, event: &Event) -> Self {
        Self { event: id, at_ns: event.at_ns, pid: event.pid, tid: event.tid }
    }
}
