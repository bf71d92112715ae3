//! Puts the broker's account beside what was observed: who consumes each queue, what waits in queues that nothing observed consumes, who
//! else consumes ours. Knows the model; where the broker was not asked it claims nothing.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
};

use serde::Serialize;

use super::{
    Model,
    broker::{Client, Sampled, Tap},
    connection::Connection,
    consumer::Consumer,
    link::{Link, LinkId},
};
use crate::{
    amqp::{conversation::Spoke, method::Side},
    event::{Address, Known, Pid, SocketId, Tid},
};

/// The broker tells of a connection when it is asked, which may be a little before a record of it in the kernel is read …
const EARLY_NS: u64 = 1_000_000_000;
/// … and some time after it has ended: its statistics are seconds old.
const LATE_NS: u64 = 15_000_000_000;

/// Who holds a consumer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "who")]
pub enum Holder {
    /// A process that was observed.
    Observed {
        /// Which.
        pid: Pid,
        /// Its thread, when the connection's bytes were seen.
        tid: Option<Tid>,
        /// The connection, when its bytes were seen.
        connection: Option<LinkId>,
    },
    /// Somebody else.
    Other(Box<Client>),
    /// It cannot be told.
    Unknown,
}

/// One consumer of a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Consumption {
    /// Who holds it.
    pub holder: Holder,
    /// Its tag.
    pub tag: String,
    /// Deliveries it may leave unsettled; 0 is no limit.
    pub prefetch: Option<u64>,
    /// When it asked, or when the broker first told of it.
    pub since_ns: u64,
    /// When it ended.
    pub ended_ns: Option<u64>,
    /// The event that proves it.
    pub event: u64,
    /// Whether the broker told of it; if not, it was only seen to ask.
    pub told: bool,
}

impl Consumption {
    fn is_observed(&self) -> bool {
        matches!(self.holder, Holder::Observed { .. })
    }

    fn is_other(&self) -> bool {
        matches!(self.holder, Holder::Other(_))
    }
}

/// Who consumes a queue, taken together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Consumed {
    /// An observed process does or did, whoever else does.
    Observed,
    /// Others do, and none that was observed.
    Others,
    /// The broker says that it has no consumer, and none that was observed had been one.
    Nobody,
    /// It cannot be told.
    Unknown,
}

/// One queue, from both sides.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Account {
    /// Its virtual host, where known.
    pub vhost: Option<String>,
    /// Its name.
    pub name: String,
    /// What the broker said it holds.
    pub sampled: Option<Sampled>,
    /// Whether an observed process declared it.
    pub declared: bool,
    /// Who consumes it, taken together.
    pub consumed: Consumed,
    /// Its consumers.
    pub consumers: Vec<Consumption>,
}

impl Account {
    fn is_ours(&self) -> bool {
        self.declared || self.consumed == Consumed::Observed
    }

    /// Consumers of others while it was ours; none when it was not.
    pub fn competitors(&self) -> impl Iterator<Item = &Consumption> {
        let ours = self.consumers.iter().filter(|one| one.is_observed());
        let since_ns = ours.map(|one| one.since_ns).min().unwrap_or(0);
        let met = move |one: &&Consumption| one.ended_ns.is_none_or(|ended_ns| ended_ns >= since_ns);
        self.consumers.iter().filter(|one| self.is_ours() && one.is_other()).filter(met)
    }
}

/// All queues, from both sides.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reconciliation {
    /// By virtual host and name.
    pub queues: Vec<Account>,
}

impl Reconciliation {
    /// Both sides of a model. `None` when the broker told nothing: then nothing follows.
    pub fn of(model: &Model) -> Option<Self> {
        model.broker.has_told().then(|| Sides::new(model).reconcile())
    }

    /// Queues with messages ready that nothing observed consumed, as far as that is certain: those that observed processes declared
    /// first, then those of the virtual hosts they consume in, then those that hold most.
    pub fn backlog(&self) -> Vec<&Account> {
        let vhosts: BTreeSet<_> = self.consumed().map(|account| &account.vhost).collect();
        let mut found: Vec<(u64, &Account)> = self
            .queues
            .iter()
            .filter(|account| matches!(account.consumed, Consumed::Others | Consumed::Nobody))
            .filter_map(|account| Some((account.sampled.as_ref()?.backlog()?, account)))
            .collect();
        found.sort_by_key(|(ready, account)| {
            (!account.declared, !vhosts.contains(&account.vhost), std::cmp::Reverse(*ready))
        });
        found.into_iter().map(|(_, account)| account).collect()
    }

    /// Queues that observed processes consume or consumed.
    pub fn consumed(&self) -> impl Iterator<Item = &Account> {
        self.queues.iter().filter(|account| account.consumed == Consumed::Observed)
    }

    /// Queues of ours that others consume too.
    pub fn competing(&self) -> impl Iterator<Item = &Account> {
        self.queues.iter().filter(|account| account.competitors().next().is_some())
    }
}

type Ends<'a> = HashMap<(IpAddr, u16), Vec<&'a Connection>>;

/// What is looked up again and again.
struct Sides<'a> {
    model: &'a Model,
    ends: Ends<'a>,
    links: HashMap<SocketId, Vec<&'a Link>>,
    asked: HashMap<&'a str, Vec<&'a Consumer>>,
}

impl<'a> Sides<'a> {
    fn new(model: &'a Model) -> Self {
        let mut ends = Ends::new();
        for connection in model.connections.iter() {
            if connection.accepted != Some(true)
                && !connection.is_datagram
                && let Some(Address::Inet { ip, port }) = connection.local.get()
            {
                ends.entry((ip.to_canonical(), *port)).or_default().push(connection);
            }
        }
        let mut links: HashMap<SocketId, Vec<&Link>> = HashMap::new();
        for link in model.amqp.links() {
            links.entry(link.socket).or_default().push(link);
        }
        let mut asked: HashMap<&str, Vec<&Consumer>> = HashMap::new();
        // A tag that is not known yet names nobody.
        for consumer in model.amqp.consumers.iter().filter(|consumer| !consumer.tag.is_empty()) {
            asked.entry(&consumer.tag).or_default().push(consumer);
        }
        Self { model, ends, links, asked }
    }

    fn reconcile(&self) -> Reconciliation {
        let Model { broker, amqp, .. } = self.model;
        let mut queues: BTreeMap<(Option<String>, String), Account> = BTreeMap::new();
        let account = |vhost: Option<&str>, name: &str| Account {
            vhost: vhost.map(str::to_owned),
            name: name.to_owned(),
            sampled: None,
            declared: amqp
                .queues
                .get(vhost, name)
                .and_then(|queue| queue.declared.as_ref())
                .is_some_and(|declared| !declared.passive),
            consumed: Consumed::Unknown,
            consumers: Vec::new(),
        };
        let key = |vhost: Option<&str>, name: &str| (vhost.map(str::to_owned), name.to_owned());
        for ((vhost, name), sampled) in broker.queues() {
            let entry = queues.entry(key(Some(vhost), name)).or_insert_with(|| account(Some(vhost), name));
            entry.sampled = Some(sampled.clone());
        }

        let sockets: HashSet<SocketId> = broker
            .clients()
            .filter_map(|client| self.connection(client))
            .map(|connection| connection.socket)
            .collect();
        // One of ours whose other end is none that the broker told of: addresses are translated between us and it.
        let asked_ns = broker.clients().map(|client| client.first_ns).min();
        let ports: HashSet<Option<u16>> =
            broker.clients().map(|client| client.port).filter(Option::is_some).collect();
        let is_unplaced = |link: &Link| {
            let speaks = [Side::Client, Side::Server].into_iter().any(|side| link.spoke(side) == Spoke::Amqp);
            !link.accepted
                && link.since_attach
                && (speaks || ports.contains(&known_port(&link.peer)))
                && link.ended_at_ns.is_none_or(|ended_ns| Some(ended_ns) > asked_ns)
                && !sockets.contains(&link.socket)
        };
        let translated = amqp.links().any(is_unplaced);
        let mut vhosts: HashMap<SocketId, &str> = HashMap::new();
        let mut heard: HashSet<(LinkId, &str)> = HashSet::new();
        for tap in broker.taps() {
            let client = broker.client(tap);
            let connection = client.and_then(|client| self.connection(client));
            if let Some(connection) = connection {
                vhosts.insert(connection.socket, &tap.queue.0);
            }
            let asked = self.asked(tap, client, connection, &sockets);
            if let Some(asked) = asked {
                heard.insert((asked.connection, &asked.tag));
            }
            let holder = match (asked, connection, client) {
                (Some(asked), ..) => observed(asked),
                (None, Some(connection), Some(client)) => self.holding(connection, client),
                (None, None, Some(client)) => self.other(client, translated),
                _ => Holder::Unknown,
            };
            let ended_ns = asked.and_then(|asked| asked.ended.as_ref()).map(|ended| ended.at_ns);
            let (vhost, name) = (Some(tap.queue.0.as_str()), tap.queue.1.as_str());
            queues.entry(key(vhost, name)).or_insert_with(|| account(vhost, name)).consumers.push(
                Consumption {
                    holder,
                    tag: tap.tag.clone(),
                    prefetch: tap.prefetch,
                    since_ns: asked.map_or(tap.first_ns, |asked| asked.asked.at_ns.min(tap.first_ns)),
                    ended_ns: ended_ns.or(tap.gone_ns),
                    event: tap.event,
                    told: true,
                },
            );
        }
        for asked in amqp.consumers.iter().filter(|asked| !heard.contains(&(asked.connection, &asked.tag))) {
            let socket = amqp.link(asked.connection).map(|link| link.socket);
            let vhost = socket.and_then(|socket| vhosts.get(&socket).copied());
            let vhost = asked.vhost.as_deref().or(vhost);
            let entry =
                queues.entry(key(vhost, &asked.queue)).or_insert_with(|| account(vhost, &asked.queue));
            entry.consumers.push(Consumption {
                holder: observed(asked),
                tag: asked.tag.clone(),
                prefetch: asked.prefetch.map(u64::from),
                since_ns: asked.asked.at_ns,
                ended_ns: asked.ended.as_ref().map(|ended| ended.at_ns),
                event: asked.asked.event,
                told: false,
            });
        }
        let mut queues: Vec<Account> = queues.into_values().collect();
        for account in &mut queues {
            account.consumed = consumed(account);
        }
        Reconciliation { queues }
    }

    /// The observed end of a connection that the broker told of.
    fn connection(&self, client: &Client) -> Option<&'a Connection> {
        let ip: IpAddr = client.peer_host.as_ref()?.parse().ok()?;
        let ends = self.ends.get(&(ip.to_canonical(), client.peer_port?))?;
        let lived = |one: &&&Connection| {
            one.at_ns <= client.first_ns + EARLY_NS
                && one.end.is_none_or(|end| end.at_ns + LATE_NS >= client.first_ns)
        };
        let same_port = |one: &Connection| client.port.is_some() && client.port == known_port(&one.peer);
        ends.iter().filter(lived).max_by_key(|one| (same_port(one), one.at_ns)).copied()
    }

    /// The consumer that was seen to ask: on this connection; or of this tag, on one that was not found at the broker.
    fn asked(
        &self,
        tap: &Tap,
        client: Option<&Client>,
        connection: Option<&Connection>,
        placed: &HashSet<SocketId>,
    ) -> Option<&'a Consumer> {
        let is_elsewhere = connection.is_none() && client.is_some_and(|client| client.local_pid.is_some());
        let fits = |asked: &&Consumer| {
            let socket = self.model.amqp.link(asked.connection).map(|link| link.socket);
            let (vhost, queue) = (&tap.queue.0, &tap.queue.1);
            asked.queue == *queue
                && asked.vhost.as_ref().is_none_or(|asked| asked == vhost)
                && match connection {
                    Some(connection) => socket == Some(connection.socket),
                    None => !is_elsewhere && socket.is_some_and(|socket| !placed.contains(&socket)),
                }
        };
        self.asked.get(tap.tag.as_str())?.iter().copied().find(fits)
    }

    fn holding(&self, connection: &Connection, client: &Client) -> Holder {
        let links = self.links.get(&connection.socket).into_iter().flatten();
        let link = links.rev().find(|link| link.opened.at_ns >= connection.at_ns);
        let pid = match client.local_pid {
            // Handed down from one observed process to another: it is held by whoever the broker's data were found with.
            Some(pid) if link.is_none() && self.model.processes.get(pid).is_some() => pid,
            _ => link.map_or(connection.pid, |link| link.opened.pid),
        };
        Holder::Observed { pid, tid: link.map(|link| link.opened.tid), connection: link.map(|link| link.id) }
    }

    fn other(&self, client: &Client, translated: bool) -> Holder {
        match client.local_pid {
            Some(pid) if self.model.processes.get(pid).is_some() => {
                Holder::Observed { pid, tid: None, connection: None }
            }
            // It may be one of ours behind another address.
            None if translated || client.peer_host.is_none() => Holder::Unknown,
            _ => Holder::Other(Box::new(client.clone())),
        }
    }
}

fn observed(asked: &Consumer) -> Holder {
    let (pid, tid) = (asked.asked.pid, Some(asked.asked.tid));
    Holder::Observed { pid, tid, connection: Some(asked.connection) }
}

fn known_port(end: &Known<Address>) -> Option<u16> {
    match end.get() {
        Some(Address::Inet { port, .. }) => Some(*port),
        _ => None,
    }
}

fn consumed(account: &Account) -> Consumed {
    let counted = account.sampled.as_ref().and_then(|sampled| sampled.consumers);
    let others = account.consumers.iter().filter(|one| one.is_other() && one.ended_ns.is_none()).count();
    match counted {
        _ if account.consumers.iter().any(Consumption::is_observed) => Consumed::Observed,
        Some(0) => Consumed::Nobody,
        // Any that are counted and not known may be ours.
        Some(counted) if others as u64 >= counted => Consumed::Others,
        _ => Consumed::Unknown,
    }
}
