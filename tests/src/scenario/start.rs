//! Starting what is observed, and the observer: environment, limits, descriptors. It waits for nothing and judges nothing.

use std::fs::{File, OpenOptions};
use std::io::{self, PipeWriter};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use super::file::{Account, Input, Output, Scenario};
use super::place::Place;

/// A process of the scenario, with those that hold the far ends of its pipes.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) child: Child,
    holders: Vec<Child>,
    _input: Option<PipeWriter>,
}

impl Drop for Started {
    fn drop(&mut self) {
        for holder in &mut self.holders {
            let _ = holder.kill();
            let _ = holder.wait();
        }
    }
}

/// The observer, told to start the command.
pub(super) fn observed(scenario: &Scenario, place: &Place, program: &Path, backend: &str) -> Result<Started> {
    let mut words = attach_words(scenario, place, program, backend)?;
    words.push("--".into());
    words.extend(command_words(scenario, place)?);
    start(scenario, place, &words, Streams::Scenarios)
}

/// The command by itself.
pub(super) fn unobserved(scenario: &Scenario, place: &Place) -> Result<Started> {
    start(scenario, place, &command_words(scenario, place)?, Streams::Scenarios)
}

/// The observer, told to look at a process that runs.
pub(super) fn attached(
    scenario: &Scenario,
    place: &Place,
    program: &Path,
    backend: &str,
    pid: u32,
) -> Result<Started> {
    let mut words = attach_words(scenario, place, program, backend)?;
    words.extend(["--pid".into(), pid.to_string()]);
    start(scenario, place, &words, Streams::Log("log/observer"))
}

fn attach_words(scenario: &Scenario, place: &Place, program: &Path, backend: &str) -> Result<Vec<String>> {
    let mut words: Vec<String> = vec![
        program.to_string_lossy().into(),
        "--state-dir".into(),
        place.path("state").to_string_lossy().into(),
    ];
    words.extend(["attach", "--quiet", "--name", place.name, "--backend", backend].map(String::from));
    let account = match &scenario.broker {
        Account::Given(false) => None,
        Account::Given(true) => Some("{amqp_url}"),
        Account::Other(account) => Some(account.as_str()),
    };
    if let Some(account) = account {
        words
            .extend(["--broker", account, "--management", "{management_url}"].map(|word| place.filled(word)));
    }
    if let Some(user) = &scenario.user {
        words.extend(["--user".into(), user.clone()]);
    }
    words.extend(split(&place.filled(&scenario.attach))?);
    Ok(words)
}

/// The command, behind what sets its limits and closes its descriptors: neither may touch the observer.
fn command_words(scenario: &Scenario, place: &Place) -> Result<Vec<String>> {
    let mut words = Vec::new();
    let closed = [
        (scenario.stdin == Input::Closed, "<&-"),
        (scenario.stdout == Output::Closed, ">&-"),
        (scenario.stderr == Output::Closed, "2>&-"),
    ];
    let closed: Vec<&str> = closed.iter().filter(|(closed, _)| *closed).map(|(_, word)| *word).collect();
    if !closed.is_empty() {
        words.extend(["sh".into(), "-c".into(), format!("exec \"$@\" {}", closed.join(" ")), "sh".into()]);
    }
    if !scenario.limits.is_empty() {
        words.push("prlimit".into());
        words.extend(scenario.limits.iter().map(|(limit, value)| match value {
            toml::Value::String(value) => format!("--{limit}={value}"),
            value => format!("--{limit}={value}"),
        }));
        words.push("--".into());
    }
    words.extend(split(&place.filled(&scenario.command))?);
    Ok(words)
}

fn split(text: &str) -> Result<Vec<String>> {
    shlex::split(text).with_context(|| format!("cannot split {text:?} into words: a quote is not closed"))
}

/// Where output goes.
#[derive(Clone, Copy)]
enum Streams {
    Scenarios,
    Log(&'static str),
}

fn start(scenario: &Scenario, place: &Place, words: &[String], streams: Streams) -> Result<Started> {
    let mut all = Vec::new();
    if let Some(umask) = &scenario.umask {
        // `exec`: the process that is waited for and signalled stays this one.
        all.extend(["sh".into(), "-c".into(), format!("umask {umask}; exec \"$@\""), "sh".into()]);
    }
    all.extend_from_slice(words);
    let mut command = Command::new(&all[0]);
    command
        .args(&all[1..])
        .current_dir(place.cwd(scenario))
        .env_clear()
        .env("PATH", place.filled("{path}"))
        .env("HOME", place.path("home"))
        .env("LANG", "C.UTF-8")
        .envs(scenario.env.iter().map(|(name, value)| (name, place.filled(value))));
    let mut holders = Vec::new();
    let mut input = None;
    match streams {
        Streams::Log(name) => {
            let log = appended(&place.path(name))?;
            command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        }
        Streams::Scenarios => {
            command.stdin(match scenario.stdin {
                Input::Null | Input::Closed => Stdio::null(),
                Input::Pipe => {
                    let (reader, writer) = io::pipe()?;
                    input = Some(writer);
                    reader.into()
                }
            });
            command.stdout(stream(scenario.stdout, place, "log/stdout", &mut holders)?);
            command.stderr(stream(scenario.stderr, place, "log/stderr", &mut holders)?);
        }
    }
    let child = command.spawn().with_context(|| format!("cannot start {}", all.join(" ")))?;
    Ok(Started { child, holders, _input: input })
}

fn stream(wanted: Output, place: &Place, name: &str, holders: &mut Vec<Child>) -> Result<Stdio> {
    let path = place.path(name);
    Ok(match wanted {
        Output::File | Output::Closed => appended(&path)?.into(),
        Output::Full => File::options().write(true).open("/dev/full")?.into(),
        Output::PipeClosed => io::pipe()?.1.into(),
        Output::Pipe => {
            let (mut reader, writer) = io::pipe()?;
            let mut file = appended(&path)?;
            // Ends with the last writer.
            std::thread::spawn(move || io::copy(&mut reader, &mut file));
            writer.into()
        }
        Output::PipeUnread => {
            let (reader, writer) = io::pipe()?;
            let holder = Command::new("sleep")
                .arg("infinity")
                .stdin(OwnedFd::from(reader))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .context("cannot start sleep")?;
            holders.push(holder);
            writer.into()
        }
    })
}

fn appended(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))
}
