//! The management API's answers, as far as they are of use. Every field may be missing or of another type than the documentation says:
//! that makes one value unknown, never an answer unreadable. It knows no HTTP.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;

use super::super::{PRODUCT, facts::texts, sink::Ours};
use crate::event::broker::{BrokerAlarm, BrokerConnection, BrokerConsumer, QueueSample, Way};

/// A value of the type that was hoped for, or none. RabbitMQ writes `[]` for an empty object and `"undefined"` for no number.
fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Option<T>, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).ok())
}

/// The elements of a list that can be read. Some versions put a list into pages: then it is under `items`.
pub(super) fn list<T: DeserializeOwned>(answer: Value) -> Vec<T> {
    let elements = match answer {
        Value::Array(elements) => elements,
        Value::Object(mut page) => match page.remove("items") {
            Some(Value::Array(elements)) => elements,
            _ => Vec::new(),
        },
        _ => Vec::new(),
    };
    elements.into_iter().filter_map(|element| serde_json::from_value(element).ok()).collect()
}

/// `/api/overview`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Overview {
    #[serde(deserialize_with = "lenient")]
    pub(super) rabbitmq_version: Option<String>,
    #[serde(deserialize_with = "lenient")]
    pub(super) product_version: Option<String>,
}

/// `/api/whoami`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Whoami {
    /// A list, or before 3.9 a text.
    tags: Value,
}

impl Whoami {
    pub(super) fn tags(&self) -> Vec<String> {
        match &self.tags {
            Value::Array(tags) => tags.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            Value::String(tags) => tags.split(',').map(|tag| tag.trim().to_owned()).collect(),
            _ => Vec::new(),
        }
    }
}

/// `/api/vhosts/NAME`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Vhost {
    #[serde(deserialize_with = "lenient")]
    pub(super) tracing: Option<bool>,
}

/// One of `/api/connections`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Connection {
    #[serde(deserialize_with = "lenient")]
    name: Option<String>,
    #[serde(deserialize_with = "lenient")]
    user: Option<String>,
    #[serde(deserialize_with = "lenient")]
    vhost: Option<String>,
    #[serde(deserialize_with = "lenient")]
    peer_host: Option<String>,
    #[serde(deserialize_with = "lenient")]
    peer_port: Option<u16>,
    #[serde(deserialize_with = "lenient")]
    port: Option<u16>,
    #[serde(deserialize_with = "lenient")]
    client_properties: Option<Value>,
    #[serde(deserialize_with = "lenient")]
    state: Option<String>,
    #[serde(deserialize_with = "lenient")]
    channels: Option<u64>,
    #[serde(deserialize_with = "lenient")]
    connected_at: Option<u64>,
    #[serde(deserialize_with = "lenient")]
    node: Option<String>,
}

impl Connection {
    pub(super) fn into_event(self) -> Option<BrokerConnection> {
        let client_properties = texts(self.client_properties.as_ref());
        let ours = client_properties.get("product").is_some_and(|product| product == PRODUCT);
        Some(BrokerConnection {
            name: self.name?,
            present: true,
            user: self.user,
            vhost: self.vhost,
            peer_host: self.peer_host,
            peer_port: self.peer_port,
            port: self.port,
            client_properties,
            state: self.state,
            channels: self.channels,
            connected_at_ms: self.connected_at,
            node: self.node,
            local_pid: None,
            local_command: None,
            local_parent_command: None,
            how: Way::Management,
            ours,
        })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ChannelDetails {
    #[serde(deserialize_with = "lenient")]
    connection_name: Option<String>,
    #[serde(deserialize_with = "lenient")]
    number: Option<u16>,
}

#[derive(Debug, Deserialize)]
struct Name {
    name: String,
    vhost: String,
}

/// One of `/api/consumers`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Consumer {
    #[serde(deserialize_with = "lenient")]
    consumer_tag: Option<String>,
    #[serde(deserialize_with = "lenient")]
    channel_details: Option<ChannelDetails>,
    #[serde(deserialize_with = "lenient")]
    queue: Option<Name>,
    #[serde(deserialize_with = "lenient")]
    prefetch_count: Option<u64>,
    #[serde(deserialize_with = "lenient")]
    ack_required: Option<bool>,
}

impl Consumer {
    pub(super) fn into_event(self, own: &Ours) -> Option<BrokerConsumer> {
        let Name { name: queue, vhost } = self.queue?;
        let ChannelDetails { connection_name, number } = self.channel_details.unwrap_or_default();
        let ours = connection_name.as_ref().is_some_and(|name| own.connections.contains(name))
            || own.queues.contains(&(vhost.clone(), queue.clone()));
        Some(BrokerConsumer {
            connection: connection_name,
            channel: number,
            vhost,
            queue,
            consumer_tag: self.consumer_tag?,
            present: true,
            prefetch: self.prefetch_count,
            ack_required: self.ack_required,
            how: Way::Management,
            ours,
        })
    }
}

/// One of `/api/queues`. The counts are missing for a moment after a queue is made, and where statistics are turned off.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Queue {
    #[serde(deserialize_with = "lenient")]
    name: Option<String>,
    #[serde(deserialize_with = "lenient")]
    vhost: Option<String>,
    #[serde(deserialize_with = "lenient")]
    messages_ready: Option<u64>,
    #[serde(deserialize_with = "lenient")]
    messages_unacknowledged: Option<u64>,
    #[serde(deserialize_with = "lenient")]
    consumers: Option<u64>,
    #[serde(deserialize_with = "lenient")]
    state: Option<String>,
    #[serde(deserialize_with = "lenient")]
    message_stats: Option<MessageStats>,
}

impl Queue {
    pub(super) fn into_event(self, own: &Ours) -> Option<QueueSample> {
        let (vhost, queue) = (self.vhost?, self.name?);
        let ours = own.queues.contains(&(vhost.clone(), queue.clone()));
        Some(QueueSample {
            vhost,
            queue,
            ready: self.messages_ready,
            unacked: self.messages_unacknowledged,
            consumers: self.consumers,
            state: self.state,
            published: self.message_stats.as_ref().and_then(|stats| stats.publish),
            delivered: self.message_stats.as_ref().and_then(|stats| stats.deliver_get),
            how: Way::Management,
            ours,
        })
    }
}

/// What the broker counted of a queue since it was made; not there before the first message.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct MessageStats {
    #[serde(deserialize_with = "lenient")]
    publish: Option<u64>,
    #[serde(deserialize_with = "lenient")]
    deliver_get: Option<u64>,
}

/// One of `/api/nodes`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Node {
    #[serde(deserialize_with = "lenient")]
    name: Option<String>,
    #[serde(deserialize_with = "lenient")]
    mem_alarm: Option<bool>,
    #[serde(deserialize_with = "lenient")]
    disk_free_alarm: Option<bool>,
}

impl Node {
    pub(super) fn alarms(self) -> Vec<BrokerAlarm> {
        let node = self.name.unwrap_or_default();
        let known = [("memory", self.mem_alarm), ("disk", self.disk_free_alarm)];
        let known = known.into_iter().filter_map(|(resource, set)| Some((resource, set?)));
        known
            .map(|(resource, set)| BrokerAlarm {
                node: node.clone(),
                resource: resource.into(),
                set,
                how: Way::Management,
            })
            .collect()
    }
}

/// The facts of a binding or a policy: whatever the broker says of it.
pub(super) type Facts = BTreeMap<String, Value>;
