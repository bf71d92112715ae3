//! What a broker says of itself, in the words of the field. It knows neither how it was asked nor who asks.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Pid;

/// A way to learn from a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// A connection of our own, on which the next three rest.
    Amqp,
    /// `queue.declare` with `passive`: it asks and changes nothing.
    PassiveDeclare,
    /// The exchange `amq.rabbitmq.event` of the plugin rabbitmq_event_exchange.
    Events,
    /// The exchange `amq.rabbitmq.trace`: a copy of every message published and delivered while tracing is on.
    Firehose,
    /// The HTTP API of the plugin rabbitmq_management.
    Management,
}

impl Way {
    /// Its public name, equal to the JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Amqp => "amqp",
            Self::PassiveDeclare => "passive-declare",
            Self::Events => "events",
            Self::Firehose => "firehose",
            Self::Management => "management",
        }
    }
}

/// What a queue held when it was asked. From the management API one is written only when it differs from the one before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QueueSample {
    /// Its virtual host.
    pub vhost: String,
    /// Its name.
    pub queue: String,
    /// Messages ready to be delivered.
    pub ready: Option<u64>,
    /// Messages delivered and not yet settled; a passive declare does not tell.
    pub unacked: Option<u64>,
    /// Consumers; of a passive declare, those whose channel takes messages.
    pub consumers: Option<u64>,
    /// `running`, `idle`, `flow`, …; `absent` when there is no such queue, `exclusive` when it is another connection's alone.
    pub state: Option<String>,
    /// Messages published to it since it was made, as far as the broker counts (management API).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<u64>,
    /// Messages delivered from it, or got, since it was made, again ones too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered: Option<u64>,
    /// Who was asked.
    pub how: Way,
    /// The observer's own queue: to be left out of every count.
    pub ours: bool,
}

/// A connection the broker has, had or has lost. Written when it is first seen, when it differs, and when it is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BrokerConnection {
    /// The broker's name for it: `127.0.0.1:50832 -> 127.0.0.1:5672`.
    pub name: String,
    /// Whether it is there; false once it is gone.
    pub present: bool,
    /// The user it was opened by.
    pub user: Option<String>,
    /// The virtual host it is in.
    pub vhost: Option<String>,
    /// The client's end: its address.
    pub peer_host: Option<String>,
    /// The client's end: its port.
    pub peer_port: Option<u16>,
    /// The server's port.
    pub port: Option<u16>,
    /// What the client says of itself, text values only (`product`, `version`, `connection_name`, …).
    pub client_properties: BTreeMap<String, String>,
    /// `running`, `blocked`, `blocking`, `flow`, …
    pub state: Option<String>,
    /// Channels it has open.
    pub channels: Option<u64>,
    /// When it was made, milliseconds since 1970 on the broker's clock.
    pub connected_at_ms: Option<u64>,
    /// The cluster's node it is on.
    pub node: Option<String>,
    /// The process that holds the client's end, when that was found on this machine while the connection was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_pid: Option<Pid>,
    /// That process's command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_command: Option<Vec<String>>,
    /// The command line of that process's parent. A dramatiq worker shows its master's own: without this a worker that lost its master
    /// looks like any other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_parent_command: Option<Vec<String>>,
    /// Who told.
    pub how: Way,
    /// The observer's own: to be left out of every count.
    pub ours: bool,
}

/// A consumer the broker has or had. Written when it is first seen, when it differs, and when it is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BrokerConsumer {
    /// The name of its connection.
    pub connection: Option<String>,
    /// The number of its channel.
    pub channel: Option<u16>,
    /// The queue's virtual host.
    pub vhost: String,
    /// The queue.
    pub queue: String,
    /// Its tag, unique in its channel.
    pub consumer_tag: String,
    /// Whether it is there; false once it is gone.
    pub present: bool,
    /// Deliveries it may leave unsettled; 0 is no limit.
    pub prefetch: Option<u64>,
    /// Whether it settles what it is given.
    pub ack_required: Option<bool>,
    /// Who told.
    pub how: Way,
    /// The observer's own: to be left out of every count.
    pub ours: bool,
}

/// Something that happened in the broker, as it tells it itself; or a fact of its configuration, when first seen or changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BrokerEvent {
    /// The broker's own name (`connection.created`, `user.authentication.failure`). From the management API: `binding.present`,
    /// `binding.absent`, `policy.present`, `policy.absent`.
    pub name: String,
    /// What it says, by the broker's own names. Values that are named like secrets are left out.
    pub facts: BTreeMap<String, Value>,
    /// Who told.
    pub how: Way,
    /// About the observer's own connection, channel, consumer or queue, as far as that can be told.
    pub ours: bool,
}

/// Which end of its way through the broker a message was seen at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Passage {
    /// A client published it.
    Published,
    /// A client was given it.
    Delivered,
}

/// A message that passed the broker, from the firehose. The payload is never part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BrokerMessage {
    /// Published or delivered.
    pub passage: Passage,
    /// The virtual host.
    pub vhost: String,
    /// The exchange it was published to; empty for the default exchange.
    pub exchange: String,
    /// The queue it was delivered from.
    pub queue: Option<String>,
    /// The queues it was routed to when it was published; empty: none, or not told.
    pub routed_queues: Vec<String>,
    /// The routing key, and those of the headers CC and BCC.
    pub routing_keys: Vec<String>,
    /// The AMQP property `message-id`.
    pub message_id: Option<String>,
    /// The dramatiq message id, when a property or header carries one. (dramatiq itself writes it only into the payload.)
    pub dramatiq_message_id: Option<String>,
    /// The node that handled it.
    pub node: Option<String>,
    /// The name of the connection it was published or delivered on.
    pub connection: Option<String>,
    /// The channel's number.
    pub channel: Option<u16>,
    /// The user of that connection.
    pub user: Option<String>,
    /// Whether it had been delivered before.
    pub redelivered: Option<bool>,
}

/// A resource alarm: while one is set, publishers are blocked. Consumers are not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BrokerAlarm {
    /// The node.
    pub node: String,
    /// `memory`, `disk` or what else the broker says.
    pub resource: String,
    /// Set, or cleared.
    pub set: bool,
    /// Who told.
    pub how: Way,
}

/// Whether a way to learn from the broker is open. One is written when that, or the reason for it, changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BrokerAccess {
    /// Which way.
    pub way: Way,
    /// In which virtual host, for the ways that have one.
    pub vhost: Option<String>,
    /// Open or not.
    pub available: bool,
    /// What was tried, what the answer was, what is lost without it, what to do.
    pub detail: String,
}

/// Hands every text that came from a broker to `each`, to be changed in place.
pub(super) fn texts(body: &mut super::Body, each: &mut dyn FnMut(&mut String)) {
    use super::Body;
    match body {
        Body::QueueSample(QueueSample { vhost, queue, .. }) => [vhost, queue].into_iter().for_each(each),
        Body::BrokerConnection(connection) => {
            let BrokerConnection { name, user, vhost, peer_host, client_properties, .. } =
                connection.as_mut();
            each(name);
            [user, vhost, peer_host].into_iter().flatten().for_each(&mut *each);
            client_properties.values_mut().for_each(each);
        }
        Body::BrokerConsumer(BrokerConsumer { connection, vhost, queue, consumer_tag, .. }) => {
            connection.iter_mut().chain([vhost, queue, consumer_tag]).for_each(each);
        }
        Body::BrokerEvent(BrokerEvent { facts, .. }) => {
            facts.values_mut().for_each(|value| value_texts(value, each));
        }
        Body::BrokerMessage(message) => {
            let BrokerMessage { exchange, queue, routed_queues, routing_keys, message_id, .. } =
                message.as_mut();
            let names = queue.iter_mut().chain(routed_queues).chain(routing_keys).chain(message_id);
            names.chain([exchange]).for_each(each);
        }
        Body::BrokerAccess(BrokerAccess { detail, .. }) => each(detail),
        _ => {}
    }
}

fn value_texts(value: &mut Value, each: &mut dyn FnMut(&mut String)) {
    match value {
        Value::String(text) => each(text),
        Value::Array(values) => values.iter_mut().for_each(|value| value_texts(value, each)),
        Value::Object(fields) => fields.values_mut().for_each(|value| value_texts(value, each)),
        _ => {}
    }
}
