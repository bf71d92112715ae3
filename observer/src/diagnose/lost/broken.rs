//! Connections with consumers that did not end by our own will, and what came after. Knows both ends' last words.

use std::collections::{BTreeSet, HashMap};

use super::super::{case::Case, catalogue::Severity, finding::Evidence, peers};
use crate::{
    amqp::method::Side,
    event::{Disconnect, Pid},
    model::{
        amqp::Closing,
        consumer::Consumer,
        link::{Link, LinkId},
        mark::Mark,
    },
    words::names as numbers,
};

/// A broker that restarts is back within so long, mostly; a worker that has nothing by then is without.
const PATIENCE_NS: u64 = 10_000_000_000;
/// A process that ends within so long of a loss was ended together with its connection.
const TOGETHER_NS: u64 = 300_000_000;
const ETIMEDOUT: i32 = 110;

/// Who ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// The other side: its reset or end.
    ByBroker,
    /// The broker said so first, with this code.
    Closed(u16),
    /// The network: nothing of us was acknowledged.
    Failed,
    /// We did, because nothing came from the broker.
    Silent,
}

/// A connection that consumed, and was lost.
pub(super) struct Broken<'a> {
    pub(super) link: &'a Link,
    pub(super) how: How,
    /// When it was over.
    pub(super) mark: Mark,
    /// What was consumed on it.
    pub(super) consumers: Vec<&'a Consumer>,
    text: Option<&'a str>,
    was_reset: bool,
}

/// What was consumed where, looked up once for all processes.
pub(super) struct Consumed<'a> {
    /// The connections that each process made, in order of time.
    links: HashMap<Pid, Vec<&'a Link>>,
    /// What was consumed on each.
    consumers: HashMap<LinkId, Vec<&'a Consumer>>,
    /// When each process last began to consume each queue of each virtual host.
    latest: HashMap<Queue<'a>, u64>,
    /// How each was closed by the broker.
    closings: HashMap<LinkId, &'a Closing>,
}

type Queue<'a> = (Pid, Option<&'a str>, &'a str);

const fn queue(consumer: &Consumer) -> Queue<'_> {
    // `as_deref` is not const.
    let vhost = match &consumer.vhost {
        Some(vhost) => Some(vhost.as_str()),
        None => None,
    };
    (consumer.asked.pid, vhost, consumer.queue.as_str())
}

impl<'a> Consumed<'a> {
    pub(super) fn of(case: &'a Case<'_>) -> Self {
        let amqp = &case.model.amqp;
        let (mut links, mut consumers) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
        let (mut latest, mut closings) = (HashMap::new(), HashMap::new());
        for link in amqp.links().filter(|link| !link.accepted) {
            links.entry(link.opened.pid).or_default().push(link);
        }
        for consumer in amqp.consumers.iter() {
            let Some(confirmed) = consumer.confirmed else { continue };
            consumers.entry(consumer.connection).or_default().push(consumer);
            let last = latest.entry(queue(consumer)).or_default();
            *last = confirmed.at_ns.max(*last);
        }
        for closing in amqp.closings.iter().filter(|closing| closing.channel.is_none()) {
            closings.entry(closing.link).or_insert(closing);
        }
        Self { links, consumers, latest, closings }
    }
}

/// The connections of a process that were lost, in order of time.
pub(super) fn broken<'a>(case: &'a Case<'_>, consumed: &Consumed<'a>, pid: Pid) -> Vec<Broken<'a>> {
    let exit_ns =
        case.model.processes.get(pid).and_then(|process| process.exit.as_ref()).map(|exit| exit.at_ns);
    let links = consumed.links.get(&pid).into_iter().flatten();
    let mut found: Vec<Broken<'a>> = links.filter_map(|link| one(case, consumed, link)).collect();
    // What ends with its process is no loss of the process.
    found.retain(|one| {
        exit_ns.is_none_or(|exit_ns| {
            one.mark.at_ns + TOGETHER_NS < exit_ns || peers::failed_exit(case, pid).is_some()
        })
    });
    found.sort_by_key(|one| (one.mark.at_ns, one.mark.event));
    found
}

fn one<'a>(case: &'a Case<'_>, consumed: &Consumed<'a>, link: &'a Link) -> Option<Broken<'a>> {
    let consumers = consumed.consumers.get(&link.id)?.clone();
    let connection = case.model.connections.at(link.socket, link.opened.at_ns)?;
    let end = connection.first_end;
    let closed =
        link.facts().closed.as_ref().filter(|closed| closed.side == Side::Server && closed.code != 200);
    if link.course.client_closed.is_some() {
        return None;
    }
    if let Some(closed) = closed {
        // Refusals are others' business: 403, 404, 405, 406, 530 say what was wrong with what we asked.
        if matches!(closed.code, 403..=406 | 530) {
            return None;
        }
        let (how, mark) = (How::Closed(closed.code), consumed.closings.get(&link.id)?.mark);
        return Some(Broken { link, how, mark, consumers, text: Some(&closed.text), was_reset: false });
    }
    let end = end?;
    let mark = Mark { event: end.event, at_ns: end.at_ns, ..link.opened };
    let heartbeat_ns =
        u64::from(link.facts().negotiated.map_or(0, |tuning| tuning.heartbeat_s)) * 1_000_000_000;
    let silent_ns = link.course.server_last.map_or(0, |last| end.at_ns.saturating_sub(last.at_ns));
    let how = match end.how {
        Disconnect::ByPeer | Disconnect::ResetByPeer => How::ByBroker,
        Disconnect::Failed => How::Failed,
        // pika gives a connection up when the broker has missed two intervals (1.4, `heartbeat.py`), and says nothing then.
        Disconnect::ByUs | Disconnect::ResetByUs | Disconnect::Closed
            if heartbeat_ns > 0 && silent_ns >= heartbeat_ns * 3 / 2 =>
        {
            How::Silent
        }
        _ => return None,
    };
    let was_reset = end.how == Disconnect::ResetByPeer;
    Some(Broken { link, how, mark, consumers, text: None, was_reset })
}

impl Broken<'_> {
    /// Whether all that was consumed on it is consumed again by the same process.
    pub(super) fn has_recovered(&self, consumed: &Consumed<'_>) -> bool {
        let is_later = |lost: &&Consumer| {
            consumed.latest.get(&queue(lost)).is_some_and(|at_ns| *at_ns > self.mark.at_ns)
        };
        self.consumers.iter().all(is_later)
    }

    /// What ended it, for a list.
    pub(super) fn what(&self) -> String {
        match self.how {
            How::ByBroker if self.was_reset => "the broker's side resets the connection".to_owned(),
            How::ByBroker => "the broker's side closes the connection".to_owned(),
            How::Closed(code) => format!("connection.close {code}: {}", self.text.unwrap_or_default()),
            How::Failed => "the network gives the connection up".to_owned(),
            How::Silent => "the connection is given up: nothing came from the broker".to_owned(),
        }
    }

    /// The same, for a sentence.
    pub(super) fn why(&self) -> String {
        match self.how {
            How::ByBroker if self.was_reset => "it was reset by the other side".to_owned(),
            How::ByBroker => "the other side closed it without a word".to_owned(),
            How::Closed(code) => {
                format!("the broker closed it with {code}, {}", self.text.unwrap_or_default())
            }
            How::Failed => "nothing that was sent came through any more".to_owned(),
            How::Silent => "the broker sent nothing for two heartbeats".to_owned(),
        }
    }
}

/// The queues that were consumed on some connections.
pub(super) fn names(all: &[Broken<'_>]) -> String {
    let names: BTreeSet<&str> =
        all.iter().flat_map(|one| &one.consumers).map(|consumer| consumer.queue.as_str()).collect();
    let shown: Vec<&str> = names.iter().copied().take(3).collect();
    let more = if names.len() > shown.len() { " and others" } else { "" };
    format!("{}{more}", shown.join(", "))
}

pub(super) const fn severity(is_failure: bool) -> Severity {
    if is_failure { Severity::Failure } else { Severity::Warning }
}

/// What a process tried after it had lost a connection.
pub(super) struct Since {
    attempts: u64,
    refused: Option<(i32, String)>,
    pub(super) evidence: Vec<Evidence>,
}

/// What was tried after a loss.
pub(super) fn since(case: &Case<'_>, pid: Pid, lost_ns: u64) -> Since {
    let later: Vec<_> =
        peers::broker_attempts(case, pid).into_iter().filter(|(one, _)| one.at_ns > lost_ns).collect();
    let failed = later.iter().rev().find_map(|(one, _)| {
        let errno = one.result.filter(|errno| *errno != 0)?;
        Some((one, errno, one.peer.get()?.to_string()))
    });
    let evidence = failed.iter().map(|(one, errno, peer)| {
        let mark = Mark { event: one.event, at_ns: one.at_ns, pid, tid: one.tid };
        Evidence::new(
            mark,
            format!("connect to {peer}: {}, {} tried since", numbers::errno(*errno), later.len()),
        )
    });
    let evidence = evidence.collect();
    Since { attempts: later.len() as u64, refused: failed.map(|(_, errno, peer)| (errno, peer)), evidence }
}

impl Since {
    /// Whether it is certain enough that nothing came of it: it was tried again in vain, or long enough has passed, or the process gave up.
    pub(super) fn is_settled(&self, case: &Case<'_>, pid: Pid, lost_ns: u64) -> bool {
        let waited_ns = case.ended_ns().saturating_sub(lost_ns);
        self.attempts > 1 && self.refused.is_some()
            || waited_ns >= PATIENCE_NS
            || peers::failed_exit(case, pid).is_some_and(|(mark, _)| mark.at_ns >= lost_ns)
    }

    /// What came of it, in a sentence.
    pub(super) fn told(&self) -> String {
        match &self.refused {
            Some((ETIMEDOUT, peer)) => format!("New connections to {peer} get no answer."),
            Some((errno, peer)) => format!("New connections to {peer} fail ({}).", numbers::errno(*errno)),
            None if self.attempts > 0 => "It was tried again, and nothing is consumed since.".to_owned(),
            None => "No other was made since.".to_owned(),
        }
    }
}
