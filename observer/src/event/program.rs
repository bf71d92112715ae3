//! A program that was started and all it started with. Part of the domain event.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Known, Pid, Tid};

/// A program that was started, and all it started with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Exec {
    /// The path as given to `execve`; a script's own path, not its interpreter's.
    pub path: Known<String>,
    /// The arguments, whole.
    pub argv: Known<Vec<String>>,
    /// The environment, whole, as `NAME=value` strings in their order.
    pub env: Known<Vec<String>>,
    /// The working directory.
    pub cwd: Known<String>,
    /// The file that runs.
    pub exe: Known<Executable>,
    /// Parent process.
    pub ppid: Pid,
    /// The thread that called `execve` (it becomes the leader).
    pub caller: Tid,
    /// Who it runs as.
    pub user: Known<User>,
    /// File mode creation mask.
    pub umask: Known<u32>,
    /// Resource limits, in the kernel's order (RLIMIT_CPU first).
    pub limits: Known<Vec<Limit>>,
    /// The controlling terminal (`pts0`).
    pub tty: Known<String>,
    /// Where descriptors 0, 1 and 2 lead.
    pub stdio: Vec<Known<FdTarget>>,
    /// Its control group (version 2), as a path from the root of the hierarchy: `/system.slice/worker.service`.
    #[serde(default = "Known::<String>::unknown")]
    pub cgroup: Known<String>,
    /// The rule by which it is recorded from here on; 0 when it was recorded already. Not kept: it means something to whoever set the rules.
    #[serde(skip)]
    pub rule: Option<u32>,
    /// Whether the kernel lets the user it runs as look into it: not, when it has got rights that this user has not. Not kept.
    #[serde(skip)]
    pub dumpable: Option<bool>,
}

/// A file that was executed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Executable {
    /// Its path.
    pub path: Known<String>,
    /// Its device as `major:minor`.
    pub device: String,
    /// Its inode number.
    pub inode: u64,
}

/// Real and effective ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct User {
    /// Real user id.
    pub uid: u32,
    /// Effective user id.
    pub euid: u32,
    /// Real group id.
    pub gid: u32,
    /// Effective group id.
    pub egid: u32,
    /// Supplementary groups.
    pub groups: Known<Vec<u32>>,
}

/// One resource limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Limit {
    /// The name as `prlimit` prints it (`NOFILE`).
    pub name: String,
    /// Soft limit; `None` is unlimited.
    pub soft: Option<u64>,
    /// Hard limit; `None` is unlimited.
    pub hard: Option<u64>,
}

/// Where a descriptor leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FdTarget {
    /// What it is.
    pub what: FdKind,
    /// Path for files, directories and terminals.
    pub path: Known<String>,
    /// Inode number: identifies pipes and sockets.
    pub inode: u64,
    /// For pipes: processes that hold the other end, found in `/proc` when the event was read.
    pub other_end: Known<Vec<Holder>>,
}

/// A process that holds an end of a pipe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Holder {
    /// The process.
    pub pid: Pid,
    /// Its name (`comm`).
    pub name: String,
}

/// The kinds of thing a descriptor can lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FdKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A terminal.
    Tty,
    /// Another character device, `/dev/null` for one.
    Device,
    /// A pipe or FIFO.
    Pipe,
    /// A socket.
    Socket,
    /// Anything else (block device, anonymous inode).
    Other,
}
