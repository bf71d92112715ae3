//! The service: watches for workers by itself, keeps what they did in a bounded ring, and lets users record what is theirs. It puts the
//! other rooms together and knows them all; nothing but `cli` knows it.

mod conclude;
pub mod config;
mod dispatch;
mod feed;
pub mod hooks;
mod index;
pub mod journal;
mod keeper;
mod kernel;
pub mod metrics;
pub mod notify;
mod plan;
mod privilege;
pub mod protocol;
mod pulse;
mod recorder;
pub mod report;
mod server;
pub mod settings;
mod spool;
pub mod status;
mod store;
mod target;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::Duration,
};

use anyhow::Context as _;
use nix::unistd::{Gid, Group, setfsgid};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    capability::Capability,
    memory,
    source::{SourceError, broker::BrokerUrl, ebpf::Ebpf, probe, proc},
};
use dispatch::{Command, Dispatcher};
use hooks::Hooks;
use index::{Index, Opened};
use journal::Journal;
use keeper::Kept;
use notify::Notify;
use server::{About, Service};
use settings::Settings;
use spool::Spool;

/// The group whose members see the sessions of everybody.
const GROUP: &str = "observer";
/// How long whoever asks for new settings waits until they hold; the service manager hears nothing meanwhile.
const RELOAD: Duration = Duration::from_secs(2);
/// A dispatcher that was not seen at work for so long hangs.
const HANGS_AFTER_NS: u64 = 20_000_000_000;

/// Where the service works.
#[derive(Clone, Debug)]
pub struct Place {
    /// The directory of sessions: /var/lib/observer.
    pub base: PathBuf,
    /// The control socket: /run/observer/observer.sock.
    pub socket: PathBuf,
}

/// Runs until it is told to end (TERM, INT), and reads its settings anew on HUP.
///
/// # Errors
/// When it cannot start, or what it rests on fails.
pub fn run(
    place: &Place,
    settings: Settings,
    reload: &dyn Fn() -> anyhow::Result<Settings>,
    journal: Journal,
) -> anyhow::Result<()> {
    memory::share_one_heap();
    let started = (jiff::Timestamp::now().to_string(), proc::monotonic_ns());
    let capabilities = probe::machine();
    probe::require_ebpf(&capabilities)?;
    let ports: Vec<u16> = settings.rules.iter().filter_map(|rule| port(rule.broker.as_deref()?)).collect();
    let kernel = Ebpf::load(store::SNAPLEN, &ports)?;
    let group = Group::from_name(GROUP).ok().flatten().map(|group| group.gid.as_raw());
    let spool = Spool::new(&place.base, group)
        .with_context(|| format!("cannot use {} for sessions", place.base.display()))?;
    let running: HashSet<String> = spool.left_over().into_iter().map(|plan| plan.id).collect();
    let is_over = |path: &Path| !path.file_stem().is_some_and(|id| running.contains(&*id.to_string_lossy()));
    let (index, opened) = Index::open(&place.base, &is_over).context("cannot open the index of sessions")?;
    if let Opened::Rebuilt { sessions, why: Some(why) } = opened {
        tracing::warn!("the index was made anew from {sessions} sessions, none of them pinned: {why}");
    }
    let kept = Kept {
        index: Arc::new(Mutex::new(index)),
        retention: Arc::new(Mutex::new(settings.retention.clone())),
        hooks: Arc::new(Mutex::new(Hooks::new(&settings.hooks).context("cannot prepare the hooks")?)),
        promoted: Arc::default(),
        journal: Arc::new(journal),
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let entered = runtime.enter();
    let listener = server::listen(&place.socket)
        .with_context(|| format!("cannot listen on {}", place.socket.display()))?;
    privilege::give_up_the_rest().context("cannot give up privileges")?;

    let (commands, heard) = mpsc::channel();
    let about = About { started_at: started.0, started_ns: started.1, base: place.base.clone() };
    let service = Service::new(commands.clone(), kept.clone(), group, about);
    drop(entered);
    let notify = Notify::from_environment().context("NOTIFY_SOCKET")?;
    let figures = serve_figures(&settings, &service, group);
    let core = Core::start(kernel, settings, spool, capabilities, kept.clone(), &commands, heard)?;
    let result = runtime.block_on(async {
        tokio::spawn(Arc::clone(&service).serve(listener));
        steer(&core, &kept, &commands, reload, &notify).await
    });
    notify.stopping();
    drop(figures);
    let ended = core.end(&commands);
    // Who waits for an answer is hung up on.
    runtime.shutdown_timeout(Duration::from_secs(1));
    let _ = std::fs::remove_file(&place.socket);
    result.and(ended)
}

fn port(broker: &str) -> Option<u16> {
    BrokerUrl::parse(broker).ok().map(|url| url.port())
}

/// The threads that record.
struct Core {
    dispatcher: thread::JoinHandle<Result<(), SourceError>>,
    keeper: thread::JoinHandle<()>,
    alive_ns: Arc<AtomicU64>,
}

impl Core {
    fn start(
        kernel: Ebpf,
        settings: Settings,
        spool: Spool,
        capabilities: Vec<Capability>,
        kept: Kept,
        commands: &Sender<Command>,
        heard: Receiver<Command>,
    ) -> anyhow::Result<Self> {
        let alive_ns = Arc::new(AtomicU64::new(proc::monotonic_ns()));
        let (outcomes, concluded) = mpsc::channel();
        let left_over = spool.left_over();
        let reopened: Vec<_> =
            left_over.into_iter().filter_map(|plan| recorder::reopen(&spool, plan)).collect();
        let mut dispatcher =
            Dispatcher::new(kernel, settings, spool.clone(), capabilities, outcomes, Arc::clone(&alive_ns))?;
        for (plan, resumed) in reopened {
            dispatcher.resume(plan, resumed);
        }
        let dispatcher = thread::spawn(move || dispatcher.work(&heard));
        let commands = commands.clone();
        let keeper = thread::spawn(move || keeper::work(&concluded, &kept, &spool, &commands));
        Ok(Self { dispatcher, keeper, alive_ns })
    }

    fn is_well(&self) -> bool {
        let quiet_ns = proc::monotonic_ns().saturating_sub(self.alive_ns.load(Ordering::Relaxed));
        !self.dispatcher.is_finished() && !self.keeper.is_finished() && quiet_ns < HANGS_AFTER_NS
    }

    fn end(self, commands: &Sender<Command>) -> anyhow::Result<()> {
        let _ = commands.send(Command::Stop);
        let dispatched = self.dispatcher.join();
        let kept = self.keeper.join();
        match (dispatched, kept) {
            (Ok(Ok(())), Ok(())) => Ok(()),
            (Ok(Err(error)), _) => Err(error.into()),
            _ => anyhow::bail!("a part of the service ended unexpectedly; see its journal"),
        }
    }
}

/// Answers signals and the service manager until the service is to end.
async fn steer(
    core: &Core,
    kept: &Kept,
    commands: &Sender<Command>,
    reload: &dyn Fn() -> anyhow::Result<Settings>,
    notify: &Notify,
) -> anyhow::Result<()> {
    let listen = |kind| signal(kind).context("cannot read signals");
    let (mut hangup, mut terminate, mut interrupt) =
        (listen(SignalKind::hangup())?, listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let beat = notify.watchdog().map_or(Duration::from_secs(5), |every| every / 3);
    let mut beats = tokio::time::interval(beat);
    notify.ready();
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hangup.recv() => {
                notify.reloading();
                match settle(reload, kept, commands).await {
                    Ok(()) => tracing::info!("settings were read anew"),
                    Err(error) => tracing::error!("the settings stay as they are: {error:#}"),
                }
                notify.ready();
            }
            _ = beats.tick() => {
                if !core.is_well() {
                    anyhow::bail!("the service hangs, or a part of it has ended; see its journal");
                }
                if notify.watchdog().is_some() {
                    notify.alive();
                }
            }
        }
    }
}

/// Reads the settings anew. They hold when this returns.
async fn settle(
    reload: &dyn Fn() -> anyhow::Result<Settings>,
    kept: &Kept,
    commands: &Sender<Command>,
) -> anyhow::Result<()> {
    let settings = reload()?;
    let (answer, answered) = tokio::sync::oneshot::channel();
    commands.send(Command::Settings { settings: Box::new(settings.clone()), answer })?;
    let held = tokio::time::timeout(RELOAD, answered).await;
    held.context("the rules do not hold yet")??.map_err(anyhow::Error::msg)?;
    kept.set(&settings);
    Ok(())
}

/// Serves the figures, where that is wanted. What cannot be served is said; the service goes on.
fn serve_figures(
    settings: &Settings,
    service: &Arc<Service>,
    group: Option<u32>,
) -> Option<metrics::Serving> {
    let service = Arc::clone(service);
    // Those who see everything may see the figures: the socket is theirs too.
    let before = group.map(|group| setfsgid(Gid::from_raw(group)));
    let served = metrics::serve(&settings.metrics.listen, move || service.status_now());
    before.map(setfsgid);
    served.map_err(|error| tracing::error!("{error}")).ok()
}

/// Resident memory of this process, in bytes.
fn rss_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|statm| statm.split_whitespace().nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

/// What is free for an ordinary user where sessions lie, in bytes.
fn free_bytes(base: &Path) -> u64 {
    nix::sys::statvfs::statvfs(base).map_or(u64::MAX, |fs| fs.blocks_available() * fs.fragment_size())
}

impl About {
    fn status(&self, figures: dispatch::Figures, kept: &Kept, clients: u64) -> status::Status {
        let (sessions, sessions_bytes, promoted) = kept.totals();
        status::Status {
            schema: "observer.status/1".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            started_at: self.started_at.clone(),
            uptime_ns: proc::monotonic_ns().saturating_sub(self.started_ns),
            rules: figures.rules,
            recordings: figures.recordings,
            begun: figures.begun,
            promoted,
            events: figures.events,
            events_per_s: figures.events_per_s,
            lost: figures.lost,
            hooks: kept.hooks_counted(),
            programs: figures.programs,
            rss_bytes: rss_bytes(),
            cpu_s: probe::own_cpu_seconds(),
            sessions,
            sessions_bytes,
            free_bytes: free_bytes(&self.base),
            stopped: figures.stopped,
            clients,
        }
    }
}
