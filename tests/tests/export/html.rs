//! The page in a real browser, as a person uses it: Chromium, driven by Selenium.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use observer::event::{
    Body, Direction, Event, Exec, Fd, FileCall, Known, Origin, OutputStream, Pid, SocketId, Tid,
    broker::{QueueSample, Way},
};
use observer::session::{Ending, Filter, Header, Invoker, Recorder, Redactor, Session, StateDir};
use serde_json::Value;
use tests::apt::{self, Package};
use tests::observe::said;
use tests::scenario::fixture;
use tests::target;
use tests::venv::{self, Venv};

const SELENIUM: &str = "selenium==4.36.0\n";
/// Where screenshots go, when somebody wants to look at them.
const SHOTS: &str = "OBSERVER_SHOTS";
const STARTED_NS: u64 = 5_000_000_000;
const WORKER: u32 = 4712;

/// What a page, a shell, a terminal and a person would obey, one of each.
const HOSTILE: &str = "</title></style></script><script>window.ran=1;alert(1)</script>\"'><img src=x onerror=\"window.ran=2\"> {{7*7}} \u{1b}[2J\u{202e}gpj.\u{200b}\u{2028}\u{9b}31m &lt;b&gt; javascript:alert(3)";

/// What the browser saw of some pages.
fn looked_at(pages: &[&Path]) -> Value {
    apt::ensure(&[
        Package::new("chromium", "tests look at exported pages with it"),
        Package::new("chromium-driver", "tests drive Chromium with it"),
    ])
    .unwrap();
    let venv = Venv::ensure_with(&venv::interpreter(), SELENIUM).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/export/browser.py");
    let shots = std::env::var_os(SHOTS).unwrap_or_default();
    let output = Command::new(venv.python()).arg(script).arg(shots).args(pages).stdin(Stdio::null()).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let control = &told["control"];
    let has = |name: &str, what: &str| {
        control[name].as_array().unwrap().iter().any(|one| one.as_str().unwrap().contains(what))
    };
    assert!(
        has("console", "an error") && has("requests", "http://127.0.0.1:9/x"),
        "it would not see: {control}"
    );
    assert!(!control["ran"].is_null() && control["alert"] == "an alert", "{control}");
    told
}

/// What must hold of every page.
fn is_sound(page: &Value) {
    assert_eq!(
        page["complaints"],
        serde_json::json!({"alert": null, "console": [], "requests": [], "ran": null})
    );
    for device in ["desktop", "phone"] {
        let told = &page[device];
        for part in ["verdict", "title"] {
            assert!(in_view(&told[part]), "{device}: {part} is seen without scrolling: {told}");
        }
        assert_eq!(told["wider"], false, "{device}: the page is no wider than the window");
    }
    assert!(in_view(&page["without_script"]["verdict"]));
    assert_eq!(page["print"], serde_json::json!({"cut": false, "tools": false}), "on paper all is shown");
    assert_ne!(page["dark"], "rgb(255, 255, 255)");
}

/// Whole, inside of the window, and under nothing.
fn in_view(seen: &Value) -> bool {
    let number = |name: &str| seen[name].as_f64().unwrap();
    number("top") >= 0.0
        && number("left") >= 0.0
        && number("bottom") <= number("height")
        && number("right") <= number("width")
        && number("bottom") > number("top")
        && seen["on_top"] == true
}

/// A click on evidence leads to its event, on a desk and in a hand, with a script and without.
fn evidence_leads_to_its_event(page: &Value) {
    for device in ["desktop", "phone"] {
        let clicked = &page[device]["clicked"];
        assert_eq!(clicked["id"], clicked["href"], "{device}: it has the focus");
        assert_eq!(clicked["marked"], true, "{device}: it is marked: {clicked}");
        let seen = &clicked["seen"];
        // A line may be longer than a phone is high.
        assert!(
            seen["on_top"] == true && seen["top"].as_f64() < seen["height"].as_f64(),
            "{device}: {clicked}"
        );
    }
    assert_eq!(page["without_script"]["led"]["on_top"], true, "{}", page["without_script"]);
}

fn keys_lead_through_the_timeline(page: &Value) {
    let keys = &page["keys"];
    assert_eq!(keys["zooms"], true, "{keys}");
    assert!(keys["said"].as_str().unwrap().starts_with("event ") && keys["id"] == keys["chosen"], "{keys}");
}

/// Exports a session file; its page has its name.
fn exported(session: &Path, against: Option<&Path>) -> PathBuf {
    let page = session.with_extension("html");
    let mut export = Command::new(target::observer().unwrap());
    export.arg("export").arg(session).args(["--format", "html", "-o"]).arg(&page).stdin(Stdio::null());
    let against = against.map(|session| [Path::new("--against"), session]);
    let output = export.args(against.iter().flatten()).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    page
}

/// A session kept as a fixture, in this folder.
fn kept(folder: &Path, name: &str) -> PathBuf {
    let (fixtures, _) = fixture::all(&fixture::folder()).unwrap();
    let fixture = fixtures.iter().find(|fixture| fixture.scenario.name == name).unwrap();
    let path = folder.join(format!("{}.sqlite", name.replace('/', "-")));
    fixture.unpack(&path).unwrap();
    path
}

/// A session of these events, in this folder.
fn made(folder: &Path, name: &str, command: &str, events: impl Iterator<Item = Event>) -> PathBuf {
    let dir = StateDir::open(Some(&folder.join("state")), &Invoker::current()).unwrap();
    let header = Header {
        id: format!("20261123-161500-{name}"),
        name: name.to_owned(),
        command: vec!["python".to_owned(), command.to_owned()],
        attached: None,
        backend: "ebpf".to_owned(),
        started_at: "2026-11-23T16:15:00Z".to_owned(),
        started_ns: STARTED_NS,
        observer_version: "0.1.0".to_owned(),
        host: command.to_owned(),
        kernel: "6.1.0".to_owned(),
        snaplen: 4096,
        sources: Vec::new(),
        capabilities: Vec::new(),
    };
    let mut recorder = Recorder::create(&dir, header, Redactor::open(&dir).unwrap()).unwrap();
    let path = recorder.path().to_owned();
    let mut events = events.peekable();
    while events.peek().is_some() {
        recorder.append(events.by_ref().take(1_000).collect(), None);
    }
    let ending = Ending {
        ended_ns: STARTED_NS + 9_000_000_000,
        code: None,
        signal: Some(9),
        reason: "exited".to_owned(),
    };
    assert_eq!(recorder.finish(ending), None);
    let to = folder.join(format!("{name}.sqlite"));
    std::fs::rename(path, &to).unwrap();
    to
}

fn at(since_us: u64, body: Body) -> Event {
    Event {
        at_ns: STARTED_NS + since_us * 1_000,
        pid: Pid(WORKER),
        tid: Tid(WORKER),
        observed_from: Origin::Ebpf,
        body,
        bytes: Vec::new(),
    }
}

fn known(text: &str) -> Known<String> {
    Known::Is(text.to_owned())
}

fn exec(words: &[&str], variable: &str, cwd: &str) -> Body {
    let texts = |words: &[&str]| Known::Is(words.iter().map(|&word| word.to_owned()).collect());
    Body::Exec(Box::new(Exec {
        path: known(words[0]),
        argv: texts(words),
        env: texts(&[variable]),
        cwd: known(cwd),
        exe: Known::unknown(),
        ppid: Pid(1),
        caller: Tid(WORKER),
        user: Known::unknown(),
        umask: Known::unknown(),
        limits: Known::unknown(),
        tty: Known::none(),
        stdio: Vec::new(),
        cgroup: Known::unknown(),
        rule: None,
        dumpable: None,
    }))
}

fn opened(path: &str, errno: i32) -> Body {
    Body::Open(FileCall {
        syscall: "openat".to_owned(),
        path: known(path),
        resolved: known(path),
        dirfd: None,
        flags: 0,
        result: None,
        errno,
        duration_ns: 1_000,
    })
}

fn wrote(since_us: u64, bytes: &[u8]) -> Event {
    let len = bytes.len() as u64;
    let body =
        Body::Output { stream: OutputStream::Stderr, fd: Fd(2), inode: 9, len, piece_offset: 0, errno: 0 };
    Event { bytes: bytes.to_vec(), ..at(since_us, body) }
}

fn killed(since_us: u64) -> Event {
    at(since_us, Body::Exit { code: None, signal: Some(9), core_dumped: false })
}

/// A client's protocol header and its `queue.declare` (AMQP 0-9-1, 4.2.3 and 1.7.2.1).
fn declares(since_us: u64, queue: &str) -> Event {
    let mut method = vec![0, 50, 0, 10, 0, 0, u8::try_from(queue.len()).unwrap()];
    method.extend(queue.as_bytes());
    method.extend([0, 0, 0, 0, 0]);
    let mut bytes = b"AMQP\0\0\x09\x01\x01\0\x01".to_vec();
    bytes.extend(u32::try_from(method.len()).unwrap().to_be_bytes());
    bytes.extend(method);
    bytes.push(0xce);
    let body = Body::Data {
        socket: SocketId(60),
        fd: Fd(9),
        direction: Direction::Sent,
        offset: 0,
        len: bytes.len() as u64,
        syscall: "sendto".to_owned(),
        errno: 0,
        since_attach: false,
        redacted: Vec::new(),
    };
    Event { bytes, ..at(since_us, body) }
}

fn sample(since_us: u64, queue: &str) -> Event {
    at(
        since_us,
        Body::QueueSample(QueueSample {
            vhost: "/".to_owned(),
            queue: queue.to_owned(),
            ready: Some(since_us % 1_000),
            unacked: Some(3),
            consumers: None,
            state: None,
            published: None,
            delivered: None,
            how: Way::Management,
            ours: false,
        }),
    )
}

#[test]
fn pages_of_recorded_sessions_show_the_verdict_at_once_and_lead_to_the_evidence() {
    let folder = tempfile::tempdir().unwrap();
    let (works, fails) =
        (kept(folder.path(), "ends/healthy"), kept(folder.path(), "handshake/vhost-not-found"));
    let pages = [exported(&works, None), exported(&fails, Some(&works))];
    let told = looked_at(&[&pages[0], &pages[1]]);
    let (works, fails) = (&told["ends-healthy"], &told["handshake-vhost-not-found"]);
    for page in [works, fails] {
        is_sound(page);
        evidence_leads_to_its_event(page);
        keys_lead_through_the_timeline(page);
        let counts = &page["counts"];
        for part in ["ladder", "timeline", "events", "amqp", "environment", "session"] {
            assert!(counts[part].as_u64().unwrap() > 3, "{part}: {counts}");
        }
    }
    assert!(fails["text"].as_str().unwrap().contains("Differences from"));
    assert!(fails["counts"]["differences"].as_u64().unwrap() > 12, "differences, and the ladders of both");
    assert!(works["counts"]["messages"].as_u64().unwrap() > 8, "{}", works["counts"]);
}

/// The most that every queue was seen to hold, ready or unacknowledged.
fn held_by_queues(session: &Path) -> BTreeMap<String, u64> {
    let mut held = BTreeMap::new();
    let session = Session::open(session).unwrap();
    let samples = session.events(&Filter::default(), |_, event| {
        if let Body::QueueSample(sample) = &event.body
            && !sample.ours
        {
            let most: &mut u64 = held.entry(sample.queue.clone()).or_default();
            *most = (*most).max(sample.ready.unwrap_or(0)).max(sample.unacked.unwrap_or(0));
        }
        ControlFlow::Continue(())
    });
    samples.unwrap();
    held
}

#[test]
fn a_page_of_a_live_session_has_imports_queues_and_latencies() {
    let (_broker, state) = super::recorded();
    let session = state.session().unwrap();
    let told = looked_at(&[&exported(&session, None)]);
    let page = &told[session.file_stem().unwrap().to_str().unwrap()];
    is_sound(page);
    evidence_leads_to_its_event(page);
    let counts = &page["counts"];
    // How much a queue holds at the moment it is looked at is chance: those that held something are drawn, and all are named.
    let held = held_by_queues(&session);
    let drawn = held.values().filter(|most| **most > 0).count();
    assert!(held.len() >= 2, "{held:?}");
    assert_eq!(counts["queues"], drawn, "{held:?}: {counts}");
    let least = [("imports", 50), ("messages", 2 * super::MESSAGES as u64), ("amqp", 100)];
    for (part, least) in least {
        assert!(counts[part].as_u64().unwrap() >= least, "{part}: {counts}");
    }
    let text = page["text"].as_str().unwrap();
    assert!(held.keys().all(|queue| text.contains(queue)), "{held:?}");
    for told in
        ["Wait: from publish to delivery", "Run: from delivery to settlement", "dramatiq 2.2.1", "«redacted:"]
    {
        assert!(text.contains(told), "{told}");
    }
}

#[test]
fn a_huge_session_is_a_small_page_with_all_the_evidence() {
    const EVENTS: u64 = 200_000;
    let folder = tempfile::tempdir().unwrap();
    let events = (0..EVENTS).map(|n| match n {
        0 => at(0, exec(&["python", "-m", "dramatiq", "tasks"], "A=b", "/srv")),
        n if n + 1 == EVENTS => killed(n),
        n if n % 100 == 7 => wrote(n, format!("line {n}\n").as_bytes()),
        n if n % 1_000 == 8 => sample(n, "default"),
        n => at(n, opened(&format!("/usr/lib/python3/package/module_{n}.py"), 2)),
    });
    let session = made(folder.path(), "huge", "tasks", events);
    let page = exported(&session, None);
    let bytes = page.metadata().unwrap().len();
    assert!(bytes < 4_000_000, "{bytes} bytes");
    let told = looked_at(&[&page]);
    let huge = &told["huge"];
    is_sound(huge);
    evidence_leads_to_its_event(huge);
    assert_eq!(huge["counts"]["events"], 5_000);
    assert_eq!(huge["without_script"]["rows"], 5_000);
    let text = huge["text"].as_str().unwrap();
    let told = "5000 of 200000 events: all evidence, then what matters most. 195000 are left out";
    assert!(text.contains(told) && text.contains("observer show huge --all"), "{text:.2000}");
    assert!(text.contains("killed by SIGKILL"), "the last event is the evidence");
}

#[test]
fn a_session_without_events_is_a_page_that_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let page = exported(&made(folder.path(), "empty", "tasks", std::iter::empty()), None);
    let told = looked_at(&[&page]);
    let empty = &told["empty"];
    is_sound(empty);
    let text = empty["text"].as_str().unwrap();
    for told in ["No process was seen", "All 0 events", "no event was lost", "No program was seen to start"] {
        assert!(text.contains(told), "{told}: {text:.3000}");
    }
}

#[test]
fn hostile_text_is_shown_and_does_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let queue: String = HOSTILE.chars().take(120).collect();
    let events = vec![
        at(1_000, exec(&["python", "-m", "dramatiq", HOSTILE], &format!("A{HOSTILE}={HOSTILE}"), HOSTILE)),
        at(2_000, opened(&format!("/srv/{HOSTILE}.py"), 13)),
        at(3_000, exec(&[HOSTILE, HOSTILE], HOSTILE, HOSTILE)),
        declares(4_000, &queue),
        sample(5_000, HOSTILE),
        sample(6_000, HOSTILE),
        wrote(7_000, format!("Traceback (most recent call last):\n{HOSTILE}\n").as_bytes()),
        wrote(8_000, &[b"\xff\xfe\x00 not text <script>window.ran=4</script>".as_slice(), &[0xc3]].concat()),
        killed(9_000),
    ];
    let session = made(folder.path(), "hostile", HOSTILE, events.into_iter());
    let mut held = 0;
    let count = |_, event: Event| {
        held += usize::from(format!("{:?}", event.body).contains("window.ran"));
        ControlFlow::Continue(())
    };
    Session::open(&session).unwrap().events(&Filter::default(), count).unwrap();
    assert!(held >= 5, "the session holds it as it was: {held}");
    let told = looked_at(&[&exported(&session, None)]);
    let hostile = &told["hostile"];
    is_sound(hostile);
    evidence_leads_to_its_event(hostile);
    keys_lead_through_the_timeline(hostile);
    let text = hostile["text"].as_str().unwrap();
    for shown in [
        "<script>window.ran=1;alert(1)</script>",
        r"\x1b[2J\u{202e}gpj.\u{200b}\u{2028}\x9b31m &lt;b&gt;",
        r"\xff\xfe\x00 not text <script>window.ran=4</script>\xc3",
        "queue.declare",
    ] {
        assert!(text.contains(shown), "{shown}");
    }
    let hidden = |c: char| {
        (c.is_control() && c != '\n') || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
    };
    assert!(!text.contains(hidden), "{:?}", text.chars().filter(|c| hidden(*c)).collect::<Vec<_>>());
}
