//! The control socket: who asks is known by the kernel (`SO_PEERCRED`), may ask about what is theirs, and may not hold anybody else up. Knows
//! the protocol and users; what is asked is done by others.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::Path,
    sync::{Arc, Mutex, PoisonError, mpsc::Sender},
    time::Duration,
};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::oneshot,
    time::timeout,
};
use tokio_util::codec::{Framed, LinesCodec, LinesCodecError};

use super::{
    dispatch::{Ask, Command, Figures},
    keeper::Kept,
    protocol::{MOST_LINE, Record, Reply, Request},
    status::Status,
    target,
};
use crate::{
    session::{self, Owner},
    source::broker::{BrokerUrl, ManagementUrl},
    words::escape::escape,
};

/// Connections at one time, and of one user.
const MOST_CLIENTS: usize = 128;
const MOST_OF_A_USER: usize = 40;
/// A client that says nothing for so long, and waits for nothing, is hung up on; one that does not take its answer too.
const PATIENCE: Duration = Duration::from_secs(10);
/// What whoever finds no place is told.
const NO_SEAT: &[u8] =
    b"{\"reply\":\"error\",\"message\":\"too many clients are connected; try again in some seconds\"}\n";
/// How long the dispatcher is waited for.
const ANSWER: Duration = Duration::from_secs(10);

/// What the server serves.
pub(super) struct Service {
    pub(super) commands: Sender<Command>,
    pub(super) kept: Kept,
    /// The group whose members see everything.
    pub(super) group: Option<u32>,
    pub(super) about: About,
    clients: Mutex<HashMap<u32, usize>>,
}

/// What does not change while the service runs.
pub(super) struct About {
    pub(super) started_at: String,
    pub(super) started_ns: u64,
    pub(super) base: std::path::PathBuf,
}

/// Who is connected.
#[derive(Clone, Copy, Debug)]
struct Peer {
    uid: u32,
    gid: u32,
    sees_all: bool,
}

/// Makes the socket. What a service that was killed left in its place is replaced; anything else is not.
///
/// # Errors
/// When it cannot be made.
pub(super) fn listen(path: &Path) -> std::io::Result<UnixListener> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    if path.symlink_metadata().is_ok_and(|file| file.file_type().is_socket()) {
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    // Everybody may ask; what they are answered depends on who they are.
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

impl Service {
    pub(super) fn new(commands: Sender<Command>, kept: Kept, group: Option<u32>, about: About) -> Arc<Self> {
        Arc::new(Self { commands, kept, group, about, clients: Mutex::default() })
    }

    /// Serves whoever connects, for good.
    pub(super) async fn serve(self: Arc<Self>, listener: UnixListener) {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // No descriptors left, most likely: those who are connected will go.
                    tracing::warn!("cannot accept a client: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Some(seat) = self.seat(&stream) else {
                // In one piece or not at all: nobody is waited for.
                let _ = stream.try_write(NO_SEAT);
                continue;
            };
            let service = Arc::clone(&self);
            tokio::spawn(async move {
                service.talk(stream, seat.peer).await;
                drop(seat);
            });
        }
    }

    /// A place for one more client, if there is one.
    fn seat(self: &Arc<Self>, stream: &UnixStream) -> Option<Seat> {
        let credentials = stream.peer_cred().ok()?;
        let (uid, gid) = (credentials.uid(), credentials.gid());
        {
            let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
            let all: usize = clients.values().sum();
            let theirs = clients.entry(uid).or_default();
            // Root can always ask.
            if uid != 0 && (all >= MOST_CLIENTS || *theirs >= MOST_OF_A_USER) {
                return None;
            }
            *theirs += 1;
        }
        let sees_all =
            uid == 0 || self.group.is_some_and(|group| Owner::of(uid, gid).groups.contains(&group));
        Some(Seat { service: Arc::clone(self), peer: Peer { uid, gid, sees_all } })
    }

    async fn talk(&self, stream: UnixStream, peer: Peer) {
        let mut lines = Framed::new(stream, LinesCodec::new_with_max_length(MOST_LINE));
        while let Ok(Some(line)) = timeout(PATIENCE, lines.next()).await {
            let (reply, go_on) = match line {
                Ok(line) => match serde_json::from_str(&line) {
                    Ok(request) => (self.answer(request, peer).await, true),
                    Err(error) => (refused(format!("cannot read the request: {error}")), true),
                },
                Err(LinesCodecError::MaxLineLengthExceeded) => {
                    (refused(format!("a request has at most {MOST_LINE} bytes")), false)
                }
                Err(LinesCodecError::Io(_)) => return,
            };
            // It may quote what was asked, and is printed.
            let reply = match reply {
                Reply::Error { message } => Reply::Error { message: escape(&message) },
                reply => reply,
            };
            let Ok(reply) = serde_json::to_string(&reply) else { return };
            if !matches!(timeout(PATIENCE, lines.send(reply)).await, Ok(Ok(()))) || !go_on {
                return;
            }
        }
    }

    async fn answer(&self, request: Request, peer: Peer) -> Reply {
        match request {
            Request::Status => match self.status(peer).await {
                Some(status) => Reply::Status(Box::new(status)),
                None => refused("the service does not answer; see its journal: journalctl -u observer"),
            },
            Request::Record(record) => match check(record, peer) {
                Ok(ask) => {
                    let ask = Box::new(ask);
                    let begun = self.ask(|answer| Command::Record { ask, answer }, Some(ANSWER)).await;
                    match begun {
                        Ok(begun) => Reply::Begun { id: begun.id, name: begun.name, path: begun.path },
                        Err(message) => Reply::Error { message },
                    }
                }
                Err(message) => Reply::Error { message },
            },
            Request::LetGo { id } => {
                done(self.ask(|answer| Command::LetGo { id, uid: peer.uid, answer }, Some(ANSWER)).await)
            }
            Request::Wait { id } => {
                let asked = id.clone();
                let over = self.ask(|answer| Command::Wait { id: asked, uid: peer.uid, answer }, None).await;
                // Who comes late finds it concluded.
                done(if self.kept.has(&id, peer.uid) { Ok(()) } else { over })
            }
            Request::Pin { id, on } => done(self.kept.pin(&id, on, (!peer.sees_all).then_some(peer.uid))),
        }
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, String>>) -> Command,
        patience: Option<Duration>,
    ) -> Result<T, String> {
        let (answer, answered) = oneshot::channel();
        let gone = || "the service is ending".to_owned();
        self.commands.send(command(answer)).map_err(|_| gone())?;
        match patience {
            Some(patience) => timeout(patience, answered).await.map_err(|_| {
                "the service does not answer in time; see its journal: journalctl -u observer".to_owned()
            })?,
            None => answered.await,
        }
        .map_err(|_| gone())?
    }

    /// How the service is, as this peer may know it.
    async fn status(&self, peer: Peer) -> Option<Status> {
        let mut status = self.whole_status().await?;
        if !peer.sees_all {
            status.recordings.retain(|recorded| recorded.uid == peer.uid);
        }
        Some(status)
    }

    /// How the service is, for a thread that may wait; nothing when the dispatcher does not answer.
    pub(super) fn status_now(&self) -> Status {
        let (answer, answered) = oneshot::channel();
        let figures =
            self.commands.send(Command::Figures { answer }).ok().and_then(|()| answered.blocking_recv().ok());
        figures.map_or_else(Status::default, |figures| self.with_ours(figures))
    }

    fn with_ours(&self, figures: Figures) -> Status {
        let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner).values().sum::<usize>();
        self.about.status(figures, &self.kept, clients as u64)
    }

    /// How the service is; `None` when the dispatcher does not answer.
    async fn whole_status(&self) -> Option<Status> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(Command::Figures { answer }).ok()?;
        let figures: Figures = timeout(ANSWER, answered).await.ok()?.ok()?;
        Some(self.with_ours(figures))
    }
}

struct Seat {
    service: Arc<Service>,
    peer: Peer,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut clients = self.service.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(theirs) = clients.get_mut(&self.peer.uid) {
            *theirs -= 1;
            if *theirs == 0 {
                clients.remove(&self.peer.uid);
            }
        }
    }
}

fn refused(message: impl Into<String>) -> Reply {
    Reply::Error { message: message.into() }
}

fn done(answer: Result<(), String>) -> Reply {
    match answer {
        Ok(()) => Reply::Done,
        Err(message) => Reply::Error { message },
    }
}

/// Whether this peer may have this recorded.
fn check(record: Record, peer: Peer) -> Result<Ask, String> {
    if record.broker.is_some() && !has_network() {
        return Err("this service may not use the network, so it cannot ask the broker (see network.conf in /usr/share/doc/observer/examples): leave out --broker, or use sudo".into());
    }
    if let Some(url) = record.broker.as_deref().filter(|broker| *broker != "worker") {
        let url = BrokerUrl::parse(url).map_err(|error| format!("--broker: {error}"))?;
        if let Some(management) = &record.management {
            ManagementUrl::parse(management, &url).map_err(|error| format!("--management: {error}"))?;
        }
    }
    if let Some(name) = &record.name {
        session::check_name(name).map_err(|error| error.to_string())?;
    }
    let found = target::of_user(record.pid, peer.uid)?;
    let command = if record.held { record.command } else { found.command };
    Ok(Ask {
        // A process that root had recorded is root's session: what it is of was root's to see.
        uid: peer.uid,
        gid: peer.gid,
        pid: record.pid,
        ticks: found.ticks,
        held: record.held,
        command,
        name: record.name,
        broker: record.broker,
        management: record.management,
        firehose: record.firehose,
        bodies: record.bodies,
    })
}

/// Whether the service may open connections: its unit may have taken that away.
fn has_network() -> bool {
    std::net::UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0)).is_ok()
}
