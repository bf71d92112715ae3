//! Folds events into what happened. Knows events only: it keeps sums and the few that stand out, never the events themselves.

pub mod connection;

pub mod files;
pub mod output;
pub mod process;
pub mod trouble;

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::event::Event;

/// What happened, as far as the events so far tell. Its size is bounded, however long the session.
#[derive(Clone, Debug)]
pub struct Model {
    /// When the session began, in nanoseconds on `CLOCK_MONOTONIC`.
    pub started_ns: u64,
    /// The time of the latest event; `started_ns` before there is one.
    pub last_ns: u64,
    /// The id of the first and of the last event.
    pub ids: Option<(u64, u64)>,
    /// How many events of each kind there were.
    pub counts: BTreeMap<&'static str, u64>,
    /// The processes.
    pub processes: process::Processes,
    /// Imports and refused files.
    pub files: files::Files,
    /// The connections.
    pub connections: connection::Connections,
    /// The output.
    pub outputs: output::Outputs,
    /// Signals, stuck threads, losses, notes.
    pub troubles: trouble::Troubles,
}

impl Model {
    /// A model of nothing, of a session that began at `started_ns`.
    pub fn new(started_ns: u64) -> Self {
        Self {
            started_ns,
            last_ns: started_ns,
            ids: None,
            counts: BTreeMap::new(),
            processes: process::Processes::default(),
            files: files::Files::default(),
            connections: connection::Connections::default(),
            outputs: output::Outputs::default(),
            troubles: trouble::Troubles::default(),
        }
    }

    /// A model of all these events, numbered from 1.
    pub fn fold<'a>(started_ns: u64, events: impl IntoIterator<Item = &'a Event>) -> Self {
        let mut model = Self::new(started_ns);
        for (id, event) in (1..).zip(events) {
            model.add(id, event);
        }
        model
    }

    /// Takes in the next event. Events come in order of time.
    pub fn add(&mut self, id: u64, event: &Event) {
        self.last_ns = self.last_ns.max(event.at_ns);
        self.ids = Some((self.ids.map_or(id, |(first, _)| first), id));
        *self.counts.entry(event.body.kind()).or_default() += 1;
        self.processes.add(event);
        self.files.add(event);
        self.connections.add(event);
        let processes = &self.processes;
        self.outputs.add(event, |pid| processes.get(pid).and_then(|process| process.parent));
        self.troubles.add(event);
    }

    /// How many events there were.
    pub fn events(&self) -> u64 {
        self.counts.values().sum()
    }
}
