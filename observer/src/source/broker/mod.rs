//! The broker's own account: what RabbitMQ says of its connections, consumers, queues and messages, asked for beside the recording. It
//! only reads, and consumes nobody's messages; it knows no session and no terminal.
//!
//! Four ways, each used when it is there and named as missing when it is not ([`crate::event::broker::BrokerAccess`]): passive declares,
//! the event exchange and the firehose over AMQP connections of our own, and the management API.

mod amqp;
mod events;
mod facts;
mod firehose;
pub mod from_worker;
mod management;
mod sink;
mod url;

use std::{
    collections::BTreeSet,
    rc::Rc,
    sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, sync_channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::{
    runtime::Runtime,
    sync::{mpsc, watch},
    task::JoinSet,
};

pub use url::{BrokerUrl, ManagementUrl, UrlError};

use self::{
    amqp::Purposes,
    management::Management,
    sink::{QueueName, Sink},
};
use super::{Description, Flow, Source, SourceError};
use crate::event::{Event, NoteLevel, broker::Way};

/// The client property by which our own connections are known, on this broker and in every session.
const PRODUCT: &str = "observer";
/// Events on their way to whoever records them. When these are taken the broker keeps what it has for us.
const IN_FLIGHT: usize = 8_192;
/// Things told to the source and not yet taken.
const TOLD: usize = 1_024;
/// Queues that are asked one by one: beyond, the management API is the better way.
const MOST_QUEUES: usize = 1_000;
/// Virtual hosts that get a connection.
const MOST_VHOSTS: usize = 16;
/// How long the end may take: tracing is turned off, connections are closed.
const END_LIMIT: Duration = Duration::from_secs(6);
/// Where rabbitmq_event_exchange declares its exchange, unless told otherwise.
const EVENTS_VHOST: &str = "/";

type Queues = BTreeSet<QueueName>;

/// Which broker to ask, and how. It has no `Debug`: the management URL may hold a password.
pub struct BrokerConfig {
    /// The broker; `None`: it is told later, through the handle.
    pub url: Option<BrokerUrl>,
    /// The management API, when it is not where RabbitMQ has it by default. Credentials of its own, else the broker's.
    pub management: Option<String>,
    /// Whether to turn on tracing, and off again at the end.
    pub firehose: bool,
    /// Queues to sample from the beginning, by virtual host and name.
    pub queues: Vec<(String, String)>,
    /// How often queues are asked by passive declare.
    pub sample_every: Duration,
    /// How often the management API is asked.
    pub manage_every: Duration,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            url: None,
            management: None,
            firehose: false,
            queues: Vec::new(),
            sample_every: Duration::from_secs(1),
            manage_every: Duration::from_secs(2),
        }
    }
}

enum Told {
    Broker(BrokerUrl),
    Queue(QueueName),
}

/// Tells the source what is found out while recording. Never waits.
#[derive(Clone)]
pub struct BrokerHandle(mpsc::Sender<Told>);

impl BrokerHandle {
    /// The broker to ask. Only the first one counts. False: the source does not take it now.
    pub fn broker(&self, url: BrokerUrl) -> bool {
        self.0.try_send(Told::Broker(url)).is_ok()
    }

    /// A queue to sample. False: the source does not take it now.
    pub fn queue(&self, vhost: &str, queue: &str) -> bool {
        self.0.try_send(Told::Queue((vhost.to_owned(), queue.to_owned()))).is_ok()
    }
}

/// A broker being asked, in a thread of its own.
pub struct BrokerSource {
    events: Receiver<Event>,
    stop: watch::Sender<bool>,
    /// Until the first poll: a thread takes over the signal mask of whoever starts it, and that should be a recording's.
    unstarted: Option<(BrokerConfig, Sink, mpsc::Receiver<Told>)>,
    thread: Option<JoinHandle<()>>,
    whom: String,
    firehose: bool,
}

impl BrokerSource {
    /// A source that begins to ask when it is first polled. It never fails for the broker's sake: what cannot be had is said in the
    /// events.
    pub fn new(config: BrokerConfig) -> (Self, BrokerHandle) {
        let (sender, events) = sync_channel(IN_FLIGHT);
        let (stop, stopped) = watch::channel(false);
        let (tell, told) = mpsc::channel(TOLD);
        let whom =
            config.url.as_ref().map_or_else(|| "the worker's own broker".to_owned(), ToString::to_string);
        let firehose = config.firehose;
        let unstarted = Some((config, Sink::new(sender, stopped), told));
        (Self { events, stop, unstarted, thread: None, whom, firehose }, BrokerHandle(tell))
    }

    fn start(&mut self) -> Result<(), SourceError> {
        let Some((config, sink, told)) = self.unstarted.take() else { return Ok(()) };
        let failed = |error: std::io::Error| SourceError {
            attempted: "cannot start the thread that asks the broker".into(),
            answer: error.to_string(),
            next: String::new(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let asking = move || {
            crate::source::step_back();
            tokio::task::LocalSet::new().block_on(&runtime, run(config, Rc::new(sink), told));
            end(runtime);
        };
        self.thread = Some(thread::Builder::new().name("broker".into()).spawn(asking).map_err(failed)?);
        Ok(())
    }
}

impl Source for BrokerSource {
    fn describe(&self) -> Description {
        let mut unseen = vec![
            "queues and connections are samples: what came and went between two of them is seen only by the event exchange"
                .to_owned(),
            "times are when the answer arrived, not when it happened in the broker".to_owned(),
        ];
        if !self.firehose {
            unseen.push("single messages, unless tracing is on (--firehose turns it on)".to_owned());
        }
        unseen.push(format!(
            "what {} does not let its user see; events of kind broker-access say what",
            self.whom
        ));
        Description { name: "broker".into(), unseen }
    }

    fn poll(&mut self, wait: Duration, room: usize, out: &mut Vec<Event>) -> Result<Flow, SourceError> {
        self.start()?;
        if room == 0 {
            thread::sleep(wait);
            return Ok(Flow::More);
        }
        match self.events.recv_timeout(wait) {
            Ok(event) => out.push(event),
            Err(RecvTimeoutError::Timeout) => return Ok(Flow::More),
            Err(RecvTimeoutError::Disconnected) => return Ok(Flow::End),
        }
        out.extend(self.events.try_iter().take(room - 1));
        Ok(Flow::More)
    }

    fn finish(&mut self, out: &mut Vec<Event>) {
        self.unstarted = None;
        self.stop.send_replace(true);
        let end = Instant::now() + END_LIMIT;
        loop {
            match self.events.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(event) => out.push(event),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    let text = "the broker's source did not end in time; tracing may still be on";
                    return out.push(sink::event(crate::event::Body::Note {
                        level: NoteLevel::Warning,
                        text: text.into(),
                    }));
                }
            }
        }
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed; the recording is whole without.
            let _ = thread.join();
        }
    }
}

impl Drop for BrokerSource {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        // Tracing must not stay on because a recording failed.
        let end = Instant::now() + END_LIMIT;
        while self.thread.is_some() && Instant::now() < end {
            match self.events.try_recv() {
                Ok(_) => {}
                Err(TryRecvError::Empty) => thread::sleep(Duration::from_millis(5)),
                Err(TryRecvError::Disconnected) => break,
            }
        }
    }
}

/// Ends the event loop. lapin connects in a thread of its own, and that panics when what it waits for is cancelled with the loop, which would
/// be the end of the whole recording. It is given a moment to end by itself; where it does not, the loop stays, and is leaked.
fn end(runtime: Runtime) {
    const MOMENT: Duration = Duration::from_millis(300);
    runtime.block_on(async {
        let begun = Instant::now();
        while lapin_connects() && begun.elapsed() < MOMENT {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    if amqp::is_connecting() || lapin_connects() {
        std::mem::forget(runtime);
    } else {
        runtime.shutdown_timeout(Duration::from_millis(200));
    }
}

/// Whether a thread of lapin's is there, for whomever (`proc_pid_task(5)`).
fn lapin_connects() -> bool {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    tasks
        .map(|task| task.path().join("comm"))
        .any(|comm| std::fs::read(comm).is_ok_and(|name| name.trim_ascii_end() == b"lapin-io-loop"))
}

async fn run(config: BrokerConfig, sink: Rc<Sink>, mut told: mpsc::Receiver<Told>) {
    let BrokerConfig { url, management, firehose, queues, sample_every, manage_every } = config;
    let (watched, queues) = watch::channel(queues.into_iter().collect::<Queues>());
    let url = match url {
        Some(url) => url,
        None => match first_url(&sink, &mut told, &watched).await {
            Some(url) => url,
            None => return,
        },
    };
    sink.set_firehose_vhost(url.vhost());
    let mut tasks = JoinSet::new();
    match management
        .as_deref()
        .map_or_else(|| Ok(ManagementUrl::of(&url)), |text| ManagementUrl::parse(text, &url).map(Some))
    {
        Ok(Some(at)) => {
            let vhost = url.vhost().to_owned();
            let management =
                Management { sink: Rc::clone(&sink), url: at, vhost, firehose, every: manage_every };
            tasks.spawn_local(management.watch());
        }
        Ok(None) => {
            let detail = format!("no port is ten thousand above {}; name it with --management", url.port());
            sink.access(Way::Management, None, false, detail).await;
        }
        Err(error) => sink.access(Way::Management, None, false, format!("--management: {error}")).await,
    }
    let mut vhosts = BTreeSet::new();
    loop {
        let mut wanted: BTreeSet<String> = queues.borrow().iter().map(|(vhost, _)| vhost.clone()).collect();
        wanted.extend([url.vhost().to_owned(), EVENTS_VHOST.to_owned()]);
        for vhost in wanted {
            if vhosts.len() < MOST_VHOSTS && vhosts.insert(vhost.clone()) {
                let home = vhost == url.vhost();
                let purposes =
                    Purposes { events: home || vhost == EVENTS_VHOST, firehose: home, sample_every };
                let (sink, url, queues) = (Rc::clone(&sink), url.clone(), queues.clone());
                tasks.spawn_local(amqp::watch_vhost(sink, url, vhost, purposes, queues));
            }
        }
        tokio::select! {
            () = sink.stopped() => break,
            news = told.recv() => match news {
                Some(Told::Queue(queue)) => watch_queue(&watched, queue),
                // Another connection of the worker, or another broker: one is asked.
                Some(Told::Broker(_)) => {}
                None => {
                    sink.stopped().await;
                    break;
                }
            },
        }
    }
    // Each ends by itself: one of them has tracing to turn off.
    let _ = tokio::time::timeout(END_LIMIT, async { while tasks.join_next().await.is_some() {} }).await;
}

async fn first_url(
    sink: &Sink,
    told: &mut mpsc::Receiver<Told>,
    watched: &watch::Sender<Queues>,
) -> Option<BrokerUrl> {
    let detail = "waiting for the worker to log in to its broker: its address and credentials are used then";
    sink.access(Way::Amqp, None, false, detail.into()).await;
    loop {
        tokio::select! {
            () = sink.stopped() => return None,
            news = told.recv() => match news? {
                Told::Broker(url) => {
                    let detail = format!("the worker logs in to {url}; the same is used here");
                    sink.access(Way::Amqp, None, true, detail).await;
                    return Some(url);
                }
                Told::Queue(queue) => watch_queue(watched, queue),
            },
        }
    }
}

fn watch_queue(watched: &watch::Sender<Queues>, queue: QueueName) {
    watched.send_if_modified(|queues| queues.len() < MOST_QUEUES && queues.insert(queue));
}
