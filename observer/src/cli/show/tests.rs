//! What `show` says of a session on disk.

use std::io::Write as _;

use clap::Parser;
use serde_json::Value;

use super::{Args, document, screen};
use crate::{
    model::fixture,
    session::{Invoker, Recorder, Redactor, Session, StateDir},
};

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: Args,
}

fn args(words: &[&str]) -> Result<Args, clap::Error> {
    Command::try_parse_from(["show", "failing"].iter().chain(words)).map(|command| command.args)
}

fn with_session<T>(test: impl FnOnce(&Session) -> T) -> T {
    let scratch = tempfile::tempdir().unwrap();
    let dir = StateDir::open(Some(scratch.path()), &Invoker::current()).unwrap();
    let mut recorder = Recorder::create(&dir, fixture::header(), Redactor::open(&dir).unwrap()).unwrap();
    let path = recorder.path().to_owned();
    recorder.append(fixture::events(), None);
    assert_eq!(recorder.finish(fixture::ending()), None);
    test(&Session::open(&path).unwrap())
}

fn shown(words: &[&str]) -> String {
    let mut out = anstream::StripStream::new(Vec::new());
    with_session(|session| screen(&args(words).unwrap(), session, 100, &mut out)).unwrap();
    out.flush().unwrap();
    String::from_utf8(out.into_inner()).unwrap()
}

fn parsed(words: &[&str]) -> Value {
    let mut out = Vec::new();
    with_session(|session| document(&args(words).unwrap(), session, &mut out)).unwrap();
    serde_json::from_slice(&out).unwrap()
}

#[test]
fn the_search_for_modules_is_left_out_and_said_so() {
    let text = shown(&[]);
    assert!(text.contains("minimal_worker.cpython-312.pyc"), "an import: {text}");
    assert!(text.contains("= EACCES"), "a refusal: {text}");
    assert!(!text.contains("ENOENT") && !text.contains("libc.so.6"), "{text}");
    let last = text.lines().last().unwrap();
    assert_eq!(
        last,
        "left out, file look-ups and imports: 2 open, 1 stat; with them: observer show failing --all"
    );
    assert_eq!(text.lines().count(), fixture::events().len() - 3 + 1);
}

#[test]
fn what_is_asked_for_is_shown_whole() {
    assert_eq!(shown(&["--all"]).lines().count(), fixture::events().len());
    assert!(shown(&["--path", "libc"]).contains("/lib/x86_64-linux-gnu/libc.so.6"));
    let failed = shown(&["--kind", "stat,exit"]);
    assert_eq!(failed.lines().count(), 3, "{failed}");
    let text = shown(&["--from", "8.9s", "--to", "9.0001s", "--pid", "4712"]);
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.contains("SIGKILL to the process") && text.contains("reset by us"));
}

#[test]
fn a_limit_counts_what_is_shown() {
    let text = shown(&["--limit", "4"]);
    assert_eq!(text.lines().count(), 4 + 2, "{text}");
    assert!(text.ends_with("stopped after 4 events (--limit)\n"), "{text}");
    assert!(!shown(&["--kind", "fork", "--limit", "1"]).contains("stopped"), "there was no more");
}

#[test]
fn nothing_found_is_said() {
    assert_eq!(shown(&["--pid", "1"]), "no such events; `observer show --help` lists the kinds\n");
}

#[test]
fn the_environment_is_shown_when_asked_for() {
    assert!(!shown(&[]).contains("PATH=/venv/bin"));
    assert!(shown(&["--env"]).contains("PATH=/venv/bin:/usr/bin"));
}

#[test]
fn the_summary_is_one_screen() {
    let text = shown(&["--summary"]);
    assert!(text.starts_with("session     python -m dramatiq minimal_worker"), "{text}");
    assert!(text.lines().count() <= 40);
}

#[test]
fn json_is_one_document_with_every_kind() {
    let document = parsed(&[]);
    assert_eq!(document["schema"], "observer.show/1");
    assert_eq!(document["session"]["name"], "failing");
    assert_eq!(document["session"]["ending"]["code"], 1);
    let events = document["events"].as_array().unwrap();
    assert_eq!(events.len(), fixture::events().len());
    assert!(events.iter().any(|event| event["kind"] == "stat"));
    assert_eq!(events[0]["since_start_ns"], 100_000);
}

#[test]
fn json_takes_the_same_filters() {
    let kinds = |words: &[&str]| parsed(words)["events"].as_array().unwrap().len();
    assert_eq!(kinds(&["--kind", "exit"]), 2);
    assert_eq!(kinds(&["--limit", "5"]), 5);
    assert_eq!(kinds(&["--pid", "1"]), 0);
}

#[test]
fn an_unknown_kind_is_refused_with_those_there_are() {
    let error = args(&["--kind", "exec,opened"]).unwrap_err().to_string();
    assert!(
        error.contains("'opened'") && error.contains("exec-failed") && error.contains("connected"),
        "{error}"
    );
    assert!(args(&["--from", "soon"]).unwrap_err().to_string().contains("write seconds or one of"));
}

#[test]
fn a_pipe_that_closes_stops_the_reading() {
    struct Closed;
    impl std::io::Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    for result in with_session(|session| {
        let args = args(&[]).unwrap();
        [screen(&args, session, 100, &mut Closed), document(&args, session, &mut Closed)]
    }) {
        let error = result.unwrap_err();
        let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        assert_eq!(kind, Some(std::io::ErrorKind::BrokenPipe), "{error:?}");
    }
}

#[test]
fn every_view_is_a_document_with_a_schema_of_its_own() {
    for (view, list) in
        [("amqp", "said"), ("messages", "messages"), ("queues", "queues"), ("ladder", "ladder")]
    {
        let option = format!("--{view}");
        let document = parsed(&[&option]);
        assert_eq!(document["schema"], format!("observer.show-{view}/1"));
        assert_eq!(document["session"]["name"], "failing");
        assert!(document[list].is_array(), "{document}");
        assert!(!shown(&[&option]).is_empty());
    }
    let ladder = &parsed(&["--ladder"])["ladder"][0];
    assert_eq!((&ladder["pid"], &ladder["role"]), (&4712.into(), &"worker".into()));
    assert_eq!(ladder["rungs"][3]["rung"], "connect");
    assert_eq!(ladder["rungs"][3]["reached"], true);
}

#[test]
fn views_do_not_mix() {
    for words in [
        ["--amqp", "--messages"],
        ["--queues", "--summary"],
        ["--ladder", "--env"],
        ["--amqp", "--message=x"],
    ] {
        assert!(args(&words).is_err(), "{words:?}");
    }
}
