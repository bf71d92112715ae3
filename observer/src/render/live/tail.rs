//! The last of what happened, line by line, and how fast messages went. Knows events and the model; keeps a bounded part of them.

use std::collections::{BTreeMap, VecDeque};

use super::Row;
use crate::{
    event::Event,
    model::{Model, amqp::Said, queue::QueueKey},
    render::conversation,
};

/// Lines kept of events, of look-ups of files, and of what was said in AMQP, each.
const KEPT: usize = 2_000;
/// Rates are over so long a time, or over as much of it as there was.
const SPAN_NS: u64 = 5_000_000_000;
/// How often the counts are taken.
const STEP_NS: u64 = 500_000_000;
/// Queues whose rates are followed.
const QUEUES: usize = 200;

/// The last lines of each kind.
#[derive(Clone, Debug, Default)]
pub struct Tail {
    pub(super) events: VecDeque<Row>,
    pub(super) searches: VecDeque<Row>,
    pub(super) said: VecDeque<Row>,
    told: u64,
}

impl Tail {
    /// Takes in an event. `is_search`: it is a part of looking for files or modules.
    pub fn event(&mut self, id: u64, event: &Event, started_ns: u64, is_search: bool) {
        let row = Row::of_event(id, event, started_ns);
        push(if is_search { &mut self.searches } else { &mut self.events }, row);
    }

    /// Takes in what was said.
    pub fn said(&mut self, said: &Said<'_>, started_ns: u64) {
        let Some(line) = conversation::line(said, started_ns) else { return };
        self.told += 1;
        let row =
            Row { pid: Some(said.mark.pid), event: Some(said.mark.event), ..Row::aligned(self.told, line) };
        push(&mut self.said, row);
    }
}

fn push(rows: &mut VecDeque<Row>, row: Row) {
    if rows.len() >= KEPT {
        rows.pop_front();
    }
    rows.push_back(row);
}

/// Messages counted up to a moment: published, delivered, settled.
pub(super) type Counts = [u64; 3];

#[derive(Clone, Debug)]
struct Sample {
    at_ns: u64,
    all: Counts,
    queues: BTreeMap<QueueKey, Counts>,
}

/// How fast messages go.
#[derive(Clone, Debug, Default)]
pub struct Rates {
    samples: VecDeque<Sample>,
}

impl Rates {
    /// Takes the counts as they are at a moment, in nanoseconds on `CLOCK_MONOTONIC`.
    pub fn sample(&mut self, model: &Model, now_ns: u64) {
        if self.samples.back().is_some_and(|last| now_ns < last.at_ns + STEP_NS) {
            return;
        }
        let queues = model.amqp.queues.iter().take(QUEUES);
        self.samples.push_back(Sample {
            at_ns: now_ns,
            all: totals(model),
            queues: queues.map(|(key, queue)| (key.clone(), counts(queue))).collect(),
        });
        while self.samples.get(1).is_some_and(|second| second.at_ns + SPAN_NS <= now_ns) {
            self.samples.pop_front();
        }
    }

    /// Messages a second, in tenths: published, delivered, settled. `None` before there are two samples.
    pub(super) fn all(&self) -> Option<Counts> {
        self.rate(|sample| Some(sample.all))
    }

    /// The same of one queue; `None` also when it is not followed.
    pub(super) fn of(&self, key: &QueueKey) -> Option<Counts> {
        // It was not there before: then nothing had gone through it.
        self.rate(|sample| sample.queues.get(key).copied().or_else(|| Some(Counts::default())))
            .filter(|_| self.samples.back().is_some_and(|last| last.queues.contains_key(key)))
    }

    fn rate(&self, counts: impl Fn(&Sample) -> Option<Counts>) -> Option<Counts> {
        let (first, last) = (self.samples.front()?, self.samples.back()?);
        let span_ns = u128::from(last.at_ns.checked_sub(first.at_ns).filter(|span| *span > 0)?);
        let (before, now) = (counts(first)?, counts(last)?);
        let tenths = |index: usize| {
            let more = u128::from(now[index].saturating_sub(before[index]));
            u64::try_from(more * 10_000_000_000 / span_ns).unwrap_or(u64::MAX)
        };
        Some([tenths(0), tenths(1), tenths(2)])
    }
}

/// All messages so far.
pub(super) fn totals(model: &Model) -> Counts {
    let totals = &model.amqp.lives.totals;
    [totals.published, totals.delivered, totals.acked + totals.refused + totals.returned]
}

/// Those of one queue.
pub(super) fn counts(queue: &crate::model::queue::Queue) -> Counts {
    [queue.published.values().sum(), queue.delivered.values().sum(), queue.settled.values().sum()]
}
