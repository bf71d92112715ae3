//! What became of messages, summed by process and by actor, with those that stand out: refused, tried again, held to the end. Knows lives
//! of messages; draws no conclusions. Its size is bounded, however many messages pass.

use std::collections::BTreeMap;

use super::{
    mark::Mark,
    message::{Life, Passage, Settled},
};
use crate::event::Pid;

/// Processes told apart.
const MAX_PROCESSES: usize = 10_000;
/// Refusals, retries and held messages kept each, the first.
const MAX_KEPT: usize = 2_000;
/// Actors told apart in one process.
const MAX_ACTORS: usize = 2_000;

/// Deliveries to one process, and how it settled them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Deliveries.
    pub delivered: u64,
    /// Acknowledged, or delivered where none is asked for.
    pub acked: u64,
    /// Refused without requeue.
    pub refused: u64,
    /// The first delivery.
    pub first_delivered: Option<Mark>,
    /// The first acknowledgement.
    pub first_acked: Option<Mark>,
    /// The last acknowledgement.
    pub last_acked: Option<Mark>,
    /// The last settlement by the process itself, of any kind.
    pub last_settled: Option<Mark>,
    /// The longest time between two settlements, or from the first delivery to the first one, in nanoseconds.
    pub longest_gap_ns: u64,
    paced_ns: Option<u64>,
    /// Acknowledged by actor.
    pub acked_by_actor: BTreeMap<String, u64>,
}

/// A message as far as it matters to its fate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// Its identifier.
    pub message_id: Option<String>,
    /// What was to be run; `None`: the body is no dramatiq message, or was not seen.
    pub actor: Option<String>,
    /// The virtual host.
    pub vhost: Option<String>,
    /// The queue it was delivered from.
    pub queue: Option<String>,
    /// Which retry it was.
    pub retries: Option<u64>,
    /// When it is due, in milliseconds since 1970.
    pub eta_ms: Option<u64>,
    /// When it was made, in milliseconds since 1970, by the sender's clock.
    pub made_ms: Option<u64>,
    /// How old it may get, where the message says so.
    pub max_age_ms: Option<u64>,
    /// The type of the exception that made it a retry.
    pub failure: Option<String>,
    /// How long it may run, where the message says so.
    pub time_limit_ms: Option<u64>,
}

/// A message that was refused without requeue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The message.
    pub about: About,
    /// Its delivery.
    pub delivered: Mark,
    /// The refusal.
    pub refused: Mark,
}

/// A message that a process published again because it failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retried {
    /// The message, at its last retry.
    pub about: About,
    /// The first time it was published again.
    pub first: Mark,
    /// How often.
    pub times: u64,
    /// It was acknowledged in the end, and not published again.
    pub recovered: bool,
    /// It was refused in the end.
    pub given_up: bool,
}

/// A message that a process held and did not settle, to the end or until its connection was gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The message.
    pub about: About,
    /// Its delivery.
    pub delivered: Mark,
    /// When it went back to its queue; `None`: not before the end.
    pub returned: Option<Mark>,
}

/// All outcomes.
#[derive(Clone, Debug, Default)]
pub struct Outcomes {
    by_pid: BTreeMap<Pid, Work>,
    refusals: Vec<Refusal>,
    retried: Vec<Retried>,
    held: Vec<Held>,
    /// Refusals, retries and held messages that are not kept because there were too many.
    pub left_out: u64,
}

impl Outcomes {
    /// What a process did.
    pub fn of(&self, pid: Pid) -> Option<&Work> {
        self.by_pid.get(&pid)
    }

    /// What every process did.
    pub fn iter(&self) -> impl Iterator<Item = (Pid, &Work)> {
        self.by_pid.iter().map(|(pid, work)| (*pid, work))
    }

    /// Messages refused without requeue, in the order their lives ended.
    pub fn refusals(&self) -> &[Refusal] {
        &self.refusals
    }

    /// Messages that were tried again.
    pub fn retried(&self) -> &[Retried] {
        &self.retried
    }

    /// Messages that were held and not settled.
    pub fn held(&self) -> &[Held] {
        &self.held
    }

    /// A process was given a message, or settled one, just now.
    pub(super) fn pace(&mut self, mark: Mark, settled: bool) {
        if !self.by_pid.contains_key(&mark.pid) && self.by_pid.len() >= MAX_PROCESSES {
            return;
        }
        let work = self.by_pid.entry(mark.pid).or_default();
        if settled {
            let since = work.paced_ns.unwrap_or(mark.at_ns);
            work.longest_gap_ns = work.longest_gap_ns.max(mark.at_ns.saturating_sub(since));
            work.paced_ns = Some(mark.at_ns);
        } else {
            work.paced_ns.get_or_insert(mark.at_ns);
        }
    }

    /// A time passed of which nothing is known: what comes after it is no measure of pace.
    pub(super) fn pause(&mut self) {
        self.by_pid.values_mut().for_each(|work| work.paced_ns = None);
    }

    /// Takes in a life that is over, or as it stood at the end.
    pub(super) fn add(&mut self, life: &Life) {
        for passage in &life.passages {
            self.passage(life, passage);
        }
        self.retries(life);
    }

    fn passage(&mut self, life: &Life, passage: &Passage) {
        let Some(delivered) = passage.delivered else { return };
        if !self.by_pid.contains_key(&delivered.pid) && self.by_pid.len() >= MAX_PROCESSES {
            return;
        }
        let work = self.by_pid.entry(delivered.pid).or_default();
        work.delivered += 1;
        earliest(&mut work.first_delivered, delivered);
        let settled = passage.settled;
        match settled.map(|settlement| settlement.how) {
            Some(Settled::Acked | Settled::Automatic) => {
                let mark = settled.map_or(delivered, |settlement| settlement.mark);
                work.acked += 1;
                earliest(&mut work.first_acked, mark);
                latest(&mut work.last_acked, mark);
                latest(&mut work.last_settled, mark);
                if let Some(actor) = &life.actor
                    && (work.acked_by_actor.len() < MAX_ACTORS || work.acked_by_actor.contains_key(actor))
                {
                    *work.acked_by_actor.entry(actor.clone()).or_default() += 1;
                }
            }
            Some(Settled::Nacked | Settled::Rejected) => {
                let refused = settled.map_or(delivered, |settlement| settlement.mark);
                work.refused += 1;
                latest(&mut work.last_settled, refused);
                let refusal = Refusal { about: about(life, passage), delivered, refused };
                self.left_out += keep(&mut self.refusals, refusal);
            }
            Some(Settled::Requeued) => {
                if let Some(settlement) = settled {
                    latest(&mut work.last_settled, settlement.mark);
                }
            }
            Some(Settled::Returned) | None if passage.doubtful => {}
            Some(Settled::Returned) | None => {
                let returned = settled.map(|settlement| settlement.mark);
                let held = Held { about: about(life, passage), delivered, returned };
                self.left_out += keep(&mut self.held, held);
            }
        }
    }

    fn retries(&mut self, life: &Life) {
        let again = |passage: &&Passage| passage.published.is_some() && passage.failure.is_some();
        let Some(first) = life.passages.iter().find(again).and_then(|passage| passage.published) else {
            return;
        };
        let retries = |passage: &Passage| passage.retries;
        let times = life.passages.iter().filter_map(retries).max().unwrap_or(1);
        let Some(last) = life.passages.back() else { return };
        let settled = last.settled.map(|settlement| settlement.how);
        let retried = Retried {
            about: about(life, last),
            first,
            times,
            recovered: settled == Some(Settled::Acked),
            given_up: matches!(settled, Some(Settled::Nacked | Settled::Rejected)),
        };
        self.left_out += keep(&mut self.retried, retried);
    }
}

fn about(life: &Life, passage: &Passage) -> About {
    About {
        message_id: life.message_id.clone(),
        actor: life.actor.clone(),
        vhost: life.vhost.clone(),
        queue: passage.queue.clone(),
        retries: passage.retries,
        eta_ms: passage.eta_ms,
        made_ms: life.made_ms,
        max_age_ms: life.max_age_ms,
        time_limit_ms: life.time_limit_ms,
        failure: life.passages.iter().rev().find_map(|passage| passage.failure.clone()),
    }
}

fn keep<T>(kept: &mut Vec<T>, one: T) -> u64 {
    if kept.len() >= MAX_KEPT {
        return 1;
    }
    kept.push(one);
    0
}

fn earliest(known: &mut Option<Mark>, mark: Mark) {
    if known.is_none_or(|known| mark.at_ns < known.at_ns) {
        *known = Some(mark);
    }
}

fn latest(known: &mut Option<Mark>, mark: Mark) {
    if known.is_none_or(|known| mark.at_ns > known.at_ns) {
        *known = Some(mark);
    }
}
