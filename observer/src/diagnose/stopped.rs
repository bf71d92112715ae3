//! Processes that were asked to stop, and processes that were made to stand still. Knows who sent which signal.

use super::{
    Rule,
    case::{Case, Kind},
    catalogue::{Code, Severity},
    ends::{self, Asked, End},
    exits::{exit_evidence, part},
    finding::{Evidence, Finding},
};
use crate::{
    model::{dramatiq::Role, ladder::Rung, mark::Mark, process::Process},
    words::{capital, names, units},
};

/// The rules of this family.
pub(super) const RULES: &[Rule] = &[stopped, process_stopped];

/// A process that stands still for less than this is being looked at, or was for a moment.
const STANDS_NS: u64 = 2_000_000_000;
/// SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU.
const STOPS: [i32; 4] = [19, 20, 21, 22];

/// Somebody asked it to end (TERM, INT, HUP), and it did; or the observation ended by the observer's own `--for` or Ctrl-C. The request is
/// followed back to whoever sent the first: a master passes it on to its workers (dramatiq 2.2, `cli.py`, `sighandler`). Alike: the
/// master's TERM to the other workers after one of them has ended, which is no request.
fn stopped(case: &Case<'_>, findings: &mut Vec<Finding>) {
    let before = findings.len();
    for process in ends::that_matter(case) {
        if of_an_earlier_run(case, process) {
            continue;
        }
        // The workers of a master that was asked itself were asked by it.
        if case.role(process.pid) == Role::Worker && parent_was_asked(case, process) {
            continue;
        }
        match ends::end(case, process) {
            Some(End::Obeyed(asked)) => findings.push(asked_to_stop(case, process, asked, None)),
            Some(End::Forced { asked, killed }) => {
                findings.push(asked_to_stop(case, process, asked, Some(killed)))
            }
            _ => {}
        }
    }
    // What had started dramatiq was asked, and did not pass it on.
    if findings.len() == before
        && let Some(root) = case.root()
        && let Some(End::Obeyed(asked) | End::Forced { asked, .. }) = ends::end(case, root)
        && ends::that_matter(case).iter().any(|process| process.alive())
    {
        findings.push(asked_to_stop(case, root, asked, None));
    }
    let own = case
        .ending
        .filter(|ending| matches!(ending.reason.as_str(), "time-limit" | "interrupted" | "let-go"));
    let Some(ending) = own.filter(|_| findings.len() == before) else { return };
    // What was let go lives on.
    let Some(process) = ends::that_matter(case).into_iter().find(|process| process.alive()) else { return };
    let why = if ending.reason == "time-limit" { "its time (--for) was over" } else { "it was interrupted" };
    let rung = state_words(case, process);
    findings.push(
        Finding::new(
            Code::Stopped,
            if rung.is_some() { 0.7 } else { 0.3 },
            format!(
                "The observation ended because {why}; {} goes on.{}",
                part(case, process),
                rung.unwrap_or_default()
            ),
        )
        .title("the observation was ended, the worker goes on")
        .about(case.subject(process.pid))
        .remedy("observe it for longer to see more: --for 60s"),
    );
}

fn asked_to_stop(case: &Case<'_>, process: &Process, asked: Asked<'_>, killed: Option<Asked<'_>>) -> Finding {
    let what = part(case, process);
    let at = asked.mark.map_or(String::new(), |mark| format!(" at {}", case.about(mark.at_ns)));
    let own_limit = matches!(asked.by, ends::By::Observer)
        && case.ending.is_some_and(|ending| ending.reason == "time-limit");
    let who = if own_limit { "the observer's own --for".to_owned() } else { asked.words() };
    let state = state_words(case, process);
    let mut summary =
        format!("{} was asked to stop{at} by {who}.{}", capital(&what), state.clone().unwrap_or_default());
    if let Some(killed) = killed {
        summary.push_str(&format!(" It did not end in time and was killed by {}.", killed.words()));
    }
    let evidence = asked.mark.map(|mark| Evidence::new(mark, asked.words()));
    let finding = Finding::new(Code::Stopped, if state.is_some() { 0.95 } else { 0.6 }, summary)
        .title(format!("it was asked to stop: {who}"))
        .about(case.subject(process.pid))
        .evidence(evidence)
        .evidence(exit_evidence(process));
    if killed.is_some() { finding.severity(Severity::Warning) } else { finding }
}

/// Whether a stop was asked for by somebody else than the observer: then that is the news, whatever went well before.
pub(super) fn is_news(case: &Case<'_>) -> bool {
    let all = ends::that_matter(case).into_iter().chain(case.root());
    all.filter(|process| !of_an_earlier_run(case, process)).any(|process| match ends::end(case, process) {
        Some(End::Obeyed(asked) | End::Forced { asked, .. }) => asked.is_news(),
        _ => false,
    })
}

/// A worker of a master that has executed itself anew since: its end was the reload, no stop.
fn of_an_earlier_run(case: &Case<'_>, worker: &Process) -> bool {
    let Some(exit) = &worker.exit else { return false };
    let master = worker.parent.and_then(|parent| case.model.processes.get(parent));
    case.role(worker.pid) == Role::Worker
        && master.and_then(Process::program).is_some_and(|program| program.mark.at_ns >= exit.at_ns)
}

fn parent_was_asked(case: &Case<'_>, worker: &Process) -> bool {
    let master = worker.parent.and_then(|parent| case.model.processes.get(parent));
    master.is_some_and(|master| ends::asked(case, master).is_some())
}

/// How far it, or a worker of it, had come.
fn state_words(case: &Case<'_>, process: &Process) -> Option<String> {
    let one_reached = |rung| {
        case.reached(process.pid, rung) == Some(true)
            || case.workers_of(process.pid).any(|worker| case.reached(worker.pid, rung) == Some(true))
    };
    let words = if one_reached(Rung::Consume) {
        "Until then it consumed."
    } else if one_reached(Rung::Import) {
        "Until then it was ready, and consumed nothing yet."
    } else {
        return None;
    };
    Some(format!(" {words}"))
}

/// Its scheduler state is T (`proc(5)`), at the end of the observation or until it was killed; the signal that did it is named when it was
/// seen. Alike: a debugger that looks at it for a moment; a process that was stopped and went on.
fn process_stopped(case: &Case<'_>, findings: &mut Vec<Finding>) {
    let standing = |process: &&Process| {
        let until_ns = process.exit.as_ref().map_or(case.ended_ns(), |exit| exit.at_ns);
        since(process).is_some_and(|mark| until_ns.saturating_sub(mark.at_ns) >= STANDS_NS)
    };
    let all: Vec<&Process> = ends::that_matter(case).into_iter().filter(standing).collect();
    let pids: Vec<String> = all.iter().map(|process| process.pid.to_string()).collect();
    for process in &all {
        let Some(mark) = since(process) else { continue };
        let sent =
            case.model.signals.sent(process.pid).iter().rev().find(|sent| STOPS.contains(&sent.signal));
        let by = sent.map_or_else(
            || " Who stopped it was not seen.".to_owned(),
            |sent| {
                let signal = names::signal(sent.signal);
                match &sent.sender {
                    Some(sender) => format!(" {signal} came from {}.", ends::sender_words(sender)),
                    None => format!(" {signal} came from the terminal or the kernel."),
                }
            },
        );
        let what = part(case, process);
        // Workers go on without their parent.
        let goes_on = case.role(process.pid) == Role::Master
            && case.workers_of(process.pid).any(|worker| worker.alive() && worker.stopped.is_none());
        let severity = if goes_on { Severity::Warning } else { Severity::Failure };
        findings.push(
            Finding::new(
                Code::ProcessStopped,
                case.confidence(0.97, &[Kind::Processes]),
                format!("{} stands still: it was stopped (state T) and did not go on.{by}", capital(&what)),
            )
            .title(format!("{what} is stopped"))
            .about(case.subject(process.pid))
            .severity(severity)
            .evidence(sent.map(|sent| Evidence::new(sent.mark, names::signal(sent.signal))))
            .evidence([Evidence::new(
                mark,
                format!(
                    "process {} is in state T since {}",
                    process.pid,
                    units::about(mark.at_ns, case.model.started_ns)
                ),
            )])
            .remedy(format!("let it go on: kill -CONT {}", pids.join(" "))),
        );
    }
}

/// Since when it stands still, or stood until its end.
fn since(process: &Process) -> Option<Mark> {
    process.stopped.or(process.stopped_at_exit)
}
