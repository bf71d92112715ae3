//! A session that grows is read as it is, whole and once, and who reads it is in nobody's way.

use std::path::PathBuf;

use serde_json::Value;

use super::{
    Eyes,
    follower::{Follower, Got},
    lines::{Documents, Everything, News, Printer, read_out},
};
use crate::{
    diagnose::{self, case::Case},
    event::Event,
    fold,
    model::fixture::{self, STARTED_NS},
    render::live::Tail,
    session::{Filter, Invoker, Recorder, Redactor, Session, State, StateDir},
};

struct Scene {
    _scratch: tempfile::TempDir,
    recorder: Option<Recorder>,
    path: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let dir = StateDir::open(Some(scratch.path()), &Invoker::current()).unwrap();
        let recorder = Recorder::create(&dir, fixture::header(), Redactor::open(&dir).unwrap()).unwrap();
        let path = recorder.path().to_owned();
        Self { _scratch: scratch, recorder: Some(recorder), path }
    }

    fn record(&mut self, events: &[Event]) {
        let recorder = self.recorder.as_mut().unwrap();
        recorder.append(events.to_vec(), None);
        recorder.commit();
    }

    fn end(&mut self) {
        assert_eq!(self.recorder.take().unwrap().finish(fixture::ending()), None);
    }

    /// Whether the session is in one file again.
    fn is_one_file(&self) -> bool {
        !self.path.with_extension("sqlite-wal").exists()
    }
}

fn eyes() -> Eyes {
    Eyes { started_ns: STARTED_NS, tail: Tail::default() }
}

#[test]
fn what_is_read_bit_by_bit_is_what_is_read_at_once() {
    let mut scene = Scene::new();
    let events = fixture::events();
    let mut follower = Follower::open(&scene.path).unwrap().in_windows_of(3);
    let mut eyes = eyes();
    assert_eq!(follower.read(&mut eyes).unwrap(), Got::All, "nothing so far");
    scene.record(&events[..7]);
    assert_eq!(follower.read(&mut eyes).unwrap(), Got::More);
    assert_eq!((follower.model.events(), follower.behind()), (3, 4));
    assert_eq!(follower.read(&mut eyes).unwrap(), Got::More);
    assert_eq!(follower.read(&mut eyes).unwrap(), Got::All);
    assert_eq!((follower.model.events(), follower.state), (7, State::Recording));
    let so_far = follower.explanation();
    assert_eq!(so_far, follower.explanation(), "asking changes nothing");
    scene.record(&events[7..]);
    scene.end();
    let mut reads = 0;
    while follower.read(&mut eyes).unwrap() != Got::End {
        reads += 1;
        assert!(reads < events.len());
    }
    assert_eq!((follower.model.events(), follower.state), (events.len() as u64, State::Done));
    let session = Session::open(&scene.path).unwrap();
    let model = fold::fold(&session, &Filter::default(), None).unwrap();
    let whole = diagnose::explain(&Case::new(session.header(), session.ending().as_ref(), &model));
    assert_eq!(follower.explanation(), whole);
}

#[test]
fn a_session_that_was_followed_is_one_file_in_the_end() {
    let mut scene = Scene::new();
    scene.record(&fixture::events());
    let mut follower = Follower::open(&scene.path).unwrap();
    assert_eq!(follower.read(&mut eyes()).unwrap(), Got::All);
    scene.end();
    assert!(scene.is_one_file(), "a follower that reads nothing has nothing open");
    assert_eq!(follower.read(&mut eyes()).unwrap(), Got::End);
}

#[test]
fn a_session_waits_for_those_who_read_when_it_ends() {
    let mut scene = Scene::new();
    scene.record(&fixture::events());
    let reader = Session::open(&scene.path).unwrap();
    assert!(reader.newest_id() > 0);
    let (recorder, (read, is_read)) = (scene.recorder.take().unwrap(), std::sync::mpsc::channel::<()>());
    let ending = std::thread::spawn(move || {
        read.send(()).unwrap();
        recorder.finish(fixture::ending())
    });
    is_read.recv().unwrap();
    // Gone within the half second that is waited, and after the ending was written.
    while reader.ending().is_none() {
        std::thread::yield_now();
    }
    drop(reader);
    assert_eq!(ending.join().unwrap(), None);
    assert!(scene.is_one_file());
}

/// What a printer prints of a session that has ended.
fn printed(scene: &Scene, make: impl for<'a> FnOnce(&'a mut Vec<u8>) -> Box<dyn Printer + 'a>) -> String {
    let mut out = Vec::new();
    let mut follower = Follower::open(&scene.path).unwrap();
    read_out(&mut follower, &mut *make(&mut out), &mut |_| panic!("nothing is to be waited for")).unwrap();
    String::from_utf8(out).unwrap()
}

fn ended() -> Scene {
    let mut scene = Scene::new();
    scene.record(&fixture::events());
    scene.end();
    scene
}

#[test]
fn as_json_it_is_an_event_a_line_after_the_header() {
    let scene = ended();
    let text = printed(&scene, |out| Box::new(Documents::of(&scene.path, out).unwrap()));
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [head, events @ ..] = lines.as_slice() else { panic!("{text}") };
    assert_eq!(
        (&head["kind"], &head["unseen"][0]),
        (&"header".into(), &"file calls made through io_uring".into())
    );
    let kinds: Vec<&str> = events.iter().map(|event| event["kind"].as_str().unwrap()).collect();
    let expected: Vec<&str> = fixture::events().iter().map(|event| event.body.kind()).collect();
    assert_eq!(kinds, expected);
}

#[test]
fn as_lines_events_come_without_searches_and_rungs_with_them() {
    let scene = ended();
    let text = printed(&scene, |out| Box::new(Everything(anstream::StripStream::new(out))));
    assert!(text.contains("ladder     ✓ connect") && text.contains("killed by SIGKILL"), "{text}");
    assert!(!text.contains("newfstatat"), "{text}");
    assert!(text.chars().all(|c| c == '\n' || crate::words::escape::is_plain(c)), "{text}");
}

#[test]
fn news_are_told_once_each_while_it_is_recorded() {
    let mut scene = Scene::new();
    let events = fixture::events();
    scene.record(&events[..21]);
    let mut follower = Follower::open(&scene.path).unwrap();
    let mut out = Vec::new();
    let mut news = News::new(anstream::StripStream::new(&mut out));
    let mut rest = events[21..].chunks(4);
    read_out(&mut follower, &mut news, &mut |_| {
        rest.next().is_some_and(|more| {
            scene.record(more);
            true
        })
    })
    .unwrap();
    drop(news);
    let text = String::from_utf8(out).unwrap();
    assert!(text.lines().all(|line| line.starts_with("observer: ")), "{text}");
    assert_eq!(text.matches("connection-refused").count(), 1, "{text}");
    assert_eq!(text.matches("✓ boot").count(), 1, "{text}");
}
