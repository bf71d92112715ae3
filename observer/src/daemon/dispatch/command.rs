//! What the dispatcher is asked, and how it answers. Knows users and requests that were checked; nothing of sockets.

use std::collections::{BTreeMap, HashSet};

use std::sync::atomic::Ordering;

use super::{Dispatcher, MOST_ASKED_FOR, Run};
use crate::{
    daemon::{
        kernel::Kernel,
        plan::Plan,
        settings::{Keep, Settings},
        status::Recorded,
    },
    event::Pid,
    session,
    source::{ebpf::ProgramFacts, proc},
};

/// What the dispatcher is asked.
pub(in crate::daemon) enum Command {
    /// New settings hold from now on; told when they do. Those that newer ones have overtaken are never told.
    Settings { settings: Box<Settings>, answer: Answer<()> },
    /// Nothing new is recorded for this reason, until there is none.
    Pause(Option<String>),
    /// Record a process that a user named.
    Record { ask: Box<Ask>, answer: Answer<Begun> },
    /// Let go of a recording that this user asked for.
    LetGo { id: String, uid: u32, answer: Answer<()> },
    /// Say when a recording is over.
    Wait { id: String, uid: u32, answer: Answer<()> },
    /// How things stand.
    Figures { answer: tokio::sync::oneshot::Sender<Figures> },
    /// End; what is recorded is left to be gone on with.
    Stop,
}

/// Where an answer goes.
pub(in crate::daemon) type Answer<T> = tokio::sync::oneshot::Sender<Result<T, String>>;

/// A user's request, checked: the process is theirs.
#[derive(Clone, Debug, Default)]
pub(in crate::daemon) struct Ask {
    pub(in crate::daemon) uid: u32,
    pub(in crate::daemon) gid: u32,
    pub(in crate::daemon) pid: u32,
    pub(in crate::daemon) ticks: u64,
    /// It waits to execute its command, rather than running already.
    pub(in crate::daemon) held: bool,
    pub(in crate::daemon) command: Vec<String>,
    pub(in crate::daemon) name: Option<String>,
    pub(in crate::daemon) broker: Option<String>,
    pub(in crate::daemon) management: Option<String>,
    pub(in crate::daemon) firehose: bool,
    pub(in crate::daemon) bodies: bool,
}

/// A recording that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::daemon) struct Begun {
    pub(in crate::daemon) id: String,
    pub(in crate::daemon) name: String,
    pub(in crate::daemon) path: String,
}

/// Told by a recording's thread once its session is there, or why it is not.
pub(in crate::daemon) type Begin = Box<dyn FnOnce(Result<&std::path::Path, String>) + Send>;

/// How things stand.
#[derive(Clone, Debug, Default)]
pub(in crate::daemon) struct Figures {
    pub(in crate::daemon) recordings: Vec<Recorded>,
    pub(in crate::daemon) begun: u64,
    pub(in crate::daemon) events: u64,
    pub(in crate::daemon) events_per_s: f64,
    pub(in crate::daemon) lost: BTreeMap<String, u64>,
    pub(in crate::daemon) programs: Vec<ProgramFacts>,
    pub(in crate::daemon) rules: Vec<String>,
    pub(in crate::daemon) stopped: Option<String>,
}

impl<K: Kernel> Dispatcher<K> {
    pub(super) fn obey(&mut self, command: Command) {
        match command {
            Command::Pause(why) => self.paused = why,
            Command::Record { ask, answer } => self.record(*ask, answer),
            Command::LetGo { id, uid, answer } => {
                let _ = answer.send(self.of_user(&id, uid).map(|()| self.end(&id, "let-go")));
            }
            Command::Wait { id, uid, answer } => match self.of_user(&id, uid) {
                Ok(()) => {
                    if let Some(run) = self.runs.get_mut(&id) {
                        run.waiting.push(answer);
                    }
                }
                Err(error) => {
                    if let Some(answer) = self.spool.wait(&id, uid, answer) {
                        let _ = answer.send(Err(error));
                    }
                }
            },
            Command::Figures { answer } => drop(answer.send(self.figures())),
            // Those are seen to where commands are taken.
            Command::Settings { .. } | Command::Stop => {}
        }
    }

    /// Whether a user may control a recording. Who may not is told what they would be told if there were none.
    fn of_user(&self, id: &str, uid: u32) -> Result<(), String> {
        match self.runs.get(id) {
            Some(run) if uid == 0 || (run.plan.uid == uid && run.plan.rule.is_none()) => Ok(()),
            _ => Err(format!("no recording {id} of yours is under way")),
        }
    }

    fn record(&mut self, ask: Ask, answer: Answer<Begun>) {
        let pid = Pid(ask.pid);
        if let Some(why) = &self.paused {
            return drop(answer.send(Err(format!("nothing new is recorded: {why}"))));
        }
        if let Some(run) = self.members.get(&pid).and_then(|id| self.runs.get(id)) {
            let name = &run.plan.name;
            let known = if ask.uid == 0 || run.plan.uid == ask.uid {
                format!(
                    "process {pid} is being recorded already, as session {name}: observer show {name} --follow"
                )
            } else {
                format!("process {pid} is being recorded already, for somebody else")
            };
            return drop(answer.send(Err(known)));
        }
        let theirs =
            self.runs.values().filter(|run| run.plan.rule.is_none() && run.plan.uid == ask.uid).count();
        if self.is_full(ask.uid) || theirs >= MOST_ASKED_FOR {
            return drop(answer.send(Err("too many recordings are under way; end one of them first".into())));
        }
        let id = match session::new_id() {
            Ok(id) => id,
            Err(error) => return drop(answer.send(Err(format!("cannot name a session: {error}")))),
        };
        let plan = Plan {
            id,
            name: ask.name.clone().unwrap_or_else(|| session::name_of(&ask.command)),
            uid: ask.uid,
            gid: ask.gid,
            root: pid,
            root_ticks: ask.ticks,
            command: ask.command.clone(),
            attached: !ask.held,
            began_ns: proc::monotonic_ns(),
            unit: None,
            rule: None,
            keep: Keep::Always,
            limit: None,
            broker: ask.broker.clone(),
            management: ask.management.clone(),
            firehose: ask.firehose,
            bodies: ask.bodies,
        };
        let taken = if ask.held {
            self.kernel.follow(pid, ask.uid).map(|()| vec![pid])
        } else {
            self.kernel.adopt(pid, ask.uid, &HashSet::new())
        };
        let found = match taken {
            Ok(found) => found,
            Err(error) => return drop(answer.send(Err(error.to_string()))),
        };
        // Its number may have been given to somebody else's process while it was entered.
        if proc::start_ticks(pid.0) != Some(ask.ticks) {
            self.leaving.extend(found);
            return drop(answer.send(Err(format!("process {pid} has ended"))));
        }
        let (id, name) = (plan.id.clone(), plan.name.clone());
        let key = id.clone();
        let begun = Box::new(move |path: Result<&std::path::Path, String>| {
            let path = path.map(|path| path.to_string_lossy().into_owned());
            let _ = answer.send(path.map(|path| Begun { id, name, path }));
        });
        match self.begin(plan, None, begun) {
            Ok(()) => {
                if let Some(run) = self.runs.get_mut(&key) {
                    for pid in found {
                        run.members.insert(pid);
                        self.members.insert(pid, key.clone());
                    }
                }
            }
            Err(why) => {
                tracing::warn!("cannot record: {why}");
                self.leaving.extend(found);
            }
        }
    }

    fn figures(&mut self) -> Figures {
        let now_ns = proc::monotonic_ns();
        let recorded = |run: &Run| Recorded {
            id: run.plan.id.clone(),
            name: run.plan.name.clone(),
            pid: run.plan.root.0,
            uid: run.plan.uid,
            unit: run.plan.unit.clone(),
            rule: run.plan.rule.clone(),
            command: run.vitals.command.get().cloned().unwrap_or_default(),
            for_ns: now_ns.saturating_sub(run.plan.began_ns),
            consumes: run.vitals.consumes.load(Ordering::Relaxed),
            events: run.vitals.events.load(Ordering::Relaxed),
            promoted: run.vitals.promoted.load(Ordering::Relaxed),
        };
        let mut recordings: Vec<Recorded> = self.runs.values().map(recorded).collect();
        recordings.sort_by(|a, b| b.for_ns.cmp(&a.for_ns).then_with(|| a.id.cmp(&b.id)));
        let mut lost = self.lost.clone();
        if self.refused > 0 {
            lost.insert("refused/recording".into(), self.refused);
        }
        Figures {
            recordings,
            begun: self.begun,
            events: self.events,
            events_per_s: self.rate.per_s(now_ns),
            lost,
            programs: self.kernel.facts(),
            rules: self.settings.rules.iter().map(|rule| rule.name.clone()).collect(),
            stopped: self.paused.clone(),
        }
    }
}
