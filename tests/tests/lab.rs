//! The lab itself: a broker of its own, dramatiq against it, and nothing left behind.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tests::proxy::Proxy;
use tests::rabbit::Broker;
use tests::venv::Venv;
use tests::{deadline, target};

const LIMIT: Duration = Duration::from_secs(60);

/// Processes whose environment has this text: all that a broker starts inherit its node's name.
fn processes_mentioning(text: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap();
    entries
        .filter_map(|entry| std::fs::read(entry.ok()?.path().join("environ")).ok())
        .map(|environment| String::from_utf8_lossy(&environment).into_owned())
        .filter(|environment| environment.contains(text))
        .collect()
}

#[test]
fn a_worker_takes_messages_from_a_private_broker_through_the_proxy() {
    let broker = Broker::start(&[]).unwrap();
    let proxy = Proxy::start(([127, 0, 0, 1], broker.port()).into()).unwrap();
    let venv = Venv::ensure().unwrap();
    let url = format!("amqp://guest:guest@{}", proxy.address());
    let sent = Command::new(venv.python())
        .args(["send.py", "minimal_worker:count_words", "3", "needle in a haystack"])
        .current_dir(target::folder())
        .env("BROKER_URL", &url)
        .status()
        .unwrap();
    assert!(sent.success());
    let publisher = deadline::until("the publisher's connection ends", LIMIT, || {
        proxy.recorded().into_iter().find(|record| record.closed)
    });
    let bodies = publisher.to_server.windows(6).filter(|bytes| bytes == b"needle").count();
    assert_eq!(bodies, 3);
    assert!(publisher.to_server.starts_with(b"AMQP\x00\x00\x09\x01"));

    let mut worker = Command::new(venv.python())
        .args(["-m", "dramatiq", "-p", "1", "-t", "1", "minimal_worker"])
        .current_dir(target::folder())
        .env("BROKER_URL", &url)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let bodies = || {
        let delivered = proxy.recorded().into_iter().map(|record| record.to_client);
        delivered.map(|bytes| bytes.windows(6).filter(|bytes| bytes == b"needle").count()).sum::<usize>()
    };
    deadline::until("three deliveries", LIMIT, || (bodies() == 3).then_some(()));
    let emptied = || broker.ctl(&["list_queues", "messages", "--no-table-headers"]).unwrap();
    deadline::until("every message is acknowledged", LIMIT, || {
        emptied().lines().all(|line| line == "0").then_some(())
    });
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(worker.id() as i32), nix::sys::signal::SIGTERM)
        .unwrap();
    assert!(worker.wait().unwrap().success());
}

#[test]
fn a_broker_comes_back_with_its_durable_queues_and_leaves_nothing() {
    let mut broker = Broker::start(&["rabbitmq_management"]).unwrap();
    let name = format!("-{}@localhost", broker.port());
    assert!(!processes_mentioning(&name).is_empty());
    assert!(TcpStream::connect(("127.0.0.1", broker.management_port())).is_ok());
    broker.ctl(&["add_vhost", "kept"]).unwrap();
    broker.kill();
    assert!(TcpStream::connect(("127.0.0.1", broker.port())).is_err());
    broker.restart().unwrap();
    assert!(broker.ctl(&["list_vhosts"]).unwrap().lines().any(|line| line == "kept"));
    broker.restart().unwrap();
    let pid = broker.pid().unwrap();
    drop(broker);
    deadline::until("no process of the broker is left", LIMIT, || {
        processes_mentioning(&name).is_empty().then_some(())
    });
    assert!(!Path::new(&format!("/proc/{pid}/exe")).exists());
}
