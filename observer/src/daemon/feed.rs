//! A recording's share of what the one source in the kernel gives: put in by whoever sorts it, taken out by the recording. Bounded; what
//! does not fit is counted. Knows events; nothing of whose they are.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    capability::Description,
    event::{Body, Event, Hop, Origin, Pid, Tid},
    source::{Flow, Source, SourceError, proc},
};

/// Bytes that may wait before events are left out, and before even those that must not be lost are.
const MOST_BYTES: usize = 8 << 20;
const MOST_VITAL_BYTES: usize = 16 << 20;
/// What an event takes besides what it carries, roughly.
const EVENT_BYTES: usize = 512;

#[derive(Default)]
struct Waiting {
    events: VecDeque<Event>,
    bytes: usize,
    lost: u64,
    closed: bool,
}

#[derive(Default)]
struct Pipe {
    waiting: Mutex<Waiting>,
    came: Condvar,
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where events are put in.
pub(super) struct Inlet(Arc<Pipe>);

/// Where they come out.
pub(super) struct Feed {
    pipe: Arc<Pipe>,
    description: Description,
}

/// The two ends; `description` is that of the source behind them.
pub(super) fn feed(description: Description) -> (Inlet, Feed) {
    let pipe = Arc::new(Pipe::default());
    (Inlet(Arc::clone(&pipe)), Feed { pipe, description })
}

fn weight(event: &Event) -> usize {
    EVENT_BYTES + event.bytes.len()
}

impl Inlet {
    /// Puts an event in, or counts it as lost. Whether it was put in.
    pub(super) fn put(&self, event: Event) -> bool {
        let mut waiting = self.0.lock();
        let most = if is_vital(&event.body) { MOST_VITAL_BYTES } else { MOST_BYTES };
        let weight = weight(&event);
        if waiting.closed || waiting.bytes + weight > most {
            waiting.lost += 1;
            return false;
        }
        waiting.bytes += weight;
        waiting.events.push_back(event);
        true
    }

    /// Whether nobody is at the other end any more.
    pub(super) fn is_closed(&self) -> bool {
        self.0.lock().closed
    }

    /// Lets the other end look at what was put in.
    pub(super) fn flush(&self) {
        self.0.came.notify_one();
    }
}

impl Drop for Inlet {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.came.notify_one();
    }
}

/// Exec, exit, fork, connect: without them the rest makes no sense.
const fn is_vital(body: &Body) -> bool {
    matches!(
        body,
        Body::Fork { .. }
            | Body::Exec(_)
            | Body::Exit { .. }
            | Body::Connect { .. }
            | Body::Lost { .. }
            | Body::Note { .. }
    )
}

impl Drop for Feed {
    /// What nobody will take out is not kept, and nothing more is.
    fn drop(&mut self) {
        *self.pipe.lock() = Waiting { closed: true, ..Waiting::default() };
    }
}

impl Feed {
    fn take(&self, waiting: &mut Waiting, room: usize, out: &mut Vec<Event>) {
        let count = waiting.events.len().min(room.max(1));
        for event in waiting.events.drain(..count) {
            waiting.bytes = waiting.bytes.saturating_sub(weight(&event));
            out.push(event);
        }
        let lost = std::mem::take(&mut waiting.lost);
        if lost > 0 {
            let body = Body::Lost { hop: Hop::Channel, what: "event".into(), cpu: None, count: lost };
            let (pid, tid, bytes) = (Pid(0), Tid(0), Vec::new());
            let at_ns = proc::monotonic_ns();
            out.push(Event { at_ns, pid, tid, observed_from: Origin::Observer, body, bytes });
        }
    }
}

impl Source for Feed {
    fn describe(&self) -> Description {
        self.description.clone()
    }

    fn poll(&mut self, wait: Duration, room: usize, out: &mut Vec<Event>) -> Result<Flow, SourceError> {
        let waiting = self.pipe.lock();
        let empty = |waiting: &mut Waiting| waiting.events.is_empty() && !waiting.closed;
        let (mut waiting, _) =
            self.pipe.came.wait_timeout_while(waiting, wait, empty).unwrap_or_else(PoisonError::into_inner);
        self.take(&mut waiting, room, out);
        Ok(if waiting.closed && waiting.events.is_empty() { Flow::End } else { Flow::More })
    }

    fn finish(&mut self, out: &mut Vec<Event>) {
        let mut waiting = self.pipe.lock();
        self.take(&mut waiting, usize::MAX, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::OutputStream;

    fn event(body: Body, len: usize) -> Event {
        let (pid, tid) = (Pid(1), Tid(1));
        Event { at_ns: 1, pid, tid, observed_from: Origin::Ebpf, body, bytes: vec![0; len] }
    }

    fn output(len: usize) -> Event {
        let stream = OutputStream::Stdout;
        let body = Body::Output {
            stream,
            fd: crate::event::Fd(1),
            inode: 0,
            len: len as u64,
            piece_offset: 0,
            errno: 0,
        };
        event(body, len)
    }

    #[test]
    fn what_nobody_will_take_out_is_not_kept() {
        let (inlet, feed) = feed(Description { name: "ebpf".into(), unseen: Vec::new() });
        assert!(inlet.put(output(1 << 20)) && !inlet.is_closed());
        drop(feed);
        assert!(inlet.is_closed());
        assert!(!inlet.put(output(1)));
        let waiting = inlet.0.lock();
        assert_eq!((waiting.events.capacity(), waiting.bytes), (0, 0));
    }

    #[test]
    fn what_does_not_fit_is_counted_and_what_matters_still_fits() {
        let (inlet, mut feed) = feed(Description { name: "ebpf".into(), unseen: Vec::new() });
        let mut refused = 0;
        while refused < 3 {
            refused += u64::from(!inlet.put(output(1 << 20)));
        }
        assert!(inlet.put(event(Body::Fork { child: Pid(2) }, 0)), "a fork fits where output does not");
        drop(inlet);
        let mut out = Vec::new();
        let mut flow = Flow::More;
        while flow == Flow::More {
            flow = feed.poll(Duration::from_secs(5), 2, &mut out).unwrap();
        }
        let lost: u64 = out
            .iter()
            .filter_map(|event| match event.body {
                Body::Lost { count, .. } => Some(count),
                _ => None,
            })
            .sum();
        assert_eq!(lost, refused);
        assert!(out.iter().any(|event| matches!(event.body, Body::Fork { .. })));
    }
}
