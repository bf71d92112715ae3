//! Signals: who sent which to whom, and in which thread it took effect. Knows events; draws no conclusions. Signals that steer nothing
//! (a child's end, a window's size, urgent data) are left out.

use std::collections::BTreeMap;

use super::mark::Mark;
use crate::event::{Body, Event, Pid, Sender};

/// Processes whose signals are kept.
const MAX_PROCESSES: usize = 10_000;
/// Of one process so many are kept, the first half and the latest half.
const MAX_OF_PROCESS: usize = 32;
/// SIGURG, SIGWINCH, SIGCHLD.
const IDLE: [i32; 3] = [23, 28, 17];

/// A signal that was queued for a process or one of its threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// When, and the process and thread it was for.
    pub mark: Mark,
    /// Its number.
    pub signal: i32,
    /// `si_code`: 0 for `kill`, negative for other senders in user space, positive for the kernel.
    pub code: i32,
    /// Who sent it; `None`: the kernel, or it could not be read.
    pub sender: Option<Sender>,
}

/// A signal that took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// When, and in which thread.
    pub mark: Mark,
    /// Its number.
    pub signal: i32,
    /// Whether a handler of the program ran; otherwise the default action was taken.
    pub handled: bool,
}

/// The signals of every process.
#[derive(Clone, Debug, Default)]
pub struct Signals {
    sent: BTreeMap<Pid, Vec<Sent>>,
    taken: BTreeMap<Pid, Vec<Taken>>,
}

impl Signals {
    /// What was queued for a process, in order of time. One that was ignored, or pending already, is not among them.
    pub fn sent(&self, pid: Pid) -> &[Sent] {
        self.sent.get(&pid).map_or(&[], Vec::as_slice)
    }

    /// What took effect in a process, in order of time.
    pub fn taken(&self, pid: Pid) -> &[Taken] {
        self.taken.get(&pid).map_or(&[], Vec::as_slice)
    }

    pub(super) fn add(&mut self, id: u64, event: &Event) {
        let mark = Mark::new(id, event);
        match &event.body {
            Body::Signal { signal, code, sender, queued: true, .. } if !IDLE.contains(signal) => {
                let (signal, code, sender) = (*signal, *code, sender.get().cloned());
                push(&mut self.sent, event.pid, Sent { mark, signal, code, sender });
            }
            Body::SignalDelivered { signal, handled } if !IDLE.contains(signal) => {
                push(&mut self.taken, event.pid, Taken { mark, signal: *signal, handled: *handled });
            }
            // The id of a process that is gone was given to a new one.
            Body::Fork { child } => {
                self.sent.remove(child);
                self.taken.remove(child);
            }
            _ => {}
        }
    }
}

fn push<T>(all: &mut BTreeMap<Pid, Vec<T>>, pid: Pid, item: T) {
    if !all.contains_key(&pid) && all.len() >= MAX_PROCESSES {
        return;
    }
    let of = all.entry(pid).or_default();
    if of.len() >= MAX_OF_PROCESS {
        of.remove(MAX_OF_PROCESS / 2);
    }
    of.push(item);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::Known,
        model::fixture::{WORKER, at},
    };

    #[test]
    fn the_first_and_the_last_are_kept() {
        let mut signals = Signals::default();
        for (id, signal) in (0..200).zip((1..).filter(|number| !IDLE.contains(number))) {
            let body = Body::Signal { signal, code: 0, sender: Known::unknown(), group: true, queued: true };
            signals.add(id, &at(id, WORKER, WORKER, body));
        }
        let sent = signals.sent(Pid(WORKER));
        assert_eq!(sent.len(), MAX_OF_PROCESS);
        assert_eq!(sent.first().map(|sent| sent.mark.event), Some(0));
        assert_eq!(sent.last().map(|sent| sent.mark.event), Some(199));
    }
}
