//! `observer show`: what was recorded, as a timeline, as one screen, or as JSON. Knows sessions and rendering; explains nothing.

mod imports;
mod views;

use std::{
    collections::BTreeMap,
    io::{self, Write},
    ops::ControlFlow,
};

use anstream::{AutoStream, ColorChoice};
use anyhow::bail;
use clap::builder::PossibleValuesParser;
use views::View;

use super::{Context, ExitStatus, Format, live, progress};
use crate::{
    event::{Body, Event, Pid},
    fold,
    model::files,
    render::{
        json,
        style::{DIM, Line, ODD},
        summary, timeline,
    },
    session::{Filter, Header, Session},
    words::{self, units},
};

/// Shows what was recorded.
///
/// Without options: a line an event, without the file look-ups that are Python's search for modules. The last line says what was
/// left out.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(
    after_help = "Examples:\n  observer show @ --summary\n  observer show minimal_worker --kind exec,connect,exit\n  observer show @ --path minimal_worker --from 1.5s\n  observer show @ --amqp\n  observer show @ --messages --limit 20\n  observer show @ --imports --until connect\n  observer show @ --follow\n  observer show @ --format json | jq -c '.events[] | select(.kind == \"exit\")'"
)]
pub struct Args {
    /// The session's name or id; `@` is the newest
    pub session: String,
    /// Only events of these kinds
    #[arg(long = "kind", value_name = "KIND,…", value_delimiter = ',', value_parser = PossibleValuesParser::new(Body::KINDS))]
    pub kinds: Vec<String>,
    /// Only events of these processes
    #[arg(long = "pid", value_name = "PID,…", value_delimiter = ',')]
    pub pids: Vec<u32>,
    /// Only events about files whose path contains this
    #[arg(long, value_name = "TEXT")]
    pub path: Option<String>,
    /// Not before this moment since the start (1.5s, 200ms, 3m)
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration_ns)]
    pub from: Option<u64>,
    /// Not after this moment since the start
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration_ns)]
    pub to: Option<u64>,
    /// At most so many events
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// Leave nothing out
    #[arg(long)]
    pub all: bool,
    /// Show the environment of every program that was started
    #[arg(long)]
    pub env: bool,
    /// Go on as the session is recorded, until its recording is over; on a terminal as a view (? lists its keys), else as lines
    #[arg(long, conflicts_with_all = ["summary", "view", "message"])]
    pub follow: bool,
    /// One screen: what ran, how it ended, and what stood out
    #[arg(long, conflicts_with_all = ["kinds", "pids", "path", "from", "to", "limit", "all", "env"])]
    pub summary: bool,
    /// What was said to the broker and by it, connection by connection
    #[arg(long, group = "view", conflicts_with_all = ["summary", "kinds", "path", "from", "to", "env"])]
    pub amqp: bool,
    /// The messages: published, delivered, settled, by whom, and how long that took
    #[arg(long, group = "view", conflicts_with_all = ["summary", "kinds", "path", "from", "to", "env", "all"])]
    pub messages: bool,
    /// The queues: declared, consumed and published to by whom, and what the broker says of them
    #[arg(long, group = "view", conflicts_with_all = ["summary", "kinds", "pids", "path", "from", "to", "env", "all", "limit"])]
    pub queues: bool,
    /// How far each worker came on its way to consuming, and what proves it
    #[arg(long, group = "view", conflicts_with_all = ["summary", "kinds", "path", "from", "to", "env", "all", "limit"])]
    pub ladder: bool,
    /// What each process imported, from where, for whom, and how long it took: the slowest, the failed and your own
    #[arg(long, group = "view", conflicts_with_all = ["summary", "kinds", "path", "from", "to", "env"])]
    pub imports: bool,
    /// With --imports: all of them, each below the one that imported it
    #[arg(long, requires = "imports")]
    pub tree: bool,
    /// With --imports: only what had begun by then: connect, ready (it consumes), exit, or a time since the start (1.5s)
    #[arg(long, value_name = "MOMENT", requires = "imports", value_parser = imports::Until::parse)]
    pub until: Option<imports::Until>,
    /// With --messages: only those whose id begins like this
    #[arg(long, value_name = "ID", requires = "messages", conflicts_with_all = ["amqp", "queues", "ladder", "imports"])]
    pub message: Option<String>,
}

impl Args {
    /// What the session is asked for. The limit is not part of it: it counts what is shown, not what is read.
    pub(super) fn filter(&self) -> Filter {
        Filter {
            ids: Vec::new(),
            kinds: self.kinds.clone(),
            pids: self.pids.iter().copied().map(Pid).collect(),
            path_contains: self.path.clone(),
            from_ns: self.from,
            to_ns: self.to,
            after_id: None,
            up_to_id: None,
            limit: None,
        }
    }

    /// Whether something was asked for that only lines can show.
    pub(super) const fn asks_for_lines(&self) -> bool {
        self.path.is_some()
            || self.from.is_some()
            || self.to.is_some()
            || self.limit.is_some()
            || self.all
            || self.env
    }

    /// The kinds and processes that were asked for, in the words of the view's filter.
    pub(super) fn view_filter(&self) -> String {
        let pids = self.pids.iter().map(u32::to_string);
        self.kinds.iter().cloned().chain(pids).collect::<Vec<_>>().join(",")
    }

    /// The folded view that was asked for.
    const fn view(&self) -> Option<View> {
        if self.amqp {
            Some(View::Amqp)
        } else if self.messages {
            Some(View::Messages)
        } else if self.queues {
            Some(View::Queues)
        } else if self.ladder {
            Some(View::Ladder)
        } else {
            None
        }
    }

    /// Whether to leave out what nobody asked for: not when something was asked for by kind or path.
    const fn leaves_out(&self) -> bool {
        !self.all && self.kinds.is_empty() && self.path.is_none()
    }
}

/// Prints the session.
///
/// # Errors
/// When there is no such session, when it cannot be read, or when standard output cannot be written. A reader that has seen enough
/// (`| head`) is no error.
pub fn run(args: &Args, context: &Context) -> anyhow::Result<ExitStatus> {
    let path = context.open_state_dir()?.find(&args.session)?;
    if args.follow {
        return live::show(args, context, &path);
    }
    let session = Session::open(&path)?;
    let colors = if context.color { ColorChoice::AlwaysAnsi } else { ColorChoice::Never };
    let mut out = io::BufWriter::new(AutoStream::new(io::stdout().lock(), colors));
    let written = match context.format {
        Format::Text => screen(args, &session, columns(), &mut out),
        Format::Json => document(args, &session, &mut out),
    };
    match written.and_then(|()| Ok(out.flush()?)) {
        Err(error) if is_closed_pipe(&error) => Ok(ExitStatus::SUCCESS),
        result => result.map(|()| ExitStatus::SUCCESS),
    }
}

/// The terminal's width; 100 where there is none.
pub(super) fn columns() -> usize {
    terminal_size::terminal_size().map_or(100, |(width, _)| width.0.into())
}

pub(super) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Writes a session as text: the timeline, or the summary in so many columns.
///
/// # Errors
/// When the session cannot be read, or the stream cannot be written.
pub fn screen(args: &Args, session: &Session, columns: usize, out: &mut impl Write) -> anyhow::Result<()> {
    if args.imports {
        return progress::while_slow("reading the session", || imports::screen(args, session, columns, out));
    }
    if let Some(view) = args.view() {
        return progress::while_slow("reading the session", || views::screen(view, args, session, out));
    }
    let header = session.header();
    if args.summary {
        let model =
            progress::while_slow("reading the session", || fold::fold(session, &Filter::default(), None))?;
        summary::write(out, header, session.ending().as_ref(), &model, columns)?;
        return Ok(());
    }
    let mut timeline = Timeline::new(args, header, out);
    let not_understood = session.events(&args.filter(), |id, event| timeline.take(id, &event))?;
    timeline.finish(not_understood)?;
    Ok(())
}

/// Writes a session as one JSON document, streamed: schema `observer.show/1`. All kinds, unless some were asked for.
///
/// # Errors
/// When the session cannot be read, or the stream cannot be written.
pub fn document(args: &Args, session: &Session, out: &mut impl Write) -> anyhow::Result<()> {
    if args.imports {
        return imports::document(args, session, out);
    }
    if let Some(view) = args.view() {
        return views::document(view, args, session, out);
    }
    if args.summary {
        bail!(
            "cannot write the summary as JSON: it is a screen for people; leave out --summary to get the events"
        );
    }
    let header = session.header();
    write!(out, r#"{{"schema":"observer.show/1","session":"#)?;
    json::write(out, &json::Described::new(session))?;
    write!(out, r#","events":["#)?;
    let mut written = 0;
    let mut result = Ok(());
    session.events(&Filter { limit: args.limit, ..args.filter() }, |id, event| {
        let separator = if written == 0 { "\n" } else { ",\n" };
        written += 1;
        let record = json::Record::new(id, &event, header.started_ns);
        result = out.write_all(separator.as_bytes()).and_then(|()| json::write(out, &record));
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    result?;
    writeln!(out, "\n]}}")?;
    Ok(())
}

/// Writes events as they come, and remembers what it left out.
pub(super) struct Timeline<'a, W> {
    args: &'a Args,
    header: &'a Header,
    out: &'a mut W,
    shown: u64,
    /// There was more than the limit.
    cut: bool,
    left_out: BTreeMap<&'static str, u64>,
    result: io::Result<()>,
}

impl<'a, W: Write> Timeline<'a, W> {
    pub(super) const fn new(args: &'a Args, header: &'a Header, out: &'a mut W) -> Self {
        Self { args, header, out, shown: 0, cut: false, left_out: BTreeMap::new(), result: Ok(()) }
    }

    pub(super) fn take(&mut self, _id: u64, event: &Event) -> ControlFlow<()> {
        if self.args.leaves_out() && is_search(&event.body) {
            *self.left_out.entry(event.body.kind()).or_default() += 1;
            return ControlFlow::Continue(());
        }
        if self.args.limit.is_some_and(|limit| self.shown >= limit) {
            self.cut = true;
            return ControlFlow::Break(());
        }
        self.shown += 1;
        self.result = self.write(event);
        if self.result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    fn write(&mut self, event: &Event) -> io::Result<()> {
        timeline::line(event, self.header.started_ns).write(self.out, None)?;
        if self.args.env {
            for line in timeline::environment(event) {
                line.write(self.out, None)?;
            }
        }
        Ok(())
    }

    /// Where it is written.
    pub(super) const fn out(&mut self) -> &mut W {
        self.out
    }

    /// Says what is not there, and how to see it.
    pub(super) fn finish(self, not_understood: u64) -> io::Result<()> {
        self.result?;
        let mut say = |style, text: String| Line::new().with(style, text).write(self.out, None);
        if self.shown == 0 && self.left_out.is_empty() {
            say(DIM, "no such events; `observer show --help` lists the kinds".to_owned())?;
        }
        if !self.left_out.is_empty() {
            let counts: Vec<String> =
                self.left_out.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
            let name = words::command(std::slice::from_ref(&self.header.name));
            let counts = counts.join(", ");
            let what = "left out, file look-ups and imports";
            say(DIM, format!("{what}: {counts}; with them: observer show {name} --all"))?;
        }
        if self.cut {
            say(DIM, format!("stopped after {} (--limit)", units::counted(self.shown, "event")))?;
        }
        if not_understood > 0 {
            let count = units::counted(not_understood, "event");
            say(ODD, format!("{count} could not be read: a newer observer recorded them"))?;
        }
        Ok(())
    }
}

/// Whether an event is part of looking for files or modules: of those, only what was opened or refused tells something by itself.
pub(super) fn is_search(body: &Body) -> bool {
    match body {
        Body::Open(call) if call.errno == 0 => files::imported(body).is_none(),
        Body::Open(call) => files::is_missing(call.errno),
        Body::Stat(_) | Body::Access(_) | Body::Readlink(_) | Body::Scan(_) | Body::FileLook(_) => true,
        Body::Import(_) | Body::CachedImport(_) => true,
        Body::Imported(import) => import.loaded,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
