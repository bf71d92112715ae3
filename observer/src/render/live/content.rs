//! What the view shows of a session at one moment, as lines. Knows the model; nothing of panes' sizes or of keys.

use std::collections::{BTreeMap, HashSet};

use super::{
    Pane, Row,
    tail::{self, Rates, Tail},
};
use crate::{
    diagnose::Explanation,
    event::{NoteLevel, Pid},
    model::{
        Model, broker, dramatiq,
        dramatiq::Role,
        ladder::{self, Ladder},
        process::Process,
        queue::{Queue, QueueKey},
        trouble::StuckThread,
    },
    render::{
        explain, ladder as rungs,
        style::{BAD, DIM, GOOD, Line, NAME, ODD, PLAIN, STRONG},
        timeline,
    },
    session::{Header, State},
    words::{self, names, units},
};

/// A tree is drawn this deep; what is deeper is drawn at this depth.
const MAX_DEPTH: usize = 8;
/// Lines for processes, ladders and queues, each.
const MAX_ROWS: usize = 500;
/// Evidence shown of one finding.
const EVIDENCE: usize = 8;

/// What the content is made of.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The session.
    pub header: &'a Header,
    /// How far it has come.
    pub state: State,
    /// What happened so far.
    pub model: &'a Model,
    /// What that means; `None` before it was asked.
    pub explanation: Option<&'a Explanation>,
    /// The last lines.
    pub tail: &'a Tail,
    /// How fast messages go.
    pub rates: &'a Rates,
    /// Now, in nanoseconds on `CLOCK_MONOTONIC`; the last event's time when the recording is over.
    pub now_ns: u64,
    /// Events that this program does not understand.
    pub not_understood: u64,
    /// About how many events are recorded and not looked at yet.
    pub behind: u64,
}

/// What is shown.
#[derive(Clone, Debug)]
pub struct Content {
    /// How many events it is of.
    pub events: u64,
    pub(super) state: State,
    pub(super) head: Line,
    pub(super) verdict: Line,
    /// What was lost and what cannot be seen.
    pub(super) missing: Vec<Line>,
    pub(super) searches: Vec<Row>,
    panes: [Vec<Row>; Pane::ALL.len()],
}

impl Content {
    /// The lines of all panes.
    pub fn of(facts: &Facts<'_>) -> Self {
        let rows = |pane: Pane| match pane {
            Pane::Processes => processes(facts),
            Pane::Ladder => ladders(facts),
            Pane::Queues => queues(facts),
            Pane::Findings => findings(facts),
            Pane::Conversation => facts.tail.said.iter().cloned().collect(),
            Pane::Timeline => facts.tail.events.iter().cloned().collect(),
        };
        Self {
            events: facts.model.events(),
            state: facts.state,
            head: head(facts),
            verdict: verdict(facts),
            missing: missing(facts),
            searches: facts.tail.searches.iter().cloned().collect(),
            panes: Pane::ALL.map(rows),
        }
    }

    pub(super) fn rows(&self, pane: Pane) -> &[Row] {
        self.panes.get(pane as usize).map_or(&[], Vec::as_slice)
    }
}

fn head(facts: &Facts<'_>) -> Line {
    let model = facts.model;
    let mut line = Line::new().with(STRONG, &facts.header.name).with(PLAIN, " ");
    line.push(if facts.state == State::Recording { GOOD } else { PLAIN }, facts.state.to_string());
    let ran = units::duration(facts.now_ns.saturating_sub(facts.header.started_ns));
    line.push(PLAIN, format!(" {ran}, {}", units::counted(model.events(), "event")));
    if facts.behind > 0 {
        line.push(ODD, format!(" (reading, {} to go)", facts.behind));
    }
    match model.troubles.lost() {
        0 => line.push(DIM, ", none lost"),
        lost => line.push(BAD, format!(", {lost} LOST")),
    };
    line
}

fn verdict(facts: &Facts<'_>) -> Line {
    let so_far = if facts.state == State::Recording { "so far: " } else { "" };
    let mut line = Line::new().with(DIM, so_far);
    let Some(Explanation { verdict, .. }) = facts.explanation else {
        return line.with(DIM, "…");
    };
    let (style, sign) = explain::sign(verdict.severity);
    line.push(style, format!("{sign} {}", verdict.code.name()));
    if let Some(cause) = verdict.cause {
        line.push(style, format!(" ({cause})"));
    }
    line.push(PLAIN, format!("  {}", verdict.title));
    line
}

fn missing(facts: &Facts<'_>) -> Vec<Line> {
    let troubles = &facts.model.troubles;
    let losses = troubles.losses().into_iter().map(|(hop, what, count)| {
        let count = units::counted(count, "event");
        Line::new().with(BAD, format!("lost: {count} of {what} at the {}", timeline::hop_text(hop)))
    });
    let mut lines: Vec<Line> = losses.collect();
    if facts.not_understood > 0 {
        let count = units::counted(facts.not_understood, "event");
        lines
            .push(Line::new().with(ODD, format!("{count} could not be read: a newer observer records them")));
    }
    for (level, text, count) in troubles.notes() {
        if *level != NoteLevel::Info {
            let times = if *count > 1 { format!(" (×{count})") } else { String::new() };
            lines.push(Line::new().with(timeline::level_style(*level), format!("{text}{times}")));
        }
    }
    let unseen = facts.header.sources.iter().flat_map(|source| &source.unseen);
    lines.extend(unseen.map(|text| Line::new().with(DIM, format!("not seen: {text}"))));
    lines
}

fn processes(facts: &Facts<'_>) -> Vec<Row> {
    let processes = &facts.model.processes;
    let mut stuck: BTreeMap<Pid, Vec<&StuckThread>> = BTreeMap::new();
    for thread in facts.model.troubles.stuck() {
        stuck.entry(thread.pid).or_default().push(thread);
    }
    // A stack of its own: how deep the target forks is not for our stack to bear.
    let mut pending: Vec<(&Process, usize)> = processes.roots().map(|root| (root, 0)).collect();
    pending.reverse();
    let mut drawn = HashSet::new();
    let mut rows = Vec::new();
    let mut more = processes.left_out;
    while let Some((process, depth)) = pending.pop() {
        if !drawn.insert(std::ptr::from_ref(process)) {
            continue;
        }
        if rows.len() >= MAX_ROWS {
            more += 1;
        } else {
            let stuck = stuck.get(&process.pid).map_or(&[][..], Vec::as_slice);
            rows.push(process_row(facts, rows.len() as u64, process, depth, stuck));
        }
        let mut children: Vec<_> = processes.children(process.pid).map(|child| (child, depth + 1)).collect();
        children.reverse();
        pending.append(&mut children);
    }
    and_more(&mut rows, more);
    rows
}

fn process_row(facts: &Facts<'_>, key: u64, process: &Process, depth: usize, stuck: &[&StuckThread]) -> Row {
    let branch =
        if depth == 0 { String::new() } else { format!("{}└ ", "  ".repeat(depth.min(MAX_DEPTH) - 1)) };
    let mut line = Line::new().with(DIM, branch).with(NAME, format!("{} ", process.pid));
    let role = dramatiq::role(&facts.model.processes, process.pid);
    if role != Role::Program {
        line.push(PLAIN, format!("{} ", role.name()));
    }
    match &process.exit {
        None if process.stopped.is_some() => drop(line.push(BAD, "stopped")),
        None => drop(line.push(GOOD, "running")),
        Some(exit) => {
            match (exit.code, exit.signal) {
                (_, Some(signal)) => line.push(BAD, format!("killed by {}", names::signal(signal))),
                (Some(0), None) => line.push(GOOD, "exited 0"),
                (Some(code), None) => line.push(BAD, format!("exited {code}")),
                (None, None) => line.push(ODD, "gone"),
            };
            if let Some(sender) = &exit.by {
                line.push(PLAIN, format!(" from {}", sender.pid));
            }
        }
    }
    if process.alive() {
        if let Some(longest) = stuck.first() {
            let since = units::duration(facts.now_ns.saturating_sub(longest.since_ns));
            line.push(ODD, format!(", in {} for {since}", longest.syscall));
            if stuck.len() > 1 {
                line.push(DIM, format!(" (and {} more)", units::counted(stuck.len() as u64 - 1, "thread")));
            }
        } else if process.threads_started > process.threads_ended {
            let threads = process.threads_started - process.threads_ended + 1;
            line.push(DIM, format!(", {}", units::counted(threads, "thread")));
        }
    }
    if process.execs.is_empty()
        && let Some(failed) = process.failed_execs.last()
    {
        let path = failed.path.get().map_or("(path unknown)", String::as_str);
        line.push(BAD, format!(", could not run {path}: {}", names::errno(failed.errno)));
    }
    let command = match process.program() {
        Some(program) => program.argv.get().map_or_else(
            || program.exe.get().map_or("(command unknown)", String::as_str).to_owned(),
            |argv| words::command(argv),
        ),
        None if process.forked_at_ns.is_some() => "(forked)".to_owned(),
        None => "(was there before)".to_owned(),
    };
    line.push(DIM, format!("  {command}"));
    let event = process.exit.as_ref().map(|exit| exit.event).or_else(|| Some(process.program()?.mark.event));
    Row { pid: Some(process.pid), event, ..Row::new(key, line) }
}

fn ladders(facts: &Facts<'_>) -> Vec<Row> {
    let all = ladder::ladders(facts.model);
    let row = |(key, ladder): (usize, &Ladder)| {
        let mut line =
            Line::new().with(NAME, format!("{} ", ladder.pid)).with(PLAIN, format!("{} ", ladder.role));
        for step in &ladder.rungs {
            let (style, sign) = rungs::sign(step);
            line.push(style, sign);
        }
        let reached = ladder.rungs.iter().rev().find(|step| step.reached == Some(true));
        if let Some(step) = reached {
            line.push(PLAIN, format!(" {}", step.rung.name()));
        }
        let why =
            ladder.rungs.iter().find(|step| step.reached == Some(false)).and_then(|step| step.why.as_ref());
        if let Some(why) = why {
            line.push(ODD, format!(" ({why})"));
        }
        let wide = rungs::fitted(ladder, usize::MAX).into_iter().next().map(|line| (line.width(), line));
        let event = reached.and_then(|step| step.event);
        Row { wide, pid: Some(ladder.pid), event, ..Row::new(key as u64, line) }
    };
    let mut rows: Vec<Row> = all.iter().take(MAX_ROWS).enumerate().map(row).collect();
    and_more(&mut rows, all.len().saturating_sub(MAX_ROWS) as u64);
    rows
}

fn and_more(rows: &mut Vec<Row>, more: u64) {
    if more > 0 {
        rows.push(Row::new(rows.len() as u64, Line::new().with(ODD, format!("… and {more} more"))));
    }
}

fn queues(facts: &Facts<'_>) -> Vec<Row> {
    let model = facts.model;
    const WORDS: [&str; 3] = ["published", "delivered", "settled"];
    let is_over = facts.state != State::Recording;
    let rate = |rate: Option<tail::Counts>, index: usize| match rate {
        _ if is_over => String::new(),
        None => " ?/s".to_owned(),
        Some(rate) => format!(" {}.{}/s", rate[index] / 10, rate[index] % 10),
    };
    let (all, totals) = (facts.rates.all(), tail::totals(model));
    let mut rows = Vec::new();
    for (index, word) in WORDS.into_iter().enumerate() {
        let line = Line::new().with(PLAIN, format!("{word} {}", totals[index])).with(DIM, rate(all, index));
        rows.push(Row::new(index as u64, line));
    }
    let unseen = Queue::default();
    let mut known: BTreeMap<QueueKey, &Queue> =
        model.amqp.queues.iter().map(|(key, queue)| (key.clone(), queue)).collect();
    for consumer in model.amqp.consumers.iter() {
        known.entry((consumer.vhost.clone(), consumer.queue.clone())).or_insert(&unseen);
    }
    let sampled: BTreeMap<&broker::QueueName, &broker::Sampled> = model.broker.queues().collect();
    for ((vhost, name), sample) in &sampled {
        // A broker has queues of many: those that stand idle and that nobody here speaks of are left out.
        if sample.backlog().is_some() {
            known.entry((Some(vhost.clone()), name.clone())).or_insert(&unseen);
        }
    }
    for (key, queue) in known.iter().take(MAX_ROWS) {
        let (vhost, name) = key;
        let sample = vhost.as_ref().and_then(|vhost| sampled.get(&(vhost.clone(), name.clone())).copied());
        let counts @ [_, delivered, settled] = tail::counts(queue);
        let told = |count: Option<u64>| count.map_or_else(|| "?".to_owned(), |count| count.to_string());
        let name_or = if name.is_empty() { "(named by the server)" } else { name };
        let ready = sample.and_then(|sample| sample.ready);
        let style = if ready.is_some_and(|ready| ready > 0) { ODD } else { PLAIN };
        let mut line = Line::new().with(STRONG, name_or).with(style, format!(" ready {}", told(ready)));
        line.push(PLAIN, format!(" unacked {}", told(sample.and_then(|sample| sample.unacked))));
        line.push(DIM, format!(" (ours {})", delivered.saturating_sub(settled)));
        let consumers = model.amqp.consumers.iter();
        let ours = consumers.filter(|one| one.ended.is_none() && one.queue == *name && one.vhost == *vhost);
        let consumers = told(sample.and_then(|sample| sample.consumers));
        line.push(PLAIN, format!(" consumers {consumers}")).push(DIM, format!(" (ours {})", ours.count()));
        let rates = facts.rates.of(key);
        for (index, word) in WORDS.into_iter().enumerate() {
            line.push(PLAIN, format!(", {word} {}", counts[index])).push(DIM, rate(rates, index));
        }
        if let Some(state) =
            sample.and_then(|sample| sample.state.as_ref()).filter(|state| *state != "running")
        {
            line.push(BAD, format!(", {state}"));
        }
        rows.push(Row { event: sample.map(|sample| sample.event), ..Row::new(rows.len() as u64, line) });
    }
    and_more(&mut rows, known.len().saturating_sub(MAX_ROWS) as u64);
    for (node, resource, mark) in model.broker.alarms() {
        let line = Line::new().with(BAD, format!("alarm: {resource} on {node}"));
        rows.push(Row { event: Some(mark.event), ..Row::new(rows.len() as u64, line) });
    }
    rows
}

fn findings(facts: &Facts<'_>) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for finding in facts.explanation.into_iter().flat_map(|explanation| &explanation.findings) {
        let line = explain::heading(finding);
        let pid = finding.process.map(|process| process.pid);
        let event = finding.evidence.first().map(|evidence| evidence.event);
        rows.push(Row { pid, event, ..Row::new(rows.len() as u64, line) });
        for evidence in finding.evidence.iter().take(EVIDENCE) {
            let line = Line::new()
                .with(
                    DIM,
                    format!(
                        "  {} event {} ",
                        units::moment(evidence.at_ns, facts.model.started_ns),
                        evidence.event
                    ),
                )
                .with(PLAIN, &evidence.text);
            rows.push(Row { pid, event: Some(evidence.event), ..Row::new(rows.len() as u64, line) });
        }
    }
    rows
}
