//! The ways to watch a worker that are measured. It knows their command lines and nothing of what is measured.

use std::ffi::OsStr;
use std::fmt;
use std::path::Path;
use std::process::Command;

use clap::ValueEnum;

use super::Lab;

/// A way to watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Tool {
    /// Nobody watches.
    Nothing,
    /// observer attach
    Observer,
    /// observer attach --broker worker: with the broker's own account beside it
    ObserverBroker,
    /// observer attach --backend ptrace
    ObserverPtrace,
    /// observer attach --backend ptrace --seccomp
    ObserverSeccomp,
    /// strace -f --seccomp-bpf
    StraceSeccomp,
    /// strace -f --seccomp-bpf of all calls that observer records, written to /dev/null
    StraceSame,
    /// strace -f
    Strace,
    /// bpftrace, printing the same events to a file
    Bpftrace,
}

/// What tells the story of a worker, and about what the observer records.
const SYSCALLS: &str = "execve,openat,connect,sendto,recvfrom,write,exit_group";

/// The same for bpftrace: the tree below the command, 64 bytes of payload, one line an event.
const BPFTRACE: &str = r#"
BEGIN { @tree[cpid] = 1; }
END { clear(@tree); clear(@buffer); }
tracepoint:sched:sched_process_fork /@tree[pid]/ { @tree[args->child_pid] = 1; }
tracepoint:syscalls:sys_enter_execve /@tree[pid]/ { printf("%llu %d %d execve %s\n", nsecs, pid, tid, str(args->filename)); }
tracepoint:syscalls:sys_enter_openat /@tree[pid]/ { printf("%llu %d %d openat %s\n", nsecs, pid, tid, str(args->filename)); }
tracepoint:syscalls:sys_exit_openat /@tree[pid]/ { printf("%llu %d %d openat = %d\n", nsecs, pid, tid, args->ret); }
tracepoint:syscalls:sys_enter_connect /@tree[pid]/ { printf("%llu %d %d connect %d\n", nsecs, pid, tid, args->fd); }
tracepoint:syscalls:sys_enter_sendto /@tree[pid]/ {
    printf("%llu %d %d sendto %d %d %r\n", nsecs, pid, tid, args->fd, args->len, buf(args->buff, args->len));
}
tracepoint:syscalls:sys_enter_recvfrom /@tree[pid]/ { @buffer[tid] = args->ubuf; }
tracepoint:syscalls:sys_exit_recvfrom /@buffer[tid]/ {
    if (args->ret > 0) {
        printf("%llu %d %d recvfrom = %d %r\n", nsecs, pid, tid, args->ret, buf(@buffer[tid], args->ret));
    }
    delete(@buffer[tid]);
}
tracepoint:syscalls:sys_enter_write /@tree[pid]/ {
    printf("%llu %d %d write %d %d %r\n", nsecs, pid, tid, args->fd, args->count, buf(args->buf, args->count));
}
tracepoint:syscalls:sys_enter_exit_group /@tree[pid]/ { printf("%llu %d %d exit %d\n", nsecs, pid, tid, args->error_code); }
"#;

/// bpftrace reads tracepoints' formats from tracefs, which containers and minimal systems leave unmounted.
const TRACEFS: &str =
    r#"[ -d /sys/kernel/tracing/events ] || mount -t tracefs tracefs /sys/kernel/tracing; exec "$@""#;

impl Tool {
    /// The command that runs `words` under this tool. No word has a space in it, as bpftrace cannot quote them.
    pub(super) fn command(self, lab: &Lab, words: &[&OsStr]) -> Command {
        let log = lab.scratch.path().join("log");
        match self {
            Self::Nothing => {
                let mut command = Command::new(words.first().copied().unwrap_or_default());
                command.args(words.iter().skip(1));
                command
            }
            Self::Observer => observer(lab, &[], words),
            Self::ObserverBroker => {
                let management = format!("http://127.0.0.1:{}", lab.broker.management_port());
                observer(lab, &["--broker", "worker", "--management", &management], words)
            }
            Self::ObserverPtrace => observer(lab, &["--backend", "ptrace"], words),
            Self::ObserverSeccomp => observer(lab, &["--backend", "ptrace", "--seccomp"], words),
            Self::StraceSeccomp => strace(&["--seccomp-bpf"], SYSCALLS, &log, words),
            Self::StraceSame => {
                strace(&["--seccomp-bpf"], &lab.calls.join(","), Path::new("/dev/null"), words)
            }
            Self::Strace => strace(&[], SYSCALLS, &log, words),
            Self::Bpftrace => {
                let line = words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
                // Each word execs the next, so the process we measure is bpftrace in the end.
                let mut command = Command::new("unshare");
                command.args(["--mount", "sh", "-c", TRACEFS, "sh", "bpftrace", "-q", "-o"]);
                command.arg(log).args(["-e", BPFTRACE, "-c", &line]);
                command
            }
        }
    }

    /// How much of a flood to send through it: a rate needs no more, and patience ends somewhere.
    pub(super) fn share(self) -> u32 {
        match self {
            Self::Strace
            | Self::StraceSeccomp
            | Self::StraceSame
            | Self::ObserverPtrace
            | Self::ObserverSeccomp => 10,
            _ => 1,
        }
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Nothing => "nothing",
            Self::Observer => "observer",
            Self::ObserverBroker => "observer --broker",
            Self::ObserverPtrace => "observer, ptrace",
            Self::ObserverSeccomp => "observer, ptrace --seccomp",
            Self::StraceSeccomp => "strace -f --seccomp-bpf",
            Self::StraceSame => "strace --seccomp-bpf, same",
            Self::Strace => "strace -f",
            Self::Bpftrace => "bpftrace",
        })
    }
}

fn observer(lab: &Lab, options: &[&str], words: &[&OsStr]) -> Command {
    let mut command = Command::new(&lab.observer);
    command.arg("--state-dir").arg(lab.scratch.path().join("state"));
    command.arg("attach").args(options).arg("--").args(words);
    command.env("OBSERVER_STATS", lab.scratch.path().join("stats.json"));
    command
}

fn strace(flags: &[&str], calls: &str, log: &Path, words: &[&OsStr]) -> Command {
    let mut command = Command::new("strace");
    command.arg("-f").args(flags).args(["-qq", "-ttt", "-s", "64", "-e", "signal=none", "-e"]);
    command.arg(format!("trace={calls}")).arg("-o").arg(log).arg("--").args(words);
    command
}
