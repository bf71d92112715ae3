//! The lives of messages, put together as AMQP tells of them: by connection, channel and delivery tag, and by the identifier that a
//! message carries. Knows AMQP; what a body says of its message it is told by whoever made it.
//!
//! A message with an identifier has one life from its first publish to its last settlement, over every queue and process it passes
//! through. One without is known by its delivery alone: its publish and each delivery are lives of their own.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::{
    amqp::{LinkId, Mark},
    held::{Held, MAX_HELD, Unsettled},
    message::{Confirmed, Identify, Identity, Life, Passage, Place, Settled, Settlement, Totals},
    outcomes::Outcomes,
    queue::Queues,
    waiting::Waiting,
};
use crate::amqp::message::{Carriage, Message};

/// Lives not over yet; beyond so many the oldest is handed out as it is. Half a kilobyte each.
const MAX_OPEN: usize = 100_000;
/// A life that is over is kept for so long: a send may return, and so be told, after the delivery and the settlement it caused.
const REST_NS: u64 = 1_000_000_000;
/// A publish may be told so much later than the delivery it caused.
const LATE_PUBLISH_NS: u64 = 250_000_000;

/// A delivery.
#[derive(Clone, Debug)]
pub(super) struct Delivered {
    pub(super) queue: Option<String>,
    pub(super) delivery_tag: u64,
    pub(super) redelivered: bool,
    pub(super) no_ack: bool,
}

type At = (LinkId, u16);

/// The messages under way.
#[derive(Clone, Debug)]
pub struct Lives {
    identify: Identify,
    open: BTreeMap<u64, Life>,
    by_id: HashMap<String, u64>,
    unsettled: BTreeMap<At, Waiting>,
    unconfirmed: BTreeMap<At, Waiting>,
    /// Lives that are over, and since when.
    resting: VecDeque<(u64, u64)>,
    now_ns: u64,
    next: u64,
    wanted: bool,
    done: Vec<Life>,
    /// Sums.
    pub totals: Totals,
    /// What became of those that are over.
    pub outcomes: Outcomes,
}

impl Lives {
    /// No messages yet. `wanted`: lives that are over are kept for [`Lives::take_done`], which is then to be called after every event;
    /// else they are dropped.
    pub fn new(identify: Identify, wanted: bool) -> Self {
        Self {
            identify,
            open: BTreeMap::new(),
            by_id: HashMap::new(),
            unsettled: BTreeMap::new(),
            unconfirmed: BTreeMap::new(),
            resting: VecDeque::new(),
            now_ns: 0,
            next: 0,
            wanted,
            done: Vec::new(),
            totals: Totals::default(),
            outcomes: Outcomes::default(),
        }
    }

    /// The life of the message with this identifier, while it is on the heap.
    pub fn find(&self, message_id: &str) -> Option<&Life> {
        self.open.get(self.by_id.get(message_id)?)
    }

    /// What is delivered and not settled on these connections.
    pub(super) fn held_on(&self, links: impl Iterator<Item = LinkId>) -> Held {
        let mut held = Held::default();
        for link in links {
            for waiting in self.unsettled.range((link, 0)..=(link, u16::MAX)).map(|(_, waiting)| waiting) {
                let sure = || waiting.places.values().filter(|place| !self.is_doubtful(place));
                held.count += sure().count() as u64;
                let messages = sure().filter_map(|place| {
                    let life = self.open.get(&place.life)?;
                    let passage = life.at(*place)?;
                    let (message_id, actor) = (life.message_id.clone(), life.actor.clone());
                    let queue = passage.queue.clone();
                    Some(Unsettled { message_id, actor, queue, delivered: passage.delivered? })
                });
                held.oldest.extend(messages.take(MAX_HELD));
            }
        }
        held.oldest.sort_by_key(|message| (message.delivered.at_ns, message.delivered.event));
        held.oldest.truncate(MAX_HELD);
        held
    }

    /// The lives that are over, or were handed out early, since the last call; in the order they ended.
    pub fn take_done(&mut self) -> std::vec::Drain<'_, Life> {
        self.done.drain(..)
    }

    /// How many lives are on the heap.
    pub fn held(&self) -> usize {
        self.open.len() + self.done.len()
    }

    /// Time passes: lives that have been over long enough leave.
    pub(super) fn pass(&mut self, at_ns: u64) {
        self.now_ns = self.now_ns.max(at_ns);
        while let Some((over_ns, number)) = self.resting.front().copied()
            && over_ns + REST_NS <= self.now_ns
        {
            self.resting.pop_front();
            if self.open.get(&number).is_some_and(|life| life.over_at_ns == Some(over_ns)) {
                self.hand_out(number);
            }
        }
    }

    /// The end: every life leaves, as it is.
    pub(super) fn finish(&mut self) {
        self.resting.clear();
        let all: Vec<u64> = self.open.keys().copied().collect();
        all.into_iter().for_each(|number| self.hand_out(number));
    }

    pub(super) fn published(&mut self, at: At, vhost: Option<String>, message: &Message, mark: Mark) {
        let Carriage::Publish { exchange, routing_key: key, sequence, .. } = &message.carriage else {
            return;
        };
        let (exchange, sequence) = (exchange.as_str(), *sequence);
        self.totals.published += 1;
        let identity = (self.identify)(message);
        let queue = exchange.is_empty().then(|| key.clone());
        let number = self.life(&identity, vhost);
        let Some(life) = self.open.get_mut(&number) else { return };
        let awaits_confirm = sequence.is_some();
        // Told after the delivery it caused: the receiver's read can return before the sender's write.
        let last = life.left_out + life.passages.len() as u64;
        let late = life.passages.back_mut().filter(|last| {
            last.published.is_none()
                && !last.redelivered
                && (last.queue == queue || queue.is_none())
                && last
                    .delivered
                    .is_some_and(|delivered| mark.at_ns - delivered.at_ns.min(mark.at_ns) < LATE_PUBLISH_NS)
        });
        let route = (!exchange.is_empty()).then(|| (exchange.to_owned(), key.clone()));
        let place = if let Some(passage) = late {
            passage.published = Some(mark);
            passage.awaits_confirm = awaits_confirm;
            passage.route = route;
            Place { life: number, passage: last - 1 }
        } else {
            life.push(Passage {
                queue,
                route,
                published: Some(mark),
                awaits_confirm,
                retries: identity.retries,
                eta_ms: identity.eta_ms,
                failure: identity.failure,
                ..Passage::default()
            })
        };
        if let Some(sequence) = sequence
            && let Some(forgotten) = self.unconfirmed.entry(at).or_default().insert(sequence, place)
        {
            self.confirm_one(forgotten, None);
        }
        self.look(number);
    }

    pub(super) fn delivered(
        &mut self,
        at: At,
        vhost: Option<String>,
        delivered: Delivered,
        message: &Message,
        mark: Mark,
        queues: &mut Queues,
    ) {
        self.totals.delivered += 1;
        self.outcomes.pace(mark, false);
        self.totals.redelivered += u64::from(delivered.redelivered);
        let identity = (self.identify)(message);
        if let Some(queue) = &delivered.queue {
            queues.delivered(vhost.as_deref(), queue, mark.pid, delivered.redelivered);
        }
        let number = self.life(&identity, vhost);
        let Some(life) = self.open.get_mut(&number) else { return };
        let same = |passage: &Passage| passage.queue.is_none() || passage.queue == delivered.queue;
        let waiting = life
            .passages
            .iter()
            .position(|passage| same(passage) && passage.delivered.is_none() && passage.published.is_some());
        let place = match waiting {
            Some(index) => Place { life: number, passage: life.left_out + index as u64 },
            None => {
                let again = life.passages.iter_mut().rev().find(|passage| {
                    same(passage)
                        && !passage.resumed
                        && passage.settled.is_some_and(|settlement| settlement.how.comes_again())
                });
                if let Some(passage) = again {
                    passage.resumed = true;
                }
                life.push(Passage {
                    retries: identity.retries,
                    eta_ms: identity.eta_ms,
                    failure: identity.failure,
                    ..Passage::default()
                })
            }
        };
        if let Some(passage) = life.passage(place) {
            passage.queue = delivered.queue;
            passage.delivered = Some(mark);
            passage.redelivered = delivered.redelivered;
        }
        if delivered.no_ack {
            self.settle_one(place, Settled::Automatic, mark, queues);
        } else {
            let forgotten = self.unsettled.entry(at).or_default().insert(delivered.delivery_tag, place);
            self.totals.untracked += u64::from(forgotten.is_some());
        }
        self.look(number);
    }

    pub(super) fn settle(
        &mut self,
        at: At,
        tag: u64,
        multiple: bool,
        how: Settled,
        mark: Mark,
        queues: &mut Queues,
    ) {
        let waiting = self.unsettled.entry(at).or_default();
        let settled = waiting.take(tag, multiple);
        if settled.is_empty() && !multiple && tag > waiting.forgotten_to {
            self.totals.unknown_tags += 1;
        }
        for place in settled {
            self.settle_one(place, how, mark, queues);
        }
    }

    /// A channel is gone, or gives back what it holds: the broker puts it back.
    pub(super) fn channel_over(&mut self, at: At, mark: Mark, queues: &mut Queues) {
        self.unconfirmed_over(at);
        for place in self.unsettled.remove(&at).unwrap_or_default().places.into_values() {
            self.settle_one(place, Settled::Returned, mark, queues);
        }
    }

    /// A connection ended. Gives back how many deliveries on it were not settled.
    pub(super) fn connection_over(&mut self, link: LinkId, mark: Mark, queues: &mut Queues) -> u64 {
        let of = |channel| (link, channel);
        let mut channels: Vec<At> = self.unsettled.range(of(0)..=of(u16::MAX)).map(|(at, _)| *at).collect();
        channels.extend(self.unconfirmed.range(of(0)..=of(u16::MAX)).map(|(at, _)| *at));
        let mut outstanding = 0;
        for at in channels {
            let places = self.unsettled.get(&at).into_iter().flat_map(|waiting| waiting.places.values());
            outstanding += places.filter(|place| !self.is_doubtful(place)).count() as u64;
            self.channel_over(at, mark, queues);
        }
        outstanding
    }

    /// The broker's word on a publish.
    pub(super) fn confirm(&mut self, at: At, sequence: u64, multiple: bool, taken: bool) {
        let places = self.unconfirmed.get_mut(&at).map(|waiting| waiting.take(sequence, multiple));
        for place in places.unwrap_or_default() {
            self.confirm_one(place, Some(if taken { Confirmed::Taken } else { Confirmed::Refused }));
        }
    }

    /// A message came back that no queue wanted.
    pub(super) fn returned(&mut self, message: &Message, code: u16, text: &str) {
        let Some(id) = (self.identify)(message).message_id else { return };
        let Some(number) = self.by_id.get(&id).copied() else { return };
        if let Some(life) = self.open.get_mut(&number)
            && let Some(passage) = life.passages.iter_mut().rev().find(|passage| passage.delivered.is_none())
        {
            passage.confirmed = Some(Confirmed::Unroutable { code, text: text.to_owned() });
        }
        self.look(number);
    }

    /// A part of what the client said was not seen: which confirm belongs to which publish is no longer known.
    pub(super) fn missed(&mut self, link: LinkId) {
        let of = |channel| (link, channel);
        let channels: Vec<At> = self.unconfirmed.range(of(0)..=of(u16::MAX)).map(|(at, _)| *at).collect();
        channels.into_iter().for_each(|at| self.unconfirmed_over(at));
    }

    /// Here something is not known of every connection: whether what was delivered before was settled meanwhile cannot be told, unless its
    /// settlement is still to come; and how long the pause was means nothing.
    pub(super) fn doubt(&mut self) {
        for at in self.unconfirmed.keys().copied().collect::<Vec<_>>() {
            self.unconfirmed_over(at);
        }
        self.outcomes.pause();
        for place in self.unsettled.values().flat_map(|waiting| waiting.places.values()) {
            let passage = self.open.get_mut(&place.life).and_then(|life| life.passage(*place));
            if let Some(passage) = passage.filter(|passage| !passage.doubtful) {
                self.totals.untracked += 1;
                passage.doubtful = true;
            }
        }
    }

    fn is_doubtful(&self, place: &Place) -> bool {
        self.open.get(&place.life).and_then(|life| life.at(*place)).is_some_and(|passage| passage.doubtful)
    }

    fn unconfirmed_over(&mut self, at: At) {
        for place in self.unconfirmed.remove(&at).unwrap_or_default().places.into_values() {
            self.confirm_one(place, None);
        }
    }

    fn confirm_one(&mut self, place: Place, confirmed: Option<Confirmed>) {
        if let Some(passage) = self.open.get_mut(&place.life).and_then(|life| life.passage(place)) {
            passage.awaits_confirm = false;
            // An unroutable message is confirmed too, after its return.
            if passage.confirmed.is_none() {
                passage.confirmed = confirmed;
            }
        }
        self.look(place.life);
    }

    fn settle_one(&mut self, place: Place, how: Settled, mark: Mark, queues: &mut Queues) {
        if matches!(how, Settled::Acked | Settled::Nacked | Settled::Rejected) {
            self.outcomes.pace(mark, true);
        }
        match how {
            Settled::Acked => self.totals.acked += 1,
            Settled::Nacked | Settled::Rejected => self.totals.refused += 1,
            Settled::Requeued | Settled::Returned => self.totals.returned += 1,
            Settled::Automatic => {}
        }
        if let Some(life) = self.open.get_mut(&place.life) {
            if let Some(passage) = life.passage(place) {
                passage.settled = Some(Settlement { how, mark });
                let passage = passage.clone();
                queues.settled(life, &passage, how);
            }
            self.look(place.life);
        }
    }

    /// The life of a message: the one its identifier has, or a new one.
    fn life(&mut self, identity: &Identity, vhost: Option<String>) -> u64 {
        if let Some(id) = &identity.message_id
            && let Some(number) = self.by_id.get(id)
        {
            if let Some(life) = self.open.get_mut(number) {
                // The marker of one that was cut off may be in the rest.
                life.is_canary |= identity.is_canary;
            }
            return *number;
        }
        if self.open.len() >= MAX_OPEN
            && let Some(oldest) = self.open.keys().next().copied()
        {
            self.totals.cut_short +=
                u64::from(self.open.get(&oldest).is_some_and(|life| life.over_at_ns.is_none()));
            self.hand_out(oldest);
        }
        self.next += 1;
        self.totals.messages += 1;
        if let Some(id) = &identity.message_id {
            self.by_id.insert(id.clone(), self.next);
        }
        let life = Life {
            number: self.next,
            message_id: identity.message_id.clone(),
            actor: identity.actor.clone(),
            is_canary: identity.is_canary,
            vhost,
            made_ms: identity.made_ms,
            max_age_ms: identity.max_age_ms,
            time_limit_ms: identity.time_limit_ms,
            passages: VecDeque::new(),
            left_out: 0,
            over_at_ns: None,
        };
        self.open.insert(self.next, life);
        self.next
    }

    /// Looks whether a life is over, or begun again.
    fn look(&mut self, number: u64) {
        let Some(life) = self.open.get_mut(&number) else { return };
        let over = (!life.is_open()).then_some(self.now_ns);
        if life.over_at_ns.is_some() != over.is_some() {
            life.over_at_ns = over;
            if let Some(over_ns) = over {
                self.resting.push_back((over_ns, number));
            }
        }
    }

    fn hand_out(&mut self, number: u64) {
        let Some(life) = self.open.remove(&number) else { return };
        if let Some(id) = &life.message_id {
            self.by_id.remove(id);
        }
        self.outcomes.add(&life);
        if self.wanted {
            self.done.push(life);
        }
    }
}
