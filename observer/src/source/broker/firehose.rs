//! Deliveries of `amq.rabbitmq.trace` → messages that passed the broker. Knows the fields of RabbitMQ's firehose; the payload it never
//! sees.

use std::collections::BTreeMap;

use lapin::types::FieldTable;
use serde_json::Value;

use super::{facts::facts, sink::Ours};
use crate::event::broker::{BrokerMessage, Passage};

/// What one traced message says; `None` for the observer's own and for what is no trace. The routing key is `publish.EXCHANGE` or
/// `deliver.QUEUE`.
pub(super) fn message(
    routing_key: &str,
    headers: &FieldTable,
    own_vhost: &str,
    own: &Ours,
) -> Option<BrokerMessage> {
    let facts = facts(headers);
    let text = |name: &str| facts.get(name).and_then(Value::as_str).map(str::to_owned);
    let vhost = text("vhost").unwrap_or_else(|| own_vhost.to_owned());
    let (passage, queue) = match routing_key.split_once('.')? {
        ("publish", _) => (Passage::Published, None),
        ("deliver", queue) => (Passage::Delivered, Some(queue.to_owned())),
        _ => return None,
    };
    let connection = text("connection");
    let to_us = queue.as_ref().is_some_and(|queue| own.queues.contains(&(vhost.clone(), queue.clone())));
    if to_us || connection.as_ref().is_some_and(|name| own.connections.contains(name)) {
        return None;
    }
    let properties = facts.get("properties");
    let property = |name: &str| properties.and_then(|all| all.get(name)).and_then(Value::as_str);
    let header = |name: &str| properties?.get("headers")?.get(name)?.as_str();
    Some(BrokerMessage {
        passage,
        vhost,
        exchange: text("exchange_name").unwrap_or_default(),
        queue,
        routed_queues: list(&facts, "routed_queues"),
        routing_keys: list(&facts, "routing_keys"),
        message_id: property("message_id").map(str::to_owned),
        dramatiq_message_id: header("message_id")
            .or_else(|| header("dramatiq_message_id"))
            .map(str::to_owned),
        node: text("node"),
        connection,
        channel: facts.get("channel").and_then(Value::as_u64).and_then(|number| u16::try_from(number).ok()),
        user: text("user"),
        // 3.x writes a number, later versions may write a boolean.
        redelivered: facts.get("redelivered").map(|value| value == &Value::Bool(true) || value == 1),
    })
}

fn list(facts: &BTreeMap<String, Value>, name: &str) -> Vec<String> {
    let values = facts.get(name).and_then(Value::as_array).into_iter().flatten();
    values.filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use lapin::types::{AMQPValue, FieldArray};

    use super::*;

    fn headers() -> FieldTable {
        let text = |text: &str| AMQPValue::LongString(text.into());
        let mut inner = FieldTable::default();
        inner.insert("message_id".into(), text("m-1"));
        let mut headers = FieldTable::default();
        headers.insert("exchange_name".into(), text(""));
        headers.insert("routing_keys".into(), AMQPValue::FieldArray(FieldArray::from(vec![text("shop")])));
        headers.insert("routed_queues".into(), AMQPValue::FieldArray(FieldArray::from(vec![text("shop")])));
        headers.insert("properties".into(), AMQPValue::FieldTable(inner));
        headers.insert("vhost".into(), text("/"));
        headers.insert("channel".into(), AMQPValue::LongInt(1));
        headers.insert("connection".into(), text("127.0.0.1:50832 -> 127.0.0.1:5672"));
        headers
    }

    #[test]
    fn a_publish_names_its_queues_and_its_connection() {
        let message = message("publish.", &headers(), "/", &Ours::default()).unwrap();
        assert_eq!(message.passage, Passage::Published);
        assert_eq!(message.routed_queues, ["shop"]);
        assert_eq!(message.message_id.as_deref(), Some("m-1"));
        assert_eq!((message.channel, message.redelivered), (Some(1), None));
    }

    #[test]
    fn what_is_delivered_to_the_observer_itself_is_no_message() {
        let mut own = Ours::default();
        assert!(message("deliver.amq.gen-1", &headers(), "/", &own).is_some());
        own.queues.insert(("/".into(), "amq.gen-1".into()));
        assert!(message("deliver.amq.gen-1", &headers(), "/", &own).is_none());
        assert_eq!(message("deliver.a.b", &headers(), "/", &own).unwrap().queue.as_deref(), Some("a.b"));
    }
}
