//! The corpus: real failures, produced and recorded, and held against what `explain` concludes. It draws no conclusion of its own.

pub mod file;
pub mod fixture;
pub mod judge;
mod live;
mod management;
pub mod pairs;
mod place;
mod processes;
mod python;
mod run;
mod start;
mod steps;
mod table;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail};

use self::file::{Node, Scenario};
use self::run::Lab;
pub use self::table::Totals;
use crate::rabbit::Broker;

/// What is to be run, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Only scenarios whose name matches one of these.
    pub patterns: Vec<String>,
    /// How many at once.
    pub jobs: usize,
    /// `--backend` of the observer.
    pub backend: String,
    /// Whether what is not right is tried once more, alone: a busy machine makes time-outs. The table says so.
    pub twice: bool,
    /// Where to put the sessions.
    pub keep: Option<PathBuf>,
    /// The observer.
    pub program: PathBuf,
}

/// Runs the scenarios, printing a line for each as it is done, and at the end what is to be looked at.
///
/// # Errors
/// When they could not be run. Verdicts that are not right are in the totals.
pub fn run(options: &Options) -> Result<Totals> {
    let chosen = chosen(&options.patterns)?;
    for scenario in &chosen {
        live_words(scenario)?;
    }
    // Made one after the other, and not while somebody's patience is being measured.
    for scenario in chosen.iter().filter(|scenario| python::interpreter(scenario).is_ok()) {
        python::venv(scenario)?;
    }
    eprintln!("start a private RabbitMQ; run {} scenarios, {} at once", chosen.len(), options.jobs);
    let shared = Broker::start_with(&run::PLUGINS, run::CONFIG)?;
    let lab = Lab {
        program: &options.program,
        backend: &options.backend,
        keep: options.keep.as_deref(),
        shared: &shared,
    };
    let table = Mutex::new(table::Table::new(&chosen));
    let once_more: Mutex<Vec<&Scenario>> = Mutex::new(Vec::new());
    let (own, others): (Vec<&Scenario>, Vec<&Scenario>) =
        chosen.iter().partition(|scenario| scenario.node == Node::Own);
    // Those with a node of their own take turns: one thread begins with them, so that none waits for its turn in vain.
    let own = Mutex::new(VecDeque::from(own));
    let others = Mutex::new(VecDeque::from(others));
    let floor = Floor { lab: &lab, table: &table, once_more: options.twice.then_some(&once_more) };
    std::thread::scope(|scope| {
        scope.spawn(|| floor.work(&[&own, &others]));
        for _ in 1..options.jobs.max(1) {
            scope.spawn(|| floor.work(&[&others]));
        }
    });
    // Alone, where the machine's load is no excuse any more.
    for scenario in once_more.into_inner().unwrap_or_else(PoisonError::into_inner) {
        let done = run::run(scenario, &lab);
        table.lock().unwrap_or_else(PoisonError::into_inner).add(scenario, done);
    }
    Ok(table.into_inner().unwrap_or_else(PoisonError::into_inner).finish())
}

/// Where scenarios are run side by side.
struct Floor<'l, 's> {
    lab: &'l Lab<'l>,
    table: &'l Mutex<table::Table>,
    /// Where those go that are to be tried once more; `None`: nothing is.
    once_more: Option<&'l Mutex<Vec<&'s Scenario>>>,
}

impl<'s> Floor<'_, 's> {
    /// Runs what is in these queues until they are empty, from the first that has something.
    fn work(&self, queues: &[&Mutex<VecDeque<&'s Scenario>>]) {
        let next = || {
            queues.iter().find_map(|queue| queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front())
        };
        while let Some(scenario) = next() {
            let done = run::run(scenario, self.lab);
            let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
            match self.once_more {
                Some(once_more) if !done.judgement.outcome.is_fine() && scenario.not_yet.is_none() => {
                    table.again(scenario, &done);
                    once_more.lock().unwrap_or_else(PoisonError::into_inner).push(scenario);
                }
                _ => table.add(scenario, done),
            }
        }
    }
}

/// Runs nothing, and prints what there is.
pub fn list(patterns: &[String]) -> Result<()> {
    for scenario in chosen(patterns)? {
        println!("{:<48} {}", scenario.name, scenario.what);
    }
    Ok(())
}

/// Those that are meant by one of these patterns; an error when there are none.
fn chosen(patterns: &[String]) -> Result<Vec<Scenario>> {
    let chosen = file::chosen(patterns)?;
    if chosen.is_empty() {
        bail!("no scenario is called like {}: see {}", patterns.join(", "), file::folder().display());
    }
    Ok(chosen)
}

/// That all handshakes can be read, before any has been waited for.
fn live_words(scenario: &Scenario) -> Result<()> {
    let steps = scenario.during.iter().flat_map(|step| &step.when.0);
    for word in steps.chain(&scenario.until.0).chain(&scenario.running) {
        live::Ready::parse(word).map_err(|error| error.context(scenario.name.clone()))?;
    }
    Ok(())
}
