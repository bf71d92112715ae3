//! Makes and judges one run after the other. Knows `observer attach` and sessions; nothing of how the next run is chosen.

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use anyhow::{Context as _, bail};
use indicatif::ProgressBar;
use lapin::options::QueuePurgeOptions;
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::Serialize;
use std::os::fd::AsRawFd as _;

use super::{Args, Outcome, base_name};
use crate::{
    cli::{client, printable, printable_lines, progress},
    compare::{
        bisect::Next,
        toggle::{self, Start, Toggle},
    },
    diagnose::{self, case::Case, catalogue::Code},
    fold,
    session::{Filter, Session, StateDir},
    words::units,
};

/// Somebody pressed Ctrl-C.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(super) struct Interrupted;

/// One run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Record {
    /// Its session.
    session: String,
    /// What it started from: `failing` or `working`.
    base: &'static str,
    /// What was as in the other one.
    toggled: Vec<String>,
    /// Its verdict.
    verdict: String,
    /// What that counts as.
    works: Option<bool>,
}

impl Record {
    pub(super) const fn outcome(&self) -> Outcome {
        match self.works {
            Some(true) => Outcome::Works,
            Some(false) => Outcome::Fails,
            None => Outcome::Unclear,
        }
    }
}

/// Makes runs.
pub(super) struct Runner<'a> {
    args: &'a Args,
    dir: &'a StateDir,
    working: &'a Start,
    failing: &'a Start,
    toggles: &'a [Toggle],
    program: PathBuf,
    prefix: String,
    records: Vec<Record>,
    interrupted: Arc<AtomicBool>,
    /// On standard error, and only when that is a terminal.
    bar: ProgressBar,
}

impl<'a> Runner<'a> {
    pub(super) fn new(
        args: &'a Args,
        dir: &'a StateDir,
        working: &'a Start,
        failing: &'a Start,
        toggles: &'a [Toggle],
    ) -> anyhow::Result<Self> {
        let interrupted = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&interrupted);
        // The run under way is in our foreground group and gets the signal too.
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            if let Ok(runtime) = runtime
                && runtime.block_on(tokio::signal::ctrl_c()).is_ok()
            {
                flag.store(true, Ordering::Release);
            }
        });
        Ok(Self {
            args,
            dir,
            working,
            failing,
            toggles,
            program: std::env::current_exe().context("cannot find our own program")?,
            prefix: format!("bisect-{}", dir.new_id()?),
            records: Vec::new(),
            interrupted,
            bar: progress::bar(),
        })
    }

    /// What was run.
    pub(super) fn finish(self) -> Vec<Record> {
        self.bar.finish_and_clear();
        self.records
    }

    /// Runs with these toggled, and judges.
    pub(super) fn run(&mut self, next: Next<'_>) -> anyhow::Result<Outcome> {
        let Next { base, toggled, left } = next;
        if self.interrupted.load(Ordering::Acquire) {
            return Err(Interrupted.into());
        }
        let done = self.records.len() as u64;
        self.bar.set_length(done + left as u64);
        self.bar.set_position(done);
        self.bar.set_message(format!("about {} left", units::counted(left as u64, "run")));
        self.prepare_broker()?;
        let start = toggle::start(self.working, self.failing, self.toggles, base, toggled);
        let name = format!("{}-{}", self.prefix, self.records.len() + 1);
        self.attach(&start, &name)?;
        if self.interrupted.load(Ordering::Acquire) {
            return Err(Interrupted.into());
        }
        let code = self.verdict(&name)?;
        let works = self.judge(code, &name)?;
        let toggled = toggled.iter().filter_map(|index| self.toggles.get(*index)).map(|one| one.key.clone());
        let record = Record {
            session: name,
            base: base_name(base),
            toggled: toggled.collect(),
            verdict: code.name().to_owned(),
            works,
        };
        self.say(&record);
        let outcome = record.outcome();
        self.records.push(record);
        Ok(outcome)
    }

    fn say(&self, record: &Record) {
        let what = match record.toggled.as_slice() {
            [] => String::new(),
            few if few.len() <= 4 => format!(" with {} as in the other", few.join(", ")),
            many => format!(" with {} differences as in the other", many.len()),
        };
        let outcome = match record.works {
            Some(true) => "works",
            Some(false) => "fails",
            None => "unclear",
        };
        let line = format!(
            "observer: run {}: {}{what}: {outcome} ({})",
            self.records.len() + 1,
            record.base,
            record.verdict
        );
        // Above the bar, where there is one.
        self.bar.suspend(|| drop(writeln!(std::io::stderr(), "{}", printable_lines(&line))));
    }

    fn attach(&self, start: &Start, name: &str) -> anyhow::Result<()> {
        // In memory: it may hold secrets. Read through /proc, so that nobody inherits it.
        let memory =
            memfd_create("environment", MFdFlags::MFD_CLOEXEC).context("cannot make a file in memory")?;
        let strings = start.environment.iter().map(|(name, value)| format!("{name}={value}\0"));
        let mut file = std::fs::File::from(memory);
        file.write_all(strings.collect::<String>().as_bytes()).context("cannot write to memory")?;
        let environment = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());

        let mut command = Command::new(&self.program);
        command.arg("--state-dir").arg(self.dir.path());
        command.args(["attach", "--quiet", "--name", name, "--environment", &environment]);
        command.args(["--for", &format!("{}ms", self.args.limit / 1_000_000)]);
        if let Some(broker) = &self.args.broker {
            // Not as an argument, which everybody can read.
            command.env("OBSERVER_BROKER", broker);
        }
        if let Some(management) = &self.args.management {
            command.args(["--management", management]);
        }
        if nix::unistd::geteuid().is_root() {
            command.args(["--user", &start.uid.to_string()]);
        }
        if let Some(umask) = start.umask {
            command.args(["--umask", &format!("{umask:o}")]);
        }
        for limit in &start.limits {
            if let Some(soft) = limit.soft {
                command.args(["--limit", &format!("{}={soft}", limit.name)]);
            }
        }
        command.arg("--").arg(&start.program).args(&start.arguments);
        let status = command
            .current_dir(&start.cwd)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .with_context(|| format!("cannot run the command in {}", start.cwd))?;
        drop(file);
        // 125 is also what a command may end with: what counts is whether there is a session.
        if status.code() == Some(125) && self.dir.find(name).is_err() {
            bail!("cannot record a run: observer attach failed; try: observer attach -- {}", start.program);
        }
        Ok(())
    }

    fn verdict(&self, name: &str) -> anyhow::Result<Code> {
        let session = Session::open(&self.dir.find(name)?)?;
        let model = fold::fold(&session, &Filter::default(), None)?;
        let ending = session.ending();
        Ok(diagnose::explain(&Case::new(session.header(), ending.as_ref(), &model)).verdict.code)
    }

    fn judge(&self, code: Code, name: &str) -> anyhow::Result<Option<bool>> {
        if let Some(test) = &self.args.test {
            let status = Command::new("sh")
                .args(["-c", test])
                .env("OBSERVER_SESSION", name)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .status()
                .context("cannot run --test")?;
            return Ok(Some(status.success()));
        }
        Ok(match (self.args.until_verdict, code) {
            (Some(wanted), code) => Some(code != wanted),
            (None, Code::Healthy | Code::Idle | Code::Stopped) => Some(true),
            (None, Code::Undetermined) => None,
            (None, _) => Some(false),
        })
    }

    /// Empties queues and sends the canary, where that was asked for.
    fn prepare_broker(&self) -> anyhow::Result<()> {
        let Some(broker) = &self.args.broker else { return Ok(()) };
        for queue in &self.args.purge {
            let attempted = format!("empty queue {}", printable(queue));
            client::with_channel(&attempted, broker, async |channel| {
                channel
                    .queue_purge(queue.as_str().into(), QueuePurgeOptions::default())
                    .await
                    .map_err(client::refused)
            })?;
        }
        if let Some(words) = &self.args.send {
            let words =
                shlex::split(words).context("cannot split --send into words: a quote is not closed")?;
            let mut command = Command::new(&self.program);
            command.arg("--state-dir").arg(self.dir.path()).arg("send").args(words);
            command.env("OBSERVER_BROKER", broker).arg("--no-follow");
            let sent = command.stdin(Stdio::null()).stdout(Stdio::null()).status().context("cannot send")?;
            if !sent.success() {
                bail!("cannot send the canary of --send before a run; try: observer send");
            }
        }
        Ok(())
    }
}
