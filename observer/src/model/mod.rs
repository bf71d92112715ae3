//! Folds events into what happened. Knows events only: it keeps sums and the few that stand out, never the events themselves.

pub mod amqp;
pub mod broker;
pub mod connection;
pub mod consumer;
pub mod dramatiq;
pub mod exhausted;
pub mod fault;
pub mod files;
pub mod held;
pub mod hints;
pub mod imports;
pub mod ladder;
pub mod link;
pub mod lives;
pub mod lookups;
pub mod mark;
pub mod message;
pub mod modules;
pub mod outcomes;
pub mod output;
pub mod process;
pub mod queue;
pub mod reconcile;
pub mod remarks;
pub mod searches;
pub mod signals;
pub mod tracebacks;
pub mod trouble;
mod waiting;

#[cfg(test)]
mod amqp_tests;
#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod reconcile_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod wire;

use std::collections::BTreeMap;

use crate::event::{Event, Pid, Tid};

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
    /// How each process looked for modules, and what the disk says of them.
    pub imports: imports::ImportTrails,
    /// The tree of imports of each process.
    pub modules: modules::Modules,
    /// The connections.
    pub connections: connection::Connections,
    /// The output.
    pub outputs: output::Outputs,
    /// What dramatiq said in words that are known.
    pub remarks: remarks::Remarks,
    /// The exceptions that were printed.
    pub tracebacks: tracebacks::Tracebacks,
    /// Names that were looked up.
    pub lookups: lookups::Lookups,
    /// Descriptors that ran out.
    pub exhaustion: exhausted::Exhaustion,
    /// What was printed about connections.
    pub hints: hints::Hints,
    /// Signals, stuck threads, losses, notes.
    pub troubles: trouble::Troubles,
    /// What was said of crashes.
    pub faults: fault::Faults,
    /// The signals of each process, in order.
    pub signals: signals::Signals,
    /// Programs that were looked for in vain.
    pub searches: searches::Searches,
    /// What was said in AMQP: connections, consumers, queues, messages.
    pub amqp: amqp::Amqp,
    /// What the broker says of itself.
    pub broker: broker::Broker,
    /// How far each process came.
    pub ladders: ladder::Ladders,
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
            imports: imports::ImportTrails::default(),
            modules: modules::Modules::default(),
            connections: connection::Connections::default(),
            outputs: output::Outputs::default(),
            remarks: remarks::Remarks::default(),
            tracebacks: tracebacks::Tracebacks::default(),
            lookups: lookups::Lookups::default(),
            exhaustion: exhausted::Exhaustion::default(),
            hints: hints::Hints::default(),
            troubles: trouble::Troubles::default(),
            faults: fault::Faults::default(),
            signals: signals::Signals::default(),
            searches: searches::Searches::default(),
            amqp: amqp::Amqp::new(lives::Lives::new(dramatiq::identify, false)),
            broker: broker::Broker::default(),
            ladders: ladder::Ladders::default(),
        }
    }

    /// The same, which keeps messages whose life is over for [`lives::Lives::take_done`].
    pub fn with_lives(started_ns: u64) -> Self {
        Self { amqp: amqp::Amqp::new(lives::Lives::new(dramatiq::identify, true)), ..Self::new(started_ns) }
    }

    /// A model of all these events, numbered from 1.
    pub fn fold<'a>(started_ns: u64, events: impl IntoIterator<Item = &'a Event>) -> Self {
        let mut model = Self::new(started_ns);
        for (id, event) in (1..).zip(events) {
            model.add(id, event);
        }
        model.finish();
        model
    }

    /// Takes in the next event. Events come in order of time.
    pub fn add(&mut self, id: u64, event: &Event) {
        self.add_and_tell(id, event, &mut |_| ());
    }

    /// The same, and tells what it completes of what is said in AMQP.
    pub fn add_and_tell(&mut self, id: u64, event: &Event, each: &mut dyn FnMut(&amqp::Said<'_>)) {
        self.last_ns = self.last_ns.max(event.at_ns);
        self.ids = Some((self.ids.map_or(id, |(first, _)| first), id));
        *self.counts.entry(event.body.kind()).or_default() += 1;
        self.processes.add(id, event);
        self.files.add(id, event);
        self.imports.add(id, event);
        self.modules.add(id, event);
        self.connections.add(id, event);
        let processes = &self.processes;
        let parent_of = |pid| processes.get(pid).and_then(|process| process.parent);
        self.outputs.add(id, event, parent_of);
        self.remarks.add(id, event);
        self.tracebacks.add(id, event, parent_of);
        self.lookups.add(id, event);
        self.exhaustion.add(id, event);
        self.hints.add(id, event);
        self.troubles.add(id, event);
        self.faults.add(id, event);
        self.signals.add(id, event);
        self.searches.add(id, event);
        self.broker.add(id, event);
        let Self { amqp, ladders, connections, .. } = self;
        ladders.add(id, event);
        amqp.add(id, event, connections, &mut |said| {
            ladders.hear(said);
            each(said);
        });
    }

    /// Ends the fold: what was begun and not ended is told as it is. To be called once, after the last event.
    pub fn finish(&mut self) {
        self.finish_and_tell(&mut |_| ());
    }

    /// The same, and tells what it completes of what is said in AMQP.
    pub fn finish_and_tell(&mut self, each: &mut dyn FnMut(&amqp::Said<'_>)) {
        let event = self.ids.map_or(0, |(_, last)| last);
        let last = amqp::Mark { event, at_ns: self.last_ns, pid: Pid(0), tid: Tid(0) };
        let Self { amqp, ladders, .. } = self;
        amqp.finish(last, &mut |said| {
            ladders.hear(said);
            each(said);
        });
    }

    /// Whether a process began, ran another program, or ended in the part that the flight recorder let go of.
    pub fn began_or_ended_in(&self, evicted: &trouble::Evicted) -> bool {
        self.processes.iter().any(|process| {
            let exit = process.exit.as_ref().map(|exit| exit.at_ns);
            let execs = process.execs.iter().map(|exec| exec.mark.at_ns);
            let mut moments = execs.chain(exit).chain([process.first_seen_ns]);
            moments.any(|at_ns| evicted.covers(at_ns))
        })
    }

    /// How many events there were.
    pub fn events(&self) -> u64 {
        self.counts.values().sum()
    }
}
