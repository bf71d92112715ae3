//! Runs made by hand, with one difference that matters among others.

use super::{Comparison, Kind, compare, run::Reader};
use crate::{
    event::{Body, Distribution, Distributions, Event, Exec, FileLook, Known},
    model::fixture::{self, MASTER, STARTED_NS, at},
};

const NOISE: [(&str, &str, &str); 6] = [
    ("SHLVL", "1", "3"),
    ("SSH_AGENT_PID", "7", "9"),
    ("RELEASE", "41", "42"),
    ("BROKER_ALERT_EMAIL", "a@x.invalid", "b@x.invalid"),
    ("TMPDIR", "/tmp/a", "/tmp/b"),
    ("STATSD_PREFIX", "blue", "green"),
];

/// One side: variables beside the noise, and what happens after the start.
fn run(working: bool, variables: &[&str], events: Vec<Event>) -> super::run::Run {
    let mut reader = Reader::new(STARTED_NS);
    let mut exec = match fixture::exec(&["python", "-m", "dramatiq", "tasks"]) {
        Body::Exec(exec) => *exec,
        _ => unreachable!("the fixture's exec is one"),
    };
    let noise = NOISE.iter().map(|(name, a, b)| format!("{name}={}", if working { a } else { b }));
    exec.env = Known::Is(noise.chain(variables.iter().map(|&one| one.to_owned())).collect());
    exec.exe = Known::Is(crate::event::Executable {
        path: Known::Is("/usr/bin/python3.12".to_owned()),
        device: "8:1".to_owned(),
        inode: 1,
    });
    let start = at(0, MASTER, MASTER, Body::Exec(Box::new(Exec { ..exec })));
    for (id, event) in (1..).zip(std::iter::once(start).chain(events)) {
        reader.add(id, &event);
    }
    reader.finish(&fixture::header(), None)
}

fn look(path: &str, digest: &str, variables: &[&str]) -> Event {
    let variables = variables.iter().map(|&name| (3, name.to_owned())).collect();
    let (path, digest) = (path.to_owned(), Some(digest.to_owned()));
    at(
        90,
        MASTER,
        MASTER,
        Body::FileLook(FileLook { path, len_bytes: 20, digest, variables, alike: Vec::new() }),
    )
}

fn found(path: &str) -> Event {
    fixture::open(20, MASTER, path, Ok(5))
}

fn lacking(path: &str) -> Event {
    fixture::open(20, MASTER, path, Err(2))
}

fn first(comparison: &Comparison) -> (Kind, &str) {
    let first = &comparison.differences[0];
    (first.kind, first.key.as_str())
}

#[test]
fn a_variable_that_a_source_names_comes_before_those_that_none_names() {
    let side = |working, value| {
        run(working, &[value], vec![found("/app/tasks.py"), look("/app/tasks.py", "aa", &["SHOP_REGION"])])
    };
    let comparison = compare(&side(true, "SHOP_REGION=eu"), &side(false, "SHOP_REGION=us"));
    assert_eq!(first(&comparison), (Kind::Env, "SHOP_REGION"));
    assert!(comparison.differences[0].why.contains("/app/tasks.py"), "{}", comparison.differences[0].why);
}

#[test]
fn a_variable_that_leads_to_a_file_that_is_not_there_comes_first() {
    let working = run(true, &["HOME=/home/ana", "DATA=/x"], vec![found("/home/ana/.shop.ini")]);
    let failing = run(false, &["HOME=/home/ci", "DATA=/y"], vec![lacking("/home/ci/.shop.ini")]);
    assert_eq!(first(&compare(&working, &failing)), (Kind::Env, "HOME"));
}

#[test]
fn a_file_that_says_something_else_comes_first_and_one_that_says_the_same_is_none() {
    let side = |working, digest| {
        let events = vec![
            found("/app/.env"),
            look("/app/.env", digest, &[]),
            found("/app/tasks.py"),
            look("/app/tasks.py", "cc", &[]),
        ];
        run(working, &[], events)
    };
    let comparison = compare(&side(true, "aa"), &side(false, "bb"));
    assert_eq!(first(&comparison), (Kind::File, "/app/.env"));
    assert!(!comparison.differences.iter().any(|one| one.key == "/app/tasks.py"));
    assert!(
        !compare(&side(true, "aa"), &side(false, "aa")).differences.iter().any(|one| one.kind == Kind::File)
    );
}

#[test]
fn a_file_that_was_looked_for_in_vain_comes_first_unless_the_run_wrote_it_itself() {
    let failing = run(false, &[], vec![lacking("/app/actors.txt")]);
    let working = run(true, &[], vec![found("/app/actors.txt")]);
    assert_eq!(first(&compare(&working, &failing)), (Kind::File, "/app/actors.txt"));
    let mut written = fixture::file("openat", "/app/actors.txt", Ok(4));
    written.flags = 0o101;
    let working = run(true, &[], vec![at(10, MASTER, MASTER, Body::Open(written)), found("/app/actors.txt")]);
    assert!(!compare(&working, &failing).differences.iter().any(|one| one.kind == Kind::File));
}

#[test]
fn versions_count_of_what_both_loaded() {
    let side = |working, installed: &[(&str, &str)]| {
        let one = |(name, version): &(&str, &str)| Distribution {
            name: (*name).to_owned(),
            version: (*version).to_owned(),
            modules: vec![(*name).to_owned()],
            editable: None,
        };
        let distributions = Distributions {
            site: "/venv/lib/python3.12/site-packages".to_owned(),
            found: installed.iter().map(one).collect(),
            unclaimed: Vec::new(),
            complete: true,
        };
        run(working, &[], vec![at(80, MASTER, MASTER, Body::Distributions(distributions))])
    };
    let comparison =
        compare(&side(true, &[("pika", "1.3"), ("redis", "5.0")]), &side(false, &[("pika", "1.4")]));
    assert_eq!(first(&comparison), (Kind::PackageVersion, "pika"));
    assert!(!comparison.differences.iter().any(|one| one.key == "redis"));
}
