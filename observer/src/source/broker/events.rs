//! Deliveries of `amq.rabbitmq.event` → domain events. Knows the names and fields of rabbitmq_event_exchange; it consumes nothing.

use std::collections::{BTreeMap, BTreeSet};

use lapin::types::FieldTable;
use serde_json::Value;

use super::{
    PRODUCT,
    facts::{facts, texts, untangle},
    sink::Ours,
};
use crate::event::{
    Body,
    broker::{BrokerAlarm, BrokerConnection, BrokerConsumer, BrokerEvent, Way},
};

/// Connections and channels remembered by their Erlang process: a broker with more tells names only.
const MOST_REMEMBERED: usize = 50_000;

/// Remembers which Erlang process is which connection or channel: events name them only by these.
#[derive(Debug, Default)]
pub(super) struct Translator {
    connections: BTreeMap<String, String>,
    channels: BTreeMap<String, (String, u16)>,
    /// Connection processes that are ours.
    ours: BTreeSet<String>,
}

impl Translator {
    /// What one event says: itself, and what it means for a connection, consumer or alarm.
    pub(super) fn translate(&mut self, name: &str, headers: &FieldTable, own: &Ours) -> Vec<Body> {
        let mut facts = facts(headers);
        untangle(&mut facts);
        let seen = Facts(&facts);
        let mut bodies = Vec::new();
        let ours = match name.split_once('.') {
            Some(("connection", "created")) => {
                let connection = connection(&seen, true);
                self.remember(&seen, &connection);
                let ours = connection.ours;
                bodies.push(Body::BrokerConnection(Box::new(connection)));
                ours
            }
            Some(("connection", "closed")) => {
                let mut connection = connection(&seen, false);
                connection.ours |= own.connections.contains(&connection.name);
                if let Some(process) = seen.text("pid") {
                    connection.ours |= self.ours.remove(&process);
                    self.connections.remove(&process);
                }
                let ours = connection.ours;
                bodies.push(Body::BrokerConnection(Box::new(connection)));
                ours
            }
            Some(("channel", what)) => self.channel(what, &seen, own),
            Some(("consumer", what @ ("created" | "deleted"))) => {
                let consumer = self.consumer(what == "created", &seen, own);
                let ours = consumer.ours;
                bodies.push(Body::BrokerConsumer(consumer));
                ours
            }
            Some(("alarm", what @ ("set" | "cleared"))) => {
                bodies.push(Body::BrokerAlarm(BrokerAlarm {
                    node: seen.text("node").unwrap_or_default(),
                    resource: seen.text("source").unwrap_or_default(),
                    set: what == "set",
                    how: Way::Events,
                }));
                false
            }
            Some(("queue", _)) => {
                let ours = own.queues.contains(&seen.queue("name"));
                if let Some(owner) = seen.text("owner_pid").filter(|_| ours) {
                    self.ours.insert(owner);
                }
                ours
            }
            Some(("binding", _)) => own.queues.contains(&seen.queue("destination_name")),
            _ => false,
        };
        bodies.push(Body::BrokerEvent(BrokerEvent { name: name.to_owned(), facts, how: Way::Events, ours }));
        bodies
    }

    fn remember(&mut self, seen: &Facts<'_>, connection: &BrokerConnection) {
        let Some(process) = seen.text("pid") else { return };
        if connection.ours {
            self.ours.insert(process.clone());
        }
        if self.connections.len() < MOST_REMEMBERED {
            self.connections.insert(process, connection.name.clone());
        }
    }

    fn channel(&mut self, what: &str, seen: &Facts<'_>, own: &Ours) -> bool {
        let process = seen.text("pid").unwrap_or_default();
        if what == "closed" {
            let gone = self.channels.remove(&process);
            return gone.is_some_and(|(connection, _)| own.connections.contains(&connection));
        }
        let parent = seen.text("connection").unwrap_or_default();
        // `127.0.0.1:50822 -> 127.0.0.1:5672 (1)`
        let name = seen.text("name").unwrap_or_default();
        let connection =
            name.rsplit_once(" (").map_or(name.as_str(), |(connection, _)| connection).to_owned();
        let ours = self.ours.contains(&parent) || own.connections.contains(&connection);
        if let Some(number) = seen.number("number").and_then(|number| u16::try_from(number).ok())
            && self.channels.len() < MOST_REMEMBERED
        {
            self.channels.insert(process, (connection, number));
        }
        ours
    }

    fn consumer(&self, present: bool, seen: &Facts<'_>, own: &Ours) -> BrokerConsumer {
        let channel = seen.text("channel").and_then(|process| self.channels.get(&process));
        let (vhost, queue) = seen.queue("queue");
        let ours = own.queues.contains(&(vhost.clone(), queue.clone()));
        BrokerConsumer {
            connection: channel.map(|(connection, _)| connection.clone()),
            channel: channel.map(|(_, number)| *number),
            vhost,
            queue,
            consumer_tag: seen.text("consumer_tag").unwrap_or_default(),
            present,
            prefetch: seen.number("prefetch_count"),
            ack_required: seen.0.get("ack_required").and_then(Value::as_bool),
            how: Way::Events,
            ours,
        }
    }
}

fn connection(seen: &Facts<'_>, present: bool) -> BrokerConnection {
    let client_properties = texts(seen.0.get("client_properties"));
    let ours = client_properties.get("product").is_some_and(|product| product == PRODUCT);
    let port = |name| seen.number(name).and_then(|port| u16::try_from(port).ok());
    BrokerConnection {
        name: seen.text("name").unwrap_or_default(),
        present,
        user: seen.text("user"),
        vhost: seen.text("vhost"),
        peer_host: seen.text("peer_host"),
        peer_port: port("peer_port"),
        port: port("port"),
        client_properties,
        state: None,
        channels: None,
        connected_at_ms: seen.number("connected_at"),
        node: seen.text("node"),
        local_pid: None,
        local_command: None,
        local_parent_command: None,
        how: Way::Events,
        ours,
    }
}

struct Facts<'a>(&'a BTreeMap<String, Value>);

impl Facts<'_> {
    fn text(&self, name: &str) -> Option<String> {
        self.0.get(name)?.as_str().map(str::to_owned)
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.0.get(name)?.as_u64()
    }

    fn queue(&self, name: &str) -> (String, String) {
        (self.text("vhost").unwrap_or_default(), self.text(name).unwrap_or_default())
    }
}
