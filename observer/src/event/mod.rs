//! The domain event: what was seen, in the words of the field. Everything downstream of a source speaks it and only it; it knows
//! neither eBPF nor SQLite nor the terminal.

pub mod broker;
mod essential;
mod known;
mod network;
mod program;

mod disk;
mod import;

pub use essential::{EVICTED, EVICTED_ESSENTIAL};

pub use disk::{FileLook, ModuleSearch, Near, SourceLook};
pub use import::{
    CachedImport, Distribution, Distributions, Hiding, Import, ImportSight, Imported, Interpreter,
    LoadedModules, ModuleShadows,
};
pub use known::{Absence, Known};
pub use network::{Address, Direction, Disconnect};
pub use program::{Exec, Executable, FdKind, FdTarget, Holder, Limit, User};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use broker::{
    BrokerAccess, BrokerAlarm, BrokerConnection, BrokerConsumer, BrokerEvent, BrokerMessage, QueueSample,
};

/// A process: the kernel's thread group id, in the initial PID namespace.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct Pid(pub u32);

/// A thread: the kernel's task id, in the initial PID namespace.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct Tid(pub u32);

/// A file descriptor number as the target used it (`AT_FDCWD` is −100).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct Fd(pub i32);

/// A socket's identity: its sockfs inode number, the one `ss -e` and `/proc/PID/fd` show. It stays the same across `dup`, `fork`
/// and a reused descriptor number.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct SocketId(pub u64);

impl std::fmt::Display for Pid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::fmt::Display for Tid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::fmt::Display for SocketId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Where an event was observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// A probe in the kernel, at the moment it happened.
    Ebpf,
    /// A ptrace stop, at the moment it happened.
    Ptrace,
    /// `/proc`, after the fact: it was so when we looked.
    Proc,
    /// The broker's own account.
    Broker,
    /// The observer, about itself.
    Observer,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// When: nanoseconds on `CLOCK_MONOTONIC`. For a system call, when it returned.
    pub at_ns: u64,
    /// In which process; 0 when it belongs to none.
    pub pid: Pid,
    /// In which thread; 0 when it belongs to none.
    pub tid: Tid,
    /// Who saw it.
    pub observed_from: Origin,
    /// What.
    #[serde(flatten)]
    pub body: Body,
    /// The bytes that were carried, for [`Body::Data`] and [`Body::Output`]; for [`Body::FileLook`] until they are replaced by their hash. Never part of the JSON: the session keeps them beside it.
    #[serde(skip)]
    pub bytes: Vec<u8>,
}

/// What happened. The tag `kind` is a public name: it is what `show --kind` filters by and what the session's `events.kind` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Body {
    /// A process was created by this one.
    Fork {
        /// The new process.
        child: Pid,
    },
    /// A thread was created in this process.
    Thread {
        /// The new thread.
        child: Tid,
    },
    /// A program was started in this process. From `/proc`: it was already running.
    Exec(Box<Exec>),
    /// `execve` or `execveat` failed.
    ExecFailed {
        /// The path as given.
        path: Known<String>,
        /// The error number.
        errno: i32,
    },
    /// A thread called `exit` or `exit_group`.
    ExitCall {
        /// The status given.
        code: i32,
        /// Whether the whole process was asked to end (`exit_group`).
        group: bool,
    },
    /// A thread ended, other threads live on.
    ThreadExit {
        /// Its status, when it was not killed.
        code: Option<i32>,
        /// The signal that killed it.
        signal: Option<i32>,
    },
    /// A process ended: its last thread is gone.
    Exit {
        /// Its exit status, when it was not killed.
        code: Option<i32>,
        /// The signal that killed it.
        signal: Option<i32>,
        /// Whether the kernel dumped core.
        core_dumped: bool,
    },
    /// A signal was sent to this process (`pid`) or thread (`tid`).
    Signal {
        /// The signal's number.
        signal: i32,
        /// `si_code`: 0 for `kill`, negative for other user-space senders, positive for the kernel.
        code: i32,
        /// Who sent it; absent for the kernel's own.
        sender: Known<Sender>,
        /// Whether it was for the whole process.
        group: bool,
        /// Whether it was queued (not ignored, not already pending).
        queued: bool,
    },
    /// A signal took effect in a thread.
    SignalDelivered {
        /// The signal's number.
        signal: i32,
        /// Whether a handler of the program ran; otherwise the default action was taken.
        handled: bool,
    },
    /// The kernel's out-of-memory killer chose this process.
    OomVictim,
    /// `open`, `openat`, `openat2` or `creat`.
    Open(FileCall),
    /// `stat`, `lstat`, `newfstatat` or `statx`.
    Stat(FileCall),
    /// `access`, `faccessat` or `faccessat2`.
    Access(FileCall),
    /// `readlink` or `readlinkat`.
    Readlink(FileCall),
    /// A directory was read (`getdents64`): `result` is the number of bytes of entries.
    Scan(FileCall),
    /// `chdir` or `fchdir`.
    Chdir(FileCall),
    /// A socket was made (`socket`; `socketpair` gives two of these).
    Socket {
        /// Its identity.
        socket: SocketId,
        /// The descriptor it got.
        fd: Fd,
        /// `AF_*`.
        family: u32,
        /// `SOCK_*`, without the flags.
        socket_type: u32,
        /// The protocol number.
        protocol: u32,
    },
    /// `socket` or `socketpair` failed.
    SocketFailed {
        /// `AF_*`.
        family: u32,
        /// The error number (24 is EMFILE).
        errno: i32,
    },
    /// `connect` returned.
    Connect {
        /// The socket's identity.
        socket: SocketId,
        /// The descriptor used.
        fd: Fd,
        /// Whom it was to reach.
        peer: Known<Address>,
        /// Our end, once there is one.
        local: Known<Address>,
        /// 0, or the error number (115, EINPROGRESS: a [`Body::Connected`] tells how it ended).
        errno: i32,
        /// How long the call took.
        duration_ns: u64,
    },
    /// A TCP connection attempt ended, in whatever call or none.
    Connected {
        /// The socket's identity.
        socket: SocketId,
        /// Whom it reached, or not.
        peer: Known<Address>,
        /// Our end.
        local: Known<Address>,
        /// 0 when established, else the socket's error.
        errno: i32,
        /// Time from the call of `connect`.
        duration_ns: u64,
    },
    /// `bind` returned.
    Bind {
        /// The socket's identity.
        socket: SocketId,
        /// The descriptor used.
        fd: Fd,
        /// The address asked for.
        address: Known<Address>,
        /// 0, or the error number.
        errno: i32,
    },
    /// `listen` returned.
    Listen {
        /// The socket's identity.
        socket: SocketId,
        /// The descriptor used.
        fd: Fd,
        /// The address it listens on.
        address: Known<Address>,
        /// 0, or the error number.
        errno: i32,
    },
    /// A connection was accepted.
    Accept {
        /// The new socket's identity.
        socket: SocketId,
        /// The descriptor it got.
        fd: Fd,
        /// Who connected.
        peer: Known<Address>,
        /// Our end.
        local: Known<Address>,
    },
    /// A descriptor of a socket was closed by this process.
    Close {
        /// The socket's identity.
        socket: SocketId,
        /// The descriptor.
        fd: Fd,
    },
    /// A TCP connection left the established state.
    Disconnect {
        /// The socket's identity.
        socket: SocketId,
        /// Who ended it and how.
        how: Disconnect,
        /// The socket's error, 0 for none.
        errno: i32,
        /// The other end.
        peer: Known<Address>,
        /// Our end.
        local: Known<Address>,
    },
    /// Bytes of a recorded stream. `bytes` holds what was kept of them.
    Data {
        /// The socket's identity.
        socket: SocketId,
        /// The descriptor used.
        fd: Fd,
        /// Which way.
        direction: Direction,
        /// Where in the stream of this direction the first byte stands. Counted from the connection's first byte, or from the first
        /// seen one when `since_attach`.
        offset: u64,
        /// True length in bytes. `bytes` may hold less; 0 for a received end of stream.
        len: u64,
        /// The system call's name.
        syscall: String,
        /// 0, or the error number of a failed call (104 is ECONNRESET).
        errno: i32,
        /// The stream was already open when we came.
        since_attach: bool,
        /// Byte ranges of the stream that were blanked because they carry a secret, as `[start, end)` offsets.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        redacted: Vec<(u64, u64)>,
    },
    /// A name server was asked for an address, or answered.
    Lookup {
        /// The socket's identity.
        socket: SocketId,
        /// The name asked for.
        name: String,
        /// The answer's code (RFC 1035, 4.1.1: 0 no error, 3 no such name); `None` for the question.
        code: Option<u8>,
        /// Records in the answer.
        records: u16,
    },
    /// A process wrote output. `bytes` holds what was kept of it.
    Output {
        /// Which stream.
        stream: OutputStream,
        /// The descriptor used.
        fd: Fd,
        /// The inode behind it (pipe, terminal or file): two ends of one pipe share it.
        inode: u64,
        /// True length of this piece in bytes; `bytes` may hold less.
        len: u64,
        /// Where in `bytes` this piece stands within the call, for calls longer than one piece.
        piece_offset: u64,
        /// 0, or the error number of a failed write (32 is EPIPE).
        errno: i32,
    },
    /// A thread has sat in one system call for more than a second.
    Stuck {
        /// The call's name.
        syscall: String,
        /// When it entered, on the same clock as `at_ns`.
        since_ns: u64,
        /// What it waits on, as far as the first argument tells (`socket:[…]`, `pipe:[…]`, a path).
        on: Known<String>,
        /// The call's six arguments.
        args: [u64; 6],
    },
    /// A system call that had lasted more than a second returned.
    Unstuck {
        /// The call's name.
        syscall: String,
        /// When it entered.
        since_ns: u64,
        /// What it returned.
        result: Known<i64>,
    },
    /// The process's scheduler state changed to or from stopped.
    State {
        /// The state's letter as in `/proc/PID/stat`: `T` stopped, `t` traced, `R` running, `S` sleeping, `D` disk sleep, `Z` zombie.
        state: char,
    },
    /// Events were lost.
    Lost {
        /// At which hop.
        hop: Hop,
        /// Which kind of record, by the source's own name for it.
        what: String,
        /// On which CPU, where loss is counted per CPU.
        cpu: Option<u32>,
        /// How many since the last such event.
        count: u64,
    },
    /// Nobody watched from `since_ns` until `at_ns`: whoever recorded was gone, and what happened meanwhile is not known.
    Gap {
        /// The last moment of which something is known, in nanoseconds on `CLOCK_MONOTONIC`.
        since_ns: u64,
        /// Processes that were there before and are not any more. How they ended nobody saw.
        gone: Vec<Pid>,
        /// Why nobody watched.
        why: String,
    },
    /// Something the observer has to say about the recording itself.
    Note {
        /// `info`, `warning` or `trouble`.
        level: NoteLevel,
        /// What was attempted, on what, what the system answered, what it means for the recording.
        text: String,
    },
    /// What a queue held, as the broker says.
    QueueSample(QueueSample),
    /// A connection, as the broker sees it.
    BrokerConnection(Box<BrokerConnection>),
    /// A consumer, as the broker sees it.
    BrokerConsumer(BrokerConsumer),
    /// Something that happened in the broker.
    BrokerEvent(BrokerEvent),
    /// A message that passed the broker.
    BrokerMessage(Box<BrokerMessage>),
    /// A resource alarm was set or cleared.
    BrokerAlarm(BrokerAlarm),
    /// A way to learn from the broker opened or closed.
    BrokerAccess(BrokerAccess),
    /// The disk was searched for a module of this process.
    ModuleSearch(ModuleSearch),
    /// The source of a module of this process was looked at.
    SourceLook(SourceLook),
    /// A text that this process read was looked at.
    FileLook(FileLook),
    /// CPython begins to import a module that is not loaded yet.
    Import(Box<Import>),
    /// CPython is asked for a module that is loaded already.
    CachedImport(Box<CachedImport>),
    /// CPython has imported it, or failed to.
    Imported(Imported),
    /// This process runs a Python interpreter.
    Interpreter(Box<Interpreter>),
    /// The versions of what processes loaded of a directory of packages.
    Distributions(Distributions),
    /// Modules this process imported that hide others of the same name.
    ModuleShadows(ModuleShadows),
    /// The modules this process had loaded when it ended.
    LoadedModules(LoadedModules),
}

/// Who sent a signal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sender {
    /// The sending process.
    pub pid: Pid,
    /// Its name (`comm`).
    pub name: String,
    /// Its command line, words joined by spaces.
    pub cmdline: Known<String>,
}

/// One call that names a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FileCall {
    /// The system call's name (`newfstatat`).
    pub syscall: String,
    /// The path as given; empty where the call works on the descriptor itself.
    pub path: Known<String>,
    /// Absolute and lexically normalised, from the working directory or `dirfd`; symbolic links are not followed.
    pub resolved: Known<String>,
    /// The directory descriptor given, or the descriptor itself.
    pub dirfd: Option<Fd>,
    /// The flags as given (`O_*` or `AT_*`; for `access` the mode).
    pub flags: u64,
    /// The call's result when it succeeded (a descriptor, a length).
    pub result: Option<i64>,
    /// 0, or the error number.
    pub errno: i32,
    /// How long the call took.
    pub duration_ns: u64,
}

/// Which output a process wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OutputStream {
    /// Descriptor 1.
    Stdout,
    /// Descriptor 2.
    Stderr,
    /// A pipe on another descriptor: how a dramatiq worker hands its log lines to its parent.
    Pipe,
}

/// The places where an event can be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Hop {
    /// The kernel's ring buffer was full.
    Ring,
    /// The kernel's table of tracked processes, threads or sockets was full.
    KernelTable,
    /// Comparing a program with the rules would have taken the kernel half too long: it is not recorded.
    Rules,
    /// The source could not decode a record.
    Decode,
    /// The way from the source to the session was full.
    Channel,
    /// The session could not be written.
    Store,
    /// The flight recorder's ring: they had been stored, and made room for later ones.
    Evicted,
    /// Nobody watched. Never in a [`Body::Lost`]: a [`Body::Gap`] counts as one loss at this hop.
    Unwatched,
}

/// How much a note matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NoteLevel {
    /// Good to know.
    Info,
    /// Something is missing from the recording.
    Warning,
    /// The recording was damaged or cut short.
    Trouble,
}

impl Body {
    /// Every public name of a kind, in the order of the variants.
    pub const KINDS: [&str; 51] = [
        "fork",
        "thread",
        "exec",
        "exec-failed",
        "exit-call",
        "thread-exit",
        "exit",
        "signal",
        "signal-delivered",
        "oom-victim",
        "open",
        "stat",
        "access",
        "readlink",
        "scan",
        "chdir",
        "socket",
        "socket-failed",
        "connect",
        "connected",
        "bind",
        "listen",
        "accept",
        "close",
        "disconnect",
        "data",
        "lookup",
        "output",
        "stuck",
        "unstuck",
        "state",
        "lost",
        "gap",
        "note",
        "queue-sample",
        "broker-connection",
        "broker-consumer",
        "broker-event",
        "broker-message",
        "broker-alarm",
        "broker-access",
        "module-search",
        "source-look",
        "file-look",
        "import",
        "cached-import",
        "imported",
        "interpreter",
        "distributions",
        "module-shadows",
        "loaded-modules",
    ];

    /// The public name of this kind, equal to the JSON tag `kind`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Fork { .. } => "fork",
            Self::Thread { .. } => "thread",
            Self::Exec(_) => "exec",
            Self::ExecFailed { .. } => "exec-failed",
            Self::ExitCall { .. } => "exit-call",
            Self::ThreadExit { .. } => "thread-exit",
            Self::Exit { .. } => "exit",
            Self::Signal { .. } => "signal",
            Self::SignalDelivered { .. } => "signal-delivered",
            Self::OomVictim => "oom-victim",
            Self::Open(_) => "open",
            Self::Stat(_) => "stat",
            Self::Access(_) => "access",
            Self::Readlink(_) => "readlink",
            Self::Scan(_) => "scan",
            Self::Chdir(_) => "chdir",
            Self::Socket { .. } => "socket",
            Self::SocketFailed { .. } => "socket-failed",
            Self::Connect { .. } => "connect",
            Self::Connected { .. } => "connected",
            Self::Bind { .. } => "bind",
            Self::Listen { .. } => "listen",
            Self::Accept { .. } => "accept",
            Self::Close { .. } => "close",
            Self::Disconnect { .. } => "disconnect",
            Self::Data { .. } => "data",
            Self::Lookup { .. } => "lookup",
            Self::Output { .. } => "output",
            Self::Stuck { .. } => "stuck",
            Self::Unstuck { .. } => "unstuck",
            Self::State { .. } => "state",
            Self::Lost { .. } => "lost",
            Self::Gap { .. } => "gap",
            Self::Note { .. } => "note",
            Self::QueueSample(_) => "queue-sample",
            Self::BrokerConnection(_) => "broker-connection",
            Self::BrokerConsumer(_) => "broker-consumer",
            Self::BrokerEvent(_) => "broker-event",
            Self::BrokerMessage(_) => "broker-message",
            Self::BrokerAlarm(_) => "broker-alarm",
            Self::BrokerAccess(_) => "broker-access",
            Self::ModuleSearch(_) => "module-search",
            Self::SourceLook(_) => "source-look",
            Self::FileLook(_) => "file-look",
            Self::Import(_) => "import",
            Self::CachedImport(_) => "cached-import",
            Self::Imported(_) => "imported",
            Self::Interpreter(_) => "interpreter",
            Self::Distributions(_) => "distributions",
            Self::ModuleShadows(_) => "module-shadows",
            Self::LoadedModules(_) => "loaded-modules",
        }
    }

    /// The file call inside, for the kinds that have one.
    pub const fn file_call(&self) -> Option<&FileCall> {
        match self {
            Self::Open(call)
            | Self::Stat(call)
            | Self::Access(call)
            | Self::Readlink(call)
            | Self::Scan(call)
            | Self::Chdir(call) => Some(call),
            _ => None,
        }
    }

    /// The kind of this name, when it is one that holds a file call.
    pub fn of_file_call(kind: &str) -> Option<fn(FileCall) -> Self> {
        let kinds: [fn(FileCall) -> Self; 6] =
            [Self::Open, Self::Stat, Self::Access, Self::Readlink, Self::Scan, Self::Chdir];
        let names = ["open", "stat", "access", "readlink", "scan", "chdir"];
        names.iter().zip(kinds).find_map(|(name, body)| (*name == kind).then_some(body))
    }

    /// Hands every text that a broker said to `each`, to be changed in place. Other kinds have none.
    pub fn broker_texts(&mut self, each: &mut dyn FnMut(&mut String)) {
        broker::texts(self, each);
    }
}

#[cfg(test)]
mod tests {
    use super::Body;

    #[test]
    fn the_list_of_kinds_is_the_one_that_is_read() {
        // serde names every variant it knows when it is given one it does not.
        let error = serde_json::from_str::<Body>(r#"{"kind":"?"}"#).unwrap_err().to_string();
        let read: Vec<&str> = error.split('`').skip(3).step_by(2).collect();
        assert_eq!(read, Body::KINDS);
    }
}
