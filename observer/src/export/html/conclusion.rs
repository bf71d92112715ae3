//! What was concluded, as the page shows it: verdict, findings with their evidence, ladders. Knows diagnoses; concludes nothing.

use std::collections::BTreeSet;

use super::text::Text;
use crate::{
    diagnose::{
        Explanation,
        case::Case,
        catalogue::Severity,
        finding::{Evidence, Finding, Subject},
    },
    model::ladder::{Ladder, Rung, Step},
    words::units,
};

/// Findings shown, evidence shown of each, and ladders.
const MOST_FINDINGS: usize = 30;
const MOST_EVIDENCE: usize = 100;
const MOST_LADDERS: usize = 40;

/// How bad it is, in a sign, a word and a class.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tone {
    pub(super) class: &'static str,
    pub(super) sign: &'static str,
    pub(super) word: &'static str,
}

const fn tone(severity: Severity) -> Tone {
    match severity {
        Severity::Ok => Tone { class: "good", sign: "✓", word: "well" },
        Severity::Warning => Tone { class: "odd", sign: "⚠", word: "warning" },
        Severity::Failure => Tone { class: "bad", sign: "✗", word: "failure" },
    }
}

/// What is concluded of one session.
#[derive(Debug)]
pub(super) struct Conclusion {
    pub(super) tone: Tone,
    /// Code and cause.
    pub(super) name: String,
    pub(super) title: Text,
    pub(super) summary: Text,
    pub(super) remedy: Text,
    pub(super) sure: String,
    /// The finding the verdict is.
    pub(super) decisive: Option<Found>,
    pub(super) others: Vec<Found>,
    pub(super) others_left_out: usize,
    pub(super) ladders: Vec<Rungs>,
    pub(super) ladders_left_out: usize,
}

/// A finding.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) tone: Tone,
    pub(super) name: String,
    pub(super) title: Text,
    pub(super) summary: Text,
    pub(super) remedy: Text,
    /// The processes it is about.
    pub(super) processes: String,
    pub(super) evidence: Vec<Proof>,
    pub(super) left_out: usize,
}

/// An event that proves something.
#[derive(Debug)]
pub(super) struct Proof {
    pub(super) event: u64,
    pub(super) at: String,
    pub(super) text: Text,
    /// Whether the event is on the page.
    pub(super) there: bool,
}

/// A ladder.
#[derive(Debug)]
pub(super) struct Rungs {
    pub(super) pid: u32,
    pub(super) role: &'static str,
    pub(super) steps: Vec<Reached>,
}

/// A rung.
#[derive(Debug)]
pub(super) struct Reached {
    pub(super) name: &'static str,
    pub(super) tone: Tone,
    pub(super) at: String,
    pub(super) event: Option<u64>,
    pub(super) why: Text,
    /// Whether the verdict is about it.
    pub(super) broke: bool,
}

/// The ids of the events that the page leads to.
pub(super) fn events(case: &Case<'_>, explanation: &Explanation) -> BTreeSet<u64> {
    let findings = explanation.findings.iter().take(MOST_FINDINGS);
    let proofs = findings.flat_map(|finding| finding.evidence.iter().take(MOST_EVIDENCE));
    let rungs = shortest(case).into_iter().take(MOST_LADDERS).flat_map(|ladder| &ladder.rungs);
    proofs.map(|evidence| evidence.event).chain(rungs.filter_map(|step| step.event)).collect()
}

/// What is concluded; `there` are the events on the page.
pub(super) fn of(case: &Case<'_>, explanation: &Explanation, there: &BTreeSet<u64>) -> Conclusion {
    let Explanation { verdict, findings } = explanation;
    let found = |finding: &Finding| found(case, finding, there);
    let decisive = findings.first().filter(|finding| finding.code == verdict.code);
    let skip = usize::from(decisive.is_some());
    let broken = (verdict.severity != Severity::Ok).then_some(verdict.rung);
    let ladders = shortest(case);
    let shown = ladders.iter().take(MOST_LADDERS);
    Conclusion {
        tone: tone(verdict.severity),
        name: named(verdict.code.name(), verdict.cause),
        title: Text::of(&verdict.title),
        summary: Text::of(&verdict.summary),
        remedy: Text::of(&verdict.remedy),
        sure: format!("{:.0} % sure", verdict.confidence * 100.0),
        decisive: decisive.map(found),
        others: findings.iter().take(MOST_FINDINGS).skip(skip).map(found).collect(),
        others_left_out: findings.len().saturating_sub(MOST_FINDINGS),
        ladders: shown.map(|ladder| rungs(case, ladder, broken, there)).collect(),
        ladders_left_out: ladders.len().saturating_sub(MOST_LADDERS),
    }
}

fn named(code: &str, cause: Option<&str>) -> String {
    cause.map_or_else(|| code.to_owned(), |cause| format!("{code} ({cause})"))
}

fn found(case: &Case<'_>, finding: &Finding, there: &BTreeSet<u64>) -> Found {
    let proof = |one: &Evidence| Proof {
        event: one.event,
        at: units::moment(one.at_ns, case.header.started_ns),
        text: Text::of(&one.text),
        there: there.contains(&one.event),
    };
    let subject = |subject: &Subject| format!("{} ({})", subject.pid, subject.role);
    let processes: Vec<String> =
        finding.process.iter().chain(finding.also.iter().take(20)).map(subject).collect();
    let more = finding.also.len().saturating_sub(20);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Found {
        tone: tone(finding.severity),
        name: named(finding.code.name(), finding.cause),
        title: Text::of(&finding.title),
        summary: Text::of(&finding.summary),
        remedy: Text::of(&finding.remedy),
        processes: format!("{}{more}", processes.join(", ")),
        evidence: finding.evidence.iter().take(MOST_EVIDENCE).map(proof).collect(),
        left_out: finding.evidence.len().saturating_sub(MOST_EVIDENCE),
    }
}

/// The ladders, those that came least far first.
fn shortest<'c>(case: &'c Case<'_>) -> Vec<&'c Ladder> {
    let mut ladders: Vec<_> = case.ladders.iter().collect();
    ladders.sort_by_key(|ladder| ladder.rungs.iter().filter(|step| step.reached == Some(true)).count());
    ladders
}

fn rungs(case: &Case<'_>, ladder: &Ladder, broken: Option<Rung>, there: &BTreeSet<u64>) -> Rungs {
    let step = |step: &Step| Reached {
        name: step.rung.name(),
        tone: match step.reached {
            Some(true) => Tone { class: "good", sign: "✓", word: "reached" },
            Some(false) => Tone { class: "odd", sign: "✗", word: "not reached" },
            None => Tone { class: "dim", sign: "?", word: "not observable" },
        },
        at: step.at_ns.map_or(String::new(), |at_ns| units::moment(at_ns, case.header.started_ns)),
        event: step.event.filter(|event| there.contains(event)),
        why: step.why.as_ref().map_or_else(Text::default, Text::of),
        broke: broken == Some(step.rung) && step.reached == Some(false),
    };
    Rungs { pid: ladder.pid.0, role: ladder.role, steps: ladder.rungs.iter().map(step).collect() }
}
