//! One scenario from its files to its verdict. It decides the order; how each thing is done is its neighbours' business.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::file::{BrokerStep, Node, Scenario};
use super::judge::{Judgement, Outcome, judge};
use super::live::Live;
use super::place::Place;
use super::start::{self, Started};
use super::steps::Steps;
use super::{fixture, processes, python};
use crate::deadline;
use crate::rabbit::Broker;

/// Plugins of every node.
pub(super) const PLUGINS: [&str; 2] = ["rabbitmq_management", "rabbitmq_event_exchange"];
/// For what a node's configuration says anyway: the broker's own figures are otherwise five seconds old.
pub(super) const CONFIG: &str = "collect_statistics_interval = 1000";

/// How long the observer has to close a session.
const CLOSING: Duration = Duration::from_secs(30);

/// What all scenarios share.
pub(super) struct Lab<'a> {
    pub(super) program: &'a Path,
    pub(super) backend: &'a str,
    pub(super) keep: Option<&'a Path>,
    pub(super) shared: &'a Broker,
}

/// A scenario that was run.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) judgement: Judgement,
    pub(super) took: Duration,
    /// What remains to be looked at.
    pub(super) left: Option<PathBuf>,
}

impl Done {
    fn without_verdict(outcome: Outcome, why: String) -> Self {
        let judgement = Judgement {
            outcome,
            concluded: String::new(),
            confidence: None,
            objections: vec![why],
            verdict: Value::Null,
        };
        Self { judgement, took: Duration::ZERO, left: None }
    }
}

/// Runs it.
pub(super) fn run(scenario: &Scenario, lab: &Lab<'_>) -> Done {
    let unseen = lab.backend == "ptrace" && !scenario.ptrace.is_empty();
    if let Some(why) = if unseen { Some(format!("ptrace: {}", scenario.ptrace)) } else { not_here(scenario) }
    {
        return Done::without_verdict(Outcome::NotHere, why);
    }
    let begun = Instant::now();
    let mut left = None;
    let judgement = staged(scenario, lab, &mut left);
    let took = begun.elapsed();
    match judgement {
        Ok(judgement) => Done { judgement, took, left },
        Err(error) => Done { took, left, ..Done::without_verdict(Outcome::Broken, format!("{error:#}")) },
    }
}

/// Why it cannot be run here.
pub(super) fn not_here(scenario: &Scenario) -> Option<String> {
    if let Err(why) = python::interpreter(scenario) {
        return Some(why);
    }
    let fits = |needs: &String| {
        let asked = Command::new("sh").args(["-c", needs]).stdin(Stdio::null()).output();
        asked.is_ok_and(|output| output.status.success())
    };
    match (&scenario.not_here, &scenario.needs) {
        (why, Some(needs)) => (!fits(needs)).then(|| why.clone().unwrap_or_else(|| format!("needs {needs}"))),
        (why, None) => why.clone(),
    }
}

/// Finds the scenario's node and place, and clears away what it leaves.
fn staged(scenario: &Scenario, lab: &Lab<'_>, left: &mut Option<PathBuf>) -> Result<Judgement> {
    let venv = python::venv(scenario)?;
    // One at a time: each is a virtual machine that takes seconds of processor time to start.
    static OWN: Mutex<()> = Mutex::new(());
    let (_turn, mut own) = match scenario.node {
        Node::Shared => (None, None),
        Node::Own => {
            let turn = OWN.lock().unwrap_or_else(PoisonError::into_inner);
            let config = format!("{CONFIG}\n{}", scenario.node_config);
            (Some(turn), Some(Broker::start_with(&PLUGINS, &config)?))
        }
    };
    let mut place = Place::make(scenario, own.as_ref().unwrap_or(lab.shared), &venv)?;
    let judged = play(scenario, lab, &place, own.as_mut());
    processes::end(&processes::in_folder(place.folder()));
    if own.is_none() {
        place.close_vhost();
    }
    match &judged {
        Ok(judgement) if judgement.outcome == Outcome::Right => {}
        Ok(_) => *left = Some(place.keep()),
        Err(_) => {
            let told = logs(&place);
            *left = Some(place.keep());
            return judged.with_context(|| format!("{told}\nthis went wrong"));
        }
    }
    judged
}

/// Records one session in a place that is there, and judges what is concluded from it.
pub(super) fn play(
    scenario: &Scenario,
    lab: &Lab<'_>,
    place: &Place,
    own: Option<&mut Broker>,
) -> Result<Judgement> {
    let deadline = Instant::now() + Duration::from_secs(scenario.timeout_s);
    Stage { scenario, lab, place, own, steps: Steps::default(), deadline }.play()
}

struct Stage<'a> {
    scenario: &'a Scenario,
    lab: &'a Lab<'a>,
    place: &'a Place,
    own: Option<&'a mut Broker>,
    steps: Steps,
    deadline: Instant,
}

impl Stage<'_> {
    fn play(&mut self) -> Result<Judgement> {
        let (scenario, place, lab) = (self.scenario, self.place, self.lab);
        for step in &scenario.before {
            self.step(step.broker, &step.run, None)?;
        }
        let mut target = None;
        let mut observer = match &scenario.running {
            None => start::observed(scenario, place, lab.program, lab.backend)?,
            Some(ready) => {
                let mut command = start::unobserved(scenario, place)?;
                let waited = self.live(&mut command).wait(ready);
                let pid = command.child.id();
                target = Some(Guard(command));
                waited?;
                start::attached(scenario, place, lab.program, lab.backend, pid)?
            }
        };
        let root = target.as_ref().map_or(observer.child.id(), |target| target.0.child.id());
        let watched = self.watch(&mut observer, root);
        let closed = self.close(&mut observer, watched.is_ok() && scenario.until.0.is_empty());
        if let Some(target) = &mut target {
            target.end(Duration::from_secs(scenario.grace_s));
        }
        watched.and(closed)?;
        let explained = self.explain()?;
        let judgement = judge(scenario, &place.values, &explained);
        if let Some(folder) = lab.keep {
            let session = place.session().context("the observer left no session")?;
            fixture::keep(folder, &scenario.name, &session, &place.values)?;
        }
        Ok(judgement)
    }

    /// All that happens while it is being observed.
    fn watch(&mut self, observer: &mut Started, root: u32) -> Result<()> {
        for step in &self.scenario.during {
            for ready in &step.when.0 {
                self.live(observer).wait(ready)?;
            }
            self.step(step.broker, &step.run, Some(root))?;
        }
        for ready in &self.scenario.until.0 {
            self.live(observer).wait(ready)?;
        }
        Ok(())
    }

    fn live<'a>(&'a self, started: &'a mut Started) -> Live<'a> {
        Live {
            place: self.place,
            program: self.lab.program,
            child: &mut started.child,
            deadline: self.deadline,
        }
    }

    fn step(&mut self, broker: Option<BrokerStep>, snippet: &str, root: Option<u32>) -> Result<()> {
        if let Some(step) = broker {
            let Some(own) = &mut self.own else {
                bail!("only a node of the scenario's own can be stopped: write node = \"own\"");
            };
            match step {
                BrokerStep::Kill => own.kill(),
                BrokerStep::Restart => own.restart()?,
            }
        }
        if snippet.trim().is_empty() {
            return Ok(());
        }
        let broker = self.own.as_deref().unwrap_or(self.lab.shared);
        let told = self.place.tell_helper(broker, root)?;
        self.steps.run(self.place, &told, snippet, self.deadline)
    }

    /// Waits for the end of the observation: of itself, or because we ask for it as a service manager would, with TERM and then KILL.
    fn close(&self, observer: &mut Started, by_itself: bool) -> Result<()> {
        let pid = observer.child.id();
        let mut wait = |what: &str, limit: Duration| {
            deadline::poll(what, limit, || observer.child.try_wait().ok().flatten())
        };
        let in_time = if by_itself {
            wait("the command ends by itself", self.deadline.saturating_duration_since(Instant::now()))
                .map(drop)
        } else {
            Ok(())
        };
        let _ = kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGTERM);
        if wait("it ends after TERM", Duration::from_secs(self.scenario.grace_s)).is_err() {
            processes::end(&processes::below(pid));
        }
        if let Err(error) = wait("the observer closes its session", CLOSING) {
            let _ = observer.child.kill();
            let _ = observer.child.wait();
            return Err(error);
        }
        in_time
    }

    fn explain(&self) -> Result<Value> {
        let output = Command::new(self.lab.program)
            .arg("--state-dir")
            .arg(self.place.path("state"))
            .args(["explain", self.place.name, "--format", "json"])
            .stdin(Stdio::null())
            .output()
            .context("cannot run observer explain")?;
        let said = String::from_utf8_lossy(&output.stderr);
        if said.contains("unrecognized subcommand") {
            return Ok(
                json!({ "verdict": { "code": "undetermined", "cause": null, "summary": "this observer has no `explain`" } }),
            );
        }
        if !output.status.success() {
            bail!("observer explain: {}: {}", output.status, said.trim());
        }
        serde_json::from_slice(&output.stdout).context("observer explain prints no JSON")
    }
}

/// A command that we started ourselves, ended however the scenario ends.
struct Guard(Started);

impl Guard {
    fn end(&mut self, grace: Duration) {
        let pid = self.0.child.id();
        let below = processes::below(pid);
        if let Ok(pid) = i32::try_from(pid)
            && self.0.child.try_wait().is_ok_and(|status| status.is_none())
        {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let ended = deadline::poll("it ends", grace, || self.0.child.try_wait().ok().flatten());
        if ended.is_err() {
            let _ = self.0.child.kill();
            let _ = self.0.child.wait();
            processes::end(&below);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.end(Duration::ZERO);
    }
}

/// The end of everything that was printed.
pub(super) fn logs(place: &Place) -> String {
    let mut told = String::new();
    for name in ["log/stdout", "log/stderr", "log/observer"] {
        let text = fs::read(place.path(name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        for line in &lines[lines.len().saturating_sub(40)..] {
            told.push_str(&format!("\n{name}: {line}"));
        }
    }
    told
}
