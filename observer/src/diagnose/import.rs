//! What goes wrong while modules are imported. Knows exit statuses, tracebacks and file look-ups; what is missing and what is shadowed are
//! in files of their own.

use super::{
    Rule,
    case::{Case, Kind},
    catalogue::Code,
    ends::{self, End},
    exits::exit_evidence,
    finding::{Evidence, Finding},
    missing, process, shadow,
};
use crate::{
    event::Pid,
    model::{dramatiq::Role, ladder::Rung, process::Process, tracebacks::Raised},
    python::{self, Owner, command::Command, traceback::Frame},
    words::units,
};

/// The rules of this family.
pub(super) const RULES: &[Rule] = &[failed, blocked];

/// A first thread that has sat in one call for so long, in a worker that is not ready, does not import any more.
const BLOCKED_NS: u64 = 3_000_000_000;
/// The same, when it was seen to do nothing and sits in no call.
const SILENT_NS: u64 = 8_000_000_000;
/// dramatiq's own exit status for an ImportError (2.2, `cli.py`, `RET_IMPORT`).
const RET_IMPORT: i32 = 2;

/// The processes that import: workers; a master that came to no worker; where no dramatiq runs, the last Python program.
pub(super) fn importers<'a>(case: &Case<'a>) -> Vec<&'a Process> {
    let mut found: Vec<&Process> = case.workers().collect();
    found.extend(case.masters().filter(|master| case.workers_of(master.pid).next().is_none()));
    if found.is_empty() {
        let python = |process: &&Process| {
            let argv = process.program().and_then(|program| program.argv.get());
            argv.and_then(|argv| argv.first())
                .and_then(|word| word.rsplit('/').next())
                .is_some_and(|name| name.starts_with("python"))
        };
        found.extend(case.model.processes.iter().filter(python).last());
    }
    found
}

/// The command that dramatiq was given, by this process or the one that started it.
pub(super) fn command(case: &Case<'_>, pid: Pid) -> Option<Command> {
    let own = case.argv(pid).and_then(Command::read);
    own.or_else(|| {
        let parent = case.model.processes.get(pid)?.parent?;
        case.argv(parent).and_then(Command::read)
    })
}

/// Whether it never came so far as to be ready, or to talk to a broker.
fn never_ready(case: &Case<'_>, process: &Process) -> bool {
    let reached = |rung| case.reached(process.pid, rung) == Some(true);
    !reached(Rung::Import) && !reached(Rung::Handshake)
}

/// A process ended by itself before it was ready: an exception that leads through an import, a module that is not there or is another than
/// meant, an attribute that is not there, or an exit called at a module's top level.
fn failed(case: &Case<'_>, findings: &mut Vec<Finding>) {
    for process in importers(case) {
        let Some(End::Own(code)) = ends::end(case, process) else { continue };
        if !never_ready(case, process) {
            continue;
        }
        // The last that was printed by the first thread, unless the module dealt with it.
        let printed =
            case.model.tracebacks.of(process.pid).rfind(|raised| raised.last.tid.0 == process.pid.0);
        let raised = printed.filter(|raised| ended_it(case, process, raised));
        let finding = shadow::shadowed(case, process, raised, code)
            .or_else(|| missing::not_found(case, process, raised, code))
            .or_else(|| missing::unnamed(case, process, raised, code))
            .or_else(|| attribute(case, process, raised, code))
            .or_else(|| exception(case, process, raised, code))
            .or_else(|| exit_call(case, process, raised.is_none(), printed, code));
        findings.extend(
            finding.map(|finding| finding.about(case.subject(process.pid)).evidence(exit_evidence(process))),
        );
    }
}

/// Whether nobody had caught an exception. In a worker its calls then begin where `multiprocessing` runs it, or in dramatiq's own handler
/// for an ImportError (2.2, `cli.py`, `worker_process`); one that a module caught and logged begins in that module.
fn ended_it(case: &Case<'_>, process: &Process, raised: &Raised) -> bool {
    let Some(outermost) = raised.traceback.frames.first() else { return false };
    let file = outermost.file.as_str();
    case.role(process.pid) != Role::Worker
        || file.ends_with("dramatiq/cli.py")
        || file.contains("/multiprocessing/")
        || file.starts_with('<')
}

/// `MODULE:ATTRIBUTE` was given, the module was imported, and dramatiq's own code says that it has no such attribute, or that it is no broker
/// (2.2, `cli.py`, `import_object` and `import_broker`): an ImportError whose innermost call is dramatiq's.
fn attribute(case: &Case<'_>, process: &Process, raised: Option<&Raised>, code: i32) -> Option<Finding> {
    let command = command(case, process.pid)?;
    let attribute = command.attribute()?;
    let module = command.imports().next()?;
    if code != RET_IMPORT {
        return None;
    }
    let innermost = raised.and_then(|raised| raised.traceback.innermost());
    let by_dramatiq = innermost.is_some_and(|frame| frame.file.contains("dramatiq/cli.py"));
    let said = raised.filter(|raised| raised.traceback.name() == "ImportError" && by_dramatiq);
    let confidence = match (said, raised) {
        (Some(_), _) => 0.97,
        // Nothing was printed: the module's file was opened, and nothing was searched in vain after it.
        (None, None) if was_loaded(case, process.pid, module) => 0.6,
        _ => return None,
    };
    let no_broker = said.is_some_and(|raised| raised.traceback.message.contains("is not a Broker"));
    let what = if no_broker { "is no broker" } else { "does not exist" };
    Some(
        Finding::new(
            Code::BrokerAttributeMissing,
            confidence,
            format!("Module {module} was imported, and its attribute {attribute}, named after the colon in {module}:{attribute}, {what}."),
        )
        .title(format!("{module} has no broker {attribute}"))
        .evidence(said.map(|raised| Evidence::new(raised.first, format!("{}: {}", raised.traceback.kind, raised.traceback.message))))
        .remedy(format!("correct {attribute} in {module}:{attribute}, or define it in {module}")),
    )
}

/// Whether a file of a module, or of its package, was opened by a process.
fn was_loaded(case: &Case<'_>, pid: Pid, module: &str) -> bool {
    let inside = module.replace('.', "/");
    let files = case.model.files.imports.get(&pid);
    files.is_some_and(|files| {
        files.own.keys().any(|path| {
            path.ends_with(&format!("/{inside}.py")) || path.ends_with(&format!("/{inside}/__init__.py"))
        })
    })
}

/// Whether a frame is at the top level of an own module, or a place of a SyntaxError in one.
pub(super) fn is_own_module(frame: &Frame) -> bool {
    let top = frame.function.as_deref().is_none_or(|function| function == "<module>");
    top && is_own_file(&frame.file)
}

pub(super) fn is_own_file(file: &str) -> bool {
    python::module_file(file).is_some_and(|module| module.owner == Owner::Own)
}

/// An exception ended the process, and its traceback leads through a module's top level (dramatiq logs an ImportError and exits with 2;
/// what else is raised, `multiprocessing` prints, and exits with 1). Alike: exceptions of a program that was imported whole.
fn exception(case: &Case<'_>, process: &Process, raised: Option<&Raised>, code: i32) -> Option<Finding> {
    let raised = raised?;
    let traceback = &raised.traceback;
    let imports = traceback.frames.iter().any(|frame| {
        frame.file.contains("importlib._bootstrap") || frame.file.contains("importlib/__init__.py")
    });
    let own_top = traceback.frames.iter().any(is_own_module);
    let of_worker = matches!(case.role(process.pid), Role::Worker | Role::Master);
    if code == 0 || !(imports || (own_top && !of_worker)) {
        return None;
    }
    let own = traceback.frames.iter().rev().find(|frame| is_own_file(&frame.file));
    let place = own.or_else(|| traceback.innermost());
    let place = place.map_or(String::new(), |frame| format!(" in {}, line {}", frame.file, frame.line));
    let message =
        if traceback.message.is_empty() { String::new() } else { format!(": {}", traceback.message) };
    Some(
        Finding::new(
            Code::ImportException,
            0.96,
            format!("Importing raised {}{message}{place}.", traceback.kind),
        )
        .title(format!("{}{message}{place}", traceback.name()))
        .evidence([Evidence::new(raised.first, format!("{}{message}", traceback.kind))])
        .remedy(format!("mend what raises {}{place}", traceback.name())),
    )
}

/// It called exit by itself after it had begun to import a module of its own, without an exception: `sys.exit` ends the worker at once,
/// `os._exit` leaves the master waiting for its boot (2.2, `cli.py`: `worker_fork_timeout`). Alike: dramatiq's own exits, which follow an
/// exception or an argument. `printed` is an exception that the module dealt with, when `unraised`.
fn exit_call(
    case: &Case<'_>,
    process: &Process,
    unraised: bool,
    printed: Option<&Raised>,
    code: i32,
) -> Option<Finding> {
    if !unraised || case.role(process.pid) == Role::Master {
        return None;
    }
    let (call, _) = process.exit_call?;
    let begun = process.forked_at_ns.unwrap_or(process.first_seen_ns);
    let (path, at) =
        case.model.imports.of(process.pid)?.last_own.clone().filter(|(_, mark)| mark.at_ns >= begun)?;
    let of_worker = case.role(process.pid) == Role::Worker;
    if !of_worker && code == 0 {
        // A script that has done its work.
        return None;
    }
    let confidence = case.confidence(if code == RET_IMPORT { 0.7 } else { 0.9 }, &[Kind::Output]);
    let after = units::duration(call.at_ns.saturating_sub(begun));
    let said = match printed {
        Some(raised) => format!(
            "before, it had caught and printed {}: {}",
            raised.traceback.kind, raised.traceback.message
        ),
        None => "it printed no exception".to_owned(),
    };
    Some(
        Finding::new(
            Code::ExitDuringImport,
            confidence,
            format!(
                "The process called exit({code}) {after} after it began, while it imported; the last own module it opened is {path}, and {said}."
            ),
        )
        .title(format!("exit({code}) was called while {path} was imported"))
        .evidence([
            Evidence::new(at, format!("opens {path}")),
            Evidence::new(call, format!("exit({code}) called by thread {}", call.tid)),
        ])
        .remedy(format!("look for sys.exit or os._exit at the top level of {path} and of what it imports")),
    )
}

/// A worker lives, has not become ready, and its first thread sits in one call, or does nothing that is seen: the import does not end.
/// Alike: a slow import, which goes on opening files, and ends.
fn blocked(case: &Case<'_>, findings: &mut Vec<Finding>) {
    for worker in case.workers() {
        let until_ns = process::until_ns(case, worker);
        let begun = worker.forked_at_ns.unwrap_or(worker.first_seen_ns);
        let threads = process::threads(case, worker.pid).unwrap_or(0);
        // Worker threads are started when all is imported.
        if !never_ready(case, worker)
            || worker.stopped.is_some()
            || (threads > 0 && worker.threads_started > threads)
        {
            continue;
        }
        let Some(trail) = case.model.imports.of(worker.pid) else { continue };
        let waits = trail.wait.iter().chain(&trail.long_wait);
        let wait = waits.into_iter().find(|wait| {
            wait.until_ns.is_none_or(|end| end >= until_ns)
                && until_ns.saturating_sub(wait.since_ns) >= BLOCKED_NS
                && wait.since_ns >= begun
        });
        let silent = trail.last_act.map_or(begun, |mark| mark.at_ns);
        let quiet_ns = until_ns.saturating_sub(silent);
        let module = trail.last_own.as_ref().map_or("a module", |(path, _)| path.as_str());
        let (what, since_ns, confidence, mark) = match wait {
            Some(wait) => (
                process::on_words(case, &wait.syscall, wait.on.as_deref()),
                wait.since_ns,
                0.93,
                Some(wait.mark),
            ),
            None if quiet_ns >= SILENT_NS && trail.last_own.is_some() => {
                ("code that makes no system call".to_owned(), silent, 0.7, trail.last_act)
            }
            None => continue,
        };
        let lasted = units::duration(until_ns.saturating_sub(since_ns));
        findings.push(
            Finding::new(
                Code::ImportBlocked,
                case.confidence(confidence, &[Kind::Output]),
                format!(
                    "The worker never became ready: for {lasted} its first thread has been in {what}. The last own module it opened is {module}."
                ),
            )
            .title(format!("importing {module} waits in {what}"))
            .about(case.subject(worker.pid))
            .evidence(mark.map(|mark| Evidence::new(mark, format!("first thread in {what} for {lasted}"))))
            .evidence(trail.last_own.as_ref().map(|(path, mark)| Evidence::new(*mark, format!("opens {path}"))))
            .remedy(format!("move what waits in {what} out of the top level of {module}, into an actor or a function")),
        );
    }
}
