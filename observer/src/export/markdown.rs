//! A verdict with its evidence, as a section to paste into an issue or a log. Knows what was concluded; concludes nothing.
//!
//! What comes from the target stands in code, inline or fenced, with its control characters escaped and with more backticks around it than
//! it holds: there, nothing is a link, a mention, a heading or HTML.

use std::io::{self, Write};

use crate::{
    compare::{Comparison, run::Run},
    diagnose::{
        Explanation,
        case::Case,
        catalogue::Severity,
        finding::{Evidence, Finding},
    },
    event::NoteLevel,
    export::{facts, started_at_ns, unseen},
    render::{ladder, style::Line},
    words::{escape::escape, units},
};

/// What is longer is wrapped.
const COLUMNS: usize = 100;
/// Differences told; the rest is only counted.
const DIFFERENCES: usize = 20;

/// Writes the section. `against` is a run that works, and what differs from it.
///
/// # Errors
/// When the stream cannot be written.
pub fn write(
    case: &Case<'_>,
    explanation: &Explanation,
    against: Option<(&Run, &Comparison)>,
    out: &mut impl Write,
) -> io::Result<()> {
    let Explanation { verdict, findings } = explanation;
    let cause = verdict.cause.map_or(String::new(), |cause| format!(" ({cause})"));
    let name = code(&case.header.name);
    writeln!(out, "<!-- observer.markdown/1 -->")?;
    writeln!(
        out,
        "## {}: {} `{}{cause}` in {name}\n",
        date(case),
        sign(verdict.severity),
        verdict.code.name()
    )?;
    writeln!(out, "{}\n", code(&verdict.title))?;
    fence(out, &wrapped(&verdict.summary))?;
    let decisive = findings.first().filter(|finding| finding.code == verdict.code);
    if let Some(finding) = decisive {
        writeln!(out, "### Evidence\n")?;
        if let Some(subject) = finding.process {
            let also: String = finding.also.iter().map(|subject| format!(", {}", subject.pid)).collect();
            writeln!(out, "Process {} ({}){also}\n", subject.pid, subject.role)?;
        }
        fence(out, &evidence(case, &finding.evidence))?;
    }
    writeln!(out, "### Next\n")?;
    fence(out, &wrapped(&verdict.remedy))?;
    let others: Vec<&Finding> = findings.iter().skip(usize::from(decisive.is_some())).collect();
    if !others.is_empty() {
        writeln!(out, "### Also found\n")?;
        for finding in others {
            let cause = finding.cause.map_or(String::new(), |cause| format!(" ({cause})"));
            let process =
                finding.process.map_or(String::new(), |one| format!(" in {} ({})", one.pid, one.role));
            let title = code(&finding.title);
            writeln!(out, "{} `{}{cause}`{process}: {title}\n", sign(finding.severity), finding.code.name())?;
            fence(out, &evidence(case, &finding.evidence))?;
        }
    }
    if !case.ladders.is_empty() {
        writeln!(out, "### Ladder\n")?;
        let lines = case.ladders.iter().flat_map(|one| ladder::lines(one, case.header.started_ns));
        fence(out, &lines.map(|line| plain(&line)).collect::<io::Result<Vec<_>>>()?)?;
    }
    if let Some((working, comparison)) = against {
        writeln!(out, "### Differences from {}, which works\n", code(&working.header.name))?;
        fence(out, &differences(comparison))?;
    }
    writeln!(out, "### Session\n")?;
    fence(out, &session(case))?;
    writeln!(out, "### Lost and not seen\n")?;
    fence(out, &not_seen(case))
}

const fn sign(severity: Severity) -> &'static str {
    match severity {
        Severity::Ok => "✓",
        Severity::Warning => "⚠",
        Severity::Failure => "✗",
    }
}

fn date(case: &Case<'_>) -> String {
    let at = jiff::Timestamp::from_nanosecond(started_at_ns(case.header).into()).unwrap_or_default();
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

fn wrapped(text: &str) -> Vec<String> {
    // Escaped before it is measured.
    textwrap::wrap(&escape(text), COLUMNS).into_iter().map(std::borrow::Cow::into_owned).collect()
}

fn evidence(case: &Case<'_>, evidence: &[Evidence]) -> Vec<String> {
    let line = |one: &Evidence| {
        let moment = units::moment(one.at_ns, case.header.started_ns);
        format!("{moment:>12}  event {:<6} {}", one.event, escape(&one.text))
    };
    evidence.iter().map(line).collect()
}

fn plain(line: &Line) -> io::Result<String> {
    let mut bytes = Vec::new();
    line.write(&mut anstream::StripStream::new(&mut bytes), None)?;
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

fn differences(comparison: &Comparison) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(parted) = &comparison.first_divergence {
        lines.push(format!("parted: {}", escape(&parted.text)));
    }
    for one in comparison.differences.iter().take(DIFFERENCES) {
        lines.push(format!(
            "{:>3}  {} {}  {}",
            one.rank,
            one.kind.name(),
            escape(&one.key),
            escape(&one.why)
        ));
        for (side, value) in [("working", &one.working), ("failing", &one.failing)] {
            lines.push(format!("     {side}  {}", escape(value.as_deref().unwrap_or("(not there)"))));
        }
    }
    match comparison.differences.len() {
        0 => lines.push("no difference was seen".to_owned()),
        count if count > DIFFERENCES => lines.push(format!("… and {} less likely", count - DIFFERENCES)),
        _ => {}
    }
    lines
}

fn session(case: &Case<'_>) -> Vec<String> {
    facts(case).into_iter().map(|(name, value)| format!("{name:<9} {}", escape(&value))).collect()
}

fn not_seen(case: &Case<'_>) -> Vec<String> {
    let mut lines = match case.model.troubles.lost() {
        0 => vec!["no event was lost".to_owned()],
        lost => vec![format!("{} lost", units::counted(lost, "event"))],
    };
    for (_, what, count) in case.model.troubles.losses() {
        lines.push(format!("  {} {count}", escape(what)));
    }
    for (level, text, count) in case.model.troubles.notes() {
        if *level != NoteLevel::Info {
            let times = if *count > 1 { format!(" (×{count})") } else { String::new() };
            lines.push(format!("{}{times}", escape(text)));
        }
    }
    lines.extend(unseen(case.header).map(|text| format!("not seen: {}", escape(text))));
    lines
}

/// The longest run of backticks in a text.
fn backticks(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

/// Text as an inline code span (CommonMark 0.31, 6.1).
fn code(text: &str) -> String {
    let text = escape(text);
    let ticks = "`".repeat(backticks(&text) + 1);
    // One space at each end is taken off again; without it, a backtick there would belong to the fence.
    let pad =
        if text.starts_with([' ', '`']) || text.ends_with([' ', '`']) || text.is_empty() { " " } else { "" };
    format!("{ticks}{pad}{text}{pad}{ticks}")
}

/// Lines, escaped already, as a fenced block (CommonMark 0.31, 4.5).
fn fence(out: &mut impl Write, lines: &[String]) -> io::Result<()> {
    let most = lines.iter().map(|line| backticks(line)).max().unwrap_or(0);
    let ticks = "`".repeat(most.max(2) + 1);
    writeln!(out, "{ticks}text")?;
    lines.iter().try_for_each(|line| writeln!(out, "{line}"))?;
    writeln!(out, "{ticks}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        compare::{self, run::Reader},
        diagnose,
        event::Event,
        export::testing::{HOSTILE_MARKDOWN, hostile_events},
        model::{Model, fixture},
        words,
    };

    fn section(events: &[Event], working: Option<&[Event]>) -> String {
        let (header, ending) = (fixture::header(), fixture::ending());
        let model = Model::fold(header.started_ns, events);
        let case = Case::new(&header, Some(&ending), &model);
        let run = |events: &[Event]| {
            let mut reader = Reader::new(header.started_ns);
            (1..).zip(events).for_each(|(id, event)| reader.add(id, event));
            reader.finish(&header, Some(ending.clone()))
        };
        let against = working.map(|working| {
            let (working, failing) = (run(working), run(events));
            let comparison = compare::compare(&working, &failing);
            (working, comparison)
        });
        let mut out = Vec::new();
        let against = against.as_ref().map(|(run, comparison)| (run, comparison));
        write(&case, &diagnose::explain(&case), against, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn it_holds_verdict_evidence_ladder_differences_and_losses() {
        let events = fixture::events();
        let text = section(&events, Some(&events[..20]));
        assert!(text.starts_with("<!-- observer.markdown/1 -->\n## 2026-11-23 16:15 UTC: "), "{text}");
        let parts: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("### ")).collect();
        let wanted =
            ["Next", "Ladder", "Differences from `failing`, which works", "Session", "Lost and not seen"];
        assert!(wanted.iter().all(|part| parts.contains(part)), "{parts:?}");
        assert!(
            text.contains("12 events lost") && text.contains("not seen: file calls made through io_uring")
        );
    }

    /// What is outside of code.
    fn outside(text: &str) -> String {
        let (mut fence, mut kept) = (None::<&str>, String::new());
        for line in text.lines() {
            let ticks = line.trim_end_matches("text");
            let is_fence = ticks.len() >= 3 && ticks.bytes().all(|byte| byte == b'`');
            match fence {
                Some(open) if line == open => fence = None,
                Some(_) => {}
                None if is_fence => fence = Some(ticks),
                None => {
                    kept.push_str(line);
                    kept.push('\n');
                }
            }
        }
        assert_eq!(fence, None, "a fence is left open");
        kept
    }

    #[test]
    fn nothing_of_the_target_stands_outside_of_code() {
        let text = section(&hostile_events(), Some(&fixture::events()));
        assert!(text.contains("evil") && text.chars().all(|c| c == '\n' || words::escape::is_plain(c)));
        let outside = outside(&text);
        for hostile in HOSTILE_MARKDOWN {
            assert!(text.contains(hostile), "{hostile} was to be in: {text}");
            // In an inline span it may be, between more backticks than it has.
            for line in outside.lines().filter(|line| line.contains(hostile)) {
                let (before, after) = line.split_once(hostile).unwrap();
                let open = before.rsplit(|c| c != '`').find(|run| !run.is_empty()).unwrap_or_default();
                assert!(
                    before.contains('`') && after.contains('`') && open.len() > backticks(hostile),
                    "{line}"
                );
            }
        }
    }

    #[test]
    fn a_span_cannot_be_closed_from_inside() {
        assert_eq!(code("plain"), "`plain`");
        assert_eq!(code("`x``"), "``` `x`` ```");
        assert_eq!(code(""), "`  `");
        let mut out = Vec::new();
        fence(&mut out, &["````".to_owned()]).unwrap();
        assert_eq!(out, b"`````text\n````\n`````\n\n");
    }
}
