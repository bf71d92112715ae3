//! A dramatiq session made by hand, for tests: a master and one worker, a refused connection and one that works, AMQP, hostile output.

use crate::{
    capability::Capability,
    capability::Description,
    event::{
        Address, Body, Direction, Disconnect, Event, Exec, Executable, Fd, FdKind, FdTarget, FileCall, Hop,
        Known, NoteLevel, Origin, OutputStream, Pid, Sender, SocketId, Tid,
    },
    session::{Ending, Header},
};

pub(crate) const STARTED_NS: u64 = 5_000_000_000;
pub(crate) const MASTER: u32 = 4711;
pub(crate) const WORKER: u32 = 4712;
/// Clears the screen, sets the window title, reverses text: what must never come through.
pub(crate) const HOSTILE: &str = "\u{1b}[2J\u{1b}]0;pwned\u{7}\u{202e}\u{9b}31m evil";

pub(crate) fn at(since_us: u64, pid: u32, tid: u32, body: Body) -> Event {
    Event {
        at_ns: STARTED_NS + since_us * 1_000,
        pid: Pid(pid),
        tid: Tid(tid),
        observed_from: Origin::Ebpf,
        body,
        bytes: Vec::new(),
    }
}

pub(crate) fn carrying(bytes: impl AsRef<[u8]>, event: Event) -> Event {
    Event { bytes: bytes.as_ref().to_vec(), ..event }
}

pub(crate) fn file(syscall: &str, path: &str, result: Result<i64, i32>) -> FileCall {
    FileCall {
        syscall: syscall.to_owned(),
        path: Known::Is(path.to_owned()),
        resolved: Known::Is(if path.starts_with('/') { path.to_owned() } else { format!("/app/{path}") }),
        dirfd: Some(Fd(-100)),
        flags: if syscall == "openat" { 0o2_000_000 } else { 0 },
        result: result.ok(),
        errno: result.err().unwrap_or(0),
        duration_ns: 12_000,
    }
}

pub(crate) fn open(since_us: u64, pid: u32, path: &str, result: Result<i64, i32>) -> Event {
    at(since_us, pid, pid, Body::Open(file("openat", path, result)))
}

pub(crate) fn inet(port: u16) -> Known<Address> {
    Known::Is(Address::Inet { ip: std::net::Ipv4Addr::LOCALHOST.into(), port })
}

pub(crate) fn exec(argv: &[&str]) -> Body {
    Body::Exec(Box::new(Exec {
        path: Known::Is("/venv/bin/python".to_owned()),
        argv: Known::Is(argv.iter().map(|&word| word.to_owned()).collect()),
        env: Known::Is(vec!["PATH=/venv/bin:/usr/bin".to_owned(), format!("EVIL={HOSTILE}")]),
        cwd: Known::Is("/app".to_owned()),
        exe: Known::Is(Executable {
            path: Known::Is("/usr/bin/python3.12".to_owned()),
            device: "8:1".to_owned(),
            inode: 42,
        }),
        ppid: Pid(4700),
        caller: Tid(MASTER),
        user: Known::unknown(),
        umask: Known::Is(0o022),
        limits: Known::unknown(),
        tty: Known::none(),
        stdio: vec![Known::Is(FdTarget {
            what: FdKind::Pipe,
            path: Known::none(),
            inode: 77,
            other_end: Known::not_collected(),
        })],
        cgroup: Known::unknown(),
        rule: None,
        dumpable: None,
    }))
}

pub(crate) fn output(since_us: u64, pid: u32, stream: OutputStream, text: &str) -> Event {
    let len = text.len() as u64;
    let body = Body::Output { stream, fd: Fd(2), inode: 9, len, piece_offset: 0, errno: 0 };
    carrying(text, at(since_us, pid, pid, body))
}

pub(crate) fn connect(since_us: u64, socket: u64, peer: u16, errno: i32) -> Event {
    let body = Body::Connect {
        socket: SocketId(socket),
        fd: Fd(9),
        peer: inet(peer),
        local: Known::unknown(),
        errno,
        duration_ns: 85_000,
    };
    at(since_us, WORKER, 4715, body)
}

pub(crate) fn data(since_us: u64, socket: u64, direction: Direction, offset: u64, bytes: &[u8]) -> Event {
    let syscall = if direction == Direction::Sent { "sendto" } else { "recvfrom" };
    let body = Body::Data {
        socket: SocketId(socket),
        fd: Fd(9),
        direction,
        offset,
        len: bytes.len() as u64,
        syscall: syscall.to_owned(),
        errno: 0,
        since_attach: false,
        redacted: Vec::new(),
    };
    carrying(bytes, at(since_us, WORKER, 4715, body))
}

/// The events, in order of time.
pub(crate) fn events() -> Vec<Event> {
    let pipe = OutputStream::Pipe;
    let site = "/venv/lib/python3.12/site-packages";
    let ready = "[INFO] Worker process is ready for action.\n";
    let sender = Sender {
        pid: Pid(999),
        name: "bash".to_owned(),
        cmdline: Known::Is(format!("kill -9 4712 {HOSTILE}")),
    };
    let on_socket = |since_us, body| at(since_us, WORKER, 4715, body);
    vec![
        at(100, MASTER, MASTER, exec(&["python", "-m", "dramatiq", "minimal_worker", "--path", "a b"])),
        open(1_000, MASTER, "/usr/lib/python3.12/__pycache__/runpy.cpython-312.pyc", Ok(3)),
        open(2_000, MASTER, &format!("{site}/dramatiq/__main__.py"), Ok(3)),
        at(2_100, MASTER, MASTER, Body::Stat(file("newfstatat", "/app/dramatiq", Err(2)))),
        open(2_200, MASTER, "/etc/shadow", Err(13)),
        at(300_000, MASTER, MASTER, Body::Fork { child: Pid(WORKER) }),
        open(310_000, WORKER, "minimal_worker.py", Err(2)),
        open(311_000, WORKER, "/app/__pycache__/minimal_worker.cpython-312.pyc", Ok(4)),
        open(312_000, WORKER, "settings.py", Ok(4)),
        open(313_000, WORKER, &format!("{site}/pika/__init__.py"), Ok(4)),
        open(314_000, WORKER, &format!("{site}/pika/connection.py"), Ok(4)),
        open(314_500, WORKER, &format!("{site}/pika/connection.py"), Ok(4)),
        open(315_000, WORKER, "/lib/x86_64-linux-gnu/libc.so.6", Ok(4)),
        at(400_000, WORKER, WORKER, Body::Thread { child: Tid(4715) }),
        output(410_000, WORKER, pipe, ready),
        output(411_000, MASTER, OutputStream::Stderr, ready),
        on_socket(420_000, Body::Listen { socket: SocketId(50), fd: Fd(7), address: inet(40_001), errno: 0 }),
        connect(421_000, 51, 40_001, 0),
        on_socket(
            421_500,
            Body::Accept { socket: SocketId(52), fd: Fd(8), peer: inet(40_002), local: inet(40_001) },
        ),
        connect(500_000, 60, 5672, 111),
        connect(3_500_000, 61, 5672, 111),
        connect(6_500_000, 62, 5672, 115),
        on_socket(
            6_500_200,
            Body::Connected {
                socket: SocketId(62),
                peer: inet(5672),
                local: inet(51_000),
                errno: 0,
                duration_ns: 200_000,
            },
        ),
        data(6_501_000, 62, Direction::Sent, 0, b"AMQP\x00\x00\x09\x01"),
        data(6_510_000, 62, Direction::Received, 0, b"\x01\x00\x00\x00\x00\x00\x04\x00\x0a\x00\x0a\xce"),
        output(6_520_000, WORKER, pipe, &format!("{HOSTILE}\n")),
        output(6_521_000, WORKER, pipe, "not finished"),
        on_socket(
            8_000_000,
            Body::Stuck {
                syscall: "futex".to_owned(),
                since_ns: STARTED_NS + 6_900_000_000,
                on: Known::unknown(),
                args: [0; 6],
            },
        ),
        at(8_500_000, 0, 0, Body::Lost { hop: Hop::Ring, what: "file".to_owned(), cpu: Some(1), count: 12 }),
        at(8_600_000, 0, 0, Body::Note { level: NoteLevel::Warning, text: format!("odd: {HOSTILE}") }),
        at(
            9_000_000,
            WORKER,
            WORKER,
            Body::Signal { signal: 9, code: 0, sender: Known::Is(sender), group: true, queued: true },
        ),
        on_socket(
            9_000_100,
            Body::Disconnect {
                socket: SocketId(62),
                how: Disconnect::ResetByUs,
                errno: 0,
                peer: inet(5672),
                local: inet(51_000),
            },
        ),
        at(9_000_200, WORKER, WORKER, Body::Exit { code: None, signal: Some(9), core_dumped: false }),
        output(
            9_010_000,
            MASTER,
            OutputStream::Stderr,
            "[CRITICAL] Worker with PID 4712 exited unexpectedly.\n",
        ),
        at(9_020_000, MASTER, MASTER, Body::ExitCall { code: 1, group: true }),
        at(9_021_000, MASTER, MASTER, Body::Exit { code: Some(1), signal: None, core_dumped: false }),
    ]
}

pub(crate) fn header() -> Header {
    Header {
        id: "20261123-161500-3f9a".to_owned(),
        name: "failing".to_owned(),
        command: ["python", "-m", "dramatiq", "minimal_worker", "--path", "a b"].map(str::to_owned).to_vec(),
        attached: None,
        backend: "ebpf".to_owned(),
        started_at: "2026-11-23T16:15:00Z".to_owned(),
        started_ns: STARTED_NS,
        observer_version: "0.1.0".to_owned(),
        host: "box".to_owned(),
        kernel: "6.1.0".to_owned(),
        snaplen: 4096,
        sources: vec![Description {
            name: "ebpf".to_owned(),
            unseen: vec!["file calls made through io_uring".to_owned()],
        }],
        capabilities: Vec::<Capability>::new(),
    }
}

pub(crate) fn ending() -> Ending {
    Ending { ended_ns: STARTED_NS + 9_030_000_000, code: Some(1), signal: None, reason: "exited".to_owned() }
}
