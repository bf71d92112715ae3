//! The broker's own account: what its queues held, who was connected, who consumed. Knows what the broker said; nothing of the processes
//! that were observed.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::mark::Mark;
use crate::event::{
    Body, Event, Pid,
    broker::{BrokerConnection, BrokerConsumer, QueueSample, Way},
};

/// Beyond so many queues, connections and consumers each, new ones are only counted, unless old ones are over.
const MAX_KEPT: usize = 10_000;
/// For so long what a passive declare said of a queue counts for more than the management API, whose numbers are up to 5 s old
/// (`collect_statistics_interval`).
const FRESH_NS: u64 = 6_000_000_000;

/// Virtual host and name.
pub type QueueName = (String, String);

/// What the broker said of one queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sampled {
    /// Messages ready, as told last.
    pub ready: Option<u64>,
    /// Messages delivered and not settled, as told last.
    pub unacked: Option<u64>,
    /// Consumers, as told last.
    pub consumers: Option<u64>,
    /// `absent`, `exclusive`, or the state the broker gave it, as told last.
    pub state: Option<String>,
    /// When it was told last.
    pub sampled_ns: u64,
    /// The event that told it.
    pub event: u64,
    /// Since when every sample had messages ready; `None` when the last one had none, or did not tell.
    pub ready_since_ns: Option<u64>,
    /// Messages delivered from it as counted first and last; what was not counted yet is 0.
    pub delivered: Option<(u64, u64)>,
    /// The most messages that were delivered and not settled.
    pub most_unacked: u64,
    /// The most messages that were ready, and when.
    pub highest_ready: Option<(u64, u64)>,
    #[serde(skip)]
    declared_ns: Option<u64>,
}

impl Sampled {
    fn add(&mut self, id: u64, at_ns: u64, sample: &QueueSample) {
        let is_stale = sample.how == Way::Management
            && self.declared_ns.is_some_and(|declared_ns| at_ns < declared_ns + FRESH_NS);
        if sample.unacked.is_some() {
            self.unacked = sample.unacked;
            self.most_unacked = self.most_unacked.max(sample.unacked.unwrap_or(0));
        }
        if sample.how == Way::Management {
            let counted = sample.delivered.unwrap_or(0);
            let first = self.delivered.map_or(counted, |(first, _)| first);
            self.delivered = Some((first, counted));
        }
        if is_stale {
            return;
        }
        if sample.how == Way::PassiveDeclare {
            self.declared_ns = Some(at_ns);
        }
        (self.ready, self.consumers) = (sample.ready, sample.consumers);
        self.state.clone_from(&sample.state);
        (self.sampled_ns, self.event) = (at_ns, id);
        match sample.ready {
            Some(ready) if ready > 0 => {
                self.ready_since_ns.get_or_insert(at_ns);
                if self.highest_ready.is_none_or(|(most, _)| ready > most) {
                    self.highest_ready = Some((ready, at_ns));
                }
            }
            _ => self.ready_since_ns = None,
        }
        if sample.state.as_deref() == Some("absent") {
            self.unacked = None;
        }
    }

    /// Messages that wait to be delivered, when the last sample had some.
    pub fn backlog(&self) -> Option<u64> {
        self.ready.filter(|ready| *ready > 0)
    }
}

/// A connection to the broker, of whomever.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Client {
    /// The broker's name for it.
    pub name: String,
    /// Its virtual host.
    pub vhost: Option<String>,
    /// Its user.
    pub user: Option<String>,
    /// The client's end: its address.
    pub peer_host: Option<String>,
    /// The client's end: its port.
    pub peer_port: Option<u16>,
    /// The server's port.
    pub port: Option<u16>,
    /// What the client calls itself.
    pub product: Option<String>,
    /// What the client calls the connection.
    pub connection_name: Option<String>,
    /// The process at the client's end, when it was found on the observer's machine.
    pub local_pid: Option<Pid>,
    /// Its command line.
    pub local_command: Option<Vec<String>>,
    /// Its parent's command line.
    pub local_parent_command: Option<Vec<String>>,
    /// Whether the broker takes no messages from it now: an alarm is set, and it tries to publish.
    pub is_blocked: bool,
    /// When the broker first told of it.
    pub first_ns: u64,
    /// When the broker told that it is gone.
    pub gone_ns: Option<u64>,
    connected_at_ms: Option<u64>,
}

impl Client {
    fn learn(&mut self, news: &BrokerConnection) {
        fn learn<T: Clone>(known: &mut Option<T>, news: Option<&T>) {
            if let Some(news) = news {
                *known = Some(news.clone());
            }
        }
        learn(&mut self.vhost, news.vhost.as_ref());
        learn(&mut self.user, news.user.as_ref());
        learn(&mut self.peer_host, news.peer_host.as_ref());
        learn(&mut self.peer_port, news.peer_port.as_ref());
        learn(&mut self.port, news.port.as_ref());
        learn(&mut self.product, news.client_properties.get("product"));
        learn(&mut self.connection_name, news.client_properties.get("connection_name"));
        learn(&mut self.local_pid, news.local_pid.as_ref());
        learn(&mut self.local_command, news.local_command.as_ref());
        learn(&mut self.local_parent_command, news.local_parent_command.as_ref());
        if let Some(state) = &news.state {
            self.is_blocked = matches!(state.as_str(), "blocked" | "blocking");
        }
        learn(&mut self.connected_at_ms, news.connected_at_ms.as_ref());
    }
}

/// A consumer, of whomever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tap {
    /// Its queue.
    pub queue: QueueName,
    /// Its tag.
    pub tag: String,
    /// Its channel.
    pub channel: Option<u16>,
    /// Deliveries it may leave unsettled; 0 is no limit.
    pub prefetch: Option<u64>,
    /// When the broker first told of it.
    pub first_ns: u64,
    /// When the broker told that it is gone.
    pub gone_ns: Option<u64>,
    /// The event that first told of it.
    pub event: u64,
    #[serde(skip)]
    client: Option<u64>,
}

/// All that the broker said. The observer's own connections, consumers and queues are not in it.
#[derive(Clone, Debug, Default)]
pub struct Broker {
    alarms: BTreeMap<(String, String), Mark>,
    queues: BTreeMap<QueueName, Sampled>,
    clients: BTreeMap<u64, Client>,
    names: HashMap<String, u64>,
    taps: BTreeMap<u64, Tap>,
    present: HashMap<(QueueName, String), Vec<u64>>,
    next: u64,
    /// Queues, connections and consumers that were not kept because there were too many.
    pub left_out: u64,
}

impl Broker {
    /// Whether the broker said anything of queues, connections or consumers. If not, nothing here is known, not even that there are none.
    pub fn has_told(&self) -> bool {
        !(self.queues.is_empty() && self.clients.is_empty() && self.taps.is_empty())
    }

    /// Every queue that was sampled.
    pub fn queues(&self) -> impl Iterator<Item = (&QueueName, &Sampled)> {
        self.queues.iter()
    }

    /// Every connection that is there or that consumed, in the order they were told of.
    pub fn clients(&self) -> impl Iterator<Item = &Client> {
        self.clients.values()
    }

    /// Every consumer, in the order they were told of.
    pub fn taps(&self) -> impl Iterator<Item = &Tap> {
        self.taps.values()
    }

    /// Resource alarms that are set: node, resource, and since when.
    pub fn alarms(&self) -> Vec<(&str, &str, Mark)> {
        self.alarms.iter().map(|((node, resource), mark)| (node.as_str(), resource.as_str(), *mark)).collect()
    }

    /// The connection of a consumer, as far as it is known.
    pub fn client(&self, tap: &Tap) -> Option<&Client> {
        self.clients.get(&tap.client?)
    }

    pub(super) fn add(&mut self, id: u64, event: &Event) {
        match &event.body {
            Body::QueueSample(sample) if !sample.ours => {
                let name = (sample.vhost.clone(), sample.queue.clone());
                if self.queues.len() < MAX_KEPT || self.queues.contains_key(&name) {
                    self.queues.entry(name).or_default().add(id, event.at_ns, sample);
                } else {
                    self.left_out += 1;
                }
            }
            Body::BrokerConnection(connection) if !connection.ours => {
                self.connection(event.at_ns, connection)
            }
            Body::BrokerAlarm(alarm) => {
                let key = (alarm.node.clone(), alarm.resource.clone());
                if !alarm.set {
                    self.alarms.remove(&key);
                } else if self.alarms.len() < MAX_KEPT {
                    self.alarms.entry(key).or_insert(Mark::new(id, event));
                }
            }
            Body::BrokerConsumer(consumer) if !consumer.ours => self.consumer(id, event.at_ns, consumer),
            _ => {}
        }
    }

    fn connection(&mut self, at_ns: u64, news: &BrokerConnection) {
        let known = self.names.get(&news.name).and_then(|key| self.clients.get(key));
        // A name is a pair of addresses, and used again.
        let is_another = known.is_some_and(|known| {
            news.present
                && known.gone_ns.is_some()
                && known.connected_at_ms.zip(news.connected_at_ms).is_some_and(|(before, now)| before != now)
        });
        if is_another {
            self.names.remove(&news.name);
        }
        if !news.present && !self.names.contains_key(&news.name) {
            return;
        }
        let Some(key) = self.named(at_ns, &news.name) else { return };
        if let Some(client) = self.clients.get_mut(&key) {
            client.learn(news);
            if news.present {
                client.gone_ns = None;
            } else {
                client.gone_ns.get_or_insert(at_ns);
                // Of those that come and go without consuming there may be any number.
                if !self.taps.values().any(|tap| tap.client == Some(key)) {
                    self.clients.remove(&key);
                    self.names.remove(&news.name);
                }
            }
        }
    }

    /// The connection of this name; makes one that nothing else is known of.
    fn named(&mut self, at_ns: u64, name: &str) -> Option<u64> {
        if let Some(key) = self.names.get(name) {
            return Some(*key);
        }
        if self.clients.len() >= MAX_KEPT {
            self.left_out += 1;
            let over =
                self.clients.iter().find(|(_, client)| client.gone_ns.is_some()).map(|(key, _)| *key)?;
            self.clients.remove(&over);
            self.names.retain(|_, key| *key != over);
        }
        self.next += 1;
        let client = Client { name: name.to_owned(), first_ns: at_ns, ..Client::default() };
        self.clients.insert(self.next, client);
        self.names.insert(name.to_owned(), self.next);
        Some(self.next)
    }

    fn consumer(&mut self, id: u64, at_ns: u64, news: &BrokerConsumer) {
        let name = ((news.vhost.clone(), news.queue.clone()), news.consumer_tag.clone());
        let client = match &news.connection {
            Some(connection) if news.present => self.named(at_ns, connection),
            Some(connection) => self.names.get(connection).copied(),
            None => None,
        };
        // Two ways tell of the same consumer, and one of them may not know its connection or channel.
        let agree = |tap: &Tap| {
            tap.client.zip(client).is_none_or(|(known, now)| known == now)
                && tap.channel.zip(news.channel).is_none_or(|(known, now)| known == now)
        };
        let keys = self.present.entry(name.clone()).or_default();
        let known = keys.iter().copied().find(|key| self.taps.get(key).is_some_and(agree));
        if !news.present {
            if let Some(tap) = known.and_then(|key| self.taps.get_mut(&key)) {
                tap.gone_ns.get_or_insert(at_ns);
            }
            keys.retain(|key| Some(*key) != known);
            if keys.is_empty() {
                self.present.remove(&name);
            }
            return;
        }
        if let Some(tap) = known.and_then(|key| self.taps.get_mut(&key)) {
            tap.client = tap.client.or(client);
            tap.channel = tap.channel.or(news.channel);
            tap.prefetch = news.prefetch.or(tap.prefetch);
            return;
        }
        if self.taps.len() >= MAX_KEPT {
            let over = self.taps.iter().find(|(_, tap)| tap.gone_ns.is_some()).map(|(key, _)| *key);
            self.left_out += 1;
            match over {
                Some(over) => drop(self.taps.remove(&over)),
                None => return,
            }
        }
        self.next += 1;
        keys.push(self.next);
        let (queue, tag) = name;
        self.taps.insert(
            self.next,
            Tap {
                queue,
                tag,
                channel: news.channel,
                prefetch: news.prefetch,
                first_ns: at_ns,
                gone_ns: None,
                event: id,
                client,
            },
        );
    }
}
