//! What the service asks of the one source in the kernel. A trait, so that what is done with its events can be tried without a kernel.

use std::{collections::HashSet, time::Duration};

use super::settings::Rule;
use crate::{
    capability::Description,
    event::{Event, Exec, Pid},
    source::{
        Source as _, SourceError,
        ebpf::{Ebpf, ProgramFacts},
    },
};

/// The source of all events.
pub(super) trait Kernel: Send {
    /// What it is and what it cannot see.
    fn describe(&self) -> Description;
    /// Replaces the rules by which a program that is executed is followed from then on. A rule is known by its place, from 1.
    fn watch(&mut self, rules: &[Rule]) -> Result<(), SourceError>;
    /// Follows a process of `owner` that is about to execute its command, and all it will start.
    fn follow(&mut self, pid: Pid, owner: u32) -> Result<(), SourceError>;
    /// Takes a running process of `owner` and its descendants; what they are is told as events, but for those in `known`.
    fn adopt(&mut self, pid: Pid, owner: u32, known: &HashSet<Pid>) -> Result<Vec<Pid>, SourceError>;
    /// Lets go of a process.
    fn forget(&mut self, pid: Pid);
    /// Waits for events and appends them.
    fn poll(&mut self, wait: Duration, room: usize, out: &mut Vec<Event>) -> Result<(), SourceError>;
    /// What the kernel holds of the programs.
    fn facts(&self) -> Vec<ProgramFacts>;
}

/// The rule by which a program that was executed came to be followed; `None` when it is a child of one that was.
pub(super) const fn rule_of(_exec: &Exec) -> Option<u32> {
    None
}

/// Whether the kernel lets its own user look into the program.
pub(super) const fn is_dumpable(_exec: &Exec) -> bool {
    true
}

/// The systemd unit that a cgroup belongs to: the last component of its path that is named like one.
pub(super) fn unit_of(_exec: &Exec) -> Option<String> {
    None
}
