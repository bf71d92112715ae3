//! Commands that could not be started. Knows what was tried to be executed, and what a shell looked for; nothing of what it would have done.

use super::{
    Rule,
    case::Case,
    catalogue::Code,
    exits::exit_evidence,
    finding::{Evidence, Finding},
};
use crate::{
    model::{dramatiq::Role, mark::Mark, process::Process},
    words::{names, units},
};

/// The rules of this family.
pub(super) const RULES: &[Rule] = &[exec_failed];

const ENOENT: i32 = 2;
const ENOEXEC: i32 = 8;
const EACCES: i32 = 13;
/// A shell's, env's, nohup's, timeout's and our own status when a command cannot be executed, and when there is none of that name (POSIX
/// `sh`, 2.8.2; coreutils).
const CANNOT_EXECUTE: i32 = 126;
const NOT_FOUND: i32 = 127;

/// What could not be run.
struct Failed {
    name: String,
    /// The errors and where they came up.
    tried: Vec<(String, i32)>,
    last: Mark,
}

/// `execve` failed, or a shell found no such program, in the process that was to become the command; it ended so, and nothing else was
/// executed in the tree after it. Where dramatiq ran at all, whatever could not be executed is not what keeps it from consuming. Alike: a
/// search along PATH that succeeds in a later directory (`execvp(3)`); a program that lacks an optional helper and goes on.
fn exec_failed(case: &Case<'_>, findings: &mut Vec<Finding>) {
    let ran = case.model.processes.iter().any(|process| {
        matches!(case.role(process.pid), Role::Master | Role::Worker)
            || case.links(process.pid).next().is_some()
    });
    let Some(root) = case.root().filter(|_| !ran) else { return };
    let last_exec =
        case.model.processes.iter().flat_map(|process| &process.execs).map(|exec| exec.mark.at_ns).max();
    let candidates = case.model.processes.iter().filter_map(|process| {
        let failed = failed(case, root, process)?;
        last_exec.is_none_or(|at_ns| at_ns <= failed.last.at_ns).then_some((process, failed))
    });
    let Some((process, failed)) = candidates.last() else { return };
    let whole = failed.tried.iter().find(|(_, errno)| *errno != ENOENT).or(failed.tried.last());
    let Some((path, errno)) = whole else { return };
    let error = names::errno(*errno);
    let searched: Vec<&str> =
        failed.tried.iter().filter_map(|(path, _)| Some(path.rsplit_once('/')?.0)).collect();
    let name = &failed.name;
    let by = match process.execs.last() {
        Some(_) => case
            .command(process.pid)
            .map_or(String::new(), |command| format!(" `{command}` could not start it.")),
        None => String::new(),
    };
    let summary = match *errno {
        ENOENT if searched.len() > 1 => {
            format!("There is no program {name} in any directory of PATH: {}.{by}", searched.join(", "))
        }
        ENOENT => format!(
            "{path} cannot be executed: {error}; it does not exist, or the interpreter in its first line does not.{by}"
        ),
        EACCES => {
            format!("{path} cannot be executed: {error}; it is not executable, or not for this user.{by}")
        }
        ENOEXEC => format!(
            "{path} cannot be executed: {error}; it is no program of this machine and names no interpreter.{by}"
        ),
        _ => format!("{path} cannot be executed: {error}.{by}"),
    };
    let remedy = match *errno {
        ENOENT if searched.len() > 1 => {
            format!(
                "correct the name {name}, or put its directory on PATH (a virtual environment: source …/bin/activate)"
            )
        }
        ENOENT => format!("correct the path: ls -l {path}; head -1 {path}"),
        EACCES => format!("chmod +x {path}"),
        _ => Code::ExecFailed.entry().remedy.to_owned(),
    };
    let tries = units::counted(failed.tried.len() as u64, "path");
    findings.push(
        Finding::new(Code::ExecFailed, if process.failed_execs.is_empty() { 0.85 } else { 0.97 }, summary)
            .title(format!("{name} could not be started: {error}"))
            .about(case.subject(process.pid))
            .evidence([Evidence::new(failed.last, format!("{tries} tried, the last {path}: {error}"))])
            .evidence(exit_evidence(process))
            .remedy(remedy),
    );
}

/// What a process could not run, and ended for it.
fn failed(case: &Case<'_>, root: &Process, process: &Process) -> Option<Failed> {
    let exit = process.exit.as_ref();
    let ended_so = exit.is_some_and(|exit| matches!(exit.code, Some(CANNOT_EXECUTE | NOT_FOUND)));
    let began_ns = process.execs.last().map_or(0, |exec| exec.mark.at_ns);
    let attempts: Vec<_> =
        process.failed_execs.iter().filter(|failed| failed.mark.at_ns >= began_ns).collect();
    if let Some(last) = attempts.last() {
        let name = last.path.get()?.rsplit('/').next()?.to_owned();
        let is_command = process.pid == root.pid && process.execs.is_empty();
        // A child of a program that is told to run it: Python's subprocess, sudo.
        let is_named = || {
            let words =
                case.argv(root.pid).unwrap_or_default().iter().flat_map(|word| word.split_whitespace());
            process.execs.is_empty()
                && exit.is_some()
                && root.exit.as_ref().is_some_and(|exit| exit.code != Some(0))
                && words.filter_map(|word| word.rsplit('/').next()).any(|word| word == name)
        };
        if !is_command && !ended_so && !is_named() {
            return None;
        }
        // One search: those of the same name.
        let same = |path: &str| path.rsplit('/').next() == Some(&name);
        let mut tried: Vec<(String, i32)> = Vec::new();
        for attempt in attempts.iter().filter(|failed| failed.path.get().is_some_and(|path| same(path))) {
            let pair = (attempt.path.get()?.clone(), attempt.errno);
            if !tried.contains(&pair) {
                tried.push(pair);
            }
        }
        return Some(Failed { name, tried, last: last.mark });
    }
    // A shell looks before it tries (dash 0.5.12, `exec.c`, `find_command`; bash 5.2, `findcmd.c`).
    let lookup = case.model.searches.of(process.pid).filter(|_| ended_so)?;
    let tried = lookup.directories.iter().map(|directory| (format!("{directory}/{}", lookup.name), ENOENT));
    Some(Failed { name: lookup.name.clone(), tried: tried.collect(), last: lookup.last })
}
