//! `observer doctor`: what works on this machine, what is lost without the rest, and how to get it. It looks and records nothing.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use serde_json::json;

use super::{Context, ExitStatus, Format, print, printable};
use crate::{
    capability::{Capability, State},
    python::interpreter,
    render::json,
    source::{
        ebpf::{Ebpf, ProgramFacts, SNAPLEN_MAX},
        probe,
    },
};

/// Say what can be recorded on this machine, what is lost without the rest, and how to get it.
///
/// Exits 0 when recording works, 1 when it does not.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  sudo observer doctor\n  sudo observer doctor --broker 10.0.0.5:5672 --python ./venv/bin/python\n  sudo observer doctor --programs"
)]
pub struct Args {
    /// The broker to look for
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:5672")]
    pub broker: String,
    /// The interpreter to look at [default: python, python3 on PATH]
    #[arg(long, value_name = "FILE")]
    pub python: Option<std::path::PathBuf>,
    /// List the eBPF programs with the instructions the verifier walked through, and nothing else
    #[arg(long)]
    pub programs: bool,
}

/// Looks and reports.
///
/// # Errors
/// When the programs were to be listed and cannot be loaded, or standard output cannot be written.
pub fn run(args: &Args, context: &Context) -> anyhow::Result<ExitStatus> {
    if args.programs {
        return programs(context);
    }
    let mut report = probe::machine();
    // The last word is the kernel's: it takes the programs or it does not.
    let loaded = match probe::require_ebpf(&report) {
        Ok(()) => Ebpf::load(SNAPLEN_MAX, &[]).map_err(|error| error.to_string()),
        Err(error) => Err(error.answer),
    };
    report.push(match loaded {
        Ok(source) => Capability {
            name: "ebpf".into(),
            state: State::Works,
            found: format!("all {} programs load and attach", source.facts().len()),
            lost: String::new(),
            remedy: String::new(),
        },
        Err(error) => Capability {
            name: "ebpf".into(),
            state: State::Missing,
            found: error.lines().next().unwrap_or_default().to_owned(),
            lost: format!("recording with eBPF; with ptrace: {}", probe::LOST_BY_PTRACE),
            remedy: probe::GRANT.into(),
        },
    });
    report.push(probe::ptrace());
    report.push(interpreter::probe(args.python.as_deref()));
    report.push(probe::broker(&args.broker));
    // Either of the two is enough.
    let traces = report.iter().any(|found| found.name == "ptrace" && found.state != State::Missing);
    let works = traces || report.iter().all(|found| found.state != State::Missing || found.name == "ptrace");
    print(&match context.format {
        Format::Json => {
            json::pretty(&json!({"schema": "observer.doctor/1", "works": works, "capabilities": report}))?
        }
        Format::Text => text(&report, works, context.color),
    })?;
    Ok(if works { ExitStatus::SUCCESS } else { ExitStatus::FAILURE })
}

fn programs(context: &Context) -> anyhow::Result<ExitStatus> {
    let facts: Vec<ProgramFacts> = Ebpf::load(SNAPLEN_MAX, &[])?.facts();
    print(&match context.format {
        Format::Json => json::pretty(&json!({"schema": "observer.programs/1", "programs": facts}))?,
        Format::Text => {
            let mut text = String::from("program                  verified instructions\n");
            for program in &facts {
                writeln!(text, "{:<24} {:>8}", program.name, program.verified_instructions)?;
            }
            text
        }
    })?;
    Ok(ExitStatus::SUCCESS)
}

fn text(report: &[Capability], works: bool, color: bool) -> String {
    let paint = |style: AnsiColor, word: &str| {
        if color {
            let style = Style::new().fg_color(Some(style.into()));
            format!("{style}{word}{style:#}")
        } else {
            word.to_owned()
        }
    };
    let mut text = String::new();
    for found in report {
        let mark = match found.state {
            State::Works => paint(AnsiColor::Green, "works  "),
            State::Limited => paint(AnsiColor::Yellow, "limited"),
            State::Missing => paint(AnsiColor::Red, "missing"),
        };
        let _ = writeln!(text, "{mark}  {:<15} {}", found.name, printable(&found.found));
        if found.state != State::Works {
            let _ = writeln!(text, "{:25}lost: {}", "", found.lost);
            let _ = writeln!(text, "{:25}get it: {}", "", found.remedy);
        }
    }
    let no_ebpf = report.iter().find(|found| found.name == "ebpf" && found.state != State::Works);
    let _ = match no_ebpf {
        _ if !works => writeln!(text, "recording does not work here yet: see what is missing above"),
        None => writeln!(text, "recording works: sudo observer attach --cmd \"python -m dramatiq MODULE\""),
        Some(ebpf) => {
            let why = probe::why_ptrace(&printable(&ebpf.found));
            writeln!(text, "recording works: observer attach --cmd \"python -m dramatiq MODULE\"\n{why}")
        }
    };
    text
}
