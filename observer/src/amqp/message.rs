//! A message on a connection: the method that carries it, its properties and its body, put together from their frames. Knows one
//! direction of one channel at a time.

use amq_protocol::protocol::{AMQPClass, basic::AMQPMethod};
use serde::{Deserialize, Serialize};

use super::table::{Properties, Quoted};

/// A message that went over a connection, or as much of it as was seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// How it was carried.
    pub carriage: Carriage,
    /// Its properties; `None` when its content header was not seen.
    pub properties: Option<Properties>,
    /// Length of its body, as its content header says; `None` when that was not seen.
    pub body_size_bytes: Option<u64>,
    /// The beginning of its body, as far as it was seen without a hole and the limit allows. Never part of the JSON.
    #[serde(skip)]
    pub body: Vec<u8>,
    /// How much of the body passed, seen or not.
    pub passed_bytes: u64,
}

impl Message {
    /// Whether [`Message::body`] is the whole body.
    pub fn is_whole(&self) -> bool {
        self.body_size_bytes == Some(self.body.len() as u64)
    }
}

/// How a message was carried: AMQP's four methods with content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the arguments are AMQP 0-9-1's own, by its names")]
pub enum Carriage {
    /// `basic.publish`. `sequence` is the number by which the broker confirms it, on a channel in confirm mode.
    Publish { exchange: String, routing_key: String, mandatory: bool, sequence: Option<u64> },
    /// `basic.deliver`. `queue` is what the consumer of that tag consumes, when its `basic.consume` was seen.
    Deliver {
        consumer_tag: String,
        queue: Option<String>,
        delivery_tag: u64,
        redelivered: bool,
        exchange: String,
        routing_key: String,
    },
    /// `basic.get-ok`.
    GetOk { delivery_tag: u64, redelivered: bool, exchange: String, routing_key: String, message_count: u32 },
    /// `basic.return`: the broker could not route a mandatory message.
    Return { code: u16, text: String, exchange: String, routing_key: String },
    /// Its method was not seen.
    Unseen,
}

impl Carriage {
    /// Takes over a decoded method that carries a message; `None` for any other.
    pub fn from_amqp(class: &AMQPClass) -> Option<Self> {
        let AMQPClass::Basic(method) = class else { return None };
        Some(match method {
            AMQPMethod::Publish(publish) => Self::Publish {
                exchange: publish.exchange.to_string(),
                routing_key: publish.routing_key.to_string(),
                mandatory: publish.mandatory,
                sequence: None,
            },
            AMQPMethod::Deliver(deliver) => Self::Deliver {
                consumer_tag: deliver.consumer_tag.to_string(),
                queue: None,
                delivery_tag: deliver.delivery_tag,
                redelivered: deliver.redelivered,
                exchange: deliver.exchange.to_string(),
                routing_key: deliver.routing_key.to_string(),
            },
            AMQPMethod::GetOk(get_ok) => Self::GetOk {
                delivery_tag: get_ok.delivery_tag,
                redelivered: get_ok.redelivered,
                exchange: get_ok.exchange.to_string(),
                routing_key: get_ok.routing_key.to_string(),
                message_count: get_ok.message_count,
            },
            AMQPMethod::Return(returned) => Self::Return {
                code: returned.reply_code,
                text: returned.reply_text.to_string(),
                exchange: returned.exchange.to_string(),
                routing_key: returned.routing_key.to_string(),
            },
            _ => return None,
        })
    }
}

impl std::fmt::Display for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.carriage {
            Carriage::Publish { exchange, routing_key, sequence, .. } => {
                write!(f, "basic.publish to {} key {}", Quoted(exchange), Quoted(routing_key))?;
                sequence.map_or(Ok(()), |sequence| write!(f, " sequence {sequence}"))?;
            }
            Carriage::Deliver { consumer_tag, delivery_tag, redelivered, routing_key, .. } => {
                let again = if *redelivered { " redelivered" } else { "" };
                let (tag, key) = (Quoted(consumer_tag), Quoted(routing_key));
                write!(f, "basic.deliver {delivery_tag}{again} key {key} tag {tag}")?;
            }
            Carriage::GetOk { delivery_tag, redelivered, routing_key, message_count, .. } => {
                let again = if *redelivered { " redelivered" } else { "" };
                let key = Quoted(routing_key);
                write!(f, "basic.get-ok {delivery_tag}{again} key {key} messages {message_count}")?;
            }
            Carriage::Return { code, text, exchange, routing_key } => {
                let (text, exchange, key) = (Quoted(text), Quoted(exchange), Quoted(routing_key));
                write!(f, "basic.return {code} {text} to {exchange} key {key}")?;
            }
            Carriage::Unseen => f.write_str("message")?,
        }
        match self.body_size_bytes {
            Some(size) => write!(f, " body {size} B"),
            None => f.write_str(" (content header not seen)"),
        }
    }
}

/// A message on its way, one a direction and channel at most.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) start: u64,
    pub(super) end: u64,
    message: Message,
    /// What follows in the body does not adjoin what was kept.
    broken: bool,
}

impl Pending {
    pub(super) fn new(start: u64, end: u64, carriage: Carriage) -> Self {
        let broken = carriage == Carriage::Unseen;
        let message =
            Message { carriage, properties: None, body_size_bytes: None, body: Vec::new(), passed_bytes: 0 };
        Self { start, end, message, broken }
    }

    /// Adds the content header.
    pub(super) fn header(&mut self, end: u64, properties: Properties, body_size: u64) {
        self.end = end;
        self.message.properties = Some(properties);
        self.message.body_size_bytes = Some(body_size);
        // A header whose method was lost begins its body all the same.
        self.broken = self.message.passed_bytes > 0;
    }

    /// Whether the content header was seen.
    pub(super) fn has_header(&self) -> bool {
        self.message.properties.is_some()
    }

    /// Adds a piece of body, of which at most `room` bytes are kept. Answers how many were.
    pub(super) fn body(&mut self, end: u64, bytes: &[u8], missing: u32, room: usize) -> usize {
        self.end = end;
        self.message.passed_bytes += bytes.len() as u64 + u64::from(missing);
        if self.broken {
            return 0;
        }
        let kept = bytes.get(..room).unwrap_or(bytes);
        self.message.body.extend_from_slice(kept);
        self.broken = missing > 0 || kept.len() < bytes.len();
        kept.len()
    }

    /// Whether nothing more belongs to it.
    pub(super) fn is_done(&self) -> bool {
        self.message.body_size_bytes.is_some_and(|size| self.message.passed_bytes >= size)
    }

    pub(super) fn kept(&self) -> usize {
        self.message.body.len()
    }

    pub(super) fn into_message(self) -> Message {
        self.message
    }
}
