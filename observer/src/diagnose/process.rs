//! Messages that are held and not dealt with. Knows which threads sit in which calls since when; words are support only.

use std::collections::BTreeSet;

use super::{
    Rule,
    case::{Case, Kind},
    catalogue::Code,
    ends,
    finding::{Evidence, Finding},
    output,
};
use crate::{
    event::{Pid, SocketId, Tid},
    model::{
        dramatiq::{QueueKind, Remark, Role, queue_kind},
        mark::Mark,
        outcomes::Held,
        process::Process,
        trouble::StuckThread,
    },
    python::command::Command,
    words::units,
};

/// The rules of this family.
pub(super) const RULES: &[Rule] = &[actors_blocked];

/// A worker that settled nothing for so long, while threads of it sat in calls since a delivery, is blocked; without such threads twice as
/// long.
const QUIET_NS: u64 = 2_000_000_000;
/// A thread that sat in one call for so long is stuck; one that waits for work comes round every second (`worker.py`, `worker_timeout`).
const STUCK_NS: u64 = 1_500_000_000;
/// dramatiq's own number of threads, where none is given (2.2, `cli.py`).
const DEFAULT_THREADS: i64 = 8;
/// Connections are closed so long before the end of their process, at the most.
const CLOSING_NS: u64 = 5_000_000_000;
/// A call that was entered so long before a delivery was told of is still one that follows it.
const EARLY_NS: u64 = 50_000_000;

/// Messages were delivered to a worker and none is settled any more, while its worker threads sit in calls that they entered after the
/// delivery (`worker.py`, `_WorkerThread.process_message`). Alike: a slow actor, which settles now and then: the time without a settlement
/// has to be out of all proportion to what was seen before; one long message beside idle threads, which keeps nobody waiting.
fn actors_blocked(case: &Case<'_>, findings: &mut Vec<Finding>) {
    let held_by = |pid: Pid| {
        let held = case.model.amqp.lives.outcomes.held().iter();
        let plain = |held: &&Held| {
            held.about.queue.as_deref().is_none_or(|queue| queue_kind(queue) == QueueKind::Plain)
        };
        held.filter(move |held| held.delivered.pid == pid).filter(plain).collect::<Vec<_>>()
    };
    let pids: BTreeSet<Pid> = case.model.amqp.lives.outcomes.iter().map(|(pid, _)| pid).collect();
    for process in pids.into_iter().filter_map(|pid| case.model.processes.get(pid)) {
        let held = held_by(process.pid);
        if !held.is_empty() {
            findings.extend(blocked(case, process, &held));
        }
    }
}

fn blocked(case: &Case<'_>, process: &Process, held: &[&Held]) -> Option<Finding> {
    let pid = process.pid;
    let work = case.model.amqp.lives.outcomes.of(pid)?;
    let threads = threads(case, pid)?;
    // Also while it is asked to stop: what can end then ends.
    let until_ns = process.exit.as_ref().map_or_else(|| case.ended_ns(), |exit| exit.at_ns);
    let in_time = |held: &&&Held| {
        held.delivered.at_ns < until_ns
            && held.returned.is_none_or(|mark| mark.at_ns + CLOSING_NS >= until_ns)
    };
    let held: Vec<&&Held> = held.iter().filter(in_time).collect();
    let first = held.iter().min_by_key(|held| held.delivered.at_ns)?;
    let since_ns = first.delivered.at_ns.max(work.last_settled.map_or(0, |mark| mark.at_ns));
    let quiet_ns = until_ns.saturating_sub(since_ns);
    // Stopped, it does nothing at all: that is another finding.
    if process.stopped.or(process.stopped_at_exit).is_some()
        || quiet_ns < QUIET_NS.max(work.longest_gap_ns.saturating_mul(2))
    {
        return None;
    }
    let stuck = stuck(case, process, first.delivered.at_ns, until_ns);
    let busy = held.len() as u64 >= threads;
    // They wait for whoever reads their output: that is another finding too.
    if stuck.iter().any(|(thread, _)| output::is_full_pipe(thread)) {
        return None;
    }
    // One long message keeps nobody waiting, unless nothing was ever settled.
    if !(busy || work.acked == 0) || (stuck.is_empty() && (quiet_ns < 2 * QUIET_NS || !busy)) {
        return None;
    }
    let count = units::counted(held.len() as u64, "message");
    let mut waits: Vec<String> = stuck.iter().map(|(thread, _)| wait_words(case, thread)).collect();
    waits.sort();
    waits.dedup();
    let what = match waits.as_slice() {
        [] => "its threads compute, or wait in calls of less than a second".to_owned(),
        few => format!(
            "{} in {}",
            if stuck.len() == 1 {
                "its worker thread is".to_owned()
            } else {
                format!("{} worker threads are", stuck.len())
            },
            few.iter().take(3).cloned().collect::<Vec<_>>().join(", ")
        ),
    };
    let actors: BTreeSet<&str> = held.iter().filter_map(|held| held.about.actor.as_deref()).collect();
    let actors = actors.into_iter().take(3).collect::<Vec<_>>().join(", ");
    let settled = if work.acked == 0 { "None was ever settled" } else { "Nothing was settled any more" };
    let limit = expired(case, pid, &held, &stuck, until_ns);
    let mut summary = format!(
        "{count} held by the worker, which settles none: {what}. {settled} for {}.",
        units::duration(quiet_ns)
    );
    if limit.is_some() {
        summary.push_str(
            " The actor's time limit expired meanwhile, and cannot interrupt a thread inside a call.",
        );
    }
    let base = if stuck.is_empty() {
        0.6
    } else if busy {
        0.92
    } else {
        0.7
    };
    let who = if actors.is_empty() { "an actor".to_owned() } else { actors };
    let mut finding = Finding::new(Code::ActorsBlocked, case.confidence(base, &[Kind::Streams]), summary)
        .cause(limit.map(|_| "time-limit-ineffective"))
        .title(match stuck.first() {
            Some((thread, _)) => format!("{who} waits in {} and does not end", wait_words(case, thread)),
            None => format!("{who} does not end"),
        })
        .about(case.subject(pid))
        .evidence([Evidence::new(
            first.delivered,
            format!("message {} delivered", first.about.message_id.as_deref().unwrap_or("without id")),
        )])
        .evidence(stuck.iter().take(4).map(|(thread, until_ns)| {
            let mark = Mark { event: thread.event, at_ns: thread.since_ns, pid: thread.pid, tid: thread.tid };
            Evidence::new(
                mark,
                format!(
                    "thread {} in {} for {}",
                    thread.tid,
                    wait_words(case, thread),
                    units::duration(until_ns.saturating_sub(thread.since_ns))
                ),
            )
        }))
        .evidence(limit.map(|mark| Evidence::new(mark, "the time limit expired")));
    finding = match limit {
        Some(_) => finding.remedy(format!(
            "give the call that {who} waits in a timeout of its own: a time limit cannot end it"
        )),
        None => finding.remedy(format!("find what {who} waits for, and give that call a timeout")),
    };
    Some(finding)
}

/// How many messages a process can work on at one time; `None` when it has no thread to work with.
pub(super) fn threads(case: &Case<'_>, pid: Pid) -> Option<u64> {
    if case.role(pid) != Role::Worker {
        return Some(1);
    }
    let parent = case.model.processes.get(pid)?.parent?;
    let command =
        case.argv(parent).and_then(Command::read).or_else(|| case.argv(pid).and_then(Command::read));
    let threads = command.and_then(|command| command.threads).unwrap_or(DEFAULT_THREADS);
    u64::try_from(threads).ok().filter(|threads| *threads > 0)
}

/// Until when it was left to itself: it was asked to stop, or it or the observation ended.
pub(super) fn until_ns(case: &Case<'_>, process: &Process) -> u64 {
    let asked =
        |process: &Process| ends::asked(case, process).and_then(|asked| asked.mark).map(|mark| mark.at_ns);
    let master = process.parent.and_then(|parent| case.model.processes.get(parent));
    let exit = process.exit.as_ref().map(|exit| exit.at_ns);
    [asked(process), master.and_then(asked), exit]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or_else(|| case.ended_ns())
}

/// Threads that have sat in a call since a message came: not those that speak AMQP, and in a worker not the first, which waits for signals.
fn stuck<'a>(
    case: &'a Case<'_>,
    process: &Process,
    since_ns: u64,
    until_ns: u64,
) -> Vec<(&'a StuckThread, u64)> {
    let speaks: BTreeSet<Tid> = case.links(process.pid).map(|link| link.opened.tid).collect();
    let is_worker = case.role(process.pid) == Role::Worker;
    let threads = case.model.troubles.stuck_to_the_end(case.ended_ns());
    let of_it = threads.into_iter().filter(|(thread, _)| thread.pid == process.pid);
    of_it
        .filter(|(thread, _)| !is_worker || (thread.tid.0 != process.pid.0 && !speaks.contains(&thread.tid)))
        .filter(|(thread, _)| thread.since_ns + EARLY_NS >= since_ns)
        .map(|(thread, end_ns)| (thread, end_ns.min(until_ns)))
        .filter(|(thread, end_ns)| end_ns.saturating_sub(thread.since_ns) >= STUCK_NS)
        .collect()
}

/// What a thread sits in: the call, and the other end of its socket or the file.
pub(super) fn wait_words(case: &Case<'_>, thread: &StuckThread) -> String {
    on_words(case, &thread.syscall, thread.on.as_deref())
}

/// A call and what it waits on: the other end of a socket, a file.
pub(super) fn on_words(case: &Case<'_>, syscall: &str, on: Option<&str>) -> String {
    let socket = on.and_then(|on| on.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
    let peer = socket.and_then(|socket| {
        let connections = case.model.connections.iter().filter(|one| one.socket == SocketId(socket));
        connections.last().and_then(|one| one.peer.get())
    });
    match (peer, on) {
        (Some(peer), _) => format!("{syscall} from {peer}"),
        (None, Some(on)) => format!("{syscall} on {on}"),
        (None, None) => syscall.to_owned(),
    }
}

/// When a time limit expired while the threads were inside their calls: the worker said so (`middleware/time_limit.py` raises the exception
/// from outside, which takes effect at the next bytecode), or a message names a limit that is over.
fn expired(
    case: &Case<'_>,
    pid: Pid,
    held: &[&&Held],
    stuck: &[(&StuckThread, u64)],
    until_ns: u64,
) -> Option<Mark> {
    let (thread, _) = stuck.first()?;
    if let Some(said) = case.model.remarks.of(pid, Remark::TimeLimit)
        && said.first.at_ns > thread.since_ns
    {
        return Some(said.first);
    }
    let over = |held: &&&&Held| {
        let limit_ms = held.about.time_limit_ms;
        limit_ms.is_some_and(|limit| held.delivered.at_ns + limit * 1_000_000 + STUCK_NS < until_ns)
    };
    held.iter().find(over).map(|held| held.delivered)
}
