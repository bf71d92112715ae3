//! `cargo xtask test`: everything that can be tested here, and a plain word on what could not. It knows no test.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use tests::apt::{self, Package};
use tests::rabbit;
use tests::scenario::{self, Options};
use tests::venv::Venv;

use crate::run::{cargo, run};
use crate::{dist, machine, pairs, scenarios, unprivileged};

const PACKAGES: &[Package] = &[
    Package::new("sudo", "tests start the observer as another user"),
    Package::new("strace", "tests hold what was observed against it"),
    tests::tshark::PACKAGE,
    tests::tmux::PACKAGE,
    Package::new("jq", "tests read exported events with it"),
    Package::new("python3-venv", "tests run a worker as a user who cannot enter root's home"),
];

/// Flags of `cargo xtask test`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only the tests that need no root, no broker and no Python
    #[arg(long)]
    unit: bool,
    /// Only what somebody without privilege can run, as user `observer-test` and by ptrace
    #[arg(long, conflicts_with = "unit")]
    unprivileged: bool,
    /// Take this observer instead of building one
    #[arg(long, value_name = "FILE", env = "OBSERVER_BIN")]
    observer: Option<PathBuf>,
    /// Only tests and scenarios whose name contains this
    filter: Option<String>,
}

/// Runs the tests.
pub(crate) fn main(args: &Args) -> Result<()> {
    if args.unprivileged {
        machine::can_observe("test --unprivileged")?;
        apt::ensure(PACKAGES)?;
        rabbit::install()?;
        return unprivileged::test(&observer(args)?, args.filter.as_deref());
    }
    eprintln!("unit tests");
    let mut unit = cargo();
    unit.args(["test", "--quiet", "--workspace", "--exclude", "tests", "--features", "observer/parquet"]);
    unit.args(&args.filter);
    run(&mut unit)?;
    run(cargo()
        .args(["test", "--quiet", "--package", "tests", "--lib", "--test", "fixtures"])
        .args(&args.filter))?;
    if args.unit {
        println!("NOT RUN, as --unit asks: the live tests in tests/tests, tests/scenarios and tests/pairs");
        return Ok(());
    }
    if let Err(reason) = machine::can_observe("test") {
        bail!("NOT RUN: the live tests in tests/tests, tests/scenarios and tests/pairs: {reason}");
    }
    apt::ensure(PACKAGES)?;
    rabbit::install()?;
    let venv = Venv::ensure()?;
    let observer = observer(args)?;
    let package = dist::package(&observer)?;
    eprintln!("live tests: {} watches workers of {}", observer.display(), venv.root().display());
    let tests = cargo()
        .args(["test", "--package", "tests", "--test", "*"])
        .args(&args.filter)
        // A broker takes seconds of processor time to start: many at once would only make each other late.
        .args(["--", "--test-threads=2"])
        .env("OBSERVER_BIN", &observer)
        .env("OBSERVER_DEB", &package)
        .env("OBSERVER_VENV", venv.root())
        .stdin(std::process::Stdio::null())
        .status()
        .context("cannot run cargo test")?;
    if !tests.success() {
        bail!("live tests failed");
    }
    unprivileged::test(&observer, args.filter.as_deref())?;
    let patterns: Vec<String> = args.filter.iter().cloned().collect();
    if scenario::file::chosen(&patterns).is_ok_and(|chosen| chosen.is_empty()) {
        return Ok(());
    }
    let chosen = !patterns.is_empty();
    scenarios::run(Options { patterns, twice: true, ..scenarios::options(observer.clone()) })?;
    if chosen {
        println!("NOT RUN, as there is a filter: tests/pairs; see cargo xtask pairs");
        return Ok(());
    }
    pairs::all(&observer)
}

fn observer(args: &Args) -> Result<PathBuf> {
    match &args.observer {
        Some(program) => {
            program.canonicalize().with_context(|| format!("there is no observer {}", program.display()))
        }
        None => machine::observer(),
    }
}
