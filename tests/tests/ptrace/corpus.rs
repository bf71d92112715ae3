//! Scenarios of the corpus under either source: what happened in them is the same, and so is what is concluded.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::path::Path;

use tests::privilege::lacking;
use tests::sameness::{conversations, facts, steady_differences};
use tests::scenario::fixture::{self, Fixture};
use tests::scenario::{self, Options};
use tests::scene::Scene;
use tests::target;

/// A pattern or more of each family. Where processes race for the same bytecode, or for a connection when they are ended, two runs are too few to
/// tell chance from the source: those are not here (`two-processes`, `c-exit`, `ends/healthy@spawn`, `os-exit@tox` among them). `OBSERVER_SCENARIOS=GLOB,…` tries others.
const SCENARIOS: [&str; 25] = [
    "boot/exec-failed",
    "boot/pidfile@garbage",
    "boot/usage@script",
    "boot/usage@sh",
    "connect/refused-shapes@ipv6",
    "connect/refused-shapes@python-3.13",
    "connect/refused-shapes@spawn",
    "declare/missing",
    "ends/healthy@sh",
    "ends/plain-pika",
    "exits/os-exit@after-other-failures",
    "import/cannot-import-name",
    "import/declared-twice",
    "import/file-for-module",
    "import/missing-variable@sh",
    "import/os-exit",
    "import/pythonpath",
    "import/shadowed-dramatiq",
    "import/shadowed-stdlib",
    "import/syntax-error",
    "import/sys-exit",
    "import/unreadable",
    "import/wrong-cwd",
    "settle/too-old",
    "settle/undecodable@json",
];

/// Others than these, when somebody wants to look.
const CHOSEN: &str = "OBSERVER_SCENARIOS";

/// Runs them, and returns the sessions by the names of their scenarios.
fn record(backend: &str, keep: &Path) -> BTreeMap<String, Fixture> {
    let patterns = match env::var(CHOSEN) {
        Ok(asked) => asked.split(',').map(String::from).collect(),
        Err(_) => SCENARIOS.map(String::from).to_vec(),
    };
    let totals = scenario::run(&Options {
        patterns,
        jobs: 4,
        backend: backend.into(),
        twice: true,
        keep: Some(keep.to_owned()),
        program: target::observer().unwrap(),
    });
    let totals = totals.unwrap();
    assert!(totals.all_right(), "{backend}: {totals}");
    let (kept, _) = fixture::all(keep).unwrap();
    kept.into_iter().map(|fixture| (fixture.scenario.name.clone(), fixture)).collect()
}

/// What differs between two runs of one scenario because it is another run: its folder, its virtual host, its ports.
fn plain(text: &str, values: &BTreeMap<String, String>) -> String {
    let mut longest: Vec<(&String, &String)> = values.iter().filter(|(_, value)| value.len() > 3).collect();
    longest.sort_by_key(|(_, value)| std::cmp::Reverse(value.len()));
    let text = longest
        .iter()
        .fold(text.to_owned(), |text, (name, value)| text.replace(*value, &format!("{{{name}}}")));
    let folder = values.get("scene").map(|scene| Path::new(scene).parent().unwrap().to_str().unwrap());
    let text = folder.map_or(text.clone(), |folder| text.replace(folder, "{folder}"));
    // The hash of a secret is another in each state directory.
    let mut parts = text.split("«redacted:");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + "«redacted" + &part[part.find('»').unwrap_or(0)..])
}

/// Paths whose names are made of chance.
const CHANCE: [&str; 4] = ["/tmp/", "/dev/shm/", ".pyc.", "/dev/pts/"];

/// Processes, arguments, environments, opens, connects and exits; and what was said to brokers.
fn seen(fixture: &Fixture) -> BTreeSet<String> {
    let scene = Scene::new().unwrap();
    fs::create_dir(scene.state_dir()).unwrap();
    fixture.unpack(&scene.state_dir().join("run.sqlite")).unwrap();
    let session = scene.session("@").unwrap();
    assert_eq!(session.kind("lost").count(), 0, "{}", fixture.scenario.name);
    let facts = facts(&session, |fact| {
        let kind = fact[0].as_str()?;
        let port = fact[1]["peer"]["port"].as_u64().unwrap_or_default();
        // pika wakes itself by pairs of sockets on ports of the kernel's choice.
        let chosen = port >= 32_768;
        (!chosen && !matches!(kind, "output" | "disconnect" | "exit-call")).then(|| fact.clone())
    });
    let plain = |text: String| plain(&text, &fixture.values);
    let facts = facts.into_iter().map(plain).filter(|fact| !CHANCE.iter().any(|part| fact.contains(part)));
    let said = conversations(scene.observer().unwrap().args(["show", "@"])).unwrap();
    facts.chain(said).collect()
}

/// Each scenario runs twice under either: what differs between two runs of one source is the run's own.
#[test]
fn scenarios_of_the_corpus_are_the_same() {
    if lacking("eBPF") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let twice =
        |backend: &str| [1, 2].map(|run| record(backend, &folder.path().join(format!("{backend}-{run}"))));
    let [ebpf, ptrace] = ["ebpf", "ptrace"].map(twice);
    assert!([&ebpf[1], &ptrace[0], &ptrace[1]].iter().all(|runs| runs.keys().eq(ebpf[0].keys())));
    let mut odd = Vec::new();
    for name in ebpf[0].keys() {
        let seen = |runs: &[BTreeMap<String, Fixture>; 2]| runs.each_ref().map(|run| seen(&run[name]));
        let (left, right) = (seen(&ebpf), seen(&ptrace));
        let differences = steady_differences(left.each_ref(), right.each_ref());
        println!("{name}: {} facts, {} differences", left[0].len(), differences.len());
        if !differences.is_empty() {
            odd.push(format!("{name}: {} facts\n{}", left[0].len(), differences.join("\n")));
        }
    }
    let count = ebpf[0].len();
    assert!(odd.is_empty(), "{} of {count} scenarios differ:\n{}", odd.len(), odd.join("\n\n"));
    assert!(count >= 20 || env::var_os(CHOSEN).is_some(), "{count} scenarios");
}
