//! Findings → one verdict. Knows precedence; no rule.

use super::{
    Explanation,
    case::Case,
    catalogue::{Class, Code, Severity},
    finding::{Finding, Verdict},
    peers, stopped,
};
use crate::{event::Pid, model::ladder::Rung, words::units};

/// Orders findings, puts those of several processes together, and takes the first as the verdict.
///
/// Precedence: what ended a process; then the lowest rung that broke; then how messages were settled; then what went well. Warnings come
/// after all failures: beside a worker that consumes they are no verdict.
pub(super) fn conclude(case: &Case<'_>, findings: Vec<Finding>) -> Explanation {
    let mut findings = findings;
    yield_to_causes(&mut findings);
    let mut findings = merge(findings);
    let was_stopped = stopped::is_news(case);
    findings.sort_by(|a, b| {
        let by_rank = rank(a, was_stopped).cmp(&rank(b, was_stopped));
        by_rank.then(b.confidence.total_cmp(&a.confidence))
    });
    for finding in &mut findings {
        finding.evidence.sort_by_key(|evidence| (evidence.at_ns, evidence.event));
        finding.evidence.dedup();
    }
    let decisive = findings.iter().find(|finding| is_decisive(finding));
    let verdict = match decisive {
        Some(finding) => Verdict::from(finding),
        None => Verdict::from(&undetermined(case)),
    };
    if let Some(index) = findings.iter().position(is_decisive) {
        let first = findings.remove(index);
        findings.insert(0, first);
    }
    Explanation { verdict, findings }
}

/// An exception at the top level of a module or script that connects there is what a fault of the connection looks like in Python: where
/// the sockets or the broker's own words say what that was, the exception only repeats it. And in a list of brokers, one that is down is
/// what the list is for; a name that does not resolve keeps pika (1.4) from those after it.
fn yield_to_causes(findings: &mut [Finding]) {
    let explained: Vec<Pid> = findings
        .iter()
        .filter(|finding| {
            let class = finding.code.entry().class;
            finding.severity == Severity::Failure && class == Class::Broken && finding.rung >= Rung::Connect
        })
        .filter_map(|finding| Some(finding.process?.pid))
        .collect();
    let unresolved: Vec<Pid> = findings
        .iter()
        .filter(|finding| finding.code == Code::DnsFailure)
        .filter_map(|finding| Some(finding.process?.pid))
        .collect();
    for finding in findings.iter_mut() {
        let yields_to = match finding.code {
            Code::ImportException => &explained,
            Code::ConnectionRefused => &unresolved,
            _ => continue,
        };
        if finding.process.is_some_and(|subject| yields_to.contains(&subject.pid)) {
            finding.severity = Severity::Warning;
        }
    }
}

/// A warning alone decides only where nothing went well: a session with no other finding. That somebody else stopped a worker that was fine
/// is news, and comes before what went well until then; that the observation ended is none, and comes after it.
fn rank(finding: &Finding, was_stopped: bool) -> (u8, Class, u8, u8, u64) {
    let class = finding.code.entry().class;
    let tier = match (finding.severity, class) {
        (Severity::Failure, _) => 0,
        (_, Class::Well) => 1,
        // That nothing is due yet is an answer; that the observer ended its own observation is none.
        (Severity::Warning, _) if finding.code == Code::MessageDelayed && !was_stopped => 1,
        (Severity::Warning, _) => 2,
        (Severity::Ok, _) => 3,
    };
    let first_ns = finding.evidence.iter().map(|evidence| evidence.at_ns).min().unwrap_or(u64::MAX);
    let turn = match finding.code {
        Code::Stopped if was_stopped => 0,
        Code::Stopped => 3,
        Code::MessageDelayed => 2,
        _ => 1,
    };
    let class = if tier == 1 { Class::Well } else { class };
    (tier, class, turn, finding.rung as u8, first_ns)
}

fn is_decisive(finding: &Finding) -> bool {
    finding.code.entry().class != Class::Unknown
}

/// The same finding of several processes is one, about the first of them.
fn merge(findings: Vec<Finding>) -> Vec<Finding> {
    let mut merged: Vec<Finding> = Vec::new();
    for finding in findings {
        let same = |known: &&mut Finding| {
            (known.code, known.cause, known.severity) == (finding.code, finding.cause, finding.severity)
                && known.summary == finding.summary
        };
        match merged.iter_mut().find(same) {
            Some(known) => {
                known.also.extend(finding.process.filter(|subject| known.process != Some(*subject)));
                if known.confidence < finding.confidence {
                    known.confidence = finding.confidence;
                }
                known.evidence.extend(finding.evidence);
            }
            None => merged.push(finding),
        }
    }
    merged
}

/// Nothing conclusive: says what was not observed, and why.
fn undetermined(case: &Case<'_>) -> Finding {
    let ended_well = case.ending.is_some_and(|ending| ending.reason == "exited" && ending.code == Some(0));
    let lost = case.model.troubles.lost();
    let spoke = peers::clients(case).into_iter().any(|pid| peers::attempts(case, pid).next().is_some());
    if ended_well && lost == 0 && !spoke {
        return Finding::new(
            Code::Undetermined,
            0.0,
            "It ended with status 0, and nothing in it tried to reach a broker: of a worker there is nothing to say.",
        )
        .title("it ended with 0, and spoke to no broker")
        .remedy("observe the worker: observer attach --cmd 'python -m dramatiq MODULE'");
    }
    let mut missing = Vec::new();
    if lost > 0 {
        missing.push(format!("{} lost", units::counted(lost, "event")));
    }
    if case.both.is_none() {
        missing.push("the broker was not asked (--broker worker)".to_owned());
    }
    if case.model.processes.is_empty() {
        missing.push("no process was seen".to_owned());
    }
    if case.ending.is_none() {
        missing.push("the recording has no end".to_owned());
    }
    let why =
        if missing.is_empty() { String::new() } else { format!(" Not observed: {}.", missing.join("; ")) };
    Finding::new(Code::Undetermined, 0.0, format!("Nothing that was observed proves a cause.{why}"))
}
