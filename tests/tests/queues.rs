//! What the broker says of queues and consumers, beside what was observed: rivals by PID, backlog that nobody here consumes, a worker
//! that consumed before it was observed.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tests::observe::State;
use tests::rabbit::Broker;
use tests::venv::Venv;
use tests::{deadline, target};

const LIMIT: Duration = Duration::from_secs(90);
const WORKER: [&str; 6] = ["python", "-m", "dramatiq", "-p1", "-t1", "minimal_worker"];

/// A process that is asked to end, and waited for, however its test ends.
struct Running(Child);

impl Running {
    fn start(command: &mut Command, broker: &Broker) -> Self {
        let venv = Venv::ensure().unwrap();
        command
            .current_dir(target::folder())
            .env("PATH", venv.path())
            .env("BROKER_URL", broker.url())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }

    fn worker(broker: &Broker) -> Self {
        Self::start(Command::new(WORKER[0]).args(&WORKER[1..]), broker)
    }

    fn pid(&self) -> u64 {
        self.0.id().into()
    }

    /// The only child of its main thread: with `-p 1`, the process that consumes.
    fn child(&self) -> u64 {
        let path = format!("/proc/{0}/task/{0}/children", self.pid());
        deadline::until("it has forked its worker", LIMIT, || {
            std::fs::read_to_string(&path).unwrap().split_whitespace().next().map(|pid| pid.parse().unwrap())
        })
    }

    fn end_by_itself(mut self) {
        let status = deadline::until("it ends by itself", LIMIT, || self.0.try_wait().unwrap());
        assert!(status.success(), "{status}");
    }

    fn end(mut self) {
        kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM).unwrap();
        let status = deadline::until("it ends", LIMIT, || self.0.try_wait().unwrap());
        assert!(status.success(), "{status}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|ended| ended.is_none()) {
            // A master that is killed leaves its workers: it is asked first.
            let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
            let ended =
                deadline::poll("it ends", Duration::from_secs(20), || self.0.try_wait().ok().flatten());
            if ended.is_err() {
                let _ = self.0.kill();
            }
            let _ = self.0.wait();
        }
    }
}

fn consumed(broker: &Broker, consumers: u64) {
    deadline::until("its consumers", LIMIT, || {
        let queues = broker.ctl(&["list_queues", "name", "consumers", "--no-table-headers"]).unwrap();
        queues.lines().any(|line| line == format!("default\t{consumers}")).then_some(())
    });
}

fn observe(state: &State, broker: &Broker, what: &[&str]) -> Running {
    let (url, backend) = (format!("{}/", broker.url()), target::backend());
    let management = format!("127.0.0.1:{}", broker.management_port());
    let mut words = vec!["attach", "--quiet", "--backend", &backend, "--broker", &url];
    words.extend(["--management", &management]);
    words.extend(what);
    Running::start(&mut state.verb(&words).unwrap(), broker)
}

/// Asks the session, while it is being recorded, until it tells what is wanted of the broker.
#[track_caller]
fn until<T>(state: &State, what: &str, answer: impl Fn(&Value) -> Option<T>) -> T {
    let mut last = Value::Null;
    let found = deadline::poll(what, LIMIT, || {
        last = state.show(&["--queues"]).ok()?["broker"].clone();
        answer(&last)
    });
    found.unwrap_or_else(|error| panic!("{error}\n{last:#}"))
}

fn named<'a>(queues: &'a Value, vhost: &str, name: &str) -> Option<&'a Value> {
    queues.as_array()?.iter().find(|queue| queue["vhost"] == vhost && queue["name"] == name)
}

fn text(state: &State, words: &[&str]) -> String {
    let output = state.verb(&[&["show", "@"], words].concat()).unwrap().output().unwrap();
    assert!(output.status.success(), "{}", tests::observe::said(&output));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_rival_worker_is_named_by_pid_and_command() {
    let broker = Broker::start(&["rabbitmq_management"]).unwrap();
    let rival = Running::worker(&broker);
    let rivals_worker = rival.child();
    consumed(&broker, 1);
    let state = State::new().unwrap();
    let observer = observe(&state, &broker, &[&["--"], &WORKER[..]].concat());
    consumed(&broker, 2);
    let (default, rivals) = until(&state, "the rival, and our own consumer", |told| {
        let rivals = named(&told["competing"], "/", "default")?["consumers"].clone();
        named(&told["consumed"], "/", "default")?;
        let default = named(&told["queues"], "/", "default")?.clone();
        // Both as the broker tells them.
        let told = default["consumers"].as_array()?.iter().filter(|one| one["told"] == true).count();
        (told == 2).then_some((default, rivals))
    });
    observer.end();
    let [rival_seen] = rivals.as_array().unwrap().as_slice() else { panic!("{rivals:#}") };
    assert_eq!(rival_seen["holder"]["who"], "other");
    assert_eq!(rival_seen["holder"]["local_pid"], rivals_worker);
    let command: Vec<&str> = rival_seen["holder"]["local_command"]
        .as_array()
        .unwrap()
        .iter()
        .map(|word| word.as_str().unwrap())
        .collect();
    assert!(command.ends_with(&WORKER[1..]), "{command:?}");
    let ours: Vec<&Value> = default["consumers"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["holder"]["who"] == "observed")
        .collect();
    let [ours] = ours.as_slice() else { panic!("{default:#}") };
    assert_ne!(ours["holder"]["pid"], rivals_worker);
    assert_ne!(ours["holder"]["tid"], ours["holder"]["pid"], "a consumer thread");
    assert_eq!(ours["prefetch"], 2);

    let summary = text(&state, &["--summary"]);
    let line = summary.lines().find(|line| line.contains("other consumers of ")).expect(&summary);
    assert!(line.contains("default") && line.contains("pika 127.0.0.1:"), "{line}");
    let whole = text(&state, &["--queues"]);
    assert!(whole.contains(&format!("(pid {rivals_worker} ")), "{whole}");
    assert!(whole.contains("minimal_worker)"), "{whole}");
    rival.end();
}

#[test]
fn backlog_that_nothing_observed_consumes_is_told_with_what_is_consumed_instead() {
    const SEND: &str = "
import pika, sys
for vhost in sys.argv[2:]:
    connection = pika.BlockingConnection(pika.URLParameters(sys.argv[1] + '/' + vhost))
    channel = connection.channel()
    channel.queue_declare('jobs', durable=True)
    for _ in range(3):
        channel.basic_publish('', 'jobs', b'{}')
    connection.close()
";
    let broker = Broker::start(&["rabbitmq_management"]).unwrap();
    broker.ctl(&["add_vhost", "shop"]).unwrap();
    broker.ctl(&["set_permissions", "-p", "shop", "guest", ".*", ".*", ".*"]).unwrap();
    let state = State::new().unwrap();
    let observer = observe(&state, &broker, &[&["--"], &WORKER[..]].concat());
    consumed(&broker, 1);
    Running::start(Command::new("python").args(["-c", SEND, &broker.url(), "%2F", "shop"]), &broker)
        .end_by_itself();
    let told = until(&state, "both queues, and our own", |told| {
        let waits = |vhost| {
            named(&told["backlog"], vhost, "jobs")?;
            let jobs = named(&told["queues"], vhost, "jobs")?;
            (jobs["sampled"]["ready"] == 3 && jobs["sampled"]["consumers"] == 0).then_some(())
        };
        waits("/")?;
        waits("shop")?;
        named(&told["consumed"], "/", "default")?;
        Some(told.clone())
    });
    observer.end();
    let jobs = named(&told["queues"], "shop", "jobs").unwrap();
    assert_eq!(jobs["consumed"], "nobody");
    assert!(jobs["sampled"]["ready_since_ns"].is_u64(), "{jobs:#}");
    assert_eq!(jobs["sampled"]["highest_ready"][0], 3);
    assert!(named(&told["backlog"], "/", "default").is_none(), "{told:#}");
    assert_eq!(told["competing"], Value::Array(Vec::new()), "{told:#}");

    let summary = text(&state, &["--summary"]);
    let line = summary.lines().find(|line| line.contains("jobs: 3 ready since +")).expect(&summary);
    assert!(line.contains("consumed by nobody"), "{line}");
    let whole = text(&state, &["--queues"]);
    assert!(whole.contains("  consumed by nobody"), "{whole}");
}

#[test]
fn the_consumers_of_a_worker_that_was_there_before_are_known_from_the_broker() {
    let broker = Broker::start(&["rabbitmq_management"]).unwrap();
    let worker = Running::worker(&broker);
    let consumer = worker.child();
    consumed(&broker, 1);
    let state = State::new().unwrap();
    let observer = observe(&state, &broker, &["--pid", &worker.pid().to_string()]);
    let default = until(&state, "its consumer", |told| {
        named(&told["consumed"], "/", "default")?;
        named(&told["queues"], "/", "default").cloned()
    });
    let shown = state.show(&["--queues"]).unwrap();
    observer.end();
    assert_eq!(shown["consumers"], Value::Array(Vec::new()), "nobody was seen to ask");
    let [one] = default["consumers"].as_array().unwrap().as_slice() else { panic!("{default:#}") };
    assert_eq!((&one["holder"]["who"], &one["holder"]["pid"]), (&"observed".into(), &consumer.into()));
    assert_eq!((&one["prefetch"], &one["told"]), (&2.into(), &true.into()));
    assert_eq!(shown["broker"]["competing"], Value::Array(Vec::new()), "{shown:#}");
    worker.end();
}
