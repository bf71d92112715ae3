//! Consumers: which process and thread consumes which queue, with which prefetch, from when to when. Knows AMQP; nothing of messages.

use std::collections::HashMap;

use serde::Serialize;

use super::amqp::{LinkId, Mark};
use crate::amqp::method::{Method, Side};

/// Beyond this many consumers new ones are only counted.
const MAX_CONSUMERS: usize = 10_000;

/// One consumer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Consumer {
    /// On which connection.
    pub connection: LinkId,
    /// On which channel.
    pub channel: u16,
    /// Its tag; empty until the server has given one.
    pub tag: String,
    /// The virtual host, when its `connection.open` was seen.
    pub vhost: Option<String>,
    /// What it consumes.
    pub queue: String,
    /// How many messages it may hold unsettled, 0 for any number; `None` when no `basic.qos` was seen before it.
    pub prefetch: Option<u16>,
    /// Whether deliveries need no acknowledgement.
    pub no_ack: bool,
    /// Whether it asked to be the only one.
    pub exclusive: bool,
    /// When it asked, in which process and thread.
    pub asked: Mark,
    /// When the server said yes.
    pub confirmed: Option<Mark>,
    /// When and how it ended.
    pub ended: Option<Ended>,
    /// Messages delivered to it.
    pub deliveries: u64,
}

/// How a consumer ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ended {
    /// When.
    pub at_ns: u64,
    /// The event that proves it.
    pub event: u64,
    /// How.
    pub how: How,
}

/// What ended a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// The client cancelled it.
    Cancelled,
    /// The server did: its queue is gone (RabbitMQ's consumer cancel notification).
    CancelledByServer,
    /// Its channel was closed.
    ChannelClosed,
    /// Its connection ended.
    ConnectionEnded,
}

/// All consumers.
#[derive(Clone, Debug, Default)]
pub struct Consumers {
    all: Vec<Consumer>,
    current: HashMap<(LinkId, u16), Vec<usize>>,
    /// Consumers that were not kept because there were too many.
    pub left_out: u64,
}

impl Consumers {
    /// Every consumer, in the order they asked.
    pub fn iter(&self) -> impl Iterator<Item = &Consumer> {
        self.all.iter()
    }

    pub(super) fn consume(
        &mut self,
        at: (LinkId, u16),
        vhost: Option<String>,
        prefetch: Option<u16>,
        mark: Mark,
        method: &Method,
    ) {
        let Method::Consume { queue, consumer_tag, no_ack, exclusive, .. } = method else { return };
        if self.all.len() >= MAX_CONSUMERS {
            self.left_out += 1;
            return;
        }
        self.current.entry(at).or_default().push(self.all.len());
        self.all.push(Consumer {
            connection: at.0,
            channel: at.1,
            tag: consumer_tag.clone(),
            vhost,
            queue: queue.clone(),
            prefetch,
            no_ack: *no_ack,
            exclusive: *exclusive,
            asked: mark,
            confirmed: None,
            ended: None,
            deliveries: 0,
        });
    }

    pub(super) fn confirmed(&mut self, at: (LinkId, u16), tag: &str, mark: Mark) {
        // A client that leaves the tag to the server is told it here; the server answers in order.
        let index = self.find(at, tag).or_else(|| self.find(at, ""));
        if let Some(consumer) = index.and_then(|index| self.all.get_mut(index)) {
            tag.clone_into(&mut consumer.tag);
            consumer.confirmed.get_or_insert(mark);
        }
    }

    pub(super) fn cancelled(&mut self, at: (LinkId, u16), tag: &str, side: Side, mark: Mark) {
        let how = if side == Side::Server { How::CancelledByServer } else { How::Cancelled };
        if let Some(consumer) = self.find(at, tag).and_then(|index| self.all.get_mut(index)) {
            consumer.ended.get_or_insert(Ended { at_ns: mark.at_ns, event: mark.event, how });
        }
    }

    /// The consumer a message was delivered to.
    pub(super) fn delivered(&mut self, at: (LinkId, u16), tag: &str) -> Option<&Consumer> {
        let index = self.find(at, tag)?;
        let consumer = self.all.get_mut(index)?;
        consumer.deliveries += 1;
        Some(consumer)
    }

    pub(super) fn channel_over(&mut self, at: (LinkId, u16), mark: Mark) {
        let indices = self.current.remove(&at).unwrap_or_default();
        self.over(&indices, mark, How::ChannelClosed);
    }

    pub(super) fn connection_over(&mut self, link: LinkId, mark: Mark) {
        let gone: Vec<usize> =
            self.current.extract_if(|(of, _), _| *of == link).flat_map(|(_, indices)| indices).collect();
        self.over(&gone, mark, How::ConnectionEnded);
    }

    fn over(&mut self, indices: &[usize], mark: Mark, how: How) {
        for index in indices {
            if let Some(consumer) = self.all.get_mut(*index) {
                consumer.ended.get_or_insert(Ended { at_ns: mark.at_ns, event: mark.event, how });
            }
        }
    }

    fn find(&self, at: (LinkId, u16), tag: &str) -> Option<usize> {
        let indices = self.current.get(&at)?;
        indices.iter().copied().find(|index| self.all.get(*index).is_some_and(|known| known.tag == tag))
    }
}
