//! Events on their way from the tracer to whoever asks for them: bounded, because a tracer that waits holds up the target. It drops what
//! there is most of, and counts it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    event::{Body, Event, Hop, Origin, Pid, Tid},
    source::proc,
};

/// Events, and bytes they carry, on their way at one time. What must not be lost comes regardless.
const EVENTS: usize = 100_000;
const BYTES: usize = 64 * 1024 * 1024;

#[derive(Default)]
struct Waiting {
    events: VecDeque<Event>,
    bytes: usize,
    lost: BTreeMap<&'static str, u64>,
    closed: bool,
}

/// See the module.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    news: Condvar,
}

/// By what name its loss is counted; `None` for what must not be lost.
fn bulk(body: &Body) -> Option<&'static str> {
    match body {
        Body::Data { .. } => Some("data"),
        Body::Output { .. } => Some("output"),
        body => body.file_call().map(|_| "file"),
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one, or counts it as lost.
    pub(super) fn push(&self, event: Event) {
        let mut waiting = self.lock();
        let full = waiting.events.len() >= EVENTS || waiting.bytes + event.bytes.len() > BYTES;
        match bulk(&event.body).filter(|_| full) {
            Some(what) => *waiting.lost.entry(what).or_default() += 1,
            None => {
                waiting.bytes += event.bytes.len();
                waiting.events.push_back(event);
            }
        }
    }

    /// Says that nothing will come any more.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.news.notify_all();
    }

    /// Waits up to `wait` for the end.
    pub(super) fn wait_closed(&self, wait: Duration) {
        let _ = self.news.wait_timeout_while(self.lock(), wait, |waiting| !waiting.closed);
    }

    /// Waits up to `wait` for the end, then appends up to `room` events to `out`. Whether more can come.
    pub(super) fn take(&self, wait: Duration, room: usize, out: &mut Vec<Event>) -> bool {
        let waiting = self.lock();
        let (mut waiting, _) = self
            .news
            .wait_timeout_while(waiting, wait, |waiting| !waiting.closed)
            .unwrap_or_else(PoisonError::into_inner);
        let taken = room.min(waiting.events.len());
        out.extend(waiting.events.drain(..taken));
        waiting.bytes = waiting.events.iter().map(|event| event.bytes.len()).sum();
        for (what, count) in std::mem::take(&mut waiting.lost) {
            let body = Body::Lost { hop: Hop::Channel, what: what.to_owned(), cpu: None, count };
            let (at_ns, pid, tid) = (proc::monotonic_ns(), Pid(0), Tid(0));
            out.push(Event { at_ns, pid, tid, observed_from: Origin::Observer, body, bytes: Vec::new() });
        }
        !waiting.closed || !waiting.events.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Fd, OutputStream};

    fn event(body: Body, bytes: usize) -> Event {
        let (pid, tid) = (Pid(1), Tid(1));
        Event { at_ns: 1, pid, tid, observed_from: Origin::Ptrace, body, bytes: vec![0; bytes] }
    }

    #[test]
    fn what_does_not_fit_is_counted_and_an_exit_always_fits() {
        let output = || {
            let body = Body::Output {
                stream: OutputStream::Stdout,
                fd: Fd(1),
                inode: 1,
                len: 1,
                piece_offset: 0,
                errno: 0,
            };
            event(body, BYTES / 2)
        };
        let queue = Queue::default();
        (0..5).for_each(|_| queue.push(output()));
        queue.push(event(Body::Exit { code: Some(0), signal: None, core_dumped: false }, 0));
        let mut out = Vec::new();
        assert!(queue.take(Duration::ZERO, 1, &mut out));
        queue.push(output());
        queue.close();
        assert!(!queue.take(Duration::ZERO, 100, &mut out));
        let kinds: Vec<&str> = out.iter().map(|event| event.body.kind()).collect();
        assert_eq!(kinds, ["output", "lost", "output", "exit", "output"]);
        assert!(matches!(out[1].body, Body::Lost { hop: Hop::Channel, count: 3, .. }));
    }
}
