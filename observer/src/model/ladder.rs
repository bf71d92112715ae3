//! How far each process came on the way to consuming: the consumption ladder, and the event that proves each rung. Knows processes,
//! sockets and AMQP; draws no conclusions. A rung that was not reached is not yet a rung that broke.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::{
    Model,
    amqp::{Mark, Said},
    dramatiq::{self, Role},
};
use crate::{
    amqp::{
        conversation::{Spoke, What},
        message::Carriage,
        method::{Method, Side},
        stream::Foreign,
    },
    event::{Body, Event, Hop, Origin, Pid, SocketId},
};

/// Sockets whose connect is remembered.
const MAX_SOCKETS: usize = 20_000;
/// Processes whose rungs are remembered.
const MAX_PROCESSES: usize = 10_000;
const RUNGS: usize = Rung::ALL.len();

/// A rung.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rung {
    /// The program was started.
    Exec,
    /// The worker process was forked.
    Boot,
    /// The modules were imported.
    Import,
    /// A TCP connection that speaks AMQP was established.
    Connect,
    /// The broker accepted the credential: `connection.tune`.
    Handshake,
    /// The virtual host is open: `connection.open-ok`.
    Open,
    /// A queue is declared: `queue.declare-ok`.
    Declare,
    /// A consumer is registered: `basic.consume-ok`.
    Consume,
    /// A message was delivered.
    Deliver,
    /// A message was processed.
    Process,
    /// A message was settled.
    Settle,
}

impl Rung {
    /// All, from the bottom.
    pub const ALL: [Self; 11] = [
        Self::Exec,
        Self::Boot,
        Self::Import,
        Self::Connect,
        Self::Handshake,
        Self::Open,
        Self::Declare,
        Self::Consume,
        Self::Deliver,
        Self::Process,
        Self::Settle,
    ];

    /// Its public name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Boot => "boot",
            Self::Import => "import",
            Self::Connect => "connect",
            Self::Handshake => "handshake",
            Self::Open => "open",
            Self::Declare => "declare",
            Self::Consume => "consume",
            Self::Deliver => "deliver",
            Self::Process => "process",
            Self::Settle => "settle",
        }
    }
}

/// One rung of one process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Which.
    pub rung: Rung,
    /// Whether it was reached; `None`: not observable.
    pub reached: Option<bool>,
    /// When, in nanoseconds on `CLOCK_MONOTONIC`; `None` when it was not, or not seen at the time.
    pub at_ns: Option<u64>,
    /// The event that proves it.
    pub event: Option<u64>,
    /// Why it is not observable, what was seen instead, or how exact the time is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// The ladder of one process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ladder {
    /// The process.
    pub pid: Pid,
    /// The part it plays: `worker`, `master`, `fork`, `program`.
    pub role: &'static str,
    /// Its rungs, from the bottom.
    pub rungs: Vec<Step>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Proof {
    event: u64,
    at_ns: Option<u64>,
}

type Rungs = [Option<Proof>; RUNGS];

/// The rungs every process has reached.
#[derive(Clone, Debug, Default)]
pub struct Ladders {
    by_pid: BTreeMap<Pid, Rungs>,
    /// The connect of each socket, until AMQP is spoken on it.
    connects: HashMap<SocketId, Proof>,
    news: Vec<(Rung, Mark)>,
}

impl Ladders {
    /// The rungs reached for the first time since the last call. To be called after every event by whoever wants them.
    pub fn take_news(&mut self) -> Vec<(Rung, Mark)> {
        std::mem::take(&mut self.news)
    }

    fn reach(&mut self, pid: Pid, rung: Rung, mark: Mark, at_ns: Option<u64>) {
        if pid.0 == 0 || (!self.by_pid.contains_key(&pid) && self.by_pid.len() >= MAX_PROCESSES) {
            return;
        }
        let proof = self.by_pid.entry(pid).or_default().get_mut(rung as usize);
        if let Some(proof @ None) = proof {
            *proof = Some(Proof { event: mark.event, at_ns });
            self.news.push((rung, Mark { pid, ..mark }));
        }
    }

    fn has(&self, pid: Pid, rung: Rung) -> bool {
        self.by_pid.get(&pid).is_some_and(|rungs| rungs.get(rung as usize).is_some_and(Option::is_some))
    }

    /// Takes in the next event.
    pub(super) fn add(&mut self, id: u64, event: &Event) {
        self.news.clear();
        let mark = Mark::new(id, event);
        let now = Some(event.at_ns);
        match &event.body {
            Body::Fork { child } => {
                let exec = self.by_pid.get(&event.pid).and_then(|rungs| *rungs.first()?);
                self.by_pid.remove(child);
                if let Some(exec) = exec {
                    self.by_pid.entry(*child).or_default()[0] = Some(exec);
                }
                // From /proc it says who its parent is, not when it was forked.
                let at_ns = now.filter(|_| event.observed_from != Origin::Proc);
                self.reach(*child, Rung::Boot, mark, at_ns);
            }
            Body::Exec(_) => {
                let boot = self.by_pid.get(&event.pid).and_then(|rungs| *rungs.get(Rung::Boot as usize)?);
                self.by_pid.remove(&event.pid);
                self.reach(event.pid, Rung::Exec, mark, now.filter(|_| event.observed_from != Origin::Proc));
                if let Some(rungs) = self.by_pid.get_mut(&event.pid) {
                    rungs[Rung::Boot as usize] = boot;
                }
            }
            Body::Connect { socket, errno: 0, .. } | Body::Connected { socket, errno: 0, .. }
                if self.connects.len() < MAX_SOCKETS =>
            {
                self.connects.entry(*socket).or_insert(Proof { event: id, at_ns: now });
            }
            Body::Socket { socket, .. } | Body::Accept { socket, .. } => drop(self.connects.remove(socket)),
            Body::Output { .. } if dramatiq::proves_import(event) => {
                self.reach(event.pid, Rung::Import, mark, now);
            }
            _ => {}
        }
    }

    /// Takes in what was said on a connection.
    pub(super) fn hear(&mut self, said: &Said<'_>) {
        let Said { link, mark, item } = *said;
        if link.accepted {
            return;
        }
        let pid = mark.pid;
        if !self.has(pid, Rung::Connect)
            && matches!(
                item.what,
                What::ProtocolHeader(_) | What::Method(_) | What::Message(_) | What::Heartbeat
            )
        {
            match self.connects.get(&link.socket).copied() {
                Some(proof) => {
                    let mark = Mark { event: proof.event, at_ns: proof.at_ns.unwrap_or(mark.at_ns), ..mark };
                    self.reach(pid, Rung::Connect, mark, proof.at_ns);
                }
                None => self.reach(pid, Rung::Connect, mark, None),
            }
            // Consumers run in threads of their own, which start after the imports.
            if mark.tid.0 != pid.0 {
                self.reach(pid, Rung::Import, mark, Some(mark.at_ns));
            }
        }
        let now = Some(mark.at_ns);
        let rung = match &item.what {
            What::Method(method) => match method {
                Method::Tune(_) | Method::TuneOk(_) => Rung::Handshake,
                Method::OpenOk => Rung::Open,
                Method::QueueDeclareOk { .. } => Rung::Declare,
                Method::ConsumeOk { .. } => Rung::Consume,
                Method::Ack { .. } => {
                    // What is acknowledged was dealt with before; when exactly, no system call tells.
                    self.reach(pid, Rung::Process, mark, Some(mark.at_ns));
                    Rung::Settle
                }
                Method::Nack { .. } | Method::Reject { .. } => Rung::Settle,
                _ => return,
            },
            What::Message(message) => match message.carriage {
                Carriage::Deliver { .. } | Carriage::GetOk { .. } => Rung::Deliver,
                _ => return,
            },
            _ => return,
        };
        self.reach(pid, rung, mark, now);
    }
}

/// The ladders: one for each worker; for a master without workers; for anything else that speaks AMQP.
pub fn ladders(model: &Model) -> Vec<Ladder> {
    let processes = &model.processes;
    let speaks = |pid: Pid| model.amqp.links().any(|link| link.opened.pid == pid && !link.accepted);
    let roles: Vec<(Pid, Role)> =
        processes.iter().map(|process| (process.pid, dramatiq::role(processes, process.pid))).collect();
    let has_worker = |master: Pid| {
        roles.iter().any(|(pid, role)| {
            *role == Role::Worker && processes.get(*pid).is_some_and(|process| process.parent == Some(master))
        })
    };
    let wanted = |pid, role| match role {
        Role::Worker => true,
        Role::Master => !has_worker(pid) || speaks(pid),
        Role::Fork | Role::Program => speaks(pid),
    };
    roles
        .iter()
        .filter(|(pid, role)| wanted(*pid, *role))
        .map(|(pid, role)| Ladder { pid: *pid, role: role.name(), rungs: steps(model, *pid, *role) })
        .collect()
}

fn steps(model: &Model, pid: Pid, role: Role) -> Vec<Step> {
    let proofs = model.ladders.by_pid.get(&pid).copied().unwrap_or_default();
    let highest = Rung::ALL.iter().rev().copied().find(|rung| proofs[*rung as usize].is_some());
    Rung::ALL
        .into_iter()
        .map(|rung| {
            let unseen =
                |why: &str| Step { rung, reached: None, at_ns: None, event: None, why: Some(why.to_owned()) };
            if role == Role::Program && matches!(rung, Rung::Boot | Rung::Import) {
                return unseen("not a dramatiq worker");
            }
            // A master's own fork is not a worker's.
            if role == Role::Master && rung == Rung::Boot {
                let worker = model
                    .processes
                    .children(pid)
                    .find(|child| dramatiq::role(&model.processes, child.pid) == Role::Worker);
                let proof =
                    worker.and_then(|worker| *model.ladders.by_pid.get(&worker.pid)?.get(rung as usize)?);
                let (at_ns, event) = (proof.and_then(|proof| proof.at_ns), proof.map(|proof| proof.event));
                return Step { rung, reached: Some(worker.is_some()), at_ns, event, why: None };
            }
            if let Some(proof) = proofs[rung as usize] {
                return Step {
                    rung,
                    reached: Some(true),
                    at_ns: proof.at_ns,
                    event: Some(proof.event),
                    // Their own moment shows in no system call, only what comes after it.
                    why: matches!(rung, Rung::Import | Rung::Process).then(|| "at the latest".to_owned()),
                };
            }
            if let Some(highest) = highest.filter(|highest| *highest > rung && is_implied(rung, *highest)) {
                let why = Some(format!("implied by {}", highest.name()));
                return Step { rung, reached: Some(true), at_ns: None, event: None, why };
            }
            if let Some(why) = unobservable(model, pid, rung, highest) {
                return unseen(&why);
            }
            let why = if rung == Rung::Connect { refused(model, pid) } else { None };
            Step { rung, reached: Some(false), at_ns: None, event: None, why }
        })
        .collect()
}

/// Whether nobody can have reached `highest`, above it, without `rung`.
const fn is_implied(rung: Rung, highest: Rung) -> bool {
    match rung {
        Rung::Exec | Rung::Boot | Rung::Connect | Rung::Handshake | Rung::Open | Rung::Deliver => true,
        // A module may connect, and even declare, while it is imported.
        Rung::Import => highest as usize >= Rung::Consume as usize,
        // One can consume without declaring, get without consuming, refuse without processing.
        Rung::Declare | Rung::Consume | Rung::Process | Rung::Settle => false,
    }
}

fn unobservable(model: &Model, pid: Pid, rung: Rung, highest: Option<Rung>) -> Option<String> {
    let beyond = |rung| highest > Some(rung);
    let links = || model.amqp.links().filter(|link| link.opened.pid == pid && !link.accepted);
    if rung >= Rung::Connect {
        let lost = lost_stream_events(model);
        if lost > 0 {
            return Some(format!("{lost} events were lost that may have shown it"));
        }
        // How a connection begins is kept; what is said on it for hours is not.
        if let Some(evicted) = model.troubles.evicted()
            && (rung >= Rung::Deliver || evicted.essential > 0 || model.began_or_ended_in(&evicted))
        {
            return Some("it is no longer kept, if it happened in the part that made room".to_owned());
        }
        if rung > Rung::Connect && links().any(|link| is_encrypted(link.spoke(Side::Client))) {
            return Some("the connection is encrypted".to_owned());
        }
        if rung > Rung::Connect && links().any(|link| link.unseen > 0) {
            return Some("parts of its connections were not seen".to_owned());
        }
    }
    match rung {
        Rung::Declare if beyond(Rung::Declare) => Some("it consumes without having declared".to_owned()),
        Rung::Consume if beyond(Rung::Consume) => Some("it gets messages without a consumer".to_owned()),
        Rung::Process if highest >= Some(Rung::Deliver) => {
            Some("what runs between delivery and settlement makes no call of its own".to_owned())
        }
        _ => {
            let running =
                model.processes.get(pid).is_some_and(|process| process.observed_from == Origin::Proc);
            running.then(|| "it was running before the recording".to_owned())
        }
    }
}

/// Events lost that may have been those of sockets: where a hop does not say which kind it lost, all count.
fn lost_stream_events(model: &Model) -> u64 {
    let other = |hop: Hop, what: &str| {
        hop == Hop::Evicted || (hop != Hop::KernelTable && matches!(what, "file" | "output"))
    };
    let losses = model.troubles.losses();
    losses.into_iter().filter(|(hop, what, _)| !other(*hop, what)).map(|(_, _, count)| count).sum()
}

const fn is_encrypted(spoke: Spoke) -> bool {
    matches!(
        spoke,
        Spoke::Foreign(Foreign::TlsClientHello | Foreign::TlsHandshake | Foreign::TlsAlert { .. })
    )
}

/// What came of its attempts to connect, when none reached a broker.
fn refused(model: &Model, pid: Pid) -> Option<String> {
    let connections = &model.connections;
    let failed = connections.iter().filter(|connection| {
        connection.pid == pid
            && !connection.is_datagram
            && connection.result.is_some_and(|errno| errno != 0)
            && matches!(connection.peer.get(), Some(crate::event::Address::Inet { .. }))
            && !connections.is_own_loop(connection)
    });
    let (count, last) = failed.fold((0_u64, None), |(count, _), connection| (count + 1, Some(connection)));
    let last = last?;
    let (peer, errno) = (last.peer.get()?, last.result?);
    Some(format!("{count} × {peer}: {}", nix::errno::Errno::from_raw(errno)))
}
