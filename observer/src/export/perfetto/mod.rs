//! A trace for ui.perfetto.dev: tracks of processes, threads and connections, messages as flows, queues as counters. Knows sessions and the
//! model; what stands on which track is written down in `schema/perfetto.txt`.

mod places;
mod proto;
mod trace;
mod wire;

use std::{
    collections::{BTreeMap, HashMap},
    io::Write,
    ops::ControlFlow,
};

use places::Places;
use trace::{Mark, Trace, Track};
use wire::Wires;

use super::{ExportError, Lost, Progress, started_at_ns, unseen};
use crate::{
    diagnose::{self, case::Case},
    event::{Body, Event, NoteLevel, broker::QueueSample},
    fold,
    model::{
        Model,
        message::{Life, Passage, Settled},
    },
    session::{Filter, Header, Session},
    words::{self, units},
};

const SCHEMA: &str = "observer.perfetto/1";
/// Queues drawn; more are only counted.
const MOST_QUEUES: usize = 10_000;

/// Writes a session as a trace.
///
/// # Errors
/// When the session cannot be read, or the stream cannot be written.
pub fn write(session: &Session, out: &mut impl Write, progress: &Progress) -> Result<(), ExportError> {
    let header = session.header();
    let mut model = Model::with_lives(header.started_ns);
    let mut drawing = Drawing::begin(header, out);
    let not_understood = fold::read_ahead(session, &Filter::default(), |id, event| {
        progress.one();
        drawing.take(&mut model, id, &event);
        if drawing.trace.failed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    model.finish_and_tell(&mut |said| drawing.wires.hear(&mut drawing.trace, &mut drawing.places, said));
    let last_ns = model.last_ns;
    model.amqp.lives.take_done().for_each(|life| drawing.life(&life, last_ns));
    let ending = session.ending();
    let case = Case::new(header, ending.as_ref(), &model);
    Ok(drawing.finish(&case, not_understood)?)
}

struct Drawing<W> {
    trace: Trace<W>,
    places: Places,
    wires: Wires,
    /// What concerns the recording itself.
    recording: Track,
    broker: Option<Track>,
    queues: HashMap<(String, String), Queue>,
    queues_left_out: u64,
    lost: Lost,
}

/// The counters of a queue.
struct Queue {
    ready: Track,
    unacked: Track,
}

impl<W: Write> Drawing<W> {
    fn begin(header: &Header, out: W) -> Self {
        let mut trace = Trace::begin(out, header.started_ns, started_at_ns(header));
        let recording = trace.track(None, "recording");
        let mut mark = Mark::new("recording", "begin")
            .text("schema", Some(SCHEMA))
            .text("session", Some(&header.id))
            .text("name", Some(&header.name))
            .text("command", Some(words::command(&header.command)))
            .text("started_at", Some(&header.started_at))
            .text("host", Some(&header.host))
            .text("observer", Some(&header.observer_version));
        for text in unseen(header) {
            mark = mark.text("unseen", Some(text));
        }
        trace.instant(header.started_ns, recording, mark);
        Self {
            trace,
            places: Places::default(),
            wires: Wires::default(),
            recording,
            broker: None,
            queues: HashMap::new(),
            queues_left_out: 0,
            lost: Lost::default(),
        }
    }

    fn take(&mut self, model: &mut Model, id: u64, event: &Event) {
        let Self { trace, places, wires, .. } = self;
        if event.pid.0 != 0 {
            places.process(trace, &model.processes, event.pid);
        }
        model.add_and_tell(id, event, &mut |said| wires.hear(trace, places, said));
        wires.take(trace, places, &model.processes, id, event);
        places.take(trace, &model.processes, id, event);
        match &event.body {
            Body::QueueSample(sample) if !sample.ours => self.queue(event.at_ns, sample),
            Body::Lost { what, count, .. } => {
                self.lost.add(event);
                let name = format!("{} lost", units::counted(*count, "event"));
                let mark = Mark::new("lost", name).text("what", Some(what)).count("count", *count);
                self.trace.instant(event.at_ns, self.recording, mark);
            }
            Body::Gap { since_ns, gone, why } => {
                self.lost.add(event);
                let text = words::gap(*since_ns, event.at_ns, gone, why);
                self.trace.instant(
                    event.at_ns,
                    self.recording,
                    Mark::new("lost", text).text("what", Some("gap")),
                );
            }
            Body::Note { level, text } if *level != NoteLevel::Info => {
                self.trace.instant(event.at_ns, self.recording, Mark::new("recording", text));
            }
            _ => {}
        }
        let last_ns = model.last_ns;
        for life in model.amqp.lives.take_done() {
            self.life(&life, last_ns);
        }
    }

    fn queue(&mut self, at_ns: u64, sample: &QueueSample) {
        let key = (sample.vhost.clone(), sample.queue.clone());
        if !self.queues.contains_key(&key) && self.queues.len() >= MOST_QUEUES {
            self.queues_left_out += 1;
            return;
        }
        let Self { trace, broker, queues, .. } = self;
        let queue = queues.entry(key).or_insert_with(|| {
            let broker = *broker.get_or_insert_with(|| trace.track(None, "broker"));
            let name = if sample.vhost == "/" {
                sample.queue.clone()
            } else {
                format!("{} {}", sample.vhost, sample.queue)
            };
            let ready = trace.counter(broker, &format!("{name} ready"));
            Queue { ready, unacked: trace.counter(broker, &format!("{name} unacknowledged")) }
        });
        for (track, value) in [(queue.ready, sample.ready), (queue.unacked, sample.unacked)] {
            if let Some(value) = value {
                trace.count(at_ns, track, value);
            }
        }
    }

    /// Draws a message: a flow from publish over delivery to settlement, for each of its ways through a queue.
    fn life(&mut self, life: &Life, last_ns: u64) {
        let last = life.passages.len().saturating_sub(1);
        for (index, passage) in life.passages.iter().enumerate() {
            self.published(life, passage);
            self.delivered(life, passage, last_ns);
            self.settled(life, passage, index == last);
        }
    }

    fn published(&mut self, life: &Life, passage: &Passage) {
        let Some(published) = passage.published else { return };
        // A send may return after the delivery it caused: an arrow must not run backwards.
        let at_ns = passage.delivered.map_or(u64::MAX, |delivered| delivered.at_ns).min(published.at_ns);
        let track = self.places.thread(&mut self.trace, published.pid, published.tid);
        let mark = about(Mark::new("message", format!("publish {}", named(life, passage))), life, passage);
        let mark = mark.count("event", published.event).count("at_ns", published.at_ns);
        self.trace.instant(at_ns, track, mark.flow(life.number));
    }

    fn delivered(&mut self, life: &Life, passage: &Passage, last_ns: u64) {
        let Some(delivered) = passage.delivered else { return };
        let until_ns = passage.settled.map_or(last_ns, |settlement| settlement.mark.at_ns);
        let settled = passage.settled.map_or("not settled", |settlement| settlement.how.name());
        let mark = about(Mark::new("message", named(life, passage)), life, passage)
            .text("settled", Some(settled))
            .whether("redelivered", passage.redelivered)
            .count("thread", delivered.tid.0.into())
            .count("event", delivered.event)
            .flow(life.number);
        let place = self.places.unnamed(&mut self.trace, delivered.pid);
        place.messages.slice(&mut self.trace, place.track, "messages", (delivered.at_ns, until_ns), mark);
    }

    fn settled(&mut self, life: &Life, passage: &Passage, last: bool) {
        let (Some(settlement), Some(delivered)) = (passage.settled, passage.delivered) else { return };
        // The broker took it back: no thread did.
        let track = if settlement.how == Settled::Returned {
            self.places.unnamed(&mut self.trace, delivered.pid).track
        } else {
            self.places.thread(&mut self.trace, settlement.mark.pid, settlement.mark.tid)
        };
        let name = format!("{} {}", settlement.how.name(), named(life, passage));
        let mark = about(Mark::new("message", name), life, passage).count("event", settlement.mark.event);
        let mark = if last { mark.flow_end(life.number) } else { mark.flow(life.number) };
        self.trace.instant(settlement.mark.at_ns.max(delivered.at_ns), track, mark);
    }

    fn finish(mut self, case: &Case<'_>, not_understood: u64) -> std::io::Result<()> {
        let last_ns = case.model.last_ns;
        self.wires.finish(&mut self.trace);
        self.places.finish(&mut self.trace, last_ns);
        let explanation = diagnose::explain(case);
        for finding in &explanation.findings {
            let cause = finding.cause.map_or(String::new(), |cause| format!(" ({cause})"));
            let mut mark = Mark::new("finding", format!("{}{cause}: {}", finding.code.name(), finding.title))
                .text("summary", Some(&finding.summary))
                .text("remedy", Some(&finding.remedy));
            for evidence in &finding.evidence {
                mark = mark.text("evidence", Some(format!("event {}: {}", evidence.event, evidence.text)));
            }
            let track = match finding.process {
                Some(subject) => {
                    self.places.process(&mut self.trace, &case.model.processes, subject.pid).track
                }
                None => self.recording,
            };
            let at_ns = finding.evidence.first().map_or(last_ns, |evidence| evidence.at_ns);
            self.trace.instant(at_ns, track, mark);
        }
        let by: BTreeMap<_, _> = std::mem::take(&mut self.lost.by);
        let mut mark = Mark::new("recording", "end")
            .text("verdict", Some(explanation.verdict.code.name()))
            .count("lost", self.lost.total)
            .count("not_understood", not_understood)
            .count("queues_left_out", self.queues_left_out);
        for (what, count) in by {
            mark = mark.count(&format!("lost {what}"), count);
        }
        self.trace.instant(last_ns, self.recording, mark);
        self.trace.finish()
    }
}

/// What a message is called: by its actor, else by its queue.
fn named<'a>(life: &'a Life, passage: &'a Passage) -> &'a str {
    life.actor.as_deref().or(passage.queue.as_deref()).unwrap_or("message")
}

fn about(mark: Mark, life: &Life, passage: &Passage) -> Mark {
    let mark = mark
        .text("message_id", life.message_id.as_ref())
        .text("queue", passage.queue.as_ref())
        .text("failure", passage.failure.as_ref());
    let mark = mark.number("retries", passage.retries.map(u64::cast_signed));
    if life.is_canary { mark.whether("canary", true) } else { mark }
}

#[cfg(test)]
mod tests;
