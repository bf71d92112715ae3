//! Where events come from. A source knows the machine or the broker it looks at; it knows nothing of sessions, models or terminals.

pub mod broker;
mod call;
pub mod ebpf;
mod interpreter;
pub mod launch;
pub mod nearby;
mod peer;
pub mod probe;
pub mod proc;
pub mod ptrace;

use std::time::Duration;

use crate::{capability::Description, event::Event};

/// Whether a source has more to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Ask again.
    More,
    /// Nothing will come any more.
    End,
}

/// A place where events come from.
///
/// A source is pulled: whoever owns it calls [`Source::poll`] from one thread until it answers [`Flow::End`]. What a source cannot
/// deliver it counts, and reports as [`crate::event::Body::Lost`] events among the others.
pub trait Source: Send {
    /// What this source is and what it cannot see.
    fn describe(&self) -> Description;

    /// Waits up to `wait` and appends what has happened since the last call to `out`, in order of time.
    ///
    /// `room` is how many more events the receiver takes for now. A source may keep the rest where it is (a kernel's ring, a file on
    /// disk), but events that must not be lost (exec, exit, fork, connect) come regardless.
    ///
    /// # Errors
    /// When nothing more can be had from this source; what was appended before is valid.
    fn poll(&mut self, wait: Duration, room: usize, out: &mut Vec<Event>) -> Result<Flow, SourceError>;

    /// Appends all that is left, however young or incomplete. Called once, last.
    fn finish(&mut self, out: &mut Vec<Event>);
}

/// Why a source failed: what was attempted, on what, what the system answered, what to do next.
#[derive(Debug, thiserror::Error)]
#[error("{attempted}: {answer}{}{next}", if next.is_empty() { "" } else { "; " })]
pub struct SourceError {
    /// What was attempted, and on what.
    pub attempted: String,
    /// What the system answered.
    pub answer: String,
    /// What to do next; may be empty.
    pub next: String,
}

/// Lets everybody else's threads come before the calling one: what is observed must not wait for what is written of it. What has to keep
/// up with the kernel is not to step back.
pub(crate) fn step_back() {
    const NICE: i32 = 10;
    // Of a thread, on Linux (setpriority(2), "C library/kernel differences"). A kernel that refuses costs only time.
    let _ = rustix::process::setpriority_process(None, NICE);
}
