//! The messages: how long they waited and ran, and what became of each. Knows lives of messages; nothing of how they are put together.

use std::collections::BTreeMap;

use super::{
    bounded::Ends,
    latency::{Chart, Histogram, Percentiles},
    text::Text,
};
use crate::{
    model::{
        dramatiq::{QueueKind, queue_kind},
        message::{Life, Totals},
    },
    render,
    words::units,
};

/// Passages shown, and queues told apart.
const MOST: usize = 400;
const MOST_QUEUES: usize = 100;

/// Watches while a session is read.
#[derive(Debug)]
pub(super) struct Watcher {
    started_ns: u64,
    /// How long messages of queues that hold none back waited, and how long they ran.
    waits: Histogram,
    runs: Histogram,
    queues: BTreeMap<String, [Histogram; 2]>,
    queues_left_out: u64,
    rows: Ends<Row>,
}

/// One way of a message through a queue.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) id: Text,
    pub(super) actor: Text,
    pub(super) queue: Text,
    pub(super) published: (String, Option<u64>),
    pub(super) delivered: (String, Option<u64>),
    pub(super) waited: String,
    pub(super) settled: (String, Option<u64>),
    pub(super) ran: String,
    pub(super) remark: Text,
}

/// A distribution.
#[derive(Debug)]
pub(super) struct Distribution {
    pub(super) name: &'static str,
    pub(super) told: Percentiles,
    pub(super) chart: Chart,
}

/// What is known of all.
#[derive(Debug)]
pub(super) struct Messages {
    pub(super) totals: Text,
    pub(super) distributions: Vec<Distribution>,
    pub(super) queues: Vec<(Text, &'static str, Percentiles)>,
    pub(super) queues_left_out: u64,
    pub(super) rows: Vec<Row>,
    pub(super) left_out: u64,
}

impl Watcher {
    /// Of a session that began then.
    pub(super) fn new(started_ns: u64) -> Self {
        Self {
            started_ns,
            waits: Histogram::default(),
            runs: Histogram::default(),
            queues: BTreeMap::new(),
            queues_left_out: 0,
            rows: Ends::new(MOST),
        }
    }

    /// Takes in a message whose life is over.
    pub(super) fn take(&mut self, life: &Life) {
        for passage in &life.passages {
            let waited = passage.published.zip(passage.delivered);
            let waited = waited.map(|(published, delivered)| delivered.at_ns.saturating_sub(published.at_ns));
            let ran = passage.delivered.zip(passage.settled);
            let ran = ran.filter(|(_, settled)| !settled.how.comes_again());
            let ran = ran.map(|(delivered, settled)| settled.mark.at_ns.saturating_sub(delivered.at_ns));
            let queue = passage.queue.clone().unwrap_or_default();
            if queue_kind(&queue) == QueueKind::Plain {
                waited.into_iter().for_each(|ns| self.waits.add(ns));
                ran.into_iter().for_each(|ns| self.runs.add(ns));
            }
            if self.queues.len() < MOST_QUEUES || self.queues.contains_key(&queue) {
                let [waits, runs] = self.queues.entry(queue).or_default();
                waited.into_iter().for_each(|ns| waits.add(ns));
                ran.into_iter().for_each(|ns| runs.add(ns));
            } else {
                self.queues_left_out += 1;
            }
            let moment = |mark: crate::model::mark::Mark| {
                (
                    format!("{} {}", units::moment(mark.at_ns, self.started_ns), render::queues::who(mark)),
                    Some(mark.event),
                )
            };
            let settled = passage.settled.map(|settled| {
                let (text, event) = moment(settled.mark);
                (format!("{} {text}", settled.how.name()), event)
            });
            let text = |text: &Option<String>, without: &str| Text::of(text.as_deref().unwrap_or(without));
            self.rows.push(Row {
                id: text(&life.message_id, "(no id)"),
                actor: text(&life.actor, "(unknown)"),
                queue: text(&passage.queue, "(unknown)"),
                published: passage.published.map_or_else(|| ("not seen".to_owned(), None), moment),
                delivered: passage.delivered.map_or_else(|| ("not here".to_owned(), None), moment),
                waited: waited.map_or_else(|| "?".to_owned(), units::duration),
                settled: settled.unwrap_or_else(|| ("not settled".to_owned(), None)),
                ran: ran.map_or_else(|| "?".to_owned(), units::duration),
                remark: remark(life, passage),
            });
        }
    }

    /// What is known of all.
    pub(super) fn finish(self, totals: &Totals) -> Messages {
        let named =
            [("Wait: from publish to delivery", self.waits), ("Run: from delivery to settlement", self.runs)];
        let drawn = named.into_iter().filter(|(_, histogram)| !histogram.is_empty());
        let distribution = |(name, histogram): (_, Histogram)| Distribution {
            name,
            told: histogram.percentiles(),
            chart: histogram.chart(),
        };
        let by_queue = self.queues.iter().flat_map(|(queue, [waits, runs])| {
            [("wait", waits), ("run", runs)].into_iter().filter(|(_, histogram)| !histogram.is_empty()).map(
                move |(what, histogram)| {
                    let queue = if queue.is_empty() { "(unknown)" } else { queue };
                    (Text::of(queue), what, histogram.percentiles())
                },
            )
        });
        Messages {
            totals: Text::line(&render::messages::totals(totals)),
            distributions: drawn.map(distribution).collect(),
            queues: by_queue.collect(),
            queues_left_out: self.queues_left_out,
            left_out: self.rows.left_out,
            rows: self.rows.into_vec(),
        }
    }
}

fn remark(life: &Life, passage: &crate::model::message::Passage) -> Text {
    let mut words = Vec::new();
    if life.is_canary {
        words.push("a canary".to_owned());
    }
    if passage.redelivered {
        words.push("redelivered".to_owned());
    }
    if let Some(retries) = passage.retries.filter(|retries| *retries > 0) {
        words.push(format!("retry {retries}"));
    }
    if let Some(failure) = &passage.failure {
        words.push(format!("after {failure}"));
    }
    Text::of(words.join(", "))
}
