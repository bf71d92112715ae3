//! What is said in AMQP as tracks: a track a connection, one below it a channel; a slice for a request and its answer, an instant for what
//! needs none. Knows AMQP's names for its methods; nothing of messages' lives.

use std::{collections::HashMap, io::Write};

use super::{
    places::Places,
    trace::{Mark, Trace, Track},
};
use crate::{
    amqp::{conversation::What, method::Side},
    event::{Address, Body, Event},
    model::{
        amqp::{LinkId, Said},
        link::Link,
        mark,
        process::Processes,
    },
    words::{self, units},
};

/// Requests that have their answer (AMQP 0-9-1, and RabbitMQ's own); it is named like them, with `-ok`.
const REQUESTS: [&str; 28] = [
    "connection.start",
    "connection.secure",
    "connection.tune",
    "connection.open",
    "connection.close",
    "connection.update-secret",
    "channel.open",
    "channel.flow",
    "channel.close",
    "access.request",
    "exchange.declare",
    "exchange.delete",
    "exchange.bind",
    "exchange.unbind",
    "queue.declare",
    "queue.bind",
    "queue.purge",
    "queue.delete",
    "queue.unbind",
    "basic.qos",
    "basic.consume",
    "basic.cancel",
    "basic.get",
    "basic.recover",
    "confirm.select",
    "tx.select",
    "tx.commit",
    "tx.rollback",
];
/// Channels remembered; beyond so many those that wait for nothing are forgotten.
const MOST_CHANNELS: usize = 50_000;
/// Requests that wait for their answer on one channel.
const MOST_WAITING: usize = 1_000;

/// The connections.
#[derive(Debug, Default)]
pub(super) struct Wires {
    links: HashMap<LinkId, Track>,
    channels: HashMap<(LinkId, u16), Channel>,
}

#[derive(Debug)]
struct Channel {
    track: Track,
    /// Before this no slice can begin any more.
    free_ns: u64,
    waiting: Vec<Waiting>,
}

/// A request without its answer yet.
#[derive(Debug)]
struct Waiting {
    name: String,
    said: String,
    side: Side,
    mark: mark::Mark,
}

impl Wires {
    /// Takes in the next event: attempts to connect.
    pub(super) fn take<W: Write>(
        &mut self,
        trace: &mut Trace<W>,
        places: &mut Places,
        known: &Processes,
        id: u64,
        event: &Event,
    ) {
        let (name, peer, errno, duration_ns) = match &event.body {
            Body::Connect { peer, errno, duration_ns, .. } => ("connect", peer, *errno, *duration_ns),
            Body::Connected { peer, errno, duration_ns, .. } => ("TCP handshake", peer, *errno, *duration_ns),
            _ => return,
        };
        let peer = peer.get().map_or_else(|| "(not known)".to_owned(), Address::to_string);
        let mark = Mark::new("connect", format!("{name} {peer}"))
            .text("error", (errno != 0).then(|| words::names::errno(errno)))
            .count("event", id);
        let place = places.process(trace, known, event.pid);
        let span = (event.at_ns.saturating_sub(duration_ns), event.at_ns);
        place.connects.slice(trace, place.track, "connects", span, mark);
    }

    /// Takes in what was said.
    pub(super) fn hear<W: Write>(&mut self, trace: &mut Trace<W>, places: &mut Places, said: &Said<'_>) {
        let (link, item, at) = (said.link, said.item, said.mark);
        let (name, words) = (said.name(), item.what.to_string());
        let channel = self.channel(trace, places, link, item.channel);
        let answered = name.strip_suffix("-ok").or((name == "basic.get-empty").then_some("basic.get"));
        let asked = answered.and_then(|request| {
            let of = |waiting: &Waiting| waiting.name == request && waiting.side != item.side;
            channel.waiting.iter().position(of).map(|index| channel.waiting.remove(index))
        });
        if let Some(asked) = asked {
            let from_ns = asked.mark.at_ns.max(channel.free_ns);
            let to_ns = at.at_ns.max(from_ns);
            channel.free_ns = to_ns;
            let mark = asked.mark("amqp").text("answer", Some(words)).count("answer_event", at.event);
            trace.begin_slice(from_ns, channel.track, mark);
            trace.end_slice(to_ns, channel.track);
        } else if matches!(item.what, What::Method(_)) && REQUESTS.contains(&name.as_str()) {
            if channel.waiting.len() >= MOST_WAITING {
                let oldest = channel.waiting.remove(0);
                trace.instant(oldest.mark.at_ns, channel.track, oldest.mark("amqp"));
            }
            channel.waiting.push(Waiting { name, said: words, side: item.side, mark: at });
        } else {
            let mut mark = described("amqp", &name, &words, item.side, at);
            if item.what == What::Unseen {
                mark = mark.text("missing", Some(units::size(item.end.saturating_sub(item.start))));
            }
            trace.instant(at.at_ns, channel.track, mark);
        }
    }

    /// The end: requests without an answer are told as they are.
    pub(super) fn finish<W: Write>(&mut self, trace: &mut Trace<W>) {
        let mut channels: Vec<_> = self.channels.drain().map(|(_, channel)| channel).collect();
        channels.sort_by_key(|channel| channel.track);
        for channel in channels {
            for waiting in channel.waiting {
                let mark = waiting.mark("amqp").whether("answered", false);
                trace.instant(waiting.mark.at_ns, channel.track, mark);
            }
        }
    }

    fn channel<W: Write>(
        &mut self,
        trace: &mut Trace<W>,
        places: &mut Places,
        link: &Link,
        number: u16,
    ) -> &mut Channel {
        if self.channels.len() >= MOST_CHANNELS {
            self.channels.retain(|_, channel| !channel.waiting.is_empty());
            self.links.clear();
        }
        let track = *self.links.entry(link.id).or_insert_with(|| {
            let peer = link.peer.get().map_or_else(|| "(not known)".to_owned(), Address::to_string);
            let process = places.unnamed(trace, link.opened.pid).track;
            trace.track(Some(process), &format!("AMQP connection {} {peer}", link.id.0))
        });
        self.channels.entry((link.id, number)).or_insert_with(|| {
            let track = trace.track(Some(track), &format!("channel {number}"));
            Channel { track, free_ns: 0, waiting: Vec::new() }
        })
    }
}

impl Waiting {
    fn mark(&self, category: &str) -> Mark {
        described(category, &self.name, &self.said, self.side, self.mark)
    }
}

fn described(category: &str, name: &str, said: &str, side: Side, at: mark::Mark) -> Mark {
    let by = if side == Side::Client { "client" } else { "server" };
    let rest = said.strip_prefix(name).map(str::trim).filter(|rest| !rest.is_empty());
    Mark::new(category, name).text("by", Some(by)).text("said", rest).count("event", at.event)
}
