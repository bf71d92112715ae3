//! The timeline: a lane for each process, with what happened in it as marks. Knows the model and the events that are on the page.

use super::{
    events::Shown,
    scale::{Scale, Tick, seconds, written},
    text::Text,
};
use crate::{
    diagnose::{Explanation, case::Case},
    event::Pid,
    model::{dramatiq::Role, modules::Module, process::Process},
    words::{names, units},
};

/// Lanes drawn, and imports drawn in one.
const MOST_LANES: usize = 40;
const MOST_BARS: usize = 200;
/// Heights, in pixels of the drawing.
const TOP: u32 = 22;
const LANE: u32 = 94;
const ROW: u32 = 15;

/// The drawing.
#[derive(Debug)]
pub(super) struct Timeline {
    pub(super) height: u32,
    pub(super) ticks: Vec<Tick>,
    pub(super) lanes: Vec<Lane>,
    pub(super) lanes_left_out: usize,
}

/// A process.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) label: Text,
    pub(super) y: u32,
    pub(super) life: Bar,
    pub(super) imports: Vec<Bar>,
    pub(super) marks: Vec<Mark>,
    pid: u32,
    since: f64,
}

/// A span of time.
#[derive(Debug)]
pub(super) struct Bar {
    pub(super) from: String,
    pub(super) until: String,
    pub(super) x: String,
    pub(super) width: String,
    pub(super) title: Text,
}

/// An event.
#[derive(Debug)]
pub(super) struct Mark {
    pub(super) sort: &'static str,
    pub(super) event: u64,
    pub(super) at: String,
    pub(super) x: String,
    pub(super) y: u32,
    /// What is said of it, where it is not the event's own text.
    pub(super) title: Text,
}

/// The span that is drawn: the whole session.
pub(super) fn scale(case: &Case<'_>, shown: &[Shown]) -> Scale {
    let started_ns = case.header.started_ns;
    let first = shown.iter().map(|event| seconds(event.at_ns, started_ns)).fold(0.0, f64::min);
    Scale::new(first, seconds(case.ended_ns().max(case.model.last_ns), started_ns))
}

/// Draws it.
pub(super) fn of(case: &Case<'_>, explanation: &Explanation, shown: &[Shown], scale: Scale) -> Timeline {
    let mut processes: Vec<&Process> = case.model.processes.iter().collect();
    let lanes_left_out = processes.len().saturating_sub(MOST_LANES)
        + usize::try_from(case.model.processes.left_out).unwrap_or(0);
    let matters = |process: &&Process| {
        let found = explanation
            .findings
            .iter()
            .any(|finding| finding.process.is_some_and(|one| one.pid == process.pid));
        (!found, case.role(process.pid) == Role::Program, process.first_seen_ns)
    };
    processes.sort_by_cached_key(matters);
    processes.truncate(MOST_LANES);
    processes.sort_by_key(|process| process.first_seen_ns);
    let mut lanes: Vec<Lane> = (0..)
        .zip(&processes)
        .map(|(index, process)| lane(case, process, TOP + index * LANE, scale))
        .collect();
    for event in shown {
        let Some(sort) = event.sort else { continue };
        let at = seconds(event.at_ns, case.header.started_ns);
        if let Some(lane) = find(&mut lanes, event.pid, at) {
            lane.mark(sort.name, sort.row, event.id, at, scale, Text::default());
        }
    }
    for finding in &explanation.findings {
        let Some(first) = finding.evidence.first() else { continue };
        let at = seconds(first.at_ns, case.header.started_ns);
        let pid = finding.process.map_or(0, |subject| subject.pid.0);
        if shown.iter().any(|event| event.id == first.event)
            && let Some(lane) = find(&mut lanes, pid, at)
        {
            let title = Text::of(format!("finding {}: {}", finding.code.name(), finding.title));
            lane.mark("finding", 0, first.event, at, scale, title);
        }
    }
    // What failed lies over what was only begun.
    lanes
        .iter_mut()
        .for_each(|lane| lane.marks.sort_by_key(|mark| ["refused", "finding"].contains(&mark.sort)));
    let height = TOP + LANE * u32::try_from(lanes.len()).unwrap_or(0) + 4;
    Timeline { height, ticks: scale.ticks(), lanes, lanes_left_out }
}

/// The lane of a process at a time: the kernel gives ids anew.
fn find(lanes: &mut [Lane], pid: u32, at: f64) -> Option<&mut Lane> {
    let of_pid = |lane: &&mut Lane| lane.pid == pid;
    let index = lanes.iter().rposition(|lane| lane.pid == pid && lane.since <= at);
    match index {
        Some(index) => lanes.get_mut(index),
        None => lanes.iter_mut().find(of_pid),
    }
}

fn lane(case: &Case<'_>, process: &Process, y: u32, scale: Scale) -> Lane {
    let started_ns = case.header.started_ns;
    let command = process.program().and_then(|program| program.argv.get());
    let command =
        command.map_or_else(|| "runs what its parent runs".to_owned(), |argv| crate::words::command(argv));
    let ended = match &process.exit {
        None => "lives at the end".to_owned(),
        Some(exit) => match (exit.signal, exit.code) {
            (Some(signal), _) => format!("killed by {}", names::signal(signal)),
            (None, Some(code)) => format!("exited with {code}"),
            (None, None) => "ended, status unknown".to_owned(),
        },
    };
    let role = case.role(process.pid).name();
    let since_ns = process.forked_at_ns.unwrap_or(process.first_seen_ns);
    let until_ns = process.exit.as_ref().map_or(case.model.last_ns, |exit| exit.at_ns);
    let (since, until) = (seconds(since_ns, started_ns).max(scale.from), seconds(until_ns, started_ns));
    let title = Text::of(format!("process {} ({role}): {ended}", process.pid));
    let short: String = command.chars().take(120).collect();
    Lane {
        label: Text::of(format!("{} {role} · {ended} · {short}", process.pid)),
        y,
        life: bar(scale, since, until, title),
        imports: imports(case, process.pid, (since_ns, until_ns), scale),
        marks: Vec::new(),
        pid: process.pid.0,
        since: seconds(process.first_seen_ns, started_ns),
    }
}

/// The longest of the imports that are inside of no other.
fn imports(case: &Case<'_>, pid: Pid, life_ns: (u64, u64), scale: Scale) -> Vec<Bar> {
    let started_ns = case.header.started_ns;
    let programs = case.model.modules.programs().filter(|program| program.pid == pid);
    let mut modules: Vec<&Module> = programs
        .flat_map(|program| program.modules.iter().filter(|module| module.is_outermost(&program.modules)))
        .filter(|module| {
            module.end_ns.is_some() && module.start_ns >= life_ns.0 && module.start_ns <= life_ns.1
        })
        .collect();
    modules.sort_by_key(|module| std::cmp::Reverse(module.total_ns()));
    let longest = modules.into_iter().take(MOST_BARS);
    let bars = longest.filter_map(|module| {
        let took = units::duration(module.total_ns()?);
        let title = Text::of(format!("import {} took {took}", module.name));
        let (from, until) = (seconds(module.start_ns, started_ns), seconds(module.end_ns?, started_ns));
        Some(bar(scale, from, until, title))
    });
    bars.collect()
}

/// A bar of a drawing.
pub(super) fn bar(scale: Scale, from: f64, until: f64, title: Text) -> Bar {
    Bar {
        from: written(from),
        until: written(until),
        x: scale.place(from),
        width: scale.width(from, until),
        title,
    }
}

impl Lane {
    fn mark(&mut self, sort: &'static str, row: u32, event: u64, at: f64, scale: Scale, title: Text) {
        let y = self.y + 25 + ROW * row;
        self.marks.push(Mark { sort, event, at: written(at), x: scale.place(at), y, title });
    }
}
