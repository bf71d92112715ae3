//! What a developer of observer runs: one file a verb.

mod ebpf;
mod run;

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
}

fn main() -> ExitCode {
    let done = match Verb::parse() {
        Verb::Ebpf(args) => ebpf::main(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
