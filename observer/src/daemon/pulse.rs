//! Whether a worker consumes and makes progress, told from its AMQP conversations as they pass. It looks at events before secrets are
//! removed, and keeps counts and times only. What is wrong is for `diagnose` to say.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    ops::ControlFlow,
    path::Path,
};

use crate::{
    amqp::{
        conversation::{Conversation, Item, What},
        message::Carriage,
        method::{Method, Side},
    },
    event::{Body, Direction, Event, SocketId},
    model::dramatiq::{QueueKind, queue_kind},
    session::{Filter, Session},
};

/// Connections looked at at one time.
const MOST_CONNECTIONS: usize = 256;

/// What is known of a process tree's progress.
#[derive(Default)]
pub(super) struct Pulse {
    conversations: HashMap<SocketId, Link>,
    items: Vec<Item>,
    consumes: bool,
    /// When something was last settled, or delivered to one that held nothing.
    progress_ns: u64,
}

#[derive(Default)]
struct Link {
    conversation: Option<Conversation>,
    /// Delivered and not settled, as far as it was seen.
    held: u64,
    /// Of each channel, the tags not settled: `multiple` settles all up to one.
    tags: HashMap<u16, BTreeSet<u64>>,
    /// Consumers whose deliveries count as settled when they are sent.
    no_ack: HashSet<String>,
}

/// Tags remembered of one channel: a worker's prefetch is far below.
const MOST_TAGS: usize = 65_536;

impl Pulse {
    /// Looks at one event.
    pub(super) fn look(&mut self, event: &Event) {
        match &event.body {
            Body::Socket { socket, .. } | Body::Accept { socket, .. } | Body::Disconnect { socket, .. } => {
                self.conversations.remove(socket);
            }
            Body::Data { socket, direction, offset, len, errno: 0, .. } if *len > 0 => {
                if self.conversations.len() >= MOST_CONNECTIONS && !self.conversations.contains_key(socket) {
                    return;
                }
                let side = match direction {
                    Direction::Sent => Side::Client,
                    Direction::Received => Side::Server,
                };
                let link = self.conversations.entry(*socket).or_default();
                let conversation = link.conversation.get_or_insert_with(|| Conversation::new(0));
                conversation.feed(side, *offset, &event.bytes, *len, &mut self.items);
                for item in self.items.drain(..) {
                    link.take(&item, event.at_ns, &mut self.consumes, &mut self.progress_ns);
                }
            }
            _ => {}
        }
    }

    /// Learns from what was recorded before whether there was a consumer; how far its conversations are then is not known.
    pub(super) fn recall(&mut self, session: &Path) {
        let mut before = Self::default();
        let data = Filter { kinds: vec!["data".into()], ..Filter::default() };
        let read = Session::open(session).and_then(|session| {
            session.events(&data, |_, event| {
                before.look(&event);
                if before.consumes { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
        });
        if let Err(error) = read {
            tracing::debug!(%error, "cannot tell whether there was a consumer");
        }
        self.consumes |= before.consumes;
    }

    /// Whether a consumer was ever confirmed by the broker.
    pub(super) const fn consumes(&self) -> bool {
        self.consumes
    }

    /// Since when messages are held and none was settled; `None` while nothing is held.
    pub(super) fn held_since_ns(&self) -> Option<u64> {
        self.conversations.values().any(|link| link.held > 0).then_some(self.progress_ns)
    }
}

impl Link {
    fn take(&mut self, item: &Item, at_ns: u64, consumes: &mut bool, progress_ns: &mut u64) {
        match &item.what {
            What::Method(Method::ConsumeOk { .. }) => *consumes = true,
            What::Method(Method::Consume { consumer_tag, no_ack: true, .. })
                if self.no_ack.len() < MOST_TAGS =>
            {
                self.no_ack.insert(consumer_tag.clone());
            }
            What::Message(message) => {
                if let Carriage::Deliver { delivery_tag, consumer_tag, queue, .. } = &message.carriage
                    && !self.no_ack.contains(consumer_tag)
                    // Held until their time has come.
                    && !queue.as_deref().is_some_and(|queue| queue_kind(queue) == QueueKind::Delayed)
                {
                    if self.held == 0 {
                        *progress_ns = at_ns;
                    }
                    let tags = self.tags.entry(item.channel).or_default();
                    if tags.len() < MOST_TAGS && tags.insert(*delivery_tag) {
                        self.held += 1;
                    }
                }
            }
            What::Method(
                Method::Ack { delivery_tag, multiple } | Method::Nack { delivery_tag, multiple, .. },
            ) => {
                self.settle(item.channel, *delivery_tag, *multiple);
                *progress_ns = at_ns;
            }
            What::Method(Method::Reject { delivery_tag, .. }) => {
                self.settle(item.channel, *delivery_tag, false);
                *progress_ns = at_ns;
            }
            // The broker takes back what a channel held.
            What::Method(Method::ChannelClose { .. }) => {
                let tags = self.tags.remove(&item.channel).unwrap_or_default();
                self.held = self.held.saturating_sub(tags.len() as u64);
            }
            What::Method(Method::Close { .. }) => {
                self.tags.clear();
                self.held = 0;
            }
            // What was settled in a part that was not seen may be held for ever otherwise.
            What::Unseen => {
                self.tags.clear();
                self.held = 0;
            }
            _ => {}
        }
    }

    fn settle(&mut self, channel: u16, tag: u64, multiple: bool) {
        let Some(tags) = self.tags.get_mut(&channel) else { return };
        let before = tags.len();
        if multiple {
            *tags = tags.split_off(&tag.saturating_add(1));
        } else {
            tags.remove(&tag);
        }
        self.held = self.held.saturating_sub((before - tags.len()) as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::wire::{self, Wire};

    fn pulse(events: &[Event]) -> Pulse {
        let mut pulse = Pulse::default();
        events.iter().for_each(|event| pulse.look(event));
        pulse
    }

    #[test]
    fn a_worker_that_settles_what_it_gets_holds_nothing() {
        let mut events = Vec::new();
        let mut wire = Wire::connect(&mut events, 1_000, 7, 10, 10);
        wire.open(&mut events, 2_000);
        assert!(!pulse(&events).consumes());
        wire.consume(&mut events, 3_000, "default", 2);
        let body = wire::body("default", "m1", "");
        for tag in 1..=3 {
            wire.received(&mut events, 4_000 + tag, &wire::deliver(tag, "default", false, &body));
        }
        let before = pulse(&events);
        assert!(before.consumes());
        let since = before.held_since_ns().unwrap();
        wire.sent(&mut events, 5_000, &wire::ack(2, true));
        assert!(pulse(&events).held_since_ns().unwrap() > since, "one is held still, and there was progress");
        wire.sent(&mut events, 6_000, &wire::nack(3, false));
        assert_eq!(pulse(&events).held_since_ns(), None);
    }

    #[test]
    fn what_waits_for_its_time_is_not_held() {
        let mut events = Vec::new();
        let mut wire = Wire::connect(&mut events, 1_000, 7, 10, 10);
        wire.open(&mut events, 2_000);
        wire.consume(&mut events, 3_000, "default.DQ", 2);
        let body = wire::body("default.DQ", "m1", "");
        wire.received(&mut events, 4_000, &wire::deliver(1, "default.DQ", false, &body));
        assert_eq!(pulse(&events).held_since_ns(), None);
    }
}
