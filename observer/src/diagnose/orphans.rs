//! Masters that leave: those that die and leave their workers, and those that execute themselves anew and fail. Knows processes.

use super::{
    Rule,
    case::{Case, Kind},
    catalogue::Code,
    ends::{self, By, End, SIGHUP, SIGKILL},
    exits::exit_evidence,
    finding::{Evidence, Finding},
};
use crate::{
    event::Pid,
    model::process::Process,
    words::{self, names, units},
};

/// The rules of this family.
pub(super) const RULES: &[Rule] = &[master_died, reexec_failed];

/// A worker that outlives its master by so much was not on its way out.
const OUTLIVES_NS: u64 = 1_000_000_000;

/// A master ended while workers of it lived on. It never does by itself: it waits for each of them (dramatiq 2.2, `cli.py`, `main`). Alike:
/// a tree that is killed whole, of which the master happens to go first: its workers were sent a deadly signal as well, or were gone at
/// once.
fn master_died(case: &Case<'_>, findings: &mut Vec<Finding>) {
    for master in case.masters() {
        let Some(exit) = &master.exit else { continue };
        let orphans: Vec<&Process> =
            case.workers_of(master.pid).filter(|worker| outlived(case, worker, exit.at_ns)).collect();
        if orphans.is_empty() {
            continue;
        }
        let end = ends::end(case, master);
        // It was asked to end, and killed when it did not: what keeps its workers is another finding.
        if matches!(end, Some(End::Aftermath | End::Forced { .. })) {
            continue;
        }
        // The observer kills what does not end in time; that it leaves something behind is not the worker's fault.
        if let Some(End::Obeyed(killed) | End::Forced { killed, .. }) = end
            && killed.by == By::Observer
        {
            continue;
        }
        let how = match end {
            Some(End::Killed(killed) | End::Obeyed(killed) | End::Forced { killed, .. })
                if exit.signal.is_some() =>
            {
                format!("was killed by {}", killed.words())
            }
            Some(End::OutOfMemory(_)) => "was killed by the kernel for want of memory".to_owned(),
            Some(End::Crash { signal, .. }) => format!("crashed with {}", names::signal(signal)),
            _ => match exit.code {
                Some(code) => format!("ended with status {code}"),
                None => "ended".to_owned(),
            },
        };
        let many = units::counted(orphans.len() as u64, "worker process");
        let pids: Vec<String> = orphans.iter().map(|worker| worker.pid.to_string()).collect();
        let consume = orphans.iter().any(|worker| ends::was_ready(case, worker.pid) == Some(true));
        let go_on = if consume { "go on consuming" } else { "live on" };
        let verb = if orphans.len() == 1 {
            go_on.replacen("go", "goes", 1).replacen("live", "lives", 1)
        } else {
            go_on.to_owned()
        };
        let cause = exit
            .sent
            .map(|mark| Evidence::new(mark, format!("the signal that ended process {}", master.pid)));
        findings.push(
            Finding::new(
                Code::MasterDied,
                case.confidence(0.98, &[Kind::Processes]),
                format!(
                    "dramatiq's parent process {how}; {many} of it {verb} as {}, unsupervised and with nobody to relay their output.",
                    if orphans.len() == 1 { "an orphan" } else { "orphans" }
                ),
            )
            .title(format!("the parent {how}; {many} {verb}"))
            .about(case.subject(master.pid))
            .evidence(cause)
            .evidence(exit_evidence(master))
            .remedy(format!("stop the orphans: kill {}; then start dramatiq again", pids.join(" "))),
        );
    }
}

/// Whether a worker lived on after this moment, and nothing says that it was on its way out.
fn outlived(case: &Case<'_>, worker: &Process, at_ns: u64) -> bool {
    if worker.first_seen_ns > at_ns {
        return false;
    }
    let killed = case
        .model
        .signals
        .sent(worker.pid)
        .iter()
        .any(|sent| sent.signal == SIGKILL && sent.mark.at_ns <= at_ns.saturating_add(OUTLIVES_NS));
    match &worker.exit {
        None => !killed,
        Some(exit) => exit.at_ns >= at_ns.saturating_add(OUTLIVES_NS),
    }
}

/// After HUP a master executes itself anew: `execvp(sys.executable, ["python", "-m", "dramatiq", …])`, or `execvp(sys.argv[0], …)` for the
/// script (dramatiq 2.2 and 1.17, `cli.py`, `main`). It failed when `execve` did, or when what runs now ended with a failure and without
/// any worker: called `python`, it looks along PATH for where it is, and finds another environment (CPython 3.12, `Modules/getpath.py`).
/// Alike: a module that no longer imports after the change, whose workers were started.
fn reexec_failed(case: &Case<'_>, findings: &mut Vec<Finding>) {
    for process in case.model.processes.iter() {
        let mut hups = case.model.signals.sent(process.pid).iter().filter(|sent| sent.signal == SIGHUP);
        let Some(hup) = hups.next_back() else { continue };
        let was_master = case
            .model
            .processes
            .children(process.pid)
            .any(|child| child.execs.is_empty() || is_spawned(child));
        let failed = process.failed_execs.iter().rfind(|failed| failed.mark.at_ns >= hup.mark.at_ns);
        let anew = process.execs.iter().rfind(|exec| exec.mark.at_ns >= hup.mark.at_ns);
        let before = process.execs.iter().rfind(|exec| exec.mark.at_ns < hup.mark.at_ns);
        let (Some(before), true, Some(exit)) = (before, was_master, &process.exit) else { continue };
        let hup_words = Evidence::new(hup.mark, "HUP: it is to execute itself anew");
        let command = |argv: Option<&Vec<String>>| argv.map_or_else(String::new, |argv| words::command(argv));
        let earlier = before.exe.get().map_or("", String::as_str);
        let remedy = format!(
            "put the interpreter's directory first on PATH, or start it by the script's whole path: {}/dramatiq …",
            launcher(before.details.as_ref().and_then(|exec| exec.path.get()), earlier)
        );
        let finding = match (anew, failed) {
            (Some(anew), _) => {
                let workers_since = children_since(case, process.pid, anew.mark.at_ns);
                if workers_since > 0 || exit.code == Some(0) || exit.code.is_none() {
                    continue;
                }
                let now = anew.exe.get().map_or("another", String::as_str);
                let which = if now == earlier {
                    format!("{now}, called `python`, without its virtual environment")
                } else {
                    now.to_owned()
                };
                Finding::new(
                    Code::ReexecFailed,
                    case.confidence(0.9, &[Kind::Processes]),
                    format!(
                        "HUP made dramatiq execute itself anew as `{}`: that ran {which} and ended with status {} before it started a worker.{}",
                        command(anew.argv.get()),
                        exit.code.unwrap_or_default(),
                        last_words(case, process.pid),
                    ),
                )
                .evidence([Evidence::new(anew.mark, format!("executed {now}"))])
            }
            (None, Some(failed)) => Finding::new(
                Code::ReexecFailed,
                0.97,
                format!(
                    "HUP made dramatiq execute itself anew, and {} could not be executed: {}.",
                    failed.path.get().map_or("its program", String::as_str),
                    names::errno(failed.errno)
                ),
            )
            .evidence([Evidence::new(failed.mark, format!("execve failed: {}", names::errno(failed.errno)))]),
            (None, None) => continue,
        };
        findings.push(
            finding
                .about(case.subject(process.pid))
                .evidence([hup_words])
                .evidence(exit_evidence(process))
                .remedy(remedy),
        );
    }
}

fn is_spawned(process: &Process) -> bool {
    let argv = process.program().and_then(|program| program.argv.get());
    argv.is_some_and(|argv| argv.iter().any(|word| word.contains("multiprocessing.spawn")))
}

fn children_since(case: &Case<'_>, pid: Pid, since_ns: u64) -> usize {
    let born = |child: &&Process| child.forked_at_ns.is_some_and(|at_ns| at_ns >= since_ns);
    case.model
        .processes
        .children(pid)
        .filter(born)
        .filter(|child| child.execs.is_empty() || is_spawned(child))
        .count()
}

/// The directory it was started from.
fn launcher(path: Option<&String>, exe: &str) -> String {
    let path = path.map_or(exe, String::as_str);
    path.rsplit_once('/').map_or_else(|| "…/bin".to_owned(), |(directory, _)| directory.to_owned())
}

/// ` It says: …` with the last line a process wrote itself.
fn last_words(case: &Case<'_>, pid: Pid) -> String {
    let streams = case.model.outputs.iter().filter(|(writer, ..)| *writer == pid);
    let last = streams.filter_map(|(_, _, written)| written.last.back()).last();
    last.map_or_else(String::new, |line| format!(" It says: {}", String::from_utf8_lossy(line).trim()))
}
