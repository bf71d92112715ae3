//! `observer export`: a session in the format of another program. Knows sessions and where the result goes; the formats are `export`'s.

mod file;
#[cfg(feature = "parquet")]
mod folder;
mod otlp;
mod parquet;
#[cfg(feature = "parquet")]
mod store;

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::builder::{PossibleValue, PossibleValuesParser};
use file::Aside;

use super::{Context, ExitStatus, diff, print, progress};
use crate::{
    compare::{self, Comparison, run::Run},
    diagnose::{self, case::Case},
    export::{ExportError, Format, Progress, html, jsonl, markdown, pcapng, perfetto},
    fold,
    session::{Filter, Invoker, Session, StateDir},
};

/// What is written at once.
const BUFFER_BYTES: usize = 1 << 20;

/// Writes a session in the format of another program.
///
/// html is a page for a browser; jsonl is for jq, pandas and databases; pcapng for Wireshark and tshark; perfetto for ui.perfetto.dev;
/// parquet for DuckDB, ClickHouse and Spark; otlp goes to an OpenTelemetry collector; markdown to paste into an issue. Each carries what was
/// lost and what could not be seen, and no secret.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  observer export @ --format jsonl | jq -c 'select(.kind == \"exit\")'\n  observer export @ --format pcapng -o amqp.pcapng && wireshark amqp.pcapng\n  observer export @ --format perfetto -o run.perfetto-trace     (open it in ui.perfetto.dev)\n  observer export @ --format parquet -o fleet     (many sessions, one folder; or -o s3://BUCKET/PREFIX)\n  observer export @ --format otlp --endpoint http://127.0.0.1:4317\n  observer export @ --format html -o report.html\n  observer export bad --against good --format markdown >>debugging.md\n  observer export --schema pcapng\n\nWireshark takes port 5672 for AMQP. When the broker listens elsewhere, say so: wireshark -d tcp.port==28450,amqp amqp.pcapng"
)]
pub struct Args {
    /// The session's name or id; `@` is the newest
    #[arg(default_value = "@")]
    pub session: String,
    /// The format
    #[arg(long, value_name = "FORMAT", value_parser = formats(), required_unless_present = "schema")]
    pub format: Option<String>,
    /// Where to write it; `-` is standard output [default: -]. With parquet: a folder, or s3://BUCKET/PREFIX
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// With html and markdown: the session of a run that works, to say what differs from it
    #[arg(long, value_name = "SESSION", conflicts_with = "schema")]
    pub against: Option<String>,
    /// Print what is where in a format, and the version of that, instead
    #[arg(long, value_name = "FORMAT", value_parser = Format::NAMES, conflicts_with_all = ["format", "output", "session"])]
    pub schema: Option<String>,
    /// Where to send it, with otlp
    #[command(flatten)]
    pub otlp: otlp::Args,
}

/// The formats; one that this program was not built to write is not offered, and says how to get it when it is asked for.
fn formats() -> PossibleValuesParser {
    Format::ALL.map(|format| PossibleValue::new(format.name()).hide(!format.is_built())).into()
}

/// Exports a session.
///
/// # Errors
/// When there is no such session or it cannot be read, when the result cannot be written, or when it would go to a terminal that could not
/// show it. A reader that has seen enough (`| head`) is no error.
pub fn run(args: &Args, context: &Context) -> anyhow::Result<ExitStatus> {
    if let Some(format) = args.schema.as_deref().and_then(Format::named) {
        print(&format.schema()?)?;
        return Ok(ExitStatus::SUCCESS);
    }
    let name = args.format.as_deref().unwrap_or_default();
    let Some(format) = Format::named(name) else {
        bail!("cannot export as `{name}`: choose --format {}", Format::NAMES.join(", "));
    };
    if args.against.is_some() && !matches!(format, Format::Html | Format::Markdown) {
        bail!("cannot write a comparison as {name}: --against goes with --format html and markdown");
    }
    if let Some(option) = args.otlp.given().filter(|_| format != Format::Otlp) {
        bail!("cannot send {name} anywhere: {option} goes with --format otlp");
    }
    if args.output.is_some() && format == Format::Otlp {
        bail!("cannot write otlp into a file: it is sent to --endpoint; for files choose jsonl or perfetto");
    }
    crate::memory::share_one_heap();
    let dir = context.open_state_dir()?;
    let session = Session::open(&dir.find(&args.session)?)?;
    if format == Format::Otlp {
        return otlp::run(&args.otlp, &session);
    }
    let output = args.output.as_deref().filter(|path| path.as_os_str() != "-");
    if format == Format::Parquet {
        parquet::export(&session, output)?;
        return Ok(ExitStatus::SUCCESS);
    }
    let Some(path) = output else {
        if format.is_binary() && io::stdout().is_terminal() {
            bail!(
                "cannot write {name} to a terminal: it is not text; name a file with -o, or put a pipe behind it"
            );
        }
        let mut out = BufWriter::with_capacity(BUFFER_BYTES, io::stdout().lock());
        let written = write(args, format, &dir, &session, &mut out).and_then(|()| Ok(out.flush()?));
        return match written {
            Err(error) if is_closed_pipe(&error) => Ok(ExitStatus::SUCCESS),
            result => result.map(|()| ExitStatus::SUCCESS),
        };
    };
    let mut aside = Aside::create(path, &Invoker::current())?;
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, aside.file());
    write(args, format, &dir, &session, &mut out)
        .and_then(|()| Ok(out.flush()?))
        .with_context(|| format!("cannot export to {}", path.display()))?;
    drop(out);
    aside.finish()?;
    Ok(ExitStatus::SUCCESS)
}

fn write(
    args: &Args,
    format: Format,
    dir: &StateDir,
    session: &Session,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let progress = Progress::default();
    let total = session.newest_id();
    let against =
        || args.against.as_deref().map(|working| against_other(dir, working, &args.session)).transpose();
    match format {
        Format::Html => {
            let against = against()?;
            let against = against.as_ref().map(|(working, comparison)| (working, comparison));
            progress::while_counted("exporting", total, progress.counter(), || {
                html::write(session, against, out, &progress)
            })?;
        }
        Format::Jsonl => progress::while_counted("exporting", total, progress.counter(), || {
            jsonl::write(session, out, &progress)
        })?,
        Format::Perfetto => progress::while_counted("exporting", total, progress.counter(), || {
            perfetto::write(session, out, &progress)
        })?,
        // It is sent, not written.
        Format::Otlp => {}
        Format::Markdown | Format::Pcapng => {
            let model = progress::while_slow("reading the session", || {
                fold::fold(session, &Filter::default(), None)
            })?;
            let ending = session.ending();
            let case = Case::new(session.header(), ending.as_ref(), &model);
            let explanation = diagnose::explain(&case);
            if format == Format::Pcapng {
                progress::while_counted("exporting", pcapng::events(&model), progress.counter(), || {
                    pcapng::write(session, &case, &explanation, out, &progress)
                })?;
            } else {
                let against = against()?;
                let against = against.as_ref().map(|(working, comparison)| (working, comparison));
                markdown::write(&case, &explanation, against, out).map_err(ExportError::from)?;
            }
        }
        // It is no stream.
        Format::Parquet => {}
    }
    Ok(())
}

/// The run that works, and what differs from it.
fn against_other(dir: &StateDir, working: &str, failing: &str) -> anyhow::Result<(Run, Comparison)> {
    progress::while_slow("reading the sessions", || {
        let (working, failing) = (diff::read(dir, working)?, diff::read(dir, failing)?);
        let comparison = compare::compare(&working, &failing);
        Ok((working, comparison))
    })
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<io::Error>().or(match error.downcast_ref::<ExportError>() {
        Some(ExportError::Write(error)) => Some(error),
        _ => None,
    });
    io.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
