//! Two witnesses, one program: what strace says happened is what observer recorded, to the last call.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, SockaddrLike, bind, getsockname, socket,
};
use tempfile::TempDir;
use tests::observe::{Event, State, said};
use tests::privilege::lacking;
use tests::strace::{self, Call, Line, Trace};
use tests::target;
use tests::venv::Venv;

/// Every call by which observer sees a program, a file by name or a connection.
const CALLS: &[&str] = &[
    "execve",
    "execveat",
    "open",
    "creat",
    "openat",
    "openat2",
    "stat",
    "lstat",
    "newfstatat",
    "statx",
    "access",
    "faccessat",
    "faccessat2",
    "readlink",
    "readlinkat",
    "getdents",
    "getdents64",
    "chdir",
    "fchdir",
    "connect",
    "exit",
    "exit_group",
];

/// What the program under test works on, the same for both runs.
struct Stage {
    folder: TempDir,
    ports: [u16; 4],
    _open: (TcpListener, TcpListener, UnixListener),
    /// Bound and not listening: nobody else gets these ports, and who connects is refused.
    _shut: [OwnedFd; 2],
}

fn shut<A: SockaddrLike>(family: AddressFamily, address: &A) -> OwnedFd {
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(std::os::fd::AsRawFd::as_raw_fd(&fd), address).unwrap();
    fd
}

impl Stage {
    fn set() -> Self {
        let folder = tempfile::Builder::new().prefix("observer-witness-").tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("package")).unwrap();
        for (name, text, mode) in [
            ("package/__init__.py", "", 0o644),
            ("package/inner.py", "import colorsys\n", 0o644),
            ("data.txt", "data\n", 0o644),
            ("plain", "not executable\n", 0o644),
            ("nonsense", "neither a program nor a script\n", 0o755),
            ("script", "#!/bin/sh -e\nexit 3\n", 0o755),
        ] {
            fs::write(at(name), text).unwrap();
            fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        symlink("data.txt", at("link")).unwrap();
        symlink("loop", at("loop")).unwrap();
        drop(UnixListener::bind(at("shut.sock")).unwrap());
        let open = (
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(),
            TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap(),
            UnixListener::bind(at("open.sock")).unwrap(),
        );
        let inet = SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));
        let inet6 = SockaddrIn6::from(SocketAddrV6::new(Ipv6Addr::LOCALHOST, 0, 0, 0));
        let shut = [shut(AddressFamily::Inet, &inet), shut(AddressFamily::Inet6, &inet6)];
        let fd = |fd: &OwnedFd| std::os::fd::AsRawFd::as_raw_fd(fd);
        let ports = [
            open.0.local_addr().unwrap().port(),
            getsockname::<SockaddrIn>(fd(&shut[0])).unwrap().port(),
            open.1.local_addr().unwrap().port(),
            getsockname::<SockaddrIn6>(fd(&shut[1])).unwrap().port(),
        ];
        Self { folder, ports, _open: open, _shut: shut }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn command(&self, venv: &Venv) -> Vec<String> {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let mut words =
            vec![text(&venv.python()), text(&target::folder().join("witness.py")), text(self.path())];
        words.extend(self.ports.iter().map(u16::to_string));
        words
    }
}

/// The same surroundings for every run: nothing of ours, no byte code written, no order by chance.
fn alike(command: &mut Command, home: &Path) -> (Option<i32>, String) {
    let output = command
        .env_clear()
        .envs([
            ("PATH", "/usr/bin:/bin"),
            ("PYTHONDONTWRITEBYTECODE", "1"),
            ("PYTHONHASHSEED", "0"),
            ("LC_ALL", "C.UTF-8"),
        ])
        .env("HOME", home)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .output()
        .unwrap();
    (output.status.code(), said(&output))
}

/// Processes by their place in the order of appearance: their ids differ between two runs.
#[derive(Default)]
struct Order(HashMap<u32, usize>);

impl Order {
    fn of(&mut self, pid: u32) -> usize {
        let next = self.0.len();
        *self.0.entry(pid).or_insert(next)
    }
}

/// Bytes as observer keeps paths and arguments: text, with a replacement for what is none.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The arguments a program gets: for a script the kernel puts its interpreter, that one's argument and the path before the rest
/// (execve(2), "Interpreter scripts"), which strace, at the entry of the call, cannot have seen.
fn with_interpreter(path: &str, mut argv: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let path = strace::string(path).unwrap();
    let file = fs::read(Path::new(OsStr::from_bytes(&path))).unwrap();
    let Some(line) = file.strip_prefix(b"#!").and_then(|rest| rest.split(|byte| *byte == b'\n').next())
    else {
        return argv;
    };
    let mut words: Vec<Vec<u8>> = line.splitn(2, |byte| *byte == b' ').map(<[u8]>::to_vec).collect();
    words.push(path);
    words.extend(argv.drain(1..));
    words
}

fn list(strings: Vec<Vec<u8>>) -> String {
    format!("{:?}", strings.iter().map(|string| text(string)).collect::<Vec<_>>())
}

/// A path as strace shows it: whole, cut off, or an address that could not be read.
fn path(argument: &str) -> String {
    match (strace::string(argument), argument.strip_suffix("...").and_then(strace::string)) {
        (Some(path), _) => format!("{:?}", text(&path)),
        // The kernel takes no longer one, and strace shows as much of it as the kernel would.
        (_, Some(path)) => format!("the beginning of {:?}", text(&path[..4095])),
        _ => "unreadable".into(),
    }
}

/// The same from an event.
fn known(value: &serde_json::Value) -> String {
    match (value.as_str(), value["partial"].as_str(), value["absent"].as_str()) {
        (Some(whole), ..) => format!("{whole:?}"),
        (_, Some(partial), _) => format!("the beginning of {partial:?}"),
        (.., Some("unknown")) => "unreadable".into(),
        _ => panic!("neither whole nor partial nor unknown: {value}"),
    }
}

/// What strace's call says, in the words both witnesses are brought to.
fn by_strace(call: &Call) -> String {
    let Call { name, arguments, result, errno } = call;
    let number = |n: usize| strace::number(&arguments[n]).unwrap_or_else(|| panic!("{call:?}"));
    let ended = || if *errno == 0 { format!("= {}", result.unwrap()) } else { format!("failed {errno}") };
    let at = |n: usize| match number(n) as i32 {
        -100 => String::new(),
        fd => format!("at {fd} "),
    };
    match name.as_str() {
        "execve" if *errno == 0 => {
            let strings = |n: usize| strace::strings(&arguments[n]).unwrap();
            let argv = with_interpreter(&arguments[0], strings(1));
            format!("exec {} {} {}", path(&arguments[0]), list(argv), list(strings(2)))
        }
        "execveat" if *errno == 0 => {
            // The kernel's own name for a program started by descriptor (fs/exec.c, alloc_bprm).
            let given = text(&strace::string(&arguments[1]).unwrap());
            let name = if given.is_empty() { String::new() } else { format!("/{given}") };
            let strings =
                |n: usize| list(strace::strings(&arguments[n]).unwrap_or_else(|| panic!("{call:?}")));
            format!("exec {:?} {} {}", format!("/dev/fd/{}{name}", number(0)), strings(2), strings(3))
        }
        "execve" => format!("exec {} {}", path(&arguments[0]), ended()),
        "execveat" => format!("exec {} {}", path(&arguments[1]), ended()),
        "open" | "access" => format!("{name} {} flags {} {}", path(&arguments[0]), number(1), ended()),
        "creat" => format!("creat {} flags {} {}", path(&arguments[0]), 0o1101, ended()),
        "stat" | "lstat" | "readlink" | "chdir" => {
            format!("{name} {} flags 0 {}", path(&arguments[0]), ended())
        }
        "readlinkat" => format!("{name} {}{} flags 0 {}", at(0), path(&arguments[1]), ended()),
        "openat" | "statx" | "faccessat" | "faccessat2" => {
            format!("{name} {}{} flags {} {}", at(0), path(&arguments[1]), number(2), ended())
        }
        "newfstatat" => format!("{name} {}{} flags {} {}", at(0), path(&arguments[1]), number(3), ended()),
        "openat2" => {
            let how = arguments[2].split("flags=").nth(1).unwrap();
            let flags = strace::number(how.split([',', '}']).next().unwrap()).unwrap();
            format!("{name} {}{} flags {flags} {}", at(0), path(&arguments[1]), ended())
        }
        "getdents" | "getdents64" | "fchdir" => format!("{name} at {} \"\" flags 0 {}", number(0), ended()),
        "connect" => format!("connect fd {} {} failed {errno}", number(0), address(&arguments[1])),
        "exit" | "exit_group" => format!("{name} {}", number(0) as i32),
        name => panic!("strace saw {name}, which it was not asked for"),
    }
}

/// An address as strace shows it: `{sa_family=0x2, sin_port="\x00\x01", sin_addr="\x7f…"}`.
fn address(argument: &str) -> String {
    let inside = argument.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap();
    let fields: HashMap<String, String> = strace::split(inside)
        .iter()
        .map(|field| field.split_once('=').unwrap())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let bytes = |name: &str| strace::string(&fields[name]).unwrap();
    let port = |name: &str| u16::from_be_bytes(bytes(name).try_into().unwrap());
    match strace::number(&fields["sa_family"]).unwrap() {
        1 => match fields["sun_path"].strip_prefix('@') {
            Some(name) => format!("unix {:?}", format!("@{}", text(&strace::string(name).unwrap()))),
            None => format!("unix {:?}", text(&bytes("sun_path"))),
        },
        2 => format!(
            "{} {}",
            Ipv4Addr::from(<[u8; 4]>::try_from(bytes("sin_addr")).unwrap()),
            port("sin_port")
        ),
        10 => format!(
            "{} {}",
            Ipv6Addr::from(<[u8; 16]>::try_from(bytes("sin6_addr")).unwrap()),
            port("sin6_port")
        ),
        family => format!("family {family}"),
    }
}

/// What an event says, in the same words; `None` for kinds that strace was not asked for.
fn by_observer(event: &Event) -> Option<String> {
    let data = &event.data;
    let number = |field: &str| event.int(field).unwrap();
    let failed = || format!("failed {}", number("errno"));
    Some(match event.kind.as_str() {
        "exec" => {
            let strings = |field: &str| format!("{:?}", event.texts(field).unwrap());
            format!("exec {} {} {}", known(&data["path"]), strings("argv"), strings("env"))
        }
        "exec-failed" => format!("exec {} {}", known(&data["path"]), failed()),
        "open" | "stat" | "access" | "readlink" | "scan" | "chdir" => {
            let at = event.int("dirfd").map(|fd| format!("at {fd} ")).unwrap_or_default();
            let ended = match event.int("result") {
                Some(result) => format!("= {result}"),
                None => failed(),
            };
            let (name, path) = (event.text("syscall").unwrap(), known(&data["path"]));
            format!("{name} {at}{path} flags {} {ended}", number("flags"))
        }
        "connect" => {
            let peer = &data["peer"];
            let peer = match peer["family"].as_str().unwrap() {
                "inet" => format!("{} {}", peer["ip"].as_str().unwrap(), peer["port"]),
                "unix" => format!("unix {:?}", peer["path"].as_str().unwrap()),
                _ => format!("family {}", peer["number"]),
            };
            format!("connect fd {} {peer} {}", number("fd"), failed())
        }
        "exit-call" => {
            let name = if data["group"].as_bool().unwrap() { "exit_group" } else { "exit" };
            format!("{name} {}", number("code"))
        }
        "exit" => match (event.int("code"), event.int("signal")) {
            (Some(code), _) => format!("exited {code}"),
            (_, Some(9)) => "killed SIGKILL".into(),
            (_, Some(15)) => "killed SIGTERM".into(),
            other => panic!("no way to end: {other:?}"),
        },
        "thread-exit" => panic!("the program has one thread"),
        _ => return None,
    })
}

/// Which said it how many times more than the other.
fn differences(strace: &[(usize, String)], observer: &[(usize, String)]) -> Vec<String> {
    let mut balance: BTreeMap<&(usize, String), i32> = BTreeMap::new();
    strace.iter().for_each(|line| *balance.entry(line).or_default() += 1);
    observer.iter().for_each(|line| *balance.entry(line).or_default() -= 1);
    let uneven = balance.into_iter().filter(|(_, count)| *count != 0);
    uneven
        .map(|((process, line), count)| {
            let who = if count > 0 { "only strace" } else { "only observer" };
            format!("{who} ({}×), process {process}: {line:.300}", count.abs())
        })
        .collect()
}

#[test]
fn what_strace_saw_is_what_was_recorded_to_the_last_call() {
    if !lacking("eBPF, to be held against strace") {
        assert_strace_agrees_with("ebpf");
    }
    assert_strace_agrees_with("ptrace");
}

fn assert_strace_agrees_with(backend: &str) {
    let venv = Venv::ensure().unwrap();
    let stage = Stage::set();
    let command = stage.command(&venv);

    let (mut traced, trace) = Trace::of(CALLS, &command).unwrap();
    assert_eq!(alike(&mut traced, stage.path()), (Some(5), String::new()));
    let state = State::new().unwrap();
    // A broker's port among those connected to would not matter: what is compared is calls, not streams.
    assert_eq!(
        alike(&mut state.attach_by(backend, &[], &command).unwrap(), stage.path()),
        (Some(5), String::new())
    );
    assert_eq!(state.lost().unwrap(), BTreeMap::new());

    let mut order = Order::default();
    let lines = trace.lines().unwrap();
    let strace: Vec<(usize, String)> = lines
        .iter()
        .map(|(pid, line)| {
            let said = match line {
                Line::Call(call) => by_strace(call),
                Line::Exited(code) => format!("exited {code}"),
                Line::Killed(signal) => format!("killed {signal}"),
            };
            (order.of(*pid), said)
        })
        .collect();
    let mut order = Order::default();
    let events = state.events(&[]).unwrap();
    let observer: Vec<(usize, String)> = events
        .iter()
        .filter_map(|event| by_observer(event).map(|said| (event.pid, said)))
        .map(|(pid, said)| (order.of(pid), said))
        .collect();

    let differences = differences(&strace, &observer);
    assert!(
        differences.is_empty(),
        "{backend}: {} differences:\n{}",
        differences.len(),
        differences.join("\n")
    );
    // The program did run.
    assert!(strace.len() > 700, "{}", strace.len());

    // What strace does not say: where a relative path leads.
    let folder = stage.path().to_str().unwrap();
    let called = |name: &str, path: &str, at: bool| {
        let mut calls = events.iter().filter(|event| {
            event.text("syscall") == Some(name)
                && event.text("path") == Some(path)
                && event.int("dirfd").is_some() == at
        });
        calls.next().unwrap_or_else(|| panic!("{name} {path:?} was not recorded"))
    };
    for (name, path, at, resolved) in [
        ("openat", "inner.py", false, "package/inner.py"),
        ("newfstatat", "../data.txt", false, "data.txt"),
        ("openat", ".././package//../data.txt", false, "data.txt"),
        ("access", "missing", false, "package/missing"),
        ("openat", "data.txt", true, "data.txt"),
        ("readlinkat", "link", true, "link"),
        ("faccessat2", "package/inner.py", true, "package/inner.py"),
        ("openat2", "missing", true, "missing"),
    ] {
        assert_eq!(called(name, path, at).text("resolved"), Some(format!("{folder}/{resolved}").as_str()));
    }
}
