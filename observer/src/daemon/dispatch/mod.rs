//! Sorts what the kernel tells by process tree, and begins and ends recordings. One thread; it never waits for a disk, a broker or a client.
//! Knows processes and plans; nothing of what events say beyond who is born, executes and ends.

mod command;
mod fit;
mod life;
mod rate;

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
    kernel::{self, Kernel},
    plan::{Plan, Word},
    recorder::{self, Outcome, Vitals},
    settings::{Rule, Settings},
    spool::Spool,
    store,
};
use crate::{
    capability::Capability,
    event::{Body, Event, Origin, Pid},
    source::{SourceError, proc},
};
pub(super) use command::{Answer, Ask, Begin, Command, Figures};
use fit::{is_owners, owner_of, plan};
use rate::Rate;

/// How long the kernel is waited for when something is recorded, and when nothing is.
const BEAT: Duration = Duration::from_millis(30);
const IDLE_BEAT: Duration = Duration::from_millis(100);
/// Events taken from the kernel at a time.
const ROOM: usize = 16_384;
/// Commands obeyed between two looks at the kernel.
const MOST_COMMANDS: usize = 64;
/// Recordings at one time, those of one user who is not root, and of those that they asked for.
const MOST_RECORDINGS: usize = 256;
const MOST_OF_A_USER: usize = 128;
const MOST_ASKED_FOR: usize = 32;
/// Rules that are known: those that hold, at most 32, and those of some reloads before.
const MOST_RULES: usize = 256;

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
    /// The rules by the numbers that the kernel knows them by, with some that held before: events that name these may be on their way.
    rules: BTreeMap<u32, Rule>,
    spool: Spool,
    capabilities: Vec<Capability>,
    runs: HashMap<String, Run>,
    /// Which recording a process belongs to.
    members: HashMap<Pid, String>,
    /// Members that had ended at the last look.
    gone: HashSet<Pid>,
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
        kernel: K,
        settings: Settings,
        spool: Spool,
        capabilities: Vec<Capability>,
        outcomes: Sender<Outcome>,
        alive_ns: Arc<AtomicU64>,
    ) -> Result<Self, SourceError> {
        let mut made = Self {
            kernel,
            settings: settings.clone(),
            rules: BTreeMap::new(),
            spool,
            capabilities,
            runs: HashMap::new(),
            members: HashMap::new(),
            outcomes,
            alive_ns,
            looked_ns: 0,
            gone: HashSet::new(),
            busy_ns: proc::monotonic_ns(),
            rests: true,
            rate: Rate::default(),
            begun: 0,
            events: 0,
            refused: 0,
            lost: BTreeMap::new(),
            paused: None,
            leaving: Vec::new(),
        };
        made.watch(settings)?;
        Ok(made)
    }

    fn watch(&mut self, settings: Settings) -> Result<(), SourceError> {
        let first = self.rules.last_key_value().map_or(1, |(number, _)| number + 1);
        self.kernel.watch(&settings.rules, first)?;
        self.rules.extend((first..).zip(settings.rules.iter().cloned()));
        while self.rules.len() > MOST_RULES {
            self.rules.pop_first();
        }
        self.settings = settings;
        Ok(())
    }

    /// Works until it is told to stop, or the kernel's source fails.
    pub(super) fn work(mut self, commands: &Receiver<Command>) -> Result<(), SourceError> {
        let mut events = Vec::new();
        loop {
            let mut let_go = Vec::new();
            // However many there are: events do not wait for them.
            let mut newest = None;
            for command in commands.try_iter().take(MOST_COMMANDS) {
                match command {
                    Command::Stop => {
                        self.kernel.poll(Duration::ZERO, ROOM, &mut events)?;
                        events.drain(..).for_each(|event| self.sort(event));
                        return Ok(());
                    }
                    Command::Settings { settings, answer } => newest = Some((settings, answer)),
                    // What happened until it was asked for is recorded first.
                    command @ Command::LetGo { .. } => let_go.push(command),
                    command => {
                        self.obey(command);
                        // Before the next one may take back whom this one let go of.
                        self.let_leave();
                    }
                }
            }
            if let Some((settings, answer)) = newest {
                // It waits for the kernel, some hundredths of a second.
                let _ = answer.send(self.watch(*settings).map_err(|error| error.to_string()));
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
            match &event.body {
                Body::Exec(exec) => match kernel::rule_of(exec) {
                    Some(rule) => self.fits(rule, event),
                    // Of what was let go of in the meantime.
                    None => self.leaving.push(event.pid),
                },
                Body::Fork { child } => self.leaving.push(*child),
                _ => {}
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
        let rule = self.rules.get(&rule).cloned();
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

    /// Lets go of whom nothing is recorded of any more; who has come back meanwhile, by a rule or by request, stays.
    fn let_leave(&mut self) {
        self.leaving.retain(|pid| !self.members.contains_key(pid));
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
}
