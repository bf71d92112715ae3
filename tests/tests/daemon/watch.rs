//! What is recorded without anybody's asking, and what is kept of it.

use serde_json::Value;
use tests::daemon::{Daemon, rule};
use tests::deadline;
use tests::privilege::lacking;
use tests::rabbit::Broker;
use tests::scene::Scene;

use super::{LIMIT, end, minimal, module, worker};

#[test]
fn a_worker_that_dies_becomes_a_session_with_its_verdict_and_the_journal_says_so() {
    if lacking("the service loads eBPF programs") {
        return;
    }
    let scene = Scene::new().unwrap();
    let module = module(&scene.path(""), "dies", "import not_to_be_found\n");
    let daemon = Daemon::start(&scene.path(""), &rule(&module, "")).unwrap();
    let status = worker(&scene.path(""), &[&module]).status().unwrap();
    assert!(!status.success());
    daemon.idle().unwrap();
    let sessions = daemon.sessions().unwrap();
    assert_eq!(sessions.len(), 1, "{sessions:#?}");
    assert_eq!(sessions[0]["name"], module.as_str());
    assert_eq!(sessions[0]["exit"]["code"].as_i64(), status.code().map(Into::into));
    let explained = daemon.json(&["explain", &module]).unwrap();
    assert_eq!(explained["verdict"]["code"], "module-not-found", "{}", explained["verdict"]);
    assert_eq!(explained["lost"]["total"], 0);
    let log = daemon.log();
    assert!(log.contains("module-not-found") && log.contains(&module), "{log}");

    // From its first program on, with all that it was given.
    let shown = daemon.json(&["show", &module]).unwrap();
    let first = &shown["events"][0];
    assert_eq!(first["kind"], "exec", "{first}");
    let words: Vec<&str> = first["argv"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(words[1..], ["-m", "dramatiq", &module]);
    assert!(first["env"].as_array().is_some_and(|env| !env.is_empty()));
}

#[test]
fn of_a_healthy_worker_nothing_stays_but_where_it_is_asked_for() {
    if lacking("the service loads eBPF programs") {
        return;
    }
    let scene = Scene::new().unwrap();
    let broker = Broker::start(&[]).unwrap();
    let module = module(&scene.path(""), "healthy", &minimal());
    let mut daemon = Daemon::start(&scene.path(""), &rule(&module, "")).unwrap();
    let run = |daemon: &Daemon| {
        let worker =
            worker(&scene.path(""), &[&module, "-p", "1", "-t", "1"]).env("BROKER_URL", broker.url()).spawn();
        deadline::until("the worker consumes", LIMIT, || {
            let status = daemon.status().ok()?;
            let recorded = status["recordings"].as_array()?.first()?.clone();
            (recorded["consumes"] == true).then_some(recorded)
        });
        end(worker.unwrap());
        daemon.idle().unwrap();
    };
    run(&daemon);
    assert_eq!(daemon.sessions().unwrap(), [Value::Null; 0]);
    daemon.reload(&rule(&module, "keep = \"always\"")).unwrap();
    run(&daemon);
    let sessions = daemon.sessions().unwrap();
    assert_eq!(sessions.len(), 1, "{sessions:#?}\n{}", daemon.log());
    let explained = daemon.json(&["explain", "@"]).unwrap();
    assert_eq!(explained["verdict"]["severity"], "ok", "{}", explained["verdict"]);
    assert!(!daemon.log().contains(&format!("observer explain {module}")), "{}", daemon.log());
}

#[test]
fn a_worker_that_does_not_get_to_consume_is_kept_while_it_runs() {
    if lacking("the service loads eBPF programs") {
        return;
    }
    let scene = Scene::new().unwrap();
    let module = module(&scene.path(""), "waits", &minimal());
    let config = format!("flight.ready_within = \"2s\"\n{}", rule(&module, ""));
    let daemon = Daemon::start(&scene.path(""), &config).unwrap();
    // Nobody listens there.
    let worker =
        worker(&scene.path(""), &[&module, "-p", "1"]).env("BROKER_URL", "amqp://127.0.0.1:9").spawn();
    let sessions = deadline::until("its session is kept", LIMIT, || {
        let sessions = daemon.sessions().ok()?;
        (sessions.iter().any(|session| session["state"] == "done")).then_some(sessions)
    });
    let running = sessions.iter().filter(|session| session["state"] == "recording").count();
    assert_eq!((sessions.len(), running), (2, 1), "it goes on being recorded: {sessions:#?}");
    let explained = daemon.json(&["explain", &format!("{module}-not-ready")]).unwrap();
    assert_eq!(explained["verdict"]["code"], "connection-refused", "{}", explained["verdict"]);
    end(worker.unwrap());
    daemon.idle().unwrap();
    // The last word is the recording itself, which then is the newest.
    let last = daemon.sessions().unwrap();
    assert_eq!(last[0]["name"], module.as_str(), "{last:#?}");
    assert_eq!(last.len(), 2, "{last:#?}");
}

#[test]
fn a_broken_configuration_changes_nothing() {
    if lacking("the service loads eBPF programs") {
        return;
    }
    let scene = Scene::new().unwrap();
    let module = module(&scene.path(""), "stays", "import not_to_be_found\n");
    let mut daemon = Daemon::start(&scene.path(""), &rule(&module, "")).unwrap();
    daemon.reload("rules = 7\n").unwrap();
    worker(&scene.path(""), &[&module]).status().unwrap();
    daemon.idle().unwrap();
    assert_eq!(daemon.sessions().unwrap().len(), 1);
    assert!(daemon.log().contains("the settings stay as they are"), "{}", daemon.log());
    assert!(daemon.end().unwrap().success());
    assert!(!daemon.socket().exists());
}
