//! Sorts what the kernel tells by process tree, and begins and ends recordings. One thread; it never waits for a disk, a broker or a client.
//! Knows processes and plans; nothing of what events say beyond who is born, executes and ends.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    time::Duration,
};

use super::{
    feed::{self, Inlet},
    kernel::Kernel,
    plan::{Plan, Word},
    recorder::{self, Outcome, Vitals},
    settings::{Rule, Settings},
    spool::Spool,
    status::Recorded,
    store, target,
};
use crate::{
    capability::Capability,
    event::{Body, Event, Exec, Known, Origin, Pid},
    session::Ending,
    source::{ebpf::ProgramFacts, proc},
};

/// How long the kernel is waited for when something is recorded, and when nothing is.
const BEAT: Duration = Duration::from_millis(30);
const IDLE_BEAT: Duration = Duration::from_millis(100);
/// Events taken from the kernel at a time.
const ROOM: usize = 16_384;
/// Recordings at one time, those of one user who is not root, and of those that they asked for.
const MOST_RECORDINGS: usize = 256;
const MOST_OF_A_USER: usize = 128;
const MOST_ASKED_FOR: usize = 32;
/// What a root leaves running is recorded so much longer.
const LINGER_NS: u64 = 1_000_000_000;
/// How often it is looked whether what should run still does: an end may have been lost.
const LOOK_EVERY_NS: u64 = 5_000_000_000;

/// How long after the last recording interpreters stay probed.
const REST_AFTER_NS: u64 = 60_000_000_000;

/// When a process was created is known to a tick of the kernel: the slowest have a hundred in a second.
const TICK_NS: u64 = 10_000_000;

/// What the dispatcher is asked.
pub(super) enum Command {
    /// New settings hold from now on.
    Settings(Box<Settings>),
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
pub(super) type Answer<T> = tokio::sync::oneshot::Sender<Result<T, String>>;

/// A user's request, checked: the process is theirs.
#[derive(Clone, Debug, Default)]
pub(super) struct Ask {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) pid: u32,
    pub(super) ticks: u64,
    /// It waits to execute its command, rather than running already.
    pub(super) held: bool,
    pub(super) command: Vec<String>,
    pub(super) name: Option<String>,
    pub(super) broker: Option<String>,
    pub(super) management: Option<String>,
    pub(super) firehose: bool,
    pub(super) bodies: bool,
}

/// A recording that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Begun {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) path: String,
}

/// Told by a recording's thread once its session is there, or why it is not.
pub(super) type Begin = Box<dyn FnOnce(Result<&std::path::Path, String>) + Send>;

/// How things stand.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    pub(super) recordings: Vec<Recorded>,
    pub(super) begun: u64,
    pub(super) events: u64,
    pub(super) events_per_s: f64,
    pub(super) lost: BTreeMap<String, u64>,
    pub(super) programs: Vec<ProgramFacts>,
    pub(super) rules: Vec<String>,
    pub(super) stopped: Option<String>,
}

/// One recording under way.
struct Run {
    plan: Plan,
    inlet: Inlet,
    words: Sender<Word>,
    vitals: Arc<Vitals>,
    members: HashSet<Pid>,
    /// When its root ended, and how.
    ended: Option<(u64, Option<i32>, Option<i32>)>,
    waiting: Vec<Answer<()>>,
}

/// See the module.
pub(super) struct Dispatcher<K> {
    kernel: K,
    settings: Settings,
    spool: Spool,
    capabilities: Vec<Capability>,
    runs: HashMap<String, Run>,
    /// Which recording a process belongs to.
    members: HashMap<Pid, String>,
    outcomes: Sender<Outcome>,
    /// When we were last seen at work, in nanoseconds on `CLOCK_MONOTONIC`.
    alive_ns: Arc<AtomicU64>,
    looked_ns: u64,
    /// When something was last recorded.
    busy_ns: u64,
    /// Whether the kernel half was let rest since.
    rests: bool,
    rate: Rate,
    begun: u64,
    events: u64,
    refused: u64,
    lost: BTreeMap<String, u64>,
    paused: Option<String>,
    /// Processes the kernel is to let go of, all together: it takes as long as for one.
    leaving: Vec<Pid>,
}

impl<K: Kernel> Dispatcher<K> {
    pub(super) fn new(
        mut kernel: K,
        settings: Settings,
        spool: Spool,
        capabilities: Vec<Capability>,
        outcomes: Sender<Outcome>,
        alive_ns: Arc<AtomicU64>,
    ) -> Result<Self, crate::source::SourceError> {
        kernel.watch(&settings.rules)?;
        Ok(Self {
            kernel,
            settings,
            spool,
            capabilities,
            runs: HashMap::new(),
            members: HashMap::new(),
            outcomes,
            alive_ns,
            looked_ns: 0,
            busy_ns: proc::monotonic_ns(),
            rests: true,
            rate: Rate::default(),
            begun: 0,
            events: 0,
            refused: 0,
            lost: BTreeMap::new(),
            paused: None,
            leaving: Vec::new(),
        })
    }

    /// Works until it is told to stop, or the kernel's source fails.
    pub(super) fn work(mut self, commands: &Receiver<Command>) -> Result<(), crate::source::SourceError> {
        let mut events = Vec::new();
        loop {
            let mut let_go = Vec::new();
            for command in commands.try_iter() {
                if matches!(command, Command::Stop) {
                    self.kernel.poll(Duration::ZERO, ROOM, &mut events)?;
                    events.drain(..).for_each(|event| self.sort(event));
                    return Ok(());
                }
                // What happened until it was asked for is recorded first.
                if matches!(command, Command::LetGo { .. }) {
                    let_go.push(command);
                    continue;
                }
                self.obey(command);
                self.let_leave();
            }
            self.kernel.poll(if self.runs.is_empty() { IDLE_BEAT } else { BEAT }, ROOM, &mut events)?;
            let now_ns = proc::monotonic_ns();
            self.events += events.len() as u64;
            self.rate.add(now_ns, events.len() as u64);
            for event in events.drain(..) {
                self.sort(event);
            }
            self.runs.values().for_each(|run| run.inlet.flush());
            let_go.into_iter().for_each(|command| self.obey(command));
            self.end_what_is_over(now_ns);
            self.let_leave();
            self.rest_when_idle(now_ns);
            self.alive_ns.store(now_ns, Ordering::Relaxed);
        }
    }

    /// Hands an event to the recording it belongs to, and learns from it who belongs to which.
    fn sort(&mut self, event: Event) {
        if let Body::Lost { hop, what, count, .. } = &event.body {
            let hop = serde_json::to_value(hop).ok().and_then(|hop| hop.as_str().map(str::to_owned));
            *self.lost.entry(format!("{}/{what}", hop.unwrap_or_default())).or_default() += count;
        }
        if event.pid == Pid(0) {
            // Of ourselves, or of the kernel's rings: it concerns whoever is recorded.
            for run in self.runs.values() {
                run.inlet.put(event.clone());
            }
            return;
        }
        let Some(id) = self.members.get(&event.pid).cloned() else {
            if let Body::Exec(exec) = &event.body {
                match super::kernel::rule_of(exec) {
                    Some(rule) => self.fits(rule, event),
                    // Of what was let go of in the meantime.
                    None => self.leaving.push(event.pid),
                }
            }
            return;
        };
        let Some(run) = self.runs.get_mut(&id) else { return };
        let mut leaves = false;
        match &event.body {
            Body::Fork { child } => {
                run.members.insert(*child);
                self.members.insert(*child, id);
            }
            // What a process was when it was adopted is read from /proc, and was looked at there: it does not say everything.
            Body::Exec(exec) => {
                leaves = event.observed_from != Origin::Proc && !is_owners(exec, run.plan.uid);
            }
            Body::Exit { code, signal, .. } => {
                leaves = true;
                if event.pid == run.plan.root {
                    run.ended = Some((event.at_ns, *code, *signal));
                }
            }
            _ => {}
        }
        let pid = event.pid;
        let Some(run) = self.runs.get_mut(self.members.get(&pid).map_or("", String::as_str)) else { return };
        let became_anothers = leaves && matches!(event.body, Body::Exec(_));
        run.inlet.put(event);
        if leaves {
            run.members.remove(&pid);
            self.members.remove(&pid);
        }
        if became_anothers {
            self.leaving.push(pid);
        }
    }

    /// A program was executed that fits a rule.
    fn fits(&mut self, rule: u32, event: Event) {
        let Body::Exec(exec) = &event.body else { return };
        let pid = event.pid;
        let rule = usize::try_from(rule)
            .ok()
            .and_then(|rule| self.settings.rules.get(rule.checked_sub(1)?))
            .cloned();
        let refused = match (&rule, &self.paused) {
            (None, _) => true,
            (_, Some(_)) => true,
            _ => self.is_full(owner_of(exec).0),
        };
        let Some(rule) = rule.filter(|_| !refused) else {
            self.refused += 1;
            self.leaving.push(pid);
            return;
        };
        let begun = plan(&rule, &event, exec).and_then(|plan| self.begin(plan, None, Box::new(|_| {})));
        match begun {
            Ok(()) => self.sort(event),
            Err(why) => {
                tracing::warn!(pid = pid.0, "cannot record: {why}");
                self.refused += 1;
                self.leaving.push(pid);
            }
        }
    }

    /// Whether there is no room for one more recording of this user: nobody but root may take all there is.
    fn is_full(&self, uid: u32) -> bool {
        let theirs = || self.runs.values().filter(|run| run.plan.uid == uid).count();
        self.runs.len() >= MOST_RECORDINGS || (uid != 0 && theirs() >= MOST_OF_A_USER)
    }

    fn let_leave(&mut self) {
        if !self.leaving.is_empty() {
            self.kernel.forget(&std::mem::take(&mut self.leaving));
        }
    }

    /// Begins a recording. `begun` is told by the recording's own thread once its session is there.
    fn begin(
        &mut self,
        plan: Plan,
        resumed: Option<(store::Reopened, HashSet<Pid>)>,
        begun: Begin,
    ) -> Result<(), String> {
        let dir = match self.spool.open(&plan) {
            Ok(dir) => dir,
            Err(why) => {
                begun(Err(why.clone()));
                return Err(why);
            }
        };
        let (inlet, feed) = feed::feed(self.kernel.describe());
        let (words, heard) = mpsc::channel();
        let vitals = Arc::new(Vitals::default());
        recorder::spawn(recorder::Start {
            plan: plan.clone(),
            flight: self.settings.flight.clone(),
            dir,
            resumed,
            feed,
            words: heard,
            vitals: Arc::clone(&vitals),
            capabilities: self.capabilities.clone(),
            outcomes: self.outcomes.clone(),
            begun,
        });
        self.begun += 1;
        self.members.insert(plan.root, plan.id.clone());
        let members = HashSet::from([plan.root]);
        let id = plan.id.clone();
        let run = Run { plan, inlet, words, vitals, members, ended: None, waiting: Vec::new() };
        self.runs.insert(id, run);
        Ok(())
    }

    /// Goes on with what was under way when we were ended.
    pub(super) fn resume(&mut self, plan: Plan, reopened: store::Reopened) {
        let last_ns = reopened.resumed.last_ns;
        let before = reopened.resumed.alive.iter().map(|before| before.pid);
        // A number may have passed to another process meanwhile, of another user even.
        let is_same = |pid: &Pid| {
            target::of_user(pid.0, plan.uid).is_ok()
                && proc::started_ns(pid.0).is_some_and(|started_ns| started_ns <= last_ns + TICK_NS)
        };
        let mut alive: HashSet<Pid> = before.filter(is_same).collect();
        // Of what had just begun, the session may know nothing yet.
        let root_lives =
            target::of_user(plan.root.0, plan.uid).is_ok_and(|found| found.ticks == plan.root_ticks);
        if !root_lives {
            alive.clear();
        }
        let mut members = HashSet::new();
        for pid in alive.iter().chain(root_lives.then_some(&plan.root).filter(|root| !alive.contains(root))) {
            match self.kernel.adopt(*pid, plan.uid, &alive) {
                Ok(found) => members.extend(found),
                Err(error) => tracing::warn!(pid = pid.0, "cannot go on with a process: {error}"),
            }
        }
        let (id, root) = (plan.id.clone(), plan.root);
        if let Err(why) = self.begin(plan, Some((reopened, alive)), Box::new(|_| {})) {
            tracing::warn!(session = id, "cannot go on with the recording: {why}");
            self.leaving.extend(members);
            return;
        }
        if let Some(run) = self.runs.get_mut(&id) {
            run.members = members;
            if !root_lives {
                self.members.remove(&root);
                run.ended = Some((proc::monotonic_ns(), None, None));
            }
            self.members.extend(run.members.iter().map(|pid| (*pid, id.clone())));
        }
    }

    fn end_what_is_over(&mut self, now_ns: u64) {
        if now_ns.saturating_sub(self.looked_ns) >= LOOK_EVERY_NS {
            self.looked_ns = now_ns;
            self.look_over(now_ns);
        }
        let is_over = |run: &Run| match run.ended {
            Some((at_ns, ..)) => run.members.is_empty() || now_ns.saturating_sub(at_ns) > LINGER_NS,
            None => {
                let limit = run.plan.limit.map_or(u64::MAX, |limit| limit.0);
                run.members.is_empty() || now_ns.saturating_sub(run.plan.began_ns) > limit
            }
        };
        let over: Vec<String> =
            self.runs.iter().filter(|(_, run)| is_over(run)).map(|(id, _)| id.clone()).collect();
        for id in over {
            let limit = self.runs.get(&id).is_some_and(|run| run.ended.is_none() && !run.members.is_empty());
            self.end(&id, if limit { "time-limit" } else { "exited" });
        }
    }

    fn end(&mut self, id: &str, reason: &str) {
        let Some(run) = self.runs.remove(id) else { return };
        for pid in &run.members {
            self.members.remove(pid);
        }
        self.leaving.extend(&run.members);
        let (ended_ns, code, signal) = run.ended.unwrap_or_else(|| (proc::monotonic_ns(), None, None));
        let _ = run.words.send(Word::Over(Ending { ended_ns, code, signal, reason: reason.into() }));
        self.spool.ends(id, run.plan.uid, run.waiting);
    }

    /// Probes in interpreters cost every program that runs one: they are let go of when nothing was recorded for a while.
    fn rest_when_idle(&mut self, now_ns: u64) {
        if !self.runs.is_empty() {
            self.busy_ns = now_ns;
            self.rests = false;
        } else if !self.rests && now_ns.saturating_sub(self.busy_ns) > REST_AFTER_NS {
            self.rests = true;
            self.kernel.rest();
        }
    }

    /// Ends may have been lost, and processes may have left that are not followed any more.
    fn look_over(&mut self, now_ns: u64) {
        for run in self.runs.values_mut() {
            let gone: Vec<Pid> = run.members.iter().copied().filter(|pid| !proc::is_alive(pid.0)).collect();
            for pid in gone {
                run.members.remove(&pid);
                self.members.remove(&pid);
                if pid == run.plan.root && run.ended.is_none() {
                    run.ended = Some((now_ns, None, None));
                }
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Settings(settings) => match self.kernel.watch(&settings.rules) {
                Ok(()) => self.settings = *settings,
                Err(error) => tracing::error!("the new rules do not hold: {error}"),
            },
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
            Command::Stop => {}
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
        let id = match crate::session::new_id() {
            Ok(id) => id,
            Err(error) => return drop(answer.send(Err(format!("cannot name a session: {error}")))),
        };
        let plan = Plan {
            id,
            name: ask.name.clone().unwrap_or_else(|| crate::session::name_of(&ask.command)),
            uid: ask.uid,
            gid: ask.gid,
            root: pid,
            root_ticks: ask.ticks,
            command: ask.command.clone(),
            attached: !ask.held,
            began_ns: proc::monotonic_ns(),
            unit: None,
            rule: None,
            keep: super::settings::Keep::Always,
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

/// What is recorded by a rule.
fn plan(rule: &Rule, event: &Event, exec: &Exec) -> Result<Plan, String> {
    let command = match &exec.argv {
        Known::Is(words) | Known::Partial { partial: words, .. } => words.clone(),
        Known::Absent { .. } => Vec::new(),
    };
    let owner = owner_of(exec);
    Ok(Plan {
        id: crate::session::new_id().map_err(|error| format!("cannot name a session: {error}"))?,
        name: rule.session.clone().unwrap_or_else(|| crate::session::name_of(&command)),
        uid: owner.0,
        gid: owner.1,
        root: event.pid,
        root_ticks: proc::start_ticks(event.pid.0).unwrap_or(0),
        command,
        attached: false,
        began_ns: event.at_ns,
        unit: super::kernel::unit_of(exec),
        rule: Some(rule.name.clone()),
        keep: rule.keep,
        limit: rule.limit,
        broker: rule.broker.clone(),
        management: rule.management.clone(),
        firehose: false,
        bodies: false,
    })
}

/// User and group whose a program that was executed is: of somebody who became another user by that, or got rights, it is root's.
fn owner_of(exec: &Exec) -> (u32, u32) {
    let user = exec.user.get().filter(|user| is_owners(exec, user.uid));
    user.map_or((0, 0), |user| (user.uid, user.gid))
}

/// Whether a program that was executed is one that its user `uid` may look into: what makes somebody another user, or has rights that
/// they do not have, is not theirs. Root may look into everything.
fn is_owners(exec: &Exec, uid: u32) -> bool {
    if uid == 0 {
        return true;
    }
    let same =
        exec.user.get().is_some_and(|user| user.uid == uid && user.euid == uid && user.gid == user.egid);
    same && super::kernel::is_dumpable(exec)
}

/// Events in a second, over the last ten.
#[derive(Default)]
struct Rate {
    seconds: [(u64, u64); Self::OVER as usize],
}

impl Rate {
    const OVER: u64 = 10;

    fn add(&mut self, now_ns: u64, count: u64) {
        let second = now_ns / 1_000_000_000;
        let slot = &mut self.seconds[(second % Self::OVER) as usize];
        if slot.0 != second {
            *slot = (second, 0);
        }
        slot.1 += count;
    }

    fn per_s(&self, now_ns: u64) -> f64 {
        let second = now_ns / 1_000_000_000;
        let recent = self.seconds.iter().filter(|(at, _)| second.saturating_sub(*at) < Self::OVER);
        recent.map(|(_, count)| *count).sum::<u64>() as f64 / Self::OVER as f64
    }
}
