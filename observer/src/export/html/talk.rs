//! The AMQP conversation as a table, of bounded length. Knows what was said; nothing of what follows from it.

use std::collections::{BTreeMap, BTreeSet};

use super::{bounded::Ends, text::Text};
use crate::{
    amqp::{conversation::What, method::Side},
    model::{Model, amqp::Said, dramatiq, message::Identity},
    render::{conversation, queues::who},
    words::units,
};

/// Rows kept, and of what wants a look.
const MOST: usize = 1_000;
const MOST_ODD: usize = 300;
/// Connections named.
const MOST_LINKS: usize = 60;

/// One thing said.
#[derive(Debug)]
pub(super) struct Row {
    order: u64,
    pub(super) connection: u64,
    pub(super) channel: u16,
    pub(super) at: String,
    pub(super) who: String,
    /// Whether the observed process said it.
    pub(super) sent: bool,
    pub(super) server: bool,
    pub(super) text: Text,
    pub(super) event: u64,
    /// Whether that event is on the page.
    pub(super) there: bool,
    pub(super) odd: bool,
}

/// Listens while a session is read.
#[derive(Debug)]
pub(super) struct Listener {
    started_ns: u64,
    rows: Ends<Row>,
    odd: Ends<Row>,
    heard: u64,
    heartbeats: u64,
}

/// The table.
#[derive(Debug)]
pub(super) struct Talk {
    /// A line or two a connection.
    pub(super) links: Vec<Text>,
    pub(super) links_left_out: u64,
    pub(super) rows: Vec<Row>,
    pub(super) said: u64,
    pub(super) heartbeats: u64,
}

impl Listener {
    /// To a session that began then.
    pub(super) const fn new(started_ns: u64) -> Self {
        Self { started_ns, rows: Ends::new(MOST), odd: Ends::new(MOST_ODD), heard: 0, heartbeats: 0 }
    }

    /// Takes in one thing said.
    pub(super) fn hear(&mut self, said: &Said<'_>) {
        let Said { link, mark, item } = said;
        if item.what == What::Heartbeat {
            self.heartbeats += 1;
            return;
        }
        self.heard += 1;
        let identity = match &item.what {
            What::Message(message) => dramatiq::identify(message),
            _ => Identity::default(),
        };
        let odd = conversation::is_odd(&item.what);
        let row = Row {
            order: self.heard,
            connection: link.id.0,
            channel: item.channel,
            at: units::moment(mark.at_ns, self.started_ns),
            who: who(*mark),
            sent: conversation::sent(link, item.side),
            server: item.side == Side::Server,
            text: Text::line(&conversation::told(item, identity, false)),
            event: mark.event,
            there: false,
            odd,
        };
        if odd { self.odd.push(row) } else { self.rows.push(row) }
    }

    /// The events that complete what is kept.
    pub(super) fn events(&self) -> BTreeSet<u64> {
        self.rows.iter().chain(self.odd.iter()).map(|row| row.event).collect()
    }

    /// The table; `there` are the events on the page.
    pub(super) fn finish(self, model: &Model, there: &BTreeSet<u64>) -> Talk {
        let mut rows = self.rows.into_vec();
        rows.extend(self.odd.into_vec());
        rows.sort_by_key(|row| row.order);
        rows.iter_mut().for_each(|row| row.there = there.contains(&row.event));
        let links = model.amqp.links();
        let head = |line: &crate::render::style::Line| Text::line(line);
        let named = links.take(MOST_LINKS).map(|link| {
            let lines = conversation::head(link, self.started_ns);
            let parts: Vec<String> =
                lines.iter().map(|line| head(line).to_string().trim().to_owned()).collect();
            Text::of(parts.join(", "))
        });
        let links: Vec<Text> = named.collect();
        let all = model.amqp.links().count() as u64 + model.amqp.left_out;
        Talk {
            links_left_out: all - links.len() as u64,
            links,
            rows,
            said: self.heard,
            heartbeats: self.heartbeats,
        }
    }
}

impl Talk {
    /// What each event completed.
    pub(super) fn by_event(&self) -> BTreeMap<u64, Text> {
        let mut said: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        for row in &self.rows {
            let arrow = if row.sent { "→" } else { "←" };
            said.entry(row.event).or_default().push(format!("{arrow} {}", row.text));
        }
        said.into_iter().map(|(event, texts)| (event, Text::of(texts.join("; ")))).collect()
    }

    /// How much was said that is not in the table.
    pub(super) const fn left_out(&self) -> u64 {
        self.said - self.rows.len() as u64
    }
}
