//! Trees of imports from events.

use super::*;
use crate::{
    event::{Import, Imported, Known},
    model::fixture::{STARTED_NS, WORKER, at, file},
};

fn import(at_us: u64, module: &str, importer: &str, depth: u32) -> Event {
    let body = Body::Import(Box::new(Import {
        module: Known::Is(module.into()),
        importer: Known::Is(importer.into()),
        function: Known::Is(TOP_LEVEL.into()),
        level: Some(0),
        depth,
    }));
    at(at_us, WORKER, WORKER, body)
}

fn imported(at_us: u64, module: &str, since_us: u64, depth: u32) -> Event {
    ended(at_us, module, since_us, depth, true)
}

fn ended(at_us: u64, module: &str, since_us: u64, depth: u32, loaded: bool) -> Event {
    let (module, since_ns) = (Known::Is(module.into()), STARTED_NS + since_us * 1_000);
    at(at_us, WORKER, WORKER, Body::Imported(Imported { module, since_ns, loaded, exception: None, depth }))
}

fn open(at_us: u64, path: &str) -> Event {
    at(at_us, WORKER, WORKER, Body::Open(file("openat", path, Ok(3))))
}

fn tree(events: &[Event]) -> Vec<(String, usize, bool, Option<u64>)> {
    let program = fold(events);
    let of = |module: &Module| (module.name.clone(), module.depth, module.inferred, module.self_ns());
    program.modules.iter().map(of).collect()
}

#[test]
fn times_are_told_apart_and_files_are_joined() {
    let events = [
        import(100, "app", "/srv/main.py", 0),
        open(110, "/srv/app/__pycache__/__init__.cpython-312.pyc"),
        import(120, "app.b", "/srv/app/__init__.py", 1),
        open(130, "/srv/app/__pycache__/b.cpython-312.pyc"),
        imported(150, "app.b", 120, 1),
        imported(200, "app", 100, 0),
    ];
    assert_eq!(
        tree(&events),
        [("app".into(), 0, false, Some(70_000)), ("app.b".into(), 1, false, Some(30_000))]
    );
}

#[test]
fn what_import_module_loads_is_inferred_and_what_it_imports_stands_below() {
    let events = [
        import(100, "dramatiq", "/srv/main.py", 0),
        imported(110, "dramatiq", 100, 0),
        open(120, "/srv/__pycache__/tasks.cpython-312.pyc"),
        import(130, "json", "/srv/tasks.py", 0),
        imported(140, "json", 130, 0),
        import(150, "csv", "/srv/main.py", 0),
        imported(160, "csv", 150, 0),
        open(170, "/srv/app/__pycache__/__init__.cpython-312.pyc"),
        open(180, "/srv/app/__pycache__/b.cpython-312.pyc"),
    ];
    let names: Vec<_> =
        tree(&events).into_iter().map(|(name, depth, inferred, _)| (name, depth, inferred)).collect();
    assert_eq!(
        names,
        [
            ("dramatiq".into(), 0, false),
            ("tasks".into(), 0, true),
            ("json".into(), 1, false),
            ("csv".into(), 0, false),
            ("app".into(), 0, true),
            ("app.b".into(), 1, true),
        ]
    );
}

fn stat(at_us: u64, path: &str) -> Event {
    at(at_us, WORKER, WORKER, Body::Stat(file("newfstatat", path, Ok(0))))
}

fn fold(events: &[Event]) -> Program {
    let mut modules = Modules::default();
    for (id, event) in (1..).zip(events) {
        modules.add(id, event);
    }
    modules.of(Pid(WORKER)).unwrap().clone()
}

#[test]
fn a_namespace_and_an_archive_are_told_from_what_is_built_in() {
    let program = fold(&[
        import(100, "spread", "/srv/main.py", 0),
        stat(101, "/srv"),
        stat(102, "/srv/spread"),
        imported(110, "spread", 100, 0),
        import(120, "zipped", "/srv/main.py", 0),
        stat(121, "/srv"),
        open(122, "/srv/lib.zip"),
        imported(130, "zipped", 120, 0),
        import(140, "plain", "/srv/main.py", 0),
        open(141, "/srv/lib.zip"),
        open(142, "/srv/__pycache__/plain.cpython-312.pyc"),
        imported(150, "plain", 140, 0),
        import(160, "posix", "/srv/main.py", 0),
        stat(161, "/somewhere"),
        imported(170, "posix", 160, 0),
        import(180, "nowhere", "/srv/main.py", 0),
        stat(181, "/srv"),
        stat(182, "/srv/lib"),
        open(183, "/srv/lib.zip"),
        ended(190, "nowhere", 180, 0, false),
    ]);
    let told: Vec<_> = program
        .modules
        .iter()
        .map(|one| (one.name.as_str(), one.file.as_deref(), one.portions.len(), one.tried.len()))
        .collect();
    assert_eq!(
        told,
        [
            ("spread", None, 1, 1),
            ("zipped", Some("/srv/lib.zip"), 0, 1),
            ("plain", Some("/srv/plain.py"), 0, 0),
            ("posix", None, 0, 0),
            ("nowhere", None, 0, 2),
        ]
    );
    let (path, whole) = program.search_path();
    assert_eq!((path, whole), (&["/srv".to_owned(), "/srv/lib".to_owned()][..], true));
}

#[test]
fn a_child_has_what_its_parent_had() {
    let child = WORKER + 1;
    let events = [
        import(100, "app", "/srv/main.py", 0),
        open(101, "/srv/__pycache__/app.cpython-312.pyc"),
        imported(110, "app", 100, 0),
        at(120, WORKER, WORKER, Body::Fork { child: Pid(child) }),
        at(130, child, child, Body::Open(file("openat", "/srv/__pycache__/app.cpython-312.pyc", Ok(3)))),
    ];
    let mut modules = Modules::default();
    for (id, event) in (1..).zip(&events) {
        modules.add(id, event);
    }
    let child = modules.of(Pid(child)).unwrap();
    assert_eq!(child.before, Some(Before { pid: Pid(WORKER), modules: 1 }));
    assert!(child.modules.is_empty());
}

#[test]
fn what_has_ended_is_forgotten_oldest_first_and_what_lives_is_not() {
    const EACH: u64 = 1_000;
    let mut modules = Modules::default();
    let living = Pid(1);
    for pid in 1..=40 {
        modules.add(0, &at(0, 1_000, 1_000, Body::Fork { child: Pid(pid) }));
        for number in 0..EACH {
            let mut event = open(number, &format!("/srv/m{number}/__pycache__/a.cpython-312.pyc"));
            event.pid = Pid(pid);
            modules.add(number, &event);
        }
        let body = Body::Exit { code: Some(0), signal: None, core_dumped: false };
        let exit = at(2_000, pid, pid, body);
        if exit.pid != living {
            modules.add(EACH, &exit);
            modules.add(EACH, &exit);
        }
        if pid == 2 {
            // Nobody saw this number be given again.
            modules.add(EACH, &at(3_000, pid, pid, open(0, "/srv/n/__pycache__/a.cpython-312.pyc").body));
        }
    }
    let kept =
        |pid: u32| modules.of(Pid(pid)).map(|program| (program.modules.len() as u64, program.left_out));
    assert_eq!(kept(1), Some((EACH, 0)), "it lives");
    assert_eq!(kept(2), Some((0, EACH + 1)), "the oldest");
    assert_eq!(kept(40), Some((EACH, 0)), "the newest");
    let all: usize =
        (1..=40).map(|pid| modules.of(Pid(pid)).map_or(0, |program| program.modules.len())).sum();
    assert_eq!(all, MAX_ENDED + EACH as usize);
    assert_eq!(modules.kept, all);
}
