//! Moves events from sources into a session until told to stop. Knows neither what the events say nor who is watching.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{self, RecvTimeoutError, SyncSender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    event::{Body, Event, NoteLevel, Origin, Pid, Tid},
    session::{Ending, Recorder},
    source::{self, Flow, Source, proc},
};

/// How often a source is asked and the session committed when little happens.
const BEAT: Duration = Duration::from_millis(30);
/// Events on their way to the session before the source is told to keep the rest: bounds memory.
const IN_FLIGHT: usize = 16_384;
/// Batches on their way. When even these are taken the source waits, and what it loses meanwhile it counts.
const BATCHES: usize = 64;

/// Called with every event as the source gave it, for decisions; it must not let any of it out.
pub type Glance = Box<dyn FnMut(&Event) + Send>;

/// What goes to the thread that writes the session.
enum Parcel {
    Events(Vec<Event>),
    /// Something to be done with the session between two events.
    Task(Box<dyn FnOnce(&mut Recorder) + Send>),
}

/// A recording under way: one thread asks each source, one writes the session.
pub struct Recording {
    stop: Arc<AtomicBool>,
    sources: Vec<JoinHandle<()>>,
    store: JoinHandle<Recorder>,
    tasks: SyncSender<Parcel>,
}

impl Recording {
    /// Starts to record `sources` into `recorder`. A source that ends or fails leaves the others going.
    pub fn start(sources: Vec<Box<dyn Source>>, recorder: Recorder, glance: Glance) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let in_flight = Arc::new(AtomicUsize::new(0));
        let (sender, receiver) = mpsc::sync_channel::<Parcel>(BATCHES);
        let glance = Arc::new(Mutex::new(glance));
        let asking = |source| {
            let (stop, in_flight) = (Arc::clone(&stop), Arc::clone(&in_flight));
            let (sender, glance) = (sender.clone(), Arc::clone(&glance));
            thread::spawn(move || ask(source, &stop, &in_flight, &sender, &glance))
        };
        let sources = sources.into_iter().map(asking).collect();
        // The writer ends when all senders are gone: those of the sources, and this one.
        let tasks = sender;
        let writing = thread::spawn(move || {
            source::step_back();
            write(recorder, &receiver, &in_flight)
        });
        Self { stop, sources, store: writing, tasks }
    }

    /// Has the thread that writes the session do something with it, and waits for the answer. `None` when that thread is gone.
    pub fn ask<T: Send + 'static>(
        &self,
        task: impl FnOnce(&mut Recorder) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = mpsc::sync_channel(1);
        let task = Box::new(move |recorder: &mut Recorder| {
            let _ = answer.send(task(recorder));
        });
        self.tasks.send(Parcel::Task(task)).ok()?;
        answered.recv().ok()
    }

    /// Takes what the sources still have, and ends the session. Says what trouble the store had.
    pub fn finish(self, ending: Ending) -> Option<String> {
        match self.stop() {
            (0, Some(recorder)) => recorder.finish(ending),
            (_, Some(recorder)) => {
                let _ = recorder.finish(ending);
                Some("a source of events ended unexpectedly".into())
            }
            (_, None) => {
                Some("the session's writer ended unexpectedly; what it had committed is kept".into())
            }
        }
    }

    /// Takes what the sources still have, and leaves the session without an end, for somebody who goes on with it.
    pub fn leave(self) {
        if let (_, Some(mut recorder)) = self.stop() {
            recorder.commit();
        }
    }

    /// Stops all threads. How many sources ended by themselves, badly; and the session.
    fn stop(self) -> (usize, Option<Recorder>) {
        let Self { stop, sources, store, tasks } = self;
        stop.store(true, Ordering::Release);
        let failed = sources.into_iter().map(JoinHandle::join).filter(Result::is_err).count();
        drop(tasks);
        (failed, store.join().ok())
    }
}

fn ask(
    mut source: Box<dyn Source>,
    stop: &AtomicBool,
    in_flight: &AtomicUsize,
    sender: &SyncSender<Parcel>,
    glance: &Mutex<Glance>,
) {
    let send = |batch: Vec<Event>| {
        batch.iter().for_each(&mut *glance.lock().unwrap_or_else(PoisonError::into_inner));
        in_flight.fetch_add(batch.len(), Ordering::AcqRel);
        sender.send(Parcel::Events(batch)).is_ok()
    };
    loop {
        let stopping = stop.load(Ordering::Acquire);
        let mut batch = Vec::new();
        let flow = if stopping {
            source.finish(&mut batch);
            Ok(Flow::End)
        } else {
            let room = IN_FLIGHT.saturating_sub(in_flight.load(Ordering::Acquire));
            source.poll(BEAT, room, &mut batch)
        };
        if let Err(error) = &flow {
            batch.push(note(NoteLevel::Trouble, error.to_string()));
        }
        if !batch.is_empty() && !send(batch) {
            return;
        }
        if !matches!(flow, Ok(Flow::More)) {
            return;
        }
    }
}

fn note(level: NoteLevel, text: String) -> Event {
    Event {
        at_ns: proc::monotonic_ns(),
        pid: Pid(0),
        tid: Tid(0),
        observed_from: Origin::Observer,
        body: Body::Note { level, text },
        bytes: Vec::new(),
    }
}

fn write(mut recorder: Recorder, receiver: &mpsc::Receiver<Parcel>, in_flight: &AtomicUsize) -> Recorder {
    loop {
        match receiver.recv_timeout(BEAT) {
            Ok(Parcel::Task(task)) => task(&mut recorder),
            Ok(Parcel::Events(batch)) => {
                let len = batch.len();
                recorder.append(batch, None);
                in_flight.fetch_sub(len, Ordering::AcqRel);
            }
            Err(RecvTimeoutError::Timeout) => recorder.commit_if_due(),
            Err(RecvTimeoutError::Disconnected) => return recorder,
        }
    }
}
