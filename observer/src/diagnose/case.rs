//! What a rule looks at: one session's model, and the questions every rule asks of it. Draws no conclusions.

use super::finding::{Evidence, Subject};
use crate::{
    event::{EVICTED_ESSENTIAL, Hop, Known, Pid, Tid},
    model::{
        Model,
        dramatiq::{self, Role},
        ladder::{self, Ladder, Rung, Step},
        link::Link,
        mark::Mark,
        process::Process,
        reconcile::Reconciliation,
    },
    session::{Ending, Header},
    words::{self, units},
};

/// Kinds of events on whose completeness a conclusion may rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Look-ups and opens of files.
    Files,
    /// Sockets and what went over them.
    Streams,
    /// What processes wrote.
    Output,
    /// Processes, programs, signals, exits.
    Processes,
}

/// One session, ready to be looked at.
#[derive(Debug)]
pub struct Case<'a> {
    /// What is known of the session.
    pub header: &'a Header,
    /// How it ended; `None` when it was cut short or still goes on.
    pub ending: Option<&'a Ending>,
    /// What happened.
    pub model: &'a Model,
    /// How far each process came: workers, masters without workers, whatever else speaks AMQP.
    pub ladders: Vec<Ladder>,
    /// The broker's account beside ours; `None` when the broker was not asked or did not answer.
    pub both: Option<Reconciliation>,
}

impl<'a> Case<'a> {
    /// Makes a model ready. It has been finished.
    pub fn new(header: &'a Header, ending: Option<&'a Ending>, model: &'a Model) -> Self {
        Self { header, ending, model, ladders: ladder::ladders(model), both: Reconciliation::of(model) }
    }

    /// The part a process plays.
    pub fn role(&self, pid: Pid) -> Role {
        dramatiq::role(&self.model.processes, pid)
    }

    /// A process as the subject of a finding.
    pub fn subject(&self, pid: Pid) -> Subject {
        Subject { pid, role: self.role(pid).name() }
    }

    /// Processes that play this part, in the order they were first heard of.
    pub fn with_role(&self, role: Role) -> impl Iterator<Item = &'a Process> {
        self.model.processes.iter().filter(move |process| self.role(process.pid) == role)
    }

    /// Workers of dramatiq.
    pub fn workers(&self) -> impl Iterator<Item = &'a Process> {
        self.with_role(Role::Worker)
    }

    /// Parents of workers: `python -m dramatiq`.
    pub fn masters(&self) -> impl Iterator<Item = &'a Process> {
        self.with_role(Role::Master)
    }

    /// The process the observation began with: the command, or what was attached to.
    pub fn root(&self) -> Option<&'a Process> {
        self.model.processes.roots().next()
    }

    /// The workers of one master, in order.
    pub fn workers_of(&self, master: Pid) -> impl Iterator<Item = &'a Process> {
        self.model.processes.children(master).filter(|child| self.role(child.pid) == Role::Worker)
    }

    /// A rung of a process.
    pub fn step(&self, pid: Pid, rung: Rung) -> Option<&Step> {
        let ladder = self.ladders.iter().find(|ladder| ladder.pid == pid)?;
        ladder.rungs.iter().find(|step| step.rung == rung)
    }

    /// Whether a process reached a rung; `None`: it cannot be told, or the process has no ladder.
    pub fn reached(&self, pid: Pid, rung: Rung) -> Option<bool> {
        self.step(pid, rung)?.reached
    }

    /// The AMQP connections that a process made, in order of time.
    pub fn links(&self, pid: Pid) -> impl Iterator<Item = &'a Link> {
        self.model.amqp.links().filter(move |link| link.opened.pid == pid && !link.accepted)
    }

    /// The event that proves a rung, as evidence.
    pub fn rung_evidence(&self, pid: Pid, rung: Rung, text: &str) -> Option<Evidence> {
        let step = self.step(pid, rung)?;
        let mark = Mark { event: step.event?, at_ns: step.at_ns?, pid, tid: Tid(0) };
        Some(Evidence::new(mark, text))
    }

    /// When the observation ended, in nanoseconds on `CLOCK_MONOTONIC`.
    pub fn ended_ns(&self) -> u64 {
        self.ending.map_or(self.model.last_ns, |ending| ending.ended_ns)
    }

    /// A moment, as people read it: `at +1.25 s`.
    pub fn about(&self, at_ns: u64) -> String {
        units::about(at_ns, self.model.started_ns)
    }

    /// The command line a process runs, as one would type it; its parent's when it has run none of its own.
    pub fn command(&self, pid: Pid) -> Option<String> {
        self.argv(pid).map(words::command)
    }

    /// The arguments of the program a process runs; those of its parent when it has run none of its own.
    pub fn argv(&self, pid: Pid) -> Option<&'a [String]> {
        let mut process = self.model.processes.get(pid)?;
        // A chain of forks without exec is short; a circle, from reused ids, would have no end.
        for _ in 0..16 {
            if let Some(program) = process.program() {
                return program.argv.get().map(Vec::as_slice);
            }
            process = self.model.processes.get(process.parent?)?;
        }
        None
    }

    /// A variable of the environment a process was started with: `None` when it is not set, or the environment is not known.
    pub fn variable(&self, pid: Pid, name: &str) -> Option<&'a str> {
        self.environment(pid)?.iter().find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }

    /// The environment of the program a process runs, as `NAME=value`; its parent's when it has run none of its own.
    pub fn environment(&self, pid: Pid) -> Option<&'a [String]> {
        let mut process = self.model.processes.get(pid)?;
        for _ in 0..16 {
            if let Some(program) = process.program() {
                return program.details.as_ref().and_then(|exec| exec.env.get()).map(Vec::as_slice);
            }
            process = self.model.processes.get(process.parent?)?;
        }
        None
    }

    /// The directory a process was started in.
    pub fn cwd(&self, pid: Pid) -> Option<&'a str> {
        let mut process = self.model.processes.get(pid)?;
        for _ in 0..16 {
            if let Some(program) = process.program() {
                return match &program.cwd {
                    Known::Absent { .. } => None,
                    cwd => cwd.get().map(String::as_str),
                };
            }
            process = self.model.processes.get(process.parent?)?;
        }
        None
    }

    /// How many events of a kind were lost. Where a hop does not say which kind it lost, they count for every kind.
    ///
    /// What made room in the flight recorder's ring counts only where it can matter. What processes and connections began and ended with is
    /// kept beyond it (`Body::is_essential`); so for a process whose beginning is in what was kept of the beginning, and whose end, if it
    /// came, is in what was kept of the latest past, all that a conclusion about either needs is there. It counts where a process began or
    /// ended in the part that is gone, and where even essential events had to go.
    pub fn lost(&self, kind: Kind) -> u64 {
        let evicted = self.model.troubles.evicted();
        let inside = evicted.is_some_and(|evicted| self.model.began_or_ended_in(&evicted));
        let is_of = |hop: Hop, what: &str| match what {
            EVICTED_ESSENTIAL if hop == Hop::Evicted => true,
            _ if hop == Hop::Evicted => kind != Kind::Processes && inside,
            _ if matches!(hop, Hop::KernelTable) => true,
            // Of a program that is in no session.
            _ if matches!(hop, Hop::Rules) => false,
            "file" | "open" | "stat" | "access" | "readlink" | "scan" | "chdir" => kind == Kind::Files,
            "output" => kind == Kind::Output,
            "data" | "stream" | "connect" | "connected" | "socket" | "close" | "disconnect" => {
                kind == Kind::Streams
            }
            "fork" | "exec" | "exit" | "signal" | "thread" => kind == Kind::Processes,
            _ => true,
        };
        let losses = self.model.troubles.losses();
        losses.into_iter().filter(|(hop, what, _)| is_of(*hop, what)).map(|(_, _, count)| count).sum()
    }

    /// `base`, lowered when events of a kind that the conclusion needs to be complete were lost: "not observed" is never "did not
    /// happen".
    pub fn confidence(&self, base: f64, rests_on: &[Kind]) -> f64 {
        let lost = rests_on.iter().any(|kind| self.lost(*kind) > 0);
        if lost { base * 0.6 } else { base }
    }
}
