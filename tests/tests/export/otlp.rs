//! Sessions sent to receivers of OTLP: to rotel, which we did not write, and to small ones of our own that refuse, wait and hang.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::Value;
use tests::observe::said;
use tests::rotel::Rotel;
use tests::scenario::fixture;
use tests::target;

use super::fixtures::first_of_each;
use super::receiver::{Receiver, Sent};
use super::recorded;

const PROTOCOLS: [&str; 2] = ["grpc", "http/protobuf"];
const VARIABLES: [&str; 5] = ["ENDPOINT", "PROTOCOL", "HEADERS", "TIMEOUT", "COMPRESSION"];
const TAKEN: (&str, String, Vec<u8>) = ("200 OK", String::new(), Vec::new());

/// `observer export SESSION --format otlp` with these options, and no variable that says where to.
fn export(session: &Path, options: &[&str]) -> Command {
    let mut export = Command::new(target::observer().unwrap());
    export.arg("export").arg(session).args(["--format", "otlp"]).args(options).stdin(Stdio::null());
    for name in VARIABLES {
        export.env_remove(format!("OTEL_EXPORTER_OTLP_{name}"));
    }
    export
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap()
}

/// A kept session, and the folder it is in.
fn kept(name: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let (fixtures, _) = fixture::all(&fixture::folder()).unwrap();
    let fixture = fixtures.iter().find(|fixture| fixture.scenario.name == name).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("session.sqlite");
    fixture.unpack(&path).unwrap();
    (folder, path)
}

/// The numbers in what we say we sent: spans, messages, processes, imports, log records, findings.
fn counted(output: &Output) -> [usize; 6] {
    assert!(output.status.success(), "{}", said(output));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let counts = text.split_once(": ").unwrap().1.split([' ', '(']).filter_map(|word| word.parse().ok());
    counts.collect::<Vec<_>>().try_into().unwrap_or_else(|_| panic!("{text}"))
}

/// The same, as the session holds them; of spans and log records only what they consist of is known.
fn held(session: &Path) -> [usize; 5] {
    let database = Connection::open(session).unwrap();
    let count = |sql: &str| {
        let count: u32 = database.query_row(sql, [], |row| row.get(0)).unwrap();
        count as usize
    };
    let mut explain = Command::new(target::observer().unwrap());
    let explained = run(explain.args(["explain", "--format", "json"]).arg(session).stdin(Stdio::null()));
    let explained: Value = serde_json::from_slice(&explained.stdout).unwrap();
    [
        count("SELECT count(DISTINCT message) FROM messages"),
        count("SELECT count(*) FROM processes"),
        count("SELECT count(*) FROM events WHERE kind = 'imported'"),
        explained["findings"].as_array().unwrap().len(),
        count("SELECT count(*) FROM events WHERE kind = 'output'"),
    ]
}

/// Sends a session to a rotel, and holds what arrives against what is said and what is there.
fn arrives(session: &Path, rotel: &Rotel, endpoint: &str, protocol: &str) {
    let before = rotel.arrived();
    let said = counted(&run(&mut export(session, &["--endpoint", endpoint, "--protocol", protocol])));
    let [spans, messages, processes, imports, logs, findings] = said;
    let after = rotel.wait_for(before.spans + spans, before.logs + logs).unwrap();
    assert_eq!((after.spans - before.spans, after.logs - before.logs), (spans, logs), "{protocol}");
    let [held_messages, held_processes, held_imports, held_findings, held_output] = held(session);
    assert_eq!(
        [messages, processes, imports, findings],
        [held_messages, held_processes, held_imports, held_findings],
        "{protocol}: {}",
        session.display()
    );
    let more = |of: fn(&tests::rotel::Arrived) -> &std::collections::BTreeMap<String, usize>, name: &str| {
        of(&after).get(name).copied().unwrap_or_default() - of(&before).get(name).copied().unwrap_or_default()
    };
    assert_eq!(more(|arrived| &arrived.named, "message"), messages);
    assert_eq!(more(|arrived| &arrived.named, "import"), imports);
    assert_eq!(more(|arrived| &arrived.named, "session"), 1);
    let roles = ["master", "worker", "fork", "program"];
    assert_eq!(roles.iter().map(|role| more(|arrived| &arrived.named, role)).sum::<usize>(), processes);
    assert_eq!(more(|arrived| &arrived.events, "observer.finding"), findings);
    assert_eq!(more(|arrived| &arrived.events, "observer.verdict"), 1);
    assert_eq!(after.plain_logs() - before.plain_logs(), held_output);
}

#[test]
fn rotel_receives_all_of_a_session_over_grpc_and_http() {
    let (_broker, state) = recorded();
    let session = state.session().unwrap();
    let [messages, _, imports, ..] = held(&session);
    assert!(messages >= 2 * super::MESSAGES && imports > 100, "{messages} messages, {imports} imports");
    let rotel = Rotel::start().unwrap();
    arrives(&session, &rotel, &rotel.grpc(), "grpc");
    arrives(&session, &rotel, &rotel.http(), "http/protobuf");
    let log = rotel.log();
    for text in [
        "Name           : process echo",
        "messaging.operation.type: Str(settle)",
        "SchemaURL: https://opentelemetry.io/schemas/1.42.0",
        "observer.unseen: Slice(",
    ] {
        assert!(log.contains(text), "{text}");
    }
}

#[test]
fn rotel_receives_every_kind_of_failure() {
    let rotel = Rotel::start().unwrap();
    for fixture in first_of_each() {
        let folder = tempfile::tempdir().unwrap();
        let session = folder.path().join("session.sqlite");
        fixture.unpack(&session).unwrap();
        arrives(&session, &rotel, &rotel.grpc(), "grpc");
    }
}

#[test]
fn who_is_not_there_is_named_with_what_to_do() {
    let (_folder, session) = kept("settle/failing");
    // A port that was free a moment ago.
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let url = format!("http://{address}");
    for protocol in PROTOCOLS {
        let output = run(&mut export(&session, &["--endpoint", &url, "--protocol", protocol]));
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        let wanted = format!("cannot send to {url} ({protocol}): nothing listens there; start a collector");
        assert!(said.contains(&wanted) && said.contains("--endpoint"), "{said}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_receiver_that_is_busy_for_a_moment_gets_the_same_again() {
    let (_folder, session) = kept("settle/failing");
    let receiver = Receiver::start(|number| match number {
        0 | 1 => ("503 Service Unavailable", "retry-after: 0\r\n".to_owned(), b"busy".to_vec()),
        _ => TAKEN,
    });
    let mut export = export(&session, &[]);
    export
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url())
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", PROTOCOLS[1]);
    let output = run(&mut export);
    assert!(output.status.success(), "{}", said(&output));
    let sent = receiver.sent();
    assert_eq!(sent.len(), 4, "traces and logs, and two in vain");
    let same = |one: &Sent, other: &Sent| (&one.path, &one.body) == (&other.path, &other.body);
    assert!(same(&sent[0], &sent[1]) && same(&sent[0], &sent[2]) && !same(&sent[0], &sent[3]));
    let paths: Vec<&str> = sent[2..].iter().map(|request| request.path.as_str()).collect();
    assert_eq!(paths, ["/v1/traces", "/v1/logs"]);
    assert!(sent.iter().all(|request| request.headers["content-type"] == "application/x-protobuf"));
}

#[test]
fn what_a_receiver_takes_for_bad_is_not_sent_again() {
    let (_folder, session) = kept("settle/failing");
    let receiver = Receiver::start(|_| ("400 Bad Request", String::new(), b"no \x1b[2Jgood".to_vec()));
    let output = run(&mut export(&session, &["--endpoint", &receiver.url(), "--protocol", "http/protobuf"]));
    assert_eq!(output.status.code(), Some(1));
    let said = said(&output);
    assert!(said.contains("HTTP 400 Bad Request: no \\x1b[2Jgood; the receiver's log may say why"), "{said}");
    assert_eq!(receiver.sent().len(), 1);
}

#[test]
fn a_receiver_that_hangs_is_given_up_when_the_time_is_over() {
    let (_folder, session) = kept("settle/failing");
    // The kernel accepts for it, and nobody reads.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    for protocol in PROTOCOLS {
        let began = Instant::now();
        let options = ["--endpoint", &url, "--protocol", protocol, "--time-limit", "1s"];
        let output = run(&mut export(&session, &options));
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&url) && said.contains("no answer within"), "{said}");
        assert!(
            said.contains("the time limit of 1.00 s does not allow another try (--time-limit)"),
            "{said}"
        );
        assert!(began.elapsed() >= Duration::from_millis(900) && began.elapsed() < Duration::from_secs(20));
    }
}

#[test]
fn what_is_not_taken_is_told_and_tokens_are_not() {
    let (_folder, session) = kept("settle/failing");
    let send = |second: (&'static str, String, Vec<u8>)| {
        // Field 1, partial_success, of 11 bytes: 7 rejected, and a message.
        let partial = b"\x0a\x0b\x08\x07\x12\x07too \x1bld".to_vec();
        let receiver = Receiver::start(move |number| match number {
            0 => ("200 OK", "content-type: application/x-protobuf\r\n".to_owned(), partial.clone()),
            _ => second.clone(),
        });
        let options = ["-vv", "--endpoint", &receiver.url(), "--protocol", "http/protobuf"];
        let mut export = export(&session, &options);
        let output = run(export.env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20s3cret"));
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        let all = [output.stdout.as_slice(), &output.stderr].concat();
        assert!(!String::from_utf8_lossy(&all).contains("s3cret"));
        let sent = receiver.sent();
        assert_eq!(sent.len(), 2);
        assert!(sent.iter().all(|request| request.headers["authorization"] == "Bearer s3cret"));
        said(&output)
    };
    let partly = send(TAKEN);
    assert!(partly.contains("says: too \\x1bld") && partly.contains("did not take 7 span"), "{partly}");
    let refused = send(("401 Unauthorized", String::new(), Vec::new()));
    let next = "HTTP 401 Unauthorized; put the receiver's token into OTEL_EXPORTER_OTLP_HEADERS";
    assert!(refused.contains(next), "{refused}");
    assert!(refused.contains("what is sent again has the same trace and span ids"), "{refused}");
}

#[test]
fn a_success_that_is_not_otlps_is_told_from_one_that_is() {
    let (_folder, session) = kept("settle/failing");
    let receiver =
        Receiver::start(|_| ("200 OK", "content-type: text/html\r\n".to_owned(), b"<p>hello".to_vec()));
    let options = ["--endpoint", &receiver.url(), "--protocol", "http/protobuf"];
    let output = run(&mut export(&session, &options));
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    assert_eq!(said.matches("is not OTLP: whether it took the data cannot be told").count(), 1, "{said}");
}

#[test]
fn options_that_do_not_fit_are_refused() {
    let (_folder, session) = kept("settle/failing");
    let output = run(&mut export(&session, &["-o", "file"]));
    assert!(said(&output).contains("cannot write otlp into a file"), "{}", said(&output));
    let output =
        run(&mut export(&session, &["--endpoint", "https://127.0.0.1:1", "--protocol", "http/protobuf"]));
    assert!(said(&output).contains("use --protocol grpc"), "{}", said(&output));
    let mut jsonl = Command::new(target::observer().unwrap());
    jsonl.arg("export").arg(&session).args(["--format", "jsonl", "--endpoint", "http://127.0.0.1:1"]);
    let output = run(&mut jsonl);
    assert!(said(&output).contains("--endpoint goes with --format otlp"), "{}", said(&output));
}
