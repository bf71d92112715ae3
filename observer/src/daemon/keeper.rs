//! What happens to a recording once it is concluded: the index, the journal, the hooks, and what has to go to make room. One thread. Knows
//! conclusions and settings; nothing of processes or events.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    dispatch::Command,
    hooks::{self, Hooks},
    index::Index,
    journal::Journal,
    recorder::Outcome,
    settings::{Retention, Settings},
    spool::Spool,
};
use crate::{
    memory,
    session::{
        retain::{Entry, Limits},
        service,
    },
    words::units,
};

/// How often count, age and free space are looked at: a disk may fill up in seconds.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What the keeper works with, and others look at.
#[derive(Clone)]
pub(super) struct Kept {
    /// The sessions there are.
    pub(super) index: Arc<Mutex<Index>>,
    /// What holds now; replaced when the configuration is read anew.
    pub(super) retention: Arc<Mutex<Retention>>,
    /// What is done about findings; likewise.
    pub(super) hooks: Arc<Mutex<Hooks>>,
    /// Sessions kept because something was wrong, since the start.
    pub(super) promoted: Arc<AtomicU64>,
    /// Where it is said.
    pub(super) journal: Arc<Journal>,
}

/// Works until nobody can have anything to conclude any more.
pub(super) fn work(outcomes: &Receiver<Outcome>, kept: &Kept, spool: &Spool, commands: &Sender<Command>) {
    let mut paused = false;
    let mut looked = Instant::now();
    // Sessions that could not be entered in the index, as on a full disk: until they are, nothing would ever remove them.
    let mut unentered = Vec::new();
    make_room(kept, spool, commands, &mut paused);
    // Of what it took to start.
    memory::give_back();
    let mut busy = false;
    loop {
        match outcomes.recv_timeout(LOOK_EVERY.saturating_sub(looked.elapsed())) {
            Ok(outcome) => {
                take(outcome, kept, spool, &mut unentered);
                busy = true;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if looked.elapsed() >= LOOK_EVERY {
            looked = Instant::now();
            unentered.retain(|entry| lock(&kept.index).add(entry).is_err());
            make_room(kept, spool, commands, &mut paused);
            if std::mem::take(&mut busy) {
                memory::give_back();
            }
        }
    }
}

fn take(outcome: Outcome, kept: &Kept, spool: &Spool, unentered: &mut Vec<Entry>) {
    match outcome {
        Outcome::Kept { plan, conclusion, over } => {
            let entry = Entry {
                id: conclusion.id.clone(),
                owner: plan.uid,
                path: conclusion.path.clone(),
                began_ns: jiff::Timestamp::now().as_nanosecond(),
                bytes: conclusion.bytes,
                healthy: !conclusion.is_trouble(),
                pinned: false,
            };
            enter(entry, kept, unentered);
            if conclusion.is_trouble() && plan.rule.is_some() {
                let report = conclusion.report(&plan);
                kept.promoted.fetch_add(1, Ordering::Relaxed);
                kept.journal.report(&report);
                lock(&kept.hooks).fire(&report);
            }
            if over {
                spool.done(&plan.id);
            }
        }
        Outcome::Dropped { plan } => spool.done(&plan.id),
        Outcome::Failed { plan, why } => {
            tracing::warn!(session = plan.id, pid = plan.root.0, "cannot record: {why}");
            // What there is of it counts, and goes when its time comes.
            let path = service::path_of(spool.base(), plan.uid, &plan.id);
            if let Ok(file) = path.symlink_metadata() {
                let began_ns = jiff::Timestamp::now().as_nanosecond();
                let (id, owner, bytes) = (plan.id.clone(), plan.uid, file.len());
                let entry = Entry { id, owner, path, began_ns, bytes, healthy: false, pinned: false };
                enter(entry, kept, unentered);
            }
            spool.done(&plan.id);
        }
    }
}

fn enter(entry: Entry, kept: &Kept, unentered: &mut Vec<Entry>) {
    if let Err(error) = lock(&kept.index).add(&entry) {
        tracing::warn!(session = entry.id, "cannot enter a session in the index yet: {error:#}");
        unentered.push(entry);
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes what has to go, and says when that does not help.
fn make_room(kept: &Kept, spool: &Spool, commands: &Sender<Command>, paused: &mut bool) {
    let retention = lock(&kept.retention).clone();
    let limits = Limits {
        max_age_ns: retention.max_age.0,
        max_sessions: retention.max_sessions,
        max_bytes: retention.max_bytes.0,
        min_free_bytes: retention.min_free.0,
    };
    let free = || super::free_bytes(spool.base());
    match lock(&kept.index).retain(&limits, jiff::Timestamp::now().as_nanosecond(), free()) {
        Ok((removed, trouble)) => {
            if !removed.is_empty() {
                tracing::info!(
                    "{} removed to stay within the limits",
                    units::counted(removed.len() as u64, "session")
                );
            }
            if let Some(error) = trouble {
                tracing::warn!("cannot remove a session: {error}");
            }
        }
        Err(error) => tracing::warn!("cannot tell which sessions to remove: {error}"),
    }
    let full = free() < retention.min_free.0;
    if full != *paused {
        *paused = full;
        let why = full.then(|| {
            format!(
                "less than {} is free in {}, and there is nothing left to remove; make room, or lower retention.min_free",
                units::size(retention.min_free.0),
                spool.base().display()
            )
        });
        match &why {
            Some(why) => tracing::error!("nothing new is recorded: {why}"),
            None => tracing::info!("there is room again: recording goes on"),
        }
        let _ = commands.send(Command::Pause(why));
    }
}

impl Kept {
    /// Takes over new settings.
    pub(super) fn set(&self, settings: &Settings) {
        *lock(&self.retention) = settings.retention.clone();
        match Hooks::new(&settings.hooks) {
            Ok(hooks) => {
                let before = std::mem::replace(&mut *lock(&self.hooks), hooks);
                // It waits for what it has begun.
                thread::spawn(move || drop(before));
            }
            Err(error) => tracing::error!("the hooks stay as they are: {error}"),
        }
    }

    /// Pins a session, or lets it go again; `uid`: only if it is theirs.
    pub(super) fn pin(&self, id: &str, on: bool, uid: Option<u32>) -> Result<(), String> {
        let index = lock(&self.index);
        let pinned = index.get(id).and_then(|found| match found {
            Some(entry) if uid.is_none_or(|uid| uid == entry.owner) => index.pin(id, on),
            _ => Ok(false),
        });
        match pinned {
            Ok(true) => Ok(()),
            Ok(false) => {
                Err(format!("the service has no finished session {id} of yours; `observer ls` lists them"))
            }
            Err(error) => Err(format!("cannot pin {id}: {error}")),
        }
    }

    /// Whether there is a finished session of this id that is this user's, or root asks.
    pub(super) fn has(&self, id: &str, uid: u32) -> bool {
        let found = lock(&self.index).get(id);
        found.is_ok_and(|found| found.is_some_and(|entry| uid == 0 || uid == entry.owner))
    }

    /// What the hooks did.
    pub(super) fn hooks_counted(&self) -> hooks::Counted {
        lock(&self.hooks).counted()
    }

    /// Sessions there are, bytes they take, and how many were kept since the start because something was wrong.
    pub(super) fn totals(&self) -> (u64, u64, u64) {
        let entries = lock(&self.index).list(None).unwrap_or_default();
        let bytes = entries.iter().map(|entry| entry.bytes).sum();
        (entries.len() as u64, bytes, self.promoted.load(Ordering::Relaxed))
    }
}
