//! An explanation as text, one screen, and as JSON. Knows diagnoses; concludes nothing.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use serde::Serialize;

use crate::{
    diagnose::{
        Explanation,
        case::Case,
        catalogue::{Code, Severity},
        finding::{Evidence, Finding, Verdict},
    },
    event::{NoteLevel, Pid},
    render::{
        ladder,
        style::{BAD, DIM, GOOD, Line, NAME, ODD, PLAIN, STRONG},
    },
    session::Ending,
    words::{self, units},
};

/// The screen. What is longer is cut to it, evidence first.
const SCREEN_LINES: usize = 24;
const MAX_COLUMNS: usize = 100;
const MIN_COLUMNS: usize = 40;
const LABEL_COLUMNS: usize = 10;
const SUMMARY_LINES: usize = 5;
const EVIDENCE_LINES: usize = 5;
const LADDER_LINES: usize = 3;
const OTHER_LINES: usize = 3;
const UNSEEN_LINES: usize = 2;
const REMEDY_LINES: usize = 3;

/// Writes an explanation: the cause in the first line, the evidence under it, the next step last; at most 24 lines of `columns` (40 to
/// 100), or everything there is when it is `whole`.
///
/// # Errors
/// When the stream cannot be written.
pub fn write(
    out: &mut impl Write,
    case: &Case<'_>,
    explanation: &Explanation,
    columns: usize,
    whole: bool,
) -> io::Result<()> {
    let columns = columns.clamp(MIN_COLUMNS, MAX_COLUMNS);
    let lines = screen(case, explanation, columns, whole);
    let most = if whole { usize::MAX } else { SCREEN_LINES };
    debug_assert!(lines.len() <= most, "{} lines", lines.len());
    lines.iter().take(most).try_for_each(|line| line.write(out, (!whole).then_some(columns)))
}

fn screen(case: &Case<'_>, explanation: &Explanation, columns: usize, whole: bool) -> Vec<Line> {
    let Explanation { verdict, findings } = explanation;
    let most = |limit: usize| if whole { usize::MAX } else { limit };
    let room = columns - LABEL_COLUMNS;
    let (style, sign) = sign(verdict.severity);
    let mut first = Line::new().with(style, format!("{sign} {}", verdict.code.name()));
    if let Some(cause) = verdict.cause {
        first.push(style, format!(" ({cause})"));
    }
    first.push(STRONG, format!("  {}", verdict.title));
    let mut lines = vec![first];
    lines.extend(labelled("", DIM, wrapped(PLAIN, &verdict.summary, room, most(SUMMARY_LINES))));
    let decisive = findings.first().filter(|finding| finding.code == verdict.code);
    if let Some(finding) = decisive {
        lines.extend(labelled("evidence", STRONG, evidence(case, finding, most(EVIDENCE_LINES))));
        let also: Vec<String> = finding.also.iter().map(|subject| subject.pid.to_string()).collect();
        if !also.is_empty() {
            let text = format!("{} too", also.join(", "));
            lines.extend(labelled("process", STRONG, wrapped(PLAIN, &text, room, most(1))));
        }
    }
    let others: Vec<Line> = findings
        .iter()
        .skip(usize::from(decisive.is_some()))
        .flat_map(|one| other(case, one, whole))
        .collect();
    lines.extend(labelled("also", STRONG, cut(others, most(OTHER_LINES), "more; with them: -v")));
    let ladders: Vec<Line> = shortest(case).into_iter().flat_map(|one| ladder::fitted(one, room)).collect();
    lines.extend(labelled(
        "ladder",
        STRONG,
        cut(ladders, most(LADDER_LINES), "more; observer show --ladder"),
    ));
    lines.extend(labelled("not seen", STRONG, not_seen(case, verdict, room, whole)));
    lines.extend(labelled("session", STRONG, vec![session(case)]));
    lines.extend(labelled("next", STRONG, wrapped(STRONG, &verdict.remedy, room, most(REMEDY_LINES))));
    lines
}

/// A finding in one line: what, in which process.
pub(crate) fn heading(finding: &Finding) -> Line {
    let (style, sign) = sign(finding.severity);
    let mut line = Line::new().with(style, format!("{sign} {}", finding.code.name()));
    if let Some(cause) = finding.cause {
        line.push(style, format!(" ({cause})"));
    }
    if let Some(process) = finding.process {
        line.push(NAME, format!(" {}", process.pid));
    }
    line.with(PLAIN, format!("  {}", finding.title))
}

/// The style and the sign of a severity.
pub(crate) const fn sign(severity: Severity) -> (anstyle::Style, &'static str) {
    match severity {
        Severity::Ok => (GOOD, "✓"),
        Severity::Warning => (ODD, "!"),
        Severity::Failure => (BAD, "✗"),
    }
}

/// Puts a label before the first of some lines, and room before the others.
fn labelled(label: &str, style: anstyle::Style, lines: Vec<Line>) -> Vec<Line> {
    let label = |index| if index == 0 { label } else { "" };
    let prefixed = lines.into_iter().enumerate().map(|(index, line)| {
        let mut whole = Line::new().with(style, format!("{:<LABEL_COLUMNS$}", label(index)));
        whole.append(line);
        whole
    });
    prefixed.collect()
}

fn wrapped(style: anstyle::Style, text: &str, columns: usize, most: usize) -> Vec<Line> {
    // Escaped before it is measured: what is cut is what would be shown.
    let escaped = words::escape::escape(text);
    let mut pieces: Vec<String> =
        textwrap::wrap(&escaped, columns).into_iter().map(std::borrow::Cow::into_owned).collect();
    if pieces.len() > most {
        pieces.truncate(most);
        if let Some(last) = pieces.last_mut() {
            last.push_str(" …");
        }
    }
    pieces.into_iter().map(|piece| Line::new().with(style, piece)).collect()
}

fn cut(mut lines: Vec<Line>, most: usize, note: &str) -> Vec<Line> {
    if lines.len() > most {
        let kept = most.saturating_sub(1);
        let more = Line::new().with(DIM, format!("… {} {note}", lines.len() - kept));
        lines.truncate(kept);
        lines.push(more);
    }
    lines
}

fn evidence(case: &Case<'_>, finding: &Finding, most: usize) -> Vec<Line> {
    let line = |one: &Evidence| {
        Line::new()
            .with(
                DIM,
                format!("{:>11}  event {:<6} ", units::moment(one.at_ns, case.model.started_ns), one.event),
            )
            .with(PLAIN, &one.text)
    };
    cut(finding.evidence.iter().map(line).collect(), most, "more; all of it: -v")
}

fn other(case: &Case<'_>, finding: &Finding, whole: bool) -> Vec<Line> {
    let (style, sign) = sign(finding.severity);
    let mut line = Line::new().with(style, format!("{sign} {}", finding.code.name()));
    if let Some(cause) = finding.cause {
        line.push(style, format!(" ({cause})"));
    }
    if let Some(process) = finding.process {
        line.push(NAME, format!(" {}", process.pid));
    }
    line.push(PLAIN, format!("  {}", finding.title));
    let mut lines = vec![line];
    if whole {
        lines.extend(wrapped(PLAIN, &finding.summary, MAX_COLUMNS - LABEL_COLUMNS, usize::MAX));
        lines.extend(evidence(case, finding, usize::MAX));
    }
    lines
}

/// What was recorded, how it ended, and where to see more.
fn session(case: &Case<'_>) -> Line {
    let ran = units::duration(case.ended_ns().saturating_sub(case.header.started_ns));
    let ended = match case.ending {
        None => "no end recorded".to_owned(),
        Some(Ending { signal: Some(signal), .. }) => format!("killed by {}", words::names::signal(*signal)),
        Some(Ending { code: Some(code), .. }) => format!("exited with {code}"),
        Some(Ending { reason, .. }) => reason.clone(),
    };
    let name = words::command(std::slice::from_ref(&case.header.name));
    Line::new()
        .with(PLAIN, format!("{ran}, {ended}  "))
        .with(DIM, format!("observer show {name} --summary, observer explain {name} -v"))
}

/// The ladders, those that came least far first.
fn shortest<'c>(case: &'c Case<'_>) -> Vec<&'c crate::model::ladder::Ladder> {
    let mut ladders: Vec<_> = case.ladders.iter().collect();
    ladders.sort_by_key(|ladder| ladder.rungs.iter().filter(|step| step.reached == Some(true)).count());
    ladders
}

/// What was lost or could not be seen, where that may matter: always when it is much, or when nothing was concluded.
fn not_seen(case: &Case<'_>, verdict: &Verdict, columns: usize, whole: bool) -> Vec<Line> {
    let mut lines = Vec::new();
    let lost = case.model.troubles.lost();
    if lost > 0 {
        lines.push(Line::new().with(BAD, format!("{} lost", units::counted(lost, "event"))));
    }
    for gap in case.model.troubles.gaps() {
        let text = words::gap(gap.since_ns, gap.until_ns, &gap.gone, &gap.why);
        let text = format!("{}: {text}", case.about(gap.since_ns));
        lines.extend(wrapped(BAD, &text, columns, if whole { usize::MAX } else { 2 }));
    }
    for (level, text, count) in case.model.troubles.notes() {
        if *level != NoteLevel::Info {
            let times = if *count > 1 { format!(" (×{count})") } else { String::new() };
            lines.extend(wrapped(
                PLAIN,
                &format!("{text}{times}"),
                columns,
                if whole { usize::MAX } else { 2 },
            ));
        }
    }
    if whole || verdict.code == Code::Undetermined {
        let unseen = case.header.sources.iter().flat_map(|source| &source.unseen);
        lines.extend(unseen.flat_map(|text| wrapped(DIM, text, columns, usize::MAX)));
    }
    if whole { lines } else { cut(lines, UNSEEN_LINES, "more; with them: -v") }
}

/// The explanation as a document of schema `observer.explain/1`.
pub fn document(case: &Case<'_>, explanation: &Explanation) -> impl Serialize {
    let header = case.header;
    let ended_ns = case.ended_ns();
    let mut by: BTreeMap<String, u64> = BTreeMap::new();
    for (_, what, count) in case.model.troubles.losses() {
        *by.entry(what.to_owned()).or_default() += count;
    }
    Document {
        schema: "observer.explain/1",
        session: About {
            id: header.id.clone(),
            name: header.name.clone(),
            command: header.command.clone(),
            attached: header.attached,
            backend: header.backend.clone(),
            started_at: header.started_at.clone(),
            started_ns: header.started_ns,
            duration_ns: ended_ns.saturating_sub(header.started_ns),
            exit: Exit {
                code: case.ending.and_then(|ending| ending.code),
                signal: case.ending.and_then(|ending| ending.signal),
            },
        },
        verdict: explanation.verdict.clone(),
        findings: explanation.findings.clone(),
        ladder: case.ladders.clone(),
        lost: Lost { total: case.model.troubles.lost(), by },
        unseen: header.sources.iter().flat_map(|source| source.unseen.iter().cloned()).collect(),
    }
}

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    session: About,
    verdict: Verdict,
    findings: Vec<Finding>,
    ladder: Vec<crate::model::ladder::Ladder>,
    lost: Lost,
    unseen: Vec<String>,
}

#[derive(Serialize)]
struct About {
    id: String,
    name: String,
    command: Vec<String>,
    attached: Option<Pid>,
    backend: String,
    started_at: String,
    /// The same moment on the clock of every `at_ns`.
    started_ns: u64,
    duration_ns: u64,
    exit: Exit,
}

#[derive(Serialize)]
struct Exit {
    code: Option<i32>,
    signal: Option<i32>,
}

#[derive(Serialize)]
struct Lost {
    total: u64,
    by: BTreeMap<String, u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        diagnose::finding::Subject,
        model::{Model, fixture},
    };

    fn finding(code: Code) -> Finding {
        let events = (1..30).map(|event| Evidence {
            event,
            at_ns: fixture::STARTED_NS + event,
            text: format!("said {}", fixture::HOSTILE.repeat(9)),
        });
        Finding::new(code, 0.9, "a long story ".repeat(90))
            .about(Subject { pid: Pid(fixture::WORKER), role: "worker" })
            .remedy("do this ".repeat(60))
            .evidence(events)
    }

    fn shown(columns: usize, whole: bool) -> String {
        let (header, ending) = (fixture::header(), fixture::ending());
        let events = fixture::events();
        let model = Model::fold(fixture::STARTED_NS, &events);
        let case = Case::new(&header, Some(&ending), &model);
        let codes =
            [Code::VhostNotFound, Code::ActorFailing, Code::Healthy, Code::BrokerAlarm, Code::MessageDelayed];
        let findings: Vec<Finding> = codes.into_iter().map(finding).collect();
        let explanation = Explanation { verdict: Verdict::from(&findings[0]), findings };
        let mut out = anstream::StripStream::new(Vec::new());
        write(&mut out, &case, &explanation, columns, whole).unwrap();
        String::from_utf8(out.into_inner()).unwrap()
    }

    #[test]
    fn it_fits_one_screen_whatever_was_found() {
        for columns in [20, 40, 80, 100, 300] {
            let text = shown(columns, false);
            assert!(text.lines().count() <= SCREEN_LINES, "{columns}: {} lines", text.lines().count());
            for line in text.lines() {
                let width = unicode_width::UnicodeWidthStr::width(line);
                assert!(width <= columns.clamp(MIN_COLUMNS, MAX_COLUMNS), "{columns}: {line}");
            }
        }
    }

    #[test]
    fn the_cause_is_first_and_what_to_do_is_last() {
        let text = shown(100, false);
        assert!(text.lines().next().unwrap().contains("vhost-not-found"));
        assert!(text.lines().rev().take(REMEDY_LINES).any(|line| line.starts_with("next")));
        assert!(text.chars().all(|c| c == '\n' || words::escape::is_plain(c)), "{text:?}");
    }

    #[test]
    fn all_the_evidence_is_shown_when_it_is_asked_for() {
        assert_eq!(shown(100, true).matches("  event ").count(), 5 * 29);
    }
}
