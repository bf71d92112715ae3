//! A broker's own account in words, for a line of the timeline. Knows the broker's events; nothing of other kinds.

use crate::{
    event::{
        Body,
        broker::{BrokerConnection, BrokerConsumer, BrokerMessage, Passage},
    },
    render::style::{BAD, DIM, GOOD, Line, NAME, ODD, PLAIN},
    words::{self, escape},
};

/// Facts of one event that are shown; the rest are in the session.
const FACTS_SHOWN: usize = 8;

/// Says what a broker's event says. Other kinds are left to the caller.
pub(super) fn describe<'a>(line: &'a mut Line, body: &Body) -> &'a mut Line {
    match body {
        Body::QueueSample(sample) => {
            let name = escape::quote(&sample.queue);
            line.push(NAME, format!("{name} in {} ", escape::quote(&sample.vhost)));
            let count =
                |value: Option<u64>, what| format!("{} {what}", value.map_or("?".into(), |n| n.to_string()));
            let backlog = if sample.ready.is_some_and(|ready| ready > 0) { ODD } else { PLAIN };
            line.push(backlog, count(sample.ready, "ready, "));
            line.push(PLAIN, sample.unacked.map_or(String::new(), |n| format!("{n} unacknowledged, ")));
            let idle = if sample.consumers == Some(0) { ODD } else { PLAIN };
            line.push(idle, count(sample.consumers, "consumers"));
            if let Some(state) = &sample.state {
                line.push(DIM, format!(", {state}"));
            }
            told(line, sample.how.name(), sample.ours)
        }
        Body::BrokerConnection(connection) => describe_connection(line, connection),
        Body::BrokerConsumer(consumer) => describe_consumer(line, consumer),
        Body::BrokerEvent(event) => {
            let failed = event.name.ends_with(".failure");
            line.push(if failed { BAD } else { PLAIN }, &event.name);
            for (name, value) in event.facts.iter().take(FACTS_SHOWN) {
                line.push(DIM, format!(" {name}=")).push(PLAIN, value.to_string());
            }
            line.push(DIM, if event.facts.len() > FACTS_SHOWN { " …" } else { "" });
            told(line, event.how.name(), event.ours)
        }
        Body::BrokerMessage(message) => describe_message(line, message),
        Body::BrokerAlarm(alarm) => {
            let (style, word) = if alarm.set { (BAD, "set") } else { (GOOD, "cleared") };
            line.push(style, format!("{} alarm {word}", alarm.resource));
            line.push(PLAIN, format!(" on {}", alarm.node));
            told(line, alarm.how.name(), false)
        }
        Body::BrokerAccess(access) => {
            let (style, word) = if access.available { (GOOD, "open") } else { (ODD, "closed") };
            line.push(NAME, access.way.name());
            let vhost = access.vhost.as_deref();
            line.push(DIM, vhost.map_or(String::new(), |vhost| format!(" in {}", escape::quote(vhost))));
            line.push(style, format!(" {word}: ")).push(PLAIN, &access.detail)
        }
        _ => line,
    }
}

fn describe_connection<'a>(line: &'a mut Line, connection: &BrokerConnection) -> &'a mut Line {
    line.push(NAME, &connection.name);
    let product = connection.client_properties.get("product");
    let named = connection.client_properties.get("connection_name");
    for word in product.into_iter().chain(named) {
        line.push(PLAIN, format!(" {}", escape::quote(word)));
    }
    if let Some(user) = &connection.user {
        line.push(DIM, format!(" as {user}"));
    }
    if let Some(vhost) = &connection.vhost {
        line.push(DIM, format!(" in {}", escape::quote(vhost)));
    }
    if let Some(pid) = connection.local_pid {
        let command = connection.local_command.as_deref().map_or(String::new(), words::command);
        line.push(PLAIN, format!(" from {pid}")).push(DIM, format!(" {command}"));
    }
    let state = connection.state.as_deref().unwrap_or("there");
    let blocked = state.starts_with("block");
    match connection.present {
        false => line.push(ODD, ", gone"),
        true => line.push(if blocked { ODD } else { PLAIN }, format!(", {state}")),
    };
    told(line, connection.how.name(), connection.ours)
}

fn describe_consumer<'a>(line: &'a mut Line, consumer: &BrokerConsumer) -> &'a mut Line {
    line.push(NAME, &consumer.consumer_tag);
    line.push(PLAIN, format!(" of {} in {}", escape::quote(&consumer.queue), escape::quote(&consumer.vhost)));
    if let Some(connection) = &consumer.connection {
        line.push(DIM, format!(" on {connection}"));
    }
    if let Some(prefetch) = consumer.prefetch {
        line.push(PLAIN, format!(", prefetch {prefetch}"));
    }
    line.push(PLAIN, if consumer.ack_required == Some(false) { ", without acknowledgement" } else { "" });
    line.push(ODD, if consumer.present { "" } else { ", gone" });
    told(line, consumer.how.name(), consumer.ours)
}

fn describe_message<'a>(line: &'a mut Line, message: &BrokerMessage) -> &'a mut Line {
    let keys = message.routing_keys.join(", ");
    match message.passage {
        Passage::Published => {
            line.push(PLAIN, format!("published to {} ", escape::quote(&message.exchange)));
            line.push(NAME, keys).push(DIM, format!(", routed to [{}]", message.routed_queues.join(", ")))
        }
        Passage::Delivered => {
            let queue = message.queue.as_deref().unwrap_or("?");
            line.push(PLAIN, "delivered from ").push(NAME, queue)
        }
    };
    line.push(ODD, if message.redelivered == Some(true) { ", redelivered" } else { "" });
    for id in message.message_id.iter().chain(&message.dramatiq_message_id) {
        line.push(PLAIN, format!(", message {id}"));
    }
    if let Some(connection) = &message.connection {
        line.push(DIM, format!(" on {connection}"));
    }
    line
}

fn told<'a>(line: &'a mut Line, way: &str, ours: bool) -> &'a mut Line {
    line.push(DIM, format!(" ({way}{})", if ours { ", observer's own" } else { "" }))
}
