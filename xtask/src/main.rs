//! What a developer of observer runs: one file a verb.

mod bench;
mod demo;
mod dist;
mod ebpf;
mod machine;
mod pairs;
mod run;
mod scenarios;
mod test;
mod unprivileged;

use std::process::ExitCode;

use clap::Parser;

/// What a developer of observer runs
///
/// Each verb installs what it needs, or says exactly what to run when it may not.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
enum Verb {
    /// Build the kernel half and put the object where observer embeds it
    Ebpf(ebpf::Args),
    /// Run every test: units, then live ones against real workers and brokers (as root)
    Test(test::Args),
    /// Install what it takes, then observe a worker that works and one that does not (as root)
    Demo(demo::Args),
    /// Run the corpus of real failures, and hold what is concluded against what is expected (as root)
    Scenarios(scenarios::Args),
    /// Compare and bisect workers of which one fails, and hold what is said against what was planted (as root)
    Pairs(pairs::Args),
    /// Measure what observing costs a worker, beside strace and bpftrace (as root)
    Bench(bench::Args),
    /// Make the Debian package and the static tarball, in target/dist
    Dist(dist::Args),
}

fn main() -> ExitCode {
    let done = match Verb::parse() {
        Verb::Ebpf(args) => ebpf::main(&args),
        Verb::Test(args) => test::main(&args),
        Verb::Demo(args) => demo::main(&args),
        Verb::Scenarios(args) => scenarios::main(&args),
        Verb::Pairs(args) => pairs::main(&args),
        Verb::Bench(args) => bench::main(&args),
        Verb::Dist(args) => dist::main(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
