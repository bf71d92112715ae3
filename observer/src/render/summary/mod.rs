//! What happened in a session, on one screen. Knows the model; concludes nothing from it.

mod connections;
mod processes;
mod trouble;

use std::io::{self, Write};

use crate::{
    event::{NoteLevel, Pid},
    model::{Model, ladder, reconcile::Reconciliation},
    render::{
        style::{BAD, DIM, GOOD, Line, ODD, PLAIN, STRONG},
        timeline,
    },
    session::{Ending, Header},
    words::{self, names, units},
};

/// The screen: so many lines, and a column of labels at their left.
const SCREEN_LINES: usize = 40;
const LABEL_COLUMNS: usize = 12;
const MIN_COLUMNS: usize = 40;

/// Lines under one label.
struct Section {
    label: &'static str,
    lines: Vec<Line>,
    /// How many lines it may take when the screen is full.
    share: usize,
    /// Whether its end matters more than its beginning.
    keeps_end: bool,
}

/// What the sections are made from.
struct Screen<'a> {
    header: &'a Header,
    ending: Option<&'a Ending>,
    model: &'a Model,
    /// Columns right of the labels.
    columns: usize,
}

/// Writes the summary of a session, at most 40 lines of `columns` (at least 40).
///
/// # Errors
/// When the stream cannot be written.
pub fn write(
    out: &mut impl Write,
    header: &Header,
    ending: Option<&Ending>,
    model: &Model,
    columns: usize,
) -> io::Result<()> {
    let columns = columns.max(MIN_COLUMNS);
    let screen = Screen { header, ending, model, columns: columns - LABEL_COLUMNS };
    let section = |label, lines, share| Section { label, lines, share, keeps_end: false };
    let mut sections = vec![
        section("session", screen.headline(), 3),
        section("processes", screen.processes(), processes::MAX_LINES),
        section("imports", screen.imports(), 4),
        section("connections", screen.connections(), 4),
        section("ladder", screen.ladder(), 3),
        section("queues", screen.queues(), 2),
        section("trouble", screen.trouble(), 3),
        section("waiting", screen.waiting(), 2),
        Section { keeps_end: true, ..section("output", screen.output(), 5) },
        section("not seen", screen.not_seen(), 3),
        section("next", screen.next(), 1),
    ];
    share_out(&mut sections);
    for section in &sections {
        for (index, line) in section.lines.iter().enumerate() {
            let label = if index == 0 { section.label } else { "" };
            let mut whole = Line::new().with(STRONG, format!("{label:<LABEL_COLUMNS$}"));
            whole.append(line.clone());
            whole.write(out, Some(columns))?;
        }
    }
    Ok(())
}

/// Cuts sections down to the screen. Each gets its share; what some do not need goes to the others, from the top.
fn share_out(sections: &mut [Section]) {
    let mut spare = SCREEN_LINES
        .saturating_sub(sections.iter().map(|section| section.lines.len().min(section.share)).sum());
    for section in sections {
        let length = section.lines.len();
        let extra = length.saturating_sub(section.share).min(spare);
        spare -= extra;
        let room = section.share + extra;
        if length <= room {
            continue;
        }
        let kept = room.saturating_sub(1);
        let note = |what: &str| {
            Line::new().with(DIM, format!("… {} {what}", units::counted((length - kept) as u64, "line")))
        };
        if section.keeps_end {
            section.lines.drain(..length - kept);
            section.lines.insert(0, note("before"));
        } else {
            section.lines.truncate(kept);
            section.lines.push(note("more"));
        }
    }
}

impl Screen<'_> {
    fn about(&self, at_ns: u64) -> String {
        units::about(at_ns, self.model.started_ns)
    }

    fn headline(&self) -> Vec<Line> {
        let mut what = Line::new().with(STRONG, words::command(&self.header.command));
        if let Some(pid) = self.header.attached {
            what.push(DIM, format!(" (attached to {pid})"));
        }
        let ended_ns = self.ending.map_or(self.model.last_ns, |ending| ending.ended_ns);
        let ran = units::duration(ended_ns.saturating_sub(self.header.started_ns));
        let mut how = Line::new().with(PLAIN, format!("{ran}, "));
        match self.ending {
            None => how.push(ODD, "no end recorded: it is still being recorded, or the recorder was killed"),
            Some(Ending { signal: Some(signal), .. }) => {
                how.push(BAD, format!("killed by {}", names::signal(*signal)))
            }
            Some(Ending { code: Some(0), .. }) => how.push(GOOD, "exited with 0"),
            Some(Ending { code: Some(code), .. }) => how.push(BAD, format!("exited with {code}")),
            Some(Ending { reason, .. }) => how.push(PLAIN, reason),
        };
        if let Some(Ending { reason, code, signal, .. }) = self.ending
            && reason != "exited"
            && (code.is_some() || signal.is_some())
        {
            how.push(PLAIN, format!(" ({reason})"));
        }
        let header = self.header;
        // To the second: the timeline has the rest.
        let moment = header
            .started_at
            .split_once('.')
            .map_or(header.started_at.clone(), |(moment, _)| format!("{moment}Z"));
        let about = format!(
            "{} · {moment} · {} · {} · {} · Linux {}",
            header.name,
            units::counted(self.model.events(), "event"),
            header.backend,
            header.host,
            header.kernel
        );
        vec![what, how, Line::new().with(DIM, about)]
    }

    /// How far each worker came, those that came least far first.
    fn ladder(&self) -> Vec<Line> {
        let mut ladders = ladder::ladders(self.model);
        ladders.sort_by_key(|ladder| ladder.rungs.iter().filter(|step| step.reached == Some(true)).count());
        ladders.iter().flat_map(|one| crate::render::ladder::fitted(one, self.columns)).collect()
    }

    /// What waits where nobody observed consumes, and who else consumes what is ours.
    fn queues(&self) -> Vec<Line> {
        let both = Reconciliation::of(self.model);
        both.map_or_else(Vec::new, |both| crate::render::reconcile::summary(&both, self.model.started_ns))
    }

    fn output(&self) -> Vec<Line> {
        let mut totals = Line::new();
        for (pid, stream, written) in self.model.outputs.iter() {
            let separator = if totals.width() == 0 { "" } else { "; " };
            let lines = units::counted(written.lines, "line");
            let stream = timeline::stream_text(stream);
            totals.push(DIM, format!("{separator}{pid} {stream} {lines}, {}", units::size(written.bytes)));
            if let Some((count, errno)) = written.failed {
                let errno = names::errno(errno);
                totals.push(BAD, format!(", {} {errno}", units::counted(count, "failed write")));
            }
        }
        let line =
            |pid: Pid, bytes: &[u8]| Line::new().with(DIM, format!("{pid} │ ")).with_bytes(PLAIN, bytes);
        let mut lines: Vec<_> = self.model.outputs.tail().map(|said| line(said.pid, &said.bytes)).collect();
        // A process that died in the middle of a line has its last words there.
        let mut unfinished: Vec<_> = self
            .model
            .outputs
            .iter()
            .filter_map(|(pid, _, written)| {
                written.unfinished.as_ref().map(|(at_ns, bytes)| (*at_ns, pid, bytes))
            })
            .collect();
        unfinished.sort();
        lines.extend(unfinished.into_iter().map(|(_, pid, bytes)| line(pid, bytes)));
        // Under the text they count, where a tail cut to its share keeps them.
        if totals.width() != 0 {
            lines.push(totals);
        }
        lines
    }

    fn not_seen(&self) -> Vec<Line> {
        let troubles = &self.model.troubles;
        let mut lost = Line::new();
        for (hop, what, count) in troubles.losses().into_iter().take(4) {
            let separator = if lost.width() == 0 { "" } else { ", " };
            lost.push(BAD, format!("{separator}{count} of {what} at the {}", timeline::hop_text(hop)));
        }
        let mut lines = vec![match troubles.lost() {
            0 => Line::new().with(PLAIN, "no event lost"),
            total => {
                let mut line = Line::new().with(BAD, format!("{} lost: ", units::counted(total, "event")));
                line.append(lost);
                line
            }
        }];
        for gap in troubles.gaps() {
            let text = words::gap(gap.since_ns, gap.until_ns, &gap.gone, &gap.why);
            lines.push(Line::new().with(BAD, format!("{}: {text}", self.about(gap.since_ns))));
        }
        for (level, text, count) in troubles.notes() {
            if *level != NoteLevel::Info {
                let times = if *count > 1 { format!(" (×{count})") } else { String::new() };
                lines.push(Line::new().with(timeline::level_style(*level), format!("{text}{times}")));
            }
        }
        for source in &self.header.sources {
            lines.extend(source.unseen.iter().map(|unseen| Line::new().with(DIM, unseen)));
        }
        lines
    }

    fn next(&self) -> Vec<Line> {
        let name = words::command(std::slice::from_ref(&self.header.name));
        vec![Line::new().with(STRONG, format!("observer show {name} --kind exec,connect,connected,exit"))]
    }
}
