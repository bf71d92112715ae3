//! One AMQP connection: its ends, its channels, and what is said on it. Knows one connection; nothing of what follows from what is said.

use std::collections::BTreeMap;

use serde::Serialize;

pub use super::mark::Mark;
use crate::{
    amqp::{
        conversation::{Conversation, Facts, Item, Spoke, What},
        method::{Method, Side},
    },
    event::{Address, Known, SocketId},
};

/// A connection's number in its session, from 1, in the order of the first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct LinkId(pub u64);

/// One thing said on a connection.
#[derive(Clone, Copy, Debug)]
pub struct Said<'a> {
    /// On which connection.
    pub link: &'a Link,
    /// The event that completed it: a read in the process it was said to, or its own write.
    pub mark: Mark,
    /// What, by which side.
    pub item: &'a Item,
}

impl Said<'_> {
    /// Its name: AMQP's, `basic.deliver`, where it has one.
    pub fn name(&self) -> String {
        match &self.item.what {
            What::Method(method) => first_word(&method.to_string()),
            What::Message(message) => first_word(&message.to_string()),
            What::ProtocolHeader(_) => "protocol-header".to_owned(),
            What::Heartbeat => "heartbeat".to_owned(),
            What::UnknownMethod(..) => "unknown-method".to_owned(),
            What::Malformed(_) => "malformed".to_owned(),
            What::NotAmqp(_) => "not-amqp".to_owned(),
            What::Unseen => "unseen".to_owned(),
        }
    }
}

fn first_word(text: &str) -> String {
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// One AMQP connection.
#[derive(Clone, Debug)]
pub struct Link {
    /// Its number.
    pub id: LinkId,
    /// Its socket.
    pub socket: SocketId,
    /// Whether the observed process accepted it, and so is the server.
    pub accepted: bool,
    /// Whether it was there before the recording.
    pub since_attach: bool,
    /// The other end.
    pub peer: Known<Address>,
    /// Our end.
    pub local: Known<Address>,
    /// Its first bytes.
    pub opened: Mark,
    /// When it ended.
    pub ended_at_ns: Option<u64>,
    /// Spans of the streams that were not seen.
    pub unseen: u64,
    /// Which events show how far it came.
    pub course: Course,
    /// Its channels, by number; closed ones are forgotten.
    pub(super) channels: BTreeMap<u16, Channel>,
    pub(super) conversation: Conversation,
}

/// How far a connection came, by the events that prove it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Course {
    /// The first bytes of the server.
    pub answered: Option<Mark>,
    /// The last bytes of the client.
    pub client_last: Option<Mark>,
    /// The last bytes of the server.
    pub server_last: Option<Mark>,
    /// The client's `connection.start-ok`, with its credential.
    pub start_ok: Option<Mark>,
    /// The server's `connection.open-ok`.
    pub open_ok: Option<Mark>,
    /// The client's own `connection.close`.
    pub client_closed: Option<Mark>,
    /// Deliveries that waited for their settlement when it ended.
    pub outstanding: u64,
}

impl Course {
    /// Bytes of one side went over.
    pub(super) fn went(&mut self, side: Side, mark: Mark) {
        match side {
            Side::Client => self.client_last = Some(mark),
            Side::Server => {
                self.answered.get_or_insert(mark);
                self.server_last = Some(mark);
            }
        }
    }

    /// A method was said.
    pub(super) fn said(&mut self, side: Side, mark: Mark, method: &Method) {
        let step = match (side, method) {
            (Side::Client, Method::StartOk { .. }) => &mut self.start_ok,
            (Side::Client, Method::Close { .. }) => &mut self.client_closed,
            (Side::Server, Method::OpenOk) => &mut self.open_ok,
            _ => return,
        };
        step.get_or_insert(mark);
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Channel {
    /// The prefetch that new consumers get.
    pub(super) prefetch: Option<u16>,
    /// Queues whose declare waits for its answer.
    pub(super) declaring: Vec<String>,
    /// Queues, and whether without acknowledgement, of gets that wait for their answer.
    pub(super) getting: Vec<(String, bool)>,
}

impl Link {
    /// What both sides told about themselves, what they agreed on, and how it was closed.
    pub fn facts(&self) -> &Facts {
        self.conversation.facts()
    }

    /// What a side has turned out to speak.
    pub fn spoke(&self, side: Side) -> Spoke {
        self.conversation.spoke(side)
    }

    /// The prefetch that holds for the next consumer of a channel; `None` when no `basic.qos` was seen.
    pub(super) fn prefetch(&self, channel: u16) -> Option<u16> {
        self.channels.get(&channel).and_then(|channel| channel.prefetch)
    }
}

impl Channel {
    /// The get that is answered now.
    pub(super) fn take_get(&mut self) -> Option<(String, bool)> {
        if self.getting.is_empty() { None } else { Some(self.getting.remove(0)) }
    }
}
