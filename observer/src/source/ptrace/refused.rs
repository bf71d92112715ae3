//! Why a process cannot be traced: `EPERM` has half a dozen reasons, and the machine knows which it was.

use std::{fs, os::unix::fs::MetadataExt};

use nix::{errno::Errno, unistd::geteuid};

use crate::source::{SourceError, proc};

/// `kernel.yama.ptrace_scope`: 0 where nothing is said.
pub(in crate::source) fn yama_scope() -> u8 {
    let text = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// Says which.
pub(super) fn why(pid: u32, errno: Errno) -> SourceError {
    let (answer, next) = reason(pid, errno);
    SourceError { attempted: format!("cannot trace process {pid}"), answer, next }
}

fn reason(pid: u32, errno: Errno) -> (String, String) {
    const SUDO: &str = "run observer with sudo";
    if errno == Errno::ESRCH {
        return ("no such process".into(), "find it with `pgrep -af dramatiq`".into());
    }
    if let Some(tracer) = proc::tracer(pid) {
        let name = proc::cmdline(tracer).join(" ");
        let next =
            format!("end that one first, or use --backend ebpf, which needs no tracing; it is {name:?}");
        return (format!("process {tracer} traces it already"), next);
    }
    if errno != Errno::EPERM {
        return (errno.to_string(), String::new());
    }
    if yama_scope() == 3 {
        let next = "it lasts until the machine starts again without it; or use --backend ebpf";
        return ("Yama forbids all tracing (kernel.yama.ptrace_scope = 3)".into(), next.into());
    }
    let theirs = proc::uid(pid);
    let ours = geteuid().as_raw();
    if theirs.is_some_and(|uid| uid != ours) {
        return (format!("it runs as user {}, we as {ours}", theirs.unwrap_or_default()), SUDO.into());
    }
    // The files in /proc of what may not be dumped belong to root (proc(5)).
    if ours != 0 && fs::metadata(format!("/proc/{pid}/environ")).is_ok_and(|facts| facts.uid() == 0) {
        let answer = "it is not dumpable (its file has capabilities or cannot be read, it changed its user, or it asked for that)";
        return (answer.into(), SUDO.into());
    }
    match yama_scope() {
        scope @ 1..=2 => {
            let answer = format!(
                "Yama allows it only to {} (kernel.yama.ptrace_scope = {scope})",
                match scope {
                    1 => "who started it",
                    _ => "root",
                }
            );
            (answer, format!("{SUDO}, or start the worker with observer: observer attach --cmd …"))
        }
        _ => (errno.to_string(), SUDO.into()),
    }
}
