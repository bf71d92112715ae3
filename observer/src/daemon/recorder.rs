//! One recording, from its first event to what becomes of it: a thread that has its owner's rights to files. It is told by the dispatcher
//! when the tree has ended, and tells the keeper what was concluded. Knows sessions and diagnoses; nothing of the kernel or of clients.

use std::{
    collections::HashSet,
    fs,
    path::Path,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::Duration,
};

use super::{
    conclude::{self, Conclusion},
    dispatch::Begin,
    feed::Feed,
    plan::{Plan, Word},
    pulse::Pulse,
    report::Occasion,
    settings::{Flight, Keep},
    spool::Spool,
    store,
};
use crate::{
    capability::Capability,
    event::Pid,
    recording::{Glance, Recording},
    session::{self, Ending, Header, Owner, SessionError, StateDir},
    source::{
        Source,
        broker::{BrokerConfig, BrokerSource, BrokerUrl, from_worker::FromWorker},
        nearby::Nearby,
        proc,
    },
};

/// How often a recording is looked at for what does not happen.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Recordings that are concluded at one time: each takes memory, and processor time that is not ours.
static CONCLUDING: Mutex<()> = Mutex::new(());

/// What is known of a recording while it goes on.
#[derive(Debug, Default)]
pub(super) struct Vitals {
    /// Events so far.
    pub(super) events: AtomicU64,
    /// Whether a worker of it consumes.
    pub(super) consumes: AtomicBool,
    /// Sessions kept of it so far.
    pub(super) promoted: AtomicU64,
    /// The command line, redacted.
    pub(super) command: OnceLock<Vec<String>>,
}

/// What became of a recording.
#[derive(Debug)]
pub(super) enum Outcome {
    /// A session was kept: the recording itself, or a copy of one that goes on.
    Kept { plan: Box<Plan>, conclusion: Box<Conclusion>, over: bool },
    /// Nothing was wrong, and it is gone.
    Dropped { plan: Box<Plan> },
    /// It could not be recorded.
    Failed { plan: Box<Plan>, why: String },
}

/// What a recording begins with.
pub(super) struct Start {
    pub(super) plan: Plan,
    pub(super) flight: Flight,
    pub(super) dir: StateDir,
    /// What was recorded before we were ended, to be gone on with.
    pub(super) resumed: Option<(store::Reopened, HashSet<Pid>)>,
    pub(super) feed: Feed,
    pub(super) words: Receiver<Word>,
    pub(super) vitals: Arc<Vitals>,
    pub(super) capabilities: Vec<Capability>,
    pub(super) outcomes: Sender<Outcome>,
    /// Told once the session is there, or why it is not.
    pub(super) begun: Begin,
}

/// Records in a thread of its own.
pub(super) fn spawn(start: Start) {
    thread::spawn(move || {
        let (plan, outcomes) = (start.plan.clone(), start.outcomes.clone());
        let outcome = record(start).unwrap_or_else(|why| Some(Outcome::Failed { plan: Box::new(plan), why }));
        if let Some(outcome) = outcome {
            // Nobody listens any more when the service ends.
            let _ = outcomes.send(outcome);
        }
    });
}

fn record(start: Start) -> Result<Option<Outcome>, String> {
    let Start { plan, flight, dir, resumed, feed, words, vitals, capabilities, outcomes, begun } = start;
    let owner = Owner::of(plan.uid, plan.gid);
    let pulse = Arc::new(Mutex::new(Pulse::default()));
    let mut noticed = Noticed::default();
    // With every right: what the redactor does not know of it cannot blank.
    let programs: Vec<_> =
        resumed.iter().flat_map(|(_, alive)| alive).map(|pid| proc::program(pid.0)).collect();
    let began = owner.assume().map_err(|error| error.to_string()).and_then(|()| {
        let broker = broker(&plan);
        let mut descriptions = vec![feed.describe()];
        descriptions.extend(broker.iter().map(|(source, _)| source.describe()));
        let header = store::header(&plan, descriptions, capabilities);
        let (recorder, header) = match resumed {
            Some((reopened, alive)) => {
                let header = reopened.resumed.header.clone();
                noticed = Noticed::before(&plan, &flight, reopened.resumed.last_ns);
                lock(&pulse).recall(&store::path_of(&dir, &plan));
                (store::go_on(reopened, &plan, &alive, programs), header)
            }
            None => {
                let recorder = store::begin(&dir, &plan, header.clone(), &flight);
                (recorder.map_err(|error| error.to_string())?, header)
            }
        };
        let _ = vitals.command.set(store::redacted(&dir, &plan.command).map_err(|error| error.to_string())?);
        Ok((recorder, header, broker))
    });
    let (recorder, header, broker) = match began {
        Ok(began) => began,
        Err(why) => {
            begun(Err(why.clone()));
            return Err(why);
        }
    };
    let path = recorder.path().to_owned();
    let mut sources: Vec<Box<dyn Source>> = vec![Box::new(Nearby::around(feed))];
    let found = broker.map(|(source, found)| {
        sources.push(Box::new(source));
        found
    });
    let recording = Recording::start(sources, recorder, glance(&pulse, &vitals, found));
    begun(Ok(&path));
    let mut watch = Watch { plan: &plan, flight: &flight, pulse: &pulse, noticed };
    let ending = loop {
        match words.recv_timeout(LOOK_EVERY) {
            Ok(Word::Over(ending)) => break ending,
            // The service ends: the session stays as it is, to be gone on with.
            Err(RecvTimeoutError::Disconnected) => {
                recording.leave();
                return Ok(None);
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        vitals.consumes.store(lock(&pulse).consumes(), Ordering::Relaxed);
        if let Some(occasion) = watch.look() {
            match copy(&recording, &dir, &header, occasion) {
                Ok(conclusion) => {
                    vitals.promoted.fetch_add(1, Ordering::Relaxed);
                    let conclusion = Box::new(conclusion);
                    let _ = outcomes.send(Outcome::Kept {
                        plan: Box::new(plan.clone()),
                        conclusion,
                        over: false,
                    });
                }
                Err(error) => {
                    tracing::warn!(session = plan.id, "cannot keep a copy of the recording: {error}")
                }
            }
        }
    };
    if let Some(trouble) = recording.finish(ending) {
        tracing::warn!(session = plan.id, "{trouble}");
    }
    finish(plan, &path).map(Some)
}

/// Concludes what has ended, and keeps it or not.
pub(super) fn finish(plan: Plan, path: &Path) -> Result<Outcome, String> {
    let _one = CONCLUDING.lock().unwrap_or_else(PoisonError::into_inner);
    let conclusion = conclude::conclude(path, Occasion::Ended)
        .map_err(|error| format!("cannot conclude session {}: {error}", plan.id))?;
    let wanted = plan.rule.is_none() || plan.keep == Keep::Always || conclusion.is_trouble();
    if wanted {
        return Ok(Outcome::Kept { plan: Box::new(plan), conclusion: Box::new(conclusion), over: true });
    }
    fs::remove_file(path).map_err(|error| format!("cannot remove {}: {error}", path.display()))?;
    Ok(Outcome::Dropped { plan: Box::new(plan) })
}

/// Keeps a session of what there is while the recording goes on.
fn copy(
    recording: &Recording,
    dir: &StateDir,
    original: &Header,
    occasion: Occasion,
) -> Result<Conclusion, SessionError> {
    let why = if occasion == Occasion::Stalled { "stalled" } else { "not-ready" };
    let name = session::fitting_name(&original.name, why);
    let header = Header { id: dir.new_id()?, name, ..original.clone() };
    let ending =
        Ending { ended_ns: proc::monotonic_ns(), code: None, signal: None, reason: "promoted".into() };
    let place = dir.clone();
    let path = recording.ask(move |recorder| store::copy(recorder, &place, header, &ending));
    let path = path.ok_or_else(|| SessionError::Io {
        attempted: "copy session",
        path: dir.path().to_owned(),
        source: std::io::Error::other("it is no longer written"),
        next: "",
    })??;
    let _one = CONCLUDING.lock().unwrap_or_else(PoisonError::into_inner);
    conclude::conclude(&path, occasion)
}

fn lock(pulse: &Mutex<Pulse>) -> std::sync::MutexGuard<'_, Pulse> {
    pulse.lock().unwrap_or_else(PoisonError::into_inner)
}

fn glance(pulse: &Arc<Mutex<Pulse>>, vitals: &Arc<Vitals>, mut found: Option<FromWorker>) -> Glance {
    let (pulse, vitals) = (Arc::clone(pulse), Arc::clone(vitals));
    Box::new(move |event| {
        vitals.events.fetch_add(1, Ordering::Relaxed);
        lock(&pulse).look(event);
        if let Some(found) = &mut found {
            found.look(event);
        }
    })
}

fn broker(plan: &Plan) -> Option<(BrokerSource, FromWorker)> {
    let asked = plan.broker.as_deref()?;
    let workers = asked == "worker";
    // What cannot be read was refused where it was said.
    let url = if workers { None } else { Some(BrokerUrl::parse(asked).ok()?) };
    let config = BrokerConfig {
        url,
        management: plan.management.clone(),
        firehose: plan.firehose,
        ..BrokerConfig::default()
    };
    let (source, handle) = BrokerSource::new(config);
    Some((source, FromWorker::new(handle, workers)))
}

/// Looks for what does not happen.
struct Watch<'a> {
    plan: &'a Plan,
    flight: &'a Flight,
    pulse: &'a Mutex<Pulse>,
    noticed: Noticed,
}

#[derive(Default)]
struct Noticed {
    not_ready: bool,
    /// Since when what has stalled was held.
    stalled_since_ns: Option<u64>,
}

impl Noticed {
    /// What had been noticed of a recording that is gone on with, of which something is known until `last_ns`.
    fn before(plan: &Plan, flight: &Flight, last_ns: u64) -> Self {
        let not_ready = last_ns.saturating_sub(plan.began_ns) > flight.ready_within.0;
        Self { not_ready, stalled_since_ns: None }
    }
}

impl Watch<'_> {
    fn look(&mut self) -> Option<Occasion> {
        // A user who asked for a recording looks for themselves.
        self.plan.rule.as_ref()?;
        self.look_at(proc::monotonic_ns())
    }

    fn look_at(&mut self, now_ns: u64) -> Option<Occasion> {
        let pulse = lock(self.pulse);
        let (consumes, held_since) = (pulse.consumes(), pulse.held_since_ns());
        drop(pulse);
        // Of what ran before we came, its consumers may have been confirmed before, too.
        let late =
            now_ns.saturating_sub(self.plan.began_ns) > self.flight.ready_within.0 && !self.plan.attached;
        if late && !consumes && !self.noticed.not_ready {
            self.noticed.not_ready = true;
            return Some(Occasion::NotReady);
        }
        let stalled = held_since.filter(|since| now_ns.saturating_sub(*since) > self.flight.stalled_after.0);
        if stalled.is_some() && stalled != self.noticed.stalled_since_ns {
            self.noticed.stalled_since_ns = stalled;
            return Some(Occasion::Stalled);
        }
        None
    }
}

/// Opens what was being recorded when we were ended. What cannot be gone on with is said, and no longer under way.
pub(super) fn reopen(spool: &Spool, plan: Plan) -> Option<(Plan, store::Reopened)> {
    let dir = spool.dir_of(&plan);
    let (owner, asked) = (Owner::of(plan.uid, plan.gid), plan.clone());
    let opened = thread::spawn(move || {
        owner.assume().map_err(|error| error.to_string())?;
        store::reopen(&dir?, &asked).map_err(|error| error.to_string())
    });
    match opened.join().unwrap_or_else(|_| Err("its thread ended".into())) {
        Ok(resumed) => Some((plan, resumed)),
        Err(why) => {
            tracing::warn!(
                session = plan.id,
                "cannot go on with the recording of process {}: {why}",
                plan.root
            );
            spool.done(&plan.id);
            None
        }
    }
}
