//! Following without a terminal: lines that are those of `show`, as they come; and that nobody who follows changes what is recorded.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use tests::deadline;
use tests::scene::Scene;
use tests::tmux::Tmux;

use super::{LIMIT, Running, is_recorded, observer};

const PYTHON: &str = "/usr/bin/python3";

/// Looks files up and writes, then waits until it is told to go on, and does it again.
const SCRIPT: &str = "
import os, sys, time
def work():
    for n in range(int(sys.argv[2])):
        try: os.stat(f'/nowhere/{n}')
        except OSError: pass
        if n % 100 == 0: os.write(1, b'line\\n')
work()
while not os.path.exists(sys.argv[1]): time.sleep(0.02)
work()
";

fn recording(scene: &Scene, name: &str, go: &Path, count: &str) -> Running {
    let mut attach = scene.attach(name).unwrap();
    attach.args(["--quiet", "--", PYTHON, "-c", SCRIPT]).arg(go).arg(count).stdout(Stdio::null());
    let running = Running::start(&mut attach);
    is_recorded(scene, name);
    running
}

fn following(scene: &Scene, words: &[&str], out: &Path) -> Running {
    let mut show = scene.observer().unwrap();
    Running::start(show.args(["show", "@", "--follow"]).args(words).stdout(File::create(out).unwrap()))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn printed(scene: &Scene, words: &[&str]) -> String {
    let output = scene.observer().unwrap().args(words).output().unwrap();
    assert!(output.status.success(), "{words:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn lines_come_as_it_is_recorded_and_are_those_of_show_with_the_verdict_last() {
    let scene = Scene::new().unwrap();
    let (go, text, json) = (scene.path("go"), scene.path("text"), scene.path("json"));
    let recorded = recording(&scene, "lines", &go, "500");
    let followers = [following(&scene, &[], &text), following(&scene, &["--format", "json"], &json)];
    for out in [&text, &json] {
        let told = || read(out).matches("line\\n").count();
        deadline::until("what happened so far", LIMIT, || (told() >= 5).then_some(()));
        assert_eq!(told(), 5, "the other half has not happened yet");
    }
    File::create(&go).unwrap();
    recorded.ended();
    followers.into_iter().for_each(Running::ended);

    let told = read(&text);
    let verdict = printed(&scene, &["explain", "@"]);
    let events = told.strip_suffix(&verdict).unwrap_or_else(|| panic!("{told}\n{verdict}"));
    assert_eq!(sorted(events), sorted(&printed(&scene, &["show", "@"])));

    let told = read(&json);
    let lines: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [head, events @ .., summary, explained] = lines.as_slice() else { panic!("{told}") };
    assert_eq!((&head["kind"], &head["schema"]), (&"header".into(), &"observer.events/1".into()));
    assert!(!head["unseen"].as_array().unwrap().is_empty());
    assert_eq!((&summary["kind"], &summary["lost"]["total"]), (&"summary".into(), &0.into()));
    assert_eq!(summary["events"], events.len());
    let by_id = |events: &[Value]| -> BTreeMap<u64, Value> {
        events.iter().map(|event| (event["id"].as_u64().unwrap(), event.clone())).collect()
    };
    assert_eq!(by_id(events), by_id(&scene.session("lines").unwrap().events));
    let verdict: Value =
        serde_json::from_str(&printed(&scene, &["explain", "@", "--format", "json"])).unwrap();
    assert_eq!(explained["explanation"], verdict);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error_and_a_limit_ends_it() {
    let scene = Scene::new().unwrap();
    let go = scene.path("go");
    let recorded = recording(&scene, "enough", &go, "10");
    let mut show = scene.observer().unwrap();
    let limited = show.args(["show", "@", "--follow", "--limit", "2"]).output().unwrap();
    assert!(limited.status.success());
    let text = String::from_utf8(limited.stdout).unwrap();
    assert!(text.lines().filter(|line| line.trim_start().starts_with('+')).count() == 2, "{text}");
    assert!(text.contains("stopped after 2 events (--limit)"), "{text}");
    let mut show = scene.observer().unwrap();
    let mut reader = show.args(["show", "@", "--follow"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(reader.stdout.take());
    let status =
        deadline::until("it ends though the recording goes on", LIMIT, || reader.try_wait().unwrap());
    assert!(status.success(), "{status}");
    File::create(&go).unwrap();
    recorded.ended();
}

#[test]
fn three_who_follow_change_nothing_of_what_is_recorded() {
    const COUNT: usize = 20_000;
    let counted = |scene: &Scene, name: &str| {
        let session = scene.session(name).unwrap();
        assert_eq!(session.kind("lost").count(), 0, "nothing is lost");
        let ids: Vec<u64> = session.events.iter().map(|event| event["id"].as_u64().unwrap()).collect();
        let highest = *ids.iter().max().unwrap();
        assert_eq!(highest, ids.len() as u64, "none is missing");
        let paths = session.events.iter().filter_map(|event| event["path"].as_str());
        let looked_up = paths.filter(|path| path.starts_with("/nowhere/")).count();
        (
            looked_up,
            session.kind("output").count(),
            session.kind("exec").count(),
            session.kind("exit").count(),
        )
    };
    let count = COUNT.to_string();
    let alone = Scene::new().unwrap();
    let recorded = recording(&alone, "alone", &alone.path("go"), &count);
    File::create(alone.path("go")).unwrap();
    recorded.ended();

    let scene = Scene::new().unwrap();
    let recorded = recording(&scene, "followed", &scene.path("go"), &count);
    let followers = [
        following(&scene, &["--all"], &scene.path("text")),
        following(&scene, &["--format", "json"], &scene.path("json")),
    ];
    let tmux = Tmux::start(&scene.path("")).unwrap();
    tmux.line(&format!("{} show @ --follow", observer(&scene))).unwrap();
    tmux.shows(&["followed recording"]).unwrap();
    File::create(scene.path("go")).unwrap();
    recorded.ended();
    followers.into_iter().for_each(Running::ended);
    tmux.shows(&["followed done"]).unwrap();

    let seen = counted(&scene, "followed");
    assert_eq!(seen, counted(&alone, "alone"));
    assert_eq!((seen.0, seen.1), (2 * COUNT, 2 * COUNT / 100));
    assert_eq!(
        read(&scene.path("json")).lines().count(),
        scene.session("followed").unwrap().events.len() + 3
    );
    // One file each, as without those who followed.
    let names = |scene: &Scene| -> Vec<String> {
        let files = std::fs::read_dir(scene.state_dir()).unwrap().flatten();
        files.map(|file| file.path().extension().unwrap_or_default().to_string_lossy().into_owned()).collect()
    };
    assert_eq!(names(&scene).iter().filter(|end| end.contains("wal")).count(), 0, "{:?}", names(&scene));
}
