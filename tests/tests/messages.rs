//! Every message has exactly one life in the session, and the broker counts the same.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rusqlite::Connection;
use serde_json::Value;
use tests::observe::State;
use tests::rabbit::Broker;
use tests::venv::Venv;
use tests::{deadline, target};

const LIMIT: Duration = Duration::from_secs(240);

/// How many messages: `$OBSERVER_MESSAGES`, else 20,000.
fn messages() -> u64 {
    std::env::var("OBSERVER_MESSAGES").ok().map_or(20_000, |text| text.parse().unwrap())
}

/// What the broker itself counted of a queue, by its management API.
fn counted(broker: &Broker, queue: &str) -> Option<Value> {
    let mut stream = TcpStream::connect(("127.0.0.1", broker.management_port())).ok()?;
    let request = format!(
        "GET /api/queues/%2F/{queue} HTTP/1.0\r\nAuthorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    Some(serde_json::from_str::<Value>(body).ok()?["message_stats"].clone())
}

/// Ends what is observed by TERM, as a person would, and waits for the observer.
fn end(mut observer: Child) {
    kill(Pid::from_raw(observer.id() as i32), Signal::SIGTERM).unwrap();
    let status = deadline::until("the observer ends", LIMIT, || observer.try_wait().unwrap());
    assert!(status.success(), "{status}");
}

fn observe(state: &State, broker: &Broker, words: &[&str]) -> Child {
    let venv = Venv::ensure().unwrap();
    state
        .attach(&[], words)
        .unwrap()
        .current_dir(target::folder())
        .env("PATH", venv.path())
        .env("BROKER_URL", broker.url())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn every_message_has_exactly_one_life_and_the_broker_counts_the_same() {
    let wanted = messages();
    let broker = Broker::start(&["rabbitmq_management"]).unwrap();
    let state = State::new().unwrap();
    let script = format!(
        "python send.py minimal_worker:count_words {wanted} needle & exec python -m dramatiq -p 2 -t 4 minimal_worker"
    );
    let observer = observe(&state, &broker, &["sh", "-c", &script]);
    // The broker gives its counts every few seconds.
    let stats = deadline::until("the broker has counted every acknowledgement", LIMIT, || {
        counted(&broker, "default").filter(|stats| stats["ack"].as_u64() >= Some(wanted))
    });
    end(observer);

    let shown = state.show(&["--messages"]).unwrap();
    let lost: i64 = state.lost().unwrap().values().sum();
    let lives = shown["messages"].as_array().unwrap();
    let ids: BTreeSet<&str> = lives.iter().map(|life| life["message_id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), lives.len(), "no message has two lives");
    assert_eq!(lost, 0, "nothing is lost at this rate; what were, would be counted");
    assert_eq!(lives.len() as u64, wanted);
    let mut workers = BTreeMap::<u64, u64>::new();
    for life in lives {
        let [passage] = life["passages"].as_array().unwrap().as_slice() else { panic!("{life}") };
        assert_eq!(
            (&life["state"], &life["actor"], &passage["queue"]),
            (&"acked".into(), &"count_words".into(), &"default".into())
        );
        let at = |step: &str| passage[step]["at_ns"].as_u64().unwrap_or_else(|| panic!("{step}: {life}"));
        // A write can be told after the read that it caused, but not much.
        assert!(at("published") < at("delivered") + 250_000_000, "{life}");
        assert!(at("delivered") < at("settled"), "{life}");
        *workers.entry(passage["delivered"]["pid"].as_u64().unwrap()).or_default() += 1;
    }
    assert_eq!(workers.len(), 2, "both workers took part: {workers:?}");
    for (ours, theirs) in [("published", "publish"), ("delivered", "deliver_get"), ("acked", "ack")] {
        assert_eq!(shown["totals"][ours], stats[theirs], "{ours}: {stats}");
    }
    for none in ["redelivered", "refused", "returned", "unknown_tags", "unidentified", "cut_short"] {
        assert_eq!(shown["totals"][none], 0, "{none}");
    }

    let database = Connection::open(state.session().unwrap()).unwrap();
    let count = |sql: &str| u64::from(database.query_row(sql, [], |row| row.get::<_, u32>(0)).unwrap());
    assert_eq!(count("SELECT count(DISTINCT message_id) FROM messages WHERE settled = 'acked'"), wanted);
    assert_eq!(count("SELECT count(*) FROM messages"), wanted);
    assert_eq!(count("SELECT count(*) FROM amqp_methods WHERE method = 'basic.deliver'"), wanted);

    let ladders = state.show(&["--ladder"]).unwrap();
    let climbed: Vec<&Value> =
        ladders["ladder"].as_array().unwrap().iter().filter(|ladder| ladder["role"] == "worker").collect();
    assert_eq!(climbed.len(), 2);
    for ladder in climbed {
        assert!(ladder["rungs"].as_array().unwrap().iter().all(|step| step["reached"] == true), "{ladder}");
    }
    let queues = state.show(&["--queues"]).unwrap();
    let prefetch: BTreeSet<(&str, u64)> = queues["consumers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["queue"].as_str().unwrap(), one["prefetch"].as_u64().unwrap()))
        .collect();
    assert_eq!(prefetch, [("default", 8), ("default.DQ", 4_000)].into());
}

#[test]
fn a_canary_is_followed_to_its_end() {
    let broker = Broker::start(&[]).unwrap();
    let state = State::new().unwrap();
    let observer =
        observe(&state, &broker, &["python", "-m", "dramatiq", "-p", "1", "-t", "1", "minimal_worker"]);
    deadline::until("the worker consumes", LIMIT, || {
        let queues = broker.ctl(&["list_queues", "name", "consumers", "--no-table-headers"]).unwrap();
        queues.lines().any(|line| line == "default\t1").then_some(())
    });
    let send = |options: &[&str], queue: &str| {
        let words = [options, &["send", queue, "count_words", "a canary sings"]].concat();
        state.verb(&words).unwrap().env("OBSERVER_BROKER", broker.url()).output().unwrap()
    };
    let report = |sent: &Output| serde_json::from_slice::<Value>(&sent.stdout).unwrap();

    let sent = send(&["--format", "json"], "default");
    assert!(sent.status.success(), "{}", tests::observe::said(&sent));
    let canary = report(&sent);
    let id = canary["message_id"].as_str().unwrap();
    let followed = &canary["followed"];
    assert_eq!((&followed["until"], &followed["state"]), (&"settled".into(), &"acked".into()), "{canary}");
    let [passage] = followed["life"]["passages"].as_array().unwrap().as_slice() else { panic!("{canary}") };
    assert_eq!(passage["queue"], "default");
    assert_eq!(passage["published"], Value::Null, "it was not an observed process that sent it");
    assert!(canary["sent_at_ns"].as_u64() < passage["delivered"]["at_ns"].as_u64(), "{canary}");
    assert!(passage["delivered"]["at_ns"].as_u64() < passage["settled"]["at_ns"].as_u64(), "{canary}");

    let told = send(&[], "default");
    let text = String::from_utf8(told.stdout.clone()).unwrap();
    assert!(told.status.success(), "{text}{}", tests::observe::said(&told));
    let steps: Vec<usize> = ["  published to default", "  delivered from default to ", "  acked after "]
        .iter()
        .map(|step| text.find(step).unwrap_or_else(|| panic!("{step}: {text}")))
        .collect();
    assert!(steps.is_sorted() && text.ends_with('\n'), "{text}");

    let nowhere = send(&[], "nowhere");
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(tests::observe::said(&nowhere).contains("no such queue"), "{}", tests::observe::said(&nowhere));
    // Nobody consumes the dead letters.
    let words = ["--format", "json", "send", "default.XQ", "count_words", "unheard", "--timeout", "700ms"];
    let unheard = state.verb(&words).unwrap().env("OBSERVER_BROKER", broker.url()).output().unwrap();
    assert_eq!(unheard.status.code(), Some(1));
    let followed = &report(&unheard)["followed"];
    assert_eq!((&followed["until"], &followed["life"]), (&"timeout".into(), &Value::Null), "{followed}");

    // The session is read while it is being recorded.
    let shown = state.show(&["--messages", "--message", id]).unwrap();
    let life = &shown["messages"][0];
    assert_eq!((&life["state"], &life["actor"]), (&"acked".into(), &"count_words".into()));
    assert_eq!(life["is_canary"], true);
    end(observer);

    let unfollowed = send(&["--format", "json"], "default");
    assert!(unfollowed.status.success(), "{}", tests::observe::said(&unfollowed));
    assert_eq!(report(&unfollowed)["followed"], Value::Null, "nothing is being recorded any more");
}
