use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::{
        fs::{PermissionsExt as _, symlink},
        net::{UnixListener, UnixStream},
    },
    time::{Duration, Instant},
};

use super::*;
use crate::{daemon::status::Recorded, source::ebpf::ProgramFacts};

fn status() -> Status {
    let recorded = |pid, rule: Option<&str>, consumes| Recorded {
        pid,
        rule: rule.map(str::to_owned),
        consumes,
        ..Recorded::default()
    };
    Status {
        version: "0.1.0".into(),
        uptime_ns: 90_500_000_000,
        rules: ["python-m-dramatiq", "dramatiq"].map(String::from).to_vec(),
        recordings: vec![
            recorded(1, Some("dramatiq"), true),
            recorded(2, Some("dramatiq"), false),
            recorded(3, None, true),
        ],
        events: 9_007_199_254_740_993,
        lost: [("ring \"bulk\"\n".to_owned(), 7)].into(),
        programs: vec![ProgramFacts {
            name: "sys_enter".into(),
            verified_instructions: 1,
            run_count: 5,
            run_time_ns: 2_500,
        }],
        rss_bytes: 1 << 25,
        cpu_s: 1.25,
        stopped: Some("disk full".into()),
        ..Status::default()
    }
}

fn ask<S: Read + Write>(mut stream: S, request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

const GET: &str = "GET /metrics HTTP/1.1\r\nhost: observer.invalid\r\n\r\n";

#[test]
fn figures_have_names_units_and_no_processes() {
    let text = encode(&status());
    for line in [
        "observer_build_info{version=\"0.1.0\"} 1",
        "observer_uptime_seconds 90.5",
        "observer_recordings{rule=\"dramatiq\"} 2.0",
        "observer_recordings{rule=\"python-m-dramatiq\"} 0.0",
        "observer_recordings{rule=\"\"} 1.0",
        "observer_recordings_consuming{rule=\"dramatiq\"} 1.0",
        "observer_events_total 9007199254740993",
        "observer_events_lost_total{where=\"ring \\\"bulk\\\"\\n\"} 7.0",
        "observer_program_runs_total{program=\"sys_enter\"} 5.0",
        "observer_program_run_seconds_total{program=\"sys_enter\"} 0.0000025",
        "observer_resident_memory_bytes 33554432.0",
        "observer_cpu_seconds_total 1.25",
        "observer_stopped 1.0",
        "observer_hooks_total{outcome=\"dropped\"} 0.0",
        "# EOF",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("pid"), "{text}");
}

#[test]
fn a_unix_socket_answers_its_group_only_and_goes_with_the_service() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics.sock");
    // Stale: nobody listens at it any more.
    drop(UnixListener::bind(&path).unwrap());
    let listen = format!("unix:{}", path.display());
    let serving = serve(&listen, status).unwrap();
    let about = std::fs::symlink_metadata(&path).unwrap();
    assert_eq!(about.permissions().mode() & 0o777, 0o660);
    let answer = ask(UnixStream::connect(&path).unwrap(), GET);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("application/openmetrics-text; version=1.0.0; charset=utf-8"), "{answer}");
    assert!(answer.ends_with(&encode(&status())), "{answer}");
    let error = serve(&listen, status).unwrap_err().to_string();
    assert!(error.contains("somebody listens there already"), "{error}");
    assert!(path.exists(), "the one that is served stays");
    drop(serving);
    assert!(!path.exists());
}

#[test]
fn what_is_no_socket_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (file, link, other) =
        (folder.path().join("file"), folder.path().join("link"), folder.path().join("other"));
    std::fs::write(&file, "precious").unwrap();
    drop(UnixListener::bind(&other).unwrap());
    symlink(&other, &link).unwrap();
    for path in [&file, &link] {
        let error = serve(&format!("unix:{}", path.display()), status).unwrap_err().to_string();
        assert!(error.contains("there is something that is no socket"), "{error}");
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    assert!(other.exists() && link.is_symlink());
}

#[test]
fn loopback_answers_one_request_a_connection_and_nothing_but_figures() {
    let serving = serve("127.0.0.1:0", status).unwrap();
    let connect = || TcpStream::connect(serving.address().unwrap()).unwrap();
    assert!(ask(connect(), GET).starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(ask(connect(), "GET / HTTP/1.1\r\nhost: x.invalid\r\n\r\n").starts_with("HTTP/1.1 404 "));
    assert!(
        ask(connect(), "POST /metrics HTTP/1.1\r\nhost: x.invalid\r\ncontent-length: 0\r\n\r\n")
            .starts_with("HTTP/1.1 405 ")
    );
    assert!(ask(connect(), "\u{1}\u{2}nonsense\r\n\r\n").starts_with("HTTP/1.1 400 "));
}

#[test]
fn silent_clients_keep_nobody_out_for_long() {
    let serving = serve("127.0.0.1:0", status).unwrap();
    let connect = || TcpStream::connect(serving.address().unwrap()).unwrap();
    let began = Instant::now();
    let mut silent: Vec<TcpStream> = (0..40).map(|_| connect()).collect();
    silent.iter_mut().for_each(|stream| stream.write_all(b"GET /metr").unwrap());
    // Three turns of sixteen, each of five seconds, are before it.
    assert!(ask(connect(), GET).starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    let mut first = silent.swap_remove(0);
    first.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut rest = Vec::new();
    // Cut off, with or without a word.
    let _ = first.read_to_end(&mut rest);
    assert!(!String::from_utf8_lossy(&rest).contains("200 OK"));
}

#[test]
fn the_service_ends_though_clients_are_connected() {
    let serving = serve("127.0.0.1:0", status).unwrap();
    let mut stream = TcpStream::connect(serving.address().unwrap()).unwrap();
    stream.write_all(b"GET ").unwrap();
    let began = Instant::now();
    drop(serving);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[test]
fn places_that_can_be_served() {
    assert_eq!(Listen::parse(""), Ok(Listen::Nowhere));
    assert!(Listen::parse("unix:/run/observer/metrics.sock").is_ok());
    for text in ["127.0.0.1:9464", "[::1]:9464"] {
        assert!(Listen::parse(text).is_ok(), "{text}");
    }
    for text in [
        "unix:metrics.sock",
        "0.0.0.0:9464",
        "192.0.2.1:80",
        "localhost:9464",
        "127.0.0.1",
        "[::]:1",
        ":9464",
    ] {
        assert!(Listen::parse(text).is_err(), "{text}");
    }
    assert!(Listen::parse(&format!("unix:/{}", "x".repeat(107))).is_err());
    assert!(serve("", status).unwrap().address().is_none());
}
