//! One system call of a tracee, from its entry to its return: which are recorded, and who decodes which. Knows their numbers and names.

use std::{
    collections::HashSet,
    sync::{Arc, LazyLock},
};

use super::{loaded::Interpreters, memory, queue::Queue, sockets::Sockets, streams::Buffers};
use crate::{
    event::{Body, Event, Known, Origin, Pid, Sender, Tid},
    source::{
        call::{self, NameServers, errno, known, text, too_long},
        proc,
    },
};

const MSG_PEEK: u64 = 2;

/// What is recorded of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing but that it lasts.
    Other,
    /// The path comes first.
    Path,
    /// A directory, then the path.
    AtPath,
    /// The same, and the flags stand in a structure.
    Openat2,
    /// The path comes first, and what it starts from is another afterwards.
    Chdir,
    /// A descriptor of a file.
    File,
    Exec,
    ExecAt,
    /// It makes a process or a thread.
    Clone,
    Exit,
    /// It takes a signal that is blocked, and no tracer sees it come.
    Sigwait,
    /// It may send `SIGKILL`, whose arrival no tracer sees: to a process, a thread, a thread of a process.
    Kill,
    Tkill,
    Tgkill,
    Socket,
    Socketpair,
    Connect,
    Bind,
    Listen,
    Accept,
    Shutdown,
    Getsockopt,
    Close,
    Write,
    Read,
    Recvfrom,
    Writev,
    Readv,
    Sendmsg,
    Recvmsg,
    Sendmmsg,
    Recvmmsg,
    Sendfile,
    Splice,
}

impl Kind {
    fn of(name: &str) -> Self {
        match name {
            "open" | "creat" | "stat" | "lstat" | "access" | "readlink" => Self::Path,
            "openat" | "newfstatat" | "statx" | "faccessat" | "faccessat2" | "readlinkat" => Self::AtPath,
            "openat2" => Self::Openat2,
            "chdir" => Self::Chdir,
            "fchdir" | "getdents" | "getdents64" => Self::File,
            "execve" => Self::Exec,
            "execveat" => Self::ExecAt,
            "clone" | "clone3" | "fork" | "vfork" => Self::Clone,
            "exit" | "exit_group" => Self::Exit,
            "rt_sigtimedwait" => Self::Sigwait,
            "kill" | "rt_sigqueueinfo" => Self::Kill,
            "tkill" => Self::Tkill,
            "tgkill" | "rt_tgsigqueueinfo" => Self::Tgkill,
            "socket" => Self::Socket,
            "socketpair" => Self::Socketpair,
            "connect" => Self::Connect,
            "bind" => Self::Bind,
            "listen" => Self::Listen,
            "accept" | "accept4" => Self::Accept,
            "shutdown" => Self::Shutdown,
            "getsockopt" => Self::Getsockopt,
            "close" => Self::Close,
            "write" | "sendto" => Self::Write,
            "read" => Self::Read,
            "recvfrom" => Self::Recvfrom,
            "writev" | "pwritev2" => Self::Writev,
            "readv" | "preadv2" => Self::Readv,
            "sendmsg" => Self::Sendmsg,
            "recvmsg" => Self::Recvmsg,
            "sendmmsg" => Self::Sendmmsg,
            "recvmmsg" => Self::Recvmmsg,
            "sendfile" => Self::Sendfile,
            "splice" => Self::Splice,
            _ => Self::Other,
        }
    }
}

/// Kinds by number.
static KINDS: LazyLock<Vec<Kind>> = LazyLock::new(|| (0..512).map(|nr| Kind::of(&call::name(nr))).collect());

/// Numbers of the calls that something is recorded of.
pub(super) fn recorded() -> impl Iterator<Item = u32> {
    (0..).zip(KINDS.iter()).filter(|(_, kind)| **kind != Kind::Other).map(|(nr, _)| nr)
}

/// What was looked at when a call was entered, because afterwards it is gone.
#[derive(Debug, Default)]
pub(super) enum Before {
    #[default]
    Nothing,
    /// The path of a program; `None` when it cannot be read.
    Program(Option<Vec<u8>>),
    /// The working directory.
    Directory(Option<String>),
    /// Whom it sends `SIGKILL`, and who does: it may be one of them.
    Kills(Vec<u32>, Known<Sender>),
}

/// A call under way.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) pid: u32,
    pub(super) tid: u32,
    pub(super) nr: u32,
    pub(super) args: [u64; 6],
    pub(super) enter_ns: u64,
    /// When it returned; when it was entered, until then.
    pub(super) at_ns: u64,
    pub(super) kind: Kind,
    pub(super) before: Before,
    /// Whether it was told that the thread sits in it.
    pub(super) told: bool,
}

impl Call {
    pub(super) fn new(pid: u32, tid: u32, nr: u32, args: [u64; 6]) -> Self {
        let kind = KINDS.get(nr as usize).copied().unwrap_or(Kind::Other);
        let enter_ns = proc::monotonic_ns();
        let before = Before::Nothing;
        Self { pid, tid, nr, args, enter_ns, at_ns: enter_ns, kind, before, told: false }
    }

    pub(super) const fn duration_ns(&self) -> u64 {
        self.at_ns.saturating_sub(self.enter_ns)
    }

    pub(super) const fn is_exec(&self) -> bool {
        matches!(self.kind, Kind::Exec | Kind::ExecAt)
    }

    /// The path a program was called by, as the kernel keeps it (`fs/exec.c`, `alloc_bprm`).
    pub(super) fn program(&self) -> Known<String> {
        const AT_FDCWD: i32 = -100;
        let Before::Program(Some(path)) = &self.before else { return Known::unknown() };
        let directory = self.args[0] as i32;
        if self.kind == Kind::Exec || path.starts_with(b"/") || directory == AT_FDCWD {
            return Known::Is(text(path));
        }
        let separator = if path.is_empty() { "" } else { "/" };
        Known::Is(format!("/dev/fd/{directory}{separator}{}", text(path)))
    }
}

/// Turns calls into events and sends them.
pub(super) struct Recorder {
    pub(super) queue: Arc<Queue>,
    /// Bytes kept of one call.
    pub(super) snaplen: u64,
    /// Those of brokers, and of name servers.
    pub(super) ports: HashSet<u16>,
    /// Processes that are traced.
    pub(super) tracked: HashSet<u32>,
    pub(super) sockets: Sockets,
    pub(super) name_servers: NameServers,
    /// Whose modules can be read when they end.
    pub(super) interpreters: Arc<Interpreters>,
}

impl Recorder {
    /// Sends an event of a thread.
    pub(super) fn tell(&self, at_ns: u64, pid: u32, tid: u32, body: Body) {
        self.tell_bytes(at_ns, pid, tid, body, Vec::new());
    }

    /// Sends what a call says.
    pub(super) fn say(&self, call: &Call, body: Body) {
        self.tell(call.at_ns, call.pid, call.tid, body);
    }

    pub(super) fn tell_bytes(&self, at_ns: u64, pid: u32, tid: u32, body: Body, bytes: Vec<u8>) {
        self.queue.push(Event {
            at_ns,
            pid: Pid(pid),
            tid: Tid(tid),
            observed_from: Origin::Ptrace,
            body,
            bytes,
        });
    }

    /// A call is entered: takes what will be gone when it returns.
    pub(super) fn enter(&mut self, call: &mut Call) {
        let args = call.args;
        match call.kind {
            Kind::Exec => call.before = Before::Program(memory::string(call.tid, args[0])),
            Kind::ExecAt => call.before = Before::Program(memory::string(call.tid, args[1])),
            Kind::Chdir => call.before = Before::Directory(proc::cwd(call.tid)),
            Kind::Kill => self.kill(call, args[0] as i32, args[1]),
            Kind::Tkill => self.kill(call, args[0] as i32, args[1]),
            Kind::Tgkill => self.kill(call, args[0] as i32, args[2]),
            Kind::Exit => {
                let group = call::name(call.nr) == "exit_group";
                self.say(call, Body::ExitCall { code: args[0] as i32, group });
            }
            Kind::Connect => self.connect_entered(call),
            Kind::Close => self.close(call),
            _ => {}
        }
    }

    /// A call returned.
    pub(super) fn leave(&mut self, call: &Call, ret: i64) {
        let args = call.args;
        let fd = args[0] as i32;
        let buffer = || Buffers::In(vec![(args[1], args[2])]);
        let vector = || Buffers::In(memory::vector(call.tid, args[1], args[2]));
        match call.kind {
            Kind::Other | Kind::Clone | Kind::Exit | Kind::Close => {}
            Kind::Path | Kind::AtPath | Kind::Openat2 | Kind::Chdir | Kind::File => self.file(call, ret),
            Kind::Exec | Kind::ExecAt => self.exec_failed(call, ret),
            Kind::Sigwait => self.waited(call, ret),
            Kind::Kill | Kind::Tkill | Kind::Tgkill => self.killed(call, ret),
            Kind::Socket => self.socket(call, ret),
            Kind::Socketpair => self.socketpair(call, ret),
            Kind::Connect => self.connect(call, ret),
            Kind::Bind => self.bind(call, ret),
            Kind::Listen => self.listen(call, ret),
            Kind::Accept => self.accept(call, ret),
            Kind::Shutdown => self.shutdown(call, ret),
            Kind::Getsockopt => self.getsockopt(call, ret),
            Kind::Write => self.carried(call, fd, true, ret, &buffer()),
            Kind::Read => self.carried(call, fd, false, ret, &buffer()),
            Kind::Recvfrom if args[3] & MSG_PEEK == 0 => self.carried(call, fd, false, ret, &buffer()),
            Kind::Writev => self.carried(call, fd, true, ret, &vector()),
            Kind::Readv => self.carried(call, fd, false, ret, &vector()),
            Kind::Sendmsg => self.message(call, true, ret),
            Kind::Recvmsg if args[2] & MSG_PEEK == 0 => self.message(call, false, ret),
            Kind::Sendmmsg => self.messages(call, true, ret),
            Kind::Recvmmsg if args[3] & MSG_PEEK == 0 => self.messages(call, false, ret),
            Kind::Recvfrom | Kind::Recvmsg | Kind::Recvmmsg => {}
            Kind::Sendfile => self.carried(call, fd, true, ret, &Buffers::None),
            Kind::Splice => {
                // What failed is told of the side it was to go to: the kernel does not say which it was.
                if ret >= 0 {
                    self.carried(call, fd, false, ret, &Buffers::None);
                }
                self.carried(call, args[2] as i32, true, ret, &Buffers::None);
            }
        }
    }

    /// One that succeeded is told at its own stop.
    fn exec_failed(&self, call: &Call, ret: i64) {
        if ret < 0
            && let Before::Program(path) = &call.before
        {
            let path = match path {
                Some(path) => known(text(path), !too_long(path, ret)),
                None => Known::unknown(),
            };
            self.say(call, Body::ExecFailed { path, errno: errno(ret) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_known_by_their_number() {
        let kind = |nr: nix::libc::c_long| Call::new(1, 1, nr as u32, [0; 6]).kind;
        assert_eq!(kind(nix::libc::SYS_openat), Kind::AtPath);
        assert_eq!(kind(nix::libc::SYS_execve), Kind::Exec);
        assert_eq!(kind(nix::libc::SYS_futex), Kind::Other);
        assert_eq!(kind(100_000), Kind::Other);
    }
}
