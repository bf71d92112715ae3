//! Follows a session as lines: the events as `show` prints them, or only the news among them. Knows sessions and streams; nothing of how
//! a view is drawn.

use std::{
    collections::HashSet,
    io::{self, Write},
    ops::ControlFlow,
    os::fd::AsFd,
    path::Path,
    time::Duration,
};

use anstream::{AutoStream, ColorChoice};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;

use super::{BEAT, Due, Follower, Got, Listener, RETHINK, verdict};
use crate::{
    cli::{Context, ExitStatus, Format, show},
    diagnose,
    event::{Event, Pid},
    export::jsonl,
    model::{
        Model,
        amqp::Said,
        dramatiq::{self, Role},
        ladder::Rung,
    },
    render::{
        explain, json, ladder,
        style::{Line, PLAIN},
        timeline,
    },
    session::{Filter, Session},
};

/// What makes lines of what is read.
pub(super) trait Printer: Listener {
    /// Whether it wants no more.
    fn is_done(&self) -> bool {
        false
    }

    /// Everything that is there was read.
    ///
    /// # Errors
    /// When the stream cannot be written.
    fn caught_up(&mut self, follower: &Follower) -> io::Result<()>;
}

/// Reads until the recording is over, or the printer has enough. `wait` waits for no longer than it is told, and says whether to go on.
///
/// # Errors
/// When the session cannot be read, or the stream cannot be written.
pub(super) fn read_out(
    follower: &mut Follower,
    printer: &mut dyn Printer,
    wait: &mut dyn FnMut(Duration) -> bool,
) -> anyhow::Result<()> {
    loop {
        let got = follower.read(printer)?;
        if printer.is_done() {
            return Ok(());
        }
        match got {
            Got::More => {}
            Got::End => return Ok(printer.caught_up(follower)?),
            Got::All => {
                printer.caught_up(follower)?;
                if !wait(BEAT) {
                    return Ok(());
                }
            }
        }
    }
}

/// Prints what is new until the recording is over, and then what is concluded.
///
/// # Errors
/// When the session cannot be read, or standard output cannot be written. A reader that has seen enough is no error.
pub(super) fn show(args: &show::Args, context: &Context, path: &Path) -> anyhow::Result<ExitStatus> {
    let colors = if context.color { ColorChoice::AlwaysAnsi } else { ColorChoice::Never };
    let mut out = io::BufWriter::new(AutoStream::new(io::stdout(), colors));
    let mut follower = Follower::open(path)?;
    let written = match context.format {
        Format::Text => text(args, context, &mut follower, &mut out),
        Format::Json => documents(args, &mut follower, path, &mut out),
    };
    match written.and_then(|()| Ok(out.flush()?)) {
        Err(error) if show::is_closed_pipe(&error) => Ok(ExitStatus::SUCCESS),
        result => result.map(|()| ExitStatus::SUCCESS),
    }
}

/// Waits; not for somebody who does not read any more.
fn while_read(limit: Duration) -> bool {
    let stdout = io::stdout();
    let mut reader = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    let _ = poll(&mut reader, PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX));
    let gone = PollFlags::POLLERR | PollFlags::POLLNVAL;
    !reader.first().and_then(PollFd::revents).is_some_and(|events| events.intersects(gone))
}

fn text(
    args: &show::Args,
    context: &Context,
    follower: &mut Follower,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let header = follower.header.clone();
    let timeline = show::Timeline::new(args, &header, out);
    let mut printer = Text { timeline, filter: args.filter(), started_ns: header.started_ns, is_done: false };
    read_out(follower, &mut printer, &mut while_read)?;
    let cut = printer.is_done;
    printer.timeline.finish(follower.not_understood)?;
    if !cut && follower.is_finished() {
        verdict(follower, context, out)?;
    }
    Ok(())
}

struct Text<'a, W> {
    timeline: show::Timeline<'a, W>,
    filter: Filter,
    started_ns: u64,
    is_done: bool,
}

impl<W: Write> Listener for Text<'_, W> {
    fn said(&mut self, _said: &Said<'_>) {}

    fn event(&mut self, id: u64, event: &Event, _model: &mut Model) -> anyhow::Result<()> {
        if !self.is_done && self.filter.wants(id, event, self.started_ns) {
            self.is_done = self.timeline.take(id, event) == ControlFlow::Break(());
        }
        Ok(())
    }
}

impl<W: Write> Printer for Text<'_, W> {
    fn is_done(&self) -> bool {
        self.is_done
    }

    fn caught_up(&mut self, _follower: &Follower) -> io::Result<()> {
        self.timeline.out().flush()
    }
}

/// The last line: what is concluded.
#[derive(Serialize)]
#[serde(tag = "kind", rename = "explanation")]
struct Explained<T> {
    explanation: T,
}

fn documents(
    args: &show::Args,
    follower: &mut Follower,
    path: &Path,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let lines = jsonl::Lines::begin(&Session::open(path)?, out)?;
    let mut printer = Documents { lines, out, filter: args.filter(), limit: args.limit };
    read_out(follower, &mut printer, &mut while_read)?;
    let Documents { lines, out, .. } = printer;
    lines.end(follower.not_understood, out)?;
    if follower.is_finished() {
        let case = follower.case();
        let explanation = diagnose::explain(&case);
        let explanation = explain::document(&case, &explanation);
        json::write(out, &Explained { explanation })?;
        writeln!(out)?;
    }
    Ok(())
}

/// Events as JSON, one a line.
pub(super) struct Documents<'a, W> {
    lines: jsonl::Lines,
    out: &'a mut W,
    filter: Filter,
    limit: Option<u64>,
}

impl<'a, W: Write> Documents<'a, W> {
    /// Of all events of a session.
    ///
    /// # Errors
    /// When the session cannot be read, or the stream cannot be written.
    pub(super) fn of(path: &Path, out: &'a mut W) -> anyhow::Result<Self> {
        let lines = jsonl::Lines::begin(&Session::open(path)?, out)?;
        Ok(Self { lines, out, filter: Filter::default(), limit: None })
    }
}

impl<W: Write> Listener for Documents<'_, W> {
    fn said(&mut self, _said: &Said<'_>) {}

    fn event(&mut self, id: u64, event: &Event, model: &mut Model) -> anyhow::Result<()> {
        if self.is_done() {
            return Ok(());
        }
        if self.filter.wants(id, event, model.started_ns) {
            self.lines.event(id, event, self.out)?;
        } else {
            self.lines.left_out(event);
        }
        Ok(())
    }
}

impl<W: Write> Printer for Documents<'_, W> {
    fn is_done(&self) -> bool {
        self.limit.is_some_and(|limit| self.lines.events >= limit)
    }

    fn caught_up(&mut self, _follower: &Follower) -> io::Result<()> {
        self.out.flush()
    }
}

/// The rungs that were reached for the first time by the last event.
fn rungs(model: &mut Model) -> Vec<Line> {
    let news = model.ladders.take_news();
    // Every program is started; what is no worker is of interest once it speaks AMQP.
    let worth = |rung: Rung, pid: Pid| {
        rung >= Rung::Connect || dramatiq::role(&model.processes, pid) != Role::Program
    };
    let told = news.into_iter().filter(|(rung, mark)| worth(*rung, mark.pid));
    told.map(|(rung, mark)| ladder::news(mark.pid, rung, mark.at_ns, model.started_ns)).collect()
}

/// Each event as a line, without the file look-ups that would bury the rest, and each rung of a ladder.
pub(super) struct Everything<W>(pub(super) W);

impl<W: Write> Listener for Everything<W> {
    fn said(&mut self, _said: &Said<'_>) {}

    fn event(&mut self, _id: u64, event: &Event, model: &mut Model) -> anyhow::Result<()> {
        if !show::is_search(&event.body) {
            timeline::line(event, model.started_ns).write(&mut self.0, Some(show::columns()))?;
        }
        for line in rungs(model) {
            line.write(&mut self.0, Some(show::columns()))?;
        }
        Ok(())
    }
}

impl<W: Write> Printer for Everything<W> {
    fn caught_up(&mut self, _follower: &Follower) -> io::Result<()> {
        self.0.flush()
    }
}

/// Only rungs and findings, each once, among what others print.
pub(super) struct News<W> {
    out: W,
    rethink: Due,
    /// How many events were looked at.
    explained: u64,
    told: HashSet<(&'static str, Option<&'static str>, Option<Pid>)>,
}

impl<W: Write> News<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, rethink: Due::every(RETHINK), explained: 0, told: HashSet::new() }
    }

    fn tell(&mut self, line: Line) -> io::Result<()> {
        let mut whole = Line::new().with(PLAIN, "observer: ");
        whole.append(line);
        whole.write(&mut self.out, Some(show::columns()))
    }
}

impl<W: Write> Listener for News<W> {
    fn said(&mut self, _said: &Said<'_>) {}

    fn event(&mut self, _id: u64, _event: &Event, model: &mut Model) -> anyhow::Result<()> {
        Ok(rungs(model).into_iter().try_for_each(|line| self.tell(line))?)
    }
}

impl<W: Write> Printer for News<W> {
    fn caught_up(&mut self, follower: &Follower) -> io::Result<()> {
        let events = follower.model.events();
        // What is found in the end is in the verdict.
        if events == self.explained || follower.is_finished() || !self.rethink.is_now() {
            return Ok(());
        }
        self.explained = events;
        let findings = self.rethink.done(|| follower.explanation()).findings;
        for finding in findings {
            let pid = finding.process.map(|process| process.pid);
            if self.told.insert((finding.code.name(), finding.cause, pid)) {
                self.tell(explain::heading(&finding))?;
            }
        }
        self.out.flush()
    }
}
