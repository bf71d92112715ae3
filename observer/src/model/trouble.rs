//! What disturbed the processes or the recording: signals, threads that sit still, losses, notes. Knows events; draws no conclusions.

use std::collections::{BTreeMap, HashMap};

use crate::event::{Body, EVICTED_ESSENTIAL, Event, Hop, NoteLevel, Pid, Sender, Tid};

/// Signals told apart by receiver, number and sender.
const MAX_SIGNALS: usize = 500;
/// ERESTARTSYS, the first of the kernel's own results for a call that a signal broke off (`include/linux/errno.h`).
const FIRST_RESTART: i64 = -512;
/// Threads followed while they sit in a call, and kinds of past waits kept.
const MAX_STUCK: usize = 20_000;
const MAX_WAITS: usize = 500;
/// Notes kept.
const MAX_NOTES: usize = 50;
/// Gaps kept, the first.
const MAX_GAPS: usize = 50;

/// Signals of one number from one sender to one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signals {
    /// The process they were sent to.
    pub to: Pid,
    /// The signal's number.
    pub signal: i32,
    /// Who sent them; `None`: the kernel, or it is not known.
    pub sender: Option<Sender>,
    /// How many.
    pub count: u64,
    /// When the first was sent.
    pub first_ns: u64,
    /// When the last was sent.
    pub last_ns: u64,
    /// The event of the first.
    pub event: u64,
}

/// A thread that sits in a system call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StuckThread {
    /// Its process.
    pub pid: Pid,
    /// The thread.
    pub tid: Tid,
    /// The call's name.
    pub syscall: String,
    /// When it entered.
    pub since_ns: u64,
    /// What it waits on, when that is known.
    pub on: Option<String>,
    /// The call's arguments.
    pub args: [u64; 6],
    /// The event that says so.
    pub event: u64,
}

/// Waits of more than a second that came to an end, of one process in one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// How many.
    pub count: u64,
    /// The longest, in nanoseconds.
    pub longest_ns: u64,
}

/// A time in which nobody watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The last moment before it of which something is known, in nanoseconds on `CLOCK_MONOTONIC`.
    pub since_ns: u64,
    /// When somebody watched again.
    pub until_ns: u64,
    /// Processes that ended meanwhile.
    pub gone: Vec<Pid>,
    /// Why nobody watched.
    pub why: String,
}

/// The time of which the flight recorder kept only what it always keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evicted {
    /// When the last event before it was.
    pub since_ns: u64,
    /// When the last event was that made room.
    pub until_ns: u64,
    /// How many made room.
    pub count: u64,
    /// How many of these were of the kinds that are always kept: beyond their own room even they make place.
    pub essential: u64,
}

impl Evicted {
    /// Whether a moment is in it.
    pub const fn covers(&self, at_ns: u64) -> bool {
        self.since_ns < at_ns && at_ns <= self.until_ns
    }
}

/// All that is known of trouble.
#[derive(Clone, Debug, Default)]
pub struct Troubles {
    signals: Vec<Signals>,
    /// Signals that are not among the others because there were too many kinds of them.
    pub signals_left_out: u64,
    stuck: HashMap<Tid, StuckThread>,
    /// Threads whose call was broken off to be restarted, and when: what a signal that kills does first.
    broken_off: HashMap<Tid, (StuckThread, u64)>,
    /// Threads that sat in a call until they ended, and when that was.
    died: Vec<(StuckThread, u64)>,
    /// Waits that ended, by process and call.
    pub waits: BTreeMap<(Pid, String), Waits>,
    losses: HashMap<(Hop, String), u64>,
    gaps: Vec<Gap>,
    /// Gaps that are not among the others because there were too many.
    pub gaps_left_out: u64,
    evicted: Option<Evicted>,
    /// When the last event was that the flight recorder would not have kept for itself.
    ordinary_ns: u64,
    notes: Vec<(NoteLevel, String, u64)>,
}

impl Troubles {
    /// Signals that were sent, in order of their first.
    pub fn signals(&self) -> &[Signals] {
        &self.signals
    }

    /// Threads that still sat in a call at the end, longest first.
    pub fn stuck(&self) -> Vec<&StuckThread> {
        let mut threads: Vec<_> = self.stuck.values().collect();
        threads.sort_by_key(|thread| (thread.since_ns, thread.tid));
        threads
    }

    /// Threads that sat in a call to the end of the recording or to their own, and until when, longest first.
    pub fn stuck_to_the_end(&self, ended_ns: u64) -> Vec<(&StuckThread, u64)> {
        let living = self.stuck.values().map(|thread| (thread, ended_ns));
        let mut threads: Vec<_> =
            living.chain(self.died.iter().map(|(thread, until_ns)| (thread, *until_ns))).collect();
        threads.sort_by_key(|(thread, _)| (thread.since_ns, thread.tid));
        threads
    }

    fn dead(&mut self, thread: StuckThread, at_ns: u64) {
        if self.died.len() < MAX_WAITS {
            self.died.push((thread, at_ns));
        }
    }

    /// Events that were lost, by hop and kind of record, most first.
    pub fn losses(&self) -> Vec<(Hop, &str, u64)> {
        let mut losses: Vec<_> =
            self.losses.iter().map(|((hop, what), count)| (*hop, what.as_str(), *count)).collect();
        losses.sort_by(|a, b| b.2.cmp(&a.2).then_with(|| a.1.cmp(b.1)));
        losses
    }

    /// How many events were lost.
    pub fn lost(&self) -> u64 {
        self.losses.values().sum()
    }

    /// The times in which nobody watched, in order. Each counts as one loss.
    pub fn gaps(&self) -> &[Gap] {
        &self.gaps
    }

    /// What the flight recorder's ring let go of; `None`: it kept all.
    pub const fn evicted(&self) -> Option<Evicted> {
        self.evicted
    }

    /// What the observer had to say about the recording, each with how often it said so.
    pub fn notes(&self) -> &[(NoteLevel, String, u64)] {
        &self.notes
    }

    pub(super) fn add(&mut self, id: u64, event: &Event) {
        if !event.body.is_essential() {
            self.ordinary_ns = self.ordinary_ns.max(event.at_ns);
        }
        match &event.body {
            Body::Signal { signal, sender, .. } => self.signal(id, event, *signal, sender.get()),
            Body::Stuck { syscall, since_ns, on, args }
                if self.stuck.len() < MAX_STUCK || self.stuck.contains_key(&event.tid) =>
            {
                let thread = StuckThread {
                    pid: event.pid,
                    tid: event.tid,
                    syscall: syscall.clone(),
                    since_ns: *since_ns,
                    on: on.get().cloned(),
                    args: *args,
                    event: id,
                };
                self.broken_off.remove(&event.tid);
                self.stuck.insert(event.tid, thread);
            }
            Body::Unstuck { syscall, since_ns, result } => {
                let thread = self.stuck.remove(&event.tid);
                let kept = |_: &StuckThread| {
                    result.get().is_some_and(|result| *result <= FIRST_RESTART)
                        && self.broken_off.len() < MAX_STUCK
                };
                if let Some(thread) = thread.filter(kept) {
                    self.broken_off.insert(event.tid, (thread, event.at_ns));
                }
                let key = (event.pid, syscall.clone());
                if self.waits.len() < MAX_WAITS || self.waits.contains_key(&key) {
                    let waits = self.waits.entry(key).or_default();
                    waits.count += 1;
                    waits.longest_ns = waits.longest_ns.max(event.at_ns.saturating_sub(*since_ns));
                }
            }
            Body::ThreadExit { .. } => {
                let broken = self.broken_off.remove(&event.tid).map(|(thread, _)| thread);
                if let Some(thread) = self.stuck.remove(&event.tid).or(broken) {
                    self.dead(thread, event.at_ns);
                }
            }
            Body::Exit { .. } => {
                let stuck =
                    self.stuck.extract_if(|_, thread| thread.pid == event.pid).map(|(_, thread)| thread);
                let broken = self.broken_off.extract_if(|_, (thread, _)| thread.pid == event.pid);
                let gone: Vec<StuckThread> = stuck.chain(broken.map(|(_, (thread, _))| thread)).collect();
                gone.into_iter().for_each(|thread| self.dead(thread, event.at_ns));
            }
            Body::Lost { hop, what, count, .. } => {
                *self.losses.entry((*hop, what.clone())).or_default() += count;
                if *hop == Hop::Evicted {
                    self.evict(event.at_ns, what, *count);
                }
            }
            Body::Gap { since_ns, gone, why } => {
                *self.losses.entry((Hop::Unwatched, "gap".to_owned())).or_default() += 1;
                self.forget_stuck();
                if self.gaps.len() < MAX_GAPS {
                    let (since_ns, until_ns) = (*since_ns, event.at_ns);
                    self.gaps.push(Gap { since_ns, until_ns, gone: gone.clone(), why: why.clone() });
                } else {
                    self.gaps_left_out += 1;
                }
            }
            Body::Note { level, text } => {
                if let Some((_, _, count)) =
                    self.notes.iter_mut().find(|note| note.0 == *level && note.1 == *text)
                {
                    *count += 1;
                } else if self.notes.len() < MAX_NOTES {
                    self.notes.push((*level, text.clone(), 1));
                }
            }
            _ => {}
        }
    }

    fn evict(&mut self, at_ns: u64, what: &str, count: u64) {
        let since_ns = self.ordinary_ns;
        let evicted =
            self.evicted.get_or_insert(Evicted { since_ns, until_ns: at_ns, count: 0, essential: 0 });
        evicted.until_ns = evicted.until_ns.max(at_ns);
        evicted.count += count;
        if what == EVICTED_ESSENTIAL {
            evicted.essential += count;
        }
        self.forget_stuck();
    }

    /// Who sat in a call before a time of which nothing is known may have left it meanwhile.
    fn forget_stuck(&mut self) {
        self.stuck.clear();
        self.broken_off.clear();
    }

    fn signal(&mut self, id: u64, event: &Event, signal: i32, sender: Option<&Sender>) {
        let same = |known: &&mut Signals| {
            known.to == event.pid
                && known.signal == signal
                && known.sender.as_ref().map(|sender| sender.pid) == sender.map(|sender| sender.pid)
        };
        if let Some(known) = self.signals.iter_mut().find(same) {
            known.count += 1;
            known.last_ns = event.at_ns;
        } else if self.signals.len() < MAX_SIGNALS {
            self.signals.push(Signals {
                to: event.pid,
                signal,
                sender: sender.cloned(),
                count: 1,
                first_ns: event.at_ns,
                last_ns: event.at_ns,
                event: id,
            });
        } else {
            self.signals_left_out += 1;
        }
    }
}
