//! Processes that are gone: out of memory, killed, crashed, ended without a word. Knows wait statuses and signals before log lines.
//!
//! dramatiq ends the whole tree when the first worker dies, with that worker's status, and asks the others to end (2.2 and 1.17,
//! `cli.py`, `main`). Those are consequences and get no finding of their own.

use super::{
    Rule,
    case::{Case, Kind},
    catalogue::{Code, Severity},
    ends::{self, By, End},
    finding::{Evidence, Finding},
};
use crate::{
    event::{Pid, Tid},
    model::{dramatiq::Role, fault::Call, ladder::Rung, mark::Mark, process::Process},
    python,
    words::{capital, names, units},
};

/// The rules of this family.
pub(super) const RULES: &[Rule] = &[oom_killed, killed_by_signal, crashed, exited_silently];

/// A traceback that was written so long before the end explains it.
const LAST_WORDS_NS: u64 = 5_000_000_000;

/// The kernel's out-of-memory killer chose the process: its tracepoint `mark_victim` (Linux, `mm/oom_kill.c`, `mark_oom_victim`), and
/// the process ended by SIGKILL. Alike: somebody's `kill -9`, which has a sender and no victim event.
fn oom_killed(case: &Case<'_>, findings: &mut Vec<Finding>) {
    for process in ends::that_matter(case) {
        let Some(End::OutOfMemory(mark)) = ends::end(case, process) else { continue };
        let what = part(case, process);
        let summary = format!(
            "The kernel was out of memory, for the machine or for its cgroup, and killed {what}.{}",
            held_words(case, process.pid)
        );
        findings.push(
            Finding::new(Code::OomKilled, 0.98, summary)
                .title(format!("the kernel killed {what} for want of memory"))
                .about(case.subject(process.pid))
                .evidence([Evidence::new(mark, "the out-of-memory killer chose it")])
                .evidence(exit_evidence(process))
                .remedy(
                    "raise the memory limit (systemd: MemoryMax=, Docker: --memory), or run fewer of them: --processes, --threads",
                ),
        );
    }
}

/// The wait status is a signal that is no request and no fault of its own (`wait(2)`); whoever sent it comes from the kernel's tracepoint
/// `signal_generate`. Alike: the master's and the observer's KILL or TERM of what was asked to end, which is a consequence; a fault.
fn killed_by_signal(case: &Case<'_>, findings: &mut Vec<Finding>) {
    for process in ends::that_matter(case) {
        let Some(End::Killed(killed)) = ends::end(case, process) else { continue };
        let what = part(case, process);
        let signal = names::signal(killed.signal);
        let summary = match killed.by {
            By::Process(sender) if sender.pid == process.pid => {
                format!("{} sent {signal} to itself.", capital(&what))
            }
            By::Process(sender) => {
                let parent = case.model.processes.get(sender.pid).and_then(|sender| sender.parent);
                let parent = parent.map_or(String::new(), |parent| format!(", started by process {parent}"));
                format!("{}{parent} sent {signal} to {what}.", capital(&ends::sender_words(sender)))
            }
            By::Kernel if has_cpu_limit(process) && matches!(killed.signal, 9 | 24) => {
                format!("The kernel sent {signal} to {what}: its limit of CPU time (ulimit -t) was used up.")
            }
            By::Kernel => format!("The kernel sent {signal} to {what}."),
            _ => format!("{} was killed by {signal}; who sent it was not seen.", capital(&what)),
        };
        let base = if killed.mark.is_some() { 0.97 } else { 0.85 };
        let sent = killed.mark.map(|mark| Evidence::new(mark, killed.words()));
        findings.push(
            Finding::new(Code::KilledBySignal, base, format!("{summary}{}", held_words(case, process.pid)))
                .title(format!("{what} was killed by {signal}"))
                .about(case.subject(process.pid))
                .evidence(sent)
                .evidence(exit_evidence(process))
                .remedy(match killed.by {
                    By::Process(sender) if sender.pid != process.pid => {
                        format!("find out why {} kills it", ends::sender_words(sender))
                    }
                    By::Kernel if has_cpu_limit(process) => "raise the limit: ulimit -t unlimited".to_owned(),
                    _ => Code::KilledBySignal.entry().remedy.to_owned(),
                }),
        );
    }
}

/// A deadly fault: the wait status is SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGFPE, SIGTRAP or SIGSYS, sent by the kernel (`si_code` > 0,
/// `sigaction(2)`) or by the process itself: `abort`, or `faulthandler`, which raises it again (CPython 3.12, `Modules/faulthandler.c`,
/// `faulthandler_fatal_error`). Alike: `kill -SEGV` by another process, which is killed-by-signal. The thread that took it tells where.
fn crashed(case: &Case<'_>, findings: &mut Vec<Finding>) {
    for process in ends::that_matter(case) {
        let Some(End::Crash { signal, taken }) = ends::end(case, process) else { continue };
        let what = part(case, process);
        let name = names::signal(signal);
        let is_importing = case.role(process.pid) == Role::Worker
            && ends::was_ready(case, process.pid) == Some(false)
            && taken.is_none_or(|mark| mark.tid.0 == process.pid.0);
        let place = place_words(case, process, taken, is_importing);
        let stack = python_stack(case, process.pid);
        let at = stack.as_ref().map_or(String::new(), |(line, _)| format!(" Python was at {line}."));
        let held = if is_importing { String::new() } else { held_words(case, process.pid) };
        let delivered = taken.map(|mark| Evidence::new(mark, format!("{name} in thread {}", mark.tid)));
        // One that had been asked to end was to end anyway.
        let was_asked = ends::asked(case, process).is_some();
        let severity = if was_asked { Severity::Warning } else { Severity::Failure };
        let remedy = match &stack {
            Some((line, _)) => format!("look at {line}: what it calls crashed"),
            None => "run it again with PYTHONFAULTHANDLER=1 to see the Python line that crashed".to_owned(),
        };
        let mut finding = Finding::new(
            Code::Crashed,
            0.97,
            format!("{} crashed with {name} {place}.{at}{held}", capital(&what)),
        )
        .title(format!(
            "{what} crashed with {name} {}",
            if is_importing { "during the import" } else { "at run time" }
        ))
        .about(case.subject(process.pid))
        .severity(severity)
        .evidence(delivered)
        .evidence(stack.map(|(_, evidence)| evidence))
        .evidence(exit_evidence(process))
        .remedy(remedy);
        if is_importing {
            finding = finding.rung(Rung::Import);
        }
        findings.push(finding);
    }
}

/// A worker that was ready ended by itself: `exit_group` with a status, no signal, nobody had asked. Where another thread than the first
/// called it, that was `os._exit` or C's `exit`: Python itself ends only in its first thread. Alike: an exception in the first thread,
/// which its traceback explains; `sys.exit` in an actor, which dramatiq catches (2.2, `worker.py`, `process_message`); a worker that ends
/// because another one had; an end during the import, which is another rule's.
fn exited_silently(case: &Case<'_>, findings: &mut Vec<Finding>) {
    for process in ends::that_matter(case) {
        let Some(End::Own(code)) = ends::end(case, process) else { continue };
        if !left_at_run_time(case, process, code) {
            continue;
        }
        let caller = process.exit_call.filter(|(mark, _)| mark.tid.0 != process.pid.0).map(|(mark, _)| mark);
        if caller.is_none() && is_explained(case, process) {
            continue;
        }
        let what = part(case, process);
        let how = match caller {
            Some(_) => "by a call of os._exit or C exit in one of its threads",
            None => "in its main thread",
        };
        let summary = format!(
            "{} ended by itself with status {code}, {how}; no output explains it and nobody asked it to.{}",
            capital(&what),
            held_words(case, process.pid)
        );
        let base = if caller.is_some() { 0.95 } else { 0.85 };
        let called = process.exit_call.map(|(mark, code)| {
            Evidence::new(mark, format!("thread {} called exit_group({code})", mark.tid))
        });
        findings.push(
            Finding::new(
                Code::ExitedSilently,
                case.confidence(base, &[Kind::Processes, Kind::Output]),
                summary,
            )
            .title(format!("{what} ended with status {code} and without a word"))
            .about(case.subject(process.pid))
            .evidence(last_message(case, process.pid))
            .evidence(called)
            .evidence(exit_evidence(process))
            .remedy(match held_actor(case, process.pid) {
                Some(actor) => {
                    format!(
                        "search actor {actor} and what it calls for os._exit and libraries that call exit"
                    )
                }
                None => Code::ExitedSilently.entry().remedy.to_owned(),
            }),
        );
    }
}

/// Whether its end was one of run time: of a worker that was ready, or of another consumer that still consumed.
fn left_at_run_time(case: &Case<'_>, process: &Process, code: i32) -> bool {
    match case.role(process.pid) {
        // One that was attached to was watched while it ran.
        Role::Worker => ends::was_ready(case, process.pid) != Some(false),
        // Another program may well end when its work is done. Not so one that fails while it still consumes.
        Role::Program => {
            code != 0
                && case.model.amqp.consumers.iter().any(|consumer| {
                    consumer.asked.pid == process.pid
                        && consumer.confirmed.is_some()
                        && consumer.ended.as_ref().is_none_or(|ended| {
                            process.exit.as_ref().is_some_and(|exit| ended.at_ns >= exit.at_ns)
                        })
                })
        }
        Role::Master | Role::Fork => false,
    }
}

/// Whether its first thread printed a traceback before the end.
fn is_explained(case: &Case<'_>, process: &Process) -> bool {
    let Some(exit) = &process.exit else { return false };
    case.model
        .tracebacks
        .of(process.pid)
        .any(|raised| raised.last.tid.0 == process.pid.0 && raised.last.at_ns + LAST_WORDS_NS >= exit.at_ns)
}

/// What a process is, for a person: without its id, so that findings of several are alike.
pub(super) fn part(case: &Case<'_>, process: &Process) -> String {
    match case.role(process.pid) {
        Role::Master => "dramatiq's parent process".to_owned(),
        Role::Worker => "a worker process".to_owned(),
        Role::Fork => "a fork of dramatiq's middleware".to_owned(),
        Role::Program => {
            let argv = process.program().and_then(|program| program.argv.get());
            let name =
                argv.and_then(|argv| argv.first()).map_or("", |word| word.rsplit('/').next().unwrap_or(word));
            format!("the program {name}").trim_end().to_owned()
        }
    }
}

/// The end itself.
pub(super) fn exit_evidence(process: &Process) -> Option<Evidence> {
    let exit = process.exit.as_ref()?;
    let how = match (exit.code, exit.signal) {
        (Some(code), _) => format!("ended with status {code}"),
        (_, Some(signal)) => {
            let core = if exit.core_dumped { ", core dumped" } else { "" };
            format!("ended by {}{core}", names::signal(signal))
        }
        _ => "ended".to_owned(),
    };
    let mark = Mark { event: exit.event, at_ns: exit.at_ns, pid: process.pid, tid: Tid(process.pid.0) };
    Some(Evidence::new(mark, format!("process {} {how}", process.pid)))
}

/// ` It held 3 unsettled messages, the oldest of actor add.` or nothing.
pub(super) fn held_words(case: &Case<'_>, pid: Pid) -> String {
    let Some(held) = case.model.amqp.held_at_exit.get(&pid) else { return String::new() };
    let count = units::counted(held.count, "unsettled message");
    let Some(actor) = held_actor(case, pid) else { return format!(" It held {count}.") };
    match held.count {
        1 => format!(" It held {count}, of actor {actor}."),
        _ => format!(" It held {count}, the oldest of actor {actor}."),
    }
}

fn held_actor<'a>(case: &Case<'a>, pid: Pid) -> Option<&'a str> {
    case.model.amqp.held_at_exit.get(&pid)?.oldest.first()?.actor.as_deref()
}

fn last_message(case: &Case<'_>, pid: Pid) -> Option<Evidence> {
    let oldest = case.model.amqp.held_at_exit.get(&pid)?.oldest.first()?;
    let name = |text: &Option<String>| text.clone().unwrap_or_else(|| "?".to_owned());
    let text = format!(
        "message {} of actor {} was delivered from {} and never settled",
        name(&oldest.message_id),
        name(&oldest.actor),
        name(&oldest.queue)
    );
    Some(Evidence::new(oldest.delivered, text))
}

/// Where the fault was: in which thread, and while what.
fn place_words(case: &Case<'_>, process: &Process, taken: Option<Mark>, is_importing: bool) -> String {
    if is_importing {
        let own = case.model.files.imports.get(&process.pid).map(|imports| &imports.own);
        let last = own.and_then(|own| own.iter().max_by_key(|(_, mark)| (mark.at_ns, mark.event)));
        return match last {
            Some((path, _)) => {
                format!("while it imported its modules, the last file of its own being {path}")
            }
            None => "while it imported its modules".to_owned(),
        };
    }
    match taken {
        Some(mark) if mark.tid.0 == process.pid.0 => "in its main thread".to_owned(),
        Some(_) if case.model.amqp.held_at_exit.contains_key(&process.pid) => {
            "in a thread of its own, while messages were being processed".to_owned()
        }
        Some(_) => "in a thread of its own".to_owned(),
        None => "in a thread that was not seen".to_owned(),
    }
}

fn has_cpu_limit(process: &Process) -> bool {
    let limits =
        process.program().and_then(|program| program.details.as_ref()).and_then(|exec| exec.limits.get());
    limits.is_some_and(|limits| limits.iter().any(|limit| limit.name == "CPU" && limit.soft.is_some()))
}

/// The Python line that `faulthandler` says the crash came from: the innermost of the user's own, else the innermost.
fn python_stack(case: &Case<'_>, pid: Pid) -> Option<(String, Evidence)> {
    let calls = case.model.faults.of(pid);
    let own = |call: &&Call| {
        // What runs from a string or is frozen has no file.
        call.file.contains('/')
            && python::module_file(&call.file).is_some_and(|module| module.owner == python::Owner::Own)
    };
    let call = calls.iter().find(own).or(calls.first())?;
    let line = format!("{}:{} in {}", call.file, call.line, call.function);
    let evidence = Evidence::new(call.mark, format!("faulthandler wrote: {line}"));
    Some((line, evidence))
}
