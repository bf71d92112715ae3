//! Both directions of one connection → what was said, in the words of the field. Knows AMQP; nothing of processes, sessions or
//! sources.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use amq_protocol::protocol::AMQPClass;
use serde::{Deserialize, Serialize};

use super::{
    message::{Carriage, Message, Pending},
    method::{Method, Side, Tuning},
    stream::{Content, Decoder, Foreign, Frame, protocol_name},
    table::{Properties, SharedTables, Table},
};
use crate::event::Direction;

/// Message bodies held at one time, all channels together. What comes beyond is counted, not kept.
const MOST_HELD_BYTES: usize = 16 << 20;
/// Consumers remembered by their tags.
const MOST_CONSUMERS: usize = 10_000;

/// Something said on a connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Who said it.
    pub side: Side,
    /// On which channel; 0 is the connection.
    pub channel: u16,
    /// Offset of its first byte in its side's stream.
    pub start: u64,
    /// Offset after its last byte.
    pub end: u64,
    /// What.
    pub what: What,
}

/// What was said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// A protocol header, with the four bytes after `AMQP`. From the server it is a refusal: the version it wants.
    ProtocolHeader([u8; 4]),
    /// A method without content.
    Method(Method),
    /// A message, once its last byte passed or nothing more of it can come.
    Message(Box<Message>),
    /// A heartbeat.
    Heartbeat,
    /// A method that neither AMQP 0-9-1 nor RabbitMQ has: class and method id.
    UnknownMethod(u16, u16),
    /// A frame whose payload is not what its type (1 method, 2 content header) and ids say.
    Malformed(u8),
    /// The stream is another protocol's.
    NotAmqp(Foreign),
    /// A part of the stream that was not captured, or could not be placed.
    Unseen,
}

impl std::fmt::Display for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ProtocolHeader(version) => write!(f, "protocol header {}", protocol_name(*version)),
            Self::Method(method) => method.fmt(f),
            Self::Message(message) => message.fmt(f),
            Self::Heartbeat => f.write_str("heartbeat"),
            Self::UnknownMethod(class, method) => write!(f, "unknown method {class}.{method}"),
            Self::Malformed(1) => f.write_str("malformed method"),
            Self::Malformed(_) => f.write_str("malformed content header"),
            Self::NotAmqp(foreign) => write!(f, "not AMQP but {foreign}"),
            Self::Unseen => f.write_str("(not seen)"),
        }
    }
}

/// What one side has turned out to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Spoke {
    /// Nothing at all.
    Silence,
    /// AMQP 0-9-1.
    Amqp,
    /// An AMQP protocol header of another version; from the server, any.
    ProtocolHeader([u8; 4]),
    /// Another protocol.
    Foreign(Foreign),
    /// Bytes that are nothing we know.
    Unrecognised,
}

/// How a connection was closed, by `connection.close`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// Who closed it.
    pub side: Side,
    /// Reply code: 200 is fine, 403 access refused, 530 not allowed (no such vhost), 320 forced.
    pub code: u16,
    /// Reply text.
    pub text: String,
    /// The method that was answered so.
    pub cause: Option<String>,
}

/// What is known of a connection by now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// The server's properties, as `connection.start` told them.
    pub server_properties: Option<Arc<Table>>,
    /// The client's properties, as `connection.start-ok` told them.
    pub client_properties: Option<Arc<Table>>,
    /// SASL mechanism the client chose.
    pub mechanism: Option<String>,
    /// The user, where the recording kept the name.
    pub user: Option<String>,
    /// The virtual host asked for.
    pub vhost: Option<String>,
    /// What the server proposed.
    pub proposed: Option<Tuning>,
    /// What was agreed.
    pub negotiated: Option<Tuning>,
    /// Whether the server answered `connection.open-ok`.
    pub is_open: bool,
    /// Why the server takes no messages, while it does not.
    pub blocked: Option<String>,
    /// How it was closed.
    pub closed: Option<Closed>,
    /// Channels that are open.
    pub channels: BTreeSet<u16>,
}

impl Facts {
    /// The server's product, `RabbitMQ`.
    pub fn product(&self) -> Option<&str> {
        self.server_properties.as_ref()?.text("product")
    }

    /// The server's version, `3.10.8`.
    pub fn version(&self) -> Option<&str> {
        self.server_properties.as_ref()?.text("version")
    }
}

impl Side {
    /// Who spoke, when a process `accepted` the connection (or connected itself) and bytes went this way.
    pub const fn speaking(direction: Direction, accepted: bool) -> Self {
        match (direction, accepted) {
            (Direction::Sent, false) | (Direction::Received, true) => Self::Client,
            (Direction::Sent, true) | (Direction::Received, false) => Self::Server,
        }
    }
}

/// Both directions of one connection.
#[derive(Clone, Debug, Default)]
pub struct Conversation {
    client: Decoder,
    server: Decoder,
    fold: Fold,
}

impl Conversation {
    /// A connection of which nothing was seen yet. Of each message body at most `body_limit` bytes are kept.
    pub fn new(body_limit: usize) -> Self {
        Self { fold: Fold { body_limit, ..Fold::default() }, ..Self::default() }
    }

    /// What is known by now.
    pub fn facts(&self) -> &Facts {
        &self.fold.facts
    }

    /// Keeps what is known once with what is known of others.
    pub fn share(&mut self, tables: &mut SharedTables) {
        let Facts { server_properties, client_properties, .. } = &mut self.fold.facts;
        for table in [server_properties, client_properties].into_iter().flatten() {
            tables.share(table);
        }
    }

    /// What a side has turned out to speak.
    pub fn spoke(&self, side: Side) -> Spoke {
        let (decoder, spoke) = match side {
            Side::Client => (&self.client, self.fold.client_spoke),
            Side::Server => (&self.server, self.fold.server_spoke),
        };
        spoke.unwrap_or(if decoder.offset() == 0 { Spoke::Silence } else { Spoke::Unrecognised })
    }

    /// Takes one recorded chunk of one side's stream, as [`Decoder::feed`] does, and appends what was said to `out`.
    pub fn feed(&mut self, side: Side, offset: u64, captured: &[u8], len: u64, out: &mut Vec<Item>) {
        let Self { client, server, fold } = self;
        let decoder = match side {
            Side::Client => &mut *client,
            Side::Server => &mut *server,
        };
        decoder.feed(offset, captured, len, &mut |frame| fold.take(side, frame, out));
        if let Some(negotiated) = fold.facts.negotiated {
            client.set_frame_max(negotiated.frame_max_bytes);
            server.set_frame_max(negotiated.frame_max_bytes);
        }
    }

    /// Ends both streams: what is still undecided or incomplete is told as it is.
    pub fn finish(&mut self, out: &mut Vec<Item>) {
        let Self { client, server, fold } = self;
        client.finish(&mut |frame| fold.take(Side::Client, frame, out));
        server.finish(&mut |frame| fold.take(Side::Server, frame, out));
        for side in [Side::Client, Side::Server] {
            fold.flush_side(side, out);
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Fold {
    facts: Facts,
    body_limit: usize,
    client_spoke: Option<Spoke>,
    server_spoke: Option<Spoke>,
    pending: BTreeMap<(Side, u16), Pending>,
    held_bytes: usize,
    /// Channels in confirm mode: the next publish's number, while no publish can have been missed.
    confirming: BTreeMap<u16, Option<u64>>,
    /// Which queue a consumer tag consumes.
    consumers: BTreeMap<(u16, String), String>,
    /// Queues of `basic.consume` that left the tag to the server, which answers in order.
    unnamed: BTreeMap<u16, Vec<String>>,
}

impl Fold {
    fn take(&mut self, side: Side, frame: Frame<'_>, out: &mut Vec<Item>) {
        let Frame { start, end, content } = frame;
        let mut say = |channel, what| out.push(Item { side, channel, start, end, what });
        let spoke = match side {
            Side::Client => &mut self.client_spoke,
            Side::Server => &mut self.server_spoke,
        };
        match &content {
            Content::Unseen => {}
            Content::ProtocolHeader { version } if side == Side::Server || *version != [0, 0, 9, 1] => {
                *spoke = Some(Spoke::ProtocolHeader(*version));
            }
            Content::NotAmqp(foreign) => *spoke = Some(Spoke::Foreign(*foreign)),
            _ => *spoke = Some(Spoke::Amqp),
        }
        match content {
            Content::ProtocolHeader { version } => say(0, What::ProtocolHeader(version)),
            Content::NotAmqp(foreign) => say(0, What::NotAmqp(foreign)),
            Content::Heartbeat => say(0, What::Heartbeat),
            Content::UnknownMethod { channel, class_id, method_id } => {
                self.flush(side, channel, out);
                out.push(Item { side, channel, start, end, what: What::UnknownMethod(class_id, method_id) });
            }
            Content::Malformed { channel, frame_type } => {
                // A header that cannot be read leaves its message open: the body still passes.
                if frame_type == 1 {
                    self.flush(side, channel, out);
                }
                out.push(Item { side, channel, start, end, what: What::Malformed(frame_type) });
            }
            Content::Unseen => {
                self.flush_side(side, out);
                if side == Side::Client {
                    self.confirming.values_mut().for_each(|next| *next = None);
                }
                out.push(Item { side, channel: 0, start, end, what: What::Unseen });
            }
            Content::Method { channel, method } => {
                self.flush(side, channel, out);
                self.method(side, channel, (start, end), &method, out);
            }
            Content::Header { channel, body_size, properties } => {
                if self.pending.get(&(side, channel)).is_some_and(Pending::has_header) {
                    self.flush(side, channel, out);
                }
                let pending = self.pending(side, channel, start, end);
                pending.header(end, Properties::from(&properties), body_size);
                self.flush_done(side, channel, out);
            }
            Content::Body { channel, bytes, missing, .. } => {
                let room = MOST_HELD_BYTES.saturating_sub(self.held_bytes);
                let limit = self.body_limit;
                let pending = self.pending(side, channel, start, end);
                let room = room.min(limit.saturating_sub(pending.kept()));
                self.held_bytes += pending.body(end, bytes, missing, room);
                self.flush_done(side, channel, out);
            }
        }
    }

    /// The message that a content frame on this channel belongs to.
    fn pending(&mut self, side: Side, channel: u16, start: u64, end: u64) -> &mut Pending {
        self.pending.entry((side, channel)).or_insert_with(|| Pending::new(start, end, Carriage::Unseen))
    }

    fn method(
        &mut self,
        side: Side,
        channel: u16,
        (start, end): (u64, u64),
        class: &AMQPClass,
        out: &mut Vec<Item>,
    ) {
        if let Some(mut carriage) = Carriage::from_amqp(class) {
            match &mut carriage {
                Carriage::Publish { sequence, .. } => {
                    if let Some(Some(next)) = self.confirming.get_mut(&channel) {
                        *sequence = Some(*next);
                        *next += 1;
                    }
                }
                Carriage::Deliver { consumer_tag, queue, .. } => {
                    *queue = self.consumers.get(&(channel, consumer_tag.clone())).cloned();
                }
                _ => {}
            }
            self.pending.insert((side, channel), Pending::new(start, end, carriage));
        } else if let Some(method) = Method::from_amqp(side, class) {
            self.learn(side, channel, &method);
            out.push(Item { side, channel, start, end, what: What::Method(method) });
        }
    }

    fn learn(&mut self, side: Side, channel: u16, method: &Method) {
        let facts = &mut self.facts;
        match method {
            Method::Start { properties, .. } => {
                facts.server_properties = Some(Arc::new(properties.clone()));
            }
            Method::StartOk { properties, mechanism, user, .. } => {
                facts.client_properties = Some(Arc::new(properties.clone()));
                facts.mechanism = Some(mechanism.clone());
                facts.user.clone_from(user);
            }
            Method::Tune(tuning) => facts.proposed = Some(*tuning),
            Method::TuneOk(tuning) => facts.negotiated = Some(*tuning),
            Method::Open { vhost } => facts.vhost = Some(vhost.clone()),
            Method::OpenOk => facts.is_open = true,
            Method::Blocked { reason } => facts.blocked = Some(reason.clone()),
            Method::Unblocked => facts.blocked = None,
            Method::Close { code, text, cause } => {
                // The first counts: an answer to it changes nothing.
                facts.closed.get_or_insert_with(|| Closed {
                    side,
                    code: *code,
                    text: text.clone(),
                    cause: cause.clone(),
                });
            }
            Method::ChannelClose { .. } => {
                facts.channels.remove(&channel);
                self.confirming.remove(&channel);
                self.consumers.retain(|(of, _), _| *of != channel);
                self.unnamed.remove(&channel);
            }
            Method::ChannelOpen => {
                facts.channels.insert(channel);
                self.confirming.remove(&channel);
            }
            Method::ConfirmSelect => {
                self.confirming.entry(channel).or_insert(Some(1));
            }
            Method::Consume { queue, consumer_tag, .. } if consumer_tag.is_empty() => {
                let unnamed = self.unnamed.entry(channel).or_default();
                if unnamed.len() < MOST_CONSUMERS {
                    unnamed.push(queue.clone());
                }
            }
            Method::Consume { queue, consumer_tag, .. } if self.consumers.len() < MOST_CONSUMERS => {
                self.consumers.insert((channel, consumer_tag.clone()), queue.clone());
            }
            Method::ConsumeOk { consumer_tag } => {
                let key = (channel, consumer_tag.clone());
                if !self.consumers.contains_key(&key)
                    && let Some(unnamed) =
                        self.unnamed.get_mut(&channel).filter(|unnamed| !unnamed.is_empty())
                {
                    self.consumers.insert(key, unnamed.remove(0));
                }
            }
            Method::CancelOk { consumer_tag } => {
                self.consumers.remove(&(channel, consumer_tag.clone()));
            }
            Method::Cancel { consumer_tag } if side == Side::Server => {
                self.consumers.remove(&(channel, consumer_tag.clone()));
            }
            _ => {}
        }
    }

    fn flush_done(&mut self, side: Side, channel: u16, out: &mut Vec<Item>) {
        if self.pending.get(&(side, channel)).is_some_and(Pending::is_done) {
            self.flush(side, channel, out);
        }
    }

    /// Tells the message of this channel as far as it came.
    fn flush(&mut self, side: Side, channel: u16, out: &mut Vec<Item>) {
        if let Some(pending) = self.pending.remove(&(side, channel)) {
            self.held_bytes -= pending.kept();
            let (start, end) = (pending.start, pending.end);
            let what = What::Message(Box::new(pending.into_message()));
            out.push(Item { side, channel, start, end, what });
        }
    }

    fn flush_side(&mut self, side: Side, out: &mut Vec<Item>) {
        let channels: Vec<u16> =
            self.pending.range((side, 0)..=(side, u16::MAX)).map(|((_, channel), _)| *channel).collect();
        for channel in channels {
            self.flush(side, channel, out);
        }
    }
}

#[cfg(test)]
mod tests;
