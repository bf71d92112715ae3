//! Many short workers beside long ones, and what the service has of each. The workers are no dramatiq, only started like it: what counts is
//! how often. It judges what was missed; nothing else of the service.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use crate::daemon::Daemon;
use crate::venv::DEBIANS;

/// A package `dramatiq` that lives as long as it is told, or for ever and at work all the time, ends with the status it is told, and has a
/// child if it is told.
const STAND_IN: &str = r#"
import os, sys, time
_, module, number, ms, status, forks = sys.argv
child = os.fork() if forks == "forks" else None
while ms == "for-ever":
    os.path.exists(__file__)
    time.sleep(0.05)
time.sleep(int(ms) / 1000)
if child == 0:
    os._exit(0)
if child:
    os.waitpid(child, 0)
sys.exit(int(status))
"#;

/// One short worker, all of whose life follows from its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Short(pub u32);

/// A short worker that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// Which.
    pub short: Short,
    /// The process it was.
    pub pid: u32,
}

/// What the service has recorded of one.
#[derive(Debug)]
pub struct Recorded {
    /// The session's file.
    pub path: PathBuf,
    /// The session's name.
    pub name: String,
    /// `done` when it is.
    pub state: String,
    /// Kind, process and command line of the first event.
    pub first: First,
    /// With what status the worker ended.
    pub code: Option<i64>,
    /// Losses that are noted in it.
    pub lost: i64,
}

/// Kind, process and command line of an event.
pub type First = (String, u32, Vec<String>);

/// What a process takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// Open descriptors.
    pub descriptors: usize,
    /// Threads.
    pub threads: usize,
    /// Resident memory of its own, in kB (proc(5), `RssAnon`).
    pub anon_kb: u64,
    /// Resident pages of files, rings in the kernel among them, in kB (`RssFile`).
    pub file_kb: u64,
    /// Resident shared memory, in kB (`RssShmem`).
    pub shmem_kb: u64,
}

/// Puts the package into a folder, for workers that are started there.
pub fn install(folder: &Path) -> Result<()> {
    let package = folder.join("dramatiq");
    fs::create_dir(&package).context("cannot make the package")?;
    fs::write(package.join("__init__.py"), "")?;
    fs::write(package.join("__main__.py"), STAND_IN)?;
    // Compiled now, by one, rather than by the first of many.
    let compiled = Command::new(DEBIANS).args(["-m", "compileall", "-q"]).arg(&package).status()?;
    if !compiled.success() {
        bail!("cannot compile the package: {compiled}");
    }
    Ok(())
}

fn command(folder: &Path, words: &[String]) -> Command {
    let mut command = Command::new(DEBIANS);
    command.args(words.iter().skip(1)).current_dir(folder);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// A worker that works until it is ended.
pub fn long(folder: &Path, module: &str) -> Result<Child> {
    let words = [DEBIANS, "-m", "dramatiq", module, "long", "for-ever", "0", "alone"].map(str::to_owned);
    command(folder, &words).spawn().context("cannot start a worker")
}

impl Short {
    /// Its whole command line.
    pub fn words(self, module: &str) -> Vec<String> {
        let forks = if self.0 % 5 == 4 { "forks" } else { "alone" };
        let (number, ms, status) = (self.0.to_string(), self.lives_ms().to_string(), self.code().to_string());
        [DEBIANS, "-m", "dramatiq", module, &number, &ms, &status, forks].map(str::to_owned).to_vec()
    }

    fn lives_ms(self) -> u32 {
        self.0 * 37 % 200
    }

    /// With what status it ends.
    pub fn code(self) -> i32 {
        if self.0 % 3 == 1 { 1 + (self.0 % 90) as i32 } else { 0 }
    }

    /// Runs it to its end.
    pub fn run(self, folder: &Path, module: &str) -> Result<Ended> {
        let mut child = command(folder, &self.words(module)).spawn().context("cannot start a worker")?;
        let (pid, status) = (child.id(), child.wait()?);
        if status.code() != Some(self.code()) {
            bail!("worker {} ended with {status} rather than {}", self.0, self.code());
        }
        Ok(Ended { short: self, pid })
    }
}

/// Runs these workers, up to `at_a_time` of them, none sooner than `pace` after the one before.
pub fn run(
    folder: &Path,
    module: &str,
    numbers: Range<u32>,
    at_a_time: usize,
    pace: Duration,
) -> Result<Vec<Ended>> {
    let began = Instant::now();
    let first = numbers.start;
    let left = Mutex::new(numbers);
    let next = || left.lock().ok()?.next();
    let one_after_another = || {
        let mut ended = Vec::new();
        while let Some(number) = next() {
            thread::sleep((pace * (number - first)).saturating_sub(began.elapsed()));
            ended.push(Short(number).run(folder, module)?);
        }
        Ok::<_, anyhow::Error>(ended)
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..at_a_time).map(|_| scope.spawn(one_after_another)).collect();
        let mut all = Vec::new();
        for thread in threads {
            all.extend(thread.join().map_err(|_| anyhow::anyhow!("a thread that starts workers ended"))??);
        }
        Ok(all)
    })
}

/// All that the service has recorded of workers of this module.
pub fn recorded(daemon: &Daemon, module: &str) -> Result<Vec<Recorded>> {
    let mut all = Vec::new();
    for session in daemon.sessions()? {
        let text = |field: &str| session[field].as_str().unwrap_or_default().to_owned();
        let path = PathBuf::from(text("path"));
        let (first, lost) = look(&path).with_context(|| format!("cannot read {}", path.display()))?;
        if first.2.iter().any(|word| word == module) {
            let code = session["exit"]["code"].as_i64();
            all.push(Recorded { path, name: text("name"), state: text("state"), first, code, lost });
        }
    }
    Ok(all)
}

fn look(path: &Path) -> Result<(First, i64)> {
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let sql = "SELECT kind, pid, data FROM events ORDER BY at_ns, id LIMIT 1";
    let (kind, pid, data): (String, u32, String) =
        database.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let data: Value = serde_json::from_str(&data)?;
    let words = data["argv"].as_array().into_iter().flatten();
    let words = words.filter_map(|word| word.as_str().map(str::to_owned)).collect();
    let sql = "SELECT ifnull(sum(json_extract(data, '$.count')), 0) FROM events WHERE kind = 'lost'";
    Ok(((kind, pid, words), database.query_row(sql, [], |row| row.get(0))?))
}

/// What is not as it should be: each of `ended` has exactly one session, which begins with its `execve` and its whole command line, ends with
/// its status, and lacks nothing. A line each; none when nothing was missed.
pub fn missed(ended: &[Ended], recorded: &[Recorded], module: &str) -> Vec<String> {
    let mut by_pid: BTreeMap<(u32, &[String]), Vec<&Recorded>> = BTreeMap::new();
    for one in recorded {
        by_pid.entry((one.first.1, &one.first.2)).or_default().push(one);
    }
    let wrong = |ended: &Ended| {
        let words = ended.short.words(module);
        let number = ended.short.0;
        let [one] = by_pid.get(&(ended.pid, words.as_slice())).map_or(&[][..], Vec::as_slice) else {
            return Some(format!("worker {number} has no session, or several"));
        };
        let right = one.state == "done"
            && one.first.0 == "exec"
            && one.code == Some(ended.short.code().into())
            && one.lost == 0;
        (!right).then(|| format!("worker {number}: {one:?}"))
    };
    ended.iter().filter_map(wrong).collect()
}

impl Footprint {
    /// Of this process, now.
    pub fn of(pid: u32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let kb = |field: &str| -> Result<u64> {
            let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
            let value = value.and_then(|value| value.trim().strip_suffix(" kB"));
            value.and_then(|value| value.trim().parse().ok()).with_context(|| format!("no {field} of {pid}"))
        };
        Ok(Self {
            descriptors: fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
            threads: fs::read_dir(format!("/proc/{pid}/task"))?.count(),
            anon_kb: kb("RssAnon")?,
            file_kb: kb("RssFile")?,
            shmem_kb: kb("RssShmem")?,
        })
    }

    /// All that is resident, in kB.
    pub fn resident_kb(&self) -> u64 {
        self.anon_kb + self.file_kb + self.shmem_kb
    }
}

/// Ends workers as a service manager does not: at once.
pub fn end(workers: Vec<Child>) -> Result<()> {
    for mut worker in workers {
        kill(Pid::from_raw(worker.id() as i32), Signal::SIGKILL)?;
        worker.wait()?;
    }
    Ok(())
}
