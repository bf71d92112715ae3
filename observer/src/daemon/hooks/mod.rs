//! What is done about a report: commands and URLs, by code, no more often than was said. Whoever reports never waits for them; it knows
//! not what they do.

mod run;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::{report::Report, settings::Hook};
use crate::words::{escape::escape, glob};

/// Reports that may wait for their turn.
const WAITING: usize = 64;

/// Runs hooks. When it is dropped, those that run or wait have [`Limits::farewell`] to end, and whoever drops it waits for that: at a
/// reload it is best dropped in a thread of its own.
#[derive(Debug)]
pub struct Hooks {
    hooks: Arc<[Hook]>,
    counts: Arc<Counts>,
    /// When each hook was last fired for each code.
    fired: Mutex<HashMap<(usize, String), Instant>>,
    queue: Option<(mpsc::Sender<Job>, oneshot::Sender<()>)>,
    worker: Option<JoinHandle<()>>,
}

/// How long things may take, and how many at a time.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest a command may run, its output included.
    pub command: Duration,
    /// Longest an answer to a POST may take.
    pub answer: Duration,
    /// How many run at a time.
    pub together: usize,
    /// Longest the end of the service waits for them.
    pub farewell: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            command: Duration::from_secs(30),
            answer: Duration::from_secs(10),
            together: 4,
            farewell: Duration::from_secs(5),
        }
    }
}

/// What became of all that hooks were asked for, since they were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Ended well: status 0, or an answer of the kind 2xx.
    pub succeeded: u64,
    /// Ended otherwise, or could not be begun.
    pub failed: u64,
    /// Not begun, because the same was done a while ago (`every`).
    pub limited: u64,
    /// Not begun, because too many wait.
    pub dropped: u64,
}

#[derive(Debug, Default)]
struct Counts {
    succeeded: AtomicU64,
    failed: AtomicU64,
    limited: AtomicU64,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct Job {
    hook: usize,
    report: Arc<Report>,
}

impl Hooks {
    /// Gets ready to run these.
    ///
    /// # Errors
    /// When no thread can be started for them.
    pub fn new(hooks: &[Hook]) -> io::Result<Self> {
        Self::with_limits(hooks, Limits::default())
    }

    /// The same with other limits.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_limits(hooks: &[Hook], limits: Limits) -> io::Result<Self> {
        let mut made = Self {
            hooks: hooks.into(),
            counts: Arc::default(),
            fired: Mutex::default(),
            queue: None,
            worker: None,
        };
        if hooks.is_empty() {
            return Ok(made);
        }
        let (queue, jobs) = mpsc::channel(WAITING);
        let (end, ending) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (hooks, counts) = (Arc::clone(&made.hooks), Arc::clone(&made.counts));
        let work = move || runtime.block_on(run::all(jobs, ending, hooks, counts, limits));
        made.worker = Some(std::thread::Builder::new().name("observer-hooks".into()).spawn(work)?);
        made.queue = Some((queue, end));
        Ok(made)
    }

    /// Has everything done that is to be done about this. Never waits.
    pub fn fire(&self, report: &Report) {
        let Some((queue, _)) = &self.queue else { return };
        let shared = Arc::new(report.clone());
        for (index, hook) in self.hooks.iter().enumerate() {
            if !hook.on.iter().any(|on| glob::matches(on, &report.code)) {
                continue;
            }
            let Some(before) = self.admit(index, hook, &report.code) else {
                self.counts.limited.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            if queue.try_send(Job { hook: index, report: Arc::clone(&shared) }).is_err() {
                // What was not done does not count as done a while ago.
                self.take_back(index, &report.code, before);
                self.counts.dropped.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(
                    "hook {} is not run for {} of {}: {WAITING} wait already; make it faster, or fire less often (every)",
                    index + 1,
                    escape(&report.code),
                    escape(&report.name),
                );
            }
        }
    }

    /// What became of everything so far.
    pub fn counted(&self) -> Counted {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counts { succeeded, failed, limited, dropped } = &*self.counts;
        Counted {
            succeeded: read(succeeded),
            failed: read(failed),
            limited: read(limited),
            dropped: read(dropped),
        }
    }

    /// Whether enough time has passed. If so it begins anew, and the answer is when it last did.
    fn admit(&self, index: usize, hook: &Hook, code: &str) -> Option<Option<Instant>> {
        let now = Instant::now();
        let mut fired = self.fired.lock().unwrap_or_else(PoisonError::into_inner);
        let before = fired.get(&(index, code.to_owned())).copied();
        let wait = Duration::from_nanos(hook.every.0);
        if before.is_some_and(|before| now.duration_since(before) < wait) {
            return None;
        }
        fired.insert((index, code.to_owned()), now);
        Some(before)
    }

    fn take_back(&self, index: usize, code: &str, before: Option<Instant>) {
        let mut fired = self.fired.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (index, code.to_owned());
        match before {
            Some(before) => fired.insert(key, before),
            None => fired.remove(&key),
        };
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(worker) = self.worker.take() {
            // It ends within `farewell`, as its queue is closed. That it may have panicked was said by the panic.
            let _ = worker.join();
        }
    }
}
