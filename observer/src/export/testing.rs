//! What tests of exports share: the hand-made session, on disk, and what is made of it.

use super::{ExportError, Progress};
use crate::{
    event::{Body, Event, Known},
    model::fixture,
    session::{Invoker, Recorder, Redactor, Session, StateDir},
};

/// A recorded session of these events.
pub(super) fn session_of(events: Vec<Event>) -> (tempfile::TempDir, Session) {
    let scratch = tempfile::tempdir().unwrap();
    let dir = StateDir::open(Some(scratch.path()), &Invoker::current()).unwrap();
    let mut recorder = Recorder::create(&dir, fixture::header(), Redactor::open(&dir).unwrap()).unwrap();
    let path = recorder.path().to_owned();
    recorder.append(events, None);
    assert_eq!(recorder.finish(fixture::ending()), None);
    let session = Session::open(&path).unwrap();
    (scratch, session)
}

/// The hand-made session.
pub(super) fn session() -> (tempfile::TempDir, Session) {
    session_of(fixture::events())
}

/// What is written.
pub(super) fn exported(write: impl FnOnce(&mut Vec<u8>, &Progress) -> Result<(), ExportError>) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out, &Progress::default()).unwrap();
    out
}

/// Text that a page of Markdown would obey.
pub(super) const HOSTILE_MARKDOWN: [&str; 4] =
    ["@somebody", "</pre><script>alert(1)</script>", "](javascript:alert(1))", "``` evil"];

/// The hand-made session, in which what kills the worker is called so.
pub(super) fn hostile_events() -> Vec<Event> {
    let mut events = fixture::events();
    for event in &mut events {
        if let Body::Signal { sender: Known::Is(sender), .. } = &mut event.body {
            sender.cmdline = Known::Is(format!("{} {}", HOSTILE_MARKDOWN.join(" "), fixture::HOSTILE));
        }
    }
    events
}
