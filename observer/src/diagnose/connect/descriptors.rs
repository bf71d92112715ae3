//! Descriptors that ran out. Knows failed calls and the limit a program was started with.

use std::fmt::Write as _;

use super::super::{
    case::Case,
    catalogue::{Code, Severity},
    finding::{Evidence, Finding},
    peers,
};
use crate::{
    event::Pid,
    model::{
        dramatiq::{QueueKind, queue_kind},
        hints::Hint,
        queue::QueueKey,
    },
    words::names,
};

/// `fd-limit-reached`: EMFILE (or the machine's ENFILE) where a socket was to be made, or a file to be opened.
///
/// Needs: a failed `socket` or `open` with that error. Files alone are only a warning, unless the process ended by it or never reached
/// its broker: an actor may meet the limit, and the worker consume on. Sockets are no failure once each thread that got none makes one, or messages are
/// acknowledged while all that was declared is consumed. Looks alike: nothing, the error number is the kernel's own.
/// Documented: getrlimit(2), RLIMIT_NOFILE; Linux 6.1 `fs/file.c`, `alloc_fd`. Failed `accept`, `pipe` and `epoll_create` are not
/// recorded; a process that meets the limit there meets it at the next socket too.
pub(super) fn fd_limit_reached(case: &Case<'_>, findings: &mut Vec<Finding>) {
    for (pid, exhausted) in case.model.exhaustion.iter() {
        let of_machine = exhausted.errno == 23;
        let limit = limit(case, pid);
        let (whose, remedy) = if of_machine {
            (
                "the machine has".to_owned(),
                "raise fs.file-max, or find who holds the files: sysctl fs.file-nr; lsof".to_owned(),
            )
        } else {
            let text =
                limit.map_or("of its process".to_owned(), |limit| format!("of {limit} (RLIMIT_NOFILE)"));
            (
                format!("the limit {text} is"),
                "raise the limit (ulimit -n 65536, or LimitNOFILE= in the unit), or find what leaves files open: ls -l /proc/PID/fd"
                    .to_owned(),
            )
        };
        let what = match (exhausted.sockets, exhausted.files) {
            (0, _) => "no file can be opened any more",
            (_, 0) => "no socket can be made any more",
            _ => "neither a socket can be made nor a file opened any more",
        };
        let errno = names::errno(exhausted.errno);
        // Each thread that got none makes sockets again, or the work gets done all the same: it passed.
        let later_socket = !case.model.exhaustion.is_starved(pid);
        let later_ack = case.model.amqp.lives.outcomes.iter().any(|(worker, work)| {
            worker == pid && work.last_acked.is_some_and(|last| last.at_ns > exhausted.last.at_ns)
        });
        let consumes = peers::consumes(case, pid);
        let unserved = if consumes { unserved(case, pid) } else { Vec::new() };
        let is_passed = later_socket || (consumes && later_ack && unserved.is_empty());
        let is_failure = (exhausted.sockets > 0 && !is_passed)
            || (!peers::was_let_in(case, pid) && (exhausted.sockets == 0 || !later_socket))
            || peers::failed_exit(case, pid).is_some()
            // Consuming on without a file or a socket to be had, it loses what it is given.
            || (exhausted.sockets > 0 && exhausted.sockets + exhausted.files >= MANY);
        let mut summary = if of_machine {
            format!("The machine has no file left to open ({errno}): {what}.")
        } else {
            format!("All file descriptors are in use ({errno}), {whose} reached: {what}.")
        };
        if is_failure && !unserved.is_empty() {
            let _ = write!(summary, " It declared {}, and consumes nothing from there.", unserved.join(", "));
        }
        let count = exhausted.sockets + exhausted.files;
        let hint =
            case.model.hints.get(pid, Hint::Descriptors).map(|mark| Evidence::new(mark, "it prints so"));
        let finding = Finding::new(Code::FdLimitReached, if count > 1 { 0.97 } else { 0.9 }, summary)
            .title(limit.filter(|_| !of_machine).map_or_else(
                || "no file descriptors are left".to_owned(),
                |limit| format!("no file descriptors are left: all {limit} are in use"),
            ))
            .severity(if is_failure { Severity::Failure } else { Severity::Warning })
            .about(case.subject(pid))
            .evidence([
                Evidence::new(exhausted.first, format!("{} fails: {errno}", kind(exhausted.sockets > 0))),
                Evidence::new(exhausted.last, format!("and again, {count} times in all")),
            ])
            .evidence(hint)
            .remedy(remedy);
        findings.push(peers::with_exit(case, pid, finding));
    }
}

/// So many failed calls, sockets among them, are no passing shortage.
const MANY: u64 = 50;

/// The queues that a process declared and did not come to consume, dead letters left aside: one broker connection for each is wanting.
fn unserved<'a>(case: &'a Case<'_>, pid: Pid) -> Vec<&'a str> {
    let amqp = &case.model.amqp;
    let is_consumed = |key: &QueueKey| {
        amqp.consumers.iter().any(|consumer| {
            consumer.asked.pid == pid
                && consumer.confirmed.is_some()
                && (&consumer.vhost, &consumer.queue) == (&key.0, &key.1)
        })
    };
    let queues = amqp.queues.iter().filter(|(key, queue)| {
        queue.declared.as_ref().is_some_and(|declared| declared.by.pid == pid)
            && queue_kind(&key.1) != QueueKind::Dead
            && !is_consumed(key)
    });
    queues.map(|((_, name), _)| name.as_str()).collect()
}

const fn kind(sockets: bool) -> &'static str {
    if sockets { "socket" } else { "open" }
}

/// How many descriptors a process was started with.
fn limit(case: &Case<'_>, pid: Pid) -> Option<u64> {
    let mut process = case.model.processes.get(pid)?;
    for _ in 0..16 {
        if let Some(details) = process.program().and_then(|program| program.details.as_ref()) {
            let limits = details.limits.get()?;
            return limits.iter().find(|limit| limit.name.ends_with("NOFILE"))?.soft;
        }
        process = case.model.processes.get(process.parent?)?;
    }
    None
}
