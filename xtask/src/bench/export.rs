//! How long an export takes, and how much memory: of one large session, format by format. It knows how none of them is made.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use tests::{deadline, large};

const LIMIT: Duration = Duration::from_secs(600);
const FORMATS: [&str; 5] = ["jsonl", "perfetto", "pcapng", "parquet", "html"];

/// One format.
#[derive(Debug, Serialize)]
pub(super) struct Measured {
    format: &'static str,
    /// The median of the rounds.
    seconds: f64,
    /// The most that was resident, in any round.
    peak_rss_bytes: u64,
}

/// Makes the session, and exports it in every format.
pub(super) fn measure(observer: &Path, events: u64, rounds: u32) -> Result<Vec<Measured>> {
    let scratch = tempfile::tempdir().context("cannot create a temporary folder")?;
    let session = scratch.path().join("large.sqlite");
    eprintln!("export: make a session of {events} events");
    large::session(&session, events)?;
    FORMATS.into_iter().map(|format| one(observer, &session, format, rounds, scratch.path())).collect()
}

fn one(
    observer: &Path,
    session: &Path,
    format: &'static str,
    rounds: u32,
    scratch: &Path,
) -> Result<Measured> {
    let (mut times, mut peak_rss_bytes) = (Vec::new(), 0);
    for round in 1..=rounds {
        let output = scratch.join(format);
        let began = Instant::now();
        let mut command = Command::new(observer);
        command.arg("export").arg(session).args(["--format", format, "-o"]).arg(&output);
        let mut child = command.stdin(Stdio::null()).spawn().context("cannot run observer")?;
        let ended = deadline::poll("an export ends", LIMIT, || {
            peak_rss_bytes = peak_rss_bytes.max(peak(&child).unwrap_or(0));
            child.try_wait().transpose()
        });
        if ended.is_err() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let seconds = began.elapsed().as_secs_f64();
        let status = ended?.context("cannot wait for observer")?;
        if !status.success() {
            bail!("observer export --format {format}: {status}");
        }
        eprintln!("export, round {round} of {rounds}, {format}: {seconds:.2} s");
        times.push(seconds);
        // A file or a folder: the next is made anew.
        let _ = fs::remove_file(&output).or_else(|_| fs::remove_dir_all(&output));
    }
    times.sort_by(f64::total_cmp);
    let seconds = times.get(times.len() / 2).copied().unwrap_or_default();
    Ok(Measured { format, seconds, peak_rss_bytes })
}

/// The most that was resident so far (proc(5), `VmHWM`).
fn peak(child: &Child) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// For people.
pub(super) fn text(all: &[Measured], events: u64, rounds: u32) {
    println!("\nexport of {events} events: median of {rounds}, in s");
    for one in all {
        println!(
            "  {:<27}{:>10.2}{:>9.1} MB resident at most",
            one.format,
            one.seconds,
            one.peak_rss_bytes as f64 / 1e6
        );
    }
}
