//! `cargo xtask scenarios`: the corpus of real failures, run for real. It knows no scenario.

use std::path::PathBuf;

use anyhow::{Result, bail};
use tests::rabbit;
use tests::scenario::{self, Options};

use crate::machine;

const JOBS: usize = 6;
const BACKEND: &str = "ebpf";

/// Flags of `cargo xtask scenarios`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only scenarios called so: `family/name@variant` with `*` for any text, or a part of it
    #[arg(value_name = "GLOB")]
    patterns: Vec<String>,
    /// How many at once: they mostly wait
    #[arg(long, default_value_t = JOBS)]
    jobs: usize,
    /// How the observer is to observe
    #[arg(long, default_value = BACKEND, value_parser = ["auto", "ebpf", "ptrace"])]
    backend: String,
    /// Copy each session to DIR/NAME.session.zst; `tests/fixtures` is where the tests look for them
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Take this observer instead of building one
    #[arg(long, value_name = "FILE", env = "OBSERVER_BIN")]
    observer: Option<PathBuf>,
    /// Only say what there is
    #[arg(long)]
    list: bool,
}

/// Runs the scenarios.
pub(crate) fn main(args: &Args) -> Result<()> {
    if args.list {
        return scenario::list(&args.patterns);
    }
    machine::can_observe("scenarios")?;
    rabbit::install()?;
    let program = match &args.observer {
        Some(program) => program.canonicalize()?,
        None => machine::observer()?,
    };
    run(Options {
        patterns: args.patterns.clone(),
        jobs: args.jobs,
        backend: args.backend.clone(),
        keep: args.keep.clone(),
        ..options(program)
    })
}

/// All of them, with this observer.
pub(crate) fn options(program: PathBuf) -> Options {
    Options { patterns: Vec::new(), jobs: JOBS, backend: BACKEND.into(), twice: false, keep: None, program }
}

/// Runs these, and fails when anything is not right.
pub(crate) fn run(options: Options) -> Result<()> {
    let totals = scenario::run(&options)?;
    if !totals.all_right() {
        bail!("not all scenarios are right: {totals}");
    }
    Ok(())
}
