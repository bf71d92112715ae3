//! Records to domain events. Every length is checked and every kind looked up; what does not fit is counted, never guessed. It keeps
//! no state but the programs whose arguments are still on their way.

use std::{collections::HashMap, net::IpAddr};

use observer_ebpf as wire;
use observer_ebpf::{flag, kind};
use syscalls::Sysno;
use zerocopy::FromBytes;

use crate::{
    event::{
        Absence, Address, Body, Direction, Disconnect, Event, Exec, Executable, Fd, FdKind, FdTarget,
        FileCall, Known, Limit, Origin, OutputStream, Pid, Sender, SocketId, Tid, User,
    },
    source::proc,
};

/// A program whose arguments are not complete after this long will not get them any more.
const PATIENCE_NS: u64 = 500_000_000;
/// The kernel's own limit of arguments and environment (`fs/exec.c`): three quarters of 8 MiB.
const ARGS_LIMIT: u64 = 6 * 1024 * 1024 + 4096;

const ECONN_SUCCESS: i32 = 0;
const AT_FDCWD: i32 = -100;

/// Decodes one source's records.
#[derive(Default)]
pub(super) struct Decoder {
    waiting: HashMap<u32, Waiting>,
    /// Records that could not be decoded since last asked, by kind.
    pub(super) undecodable: HashMap<&'static str, u64>,
    pipes: proc::PipeHolders,
}

/// A program started whose arguments and environment come in pieces.
struct Waiting {
    event: Event,
    arg_len: usize,
    bytes: Vec<u8>,
    have: usize,
    /// How much of the beginning is there without a gap.
    unbroken: usize,
    faulted: bool,
}

/// A copy, because a record stands at any address.
fn split<T: FromBytes>(record: &[u8]) -> Option<(T, &[u8])> {
    T::read_from_prefix(record).ok()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Bytes up to the first NUL.
fn c_text(bytes: &[u8]) -> String {
    text(bytes.split(|byte| *byte == 0).next().unwrap_or_default())
}

fn syscall(nr: u32) -> String {
    Sysno::new(nr as usize).map_or_else(|| format!("syscall {nr}"), |sysno| sysno.name().to_owned())
}

/// Components, leaf first and each ended by NUL, to an absolute path.
fn components(tail: &[u8]) -> String {
    let mut path = String::with_capacity(tail.len() + 1);
    for part in tail.split(|byte| *byte == 0).rev().filter(|part| !part.is_empty()) {
        path.push('/');
        path.push_str(&String::from_utf8_lossy(part));
    }
    if path.is_empty() {
        path.push('/');
    }
    path
}

/// `base` and `path` to an absolute path without `.`, `..` and doubled slashes.
fn normalise(base: &str, path: &str) -> String {
    let clean = |path: &str| !path.contains("/.") && !path.contains("//") && !path.ends_with('/');
    if path.starts_with('/') && path.len() > 1 && clean(path) {
        return path.to_owned();
    }
    let mut parts: Vec<&str> = Vec::new();
    let base = if path.starts_with('/') { "" } else { base };
    for part in base.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn known<T>(value: T, whole: bool) -> Known<T> {
    if whole { Known::Is(value) } else { Known::Partial { partial: value, missing_bytes: None } }
}

/// A wait status as `wait(2)` has it.
fn status(code: u32) -> (Option<i32>, Option<i32>, bool) {
    let signal = (code & 0x7f) as i32;
    if signal == 0 {
        (Some(((code >> 8) & 0xff) as i32), None, false)
    } else {
        (None, Some(signal), code & 0x80 != 0)
    }
}

/// Whether a path fills all the room there is and was refused for its length: then there may be more of it.
fn too_long(path: &[u8], ret: i64) -> bool {
    const ENAMETOOLONG: i64 = 36;
    ret == -ENAMETOOLONG && path.len() >= wire::PATH_MAX - 1
}

fn errno(ret: i64) -> i32 {
    if ret < 0 { (-ret) as i32 } else { 0 }
}

/// Soft and hard limits by name, in the kernel's order (`include/uapi/asm-generic/resource.h`).
const LIMITS: [&str; wire::RLIMITS] = [
    "CPU",
    "FSIZE",
    "DATA",
    "STACK",
    "CORE",
    "RSS",
    "NPROC",
    "NOFILE",
    "MEMLOCK",
    "AS",
    "LOCKS",
    "SIGPENDING",
    "MSGQUEUE",
    "NICE",
    "RTPRIO",
    "RTTIME",
];

/// A device number as the kernel keeps it (`MAJOR`, `MINOR` of `linux/kdev_t.h`).
fn device(dev: u32) -> String {
    format!("{}:{}", dev >> 20, dev & 0xf_ffff)
}

const fn major(dev: u32) -> u32 {
    dev >> 20
}

/// Terminals: `/dev/tty*` and the two ranges of pseudo-terminals (Documentation/admin-guide/devices.txt).
const fn is_terminal(rdev: u32) -> bool {
    let major = major(rdev);
    major == 4 || major == 5 || (major >= 128 && major <= 143)
}

fn fd_kind(mode: u32, rdev: u32) -> FdKind {
    match mode & 0o170_000 {
        0o100_000 => FdKind::File,
        0o040_000 => FdKind::Directory,
        0o020_000 if is_terminal(rdev) => FdKind::Tty,
        0o020_000 => FdKind::Device,
        0o010_000 => FdKind::Pipe,
        0o140_000 => FdKind::Socket,
        _ => FdKind::Other,
    }
}

fn ip(family: u16, bytes: [u8; 16]) -> Option<IpAddr> {
    match family {
        2 => Some(IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]])),
        10 => Some(IpAddr::from(bytes)),
        _ => None,
    }
}

/// Local and peer address; an end without a port is not there yet.
fn ends(ends: &wire::Ends) -> (Known<Address>, Known<Address>) {
    let end = |bytes, port| match ip(ends.family, bytes) {
        Some(ip) if port != 0 => Known::Is(Address::Inet { ip, port }),
        Some(_) => Known::none(),
        None => Known::unknown(),
    };
    (end(ends.local, ends.local_port), end(ends.peer, ends.peer_port))
}

/// A `sockaddr` as the program gave it.
fn sockaddr(bytes: &[u8]) -> Known<Address> {
    let Some((family, rest)) = bytes.split_first_chunk::<2>() else { return Known::unknown() };
    let family = u16::from_ne_bytes(*family);
    let port = || rest.first_chunk::<2>().map(|port| u16::from_be_bytes(*port));
    match family {
        1 => {
            let path = match rest.split_first() {
                Some((0, name)) => format!("@{}", text(name)),
                _ => c_text(rest),
            };
            Known::Is(Address::Unix { path })
        }
        2 => match (port(), rest.get(2..6).and_then(|ip| <[u8; 4]>::try_from(ip).ok())) {
            (Some(port), Some(ip)) => Known::Is(Address::Inet { ip: ip.into(), port }),
            _ => Known::unknown(),
        },
        10 => match (port(), rest.get(6..22).and_then(|ip| <[u8; 16]>::try_from(ip).ok())) {
            (Some(port), Some(ip)) => Known::Is(Address::Inet { ip: ip.into(), port }),
            _ => Known::unknown(),
        },
        number => Known::Is(Address::Other { number: number.into() }),
    }
}

impl Decoder {
    /// Decodes one record and appends what it says.
    pub(super) fn record(&mut self, record: &[u8], out: &mut Vec<Event>) {
        let Some((header, _)) = split::<wire::Header>(record) else {
            *self.undecodable.entry("unknown").or_default() += 1;
            return;
        };
        let name = kind::NAMES.get(usize::from(header.kind)).copied().unwrap_or("unknown");
        if self.body(&header, record, out).is_none() {
            *self.undecodable.entry(name).or_default() += 1;
        }
    }

    fn body(&mut self, header: &wire::Header, record: &[u8], out: &mut Vec<Event>) -> Option<()> {
        let mut event = |body| {
            out.push(Event {
                at_ns: header.at_ns,
                pid: Pid(header.tgid),
                tid: Tid(header.tid),
                observed_from: Origin::Ebpf,
                body,
                bytes: Vec::new(),
            });
        };
        match header.kind {
            kind::FORK => {
                let (fork, _) = split::<wire::Fork>(record)?;
                event(if header.flags & flag::THREAD == 0 {
                    Body::Fork { child: Pid(fork.child_tgid) }
                } else {
                    Body::Thread { child: Tid(fork.child_tid) }
                });
            }
            kind::EXEC => self.exec(record, out)?,
            kind::ARGS => self.arguments(record, out)?,
            kind::EXEC_FAILED => {
                let (call, tail) = split::<wire::FileCall>(record)?;
                let path = tail.get(..call.path_len as usize)?;
                let path = if header.flags & flag::FAULT != 0 && path.is_empty() {
                    Known::unknown()
                } else {
                    known(text(path), !too_long(path, call.ret))
                };
                event(Body::ExecFailed { path, errno: errno(call.ret) });
            }
            kind::EXIT => {
                let (exit, _) = split::<wire::Exit>(record)?;
                if exit.last != 0 {
                    let (code, signal, core_dumped) = status(exit.group_code);
                    event(Body::Exit { code, signal, core_dumped });
                } else {
                    let (code, signal, _) = status(exit.code);
                    event(Body::ThreadExit { code, signal });
                }
            }
            kind::EXIT_CALL => {
                let (call, _) = split::<wire::ExitCall>(record)?;
                let group = Sysno::new(header.nr as usize) == Some(Sysno::exit_group);
                event(Body::ExitCall { code: call.code as i32, group });
            }
            kind::SIGNAL => event(signal(&split::<wire::Signal>(record)?.0)),
            kind::DELIVER => {
                let (deliver, _) = split::<wire::Deliver>(record)?;
                // The kernel ends the other threads of a process by SIGKILL, whether it was `exit_group` or a deadly signal (6.1,
                // kernel/signal.c, get_signal): nobody sent that one, and what ended the process is in its `Exit`.
                if deliver.signal != nix::libc::SIGKILL {
                    event(Body::SignalDelivered { signal: deliver.signal, handled: deliver.handled != 0 });
                }
            }
            kind::OOM => event(Body::OomVictim),
            kind::FILE => event(file(record)?),
            kind::SOCKET => event(socket(&split::<wire::SocketCall>(record)?.0)?),
            kind::SOCKET_STATE => {
                if let Some(body) = socket_state(&split::<wire::SocketState>(record)?.0) {
                    event(body);
                }
            }
            kind::DATA | kind::OUTPUT => data(record, out)?,
            kind::SLOW => {
                let (slow, _) = split::<wire::Slow>(record)?;
                let body = Body::Unstuck {
                    syscall: syscall(header.nr),
                    since_ns: header.enter_ns,
                    result: slow.ret,
                };
                event(body);
            }
            _ => return None,
        }
        Some(())
    }

    fn exec(&mut self, record: &[u8], out: &mut Vec<Event>) -> Option<()> {
        let (exec, tail) = split::<wire::Exec>(record)?;
        let whole = exec.header.flags & flag::CUT == 0;
        let mut rest = tail;
        let mut take = |len: u32| -> Option<&[u8]> {
            let (taken, left) = rest.split_at_checked(len as usize)?;
            rest = left;
            Some(taken)
        };
        let path = text(take(exec.name_len)?);
        let exe = components(take(exec.exe_len)?);
        let cwd = components(take(exec.cwd_len)?);
        let mut stdio = Vec::with_capacity(3);
        for facts in exec.stdio {
            let path = take(facts.path_len)?;
            if facts.mode == 0 {
                stdio.push(Known::none());
                continue;
            }
            let what = fd_kind(facts.mode, facts.rdev);
            let other_end = if what == FdKind::Pipe {
                self.pipes.other_end(facts.inode, exec.header.tgid)
            } else {
                Known::none()
            };
            let path = match what {
                FdKind::Pipe | FdKind::Socket | FdKind::Other => Known::none(),
                _ => known(components(path), whole),
            };
            stdio.push(Known::Is(FdTarget { what, path, inode: facts.inode, other_end }));
        }
        let limits = LIMITS.iter().zip(exec.limits.chunks_exact(2)).map(|(name, pair)| {
            let limit = |value: u64| (value != u64::MAX).then_some(value);
            Limit { name: (*name).to_owned(), soft: limit(pair[0]), hard: limit(pair[1]) }
        });
        let ngroups = exec.ngroups as usize;
        let groups = exec.groups[..ngroups.min(wire::GROUPS_MAX)].to_vec();
        let user = User {
            uid: exec.uid,
            euid: exec.euid,
            gid: exec.gid,
            egid: exec.egid,
            groups: known(groups, ngroups <= wire::GROUPS_MAX),
        };
        let tty = c_text(&exec.tty);
        let body = Exec {
            path: Known::Is(path),
            argv: Known::unknown(),
            env: Known::unknown(),
            cwd: known(cwd, whole),
            exe: Known::Is(Executable {
                path: known(exe, whole),
                device: device(exec.exe_dev),
                inode: exec.exe_inode,
            }),
            ppid: Pid(exec.ppid),
            caller: Tid(exec.old_tid),
            user: Known::Is(user),
            umask: Known::Is(exec.umask),
            limits: Known::Is(limits.collect()),
            tty: if tty.is_empty() { Known::none() } else { Known::Is(tty) },
            stdio,
        };
        let total = exec.arg_len.saturating_add(exec.env_len).min(ARGS_LIMIT) as usize;
        let event = Event {
            at_ns: exec.header.at_ns,
            pid: Pid(exec.header.tgid),
            tid: Tid(exec.header.tid),
            observed_from: Origin::Ebpf,
            body: Body::Exec(Box::new(body)),
            bytes: Vec::new(),
        };
        let arg_len = (exec.arg_len as usize).min(total);
        let waiting = Waiting { event, arg_len, bytes: vec![0; total], have: 0, unbroken: 0, faulted: false };
        if let Some(before) = self.waiting.insert(exec.header.tgid, waiting) {
            out.push(before.finish());
        }
        if total == 0 {
            self.complete(exec.header.tgid, out);
        }
        Some(())
    }

    fn arguments(&mut self, record: &[u8], out: &mut Vec<Event>) -> Option<()> {
        let (args, tail) = split::<wire::Args>(record)?;
        let waiting = self.waiting.get_mut(&args.header.tgid)?;
        let start = args.offset as usize;
        let piece = tail.get(..args.len as usize)?;
        let place = waiting.bytes.get_mut(start..start.checked_add(piece.len())?)?;
        if args.header.flags & flag::FAULT == 0 {
            place.copy_from_slice(piece);
            if start == waiting.unbroken {
                waiting.unbroken += piece.len();
            }
        } else {
            waiting.faulted = true;
        }
        waiting.have += piece.len();
        if waiting.have >= waiting.bytes.len() {
            self.complete(args.header.tgid, out);
        }
        Some(())
    }

    fn complete(&mut self, tgid: u32, out: &mut Vec<Event>) {
        if let Some(waiting) = self.waiting.remove(&tgid) {
            out.push(waiting.finish());
        }
    }

    /// Gives up on arguments that did not come: the program is reported with what there is of them.
    pub(super) fn give_up(&mut self, now_ns: u64, out: &mut Vec<Event>) {
        let late = |waiting: &Waiting| now_ns.saturating_sub(waiting.event.at_ns) > PATIENCE_NS;
        let tgids: Vec<u32> =
            self.waiting.iter().filter(|(_, waiting)| late(waiting)).map(|(tgid, _)| *tgid).collect();
        for tgid in tgids {
            self.complete(tgid, out);
        }
    }
}

impl Waiting {
    fn finish(mut self) -> Event {
        let missing = self.bytes.len().saturating_sub(self.have) as u64;
        // A missing piece is all NUL, and NUL never stands twice in a row in what execve built, empty strings aside: keep those
        // only where nothing is missing.
        let strings = |bytes: &[u8], whole: bool| -> Known<Vec<String>> {
            let mut strings: Vec<String> = bytes.split(|byte| *byte == 0).map(text).collect();
            strings.pop();
            if whole {
                return Known::Is(strings);
            }
            strings.retain(|string| !string.is_empty());
            if strings.is_empty() {
                Known::Absent { absent: if missing > 0 { Absence::Lost } else { Absence::Unknown } }
            } else {
                Known::Partial { partial: strings, missing_bytes: Some(missing) }
            }
        };
        let (args, env) = self.bytes.split_at(self.arg_len);
        if let Body::Exec(exec) = &mut self.event.body {
            exec.argv = strings(args, self.unbroken >= self.arg_len);
            exec.env = strings(env, self.unbroken >= self.bytes.len());
        }
        self.event
    }
}

fn signal(signal: &wire::Signal) -> Body {
    let len = (signal.cmdline_len as usize).min(wire::CMDLINE_MAX);
    let cmdline = text(signal.cmdline[..len].trim_ascii_end()).replace('\0', " ").trim_end().to_owned();
    let sender = if signal.sender == 0 {
        Known::none()
    } else {
        let cmdline = match (cmdline.is_empty(), len == wire::CMDLINE_MAX) {
            (true, _) => Known::unknown(),
            (false, cut) => known(cmdline, !cut),
        };
        Known::Is(Sender { pid: Pid(signal.sender), name: c_text(&signal.comm), cmdline })
    };
    Body::Signal {
        signal: signal.signal,
        code: signal.code,
        sender,
        group: signal.group != 0,
        queued: signal.result == 0,
    }
}

fn file(record: &[u8]) -> Option<Body> {
    let (call, tail) = split::<wire::FileCall>(record)?;
    let path = tail.get(..call.path_len as usize)?;
    let base = tail.get(call.path_len as usize..)?.get(..call.base_len as usize)?;
    let name = syscall(call.header.nr);
    let at = matches!(
        name.as_str(),
        "openat" | "openat2" | "newfstatat" | "statx" | "faccessat" | "faccessat2" | "readlinkat"
    );
    let on_fd = matches!(name.as_str(), "fchdir" | "getdents" | "getdents64");
    let given = !too_long(path, call.ret);
    let path = text(path);
    let unread = path.is_empty() && call.header.flags & flag::FAULT != 0 && !on_fd;
    let whole = given && call.header.flags & flag::CUT == 0;
    let resolved = if call.has_base == 0 {
        known(normalise("", &path), given)
    } else if call.header.flags & flag::FAULT != 0 || (base.is_empty() && path.is_empty() && !on_fd) {
        // No directory could be read, or the descriptor is no file (a pipe, a socket).
        Known::unknown()
    } else {
        known(normalise(&components(base), &path), whole)
    };
    let flags = match name.as_str() {
        "open" | "access" => call.args[1],
        "creat" => 0o1101, // O_WRONLY | O_CREAT | O_TRUNC
        "openat" | "openat2" | "statx" | "faccessat" | "faccessat2" => call.args[2],
        "newfstatat" => call.args[3],
        _ => 0,
    };
    let dirfd = call.args[0] as i32;
    let file = FileCall {
        path: if unread { Known::unknown() } else { known(path, given) },
        resolved,
        dirfd: ((at && dirfd != AT_FDCWD) || on_fd).then_some(Fd(dirfd)),
        flags,
        result: (call.ret >= 0).then_some(call.ret),
        errno: errno(call.ret),
        duration_ns: duration(&call.header),
        syscall: name,
    };
    Some(match file.syscall.as_str() {
        "open" | "creat" | "openat" | "openat2" => Body::Open(file),
        "stat" | "lstat" | "newfstatat" | "statx" => Body::Stat(file),
        "access" | "faccessat" | "faccessat2" => Body::Access(file),
        "readlink" | "readlinkat" => Body::Readlink(file),
        "chdir" | "fchdir" => Body::Chdir(file),
        "getdents" | "getdents64" => Body::Scan(file),
        _ => return None,
    })
}

fn duration(header: &wire::Header) -> u64 {
    if header.enter_ns == 0 { 0 } else { header.at_ns.saturating_sub(header.enter_ns) }
}

fn socket(call: &wire::SocketCall) -> Option<Body> {
    let (id, fd) = (SocketId(call.inode), Fd(call.fd));
    let address = call.address.get(..call.address_len as usize)?;
    let (local, peer) = ends(&call.ends);
    let failed = errno(call.ret);
    Some(match syscall(call.header.nr).as_str() {
        "socket" | "socketpair" if failed != 0 => Body::SocketFailed { family: call.family, errno: failed },
        "socket" | "socketpair" => Body::Socket {
            socket: id,
            fd,
            family: call.family,
            // The low bits: SOCK_NONBLOCK and SOCK_CLOEXEC stand above.
            socket_type: call.socket_type & 0xf,
            protocol: call.protocol,
        },
        "connect" => Body::Connect {
            socket: id,
            fd,
            peer: sockaddr(address),
            local: if failed == ECONN_SUCCESS { local } else { Known::none() },
            errno: failed,
            duration_ns: duration(&call.header),
        },
        "bind" => Body::Bind { socket: id, fd, address: sockaddr(address), errno: failed },
        "listen" => Body::Listen { socket: id, fd, address: local, errno: failed },
        "accept" | "accept4" => Body::Accept { socket: id, fd, peer, local },
        "close" => Body::Close { socket: id, fd },
        _ => return None,
    })
}

/// States of `include/net/tcp_states.h`.
mod tcp {
    pub(super) const ESTABLISHED: u32 = 1;
    pub(super) const SYN_SENT: u32 = 2;
    pub(super) const FIN_WAIT1: u32 = 4;
    pub(super) const CLOSE: u32 = 7;
    pub(super) const CLOSE_WAIT: u32 = 8;
    pub(super) const LAST_ACK: u32 = 9;
}

fn socket_state(state: &wire::SocketState) -> Option<Body> {
    const ECONNRESET: i32 = 104;
    const EPIPE: i32 = 32;
    let socket = SocketId(state.inode);
    let (local, peer) = ends(&state.ends);
    let error = state.error as i32;
    if state.old == tcp::SYN_SENT {
        if state.new != tcp::ESTABLISHED && state.new != tcp::CLOSE {
            return None;
        }
        let errno = if state.new == tcp::ESTABLISHED { 0 } else { error };
        return Some(Body::Connected { socket, peer, local, errno, duration_ns: duration(&state.header) });
    }
    let how = match (state.old, state.new, error) {
        (_, tcp::FIN_WAIT1, _) => Disconnect::ByUs,
        (_, tcp::CLOSE_WAIT, _) => Disconnect::ByPeer,
        (_, tcp::LAST_ACK, _) => Disconnect::Closed,
        (_, tcp::CLOSE, ECONNRESET | EPIPE) => Disconnect::ResetByPeer,
        (_, tcp::CLOSE, 0) => Disconnect::ResetByUs,
        (_, tcp::CLOSE, _) => Disconnect::Failed,
        _ => return None,
    };
    Some(Body::Disconnect { socket, how, errno: error, peer, local })
}

fn data(record: &[u8], out: &mut Vec<Event>) -> Option<()> {
    let (data, tail) = split::<wire::Data>(record)?;
    let bytes = tail.get(..data.captured as usize)?.to_vec();
    let fd = Fd(data.fd);
    let body = if data.header.kind == kind::OUTPUT {
        let stream = match data.fd {
            1 => OutputStream::Stdout,
            2 => OutputStream::Stderr,
            _ => OutputStream::Pipe,
        };
        Body::Output {
            stream,
            fd,
            inode: data.inode,
            len: data.len,
            piece_offset: data.offset,
            errno: data.errno as i32,
        }
    } else {
        let sent = data.header.flags & flag::SENT != 0;
        Body::Data {
            socket: SocketId(data.inode),
            fd,
            direction: if sent { Direction::Sent } else { Direction::Received },
            offset: data.offset,
            len: data.len,
            syscall: syscall(data.header.nr),
            errno: data.errno as i32,
            since_attach: data.header.flags & flag::SINCE_ATTACH != 0,
            redacted: Vec::new(),
        }
    };
    out.push(Event {
        at_ns: data.header.at_ns,
        pid: Pid(data.header.tgid),
        tid: Tid(data.header.tid),
        observed_from: Origin::Ebpf,
        body,
        bytes,
    });
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_come_leaf_first() {
        assert_eq!(components(b"minimal_worker.py\0app\0srv\0"), "/srv/app/minimal_worker.py");
        assert_eq!(components(b""), "/");
    }

    #[test]
    fn paths_are_normalised_without_following_links() {
        assert_eq!(normalise("/srv/app", "../lib/./x.py"), "/srv/lib/x.py");
        assert_eq!(normalise("/srv/app", ""), "/srv/app");
        assert_eq!(normalise("/srv", "/usr//lib/../bin/"), "/usr/bin");
        assert_eq!(normalise("/", "../../etc"), "/etc");
        assert_eq!(normalise("/srv", "/usr/lib/x.so"), "/usr/lib/x.so");
    }

    #[test]
    fn garbage_is_counted_and_gives_nothing() {
        let mut decoder = Decoder::default();
        let mut out = Vec::new();
        for len in 0..2048 {
            for fill in [0, 1, 2, 10, 0x7f, 0xff] {
                decoder.record(&vec![fill; len], &mut out);
            }
        }
        assert!(decoder.undecodable.values().sum::<u64>() > 0);
    }

    #[test]
    fn a_wait_status_is_read_as_wait_does() {
        assert_eq!(status(0x0200), (Some(2), None, false));
        assert_eq!(status(9), (None, Some(9), false));
        assert_eq!(status(0x8b), (None, Some(11), true));
    }

    #[test]
    fn addresses() {
        let mut v4 = vec![2, 0, 0x16, 0x28, 127, 0, 0, 1];
        v4.extend([0; 8]);
        assert_eq!(sockaddr(&v4), Known::Is(Address::Inet { ip: [127, 0, 0, 1].into(), port: 5672 }));
        assert_eq!(sockaddr(b"\x01\0/run/x\0junk"), Known::Is(Address::Unix { path: "/run/x".into() }));
        assert_eq!(sockaddr(b"\x01\0\0abstract"), Known::Is(Address::Unix { path: "@abstract".into() }));
        assert_eq!(sockaddr(b"\x02"), Known::unknown());
    }
}
