//! Which events of a session are on the page, and how. Knows events; what they mean, others say.

use std::{collections::BTreeSet, ops::ControlFlow};

use super::{bounded::Ends, text::Text};
use crate::{
    event::{Body, Event, NoteLevel},
    model::files,
    model::mark::Mark,
    render::{queues, timeline},
    session::{Filter, Session, SessionError},
    words::units,
};

/// Events on the page.
pub(super) const MOST: usize = 5_000;

/// Picks events while a session is read: ids only, so that memory stays small.
#[derive(Debug)]
pub(super) struct Choice {
    /// By how much they matter, most first.
    tiers: [Ends<u64>; 4],
    /// How many there were.
    pub(super) seen: u64,
}

impl Choice {
    /// Nothing seen yet.
    pub(super) const fn new() -> Self {
        Self { tiers: [Ends::new(MOST), Ends::new(MOST), Ends::new(MOST), Ends::new(MOST)], seen: 0 }
    }

    /// Takes in the next event.
    pub(super) fn take(&mut self, id: u64, event: &Event) {
        self.seen += 1;
        if let Some(tier) = self.tiers.get_mut(tier(&event.body)) {
            tier.push(id);
        }
    }

    /// The ids of those to show: all that are `wanted`, then what matters most, its beginning and its end.
    pub(super) fn ids(self, mut wanted: BTreeSet<u64>) -> BTreeSet<u64> {
        for tier in self.tiers {
            let room = MOST.saturating_sub(wanted.len());
            let ids: Vec<u64> = tier.into_vec().into_iter().filter(|id| !wanted.contains(id)).collect();
            if ids.len() <= room {
                wanted.extend(ids);
                continue;
            }
            let mut ends = Ends::new(room);
            ids.into_iter().for_each(|id| ends.push(id));
            wanted.extend(ends.into_vec());
        }
        wanted
    }
}

fn tier(body: &Body) -> usize {
    match body {
        Body::Exec(_)
        | Body::ExecFailed { .. }
        | Body::Fork { .. }
        | Body::ExitCall { .. }
        | Body::Exit { .. }
        | Body::Signal { .. }
        | Body::SignalDelivered { .. }
        | Body::OomVictim
        | Body::Connect { .. }
        | Body::Connected { .. }
        | Body::Disconnect { .. }
        | Body::SocketFailed { .. }
        | Body::Lookup { .. }
        | Body::Lost { .. }
        | Body::Gap { .. }
        | Body::State { .. }
        | Body::Stuck { .. }
        | Body::Interpreter(_)
        | Body::BrokerAlarm(_)
        | Body::BrokerAccess(_)
        | Body::Imported(crate::event::Imported { loaded: false, .. }) => 0,
        Body::Note { level, .. } if *level != NoteLevel::Info => 0,
        Body::Output { .. }
        | Body::Note { .. }
        | Body::Unstuck { .. }
        | Body::Bind { .. }
        | Body::Listen { .. }
        | Body::Accept { .. }
        | Body::ModuleSearch(_)
        | Body::SourceLook(_)
        | Body::FileLook(_)
        | Body::Distributions(_)
        | Body::ModuleShadows(_)
        | Body::BrokerConnection(_)
        | Body::BrokerConsumer(_)
        | Body::BrokerEvent(_) => 1,
        Body::Open(call) if call.errno != 0 && !files::is_missing(call.errno) => 1,
        Body::Import(_)
        | Body::Imported(_)
        | Body::Thread { .. }
        | Body::ThreadExit { .. }
        | Body::Chdir(_)
        | Body::Socket { .. }
        | Body::Close { .. }
        | Body::Data { .. }
        | Body::BrokerMessage(_)
        | Body::QueueSample(_) => 2,
        _ => 3,
    }
}

/// What kind of mark stands for an event in the timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sort {
    /// Its name, part of a class and a symbol of the page.
    pub(super) name: &'static str,
    /// The row of its lane, from the top; the first is that of findings.
    pub(super) row: u32,
}

fn sort(body: &Body) -> Option<Sort> {
    let (name, row) = match body {
        Body::Exec(_) | Body::ExecFailed { .. } => ("exec", 1),
        Body::Exit { .. } => ("exit", 1),
        Body::Signal { .. } | Body::OomVictim => ("signal", 1),
        Body::Stuck { .. } => ("wait", 1),
        Body::Imported(imported) if !imported.loaded => ("import", 1),
        Body::Connect { errno: 0 | 115, .. } | Body::Connected { errno: 0, .. } => ("connect", 2),
        Body::Connect { .. } | Body::Connected { .. } => ("refused", 2),
        Body::Data { .. } => ("amqp", 2),
        Body::Output { .. } => ("output", 3),
        _ => return None,
    };
    Some(Sort { name, row })
}

/// An event on the page.
#[derive(Debug)]
pub(super) struct Shown {
    /// Its number in the session.
    pub(super) id: u64,
    /// When, in nanoseconds on `CLOCK_MONOTONIC`.
    pub(super) at_ns: u64,
    /// When, in seconds since the start.
    pub(super) at: String,
    /// Its process; 0: none.
    pub(super) pid: u32,
    /// Process and thread.
    pub(super) who: String,
    /// Its kind.
    pub(super) kind: &'static str,
    /// What it says.
    pub(super) text: Text,
    /// How it stands in the timeline.
    pub(super) sort: Option<Sort>,
    /// Whether a finding rests on it.
    pub(super) proves: bool,
}

/// Reads the events with these ids, in order of time.
///
/// # Errors
/// When the session cannot be read.
pub(super) fn read(session: &Session, ids: &BTreeSet<u64>) -> Result<Vec<Shown>, SessionError> {
    let mut shown = Vec::new();
    if ids.is_empty() {
        return Ok(shown);
    }
    let started_ns = session.header().started_ns;
    let filter = Filter { ids: ids.iter().copied().collect(), ..Filter::default() };
    session.events(&filter, |id, event| {
        let mark = Mark::new(id, &event);
        shown.push(Shown {
            id,
            at_ns: event.at_ns,
            at: units::moment(event.at_ns, started_ns),
            pid: event.pid.0,
            who: if event.pid.0 == 0 { "–".to_owned() } else { queues::who(mark) },
            kind: event.body.kind(),
            text: Text::line(&timeline::what(&event)),
            sort: sort(&event.body),
            proves: false,
        });
        ControlFlow::Continue(())
    })?;
    Ok(shown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fixture::{at, open};

    #[test]
    fn what_is_wanted_and_what_matters_stays_however_much_there_is() {
        let mut choice = Choice::new();
        for id in 1..=200_000 {
            let lookup = open(id, 7, "/usr/lib/x.py", Err(2));
            let exit = Body::Exit { code: Some(0), signal: None, core_dumped: false };
            choice.take(id, &if id % 1_000 == 0 { at(id, 7, 7, exit) } else { lookup });
        }
        assert_eq!(choice.seen, 200_000);
        let ids = choice.ids(BTreeSet::from([77_777]));
        assert_eq!(ids.len(), MOST);
        assert!(ids.contains(&77_777) && ids.contains(&1) && ids.contains(&199_999));
        assert_eq!(ids.iter().filter(|id| *id % 1_000 == 0).count(), 200, "all that ended");
    }
}
