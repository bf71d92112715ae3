//! `cargo xtask bench`: what observing costs, beside doing without, strace and bpftrace, in turns on the same machine. It measures and
//! prints; it judges nothing.

mod case;
mod export;
mod report;
mod service;
mod tool;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use tests::apt::{self, Package};
use tests::rabbit::{self, Broker};
use tests::venv::Venv;

use crate::machine;
use case::{Case, Sample, Stats};
use tool::Tool;

const PACKAGES: &[Package] = &[
    Package::new("strace", "one of the ways to watch that observer is measured beside"),
    Package::new("bpftrace", "one of the ways to watch that observer is measured beside"),
];

const STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Flags of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Cases to run (default: all)
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Case>,
    /// Ways to watch (default: all; `nothing` is always measured)
    #[arg(long, value_enum, value_delimiter = ',')]
    tools: Vec<Tool>,
    /// How often each pair is measured; the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How many events the session has that is exported
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// How many short workers the service sees come and go
    #[arg(long, default_value_t = 1_000)]
    workers: u32,
    /// In what time they do (90s, 10m)
    #[arg(long, default_value = "10m", value_parser = service::span)]
    over: Duration,
    /// Measure this observer rather than build one
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Print the numbers as JSON instead, but for those of the service
    #[arg(long)]
    json: bool,
}

/// What every measurement needs.
struct Lab {
    broker: Broker,
    venv: Venv,
    observer: PathBuf,
    /// What observer records, by its own word, for tools that are to record the same.
    calls: Vec<String>,
    scratch: tempfile::TempDir,
}

/// Everything measured of one way to watch in one case.
struct Series {
    tool: Tool,
    samples: Vec<Sample>,
    /// Why there are no more samples.
    failed: Option<String>,
}

/// One case, every tool in turn.
struct Outcome {
    case: Case,
    series: Vec<Series>,
    /// A further run of ours with the kernel's own accounting of programs on, which costs a little.
    probes: Option<Sample>,
}

/// Measures and prints.
pub(crate) fn main(args: &Args) -> Result<()> {
    machine::can_observe("bench")?;
    let mut cases = if args.only.is_empty() { Case::value_variants().to_vec() } else { args.only.clone() };
    let exports = cases.contains(&Case::Export);
    let service = cases.contains(&Case::Service);
    cases.retain(|case| !matches!(case, Case::Export | Case::Service));
    let mut tools = if args.tools.is_empty() { Tool::value_variants().to_vec() } else { args.tools.clone() };
    tools.retain(|tool| *tool != Tool::Nothing);
    tools.insert(0, Tool::Nothing);
    let observer = args.binary.clone().map_or_else(machine::observer, Ok)?;
    if service {
        service::measure(&observer, args.workers, args.over)?;
    }
    let exported = if exports { export::measure(&observer, args.events, args.rounds)? } else { Vec::new() };
    if cases.is_empty() && !exports {
        return Ok(());
    }
    if cases.is_empty() {
        return show(&[], &exported, args);
    }
    apt::ensure(PACKAGES)?;
    rabbit::install()?;
    let scratch = tempfile::tempdir().context("cannot create a temporary folder")?;
    let lab = Lab {
        venv: Venv::ensure()?,
        calls: calls(&observer, scratch.path())?,
        observer,
        // As the last tool asks it for its own account, all are measured with the plugins that takes.
        broker: Broker::start(&["rabbitmq_management", "rabbitmq_event_exchange"])?,
        scratch,
    };
    // The kernel's accounting of programs costs more than a small program does. Some run left it on, or the machine's owner wants it.
    let outcomes = with_program_stats("0", || {
        cases.into_iter().map(|case| measure(&lab, case, &tools, args.rounds)).collect::<Result<Vec<_>>>()
    })?;
    show(&outcomes, &exported, args)?;
    let failed =
        outcomes.iter().flat_map(|outcome| &outcome.series).filter(|series| series.failed.is_some()).count();
    if failed > 0 {
        bail!("{failed} of the measurements failed, see above");
    }
    Ok(())
}

fn show(outcomes: &[Outcome], exported: &[export::Measured], args: &Args) -> Result<()> {
    if args.json {
        let mut json = report::json(outcomes, args.rounds);
        json["export"] = serde_json::to_value(exported)?;
        println!("{json:#}");
        return Ok(());
    }
    report::text(outcomes, args.rounds);
    if !exported.is_empty() {
        export::text(exported, args.events, args.rounds);
    }
    Ok(())
}

/// Asks the observer, by a run of nothing, which system calls it records.
fn calls(observer: &Path, scratch: &Path) -> Result<Vec<String>> {
    let (state, stats) = (scratch.join("calls"), scratch.join("calls.json"));
    let ran = Command::new(observer)
        .arg("--state-dir")
        .arg(state)
        .args(["attach", "--backend", "ptrace", "--", "true"])
        .env("OBSERVER_STATS", &stats)
        .output()
        .context("cannot run observer")?;
    if !ran.status.success() {
        bail!("observer: {}; it said:\n{}", ran.status, String::from_utf8_lossy(&ran.stderr));
    }
    Ok(Stats::read(&stats)?.calls)
}

fn measure(lab: &Lab, case: Case, tools: &[Tool], rounds: u32) -> Result<Outcome> {
    // Compiled modules and warm page caches are for everyone, not for whoever comes second.
    case.sample(lab, Tool::Nothing).context("the worker does not even run unobserved")?;
    let mut series: Vec<Series> =
        tools.iter().map(|tool| Series { tool: *tool, samples: Vec::new(), failed: None }).collect();
    for round in 1..=rounds {
        // Who comes first has the machine otherwise than who comes last.
        series.reverse();
        for series in series.iter_mut().filter(|series| series.failed.is_none()) {
            match case.sample(lab, series.tool) {
                Ok(sample) => {
                    eprintln!(
                        "{case}, round {round} of {rounds}, {}: {}",
                        series.tool,
                        case.worded(sample.value)
                    );
                    series.samples.push(sample);
                }
                Err(error) => {
                    eprintln!("{case}, round {round} of {rounds}, {}: {error:#}", series.tool);
                    series.failed = Some(format!("{error:#}"));
                }
            }
        }
    }
    series.sort_by_key(|series| tools.iter().position(|tool| *tool == series.tool));
    let ours = series.iter().any(|series| series.tool == Tool::Observer && series.failed.is_none());
    let probes = match ours {
        true => Some(with_program_stats("1", || case.sample(lab, Tool::Observer))?),
        false => None,
    };
    Ok(Outcome { case, series, probes })
}

/// Runs with the kernel counting runs and time of eBPF programs, or not; as it does anyway where that cannot be changed.
fn with_program_stats<T>(wanted: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = fs::read_to_string(STATS).unwrap_or_default();
    if before.trim() == wanted || fs::write(STATS, wanted).is_err() {
        return run();
    }
    let result = run();
    fs::write(STATS, before.trim())
        .with_context(|| format!("cannot restore {STATS} to {}", before.trim()))?;
    result
}
