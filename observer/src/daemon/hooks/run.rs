//! Runs one hook: a command with the report on its standard input, or a POST of it. Knows not when, nor how often.

use std::{
    process::{ExitStatus, Stdio},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use reqwest::{Client, redirect};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, Command},
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::timeout,
};

use super::{Counts, Job, Limits};
use crate::{
    daemon::{report::Report, settings::Hook},
    session::blank,
    words::escape::{escape, escape_bytes},
};

/// Of each of a command's two outputs so much is logged.
const MOST_OUTPUT: usize = 2048;

/// Of what a variable says, so much is said; the report on standard input is whole.
const MOST_VALUE: usize = 4096;

/// Where commands are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Does what comes, until nothing more can come; `ending` is over when the service is about to end.
pub(super) async fn all(
    mut jobs: mpsc::Receiver<Job>,
    ending: oneshot::Receiver<()>,
    hooks: Arc<[Hook]>,
    counts: Arc<Counts>,
    limits: Limits,
) {
    let work = async {
        let mut running = JoinSet::new();
        while let Some(job) = jobs.recv().await {
            while running.len() >= limits.together {
                running.join_next().await;
            }
            running.spawn(one(job, Arc::clone(&hooks), Arc::clone(&counts), limits));
        }
        while running.join_next().await.is_some() {}
    };
    let late = async {
        // Nothing is ever sent: it ends when the other half is dropped.
        let _ = ending.await;
        tokio::time::sleep(limits.farewell).await;
    };
    let done = tokio::select! {
        () = work => true,
        () = late => false,
    };
    if !done {
        let seconds = limits.farewell.as_secs_f64();
        tracing::warn!("hooks still ran {seconds} s after the service was told to end; they are killed");
    }
}

async fn one(job: Job, hooks: Arc<[Hook]>, counts: Arc<Counts>, limits: Limits) {
    let Some(hook) = hooks.get(job.hook) else { return };
    let about = format!("hook {} ({})", job.hook + 1, escape(&job.report.code));
    let done = match &hook.url {
        Some(url) => post(url, &job.report, limits.answer).await,
        None => command(&hook.command, &job.report, limits.command, &about).await,
    };
    match done {
        Ok(said) => {
            counts.succeeded.fetch_add(1, Ordering::Relaxed);
            tracing::info!("{about}: {said}");
        }
        Err(why) => {
            counts.failed.fetch_add(1, Ordering::Relaxed);
            tracing::warn!("{about}: {why}");
        }
    }
}

async fn post(url: &str, report: &Report, limit: Duration) -> Result<String, String> {
    let shown = escape(&blank(url));
    // Not by way of a proxy that a variable names: it goes where the file says.
    let client = Client::builder().timeout(limit).redirect(redirect::Policy::none()).no_proxy().build();
    let sent = match client {
        Ok(client) => client.post(url).json(report).send().await,
        Err(error) => Err(error),
    };
    match sent {
        Ok(answer) if answer.status().is_success() => Ok(format!("{shown} answered {}", answer.status())),
        Ok(answer) => Err(format!(
            "{shown} answered {}; it must be 2xx, and redirects are not followed",
            answer.status()
        )),
        // Without the URL, as it is not blanked there.
        Err(error) => Err(format!("cannot POST to {shown}: {}", escape(&chain(&error.without_url())))),
    }
}

/// An error with all that it came from.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

async fn command(words: &[String], report: &Report, limit: Duration, about: &str) -> Result<String, String> {
    let shown = escape(&blank(&crate::words::command(words)));
    let input =
        serde_json::to_vec(report).map_err(|error| format!("cannot write the report as JSON: {error}"))?;
    let mut group = Group(start(words, report).map_err(|error| {
        format!("cannot run {shown}: {error}; write the program's whole path, and see that it is executable")
    })?);
    let child = &mut group.0;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async {
        if let Some(mut stdin) = stdin {
            // One that reads nothing is free to.
            let _ = stdin.write_all(&input).await;
        }
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let all = async {
        let ends = tokio::join!(feed, keep(stdout, &mut out), keep(stderr, &mut err), child.wait());
        ends.3
    };
    let ended = timeout(limit, all).await;
    let status = match ended {
        Ok(status) => status.map(Some),
        // Ended, but something that it started holds its output: that may go on, and nobody listens any more.
        Err(_) if group.0.id().is_none() => group.0.wait().await.map(Some),
        Err(_) => {
            group.kill();
            group.0.wait().await.map(|_| None)
        }
    };
    for (name, bytes) in [("output", &out), ("errors", &err)] {
        if !bytes.is_empty() {
            tracing::info!("{about}: {name} of {shown}: {}", escape_bytes(bytes.trim_ascii_end()));
        }
    }
    match status {
        Ok(Some(status)) if status.success() => Ok(format!("{shown} ended with status 0")),
        Ok(Some(status)) => Err(format!("{shown} ended with {}", said(status))),
        Ok(None) => Err(format!("{shown} was killed: it ran for more than {} s", limit.as_secs_f64())),
        Err(error) => Err(format!("cannot wait for {shown}: {error}")),
    }
}

fn said(status: ExitStatus) -> String {
    escape(&status.to_string())
}

fn start(words: &[String], report: &Report) -> std::io::Result<Child> {
    let (program, arguments) = words.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", PATH).current_dir("/").process_group(0);
    let occasion = serde_json::to_value(report.occasion).unwrap_or_default();
    for (name, value) in [
        ("OCCASION", occasion.as_str().unwrap_or_default()),
        ("CODE", &report.code),
        ("CAUSE", report.cause.as_deref().unwrap_or_default()),
        ("SEVERITY", &report.severity),
        ("TITLE", &report.title),
        ("SUMMARY", &report.summary),
        ("REMEDY", report.remedy.as_deref().unwrap_or_default()),
        ("SESSION", &report.session),
        ("NAME", &report.name),
        ("PATH", &report.path),
        ("PID", &report.pid.to_string()),
        ("UID", &report.uid.to_string()),
        ("UNIT", report.unit.as_deref().unwrap_or_default()),
        ("RULE", report.rule.as_deref().unwrap_or_default()),
    ] {
        // What the target wrote is in some of these, and scripts print them. The kernel takes 128 KiB of one at most.
        let value = escape(value);
        command.env(format!("OBSERVER_{name}"), &value[..value.floor_char_boundary(MOST_VALUE)]);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
}

/// Reads to the end, and keeps the beginning.
async fn keep(from: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let room = MOST_OUTPUT - kept.len();
        kept.extend_from_slice(&buffer[..length.min(room)]);
    }
}

/// A command in a process group of its own, which ends with it when it is dropped before it has ended.
struct Group(Child);

impl Group {
    /// Only before it has been waited for: afterwards its number may be another's.
    fn kill(&self) {
        if let Some(pid) = self.0.id().and_then(|pid| i32::try_from(pid).ok()) {
            // Gone already is as good.
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}
