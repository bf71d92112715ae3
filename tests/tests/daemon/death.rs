//! The service killed in the middle of a recording: the worker does not notice, the session is whole, the recording goes on, gaps are marked.

use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use tests::daemon::{Daemon, rule};
use tests::deadline;
use tests::privilege::lacking;
use tests::rabbit::Broker;
use tests::scene::Scene;
use tests::venv::Venv;

use super::{LIMIT, end, minimal, module, worker};

const KILLS: usize = 20;

#[test]
fn killed_twenty_times_it_goes_on_each_time_and_marks_the_gap() {
    if lacking("the service loads eBPF programs") {
        return;
    }
    let scene = Scene::new().unwrap();
    let broker = Broker::start(&[]).unwrap();
    let module = module(&scene.path(""), "lives", &minimal());
    let mut daemon = Daemon::start(&scene.path(""), &rule(&module, "keep = \"always\"")).unwrap();
    let mut worker = worker(&scene.path(""), &[&module, "-p", "1", "-t", "1"])
        .env("BROKER_URL", broker.url())
        .spawn()
        .unwrap();
    let consumes = |daemon: &Daemon| {
        deadline::until("the worker consumes", LIMIT, || {
            let status = daemon.status().ok()?;
            let recorded = status["recordings"].as_array()?.first()?.clone();
            (recorded["consumes"] == true).then_some(recorded)
        })
    };
    let send = |count: &str| {
        let sent = std::process::Command::new(Venv::ensure().unwrap().python())
            .arg(tests::target::folder().join("send.py"))
            .args([&format!("{module}:count_words"), count, "needle"])
            .env("PYTHONPATH", scene.path(""))
            .current_dir(scene.path(""))
            .env("PYTHONPATH", scene.path(""))
            .env("BROKER_URL", broker.url())
            .output()
            .unwrap();
        assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    };
    let first = consumes(&daemon);
    for kill in 0..KILLS {
        // In the middle of something.
        send("20");
        daemon.kill().unwrap();
        assert_eq!(worker.try_wait().unwrap(), None, "kill {kill}: the worker goes on");
        daemon.restart().unwrap();
        let again = consumes(&daemon);
        assert_eq!(again["id"], first["id"], "kill {kill}: the same recording");
        assert_eq!(again["pid"], first["pid"]);
    }
    send("20");
    deadline::until("the messages are worked through", LIMIT, || {
        let queues = broker.ctl(&["list_queues", "--quiet", "name", "messages"]).ok()?;
        queues.lines().any(|line| line.split('\t').eq(["default", "0"])).then_some(())
    });
    end(worker);
    daemon.idle().unwrap();

    let sessions = daemon.sessions().unwrap();
    assert_eq!(sessions.len(), 1, "{sessions:#?}\n{}", daemon.log());
    assert_eq!(sessions[0]["state"], "done");
    assert_eq!(sessions[0]["exit"]["code"], 0);
    let path = sessions[0]["path"].as_str().unwrap();
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let check: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    let shown = daemon.json(&["show", &module, "--kind", "gap"]).unwrap();
    let gaps: Vec<&Value> = shown["events"].as_array().unwrap().iter().collect();
    assert_eq!(gaps.len(), KILLS, "{gaps:#?}");
    assert!(
        gaps.iter().all(|gap| gap["gone"].as_array().is_some_and(Vec::is_empty)),
        "nobody ended: {gaps:#?}"
    );
    let explained = daemon.json(&["explain", &module]).unwrap();
    assert_eq!(explained["verdict"]["severity"], "ok", "{}", explained["verdict"]);
}

#[test]
fn a_worker_that_ends_while_nobody_watches_is_told_of_at_the_next_start() {
    if lacking("the service loads eBPF programs") {
        return;
    }
    let scene = Scene::new().unwrap();
    let module = module(&scene.path(""), "unseen", &minimal());
    let mut daemon = Daemon::start(&scene.path(""), &rule(&module, "")).unwrap();
    let mut worker = worker(&scene.path(""), &[&module, "-p", "1"])
        .env("BROKER_URL", "amqp://127.0.0.1:9")
        .spawn()
        .unwrap();
    let (recorded, child) = deadline::until("it is recorded", LIMIT, || {
        // On the disk, too.
        let shown = daemon.json(&["show", &module, "--kind", "fork"]).ok()?;
        let child = shown["events"].as_array()?.first()?["child"].clone();
        Some((daemon.status().ok()?["recordings"].as_array()?.first()?.clone(), child))
    });
    daemon.kill().unwrap();
    worker.kill().unwrap();
    // And what it started, which would go on without it.
    let child = nix::unistd::Pid::from_raw(child.as_i64().unwrap() as i32);
    nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL).unwrap();
    worker.wait().unwrap();
    daemon.restart().unwrap();
    daemon.idle().unwrap();
    let shown = daemon.json(&["show", &module, "--kind", "gap"]).unwrap();
    let gone = shown["events"][0]["gone"].as_array().unwrap();
    assert!(gone.contains(&recorded["pid"]), "{gone:?} of {recorded}");
    assert_eq!(daemon.sessions().unwrap()[0]["state"], "done");
}
