//! `observer diff`: what differs between a run that works and one that does not. Knows sessions and rendering; the comparing is
//! `compare`'s.

use std::{
    io::{self, Write},
    ops::ControlFlow,
};

use anstream::{AutoStream, ColorChoice};
use anyhow::Context as _;

use super::{Context, ExitStatus, Format, print, progress, show};
use crate::{
    compare::{
        self,
        run::{Reader, Run},
    },
    render::{diff, json},
    session::{Filter, Session, StateDir},
};

/// Says what differs between a run that works and one that does not, the likeliest cause first.
///
/// Compared are what the two runs were given (environment, arguments, directory, user, limits, interpreter) and what they did (modules,
/// files, the broker, how they ended). Any two sessions can be compared, also of two machines.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  observer diff monday tuesday\n  observer diff monday @ --all\n  observer diff monday @ --format json | jq -r '.differences[0].key'"
)]
pub struct Args {
    /// The session of the run that works: its name or id
    pub working: String,
    /// The session of the run that fails; `@` is the newest
    pub failing: String,
    /// Show all differences, also the unlikely ones
    #[arg(long)]
    pub all: bool,
}

/// Compares two sessions.
///
/// # Errors
/// When there is no such session, or one cannot be read.
pub fn run(args: &Args, context: &Context) -> anyhow::Result<ExitStatus> {
    let dir = context.open_state_dir()?;
    let (working, failing) = progress::while_slow("reading the sessions", || {
        Ok::<_, anyhow::Error>((read(&dir, &args.working)?, read(&dir, &args.failing)?))
    })?;
    let comparison = compare::compare(&working, &failing);
    match context.format {
        Format::Json => print(&json::pretty(&diff::document(&working, &failing, &comparison))?)?,
        Format::Text => {
            let colors = if context.color { ColorChoice::AlwaysAnsi } else { ColorChoice::Never };
            let mut out = io::BufWriter::new(AutoStream::new(io::stdout().lock(), colors));
            let all = args.all || context.verbose > 0;
            let written = diff::write(&mut out, &working, &failing, &comparison, show::columns(), all)
                .and_then(|()| out.flush());
            match written {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                result => result.context("cannot print")?,
            }
        }
    }
    Ok(ExitStatus::SUCCESS)
}

/// Reads a session as a run to compare.
pub(super) fn read(dir: &StateDir, name: &str) -> anyhow::Result<Run> {
    let session = Session::open(&dir.find(name)?)?;
    let mut reader = Reader::new(session.header().started_ns);
    session.events(&Filter::default(), |id, event| {
        reader.add(id, &event);
        ControlFlow::Continue(())
    })?;
    Ok(reader.finish(session.header(), session.ending()))
}
