//! Output that goes nowhere: pipes nobody reads, readers that are gone. Knows writes and who holds the other end.

use super::{
    Rule,
    case::Case,
    catalogue::{Code, Severity},
    finding::{Evidence, Finding},
};
use crate::{
    event::{OutputStream, Pid},
    model::{dramatiq::Role, mark::Mark, process::Process, trouble::StuckThread},
    words::{names, units},
};

/// The rules of this family.
pub(super) const RULES: &[Rule] = &[pipe_full, output_lost, log_file];

/// A thread that sat in a write for so long waits for a reader.
const STUCK_NS: u64 = 2_000_000_000;
const WRITES: [&str; 4] = ["write", "writev", "pwrite64", "sendfile"];
/// EPIPE, EIO (a terminal that is gone), ENOSPC.
const GONE: [i32; 3] = [32, 5, 28];

/// A thread sits in a write to a pipe whose buffer is full (`pipe(7)`: a write blocks until the reader has read). In dramatiq the workers
/// write into a pipe of their parent's, which writes on: where both wait, the parent's reader is the one to blame. Alike: a reader that is
/// slow, whose writers come round.
fn pipe_full(case: &Case<'_>, findings: &mut Vec<Finding>) {
    // Where nobody reads because there is no file to write to, that is what is to be mended.
    let mut log = Vec::new();
    log_file(case, &mut log);
    // Nor where the reader is gone: what comes after it waits in vain.
    let is_gone = case.model.outputs.iter().any(|(pid, _, written)| {
        case.role(pid) == Role::Master && written.failed.is_some_and(|(_, errno)| GONE.contains(&errno))
    });
    if !log.is_empty() || is_gone {
        return;
    }
    let threads = case.model.troubles.stuck_to_the_end(case.ended_ns());
    let waits: Vec<(&StuckThread, u64)> = threads
        .into_iter()
        .filter(|(thread, until_ns)| {
            is_full_pipe(thread) && until_ns.saturating_sub(thread.since_ns) >= STUCK_NS
        })
        .collect();
    let is_stuck = |pid: Pid| waits.iter().any(|(thread, _)| thread.pid == pid);
    let mut told: Vec<Pid> = Vec::new();
    for (thread, until_ns) in &waits {
        let Some(process) = case.model.processes.get(thread.pid) else { continue };
        // What it writes its parent would pass on, if that did not wait itself.
        let relayed =
            process.parent.is_some_and(|parent| case.role(parent) == Role::Master && is_stuck(parent));
        if relayed || told.contains(&thread.pid) {
            continue;
        }
        told.push(thread.pid);
        let on = thread.on.as_deref().unwrap_or_default();
        let (holder, remedy) = holder(case, process, on);
        let part = if case.role(process.pid) == Role::Master {
            "the master, which passes on what its workers say,"
        } else {
            "it"
        };
        let duration = units::duration(until_ns.saturating_sub(thread.since_ns));
        let mark = Mark { event: thread.event, at_ns: thread.since_ns, pid: thread.pid, tid: thread.tid };
        findings.push(
            Finding::new(
                Code::OutputPipeFull,
                0.95,
                format!("For {duration}, {part} has waited to write to descriptor {}, a pipe that is full: {holder}.", fd(thread)),
            )
            .title(format!("its output goes into a pipe that nobody reads: {holder}"))
            .about(case.subject(process.pid))
            .evidence([Evidence::new(mark, format!("thread {} in {} on {on} for {duration}", thread.tid, thread.syscall))])
            .remedy(remedy),
        );
    }
}

/// Whether a thread sits in a write to a pipe.
pub(super) fn is_full_pipe(thread: &StuckThread) -> bool {
    WRITES.contains(&thread.syscall.as_str())
        && thread.on.as_deref().is_some_and(|on| on.starts_with("pipe:"))
}

fn fd(thread: &StuckThread) -> u64 {
    thread.args.first().copied().unwrap_or_default()
}

/// Who holds the other end of a pipe, as far as that was seen, and what to do about it.
fn holder(case: &Case<'_>, process: &Process, on: &str) -> (String, String) {
    let inode: Option<u64> = on
        .strip_prefix("pipe:[")
        .and_then(|rest| rest.strip_suffix(']'))
        .and_then(|inode| inode.parse().ok());
    let targets =
        case.model.processes.iter().flat_map(|one| &one.execs).filter_map(|exec| exec.details.as_ref());
    let holders: Vec<String> = targets
        .flat_map(|exec| &exec.stdio)
        .filter_map(|target| target.get())
        .filter(|target| Some(target.inode) == inode)
        .filter_map(|target| target.other_end.get())
        .flatten()
        .filter(|holder| case.model.processes.get(holder.pid).is_none())
        .map(|holder| format!("{} ({})", holder.name, holder.pid))
        .collect();
    if let Some(first) = holders.first() {
        let text = format!("{first} holds the other end and does not read");
        return (text, format!("let {first} read it, or send the output to a file or to /dev/null"));
    }
    let master = process.parent.filter(|parent| case.role(*parent) == Role::Master);
    match master {
        Some(master) => (
            format!("its parent {master} holds the other end and does not read"),
            format!("look at what process {master} waits for: observer show @ --summary"),
        ),
        None => (
            "who holds the other end was not seen".to_owned(),
            "read the other end, or send the output to a file or to /dev/null".to_owned(),
        ),
    }
}

/// Writes to its output failed: the reader has closed its end (EPIPE), the terminal is gone (EIO), the disk is full (ENOSPC). dramatiq's
/// parent passes on what its workers say in a thread (2.2, `cli.py`, `watch_logs`), which such an error ends; the workers' pipe then fills up.
/// A warning while messages are acknowledged all the same.
fn output_lost(case: &Case<'_>, findings: &mut Vec<Finding>) {
    for (pid, stream, written) in case.model.outputs.iter() {
        let (Some((count, errno)), Some(mark)) = (written.failed, written.first_failed) else { continue };
        let role = case.role(pid);
        let concerns = matches!(role, Role::Master | Role::Worker) || case.links(pid).next().is_some();
        if !concerns || !GONE.contains(&errno) {
            continue;
        }
        let name = match stream {
            OutputStream::Stdout => "standard output",
            OutputStream::Stderr => "standard error",
            OutputStream::Pipe => "the pipe to its parent",
        };
        let why = match errno {
            32 => "its reader has closed the other end",
            28 => "the disk is full",
            _ => "the terminal is gone",
        };
        let waits = case.model.troubles.stuck_to_the_end(case.ended_ns());
        let waits = waits.iter().any(|(thread, _)| is_full_pipe(thread));
        let goes_on = !waits
            && case
                .model
                .amqp
                .lives
                .outcomes
                .iter()
                .any(|(_, work)| work.last_acked.is_some_and(|last| last.at_ns > mark.at_ns));
        let part =
            if role == Role::Master { "The master, which passes on what its workers say," } else { "It" };
        findings.push(
            Finding::new(
                Code::OutputLost,
                0.9,
                format!(
                    "{part} could not write to {name} ({}, ×{count}): {why}. What is said is lost.",
                    names::errno(errno)
                ),
            )
            .title(format!("nobody receives what it writes to {name}: {why}"))
            .severity(if goes_on { Severity::Warning } else { Severity::Failure })
            .about(case.subject(pid))
            .evidence([Evidence::new(mark, format!("write to {name}: {}", names::errno(errno)))])
            .remedy("keep the reader of its output alive, or send the output to a file"),
        );
    }
}

/// The file of `--log-file` could not be opened: dramatiq opens it in the thread that passes on what the workers say (2.2, `cli.py`,
/// `watch_logs`), which ends by it. What workers say then fills their pipe, and they wait in it. A warning while messages are acknowledged.
fn log_file(case: &Case<'_>, findings: &mut Vec<Finding>) {
    for master in case.masters() {
        let Some(file) = case.argv(master.pid).and_then(log_file_of) else { continue };
        let named =
            |path: &str| path == file || path.ends_with(&format!("/{}", file.trim_start_matches("./")));
        let refused = case
            .model
            .files
            .refused
            .iter()
            .find(|((path, _), refused)| refused.pid == master.pid && named(path));
        let Some(((path, errno), refused)) = refused else { continue };
        let acked = case.model.amqp.lives.outcomes.iter().map(|(_, work)| work.last_acked);
        let waits = case.model.troubles.stuck_to_the_end(case.ended_ns());
        let waits = waits.iter().any(|(thread, _)| is_full_pipe(thread));
        let goes_on = !waits && acked.flatten().any(|last| last.at_ns > refused.first_ns);
        let mark = Mark {
            event: refused.event,
            at_ns: refused.first_ns,
            pid: master.pid,
            tid: crate::event::Tid(master.pid.0),
        };
        let errno = names::errno(*errno);
        findings.push(
            Finding::new(
                Code::OutputLost,
                0.95,
                format!("The log file {path} could not be opened ({errno}): nobody passes on what the workers say, and their pipe fills up."),
            )
            .title(format!("the log file {path} cannot be opened: {errno}"))
            .severity(if goes_on { Severity::Warning } else { Severity::Failure })
            .about(case.subject(master.pid))
            .evidence([Evidence::new(mark, format!("open {path}: {errno}"))])
            .remedy(format!("make the folder of {path}, and let the worker's user write there")),
        );
    }
}

/// The file that `--log-file` names.
fn log_file_of(argv: &[String]) -> Option<&str> {
    argv.iter().enumerate().find_map(|(index, word)| match word.as_str() {
        "--log-file" => argv.get(index + 1).map(String::as_str),
        word => word.strip_prefix("--log-file="),
    })
}
