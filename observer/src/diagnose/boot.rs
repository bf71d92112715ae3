//! What keeps workers from being started: the arguments, the PID file, an extra, settings. Knows processes and exit statuses before log lines.
//!
//! Exit statuses are dramatiq's own (2.2, `cli.py`: `RET_IMPORT` = 2, `RET_PIDFILE` = 4); argparse's is 2 (CPython 3.12, `argparse.py`,
//! `ArgumentParser.error`). 2 and 4 count only when no worker was ever started: a worker's failed import ends in 2 too.

use super::{
    Rule,
    case::{Case, Kind},
    catalogue::Code,
    ends::{self, End},
    exits::exit_evidence,
    finding::{Evidence, Finding},
};
use crate::{
    event::Pid,
    model::{mark::Mark, process::Process},
    python::arguments::{self, Arguments},
    words,
};

/// The rules of this family.
pub(super) const RULES: &[Rule] = &[usage_error, pidfile_conflict, missing_extra, no_worker_processes];

/// `RET_PIDFILE`.
const PIDFILE: i32 = 4;
/// argparse's status, and `RET_IMPORT`.
const USAGE: i32 = 2;

/// A master that ended by itself before it had started a worker.
struct Boot<'a> {
    master: &'a Process,
    code: i32,
    arguments: Arguments<'a>,
}

fn boots<'a>(case: &Case<'a>) -> Vec<Boot<'a>> {
    let ended = |master: &'a Process| {
        let Some(End::Own(code)) = ends::end(case, master) else { return None };
        if case.workers_of(master.pid).next().is_some() {
            return None;
        }
        let argv = case.argv(master.pid)?;
        Some(Boot { master, code, arguments: Arguments::of(arguments::own_words(argv)?) })
    };
    case.masters().filter_map(ended).collect()
}

/// Status 2 without any worker, and it is not for want of watchdog. What argparse wrote is quoted; the cause comes from the arguments: no
/// module is left, and an option that takes all words up to the next one (`nargs="*"`) took a word that looks like one.
fn usage_error(case: &Case<'_>, findings: &mut Vec<Finding>) {
    for Boot { master, code, arguments } in boots(case) {
        if code != USAGE || wants_watchdog(case, master, &arguments) {
            continue;
        }
        let said = last_line(case, master.pid);
        let quoted = said.as_ref().map_or(String::new(), |line| format!(" It says: {line}"));
        let command = case.command(master.pid).unwrap_or_default();
        let confidence = case.confidence(0.95, &[Kind::Processes]);
        let exit = exit_evidence(master).map(|exit| match &said {
            Some(line) => Evidence { text: format!("{}, after it wrote: {line}", exit.text), ..exit },
            None => exit,
        });
        let finding = match arguments.swallower() {
            Some((given, value)) => {
                let takes = match given.takes {
                    arguments::Takes::Many => "takes every word up to the next option",
                    _ => "takes the next word",
                };
                Finding::new(
                    Code::UsageError,
                    confidence,
                    format!(
                        "{} {takes}, and so took {value}: no module is left to run in `{command}`.{quoted}",
                        given.word
                    ),
                )
                .cause(Some("swallowed-arguments"))
                .title(format!("{} took the module {value} as its value", given.word))
                .remedy(format!("put the module before the options: {}", corrected(case, master.pid, value)))
            }
            None => Finding::new(
                Code::UsageError,
                confidence,
                format!(
                    "`{command}` ended with status 2 before it started a worker or imported a module.{quoted}"
                ),
            ),
        };
        findings.push(finding.about(case.subject(master.pid)).evidence(exit));
    }
}

/// The command line with the swallowed word where it belongs.
fn corrected(case: &Case<'_>, pid: Pid, module: &str) -> String {
    let Some(argv) = case.argv(pid) else { return format!("python -m dramatiq {module} …") };
    let Some(own) = arguments::own_words(argv) else { return format!("python -m dramatiq {module} …") };
    let mut all: Vec<String> = argv.iter().take(argv.len() - own.len()).cloned().collect();
    all.push(module.to_owned());
    let at = own.iter().rposition(|word| word == module);
    all.extend(own.iter().enumerate().filter(|(index, _)| Some(*index) != at).map(|(_, word)| word.clone()));
    words::command(&all)
}

/// Status 4: only the PID file ends so (2.2, `cli.py`, `setup_pidfile`). Its text tells which of three it is: another process has it, it
/// is no PID file, or it cannot be written.
fn pidfile_conflict(case: &Case<'_>, findings: &mut Vec<Finding>) {
    for Boot { master, code, arguments } in boots(case) {
        let Some(given) = arguments.option("--pid-file").filter(|_| code == PIDFILE) else { continue };
        let file = given.values.first().copied().unwrap_or("?");
        let said = lines(case, master.pid);
        let holder = said.iter().find_map(|line| {
            line.split("already running with PID ").nth(1)?.trim_end_matches('.').parse::<u32>().ok()
        });
        let running = holder.and_then(|pid| case.command(Pid(pid)));
        let (why, remedy) = match holder {
            Some(pid) => {
                let command = running.map_or(String::new(), |command| format!(" (`{command}`)"));
                (
                    format!("it names process {pid}{command}, which exists"),
                    format!("if process {pid} is dramatiq, stop it: kill {pid}; if it is not: rm {file}"),
                )
            }
            None => match said.last().filter(|line| line.contains("PID file")) {
                Some(line) if line.contains("garbage") => (
                    "it holds something else than a process id".to_owned(),
                    format!("look into {file}, and give another path if it is not a PID file"),
                ),
                Some(line) => (
                    line.rsplit("] ").next().unwrap_or(line).to_owned(),
                    format!("make the directory of {file} writable, or give another path"),
                ),
                None => (
                    "dramatiq did not accept it".to_owned(),
                    format!("look into {file}: {}", Code::PidfileConflict.entry().remedy),
                ),
            },
        };
        findings.push(
            Finding::new(
                Code::PidfileConflict,
                0.97,
                format!("dramatiq ended with status 4 because of its PID file {file}: {why}."),
            )
            .title(format!("the PID file {file} is in the way"))
            .about(case.subject(master.pid))
            .evidence(file_evidence(case, master, file))
            .evidence(exit_evidence(master))
            .remedy(remedy),
        );
    }
}

/// `--watch` was given, no worker was started, and watchdog is not there: nothing of it was loaded. 2.2 ends with `RET_IMPORT` and names
/// the extra; 1.17 does not know the option then, and argparse refuses it. Alike: another usage error of a dramatiq that has watchdog.
fn missing_extra(case: &Case<'_>, findings: &mut Vec<Finding>) {
    for Boot { master, code, arguments } in boots(case) {
        if code != USAGE || !wants_watchdog(case, master, &arguments) {
            continue;
        }
        let python = master.program().and_then(|program| program.details.as_ref()?.path.get().cloned());
        let python = python.unwrap_or_else(|| "python".to_owned());
        findings.push(
            Finding::new(
                Code::MissingExtra,
                case.confidence(0.95, &[Kind::Files, Kind::Processes]),
                "--watch was given, and the package watchdog it needs is not installed for this Python: dramatiq ended with status 2.",
            )
            .about(case.subject(master.pid))
            .evidence(exit_evidence(master))
            .remedy(format!("{python} -m pip install 'dramatiq[watch]', or leave out --watch")),
        );
    }
}

/// Whether it lacks watchdog and was told to watch. A module that is left, else the usage is wrong with watchdog or without.
fn wants_watchdog(case: &Case<'_>, master: &Process, arguments: &Arguments<'_>) -> bool {
    let packages = case.model.files.imports.get(&master.pid).map(|imports| &imports.packages);
    arguments.options.iter().any(|given| given.name.starts_with("--watch"))
        && !arguments.modules.is_empty()
        && packages
            .is_some_and(|packages| packages.contains_key("dramatiq") && !packages.contains_key("watchdog"))
}

/// `--processes 0`, or fewer: the loop that starts workers has nothing to do (2.2, `cli.py`, `main`), and dramatiq ends with status 0.
/// Alike: `--help` and `--version`; a dramatiq that is not dramatiq (`./dramatiq.py`), of which no file is loaded.
fn no_worker_processes(case: &Case<'_>, findings: &mut Vec<Finding>) {
    for Boot { master, code, arguments } in boots(case) {
        let Some(given) = arguments.option("--processes").filter(|_| code == 0) else { continue };
        let number = given.values.first().and_then(|value| value.parse::<i64>().ok());
        let Some(number) = number.filter(|number| *number <= 0) else { continue };
        let only_told = |name| arguments.option(name).is_some();
        if only_told("--help") || only_told("--version") {
            continue;
        }
        findings.push(
            Finding::new(
                Code::NoWorkerProcesses,
                case.confidence(0.97, &[Kind::Processes]),
                format!(
                    "{} {number} asks for no worker process: dramatiq started none and ended with status 0.",
                    given.word
                ),
            )
            .title(format!("{} {number} asks for no worker process", given.word))
            .about(case.subject(master.pid))
            .evidence(exit_evidence(master)),
        );
    }
}

/// The last lines a process wrote to its standard error.
fn lines(case: &Case<'_>, pid: Pid) -> Vec<String> {
    let streams = case.model.outputs.iter().filter(|(writer, ..)| *writer == pid);
    let texts = streams.flat_map(|(_, _, written)| &written.last);
    texts
        .map(|line| String::from_utf8_lossy(line).trim().to_owned())
        .filter(|line| !line.is_empty())
        .collect()
}

fn last_line(case: &Case<'_>, pid: Pid) -> Option<String> {
    lines(case, pid).pop()
}

/// The program that was told of the file.
fn file_evidence(case: &Case<'_>, master: &Process, file: &str) -> Option<Evidence> {
    let program = master.program()?;
    let mark = Mark { pid: master.pid, ..program.mark };
    let _ = case;
    Some(Evidence::new(mark, format!("was started with --pid-file {file}")))
}
