//! When an observation is over, and what signals mean until then. Knows the command's process; nothing of what is recorded.

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask},
        signalfd::{SfdFlags, SignalFd, siginfo},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid as UnixPid,
};
use std::os::fd::AsFd;

use super::{SignalsSeen, served};
use crate::{
    event::Pid,
    session::Ending,
    source::{
        proc,
        ptrace::{Root, RootEnd},
    },
};

/// Signals a person or a service manager sends to end or steer a command.
const PASSED_ON: [Signal; 6] =
    [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGUSR2];
/// `si_code` of a signal the kernel made.
const SI_KERNEL: i32 = 0x80;
/// How long a command has to end after TERM.
const GRACE_NS: u64 = 10_000_000_000;
/// How long to wait for word whether a signal reached the command without us.
const HEARSAY: Duration = Duration::from_millis(120);
/// The same, when it comes by way of a session: what the service has seen is written within 100 ms, and read after that.
const HEARSAY_OF_SESSION: Duration = Duration::from_millis(500);
/// How long before we are woken by a signal it may have been sent.
const JUST_BEFORE_NS: u64 = 50_000_000;
/// How often a process that is not our child is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Signals as they were and as they are.
pub(super) struct Stops {
    before: SigSet,
    blocked: SigSet,
    signals: SignalFd,
}

impl Stops {
    /// Does something with the signals as we were given them, as a child is to have them.
    pub(super) fn unblocked<T>(&self, work: impl FnOnce() -> T) -> anyhow::Result<T> {
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None).context("cannot restore signals")?;
        let done = work();
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.blocked), None).context("cannot block signals")?;
        Ok(done)
    }
}

/// Blocks what would end us, to read it from a descriptor instead; and `also`, which somebody else reads.
pub(super) fn block_signals(also: &[Signal]) -> anyhow::Result<Stops> {
    let mut blocked = SigSet::empty();
    // A reader that goes away, or a limit on file sizes, is an error to be told, not the end of us.
    let survived = [Signal::SIGPIPE, Signal::SIGXFSZ];
    for signal in PASSED_ON.into_iter().chain([Signal::SIGCHLD]).chain(survived).chain(also.iter().copied()) {
        blocked.add(signal);
    }
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&blocked), Some(&mut before)).context("cannot block signals")?;
    let mut read = blocked;
    survived.iter().chain(also).for_each(|signal| read.remove(*signal));
    let signals = SignalFd::with_flags(&read, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .context("cannot read signals")?;
    for signal in before.iter() {
        blocked.add(signal);
    }
    Ok(Stops { before, blocked, signals })
}

/// How the observation ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ended {
    code: Option<i32>,
    signal: Option<i32>,
    reason: &'static str,
    at_ns: u64,
}

impl Ended {
    fn now(code: Option<i32>, signal: Option<i32>, reason: &'static str) -> Self {
        Self { code, signal, reason, at_ns: proc::monotonic_ns() }
    }

    pub(super) fn ending(&self) -> Ending {
        Ending { ended_ns: self.at_ns, code: self.code, signal: self.signal, reason: self.reason.into() }
    }

    /// The status to exit with: the command's own.
    pub(super) fn status(&self) -> u8 {
        match (self.code, self.signal) {
            (Some(code), _) => code as u8,
            (None, Some(signal)) => 128_u8.wrapping_add(signal as u8),
            (None, None) => 0,
        }
    }
}

/// Where it is heard which signals reached the command.
pub(super) enum Hearsay {
    /// We see them ourselves.
    Own(SignalsSeen),
    /// The session of somebody who does.
    Session {
        /// Its file.
        path: PathBuf,
        /// The command's process.
        root: Option<Pid>,
    },
}

impl Hearsay {
    fn has(&self, signal: i32, sender: u32, since_ns: u64) -> bool {
        match self {
            Self::Own(seen) => seen.has(signal, sender, since_ns),
            Self::Session { path, root } => {
                root.is_some_and(|root| served::was_signalled(path, root.0, signal, sender, since_ns))
            }
        }
    }

    /// How long to wait for word.
    const fn patience(&self) -> Duration {
        match self {
            Self::Own(_) => HEARSAY,
            Self::Session { .. } => HEARSAY_OF_SESSION,
        }
    }
}

/// Waits for the end of an observation.
pub(super) struct Supervisor {
    /// Our child.
    pub(super) root: Option<Pid>,
    /// How its end is learnt, where another thread traces and reaps it.
    pub(super) root_end: Option<RootEnd>,
    /// Or the process attached to.
    pub(super) attached: Option<Pid>,
    /// `--for`.
    pub(super) limit_ns: Option<u64>,
    pub(super) seen: Hearsay,
}

impl Supervisor {
    pub(super) fn wait(&self, stops: &Stops) -> Ended {
        let mut deadline = self.limit_ns.map(|limit| proc::monotonic_ns() + limit);
        let mut terminated = false;
        loop {
            let now = proc::monotonic_ns();
            let left =
                deadline.map(|at| Duration::from_nanos(at.saturating_sub(now)) + Duration::from_millis(1));
            let wait = match (self.root, left) {
                (Some(_), None) => PollTimeout::NONE,
                (Some(_), Some(left)) => PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX),
                (None, left) => {
                    let wait = left.map_or(LOOK_EVERY, |left| left.min(LOOK_EVERY));
                    PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX)
                }
            };
            let _ = poll(&mut [PollFd::new(stops.signals.as_fd(), PollFlags::POLLIN)], wait);
            // Whatever is read now came just before, or while those before it were looked into.
            let since_ns = proc::monotonic_ns().saturating_sub(JUST_BEFORE_NS);
            while let Ok(Some(info)) = stops.signals.read_signal() {
                if let Some(ended) = self.on_signal(&info, since_ns) {
                    return ended;
                }
            }
            if let Some(ended) = self.reap(if terminated { "time-limit" } else { "exited" }) {
                return ended;
            }
            if deadline.is_some_and(|at| proc::monotonic_ns() >= at) {
                let Some(root) = self.root else { return Ended::now(None, None, "time-limit") };
                let (signal, next) =
                    if terminated { (Signal::SIGKILL, None) } else { (Signal::SIGTERM, Some(GRACE_NS)) };
                self.send(root, signal);
                terminated = true;
                deadline = next.map(|grace| proc::monotonic_ns() + grace);
            }
        }
    }

    fn on_signal(&self, info: &siginfo, since_ns: u64) -> Option<Ended> {
        let signal = Signal::try_from(info.ssi_signo as i32).ok()?;
        if signal == Signal::SIGCHLD {
            return None;
        }
        let Some(root) = self.root else {
            // What we are attached to is not ours to end: a signal means that we are to stop looking.
            return Some(Ended::now(None, None, "interrupted"));
        };
        // A key's signal went to the whole foreground group, our command included. A terminal that goes away tells only the leader of
        // its session, which may be us.
        let by_key = info.ssi_code == SI_KERNEL && signal != Signal::SIGHUP;
        if !by_key && !self.reached_without_us(info, since_ns) {
            self.send(root, signal);
        }
        None
    }

    fn send(&self, root: Pid, signal: Signal) {
        if let Some(end) = &self.root_end {
            end.signal(root, signal as i32);
        }
        let _ = kill(UnixPid::from_raw(root.0 as i32), signal);
    }

    /// Whether the sender addressed the whole process group, so that the command has the signal already.
    fn reached_without_us(&self, info: &siginfo, since_ns: u64) -> bool {
        let patience = self.seen.patience();
        let until = std::time::Instant::now() + patience;
        while std::time::Instant::now() < until {
            if self.seen.has(info.ssi_signo as i32, info.ssi_pid, since_ns) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    fn reap(&self, reason: &'static str) -> Option<Ended> {
        let Some(root) = self.root else {
            let gone = self.attached.is_some_and(|pid| matches!(proc::state(pid.0), None | Some('Z' | 'X')));
            return gone.then(|| Ended::now(None, None, "exited"));
        };
        match self.root_end.as_ref().map(RootEnd::get) {
            Some(Root::Traced) => return None,
            Some(Root::Ended { code, signal }) => return Some(Ended::now(code, signal, reason)),
            Some(Root::LetGo) | None => {}
        }
        match waitpid(UnixPid::from_raw(root.0 as i32), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => Some(Ended::now(Some(code), None, reason)),
            Ok(WaitStatus::Signaled(_, signal, _)) => Some(Ended::now(None, Some(signal as i32), reason)),
            Err(Errno::ECHILD) => Some(Ended::now(None, None, reason)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_the_commands_own() {
        assert_eq!(Ended::now(Some(3), None, "exited").status(), 3);
        assert_eq!(Ended::now(None, Some(9), "exited").status(), 137);
        assert_eq!(Ended::now(None, None, "let-go").status(), 0);
    }
}
