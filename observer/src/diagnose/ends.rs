//! How processes ended, and who wanted it: what the rules of exits share. Follows a signal back to whoever sent the first one; concludes
//! nothing by itself.

use super::case::Case;
use crate::{
    event::{Pid, Sender},
    model::{dramatiq::Role, ladder::Rung, mark::Mark, process::Process, signals::Sent},
    words,
};

pub(super) const SIGHUP: i32 = 1;
pub(super) const SIGINT: i32 = 2;
pub(super) const SIGKILL: i32 = 9;
pub(super) const SIGTERM: i32 = 15;
/// What asks a program to end or to begin anew, and dramatiq obeys (2.2, `cli.py`, `HANDLED_SIGNALS`).
const REQUESTS: [i32; 3] = [SIGTERM, SIGINT, SIGHUP];
/// What a program does to itself: SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGSYS.
const FAULTS: [i32; 7] = [4, 5, 6, 7, 8, 11, 31];
/// `si_code` of a signal the kernel made, and of a timer.
const SI_KERNEL: i32 = 0x80;

/// Whom a signal goes back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By<'a> {
    /// The observer: its own `--for`, or what was sent to it and it passed on.
    Observer,
    /// A key of the terminal: Ctrl-C.
    Key,
    /// The kernel.
    Kernel,
    /// A process.
    Process(&'a Sender),
    /// The master, or what started it, because something else had ended first.
    Aftermath,
    /// Somebody who was not seen.
    Unknown,
}

/// A signal, and whom it goes back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked<'a> {
    pub(super) signal: i32,
    /// The sending that came first.
    pub(super) mark: Option<Mark>,
    pub(super) by: By<'a>,
}

/// Why a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End<'a> {
    /// The kernel's out-of-memory killer.
    OutOfMemory(Mark),
    /// A fault of its own.
    Crash {
        /// The signal.
        signal: i32,
        /// Where it took effect.
        taken: Option<Mark>,
    },
    /// A signal that is no request.
    Killed(Asked<'a>),
    /// It was asked to, and did.
    Obeyed(Asked<'a>),
    /// It was asked to, and was killed before it had.
    Forced {
        /// The request.
        asked: Asked<'a>,
        /// The signal that ended it.
        killed: Asked<'a>,
    },
    /// Of its own accord, with this status.
    Own(i32),
    /// Because another process had ended first.
    Aftermath,
    /// The status is not known.
    Unknown,
}

/// The processes whose end matters: masters and workers of dramatiq, and what else speaks AMQP; the first process where there is neither.
pub(super) fn that_matter<'a>(case: &Case<'a>) -> Vec<&'a Process> {
    let matters = |process: &&Process| match case.role(process.pid) {
        Role::Master | Role::Worker => true,
        Role::Fork => false,
        Role::Program => case.links(process.pid).next().is_some(),
    };
    let found: Vec<&Process> = case.model.processes.iter().filter(matters).collect();
    if found.is_empty() { case.root().into_iter().collect() } else { found }
}

/// Why a process ended; `None` while it lives.
pub(super) fn end<'a>(case: &Case<'a>, process: &'a Process) -> Option<End<'a>> {
    let exit = process.exit.as_ref()?;
    if let Some(mark) = process.oom_victim
        && exit.signal.is_none_or(|signal| signal == SIGKILL)
    {
        return Some(End::OutOfMemory(mark));
    }
    let asked = asked(case, process);
    let Some(signal) = exit.signal else {
        let Some(code) = exit.code else { return Some(End::Unknown) };
        return Some(match asked {
            Some(asked) if asked.by == By::Aftermath => End::Aftermath,
            Some(asked) => End::Obeyed(asked),
            None if follows_its_workers(case, process) => End::Aftermath,
            None => End::Own(code),
        });
    };
    let sent = last_sent(case, process.pid, signal);
    let killed = Asked {
        signal,
        mark: sent.map(|sent| sent.mark),
        by: sent.map_or(By::Unknown, |sent| by(case, process, sent)),
    };
    if REQUESTS.contains(&signal) {
        return Some(match (killed.by, asked) {
            (By::Aftermath, _) => End::Aftermath,
            (_, Some(asked)) => End::Obeyed(asked),
            (_, None) => End::Obeyed(killed),
        });
    }
    if FAULTS.contains(&signal) && !is_from_another(process, sent) {
        let taken = case.model.signals.taken(process.pid).iter().rev();
        let taken = taken.clone().find(|taken| taken.signal == signal).map(|taken| taken.mark);
        return Some(End::Crash { signal, taken });
    }
    Some(match asked {
        Some(asked) if asked.by == By::Aftermath => End::Aftermath,
        Some(asked) if asked.signal != signal => End::Forced { asked, killed },
        // Who asks a tree to end and then kills what has not, as a service manager does, has not made it fail.
        None if tree_was_asked_before(case, killed.mark.map_or(exit.at_ns, |sent| sent.at_ns)) => {
            End::Aftermath
        }
        // The observer kills only what it has asked before.
        _ if killed.by == By::Observer => End::Obeyed(killed),
        _ => End::Killed(killed),
    })
}

/// Whether the observer's own first process, or a master, was asked to end before a moment.
fn tree_was_asked_before(case: &Case<'_>, at_ns: u64) -> bool {
    case.root().into_iter().chain(case.masters()).any(|process| {
        let requests = case.model.signals.sent(process.pid).iter();
        let mut before = requests.filter(|sent| REQUESTS.contains(&sent.signal) && sent.mark.at_ns < at_ns);
        before.any(|sent| sent.signal != SIGHUP && sent.mark.at_ns + PATIENCE_NS > at_ns)
    })
}

/// What asks before it kills waits so long at the most (systemd: `TimeoutStopSec`, 90 s).
const PATIENCE_NS: u64 = 100_000_000_000;

/// The request to end that a process was given before it did, since it runs its present program.
pub(super) fn asked<'a>(case: &Case<'a>, process: &Process) -> Option<Asked<'a>> {
    let since_ns = process.program().map_or(0, |program| program.mark.at_ns);
    let until_ns = process.exit.as_ref().map_or(u64::MAX, |exit| exit.at_ns);
    let requests = case.model.signals.sent(process.pid).iter().filter(|sent| {
        REQUESTS.contains(&sent.signal) && sent.mark.at_ns >= since_ns && sent.mark.at_ns <= until_ns
    });
    let mut asked = requests.map(|sent| origin(case, process, sent, 0));
    asked.next()
}

/// A signal of this number that a process was sent last.
pub(super) fn last_sent<'a>(case: &Case<'a>, pid: Pid, signal: i32) -> Option<&'a Sent> {
    case.model.signals.sent(pid).iter().rev().find(|sent| sent.signal == signal)
}

/// Whether another process sent it: by `kill`, not by a fault of its own or `abort`.
fn is_from_another(process: &Process, sent: Option<&Sent>) -> bool {
    sent.is_some_and(|sent| {
        sent.code <= 0 && sent.sender.as_ref().is_some_and(|sender| sender.pid != process.pid)
    })
}

fn by<'a>(case: &Case<'a>, process: &Process, sent: &'a Sent) -> By<'a> {
    match &sent.sender {
        Some(sender) if is_observer(case, sender) => By::Observer,
        Some(sender) => By::Process(sender),
        None if sent.code == SI_KERNEL && sent.signal == SIGINT => By::Key,
        None if sent.code > 0 => By::Kernel,
        None if process.pid.0 == 0 => By::Unknown,
        None => By::Unknown,
    }
}

/// The observer started the first process.
fn is_observer(case: &Case<'_>, sender: &Sender) -> bool {
    let Some(root) = case.root().filter(|_| case.header.attached.is_none()) else { return false };
    let parent = root.parent.or_else(|| {
        let exec = root.execs.first()?.details.as_ref()?;
        Some(exec.ppid)
    });
    parent == Some(sender.pid)
}

/// Follows a request back: a master passes on to its workers what it was sent, and so may whatever started the master.
fn origin<'a>(case: &Case<'a>, process: &Process, sent: &'a Sent, depth: u32) -> Asked<'a> {
    let here = Asked { signal: sent.signal, mark: Some(sent.mark), by: by(case, process, sent) };
    let By::Process(sender) = here.by else { return here };
    let above = process.parent == Some(sender.pid) || case.role(sender.pid) == Role::Master;
    let Some(above) = case.model.processes.get(sender.pid).filter(|_| above && sender.pid != process.pid)
    else {
        return here;
    };
    // What came before it executed itself anew was another request.
    let since_ns = above.program().map_or(0, |program| program.mark.at_ns);
    let earlier = case.model.signals.sent(above.pid).iter().find(|earlier| {
        REQUESTS.contains(&earlier.signal)
            && earlier.mark.at_ns >= since_ns.min(sent.mark.at_ns)
            && earlier.mark.at_ns <= sent.mark.at_ns
            && earlier.mark != sent.mark
    });
    match earlier {
        Some(earlier) if depth < 8 => origin(case, above, earlier, depth + 1),
        Some(_) => here,
        // A master ends its workers when one of them has ended (dramatiq 2.2, `cli.py`, `main`).
        None if case.role(above.pid) == Role::Master && case.role(process.pid) != Role::Master => {
            Asked { by: By::Aftermath, ..here }
        }
        None => here,
    }
}

/// Whether a master ended after all its workers had: with the status of the first of them.
fn follows_its_workers(case: &Case<'_>, process: &Process) -> bool {
    let Some(exit) = &process.exit else { return false };
    let since_ns = process.program().map_or(0, |program| program.mark.at_ns);
    let mut workers = case
        .workers_of(process.pid)
        .filter(|worker| worker.forked_at_ns.is_none_or(|at_ns| at_ns >= since_ns))
        .peekable();
    workers.peek().is_some()
        && workers.all(|worker| worker.exit.as_ref().is_some_and(|end| end.at_ns <= exit.at_ns))
}

/// Whether a worker had imported its modules: what comes later happens at run time. `None`: it cannot be told.
pub(super) fn was_ready(case: &Case<'_>, pid: Pid) -> Option<bool> {
    match case.role(pid) {
        Role::Program => case.reached(pid, Rung::Consume),
        _ => match (case.reached(pid, Rung::Import), case.reached(pid, Rung::Consume)) {
            (Some(true), _) | (_, Some(true)) => Some(true),
            (Some(false), _) => Some(false),
            (None, _) => None,
        },
    }
}

impl Asked<'_> {
    /// Whether somebody other than the observer and a key wanted it.
    pub(super) const fn is_news(&self) -> bool {
        !matches!(self.by, By::Observer | By::Key)
    }

    /// `SIGTERM from "kill 4711" (process 812)`.
    pub(super) fn words(&self) -> String {
        let signal = words::names::signal(self.signal);
        match self.by {
            By::Process(sender) => format!("{signal} from {}", sender_words(sender)),
            By::Observer => format!("{signal} from the observer"),
            By::Key if self.signal == SIGINT => format!("{signal} from a key of the terminal (Ctrl-C)"),
            By::Key | By::Kernel => format!("{signal} from the kernel"),
            By::Aftermath => format!("{signal} from the master"),
            By::Unknown => format!("{signal} from a sender that was not seen"),
        }
    }
}

/// A sender by its command line and id.
pub(super) fn sender_words(sender: &Sender) -> String {
    let command = sender.cmdline.get().filter(|line| !line.is_empty());
    let command = command.map_or(sender.name.as_str(), String::as_str);
    let short: String = command.chars().take(120).collect();
    let more = if command.chars().count() > 120 { "…" } else { "" };
    format!("`{short}{more}` (process {})", sender.pid)
}
