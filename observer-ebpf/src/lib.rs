//! The kernel/user ABI: the records the programs send and the tables both sides share. Compiled by both halves, so that there is
//! one definition; integers only, no implicit padding, sizes asserted. It knows no helper, no map and no policy.
#![no_std]

mod fields;
pub mod glob;
#[macro_use]
mod wire;
pub mod rule;

pub use fields::{ABSENT, KERNEL_FIELDS, Kernel};

/// Bytes of user memory sent in one record; longer ranges come in pieces.
pub const CHUNK: usize = 16 * 1024;
/// Longest path, as the kernel limits it (`PATH_MAX`, with its NUL).
pub const PATH_MAX: usize = 4096;
/// Most components of a directory walked.
pub const WALK_MAX: usize = 64;
/// Most supplementary groups recorded.
pub const GROUPS_MAX: usize = 64;
/// Resource limits of the kernel (`RLIM_NLIMITS`).
pub const RLIMITS: usize = 16;
/// Bytes of a signal sender's command line.
pub const CMDLINE_MAX: usize = 256;
/// Bytes of `comm`.
pub const COMM: usize = 16;
/// Bytes of a `sockaddr` recorded: the largest is `sockaddr_un`, 110.
pub const SOCKADDR_MAX: usize = 112;
/// Argument and environment bytes of one program that go through the vital ring while it has room; the rest competes with payload.
pub const VITAL_ARGS: u64 = 256 * 1024;
/// Most bytes of arguments and environment: the kernel's own limit is three quarters of 8 MiB.
pub const ARGS_CHUNKS: usize = 400;
/// Most pieces recorded of one read or write, so most of `--snaplen`: 1 MiB.
pub const DATA_CHUNKS: usize = 64;
/// Most `iovec`s of one call that are looked at: as many as the kernel takes (`UIO_MAXIOV`, `include/uapi/linux/uio.h`).
pub const IOV_MAX: usize = 1024;
/// Bytes kept of a module's name.
pub const MODULE_MAX: usize = 192;
/// Bytes kept of the file that imports.
pub const IMPORTER_MAX: usize = 384;
/// Bytes kept of the name of the function that imports.
pub const FUNCTION_MAX: usize = 64;
/// Bytes kept of the name of an exception's type.
pub const EXCEPTION_MAX: usize = 64;
/// Interpreters whose layout is known at one time.
pub const PYTHONS_MAX: u32 = 64;
/// Words of 64 system calls each, in [`Processor::watched`].
pub const WATCHED_WORDS: usize = 8;
/// A call that lasts longer is reported when it returns.
pub const SLOW_NS: u64 = 1_000_000_000;

/// Kinds of record. The numbers index the loss counters too.
pub mod kind {
    /// [`crate::Fork`]
    pub const FORK: u16 = 1;
    /// [`crate::Exec`]
    pub const EXEC: u16 = 2;
    /// [`crate::Args`]
    pub const ARGS: u16 = 3;
    /// [`crate::FileCall`] of a failed `execve`
    pub const EXEC_FAILED: u16 = 4;
    /// [`crate::Exit`]
    pub const EXIT: u16 = 5;
    /// [`crate::ExitCall`]
    pub const EXIT_CALL: u16 = 6;
    /// [`crate::Signal`]
    pub const SIGNAL: u16 = 7;
    /// [`crate::Deliver`]
    pub const DELIVER: u16 = 8;
    /// [`crate::Oom`]
    pub const OOM: u16 = 9;
    /// [`crate::FileCall`]
    pub const FILE: u16 = 10;
    /// [`crate::SocketCall`]
    pub const SOCKET: u16 = 11;
    /// [`crate::SocketState`]
    pub const SOCKET_STATE: u16 = 12;
    /// [`crate::Data`] of a stream
    pub const DATA: u16 = 13;
    /// [`crate::Data`] of an output
    pub const OUTPUT: u16 = 14;
    /// [`crate::Slow`]
    pub const SLOW: u16 = 15;
    /// No record: a full table of threads, processes or sockets
    pub const TABLE: u16 = 16;
    /// [`crate::ImportStart`]
    pub const IMPORT_START: u16 = 17;
    /// [`crate::ImportEnd`]
    pub const IMPORT_END: u16 = 18;
    /// [`crate::ImportStart`] of an import statement, whether or not the module is loaded
    pub const IMPORT_CALL: u16 = 19;
    /// No record: rules that could not be decided for a program, because it would have taken too long
    pub const RULE: u16 = 20;
    /// One more than the last.
    pub const COUNT: usize = 21;
    /// Loss counters: a power of two, so that a masked kind is an index the verifier believes.
    pub const SLOTS: usize = 32;
    /// Names, for loss reports.
    pub const NAMES: [&str; COUNT] = [
        "unknown",
        "fork",
        "exec",
        "arguments",
        "exec-failed",
        "exit",
        "exit-call",
        "signal",
        "signal-delivered",
        "oom-victim",
        "file",
        "socket",
        "socket-state",
        "data",
        "output",
        "slow-call",
        "table",
        "import",
        "import-end",
        "import-call",
        "rule",
    ];
}

/// Bits of [`Header::flags`].
pub mod flag {
    /// A string or range could not be read whole.
    pub const CUT: u16 = 1;
    /// User memory could not be read.
    pub const FAULT: u16 = 2;
    /// The stream was open before we looked.
    pub const SINCE_ATTACH: u16 = 4;
    /// Bytes went out (else in).
    pub const SENT: u16 = 8;
    /// The call carried bytes no user buffer held (`sendfile`, `splice`).
    pub const NO_BUFFER: u16 = 16;
    /// A thread, not a process.
    pub const THREAD: u16 = 32;
}

wire! {
    /// Begins every record.
    pub struct Header = 32 {
        /// One of [`kind`].
        pub kind: u16,
        /// Bits of [`flag`].
        pub flags: u16,
        /// System call number, where the record comes from one.
        pub nr: u32,
        /// `bpf_ktime_get_ns`: `CLOCK_MONOTONIC`.
        pub at_ns: u64,
        /// Entry of the system call on the same clock; 0 when unknown.
        pub enter_ns: u64,
        /// Thread group.
        pub tgid: u32,
        /// Thread.
        pub tid: u32,
    }
}

wire! {
    /// A task was created; the header's task is the parent.
    pub struct Fork = 40 {
        /// Common part.
        pub header: Header,
        /// Thread group of the new task.
        pub child_tgid: u32,
        /// The new task.
        pub child_tid: u32,
    }
}

wire! {
    /// Where a descriptor leads.
    pub struct FdFacts = 24 {
        /// `i_ino`
        pub inode: u64,
        /// `i_rdev`
        pub rdev: u32,
        /// `i_mode`; 0 when the descriptor is closed.
        pub mode: u32,
        /// Bytes of path in the record's tail.
        pub path_len: u32,
        /// Keeps the size a multiple of eight.
        pub pad: u32,
    }
}

wire! {
    /// A program was started. Tail: file name as given, then the components (leaf first, each ended by NUL) of the executable, the
    /// working directory, of descriptors 0, 1, 2, and of the cgroup; lengths in order.
    pub struct Exec = 776 {
        /// Common part.
        pub header: Header,
        /// The thread that called.
        pub old_tid: u32,
        /// Parent's thread group.
        pub ppid: u32,
        /// Number of arguments.
        pub argc: u32,
        /// Number of environment strings.
        pub envc: u32,
        /// Bytes of arguments that follow as [`Args`].
        pub arg_len: u64,
        /// Bytes of environment that follow after them.
        pub env_len: u64,
        /// Executable's inode.
        pub exe_inode: u64,
        /// Executable's device (`s_dev`).
        pub exe_dev: u32,
        /// Real user.
        pub uid: u32,
        /// Effective user.
        pub euid: u32,
        /// Real group.
        pub gid: u32,
        /// Effective group.
        pub egid: u32,
        /// File mode creation mask.
        pub umask: u32,
        /// Number of supplementary groups, of which the first [`GROUPS_MAX`] follow.
        pub ngroups: u32,
        /// Bytes of file name.
        pub name_len: u32,
        /// Bytes of the executable's components.
        pub exe_len: u32,
        /// Bytes of the working directory's components.
        pub cwd_len: u32,
        /// Bytes of the components of its cgroup (version 2); [`ABSENT`] when this kernel's cgroups are unknown.
        pub cgroup_len: u32,
        /// The rule by which it is tracked from here on; 0: it was tracked already.
        pub rule: u32,
        /// The two bits of `mm->flags` that say who may look into it (`include/linux/sched/coredump.h`): 0 nobody, 1 its user, 2 root;
        /// [`ABSENT`] when this kernel's are unknown.
        pub dumpable: u32,
        /// Keeps the size a multiple of eight.
        pub pad: u32,
        /// Resource limits: soft, hard, for each.
        pub limits: [u64; 2 * RLIMITS],
        /// Supplementary groups.
        pub groups: [u32; GROUPS_MAX],
        /// Descriptors 0, 1, 2.
        pub stdio: [FdFacts; 3],
        /// Name of the controlling terminal, NUL-padded; empty for none.
        pub tty: [u8; 64],
    }
}

wire! {
    /// A piece of what a program got as arguments and environment, the two being one range. Tail: the bytes.
    pub struct Args = 48 {
        /// Common part; the time is the [`Exec`]'s.
        pub header: Header,
        /// Where the piece stands.
        pub offset: u64,
        /// How long it is.
        pub len: u32,
        /// Keeps the size a multiple of eight.
        pub pad: u32,
    }
}

wire! {
    /// A task ended.
    pub struct Exit = 48 {
        /// Common part.
        pub header: Header,
        /// The task's wait status.
        pub code: u32,
        /// The process's wait status, valid when `last`.
        pub group_code: u32,
        /// 1 when the process ended with it.
        pub last: u32,
        /// Keeps the size a multiple of eight.
        pub pad: u32,
    }
}

wire! {
    /// `exit` or `exit_group` was called.
    pub struct ExitCall = 40 {
        /// Common part.
        pub header: Header,
        /// The status given.
        pub code: u32,
        /// Keeps the size a multiple of eight.
        pub pad: u32,
    }
}

wire! {
    /// A signal was sent to the header's task.
    pub struct Signal = 336 {
        /// Common part.
        pub header: Header,
        /// Number.
        pub signal: i32,
        /// `si_code`
        pub code: i32,
        /// Sender's thread group; 0 when the kernel sent it.
        pub sender: u32,
        /// 1 for the whole process.
        pub group: u32,
        /// The kernel's verdict: 0 queued, 1 ignored, 2 already pending, above: overflow.
        pub result: u32,
        /// Bytes of command line.
        pub cmdline_len: u32,
        /// Sender's name.
        pub comm: [u8; COMM],
        /// Sender's command line, words separated by NUL.
        pub cmdline: [u8; CMDLINE_MAX],
        /// Keeps the size a multiple of eight.
        pub pad: [u32; 2],
    }
}

wire! {
    /// A signal took effect.
    pub struct Deliver = 40 {
        /// Common part.
        pub header: Header,
        /// Number.
        pub signal: i32,
        /// 1 when a handler runs.
        pub handled: u32,
    }
}

wire! {
    /// The out-of-memory killer chose the header's task.
    pub struct Oom = 32 {
        /// Common part.
        pub header: Header,
    }
}

wire! {
    /// A call that names a file. Tail: the path as given, then the components of the directory it starts from (leaf first, each
    /// ended by NUL), absent for an absolute path.
    pub struct FileCall = 88 {
        /// Common part.
        pub header: Header,
        /// What it returned.
        pub ret: i64,
        /// The first four arguments; for `openat2` the third is the flags, fetched.
        pub args: [u64; 4],
        /// Bytes of path, without NUL.
        pub path_len: u32,
        /// Bytes of components.
        pub base_len: u32,
        /// 1 when there is a base.
        pub has_base: u32,
        /// Keeps the size a multiple of eight.
        pub pad: u32,
    }
}

wire! {
    /// One end of an internet connection, from the kernel's own socket.
    pub struct Ends = 40 {
        /// `AF_INET` or `AF_INET6`; 0 when unknown.
        pub family: u16,
        /// Local port, host order.
        pub local_port: u16,
        /// Peer's port, host order.
        pub peer_port: u16,
        /// Keeps the addresses aligned.
        pub pad: u16,
        /// Local address; the first four bytes for IPv4.
        pub local: [u8; 16],
        /// Peer's address.
        pub peer: [u8; 16],
    }
}

wire! {
    /// A call about a socket's life: `socket`, `socketpair`, `connect`, `bind`, `listen`, `accept`, `close`.
    pub struct SocketCall = 224 {
        /// Common part.
        pub header: Header,
        /// What it returned.
        pub ret: i64,
        /// The socket.
        pub inode: u64,
        /// The descriptor.
        pub fd: i32,
        /// `AF_*`
        pub family: u32,
        /// `SOCK_*`
        pub socket_type: u32,
        /// Protocol number.
        pub protocol: u32,
        /// Both ends as the kernel has them.
        pub ends: Ends,
        /// Bytes of address.
        pub address_len: u32,
        /// Keeps the size a multiple of eight.
        pub pad: u32,
        /// The address given.
        pub address: [u8; SOCKADDR_MAX],
    }
}

wire! {
    /// A TCP connection changed its state. The header's task is the socket's owner, not who runs.
    pub struct SocketState = 104 {
        /// Common part; `enter_ns` is the time of `connect`.
        pub header: Header,
        /// The socket.
        pub inode: u64,
        /// State before.
        pub old: u32,
        /// State after.
        pub new: u32,
        /// `sk_err`
        pub error: u32,
        /// Keeps the size a multiple of eight.
        pub pad: u32,
        /// Both ends.
        pub ends: Ends,
        /// Reserved.
        pub spare: u64,
    }
}

wire! {
    /// Bytes that were carried. Tail: what was kept of them.
    pub struct Data = 80 {
        /// Common part.
        pub header: Header,
        /// Inode of the socket, pipe, terminal or file.
        pub inode: u64,
        /// Of a stream: where the first byte of this piece stands. Of an output: where the piece stands in the call.
        pub offset: u64,
        /// True length of this piece.
        pub len: u64,
        /// Error number of a failed call.
        pub errno: u32,
        /// Bytes in the tail.
        pub captured: u32,
        /// The descriptor.
        pub fd: i32,
        /// `i_mode`
        pub mode: u32,
        /// Reserved.
        pub spare: u64,
    }
}

wire! {
    /// A call lasted longer than [`SLOW_NS`].
    pub struct Slow = 40 {
        /// Common part.
        pub header: Header,
        /// What it returned.
        pub ret: i64,
    }
}

wire! {
    /// A Python `str` as it was found.
    pub struct Text = 8 {
        /// Bytes that were copied.
        pub len: u32,
        /// Bytes of one character: 1 (Latin-1), 2 or 4; 0 when there was no string, or it could not be read.
        pub width: u32,
    }
}

wire! {
    /// CPython begins to find and load a module: it is not in `sys.modules`. Or, as an `IMPORT_CALL`, it is asked for one, loaded or not.
    pub struct ImportStart = 712 {
        /// Common part.
        pub header: Header,
        /// Stack pointer: tells which [`ImportEnd`] belongs to it.
        pub stack: u64,
        /// The module's absolute name; in an `IMPORT_CALL` its name as it was written.
        pub module: Text,
        /// The file whose code imports it.
        pub importer: Text,
        /// The function whose code imports it.
        pub function: Text,
        /// The module's name.
        pub module_text: [u8; MODULE_MAX],
        /// The importing file.
        pub importer_text: [u8; IMPORTER_MAX],
        /// The importing function.
        pub function_text: [u8; FUNCTION_MAX],
        /// In an `IMPORT_CALL`: how many packages up the name starts; 0: it is absolute.
        pub level: u64,
    }
}

wire! {
    /// CPython has found and loaded a module, or failed to.
    pub struct ImportEnd = 112 {
        /// Common part.
        pub header: Header,
        /// Stack pointer.
        pub stack: u64,
        /// The module object; 0 when an exception was raised.
        pub module: u64,
        /// The exception's type (`tp_name`), ended by NUL; empty when it cannot be known.
        pub exception: [u8; EXCEPTION_MAX],
    }
}

wire! {
    /// Where things stand in one build of CPython: value of the `PYTHONS` table, by the probe's cookie.
    pub struct Python = 48 {
        /// In `PyThreadState`: the current frame, or the `_PyCFrame` that knows it.
        pub frame: u32,
        /// In `_PyCFrame`: the current frame.
        pub inner: u32,
        /// 1 when there is a `_PyCFrame` between.
        pub has_inner: u32,
        /// In a frame: its code object.
        pub code: u32,
        /// In a code object: `co_filename`; 0 when frames cannot be read.
        pub filename: u32,
        /// In a code object: `co_name`.
        pub name: u32,
        /// `sizeof(PyASCIIObject)`
        pub ascii: u32,
        /// `sizeof(PyCompactUnicodeObject)`
        pub compact: u32,
        /// In the state of a `str`: bits before `kind`.
        pub interned_bits: u32,
        /// In `PyThreadState`: the exception being raised, or its type; 0: not known.
        pub exception: u32,
        /// 1 when it is the type.
        pub exception_is_type: u32,
        /// Keeps the size a multiple of eight.
        pub pad: u32,
    }
}

wire! {
    /// A tracked thread: value of the `THREADS` table, by thread id.
    pub struct Thread = 32 {
        /// Entry of the call it is in.
        pub enter_ns: u64,
        /// The same in ticks of the kernel (`jiffies`).
        pub enter_ticks: u64,
        /// Number of the call it is in; −1 for none, −2 when it was in one as we came.
        pub nr: i32,
        /// 1 until its first `execve`: only that is recorded.
        pub armed: u32,
        /// Its `PyThreadState`, once it has imported something; 0 until then.
        pub python: u64,
    }
}

wire! {
    /// A known socket: value of the `SOCKETS` table, by inode.
    pub struct Socket = 40 {
        /// Bytes sent so far.
        pub sent: u64,
        /// Bytes received so far.
        pub received: u64,
        /// Time of `connect`.
        pub connect_ns: u64,
        /// Owner.
        pub tgid: u32,
        /// Thread that made it.
        pub tid: u32,
        /// Bits of [`socket_flag`].
        pub flags: u32,
        /// Keeps the size a multiple of eight.
        pub pad: u32,
    }
}

/// Bits of [`Socket::flags`].
pub mod socket_flag {
    /// Its bytes are recorded.
    pub const STREAM: u32 = 1;
    /// It was open before we looked.
    pub const SINCE_ATTACH: u32 = 2;
    /// Its first bytes were looked at.
    pub const LOOKED: u32 = 4;
}

wire! {
    /// How a system call's arguments stand in `pt_regs` on this processor, and the calls the dispatcher itself knows: the global
    /// `PROCESSOR`.
    pub struct Processor = 104 {
        /// Offsets of the six arguments.
        pub args: [u32; 6],
        /// Offset of the number.
        pub nr: u32,
        /// Number of `execve`.
        pub execve: u32,
        /// Number of `execveat`.
        pub execveat: u32,
        /// Keeps the size a multiple of eight.
        pub pad: u32,
        /// A bit for each call that has a program of its own, at its entry or its return.
        pub watched: [u64; WATCHED_WORDS],
    }
}

wire! {
    /// What the user asked for: the global `SETTINGS`.
    pub struct Settings = 16 {
        /// Bytes kept of one call.
        pub snaplen: u64,
        /// Bytes of the vital ring; a reader is woken when it is half full.
        pub vital_size: u32,
        /// Bytes of the bulk ring.
        pub bulk_size: u32,
    }
}
