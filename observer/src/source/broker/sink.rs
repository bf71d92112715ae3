//! What every part of the broker's source shares: where events go, which ways are open, what is our own. It asks no broker itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex, MutexGuard, PoisonError,
        mpsc::{SyncSender, TrySendError},
    },
    time::Duration,
};

use tokio::sync::watch;

use crate::{
    event::{
        Body, Event, NoteLevel, Origin, Pid, Tid,
        broker::{BrokerAccess, Way},
    },
    source::proc,
};

/// How long to wait when the receiver has no room. Meanwhile the broker keeps what it has for us.
const ROOM_EVERY: Duration = Duration::from_millis(5);

/// A queue by virtual host and name.
pub(super) type QueueName = (String, String);

/// A way, and the virtual host it is open in.
type Access = (Way, Option<String>);

/// What is the observer's own on the broker.
#[derive(Debug, Default)]
pub(super) struct Ours {
    /// Queues we declared.
    pub(super) queues: BTreeSet<QueueName>,
    /// Connections, by the broker's name for them.
    pub(super) connections: BTreeSet<String>,
}

/// What is known of the firehose: three parts of the source each know a piece of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Firehose {
    /// Whether its exchange is bound to a queue of ours; else why not.
    pub(super) bound: Option<Result<(), String>>,
    /// Whether tracing is on, as the management API says; and why it cannot be asked.
    pub(super) tracing: Option<Result<bool, String>>,
    /// Whether we turned it on.
    pub(super) by_us: bool,
    /// A traced message came: whatever else is known, it is on.
    pub(super) flows: bool,
}

/// Shared by everything that runs in the source's thread.
pub(super) struct Sink {
    events: SyncSender<Event>,
    /// By way and virtual host: open or not, and why.
    access: Mutex<BTreeMap<Access, (bool, String)>>,
    ours: Mutex<Ours>,
    firehose: Mutex<Firehose>,
    firehose_vhost: Mutex<String>,
    stop: watch::Receiver<bool>,
}

impl Sink {
    pub(super) fn new(events: SyncSender<Event>, stop: watch::Receiver<bool>) -> Self {
        Self {
            events,
            access: Mutex::default(),
            ours: Mutex::default(),
            firehose: Mutex::default(),
            firehose_vhost: Mutex::default(),
            stop,
        }
    }

    /// Hands an event over, waiting until there is room for it. Nobody takes events any more: it is dropped with the recording.
    pub(super) async fn send(&self, body: Body) {
        let mut event = event(body);
        while let Err(TrySendError::Full(back)) = self.events.try_send(event) {
            event = back;
            tokio::time::sleep(ROOM_EVERY).await;
        }
    }

    pub(super) async fn note(&self, level: NoteLevel, text: String) {
        self.send(Body::Note { level, text }).await;
    }

    /// Says whether a way is open, when that or the reason is new.
    pub(super) async fn access(&self, way: Way, vhost: Option<&str>, available: bool, detail: String) {
        let vhost = vhost.map(str::to_owned);
        let news = (available, detail.clone());
        let before = lock(&self.access).insert((way, vhost.clone()), news.clone());
        if before.as_ref() != Some(&news) {
            self.send(Body::BrokerAccess(BrokerAccess { way, vhost, available, detail })).await;
        }
    }

    /// Says that a way is closed if it was open: what it rested on is gone.
    pub(super) async fn close(&self, way: Way, vhost: &str, detail: &str) {
        let open = lock(&self.access).get(&(way, Some(vhost.to_owned()))).is_some_and(|(open, _)| *open);
        if open {
            self.access(way, Some(vhost), false, detail.to_owned()).await;
        }
    }

    pub(super) fn ours(&self) -> MutexGuard<'_, Ours> {
        lock(&self.ours)
    }

    pub(super) fn set_firehose_vhost(&self, vhost: &str) {
        *lock(&self.firehose_vhost) = vhost.to_owned();
    }

    /// Takes over a new piece of knowledge about the firehose, and says what it comes to.
    pub(super) async fn firehose(&self, learn: impl FnOnce(&mut Firehose)) {
        let known = {
            let mut firehose = lock(&self.firehose);
            learn(&mut firehose);
            firehose.clone()
        };
        let vhost = lock(&self.firehose_vhost).clone();
        let (available, detail) = known.verdict();
        self.access(Way::Firehose, Some(&vhost), available, detail).await;
    }

    /// Waits until it is time to end.
    pub(super) async fn stopped(&self) {
        let mut stop = self.stop.clone();
        // An error: whoever would tell is gone, and so is the reason to go on.
        let _ = stop.wait_for(|stop| *stop).await;
    }

    pub(super) fn is_stopped(&self) -> bool {
        *self.stop.borrow()
    }

    /// Waits, but not longer than we are wanted.
    pub(super) async fn pause(&self, time: Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = self.stopped() => {}
        }
    }
}

impl Firehose {
    fn verdict(&self) -> (bool, String) {
        const LOST: &str = "without it single messages are not seen by the broker's account";
        match (&self.bound, &self.tracing) {
            (None, _) => (false, format!("not bound to amq.rabbitmq.trace yet; {LOST}")),
            (Some(Err(error)), _) => (false, format!("{error}; {LOST}")),
            (Some(Ok(())), _) if self.flows => {
                (true, "bound to amq.rabbitmq.trace, and messages arrive".into())
            }
            (Some(Ok(())), Some(Ok(true))) if self.by_us => {
                (true, "bound to amq.rabbitmq.trace; tracing was turned on by observer".into())
            }
            (Some(Ok(())), Some(Ok(true))) => {
                (true, "bound to amq.rabbitmq.trace; tracing was on already".into())
            }
            (Some(Ok(())), Some(Ok(false))) => (
                false,
                format!(
                    "bound to amq.rabbitmq.trace, but tracing is off; {LOST}; turn it on with --firehose"
                ),
            ),
            (Some(Ok(())), Some(Err(error))) => (
                false,
                format!(
                    "bound to amq.rabbitmq.trace; whether tracing is on cannot be asked ({error}); if it is, messages are recorded"
                ),
            ),
            (Some(Ok(())), None) => {
                (false, "bound to amq.rabbitmq.trace; whether tracing is on is not known yet".into())
            }
        }
    }
}

pub(super) fn event(body: Body) -> Event {
    let own = matches!(body, Body::Note { .. } | Body::BrokerAccess(_));
    Event {
        at_ns: proc::monotonic_ns(),
        pid: Pid(0),
        tid: Tid(0),
        observed_from: if own { Origin::Observer } else { Origin::Broker },
        body,
        bytes: Vec::new(),
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
