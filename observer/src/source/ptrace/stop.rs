//! The stops of ptrace(2) as a type, and the requests that have no safe wrapper. Knows the kernel's numbers; not what a stop means for
//! the recording.
#![expect(unsafe_code, reason = "waitpid with any signal number, and ptrace requests nix does not have")]

use std::time::{Duration, Instant};

use nix::{
    errno::Errno,
    libc,
    sys::ptrace::{self, Options},
    unistd::Pid as UnixPid,
};

/// Why a tracee stands still, or that it does no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// It enters or leaves a system call. Where there is a filter, only what that stops.
    Call,
    /// It is about to get this signal.
    Signal(i32),
    /// Its process is stopped by this signal (`SIGSTOP`, Ctrl-Z).
    Group(i32),
    /// It was born, interrupted, or continued after a group stop.
    Trap,
    /// It made a process or thread: the event message is its id.
    Child,
    /// It runs another program: the event message is the id its thread had.
    Exec,
    /// It ends: the event message is its wait status.
    Exiting,
    /// Nothing of interest.
    Other,
    /// It has ended, with this wait status.
    Ended(u32),
}

/// Tells `SIGTRAP` stops at system calls from signals (`PTRACE_O_TRACESYSGOOD`).
const CALL_BIT: i32 = 0x80;

impl Stop {
    /// Reads a wait status (ptrace(2), "Stopped states").
    fn of(status: i32) -> Self {
        if !libc::WIFSTOPPED(status) {
            return Self::Ended(status as u32);
        }
        let signal = libc::WSTOPSIG(status);
        match status >> 16 {
            0 if signal == libc::SIGTRAP | CALL_BIT => Self::Call,
            0 => Self::Signal(signal),
            libc::PTRACE_EVENT_STOP if signal == libc::SIGTRAP => Self::Trap,
            libc::PTRACE_EVENT_STOP => Self::Group(signal),
            libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => Self::Child,
            libc::PTRACE_EVENT_EXEC => Self::Exec,
            libc::PTRACE_EVENT_EXIT => Self::Exiting,
            libc::PTRACE_EVENT_SECCOMP => Self::Call,
            _ => Self::Other,
        }
    }
}

/// What a tracee does next. One answer a stop, given in one place, so that none stands still for ever and no signal comes twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// On to its next call.
    Go,
    /// The same, and it gets this signal.
    Deliver(i32),
    /// It stays stopped, and whatever continues it is heard of (`PTRACE_LISTEN`).
    Listen,
    /// It is no more.
    Gone,
}

fn unix(tid: u32) -> UnixPid {
    UnixPid::from_raw(tid as i32)
}

/// Begins to trace a thread, which goes on as if nothing had happened. Whatever it will make is traced from birth.
///
/// Without `PTRACE_O_EXITKILL`: when we are gone, it goes on.
pub(super) fn seize(tid: u32) -> Result<(), Errno> {
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_TRACEEXIT
        | Options::PTRACE_O_TRACESECCOMP;
    ptrace::seize(unix(tid), options)
}

/// Makes a seized thread stop once, soon.
pub(super) fn interrupt(tid: u32) -> Result<(), Errno> {
    ptrace::interrupt(unix(tid))
}

/// Waits for the next stop of any thread this one traces.
///
/// # Errors
/// `EINTR` when somebody wants attention, `ECHILD` when nothing is traced any more.
pub(super) fn wait() -> Result<(u32, Stop), Errno> {
    let mut status = 0;
    // SAFETY: the pointer is to a local that outlives the call. `__WNOTHREAD` keeps to what this thread traces: other children of the
    // observer are not ours to reap.
    let tid = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
    Errno::result(tid).map(|tid| (tid as u32, Stop::of(status)))
}

/// Up to where a thread goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// Its next entry to a call, or return from one.
    Call,
    /// The next call that its filter stops.
    Filter,
}

/// Does the same for a moment without going to sleep, for what is about to come. `None`: it did not.
pub(super) fn wait_briefly(moment: Duration) -> Option<(u32, Stop)> {
    let end = Instant::now() + moment;
    loop {
        let mut status = 0;
        // SAFETY: as in [`wait`].
        let tid =
            unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD | libc::WNOHANG) };
        if tid > 0 {
            return Some((tid as u32, Stop::of(status)));
        }
        if tid < 0 || Instant::now() >= end {
            return None;
        }
    }
}

/// Lets a stopped thread do what comes next. One that was killed meanwhile is heard of by [`wait`].
pub(super) fn resume(tid: u32, next: Next, until: Until) {
    let go = match until {
        Until::Call => libc::PTRACE_SYSCALL,
        Until::Filter => libc::PTRACE_CONT,
    };
    let (request, signal) = match next {
        Next::Go => (go, 0),
        Next::Deliver(signal) => (go, signal),
        Next::Listen => (libc::PTRACE_LISTEN, 0),
        Next::Gone => return,
    };
    // SAFETY: both requests take no address and a number; nix knows no real-time signals.
    unsafe { libc::ptrace(request, tid as libc::pid_t, 0_usize, signal as usize) };
}

/// The message of an event stop: an id or a status.
pub(super) fn message(tid: u32) -> Option<u32> {
    ptrace::getevent(unix(tid)).ok().map(|message| message as u32)
}

/// What comes with a signal: `si_code`, and `si_pid` where the code says that there is one.
pub(super) fn signal_info(tid: u32) -> Option<(i32, u32)> {
    let info = ptrace::getsiginfo(unix(tid)).ok()?;
    // SAFETY: the union's first field is this one for what a process sent, and for nothing else is it used.
    Some((info.si_code, unsafe { info.si_pid() } as u32))
}

/// Where in a system call a thread stands.
pub(super) enum Phase {
    /// At its entry; `native` when its number means what it means for us.
    Enter { nr: u32, args: [u64; 6], native: bool },
    /// At its end.
    Leave { ret: i64 },
}

/// Asks for the phase: more certain than to count stops.
pub(super) fn phase(tid: u32) -> Option<Phase> {
    let info = ptrace::syscall_info(unix(tid)).ok()?;
    // SAFETY: the kernel says by `op` which part of the union it filled.
    unsafe {
        match info.op {
            libc::PTRACE_SYSCALL_INFO_ENTRY => Some(Phase::Enter {
                nr: info.u.entry.nr as u32,
                args: info.u.entry.args,
                native: info.arch == NATIVE,
            }),
            libc::PTRACE_SYSCALL_INFO_SECCOMP => Some(Phase::Enter {
                nr: info.u.seccomp.nr as u32,
                args: info.u.seccomp.args,
                native: info.arch == NATIVE,
            }),
            libc::PTRACE_SYSCALL_INFO_EXIT => Some(Phase::Leave { ret: info.u.exit.sval }),
            _ => None,
        }
    }
}

/// `AUDIT_ARCH_*` of 64-bit programs here (include/uapi/linux/audit.h: the ELF machine, 64-bit, little endian).
pub(super) const NATIVE: u32 = 0xc000_0000 | if cfg!(target_arch = "aarch64") { 183 } else { 62 };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_one_stop() {
        let stopped = |signal: i32, event: i32| (event << 16) | (signal << 8) | 0x7f;
        for (status, stop) in [
            (stopped(libc::SIGTRAP | CALL_BIT, 0), Stop::Call),
            // A breakpoint of the program's own is a signal like any other.
            (stopped(libc::SIGTRAP, 0), Stop::Signal(libc::SIGTRAP)),
            (stopped(libc::SIGSTOP, 0), Stop::Signal(libc::SIGSTOP)),
            (stopped(libc::SIGSTOP, libc::PTRACE_EVENT_STOP), Stop::Group(libc::SIGSTOP)),
            (stopped(libc::SIGTRAP, libc::PTRACE_EVENT_STOP), Stop::Trap),
            (stopped(libc::SIGTRAP, libc::PTRACE_EVENT_VFORK), Stop::Child),
            (stopped(34, 0), Stop::Signal(34)),
            (0x0300, Stop::Ended(0x0300)),
            (0x8b, Stop::Ended(0x8b)),
        ] {
            assert_eq!(Stop::of(status), stop, "{status:#x}");
        }
    }
}
