//! The eBPF source: what happens in a process tree, told by the kernel as it happens.
#![expect(unsafe_code, reason = "aya asks for a promise about the types that cross into the kernel")]

mod btf;
mod decode;
mod imports;
mod programs;
mod rings;
mod rules;
mod tracked;

use std::{
    collections::HashMap,
    os::fd::{AsRawFd, BorrowedFd},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout};
use observer_ebpf::kind;
pub use programs::ProgramFacts;
use programs::{Plain, Programs};
pub use rules::ExecRule;

use super::{
    Flow, Source, SourceError,
    call::{self, AMQP_PORT, NAME_SERVER_PORT, waits_on},
    proc,
};
use crate::{
    capability::Description,
    event::{Body, Event, Hop, NoteLevel, Origin, Pid, Tid},
    python::installed::Start,
};

const VITAL_SIZE: u32 = 2 * 1024 * 1024;
const BULK_SIZE: u32 = 8 * 1024 * 1024;
/// How often threads are looked over for calls that do not return, and processes for being stopped.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const STUCK_NS: u64 = 1_000_000_000;
/// Import statements in a look that say nothing new: more are not worth what it costs to hear of them, some microseconds each.
const REPEATS_A_LOOK: u64 = 1_000;
/// Largest and default number of bytes kept of one call.
pub const SNAPLEN_MAX: u64 = (observer_ebpf::CHUNK * observer_ebpf::DATA_CHUNKS) as u64;

/// Has the kernel count how often every program of the machine runs, and how long, while the descriptor is held. Needs CAP_SYS_ADMIN.
///
/// # Errors
/// When the kernel refuses.
pub fn count_runs() -> std::io::Result<std::os::fd::OwnedFd> {
    aya::sys::enable_stats(aya::sys::Stats::RunTime).map_err(std::io::Error::other)
}

/// Records a process tree.
pub struct Ebpf {
    programs: Programs,
    decoder: decode::Decoder,
    pending: rings::Pending,
    /// Events made here rather than in the kernel, for the next poll.
    own: Vec<Event>,
    lost: HashMap<(u32, usize), u64>,
    looked: Instant,
    stuck: HashMap<u32, u64>,
    states: HashMap<u32, char>,
    pipes: proc::PipeHolders,
    interpreters: imports::Interpreters,
    last_facts: Arc<OnceLock<Vec<ProgramFacts>>>,
}

impl Ebpf {
    /// Loads the programs. Nothing is recorded until [`Ebpf::follow`] or [`Ebpf::attach`].
    ///
    /// `ports` are those of known brokers: their connections are recorded whatever they speak. 5672 always is one.
    ///
    /// # Errors
    /// When the kernel refuses a program, lacks BTF, or we lack the right; the text says which.
    pub fn load(snaplen: u64, ports: &[u16]) -> Result<Self, SourceError> {
        let mut programs = Programs::load(snaplen.min(SNAPLEN_MAX))?;
        for port in ports.iter().chain([&AMQP_PORT, &NAME_SERVER_PORT]) {
            programs.ports.insert(port, 1, 0).map_err(|answer| SourceError {
                attempted: format!("cannot enter broker port {port}"),
                answer: answer.to_string(),
                next: String::new(),
            })?;
        }
        Ok(Self {
            programs,
            decoder: decode::Decoder::default(),
            pending: rings::Pending::default(),
            own: Vec::new(),
            lost: HashMap::new(),
            looked: Instant::now(),
            stuck: HashMap::new(),
            states: HashMap::new(),
            pipes: proc::PipeHolders::default(),
            interpreters: imports::Interpreters::default(),
            last_facts: Arc::default(),
        })
    }

    /// Probes the interpreters a command may start, so that nothing of their imports is missed. What cannot be probed is told when it runs.
    pub fn expect(&mut self, start: &Start) {
        self.interpreters.expect(&mut self.programs, start);
    }

    /// What the kernel holds of our programs.
    pub fn facts(&self) -> Vec<ProgramFacts> {
        self.programs.facts()
    }

    /// Where [`Source::finish`] will leave the same: by then the source belongs to somebody else.
    pub fn last_facts(&self) -> Arc<OnceLock<Vec<ProgramFacts>>> {
        Arc::clone(&self.last_facts)
    }

    fn hand_out(&mut self, until_ns: u64, out: &mut Vec<Event>) {
        let from = out.len();
        out.append(&mut self.own);
        let decoder = &mut self.decoder;
        self.pending.take(until_ns, |record| decoder.record(record, out));
        decoder.give_up(until_ns, out);
        for event in out.get(from..).unwrap_or_default() {
            if let Body::Exec(exec) = &event.body
                && let Some(interpreter) = self.interpreters.started(&mut self.programs, event, exec)
            {
                self.own.push(interpreter);
            }
        }
        out.append(&mut self.own);
        let at_ns = proc::monotonic_ns();
        for (what, count) in decoder.undecodable.drain() {
            out.push(lost(at_ns, Hop::Decode, what, None, count));
        }
        self.count_losses(at_ns, out);
    }

    /// Losses since the last look, per processor and kind.
    fn count_losses(&mut self, at_ns: u64, out: &mut Vec<Event>) {
        let Ok(processors) = self.programs.lost.get(&0, 0) else { return };
        for (cpu, counts) in processors.iter().enumerate() {
            for (index, count) in counts.iter().enumerate().take(kind::COUNT) {
                let before = self.lost.entry((cpu as u32, index)).or_default();
                let new = count.saturating_sub(*before);
                *before = *count;
                if new > 0 {
                    let hop = match index as u16 {
                        kind::TABLE => Hop::KernelTable,
                        kind::RULE => Hop::Rules,
                        _ => Hop::Ring,
                    };
                    out.push(lost(at_ns, hop, kind::NAMES[index], Some(cpu as u32), new));
                }
            }
        }
    }

    /// A program that imports in a hot function would pay for it each time: it is asked no more.
    fn look_at_imports(&mut self, now: u64) {
        if self.decoder.repeated_imports() > REPEATS_A_LOOK && self.programs.forget_calls() {
            let text =
                "a hot function has import statements: those of loaded modules are not recorded from here on";
            let body = Body::Note { level: NoteLevel::Info, text: text.to_owned() };
            self.own.push(own_event(now, Pid(0), Tid(0), body));
        }
    }

    /// Threads that sit in a call, processes that are stopped.
    fn look_over(&mut self) {
        self.look_for_idleness();
        let now = proc::monotonic_ns();
        self.look_at_imports(now);
        let mut stuck = HashMap::new();
        for (tid, thread) in self.programs.threads.iter().flatten() {
            let Plain(thread) = thread;
            if thread.nr == -1 || thread.armed != 0 || now.saturating_sub(thread.enter_ns) < STUCK_NS {
                continue;
            }
            stuck.insert(tid, thread.enter_ns);
            if self.stuck.get(&tid) == Some(&thread.enter_ns) {
                continue;
            }
            let (Some((nr, args)), Some(pid)) = (proc::current_call(tid), proc::process_of(tid)) else {
                continue;
            };
            if thread.nr >= 0 && nr != thread.nr as u32 {
                continue;
            }
            let body = Body::Stuck {
                syscall: call::name(nr),
                since_ns: thread.enter_ns,
                on: waits_on(tid, nr, &args),
                args,
            };
            self.own.push(own_event(now, Pid(pid), Tid(tid), body));
        }
        self.stuck = stuck;
        let mut states = HashMap::new();
        for pid in self.programs.processes.keys().flatten() {
            let Some(state) = proc::state(pid) else { continue };
            let stopped = |state: char| matches!(state, 'T' | 't');
            let before = self.states.get(&pid).copied().unwrap_or('R');
            if stopped(state) != stopped(before) {
                self.own.push(own_event(now, Pid(pid), Tid(pid), Body::State { state }));
            }
            states.insert(pid, state);
        }
        self.states = states;
    }
}

fn own_event(at_ns: u64, pid: Pid, tid: Tid, body: Body) -> Event {
    Event { at_ns, pid, tid, observed_from: Origin::Proc, body, bytes: Vec::new() }
}

fn lost(at_ns: u64, hop: Hop, what: &str, cpu: Option<u32>, count: u64) -> Event {
    let body = Body::Lost { hop, what: what.to_owned(), cpu, count };
    Event { at_ns, pid: Pid(0), tid: Tid(0), observed_from: Origin::Observer, body, bytes: Vec::new() }
}

fn full(id: u32, answer: &dyn std::error::Error) -> SourceError {
    SourceError {
        attempted: format!("cannot follow {id}"),
        answer: answer.to_string(),
        next: "the table of tracked processes may be full: attach to a smaller tree".into(),
    }
}

impl Source for Ebpf {
    fn describe(&self) -> Description {
        Description { name: "ebpf".into(), unseen: call::UNSEEN.map(String::from).to_vec() }
    }

    fn poll(&mut self, wait: Duration, room: usize, out: &mut Vec<Event>) -> Result<Flow, SourceError> {
        let timeout = PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX);
        // SAFETY: the descriptors live as long as `self.programs`, which outlives this call.
        let fds = unsafe {
            [
                BorrowedFd::borrow_raw(self.programs.vital.as_raw_fd()),
                BorrowedFd::borrow_raw(self.programs.bulk.as_raw_fd()),
            ]
        };
        let mut waiting = [PollFd::new(fds[0], PollFlags::POLLIN), PollFd::new(fds[1], PollFlags::POLLIN)];
        // The kernel wakes us when a ring is half full; otherwise we come round by ourselves. An interrupted wait is no failure.
        let _ = nix::poll::poll(&mut waiting, timeout);
        if self.looked.elapsed() >= LOOK_EVERY {
            self.looked = Instant::now();
            self.look_over();
        }
        let until_ns = proc::monotonic_ns();
        self.pending.drain(&mut self.programs.vital, usize::MAX);
        let room = room.saturating_sub(self.pending.len());
        self.pending.drain(&mut self.programs.bulk, room);
        self.hand_out(until_ns, out);
        Ok(Flow::More)
    }

    fn finish(&mut self, out: &mut Vec<Event>) {
        while self.pending.drain(&mut self.programs.vital, usize::MAX) {}
        while self.pending.drain(&mut self.programs.bulk, usize::MAX) {}
        self.hand_out(u64::MAX, out);
        let _ = self.last_facts.set(self.programs.facts());
    }
}
