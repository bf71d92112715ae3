//! What `/proc` tells: the past of a process we attach to, what a thread waits on, who holds a pipe's other end. It looks, after the
//! fact, and says so; it knows no source.

use std::{
    collections::HashMap,
    ffi::CString,
    fs,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    time::{Duration, Instant},
};

use crate::event::{
    Address, Body, Event, Exec, Executable, Fd, FdKind, FdTarget, Holder, Known, Limit, Origin, Pid,
    SocketId, Tid, User,
};

/// `CLOCK_MONOTONIC` now, in nanoseconds: the clock of every event.
pub fn monotonic_ns() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .unwrap_or_else(|_| nix::sys::time::TimeSpec::new(0, 0));
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

fn read(pid: u32, file: &str) -> Option<Vec<u8>> {
    fs::read(format!("/proc/{pid}/{file}")).ok()
}

fn link(pid: u32, file: &str) -> Option<String> {
    Some(fs::read_link(format!("/proc/{pid}/{file}")).ok()?.to_string_lossy().into_owned())
}

/// Strings separated by NUL, as `/proc/PID/cmdline` and `environ` have them.
fn strings(bytes: &[u8]) -> Vec<String> {
    if bytes.is_empty() {
        return Vec::new();
    }
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    bytes.split(|byte| *byte == 0).map(|part| String::from_utf8_lossy(part).into_owned()).collect()
}

fn or_unknown<T>(value: Option<T>) -> Known<T> {
    value.map_or_else(Known::unknown, Known::Is)
}

/// The command line of a process, empty for a kernel thread or one that is gone.
pub fn cmdline(pid: u32) -> Vec<String> {
    read(pid, "cmdline").map(|bytes| strings(&bytes)).unwrap_or_default()
}

/// The environment of the sudo process that started us, which is that of whoever called it; `None` without one.
///
/// With `use_pty` a second sudo stands between it and us, with the same environment.
pub fn environment_before_sudo() -> Option<Vec<CString>> {
    let mut pid = std::process::id();
    for _ in 0..3 {
        pid = parent(pid)?;
        if read(pid, "comm").as_deref() == Some(b"sudo\n") {
            let bytes = read(pid, "environ")?;
            let strings = bytes.split(|byte| *byte == 0).filter(|string| !string.is_empty());
            return strings.map(|string| CString::new(string).ok()).collect();
        }
    }
    None
}

/// Numeric entries of a directory.
pub(super) fn numbers(path: &str) -> Vec<u32> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Every process there is.
pub fn all_pids() -> Vec<u32> {
    numbers("/proc")
}

/// Threads of a process.
pub fn threads(pid: u32) -> Vec<u32> {
    numbers(&format!("/proc/{pid}/task"))
}

/// One field of `/proc/PID/status`.
fn status_field(pid: u32, name: &str) -> Option<String> {
    let status = String::from_utf8(read(pid, "status")?).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

/// Parent process, `None` when the process is gone.
pub fn parent(pid: u32) -> Option<u32> {
    status_field(pid, "PPid")?.parse().ok()
}

/// The process a thread belongs to.
pub fn process_of(tid: u32) -> Option<u32> {
    status_field(tid, "Tgid")?.parse().ok()
}

/// The process that traces a thread, if any does.
pub fn tracer(tid: u32) -> Option<u32> {
    // It is a thread that traces.
    let tracer = status_field(tid, "TracerPid")?.parse().ok().filter(|tracer| *tracer != 0)?;
    process_of(tracer).or(Some(tracer))
}

/// When a process was created, in clock ticks since the machine's start: with its id this names it for good (`proc_pid_stat(5)`, field 22).
pub fn start_ticks(pid: u32) -> Option<u64> {
    let stat = String::from_utf8_lossy(&read(pid, "stat")?).into_owned();
    // The second field is the command's name, which may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// The user a process runs as (its real id).
pub fn uid(pid: u32) -> Option<u32> {
    status_field(pid, "Uid")?.split_whitespace().next()?.parse().ok()
}

/// When a process was created, in nanoseconds on `CLOCK_MONOTONIC`, as exactly as the kernel's ticks tell.
pub fn started_ns(pid: u32) -> Option<u64> {
    let ticks_per_s = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??.unsigned_abs();
    let since_boot_ns = start_ticks(pid)?.saturating_mul(1_000_000_000 / ticks_per_s.max(1));
    // What the machine slept counts in the one clock and not in the other.
    let boot = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).ok()?;
    let boot_ns = boot.tv_sec().unsigned_abs() * 1_000_000_000 + boot.tv_nsec().unsigned_abs();
    Some(since_boot_ns.saturating_sub(boot_ns.saturating_sub(monotonic_ns())))
}

/// Whether a process is there and has not ended.
pub fn is_alive(pid: u32) -> bool {
    !matches!(state(pid), None | Some('Z' | 'X'))
}

/// The four user or group ids of a process: real, effective, saved, and that of its files (`proc_pid_status(5)`, `Uid` and `Gid`).
fn ids(pid: u32, field: &str) -> Option<[u32; 4]> {
    let ids: Vec<u32> =
        status_field(pid, field)?.split_whitespace().filter_map(|id| id.parse().ok()).collect();
    ids.try_into().ok()
}

/// Whether a process is one that this user may look into, as the kernel has it for tracing (`ptrace(2)`, "Ptrace access mode checking"): all
/// four of its user ids are theirs, its group ids are one, and its directory in `/proc` is theirs, which it is not when it is not dumpable.
pub fn is_of(pid: u32, uid: u32) -> bool {
    let directory = fs::metadata(format!("/proc/{pid}"));
    directory.is_ok_and(|directory| directory.uid() == uid)
        && ids(pid, "Uid").is_some_and(|ids| ids.iter().all(|id| *id == uid))
        && ids(pid, "Gid").is_some_and(|[gid, others @ ..]| others.iter().all(|id| *id == gid))
}

/// The name of a process (`comm`).
pub fn name(pid: u32) -> Option<String> {
    read(pid, "comm").map(|name| String::from_utf8_lossy(&name).trim_end().to_owned())
}

/// The control group (version 2) of a process, as a path from the root of the hierarchy; `None` too where there is none.
pub fn cgroup(pid: u32) -> Option<String> {
    let groups = String::from_utf8(read(pid, "cgroup")?).ok()?;
    groups.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

/// The working directory of a thread.
pub fn cwd(tid: u32) -> Option<String> {
    link(tid, "cwd")
}

/// Signals a process handles, and those it ignores: bit 0 is signal 1.
pub fn dispositions(pid: u32) -> Option<(u64, u64)> {
    let mask = |name| u64::from_str_radix(&status_field(pid, name)?, 16).ok();
    Some((mask("SigCgt")?, mask("SigIgn")?))
}

/// The scheduler state's letter.
pub fn state(pid: u32) -> Option<char> {
    status_field(pid, "State")?.chars().next()
}

/// Children of all threads of a process, as they stand now.
pub fn children(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for tid in threads(pid) {
        match fs::read_to_string(format!("/proc/{pid}/task/{tid}/children")) {
            Ok(list) => found.extend(list.split_whitespace().filter_map(|word| word.parse::<u32>().ok())),
            // Kernels without CONFIG_PROC_CHILDREN.
            Err(_) => return all_pids().into_iter().filter(|child| parent(*child) == Some(pid)).collect(),
        }
    }
    found
}

/// The system call a thread is in and its arguments, from `/proc/TID/syscall`.
pub fn current_call(tid: u32) -> Option<(u32, [u64; 6])> {
    let line = String::from_utf8(read(tid, "syscall")?).ok()?;
    let mut words = line.split_whitespace();
    let nr = words.next()?.parse().ok()?;
    let mut args = [0; 6];
    for arg in &mut args {
        *arg = u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok()?;
    }
    Some((nr, args))
}

/// How long a thread has run on a processor; `None` where the kernel does not count (`CONFIG_SCHED_INFO`).
pub fn run_ns(tid: u32) -> Option<u64> {
    String::from_utf8(read(tid, "schedstat")?).ok()?.split_whitespace().next()?.parse().ok()
}

/// Where a descriptor of a process or thread leads, as `/proc` words it (`socket:[123]`, a path).
pub fn fd_link(id: u32, fd: i32) -> Option<String> {
    link(id, &format!("fd/{fd}"))
}

/// What is behind `/proc/PID/fd/FD`.
fn fd_target(pid: u32, fd: i32, pipes: Option<&mut PipeHolders>) -> Known<FdTarget> {
    let path = format!("/proc/{pid}/fd/{fd}");
    let Ok(facts) = fs::metadata(&path) else { return Known::none() };
    let name = fd_link(pid, fd);
    let kind = facts.file_type();
    let what = match () {
        () if kind.is_file() => FdKind::File,
        () if kind.is_dir() => FdKind::Directory,
        () if kind.is_fifo() => FdKind::Pipe,
        () if kind.is_socket() => FdKind::Socket,
        () if kind.is_char_device() => match name.as_deref() {
            Some(name) if name.starts_with("/dev/pts/") || name.starts_with("/dev/tty") => FdKind::Tty,
            _ => FdKind::Device,
        },
        () => FdKind::Other,
    };
    let other_end = match pipes {
        _ if what != FdKind::Pipe => Known::none(),
        Some(pipes) => pipes.other_end(facts.ino(), pid),
        None => Known::not_collected(),
    };
    let path = match what {
        FdKind::Pipe | FdKind::Socket | FdKind::Other => Known::none(),
        _ => or_unknown(name),
    };
    Known::Is(FdTarget { what, path, inode: facts.ino(), other_end })
}

/// Who holds the other ends of pipes. A look costs a walk over every descriptor of the machine, so one look answers for all pipes, and
/// there is a budget for it.
#[derive(Default)]
pub struct PipeHolders {
    /// Process and descriptor, by the pipe's inode.
    seen: HashMap<u64, Vec<(u32, u32)>>,
    spent: Duration,
    window: Option<Instant>,
}

impl PipeHolders {
    /// Of every second, in processor time: on a busy machine a look takes longer and costs no more.
    const BUDGET: Duration = Duration::from_millis(50);

    /// Processes other than `pid` that hold the pipe `inode`.
    pub fn other_end(&mut self, inode: u64, pid: u32) -> Known<Vec<Holder>> {
        let now = Instant::now();
        if self.window.is_none_or(|start| now - start > Duration::from_secs(1)) {
            self.window = Some(now);
            self.spent = Duration::ZERO;
            self.seen.clear();
        }
        // A look from before the process had the pipe says nothing of now.
        if !self.holders(inode).iter().any(|(holder, _)| *holder == pid) {
            if self.spent >= Self::BUDGET {
                return Known::not_collected();
            }
            let begun = processor_time();
            self.seen = pipes();
            self.spent += processor_time().saturating_sub(begun);
        }
        let still = |(pid, fd): &(u32, u32)| Some((*pid, can_write(*pid, *fd)?));
        let all: Vec<(u32, bool)> = self.holders(inode).iter().filter_map(still).collect();
        let ours = all.iter().find(|(holder, _)| *holder == pid).map(|(_, writes)| *writes);
        let others = all.iter().filter(|(holder, writes)| *holder != pid && Some(*writes) != ours);
        let mut found: Vec<Holder> = others.map(|(pid, _)| holder(*pid)).collect();
        found.dedup();
        Known::Is(found)
    }

    fn holders(&self, inode: u64) -> &[(u32, u32)] {
        self.seen.get(&inode).map_or(&[], Vec::as_slice)
    }
}

/// What this thread has used.
fn processor_time() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID)
        .map_or(Duration::ZERO, |spent| Duration::new(spent.tv_sec() as u64, spent.tv_nsec() as u32))
}

/// Every holder of every pipe.
fn pipes() -> HashMap<u64, Vec<(u32, u32)>> {
    let mut found: HashMap<u64, Vec<(u32, u32)>> = HashMap::new();
    for pid in all_pids() {
        for fd in numbers(&format!("/proc/{pid}/fd")) {
            let link = fd_link(pid, fd as i32);
            let inode =
                link.as_deref().and_then(|link| link.strip_prefix("pipe:[")?.strip_suffix(']')?.parse().ok());
            if let Some(inode) = inode {
                found.entry(inode).or_default().push((pid, fd));
            }
        }
    }
    found
}

/// The link's permission bits are the descriptor's access mode (`proc(5)`). `None`: it is closed by now.
fn can_write(pid: u32, fd: u32) -> Option<bool> {
    let facts = fs::symlink_metadata(format!("/proc/{pid}/fd/{fd}")).ok()?;
    Some(facts.permissions().mode() & 0o200 != 0)
}

fn holder(pid: u32) -> Holder {
    Holder { pid: Pid(pid), name: name(pid).unwrap_or_default() }
}

/// The past of a running process as events: what it runs, its threads, its sockets. All marked as read from `/proc`.
pub fn past(pid: u32, pipes: &mut PipeHolders) -> Vec<Event> {
    let at_ns = monotonic_ns();
    let event = |body| Event {
        at_ns,
        pid: Pid(pid),
        tid: Tid(pid),
        observed_from: Origin::Proc,
        body,
        bytes: Vec::new(),
    };
    let mut events = vec![event(Body::Exec(Box::new(exec(pid, Some(pipes)))))];
    events.extend(
        threads(pid).into_iter().filter(|tid| *tid != pid).map(|tid| event(Body::Thread { child: Tid(tid) })),
    );
    events.extend(sockets(pid).into_iter().map(event));
    events
}

/// The program a process runs, as an event of now.
pub fn program(pid: u32) -> Event {
    let body = Body::Exec(Box::new(exec(pid, None)));
    let (pid, tid, bytes) = (Pid(pid), Tid(pid), Vec::new());
    Event { at_ns: monotonic_ns(), pid, tid, observed_from: Origin::Proc, body, bytes }
}

/// The program a process runs and all it has now. Without `pipes` nobody looks for the other ends of pipes, which takes time.
pub(super) fn exec(pid: u32, mut pipes: Option<&mut PipeHolders>) -> Exec {
    let ids = |name| {
        let line = status_field(pid, name)?;
        let mut ids = line.split_whitespace().filter_map(|word| word.parse::<u32>().ok());
        Some((ids.next()?, ids.next()?))
    };
    let user = ids("Uid").zip(ids("Gid")).map(|((uid, euid), (gid, egid))| {
        let groups = status_field(pid, "Groups")
            .map(|line| line.split_whitespace().filter_map(|word| word.parse().ok()).collect());
        User { uid, euid, gid, egid, groups: or_unknown(groups) }
    });
    let exe = link(pid, "exe").map(|path| {
        let facts = fs::metadata(format!("/proc/{pid}/exe")).ok();
        let (device, inode) = facts.map_or((0, 0), |facts| (facts.dev(), facts.ino()));
        let device = format!("{}:{}", nix::sys::stat::major(device), nix::sys::stat::minor(device));
        Executable { path: Known::Is(path), device, inode }
    });
    Exec {
        path: or_unknown(link(pid, "exe")),
        argv: or_unknown(read(pid, "cmdline").map(|bytes| strings(&bytes))),
        // What stands here is what the process got, unless it has written over it since.
        env: or_unknown(read(pid, "environ").map(|bytes| strings(&bytes))),
        cwd: or_unknown(link(pid, "cwd")),
        exe: or_unknown(exe),
        ppid: Pid(parent(pid).unwrap_or(0)),
        caller: Tid(pid),
        user: or_unknown(user),
        umask: or_unknown(status_field(pid, "Umask").and_then(|text| u32::from_str_radix(&text, 8).ok())),
        limits: or_unknown(limits(pid)),
        tty: terminal(pid),
        stdio: (0..3).map(|fd| fd_target(pid, fd, pipes.as_deref_mut())).collect(),
        cgroup: or_unknown(cgroup(pid)),
        rule: None,
        dumpable: None,
    }
}

/// The controlling terminal, from field 7 of `/proc/PID/stat` (`tty_nr`).
fn terminal(pid: u32) -> Known<String> {
    let number = read(pid, "stat").and_then(|stat| {
        let stat = String::from_utf8_lossy(&stat).into_owned();
        stat.rsplit_once(')')?.1.split_whitespace().nth(4)?.parse::<i64>().ok()
    });
    match number {
        None => Known::unknown(),
        Some(0) => Known::none(),
        Some(number) => {
            let (major, minor) = ((number >> 8) & 0xfff, (number & 0xff) | ((number >> 12) & 0xf_ff00));
            Known::Is(if (136..=143).contains(&major) {
                format!("pts{}", (major - 136) * 256 + minor)
            } else {
                format!("{major}:{minor}")
            })
        }
    }
}

/// `/proc/PID/limits`, with the names `prlimit` uses.
fn limits(pid: u32) -> Option<Vec<Limit>> {
    const NAMES: [(&str, &str); 16] = [
        ("Max cpu time", "CPU"),
        ("Max file size", "FSIZE"),
        ("Max data size", "DATA"),
        ("Max stack size", "STACK"),
        ("Max core file size", "CORE"),
        ("Max resident set", "RSS"),
        ("Max processes", "NPROC"),
        ("Max open files", "NOFILE"),
        ("Max locked memory", "MEMLOCK"),
        ("Max address space", "AS"),
        ("Max file locks", "LOCKS"),
        ("Max pending signals", "SIGPENDING"),
        ("Max msgqueue size", "MSGQUEUE"),
        ("Max nice priority", "NICE"),
        ("Max realtime priority", "RTPRIO"),
        ("Max realtime timeout", "RTTIME"),
    ];
    let file = String::from_utf8(read(pid, "limits")?).ok()?;
    let limit = |(label, name): &(&str, &str)| {
        let line = file.lines().find_map(|line| line.strip_prefix(label))?;
        let mut words = line.split_whitespace();
        let mut value = || words.next().map(|word| word.parse::<u64>().ok());
        Some(Limit { name: (*name).to_owned(), soft: value()?, hard: value()? })
    };
    Some(NAMES.iter().filter_map(limit).collect())
}

/// Sockets a process holds: one `Socket` each, and a `Connect`, `Listen` or `Bind` where the kernel's tables know its ends.
fn sockets(pid: u32) -> Vec<Body> {
    let mut fds: Vec<(i32, u64)> = Vec::new();
    for fd in numbers(&format!("/proc/{pid}/fd")) {
        let inode = fd_link(pid, fd as i32)
            .and_then(|link| link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
        fds.extend(inode.map(|inode| (fd as i32, inode)));
    }
    if fds.is_empty() {
        return Vec::new();
    }
    let mut bodies = Vec::new();
    let tcp = tcp_sockets(pid);
    fds.sort_unstable();
    for (fd, inode) in fds {
        let (socket, fd) = (SocketId(inode), Fd(fd));
        let Some(row) = tcp.get(&inode) else { continue };
        let family = if row.0.is_ipv4() { 2 } else { 10 };
        bodies.push(Body::Socket { socket, fd, family, socket_type: 1, protocol: 6 });
        let address = |end: SocketAddr| Known::Is(Address::Inet { ip: end.ip(), port: end.port() });
        match row.2 {
            LISTEN => bodies.push(Body::Listen { socket, fd, address: address(row.0), errno: 0 }),
            ESTABLISHED => bodies.push(Body::Connect {
                socket,
                fd,
                peer: address(row.1),
                local: address(row.0),
                errno: 0,
                duration_ns: 0,
            }),
            _ => {}
        }
    }
    bodies
}

pub(super) const ESTABLISHED: u8 = 1;
const LISTEN: u8 = 10;

/// The TCP sockets of the network namespace a process is in: inode → (local, peer, state).
pub(super) fn tcp_sockets(pid: u32) -> HashMap<u64, (SocketAddr, SocketAddr, u8)> {
    let Ok(process) = procfs::process::Process::new(pid as i32) else { return HashMap::new() };
    let entries = process.tcp().into_iter().chain(process.tcp6()).flatten();
    entries
        .map(|entry| (entry.inode, (entry.local_address, entry.remote_address, entry.state.to_u8())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_past_is_what_we_know_of_ourselves() {
        let us = std::process::id();
        let events = past(us, &mut PipeHolders::default());
        let Body::Exec(exec) = &events[0].body else { panic!("the first is the program") };
        assert_eq!(exec.argv, Known::Is(std::env::args().collect()));
        assert_eq!(exec.cwd, Known::Is(std::env::current_dir().unwrap().to_string_lossy().into_owned()));
        assert_eq!(exec.limits.get().unwrap().len(), 16);
        assert!(exec.cgroup.get().is_none_or(|cgroup| cgroup.starts_with('/')), "{:?}", exec.cgroup);
        assert!(events.iter().all(|event| event.observed_from == Origin::Proc));
    }

    #[test]
    fn a_listening_socket_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let found = past(std::process::id(), &mut PipeHolders::default()).into_iter().any(|event| {
            matches!(event.body, Body::Listen { address: Known::Is(Address::Inet { port: p, .. }), .. } if p == port)
        });
        assert!(found);
    }

    #[test]
    fn a_pipe_has_another_end() {
        let (reader, writer) = std::io::pipe().unwrap();
        let child = std::process::Command::new("sleep").arg("30").stdin(reader).spawn().unwrap();
        let inode = fs::metadata(format!("/proc/{}/fd/0", child.id())).unwrap().ino();
        let mut holders = PipeHolders::default();
        let Known::Is(found) = holders.other_end(inode, child.id()) else { panic!("looked") };
        assert_eq!(found.iter().map(|holder| holder.pid.0).collect::<Vec<_>>(), vec![std::process::id()]);
        let mut child = child;
        child.kill().unwrap();
        child.wait().unwrap();
        drop(writer);
    }
}
