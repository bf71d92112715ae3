//! Imports as spans, one inside of the one that caused it. Knows events of imports and of ends; nothing of other spans than the process's.

use std::collections::HashMap;

use opentelemetry_proto::tonic::trace::v1::{
    Span, Status,
    span::{Event as SpanEvent, SpanKind},
    status::StatusCode,
};

use super::{
    attributes::{Attributes, harmless},
    conventions::{self as names, ours},
    frame::{Frame, key},
};
use crate::{
    event::{Body, Event, Import, Imported, Known, Pid, Tid},
    model::process::{Process, Processes},
};

/// Imports told of one process; more are only counted.
pub(super) const MOST: u64 = 5_000;
/// Imports that go on at the same time, of all threads; of more only the end is told.
pub(super) const MOST_OPEN: usize = 20_000;

/// How many imports of a process were told, and how many were not because there were too many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) told: u64,
    pub(super) left_out: u64,
}

/// The imports that go on.
#[derive(Debug, Default)]
pub(super) struct Imports {
    /// By process, then by thread; both leave when nothing is open.
    open: HashMap<Pid, HashMap<Tid, Vec<Open>>>,
    /// How many these are together.
    pub(super) held: usize,
    counts: HashMap<(Pid, u64), Count>,
}

/// One that was begun.
#[derive(Debug)]
struct Open {
    module: Known<String>,
    depth: u32,
    /// `None`: it is one too many.
    span: Option<Span>,
}

impl Imports {
    /// How many of a process there were.
    pub(super) fn count(&self, process: &Process) -> Count {
        self.counts.get(&key(process)).copied().unwrap_or_default()
    }

    /// Takes in the next event, which `known` has taken in already; hands the spans that it ends to `each`.
    pub(super) fn take(
        &mut self,
        frame: &Frame,
        known: &Processes,
        id: u64,
        event: &Event,
        each: &mut impl FnMut(Span),
    ) {
        match &event.body {
            Body::Import(import) => self.begin(frame, known, id, event, import, each),
            Body::Imported(imported) => self.end(frame, known, id, event, imported, each),
            // What its threads were in the middle of is gone.
            Body::Exec(_) | Body::Exit { .. } => {
                let threads = self.open.remove(&event.pid).unwrap_or_default();
                self.held -= close_all(frame, threads, event.at_ns, each);
            }
            Body::ThreadExit { .. } => {
                let open = self.open.get_mut(&event.pid).and_then(|threads| threads.remove(&event.tid));
                self.held -= close(frame, &mut open.unwrap_or_default(), 0, event.at_ns, each);
            }
            _ => {}
        }
    }

    /// The end: what goes on ends now.
    pub(super) fn finish(&mut self, frame: &Frame, at_ns: u64, each: &mut impl FnMut(Span)) {
        let mut processes: Vec<_> = self.open.drain().collect();
        processes.sort_by_key(|(pid, _)| *pid);
        for (_, threads) in processes {
            self.held -= close_all(frame, threads, at_ns, each);
        }
    }

    fn begin(
        &mut self,
        frame: &Frame,
        known: &Processes,
        id: u64,
        event: &Event,
        import: &Import,
        each: &mut impl FnMut(Span),
    ) {
        let Some(process) = known.get(event.pid) else { return };
        let Self { open: all, held, counts } = self;
        if let Some(open) = all.get_mut(&event.pid).and_then(|threads| threads.get_mut(&event.tid)) {
            // What is as deep as this one has ended unseen.
            *held -= close_from_depth(frame, open, import.depth, event.at_ns, each);
        }
        if *held >= MOST_OPEN {
            return;
        }
        let open = all.entry(event.pid).or_default().entry(event.tid).or_default();
        let span = is_told(counts, process).then(|| {
            let attributes = Attributes::new()
                .text(ours::MODULE, import.module.get())
                .text(ours::IMPORTER, import.importer.get())
                .text(ours::FUNCTION, import.function.get());
            let span = begun(frame, (id, event), parent(frame, process, open), &import.module, attributes);
            Span { start_time_unix_nano: frame.unix_ns(event.at_ns), ..span }
        });
        *held += 1;
        open.push(Open { module: import.module.clone(), depth: import.depth, span });
    }

    fn end(
        &mut self,
        frame: &Frame,
        known: &Processes,
        id: u64,
        event: &Event,
        imported: &Imported,
        each: &mut impl FnMut(Span),
    ) {
        let Some(process) = known.get(event.pid) else { return };
        let Self { open: all, held, counts } = self;
        let threads = all.entry(event.pid).or_default();
        let open = threads.entry(event.tid).or_default();
        *held -= close_from_depth(frame, open, imported.depth.saturating_add(1), event.at_ns, each);
        let is_this = |open: &Open| open.depth == imported.depth && open.module == imported.module;
        let span = match open.pop_if(|open| is_this(open)) {
            Some(open) => {
                *held -= 1;
                open.span
            }
            // Its beginning was lost, or it was one too many.
            None => {
                *held -= close_from_depth(frame, open, imported.depth, event.at_ns, each);
                is_told(counts, process).then(|| {
                    let attributes = Attributes::new().text(ours::MODULE, imported.module.get());
                    let parent = parent(frame, process, open);
                    let span = begun(frame, (id, event), parent, &imported.module, attributes);
                    Span { start_time_unix_nano: frame.unix_ns(imported.since_ns), ..span }
                })
            }
        };
        if open.is_empty() {
            threads.remove(&event.tid);
        }
        if threads.is_empty() {
            all.remove(&event.pid);
        }
        if let Some(span) = span {
            each(ended(frame, span, event.at_ns, imported));
        }
    }
}

/// Counts one more of a process; whether it is to be told.
fn is_told(counts: &mut HashMap<(Pid, u64), Count>, process: &Process) -> bool {
    let count = counts.entry(key(process)).or_default();
    let told = count.told < MOST;
    count.told += u64::from(told);
    count.left_out += u64::from(!told);
    told
}

/// The innermost import that is told, or the process.
fn parent(frame: &Frame, process: &Process, open: &[Open]) -> Vec<u8> {
    let innermost = open.iter().rev().find_map(|open| open.span.as_ref());
    innermost.map_or_else(|| frame.process(process), |span| span.span_id.clone())
}

fn begun(
    frame: &Frame,
    (id, event): (u64, &Event),
    parent_span_id: Vec<u8>,
    module: &Known<String>,
    about: Attributes,
) -> Span {
    let about = about
        .number(names::PROCESS_PID, Some(event.pid.0.into()))
        .number(names::THREAD_ID, Some(event.tid.0.into()))
        .number(ours::EVENT, Some(id));
    Span {
        trace_id: frame.trace(),
        span_id: frame.import(id),
        parent_span_id,
        name: harmless(&format!("import {}", module.get().map_or("(not known)", String::as_str))),
        kind: SpanKind::Internal.into(),
        attributes: about.all,
        ..Span::default()
    }
}

/// A span whose end was seen.
fn ended(frame: &Frame, span: Span, at_ns: u64, imported: &Imported) -> Span {
    let end_time_unix_nano = frame.unix_ns(at_ns).max(span.start_time_unix_nano);
    if imported.loaded {
        return Span { end_time_unix_nano, ..span };
    }
    let exception = imported.exception.as_deref().map(|exception| SpanEvent {
        time_unix_nano: end_time_unix_nano,
        name: names::EXCEPTION.to_owned(),
        attributes: Attributes::new().text(names::EXCEPTION_TYPE, Some(exception)).all,
        ..SpanEvent::default()
    });
    let mut attributes = span.attributes;
    attributes.extend(Attributes::new().text(names::ERROR_TYPE, imported.exception.as_ref()).all);
    Span {
        end_time_unix_nano,
        attributes,
        events: exception.into_iter().collect(),
        status: Some(Status { message: "not imported".to_owned(), code: StatusCode::Error.into() }),
        ..span
    }
}

fn close_all(
    frame: &Frame,
    threads: HashMap<Tid, Vec<Open>>,
    at_ns: u64,
    each: &mut impl FnMut(Span),
) -> usize {
    let mut threads: Vec<_> = threads.into_iter().collect();
    threads.sort_by_key(|(tid, _)| *tid);
    threads.into_iter().map(|(_, mut open)| close(frame, &mut open, 0, at_ns, each)).sum()
}

/// Ends imports as deep as this or deeper, whose own end was not seen; says how many.
fn close_from_depth(
    frame: &Frame,
    open: &mut Vec<Open>,
    least: u32,
    at_ns: u64,
    each: &mut impl FnMut(Span),
) -> usize {
    let kept = open.iter().rposition(|open| open.depth < least).map_or(0, |last| last + 1);
    close(frame, open, kept, at_ns, each)
}

fn close(frame: &Frame, open: &mut Vec<Open>, kept: usize, at_ns: u64, each: &mut impl FnMut(Span)) -> usize {
    let closed = open.split_off(kept.min(open.len()));
    let count = closed.len();
    for span in closed.into_iter().rev().filter_map(|open| open.span) {
        let mut attributes = span.attributes;
        attributes.extend(Attributes::new().flag(ours::UNFINISHED, true).all);
        let end_time_unix_nano = frame.unix_ns(at_ns).max(span.start_time_unix_nano);
        each(Span { end_time_unix_nano, attributes, ..span });
    }
    count
}
