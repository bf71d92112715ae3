//! `cargo xtask pairs`: workers that work and workers that fail, compared and bisected for real. It knows no pair.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use tests::rabbit;
use tests::scenario::pairs::{self, Options};

use crate::machine;

const JOBS: usize = 6;

/// Flags of `cargo xtask pairs`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only pairs called so: `name` with `*` for any text, or a part of it
    #[arg(value_name = "GLOB")]
    patterns: Vec<String>,
    /// How many at once: they mostly wait
    #[arg(long, default_value_t = JOBS)]
    jobs: usize,
    /// Only compare: run nothing again
    #[arg(long)]
    only_diff: bool,
    /// Take this observer instead of building one
    #[arg(long, value_name = "FILE", env = "OBSERVER_BIN")]
    observer: Option<PathBuf>,
}

/// Runs the pairs.
pub(crate) fn main(args: &Args) -> Result<()> {
    machine::can_observe("pairs")?;
    rabbit::install()?;
    let program = match &args.observer {
        Some(program) => program.canonicalize()?,
        None => machine::observer()?,
    };
    run(&Options { patterns: &args.patterns, jobs: args.jobs, bisect: !args.only_diff, program: &program })
}

/// All of them, with this observer.
pub(crate) fn all(program: &Path) -> Result<()> {
    run(&Options { patterns: &[], jobs: JOBS, bisect: true, program })
}

fn run(options: &Options<'_>) -> Result<()> {
    let totals = pairs::run(options)?;
    if !totals.all_right(options.patterns.is_empty()) {
        bail!("not all pairs are right: {totals}");
    }
    Ok(())
}
