//! One message: its ways through queues, from publish to settlement. Knows AMQP's words for what happens to a message; how it is put
//! together, and what a body says, is others' business.
//!
//! Arguments are never part of it.

use std::collections::VecDeque;

use serde::Serialize;

use super::amqp::Mark;
use crate::amqp::message::Message;

/// Passages kept of one life, the latest.
const MAX_PASSAGES: usize = 64;

/// What a message says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Its identifier, the same wherever it passes.
    pub message_id: Option<String>,
    /// What is to be run.
    pub actor: Option<String>,
    /// Whether it was sent to see what becomes of it.
    pub is_canary: bool,
    /// How often it was retried.
    pub retries: Option<u64>,
    /// When it is due, in milliseconds since 1970.
    pub eta_ms: Option<u64>,
    /// The type of the exception that made it a retry.
    pub failure: Option<String>,
    /// When it was made, in milliseconds since 1970, by the sender's clock.
    pub made_ms: Option<u64>,
    /// How old it may get, in milliseconds.
    pub max_age_ms: Option<u64>,
    /// How long it may run, in milliseconds.
    pub time_limit_ms: Option<u64>,
}

/// Reads what a message says of itself.
pub type Identify = fn(&Message) -> Identity;

/// How a delivery was settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Settled {
    /// `basic.ack`.
    Acked,
    /// `basic.nack` without requeue: dropped, or dead-lettered when the queue says where to.
    Nacked,
    /// `basic.reject` without requeue: the same.
    Rejected,
    /// `basic.nack` or `basic.reject` with requeue: to be delivered again.
    Requeued,
    /// By the broker alone: the channel or connection ended, and the message goes back to its queue.
    Returned,
    /// By being delivered, to a consumer without acknowledgements.
    Automatic,
}

impl Settled {
    /// Its public name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Acked => "acked",
            Self::Nacked => "nacked",
            Self::Rejected => "rejected",
            Self::Requeued => "requeued",
            Self::Returned => "returned",
            Self::Automatic => "automatic",
        }
    }

    /// Whether the broker will deliver it again.
    pub const fn comes_again(self) -> bool {
        matches!(self, Self::Requeued | Self::Returned)
    }
}

/// What the broker said to a publish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Confirmed {
    /// It has it.
    Taken,
    /// It lost it.
    Refused,
    /// No queue for it: `basic.return`.
    Unroutable {
        /// Reply code.
        code: u16,
        /// Reply text.
        text: String,
    },
}

/// A settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Settlement {
    /// How.
    pub how: Settled,
    /// When, by whom.
    #[serde(flatten)]
    pub mark: Mark,
}

/// One way of a message through a queue.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Passage {
    /// The queue; `None` for a publish to another exchange than the default one that was not seen delivered.
    pub queue: Option<String>,
    /// The exchange it was published to, when not the default one, and the routing key.
    pub route: Option<(String, String)>,
    /// The publish; `None` when it was not ours, or before the recording.
    pub published: Option<Mark>,
    /// The broker's word on the publish, on a channel in confirm mode.
    pub confirmed: Option<Confirmed>,
    /// Whether that is still to come.
    pub awaits_confirm: bool,
    /// The retry it is, of an actor's retries.
    pub retries: Option<u64>,
    /// When it is due, in milliseconds since 1970.
    pub eta_ms: Option<u64>,
    /// The type of the exception that made it a retry.
    pub failure: Option<String>,
    /// The delivery.
    pub delivered: Option<Mark>,
    /// Whether the broker had delivered it before.
    pub redelivered: bool,
    /// How that delivery was settled.
    pub settled: Option<Settlement>,
    /// It was delivered before a time of which nothing is known: that no settlement was seen says nothing.
    #[serde(skip)]
    pub(super) doubtful: bool,
    /// A later passage is the redelivery of this one.
    #[serde(skip)]
    pub(super) resumed: bool,
}

impl Passage {
    /// Whether something of it is still to come.
    pub fn is_open(&self) -> bool {
        match (&self.settled, &self.delivered) {
            (Some(settlement), _) => settlement.how.comes_again() && !self.resumed,
            (None, Some(_)) => true,
            (None, None) => {
                self.awaits_confirm
                    || !matches!(self.confirmed, Some(Confirmed::Refused | Confirmed::Unroutable { .. }))
            }
        }
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Life {
    /// Its number in the session, from 1, in the order of first appearance.
    pub number: u64,
    /// Its identifier.
    pub message_id: Option<String>,
    /// What is to be run.
    pub actor: Option<String>,
    /// Whether it was sent to see what becomes of it.
    pub is_canary: bool,
    /// The virtual host, where known.
    pub vhost: Option<String>,
    /// When it was made, in milliseconds since 1970, by the sender's clock.
    pub made_ms: Option<u64>,
    /// How old it may get, in milliseconds, where the message says so.
    #[serde(skip)]
    pub(super) max_age_ms: Option<u64>,
    /// How long it may run, in milliseconds, where the message says so.
    #[serde(skip)]
    pub(super) time_limit_ms: Option<u64>,
    /// Its ways through queues, in order.
    pub passages: VecDeque<Passage>,
    /// Earlier passages that are not kept because there were too many.
    pub left_out: u64,
    #[serde(skip)]
    pub(super) over_at_ns: Option<u64>,
}

impl Life {
    /// How it stands, by its last passage: `published`, `unroutable`, `refused`, `delivered`, or how that was settled.
    pub fn state(&self) -> &'static str {
        let Some(last) = self.passages.back() else { return "unknown" };
        match (&last.settled, &last.delivered, &last.confirmed) {
            (Some(settlement), _, _) => settlement.how.name(),
            (None, Some(_), _) => "delivered",
            (None, None, Some(Confirmed::Unroutable { .. })) => "unroutable",
            (None, None, Some(Confirmed::Refused)) => "refused",
            (None, None, _) => "published",
        }
    }

    /// The moment it was first heard of.
    pub fn first_ns(&self) -> Option<u64> {
        let first = self.passages.front()?;
        [first.published, first.delivered].into_iter().flatten().map(|mark| mark.at_ns).min()
    }

    /// Whether something of it is still to come.
    pub fn is_open(&self) -> bool {
        // Without an identifier nobody could join what comes later.
        if self.message_id.is_none() {
            return self.passages.iter().any(|passage| {
                passage.settled.is_none() && (passage.awaits_confirm || passage.delivered.is_some())
            });
        }
        self.passages.iter().any(Passage::is_open)
    }

    pub(super) fn passage(&mut self, at: Place) -> Option<&mut Passage> {
        self.passages.get_mut(usize::try_from(at.passage.checked_sub(self.left_out)?).ok()?)
    }

    pub(super) fn at(&self, at: Place) -> Option<&Passage> {
        self.passages.get(usize::try_from(at.passage.checked_sub(self.left_out)?).ok()?)
    }

    pub(super) fn push(&mut self, passage: Passage) -> Place {
        if self.passages.len() >= MAX_PASSAGES {
            self.passages.pop_front();
            self.left_out += 1;
        }
        self.passages.push_back(passage);
        Place { life: self.number, passage: self.left_out + self.passages.len() as u64 - 1 }
    }
}

/// Sums that stay when the lives are gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Lives begun.
    pub messages: u64,
    /// Publishes.
    pub published: u64,
    /// Deliveries, and those among them that were not the first.
    pub delivered: u64,
    /// Deliveries of a message that had been delivered before, by the broker's word.
    pub redelivered: u64,
    /// Deliveries acknowledged.
    pub acked: u64,
    /// Deliveries settled with nack or reject, without requeue.
    pub refused: u64,
    /// Deliveries given back, by us or because the channel ended.
    pub returned: u64,
    /// Settlements of a delivery that was not seen.
    pub unknown_tags: u64,
    /// Deliveries whose settlement cannot be told, because too many were unsettled on their channel, or because a part is missing in which
    /// they may have been settled.
    pub untracked: u64,
    /// Messages whose method was not seen.
    pub unidentified: u64,
    /// Lives handed out before they were over, because there were too many: what comes of them later begins another.
    pub cut_short: u64,
}

/// Which passage of which life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) life: u64,
    pub(super) passage: u64,
}
