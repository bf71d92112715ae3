//! The broker's own account, from a private RabbitMQ: every way there and missing, a broker that dies, credentials without rights.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use observer::event::broker::{
    BrokerAccess, BrokerConnection, BrokerConsumer, BrokerMessage, Passage, QueueSample, Way,
};
use observer::event::{Body, Event};
use observer::source::Source as _;
use observer::source::broker::{BrokerConfig, BrokerHandle, BrokerSource, BrokerUrl};
use tests::rabbit::Broker;
use tests::target;
use tests::venv::Venv;

const LIMIT: Duration = Duration::from_secs(60);
const PLUGINS: &[&str] = &["rabbitmq_management", "rabbitmq_event_exchange"];

/// A source under test, and what it said so far.
struct Asking {
    source: BrokerSource,
    handle: BrokerHandle,
    events: Vec<Event>,
}

impl Asking {
    fn start(url: &str, broker: &Broker, change: impl FnOnce(&mut BrokerConfig)) -> Self {
        let mut config = BrokerConfig {
            url: Some(BrokerUrl::parse(url).unwrap()),
            management: Some(format!("http://127.0.0.1:{}", broker.management_port())),
            sample_every: Duration::from_millis(100),
            manage_every: Duration::from_millis(200),
            ..BrokerConfig::default()
        };
        change(&mut config);
        let (source, handle) = BrokerSource::new(config);
        Self { source, handle, events: Vec::new() }
    }

    /// Polls until an answer can be had from the events that came from `since` on.
    #[track_caller]
    fn until_since<T>(&mut self, since: usize, what: &str, answer: impl Fn(&[Event]) -> Option<T>) -> T {
        let end = Instant::now() + LIMIT;
        loop {
            if let Some(answer) = answer(&self.events[since..]) {
                return answer;
            }
            let said: Vec<_> = self.accesses().iter().map(|access| format!("{access:?}")).collect();
            assert!(Instant::now() < end, "waited in vain for this: {what}\n{}", said.join("\n"));
            self.source.poll(Duration::from_millis(20), 1_000, &mut self.events).unwrap();
        }
    }

    #[track_caller]
    fn until<T>(&mut self, what: &str, answer: impl Fn(&[Event]) -> Option<T>) -> T {
        self.until_since(0, what, answer)
    }

    /// Waits for a way to be open, or closed with a reason that has these words.
    #[track_caller]
    fn until_access(&mut self, since: usize, way: Way, available: bool, words: &str) {
        self.until_since(since, &format!("{way:?} {available} {words}"), |events| {
            let found = |access: &BrokerAccess| {
                access.way == way && access.available == available && access.detail.contains(words)
            };
            events
                .iter()
                .any(|event| matches!(&event.body, Body::BrokerAccess(access) if found(access)))
                .then_some(())
        });
    }

    fn accesses(&self) -> Vec<&BrokerAccess> {
        self.events
            .iter()
            .filter_map(|event| match &event.body {
                Body::BrokerAccess(access) => Some(access),
                _ => None,
            })
            .collect()
    }

    fn finish(mut self) -> Vec<Event> {
        self.source.finish(&mut self.events);
        self.events
    }
}

fn samples(events: &[Event]) -> impl Iterator<Item = &QueueSample> {
    events.iter().filter_map(|event| match &event.body {
        Body::QueueSample(sample) => Some(sample),
        _ => None,
    })
}

fn consumers(events: &[Event]) -> impl Iterator<Item = &BrokerConsumer> {
    events.iter().filter_map(|event| match &event.body {
        Body::BrokerConsumer(consumer) => Some(consumer),
        _ => None,
    })
}

fn connections(events: &[Event]) -> impl Iterator<Item = &BrokerConnection> {
    events.iter().filter_map(|event| match &event.body {
        Body::BrokerConnection(connection) => Some(connection.as_ref()),
        _ => None,
    })
}

fn messages(events: &[Event]) -> impl Iterator<Item = &BrokerMessage> {
    events.iter().filter_map(|event| match &event.body {
        Body::BrokerMessage(message) => Some(message.as_ref()),
        _ => None,
    })
}

fn notes(events: &[Event]) -> String {
    let texts = events.iter().filter_map(|event| match &event.body {
        Body::Note { text, .. } => Some(text.as_str()),
        _ => None,
    });
    texts.collect::<Vec<_>>().join("\n")
}

fn ready(queue: &str, how: Way, count: u64) -> impl Fn(&[Event]) -> Option<QueueSample> {
    move |events| {
        samples(events).find(|one| one.queue == queue && one.how == how && one.ready == Some(count)).cloned()
    }
}

fn send(broker: &Broker, count: &str) {
    let sent = Command::new(Venv::ensure().unwrap().python())
        .args(["send.py", "minimal_worker:count_words", count, "needle in a haystack"])
        .current_dir(target::folder())
        .env("BROKER_URL", broker.url())
        .status()
        .unwrap();
    assert!(sent.success());
}

fn worker(url: &str) -> Child {
    Command::new(Venv::ensure().unwrap().python())
        .args(["-m", "dramatiq", "-p", "1", "-t", "2", "minimal_worker"])
        .current_dir(target::folder())
        .env("BROKER_URL", url)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn stop(mut worker: Child) {
    kill(Pid::from_raw(worker.id() as i32), Signal::SIGTERM).unwrap();
    assert!(worker.wait().unwrap().success());
}

#[test]
fn every_way_is_used_where_the_plugins_are_there_and_nothing_is_consumed() {
    let broker = Broker::start(PLUGINS).unwrap();
    send(&broker, "5");
    broker.ctl(&["set_policy", "short", "^default$", r#"{"max-length":1000}"#]).unwrap();
    let vhost = || broker.ctl(&["list_vhosts", "name", "description", "tags", "tracing"]).unwrap();
    let before = vhost();
    let mut asking = Asking::start(&broker.url(), &broker, |config| {
        config.firehose = true;
        config.queues = vec![("/".into(), "default".into())];
    });
    for way in [Way::Amqp, Way::PassiveDeclare, Way::Events, Way::Management] {
        asking.until_access(0, way, true, "");
    }
    asking.until_access(0, Way::Firehose, true, "turned on by observer");
    let sample = asking.until("five ready", ready("default", Way::PassiveDeclare, 5));
    assert_eq!((sample.consumers, sample.unacked), (Some(0), None));
    let sample = asking.until("five ready", ready("default", Way::Management, 5));
    assert_eq!((sample.consumers, sample.unacked), (Some(0), Some(0)));
    asking.until("the policy", |events| {
        let policy = |event: &Event| {
            matches!(&event.body, Body::BrokerEvent(one)
                if one.name == "policy.present" && one.facts["definition"]["max-length"] == 1000)
        };
        events.iter().any(policy).then_some(())
    });
    let counted = broker.ctl(&["list_queues", "name", "messages", "--no-table-headers"]).unwrap();
    assert!(counted.lines().any(|line| line == "default\t5"), "{counted}");

    let worker = worker(&broker.url());
    for how in [Way::Events, Way::Management] {
        let consumer = asking.until("the worker's consumer", |events| {
            consumers(events)
                .find(|one| one.queue == "default" && one.how == how && one.connection.is_some())
                .cloned()
        });
        assert_eq!((consumer.prefetch, consumer.ours, consumer.ack_required), (Some(4), false, Some(true)));
        let connection = asking.until("its connection", |events| {
            let its = |one: &&BrokerConnection| {
                Some(&one.name) == consumer.connection.as_ref() && one.how == how && one.peer_port.is_some()
            };
            connections(events).find(its).cloned()
        });
        assert_eq!(connection.port, Some(broker.port()));
        assert_eq!(connection.peer_host.as_deref(), Some("127.0.0.1"));
        assert!(connection.client_properties["product"].starts_with("Pika"), "{connection:?}");
        assert!(!connection.ours);
    }
    let delivered = asking.until("five deliveries", |events| {
        let delivered: Vec<_> =
            messages(events).filter(|one| one.passage == Passage::Delivered).cloned().collect();
        (delivered.len() >= 5).then_some(delivered)
    });
    assert!(delivered.iter().all(|one| one.queue.as_deref() == Some("default")), "{delivered:?}");
    // One consumer a queue: whatever the observer consumes is not among them.
    let sample = asking.until("one consumer and all settled", |events| {
        samples(events)
            .find(|one| {
                one.queue == "default"
                    && one.consumers == Some(1)
                    && one.ready == Some(0)
                    && one.unacked == Some(0)
            })
            .cloned()
    });
    assert_eq!(sample.how, Way::Management);
    send(&broker, "1");
    let published = asking
        .until("a publish", |events| messages(events).find(|one| one.passage == Passage::Published).cloned());
    assert_eq!(published.routed_queues, ["default"]);
    stop(worker);
    asking.until("the worker's consumer is gone", |events| {
        consumers(events).find(|one| one.queue == "default" && !one.present).map(drop)
    });

    let events = asking.finish();
    let (our, others): (Vec<_>, Vec<_>) = connections(&events).partition(|one| one.ours);
    assert!(our.iter().any(|one| one.client_properties["connection_name"] == "observer"), "{our:?}");
    assert!(
        others
            .iter()
            .all(|one| one.client_properties.get("product").is_none_or(|product| product != "observer"))
    );
    assert!(consumers(&events).any(|one| one.ours));
    assert!(consumers(&events).filter(|one| !one.ours).all(|one| one.queue.starts_with("default")));
    assert!(samples(&events).filter(|one| !one.ours).all(|one| one.queue.starts_with("default")));
    assert!(messages(&events).all(|one| !one.exchange.starts_with("amq.")));
    assert!(!format!("{events:?}").contains("haystack"), "a payload was kept");
    let said = notes(&events);
    assert!(said.contains("turned on tracing") && said.contains("turned off tracing"), "{said}");
    assert_eq!(vhost(), before);
}

#[test]
fn without_plugins_each_way_says_what_is_missing_and_queues_are_sampled() {
    let broker = Broker::start(&[]).unwrap();
    let mut asking = Asking::start(&broker.url(), &broker, |config| {
        config.queues = vec![("/".into(), "default".into()), ("/".into(), "nobodys".into())];
    });
    asking.until_access(0, Way::Management, false, "Connection refused");
    asking.until_access(0, Way::Events, false, "rabbitmq-plugins enable rabbitmq_event_exchange");
    asking.until_access(0, Way::Firehose, false, "cannot be asked");
    asking.until("a queue that is not there", |events| {
        samples(events).find(|one| one.state.as_deref() == Some("absent")).map(drop)
    });
    send(&broker, "2");
    asking.until("it is there", ready("default", Way::PassiveDeclare, 2));
    assert!(asking.handle.queue("/", "default.DQ"));
    asking.until("a queue told later", ready("default.DQ", Way::PassiveDeclare, 0));
    // Somebody else turns tracing on: it is seen although nobody can say so.
    broker.ctl(&["trace_on"]).unwrap();
    send(&broker, "1");
    asking.until("a publish", |events| messages(events).next().map(drop));
    asking.until_access(0, Way::Firehose, true, "messages arrive");
    let events = asking.finish();
    assert_eq!(
        samples(&events).filter(|one| one.queue == "nobodys").count(),
        1,
        "said once, not every second"
    );
    // It is somebody else's: it stays on.
    assert!(broker.ctl(&["list_vhosts", "name", "tracing"]).unwrap().contains("/\ttrue"));
    let counted = broker.ctl(&["list_queues", "name", "messages", "--no-table-headers"]).unwrap();
    assert!(counted.lines().any(|line| line == "default\t3"), "{counted}");
    assert!(!counted.contains("amq.gen"), "{counted}");
}

#[test]
fn a_broker_that_dies_and_comes_back_leaves_a_gap_that_is_told() {
    let mut broker = Broker::start(PLUGINS).unwrap();
    broker.kill();
    // It comes late.
    let mut asking = Asking::start(&broker.url(), &broker, |config| {
        config.queues = vec![("/".into(), "default".into())];
        config.firehose = true;
    });
    asking.until_access(0, Way::Amqp, false, "Connection refused");
    asking.until_access(0, Way::Management, false, "Connection refused");
    broker.restart().unwrap();
    for round in 0..2 {
        let since = asking.events.len();
        if round == 1 {
            broker.kill();
            for way in [Way::Amqp, Way::PassiveDeclare, Way::Events, Way::Firehose, Way::Management] {
                asking.until_access(since, way, false, "");
            }
            broker.restart().unwrap();
        }
        let since = asking.events.len();
        for way in [Way::Amqp, Way::PassiveDeclare, Way::Events, Way::Firehose, Way::Management] {
            asking.until_access(if round == 0 { 0 } else { since }, way, true, "");
        }
        // What was sent before a crash may be lost with it.
        send(&broker, "3");
        asking.until_since(since, "samples again", |events| {
            samples(events)
                .find(|one| one.how == Way::PassiveDeclare && one.ready.is_some_and(|ready| ready >= 3))
                .map(drop)
        });
    }
    // It was off after the restart, and is turned on again: it is ours to turn off.
    let events = asking.finish();
    assert!(notes(&events).contains("turned off tracing"), "{}", notes(&events));
    assert!(broker.ctl(&["list_vhosts", "name", "tracing"]).unwrap().contains("/\tfalse"));
}

#[test]
fn credentials_without_rights_are_refused_by_name_and_never_printed() {
    let broker = Broker::start(PLUGINS).unwrap();
    broker.ctl(&["add_user", "poor", "hunter2-secret"]).unwrap();
    let at = broker.port();
    let mut outsider =
        Asking::start(&format!("amqp://poor:hunter2-secret@127.0.0.1:{at}/"), &broker, |config| {
            config.firehose = true;
        });
    outsider.until_access(0, Way::Amqp, false, "530");
    outsider.until_access(0, Way::Management, false, "401");
    let mut stranger =
        Asking::start(&format!("amqp://poor:hunter2-wrong@127.0.0.1:{at}/nowhere"), &broker, |_| {});
    stranger.until_access(0, Way::Amqp, false, "403");
    // It may come in, but neither declare a queue of its own nor read the exchanges; and it sees only itself.
    broker.ctl(&["set_permissions", "poor", "^$", "^$", "^default$"]).unwrap();
    broker.ctl(&["set_user_tags", "poor", "management"]).unwrap();
    send(&broker, "1");
    let mut reader =
        Asking::start(&format!("amqp://poor:hunter2-secret@127.0.0.1:{at}/"), &broker, |config| {
            config.queues = vec![("/".into(), "default".into())];
            config.firehose = true;
        });
    reader.until_access(0, Way::Amqp, true, "as poor");
    reader.until_access(0, Way::Events, false, "403");
    reader.until_access(0, Way::Firehose, false, "403");
    reader.until_access(0, Way::Management, true, "give it the tag monitoring");
    reader.until("samples", ready("default", Way::PassiveDeclare, 1));
    reader.until("a note", |events| notes(events).contains("cannot turn on tracing").then_some(()));
    for asking in [outsider, stranger, reader] {
        let described = format!("{:?}", asking.source.describe());
        let events = asking.finish();
        let json = serde_json::to_string(&events).unwrap();
        for text in [described, format!("{events:?}"), json] {
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
}

#[test]
fn the_workers_own_credentials_are_enough_and_are_not_kept() {
    let observer = target::observer().unwrap();
    let broker = Broker::start(PLUGINS).unwrap();
    broker.ctl(&["add_user", "shop", "hunter2-secret"]).unwrap();
    broker.ctl(&["set_permissions", "shop", ".*", ".*", ".*"]).unwrap();
    send(&broker, "2");
    let state = tempfile::tempdir().unwrap();
    let mut command = Command::new(&observer);
    command
        .arg("--state-dir")
        .arg(state.path())
        .args(["attach", "--quiet", "--name", "asked", "--broker", "worker", "--management"])
        .arg(format!("127.0.0.1:{}", broker.management_port()))
        .args(["--for", "12s", "--"])
        .arg(Venv::ensure().unwrap().python())
        .args(["-m", "dramatiq", "-p", "1", "-t", "1", "minimal_worker"])
        .current_dir(target::folder())
        .env("BROKER_URL", format!("amqp://shop:hunter2-secret@127.0.0.1:{}", broker.port()))
        .stdout(Stdio::null());
    command.status().unwrap();
    let files: Vec<_> = std::fs::read_dir(state.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let sessions: Vec<_> = files
        .iter()
        .filter(|path| std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"SQLite")))
        .collect();
    assert_eq!(sessions.len(), 1, "{files:?}");
    let session = rusqlite::Connection::open(sessions[0]).unwrap();
    let count = |sql: &str| session.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    assert!(
        count(
            "SELECT count(*) FROM broker_events WHERE name = 'amqp' AND detail LIKE 'connected to % as shop'"
        ) > 0
    );
    for queue in ["default", "default.DQ"] {
        let samples = format!(
            "SELECT count(*) FROM queue_samples WHERE queue = '{queue}' AND how = 'passive-declare' AND ready IS NOT NULL"
        );
        assert!(count(&samples) > 0, "{queue}");
    }
    let bytes = std::fs::read(sessions[0]).unwrap();
    assert!(!bytes.windows(7).any(|window| window == b"hunter2"));
}
