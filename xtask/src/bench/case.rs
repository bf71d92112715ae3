//! The cases and how one run of one is measured. It knows neither the tools' command lines nor how numbers are shown.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail};
use clap::ValueEnum;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, SysconfVar, sysconf};
use serde::{Deserialize, Serialize};
use tests::{deadline, target};

use super::Lab;
use super::tool::Tool;

const MESSAGES: u32 = 20_000;
const OPENS: u32 = 500_000;
const LIMIT: Duration = Duration::from_secs(300);
const READY: &str = "Worker process is ready for action.";

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Case {
    /// 20,000 messages for an empty actor, one process, eight threads
    #[value(name = "drain", alias = "a")]
    Drain,
    /// From the start of a worker to its "ready"
    #[value(name = "start", alias = "b")]
    Start,
    /// 500,000 opens of one file, a tenth of that under strace
    #[value(name = "flood", alias = "c")]
    Flood,
    /// A session of 1,000,000 events in every format that streams; by no tool but observer
    #[value(name = "export")]
    Export,
    /// The service over ten minutes: many short workers, then nothing at all; by no tool but observer
    #[value(name = "service")]
    Service,
}

/// One run.
#[derive(Debug, Default, Serialize)]
pub(super) struct Sample {
    /// In the case's unit.
    pub(super) value: f64,
    /// From starting the tool to the worker's "ready", where the case is about that.
    pub(super) whole_s: Option<f64>,
    /// Processor time of the watching process, user and system.
    pub(super) cpu_s: Option<f64>,
    /// What the observer says of itself.
    pub(super) stats: Option<Stats>,
}

/// What the observer writes to the file that `OBSERVER_STATS` names.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Stats {
    pub(super) cpu_s: Option<f64>,
    pub(super) peak_rss_bytes: Option<u64>,
    pub(super) events: Option<u64>,
    pub(super) lost: Option<u64>,
    pub(super) tracing_after_ns: Option<u64>,
    pub(super) programs: Vec<Program>,
    /// Names of the system calls that it records under ptrace.
    pub(super) calls: Vec<String>,
}

/// One eBPF program's share; zero unless the kernel's accounting is on.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Program {
    pub(super) name: String,
    pub(super) run_count: u64,
    pub(super) run_time_ns: u64,
}

impl Stats {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_slice(&text).context("OBSERVER_STATS is not what was agreed")
    }
}

impl Case {
    /// What a value counts.
    pub(super) fn unit(self) -> &'static str {
        match self {
            Self::Drain => "messages/s",
            Self::Start => "s to ready",
            Self::Flood => "opens/s",
            Self::Export | Self::Service => "s",
        }
    }

    /// A value in words.
    pub(super) fn worded(self, value: f64) -> String {
        let decimals = if self == Self::Start { 3 } else { 0 };
        format!("{value:.decimals$} {}", self.unit())
    }

    /// Runs the case once under a tool.
    pub(super) fn sample(self, lab: &Lab, tool: Tool) -> Result<Sample> {
        match self {
            Self::Drain => drain(lab, tool),
            Self::Start => start(lab, tool),
            Self::Flood => flood(lab, tool),
            Self::Export | Self::Service => bail!("this is nothing to watch with a tool"),
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Drain => "drain",
            Self::Start => "start",
            Self::Flood => "flood",
            Self::Export => "export",
            Self::Service => "service",
        })
    }
}

fn drain(lab: &Lab, tool: Tool) -> Result<Sample> {
    #[derive(Deserialize)]
    struct Drained {
        first_ns: u64,
        last_ns: u64,
        messages: f64,
    }
    let result = lab.scratch.path().join("result.json");
    let _ = fs::remove_file(&result);
    let messages = MESSAGES.to_string();
    let sent = Command::new(lab.venv.python())
        .args(["send.py", "bench_worker:nothing", &messages])
        .current_dir(target::folder())
        .env("BROKER_URL", lab.broker.url())
        .stdin(Stdio::null())
        .status()
        .context("cannot run send.py")?;
    if !sent.success() {
        bail!("send.py: {sent}");
    }
    let ran = run(lab, tool, &worker(lab.venv.python().as_os_str()), |command| {
        command.env("BENCH_MESSAGES", &messages).env("BENCH_RESULT", &result);
    })?;
    let text =
        fs::read(&result).with_context(|| format!("the worker left no result; it said:\n{}", ran.stderr))?;
    let drained: Drained =
        serde_json::from_slice(&text).context("the worker's result is not what was agreed")?;
    // The worker was stopped by its last message, whose acknowledgement may not have left.
    lab.broker.ctl(&["purge_queue", "bench"])?;
    Ok(Sample { value: drained.messages * 1e9 / (drained.last_ns - drained.first_ns) as f64, ..ran.sample })
}

fn start(lab: &Lab, tool: Tool) -> Result<Sample> {
    let stamp = lab.scratch.path().join("stamp");
    let _ = fs::remove_file(&stamp);
    // The target says itself when it began: a tool's own start is another matter, and told apart.
    let script = lab.scratch.path().join("start.sh");
    fs::write(&script, format!("echo $$ $(date +%s%N) >{}\nexec \"$@\"\n", stamp.display()))?;
    let python = lab.venv.python();
    // Through the shell by name: bpftrace starts nothing but ELF files.
    let mut words = vec!["/bin/sh".as_ref(), script.as_os_str()];
    words.extend(worker(python.as_os_str()));
    let began = now_ns()?;
    let ran = run(lab, tool, &words, |_| {})?;
    let ready = ran
        .ready_ns
        .with_context(|| format!("the worker never said it was ready; it said:\n{}", ran.stderr))?;
    let (_, target) = read_stamp(&stamp)?;
    let seconds = |from: u128| ready.saturating_sub(from) as f64 / 1e9;
    Ok(Sample { value: seconds(target), whole_s: Some(seconds(began)), ..ran.sample })
}

fn flood(lab: &Lab, tool: Tool) -> Result<Sample> {
    let (python, count) = (lab.venv.python(), (OPENS / tool.share()).to_string());
    let ran = run(lab, tool, &[python.as_os_str(), "flood.py".as_ref(), count.as_ref()], |_| {})?;
    let rate = ran.stdout.lines().find_map(|line| line.trim().parse().ok());
    Ok(Sample {
        value: rate.with_context(|| format!("no rate from flood.py; it said:\n{}", ran.stderr))?,
        ..ran.sample
    })
}

fn worker(python: &OsStr) -> [&OsStr; 8] {
    [
        python,
        "-m".as_ref(),
        "dramatiq".as_ref(),
        "-p".as_ref(),
        "1".as_ref(),
        "-t".as_ref(),
        "8".as_ref(),
        "bench_worker".as_ref(),
    ]
}

/// A run that came to its end.
struct Ran {
    sample: Sample,
    stdout: String,
    stderr: String,
    ready_ns: Option<u128>,
}

fn run(lab: &Lab, tool: Tool, words: &[&OsStr], prepare: impl FnOnce(&mut Command)) -> Result<Ran> {
    let (stats, stamp) = (lab.scratch.path().join("stats.json"), lab.scratch.path().join("stamp"));
    let _ = fs::remove_file(&stats);
    let mut command = tool.command(lab, words);
    command.current_dir(target::folder()).env("BROKER_URL", lab.broker.url());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    prepare(&mut command);
    let mut child = command.spawn().with_context(|| format!("cannot run {:?}", command.get_program()))?;
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    let (out, err) = (child.stdout.take().context("no stdout")?, child.stderr.take().context("no stderr")?);
    let stdout = thread::spawn(move || {
        let mut text = String::new();
        let _ = BufReader::new(out).read_to_string(&mut text);
        text
    });
    let stderr = thread::spawn(move || listen(err, &stamp));
    let mut cpu_s = None;
    let ended = deadline::poll("the measured command ends", LIMIT, || {
        cpu_s = cpu_of(pid).or(cpu_s);
        child.try_wait().transpose()
    });
    if ended.is_err() {
        let _ = killpg(pid, Signal::SIGKILL);
        let _ = child.wait();
    }
    // Joined after a kill too: the pipes end with their last holder.
    let stdout = stdout.join().map_err(|_| anyhow!("the reader of stdout panicked"))?;
    let (stderr, ready_ns) = stderr.join().map_err(|_| anyhow!("the reader of stderr panicked"))?;
    let status = ended?.context("cannot wait for the measured command")?;
    if !status.success() {
        bail!("{tool}: {status}; it said:\n{stderr}");
    }
    let stats = stats.exists().then(|| Stats::read(&stats)).transpose()?;
    // At its own end the observer knows better than our last look.
    let cpu_s = stats.as_ref().and_then(|stats| stats.cpu_s).or(cpu_s).filter(|_| tool != Tool::Nothing);
    Ok(Ran { sample: Sample { cpu_s, stats, ..Sample::default() }, stdout, stderr, ready_ns })
}

/// Reads what the worker says; when it says it is ready, notes the time and, where a stamp names it, stops it.
fn listen(stderr: impl Read, stamp: &Path) -> (String, Option<u128>) {
    let (mut text, mut ready_ns) = (String::new(), None);
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        if ready_ns.is_none() && line.contains(READY) {
            ready_ns = now_ns().ok();
            if let Ok((pid, _)) = read_stamp(stamp) {
                let _ = kill(pid, Signal::SIGTERM);
            }
        }
        // Enough to see what went wrong.
        if text.len() < 4096 {
            text.push_str(&line);
            text.push('\n');
        }
    }
    (text, ready_ns)
}

fn read_stamp(stamp: &Path) -> Result<(Pid, u128)> {
    let text = fs::read_to_string(stamp).context("the target left no stamp")?;
    let (pid, at_ns) = text.trim().split_once(' ').context("half a stamp")?;
    Ok((Pid::from_raw(pid.parse()?), at_ns.parse()?))
}

fn now_ns() -> Result<u128> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())
}

/// User and system time of a process so far; its children's are not in it (proc(5), fields 14 and 15).
fn cpu_of(pid: Pid) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit(')').next()?.split_whitespace().skip(11);
    let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    let per_second = sysconf(SysconfVar::CLK_TCK).ok()??;
    Some(ticks as f64 / per_second as f64)
}
