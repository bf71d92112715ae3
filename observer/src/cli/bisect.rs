//! `observer bisect`: turns a difference into an experiment. Runs the command again with subsets of the differences toggled, each run an
//! ordinary recorded session. Knows how a run is made and judged; which to make is `compare::bisect`'s.

mod runner;
mod secrets;

use std::fmt::Write as _;

use anyhow::{Context as _, bail};
use serde::Serialize;

use super::{Context, ExitStatus, Format, diff, print, printable};
use crate::{
    compare::{
        self, Kind,
        bisect::{self, Answer, Base, Outcome},
        toggle::{self, LeftOut, Start, Toggle},
    },
    diagnose::catalogue::Code,
    render::json,
    words::units,
};
use runner::{Interrupted, Record, Runner};

/// Proves which differences decide whether the command works: runs it again and again with some of them toggled.
///
/// Each run is an ordinary recorded session and is judged by its verdict: healthy, idle and stopped count as working. The smallest set of
/// differences that turns the failing run into a working one, and the working one into a failing one, is `proved`. What was toggled are
/// environment variables, arguments, directory, user, umask, limits and the interpreter; files and packages are never touched.
///
/// The command is run for real, with all it does. Say with --purge and --send what state the broker is to be in before each run.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  sudo observer bisect monday tuesday --dry-run\n  sudo observer bisect monday tuesday --for 10s --broker worker\n  sudo observer bisect monday tuesday --test 'curl -fs http://127.0.0.1:8000/health'\n\nExit status: 0 when a set was proved, 1 when not."
)]
pub struct Args {
    /// The session of the run that works: its name or id
    pub working: String,
    /// The session of the run that fails; `@` is the newest
    pub failing: String,
    /// How long each run is observed
    #[arg(long = "for", value_name = "TIME", default_value = "10s", value_parser = units::parse_duration_ns)]
    pub limit: u64,
    /// How often each direction has to come out the same
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=20))]
    pub repeat: u16,
    /// Ask this broker for its own account in each run, as `observer attach --broker` does
    #[arg(long, value_name = "URL|worker", env = "OBSERVER_BROKER", hide_env_values = true)]
    pub broker: Option<String>,
    /// The broker's management API, when it is not ten thousand ports above AMQP
    #[arg(long, value_name = "URL", requires = "broker")]
    pub management: Option<String>,
    /// A run fails when this is its verdict, and works otherwise
    #[arg(long, value_name = "CODE", value_parser = code)]
    pub until_verdict: Option<Code>,
    /// A run works when this shell command ends with 0, run after it; OBSERVER_SESSION holds the session's name
    #[arg(long, value_name = "COMMAND", conflicts_with = "until_verdict")]
    pub test: Option<String>,
    /// Empty this queue of --broker before each run; can be given more than once
    #[arg(long, value_name = "QUEUE", requires = "broker")]
    pub purge: Vec<String>,
    /// Send a canary before each run: queue, actor and arguments, as `observer send` takes them
    #[arg(long, value_name = "QUEUE ACTOR [ARGS…]", requires = "broker")]
    pub send: Option<String>,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
}

fn code(name: &str) -> Result<Code, String> {
    let known = Code::ALL.iter().copied().find(|code| code.name() == name);
    known.ok_or_else(|| "no such verdict; observer explain --list shows all".to_owned())
}

/// Searches.
///
/// # Errors
/// When a session cannot be read or does not tell what it was started with, or a run cannot be made.
pub fn run(args: &Args, context: &Context) -> anyhow::Result<ExitStatus> {
    let dir = context.open_state_dir()?;
    let (one, two) = (diff::read(&dir, &args.working)?, diff::read(&dir, &args.failing)?);
    let comparison = compare::compare(&one, &two);
    let start = |run, name: &str| {
        Start::of(run).with_context(|| {
            format!("cannot run session {name} again: what it was started with is not known whole; record it from its start")
        })
    };
    let (mut working, mut failing) = (start(&one, &args.working)?, start(&two, &args.failing)?);
    let missing = secrets::put_back(&dir, [&mut working, &mut failing])?;
    if !missing.is_empty() && !args.dry_run {
        bail!(
            "cannot run it again: {} held a secret, which sessions do not keep; set it in the environment of this command",
            missing.join(", ")
        );
    }
    let (toggles, mut left_out) = toggle::toggles(&comparison);
    left_out.extend(missing.iter().map(|name| LeftOut {
        what: name.clone(),
        why: "its value is a secret that is not in the environment",
    }));
    if args.dry_run {
        print(&plan(&toggles, &left_out, args))?;
        return Ok(ExitStatus::SUCCESS);
    }
    let mut runner = Runner::new(args, &dir, &working, &failing, &toggles)?;
    let mut known = Vec::new();
    let answer = bisect::search(toggles.len(), args.repeat.into(), &mut known, &mut |next| runner.run(next));
    let answer = match answer {
        Err(error) if error.is::<Interrupted>() => Answer::Unproved(known, "it was interrupted".to_owned()),
        answer => answer?,
    };
    let report = Report::new(answer, &toggles, runner.finish(), &left_out);
    match context.format {
        Format::Json => print(&json::pretty(&report)?)?,
        Format::Text => print(&report.text())?,
    }
    Ok(if report.proved { ExitStatus::SUCCESS } else { ExitStatus::FAILURE })
}

fn plan(toggles: &[Toggle], left_out: &[LeftOut], args: &Args) -> String {
    let mut text = String::from("would be toggled, the likeliest first:\n");
    for one in toggles {
        let value = |value: &Option<String>| printable(value.as_deref().unwrap_or("(not there)"));
        let _ = writeln!(
            text,
            "  {} {}: {} | {}",
            one.kind.name(),
            printable(&one.key),
            value(&one.working),
            value(&one.failing)
        );
    }
    if toggles.is_empty() {
        text.push_str("  nothing: there is no difference that observer can toggle\n");
    }
    for one in left_out {
        let _ = writeln!(text, "left out: {}: {}", printable(&one.what), one.why);
    }
    let least = 4 * u64::from(args.repeat);
    let _ = writeln!(text, "at least {least} runs of {}", units::duration(args.limit));
    text
}

/// What came of it: schema `observer.bisect/1`.
#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    minimal: Vec<Decisive>,
    runs: Vec<Record>,
    proved: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    left_out: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Decisive {
    kind: Kind,
    key: String,
    working: Option<String>,
    failing: Option<String>,
}

impl Report {
    fn new(answer: Answer, toggles: &[Toggle], runs: Vec<Record>, left_out: &[LeftOut]) -> Self {
        let (set, proved, why) = match answer {
            Answer::Proved(set) => (set, true, None),
            Answer::Unproved(set, why) => (set, false, Some(why)),
        };
        let decisive = set.iter().filter_map(|index| toggles.get(*index)).map(|one| Decisive {
            kind: one.kind,
            key: one.key.clone(),
            working: one.working.clone(),
            failing: one.failing.clone(),
        });
        Self {
            schema: "observer.bisect/1",
            minimal: decisive.collect(),
            runs,
            proved,
            why,
            left_out: left_out.iter().map(|one| format!("{}: {}", one.what, one.why)).collect(),
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let names: Vec<String> =
            self.minimal.iter().map(|one| format!("{} {}", one.kind.name(), printable(&one.key))).collect();
        let _ = match (self.proved, &self.why) {
            (true, _) => writeln!(text, "proved: it works or fails by {}", names.join(" and ")),
            (false, why) => writeln!(text, "not proved: {}", why.as_deref().unwrap_or("unknown")),
        };
        if !self.proved && !names.is_empty() {
            let _ = writeln!(text, "suspected: {}", names.join(" and "));
        }
        for one in &self.minimal {
            let value = |value: &Option<String>| printable(value.as_deref().unwrap_or("(not there)"));
            let _ = writeln!(text, "  {} {}", one.kind.name(), printable(&one.key));
            let _ = writeln!(text, "    works with  {}", value(&one.working));
            let _ = writeln!(text, "    fails with  {}", value(&one.failing));
        }
        for one in &self.left_out {
            let _ = writeln!(text, "left out: {}", printable(one));
        }
        let count = |outcome| self.runs.iter().filter(|run| run.outcome() == outcome).count();
        let _ = writeln!(
            text,
            "{}: {} worked, {} failed, {} unclear; each is a session: observer ls",
            units::counted(self.runs.len() as u64, "run"),
            count(Outcome::Works),
            count(Outcome::Fails),
            count(Outcome::Unclear)
        );
        text
    }
}

/// What a run starts from, for people.
const fn base_name(base: Base) -> &'static str {
    match base {
        Base::Failing => "failing",
        Base::Working => "working",
    }
}
