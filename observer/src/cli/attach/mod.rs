//! `observer attach`: records a command or a running process until it ends, then says what happened. It decides who runs and when
//! it is over; what is seen is the source's, what is kept the session's.

mod backend;
mod broker;
mod end;
mod served;
mod target;

use std::{
    collections::VecDeque,
    ffi::OsString,
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

pub use backend::Backend;
use backend::Tracing;
use broker::Asked;
use end::{Ended, Hearsay, Supervisor};
use nix::sys::resource::Resource;
use target::Target;

use super::{
    Context, ExitStatus,
    live::{Attached, Seat},
    printable, printable_lines, progress, show,
};
use crate::{
    amqp::mask::StreamMasker,
    diagnose::{self, case::Case},
    event::{Body, Event, Pid},
    fold,
    model::Model,
    recording::{Glance, Recording},
    render::explain,
    session::{Filter, Header, Invoker, Recorder, Redactor, Session, SessionError, StateDir},
    source::{self, Source as _, broker::from_worker::FromWorker, launch::LaunchError, probe, proc},
    words::{self, units},
};

/// Record a command, or a running process and all it started, from outside.
///
/// Nothing is changed in what is observed: it runs as you (under sudo as whoever called it, in the environment sudo was called in), in this
/// directory, with your limits and terminal, and its exit status is the status of this command. Started with --cmd or after --, it is recorded from its first execve on; attached to
/// with --pid, what it did before is read from /proc and marked so.
///
/// What comes out is a session: see `observer ls` and `observer show`.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  sudo observer attach --cmd \"python -m dramatiq minimal_worker\"\n  sudo observer attach --for 30s --name tuesday -- python -m dramatiq minimal_worker -p 2\n  sudo observer attach --pid 4711\n  sudo observer attach --pid minimal_worker --for 1m\n\nExit status: the command's own; 128 + N when signal N killed it; 127 when it was not found, 126 when it\ncannot be executed, 125 when observer itself failed."
)]
pub struct Args {
    /// The command, split into words as a shell splits them; no shell is run
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["pid", "words"])]
    pub cmd: Option<String>,
    /// A running process: its id, or words its command line contains
    #[arg(long, value_name = "PID|TEXT", conflicts_with_all = ["words", "user"])]
    pub pid: Option<String>,
    /// The command and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    pub words: Vec<OsString>,
    /// What to call the session [default: after the command]
    #[arg(long)]
    pub name: Option<String>,
    /// Observe for so long (30s, 5m): a started command is then ended with TERM, and KILL after 10 s more; a process attached to is let go
    #[arg(long = "for", value_name = "TIME", value_parser = units::parse_duration_ns)]
    pub limit: Option<u64>,
    /// Ask this broker for its own account (amqp://user:password@host:port/vhost), or the one the worker logs in to, with its credentials
    #[arg(long, value_name = "URL|worker", env = "OBSERVER_BROKER", hide_env_values = true)]
    pub broker: Option<String>,
    /// The broker's management API, when it is not ten thousand ports above AMQP
    #[arg(long, value_name = "URL", requires = "broker")]
    pub management: Option<String>,
    /// Turn on the broker's tracing (its firehose) to see every message, and off again at the end; it costs the broker time
    #[arg(long, requires = "broker")]
    pub firehose: bool,
    /// How to observe
    #[arg(long, value_enum, default_value = "auto")]
    pub backend: Backend,
    /// With ptrace, stop the command by a seccomp filter at the calls that are recorded only: several times faster, and for throwaway runs. A
    /// filter stays for good: what the command leaves running is ended with it, and if observer is killed the command cannot go on
    #[arg(long, conflicts_with = "pid")]
    pub seccomp: bool,
    /// Run the command as this user [default: whoever called sudo]
    #[arg(long)]
    pub user: Option<String>,
    /// Give the command the environment in this file, `NAME=value` strings ended by NUL, as in /proc/PID/environ
    #[arg(long, value_name = "FILE", conflicts_with = "pid", hide = true)]
    pub environment: Option<PathBuf>,
    /// Give the command this file mode creation mask, in octal
    #[arg(long, value_name = "MASK", value_parser = |text: &str| u32::from_str_radix(text, 8), conflicts_with = "pid", hide = true)]
    pub umask: Option<u32>,
    /// Give the command this soft limit: NOFILE=64
    #[arg(long = "limit", value_name = "NAME=SOFT", value_parser = target::limit, conflicts_with = "pid", hide = true)]
    pub limits: Vec<(Resource, u64)>,
    /// Show what is recorded as it comes. With --pid on a terminal as a view (? lists its keys; q leaves it, the recording goes on); where
    /// the command has the terminal, what is new; else, events as lines on standard error, with --format json as JSON
    #[arg(long)]
    pub follow: bool,
    /// Bytes kept of one read or write
    #[arg(long, value_name = "BYTES", default_value_t = 65_536, value_parser = clap::value_parser!(u64).range(0..=source::ebpf::SNAPLEN_MAX))]
    pub snaplen: u64,
    /// Keep message bodies as they are; otherwise arguments, and bodies that are no dramatiq message, are blanked before they are stored
    #[arg(long)]
    pub bodies: bool,
    /// Print nothing but errors: no first line, no verdict
    #[arg(short, long, conflicts_with = "follow")]
    pub quiet: bool,
}

/// Records, and returns the status to exit with.
///
/// # Errors
/// When nothing could be started or recorded; the caller exits with 125.
pub fn run(args: &Args, context: &Context) -> anyhow::Result<ExitStatus> {
    let begun_ns = proc::monotonic_ns();
    let invoker = Invoker::current();
    let target = Target::from_args(args, &invoker)?;
    let mut capabilities = probe::machine();
    if args.backend == Backend::Ebpf {
        probe::require_ebpf(&capabilities)?;
    }
    if let Some(service) = served::wanted(args, context, &capabilities)? {
        return served::run(args, context, &target, service);
    }
    let dir = StateDir::open(context.state_dir.as_deref(), &invoker)?;
    let name = match &args.name {
        Some(name) => {
            dir.check_name(name)?;
            name.clone()
        }
        None => dir.name_for(&target.command())?,
    };
    let asked = Asked::from_args(args)?;
    let (mut source, choice) =
        Tracing::choose(args.backend, &capabilities, args.snaplen, &asked.ports(), args.seccomp)?;
    if matches!(source, Tracing::Ptrace(_)) {
        capabilities.push(probe::ptrace());
    }
    let broker = asked.source(args);
    let header = Header {
        id: dir.new_id()?,
        name: name.clone(),
        command: target.command(),
        attached: target.attached(),
        backend: source.describe().name,
        started_at: jiff::Timestamp::now().to_string(),
        started_ns: proc::monotonic_ns(),
        observer_version: env!("CARGO_PKG_VERSION").into(),
        host: probe::host(),
        kernel: probe::kernel_release(),
        snaplen: args.snaplen,
        sources: std::iter::once(source.describe())
            .chain(broker.iter().map(|(broker, _)| broker.describe()))
            .collect(),
        capabilities,
    };
    let masker = StreamMasker::new().keeping_user_name();
    let recorder = Recorder::create(&dir, header, Redactor::open(&dir)?)?.with_masker(if args.bodies {
        masker.keeping_bodies()
    } else {
        masker
    });
    let path = recorder.path().to_owned();

    // A terminal that goes away, or a reader of ours that does, must not end the recording.
    let seat = args.follow.then(|| Seat::find(target.attached().is_none(), context.format));
    let stops = end::block_signals(seat.as_ref().map_or(&[], Seat::signals))?;
    let held = match &target {
        Target::Start(command) => {
            source.expect(&command.start());
            // The child goes on with the signals as we were given them.
            let held = stops.unblocked(|| command.hold(source.filter()))??;
            source.follow(held.pid)?;
            Some(held)
        }
        Target::Running { pid, .. } => {
            source.attach(*pid)?;
            None
        }
    };
    let root = held.as_ref().map(|held| held.pid);
    let stats = Stats::default();
    if !args.quiet {
        say(&format!(
            "observer: recording {} as session {name} ({}){}",
            printable(&words::command(&target.command())),
            source.title(),
            if root.is_some() { "" } else { "; Ctrl-C lets it go" }
        ));
    }
    if let Some(choice) = choice.filter(|_| !args.quiet) {
        say(&format!("observer: {choice}"));
    }
    if matches!(seat, Some(Seat::Shared)) {
        say(&format!(
            "observer: the command has this terminal; to follow in a view, in another one: observer show {name} --follow"
        ));
    }
    let tracing_after_ns = proc::monotonic_ns() - begun_ns;
    let seen = SignalsSeen::default();
    let facts = source.last_facts();
    let root_end = source.root_end();
    let mut sources = vec![source.into_source()];
    let found = broker.map(|(broker, found)| {
        sources.push(Box::new(broker));
        found
    });
    let glance = glance(root, seen.clone(), stats.clone(), found);
    let recording = Recording::start(sources, recorder, glance);
    let following = seat.map(|seat| Attached::start(seat, &path, context));
    let launched = held.map(|held| held.release());
    let supervisor = Supervisor {
        root,
        root_end,
        attached: target.attached(),
        limit_ns: args.limit,
        seen: Hearsay::Own(seen),
    };
    let ended = supervisor.wait(&stops);
    if let Some(following) = &following {
        following.close();
    }
    let trouble = progress::while_slow("closing the session", || recording.finish(ended.ending()));
    if let Some(Err(error)) = following.map(Attached::join) {
        say(&format!("observer: cannot follow the session: {error:#}; it is recorded all the same"));
    }
    stats.write(tracing_after_ns, facts.get().map_or(&[], Vec::as_slice));

    if let Some(trouble) = trouble {
        say(&format!("observer: {trouble}"));
    }
    // Only an explanation asks for files.
    let wanted = if args.quiet { fold::without_files() } else { Filter::default() };
    let model = progress::while_slow("reading the session", || fold::derive(&path, &wanted));
    Ok(left_over(SharedEnd { args, context, path: &path, name: &name, model, launched, root, ended: &ended }))
}

/// What an observation leaves to be said when it has ended.
struct SharedEnd<'a> {
    args: &'a Args,
    context: &'a Context,
    path: &'a Path,
    name: &'a str,
    model: Result<Model, SessionError>,
    launched: Option<Result<(), LaunchError>>,
    root: Option<Pid>,
    ended: &'a Ended,
}

/// Says what is to be said at the end, and gives the status to exit with.
fn left_over(end: SharedEnd<'_>) -> ExitStatus {
    let SharedEnd { args, context, path, name, model, launched, root, ended } = end;
    let not_started = launched.as_ref().and_then(|launched| launched.as_ref().err());
    if let Some(error) = not_started {
        say(&format!("observer: {error}"));
        say(&format!("  the attempts are in the session: observer show {name} --kind exec-failed"));
    }
    if !args.quiet {
        match model {
            Ok(model) => {
                explanation(path, &model, context);
                if root.is_some() {
                    left_behind(&model);
                }
            }
            Err(error) => {
                say(&format!("observer: cannot explain: {error:#}; the session is {}", path.display()));
            }
        }
    }
    ExitStatus::from(not_started.map_or_else(|| ended.status(), |error| error.status()))
}

/// Prints what is concluded to standard error: standard output is the command's own.
fn explanation(path: &Path, model: &Model, context: &Context) {
    let shown = Session::open(path).map_err(anyhow::Error::from).and_then(|session| {
        let mut out = anstream::AutoStream::new(std::io::stderr(), context.choice);
        let ending = session.ending();
        let case = Case::new(session.header(), ending.as_ref(), model);
        let whole = context.verbose > 0;
        Ok(explain::write(&mut out, &case, &diagnose::explain(&case), show::columns(), whole)?)
    });
    if let Err(error) = shown {
        say(&format!("observer: cannot print the explanation: {error:#}; the session is {}", path.display()));
    }
}

/// Says which processes the command has left: we end it, and nobody else.
fn left_behind(model: &Model) {
    const NAMED: usize = 5;
    // What has ended meanwhile is nobody's concern.
    let left = model
        .processes
        .iter()
        .filter(|process| process.alive() && !matches!(proc::state(process.pid.0), None | Some('Z')));
    let pids: Vec<String> = left.map(|process| process.pid.to_string()).collect();
    if pids.is_empty() {
        return;
    }
    let more = if pids.len() > NAMED { " …" } else { "" };
    say(&format!(
        "observer: the command left {} running, no longer observed; to end them: kill {}{more}",
        units::counted(pids.len() as u64, "process"),
        pids.iter().take(NAMED).cloned().collect::<Vec<_>>().join(" "),
    ));
}

/// To standard error; if nobody reads it there is nothing to be done about it.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{}", printable_lines(line));
}

/// Signals our command was sent, by whom: what a process group was sent reaches it without us.
#[derive(Clone, Default)]
struct SignalsSeen(Arc<Mutex<VecDeque<(i32, u32, u64)>>>);

impl SignalsSeen {
    const KEPT: usize = 32;

    fn add(&self, signal: i32, sender: u32, at_ns: u64) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= Self::KEPT {
            seen.pop_front();
        }
        seen.push_back((signal, sender, at_ns));
    }

    /// Whether `sender` sent our command the same signal at `since_ns` or later.
    fn has(&self, signal: i32, sender: u32, since_ns: u64) -> bool {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().any(|(number, by, at_ns)| *number == signal && *by == sender && *at_ns >= since_ns)
    }
}

fn glance(root: Option<Pid>, seen: SignalsSeen, stats: Stats, mut found: Option<FromWorker>) -> Glance {
    Box::new(move |event| {
        stats.count(event);
        if let Some(found) = &mut found {
            found.look(event);
        }
        if let Body::Signal { signal, sender, .. } = &event.body
            && Some(event.pid) == root
        {
            // 0 as in `siginfo`: the kernel.
            seen.add(*signal, sender.get().map_or(0, |sender| sender.pid.0), event.at_ns);
        }
    })
}

/// What `cargo xtask bench` asks about ourselves, written to the file named by `OBSERVER_STATS`.
#[derive(Clone, Default)]
struct Stats(Arc<Mutex<(u64, u64)>>);

impl Stats {
    fn count(&self, event: &Event) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &event.body {
            Body::Lost { count, .. } => counts.1 += count,
            Body::Gap { .. } => counts.1 += 1,
            _ => counts.0 += 1,
        }
    }

    fn write(&self, tracing_after_ns: u64, programs: &[source::ebpf::ProgramFacts]) {
        let Some(path) = std::env::var_os("OBSERVER_STATS") else { return };
        let (events, lost) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stats = serde_json::json!({
            "cpu_s": probe::own_cpu_seconds(),
            "peak_rss_bytes": probe::own_peak_rss_bytes(),
            "events": events,
            "lost": lost,
            "tracing_after_ns": tracing_after_ns,
            "programs": programs,
            "calls": source::ptrace::recorded(),
        });
        if let Err(error) = std::fs::write(&path, stats.to_string()) {
            say(&format!("observer: cannot write {}: {error}", path.to_string_lossy()));
        }
    }
}
