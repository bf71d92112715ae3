//! Signals as they reach a tracee, and who sent them. `SIGKILL` reaches nobody's tracer: only those of the tree itself are known, from the
//! call that sends them.

use nix::{
    libc,
    unistd::{Pid as UnixPid, getpgid},
};

use super::{
    calls::{Before, Call, Recorder},
    memory, stop,
};
use crate::{
    event::{Body, Known, Pid, Sender},
    source::proc,
};

/// Ignored unless the program handles them (`SIG_KERNEL_IGNORE_MASK`, include/linux/signal.h).
const IGNORED_BY_DEFAULT: [i32; 4] = [libc::SIGCONT, libc::SIGCHLD, libc::SIGWINCH, libc::SIGURG];

/// Whether a signal takes effect as itself. One that ends the process by default the kernel turns into `SIGKILL` for every thread
/// (kernel/signal.c, complete_signal), unless it is to dump core; a tracer sees it before.
const fn is_delivered(signal: i32, handled: bool) -> bool {
    use libc as s;
    let stops = matches!(signal, s::SIGTSTP | s::SIGTTIN | s::SIGTTOU | s::SIGSTOP);
    let dumps = matches!(
        signal,
        s::SIGQUIT
            | s::SIGILL
            | s::SIGTRAP
            | s::SIGABRT
            | s::SIGFPE
            | s::SIGSEGV
            | s::SIGBUS
            | s::SIGSYS
            | s::SIGXCPU
            | s::SIGXFSZ
    );
    handled || stops || dumps
}

/// The process of this id as a sender; 0 is none.
pub(super) fn sender(pid: u32) -> Known<Sender> {
    if pid == 0 {
        return Known::none();
    }
    let words = proc::cmdline(pid);
    let cmdline = if words.is_empty() { Known::unknown() } else { Known::Is(words.join(" ")) };
    Known::Is(Sender { pid: Pid(pid), name: proc::name(pid).unwrap_or_default(), cmdline })
}

/// Whether a code says that a process sent the signal, and which.
const fn has_sender(code: i32) -> bool {
    matches!(code, libc::SI_USER | libc::SI_TKILL | libc::SI_QUEUE)
}

/// What we send ourselves is told when we do ([`super::RootEnd::signal`]): it may be blocked, and `SIGKILL` is seen by nobody.
fn is_ours(code: i32, from: u32) -> bool {
    code == libc::SI_USER && from == std::process::id()
}

fn number(bytes: &[u8], at: usize) -> i32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| i32::from_ne_bytes(*bytes))
}

impl Recorder {
    /// A thread is about to get a signal.
    pub(super) fn signal(&self, pid: u32, tid: u32, signal: i32) {
        let at_ns = proc::monotonic_ns();
        let (code, from) = stop::signal_info(tid).unwrap_or((libc::SI_KERNEL, 0));
        let (caught, ignored) = proc::dispositions(tid).unwrap_or_default();
        let bit = 1_u64 << (signal - 1).clamp(0, 63);
        let handled = caught & bit != 0;
        let ignored = ignored & bit != 0 || (!handled && IGNORED_BY_DEFAULT.contains(&signal));
        let sender = if has_sender(code) { sender(from) } else { Known::none() };
        let group = code != libc::SI_TKILL && !by_fault(signal, code);
        if !is_ours(code, from) {
            self.tell(at_ns, pid, tid, Body::Signal { signal, code, sender, group, queued: !ignored });
        }
        if !ignored && is_delivered(signal, handled) {
            self.tell(at_ns, pid, tid, Body::SignalDelivered { signal, handled });
        }
    }

    /// A blocked signal was waited for and has come: `siginfo_t` begins with its number, an error, the code, a gap; the sender follows.
    pub(super) fn waited(&self, call: &Call, ret: i64) {
        if ret <= 0 {
            return;
        }
        let info = memory::value::<20>(call.tid, call.args[1]);
        let (code, from) =
            info.map_or((libc::SI_KERNEL, 0), |info| (number(&info, 8), number(&info, 16) as u32));
        self.taken(call, ret as i32, code, from);
    }

    /// The same from a `signalfd`, where every signal is 128 bytes that begin likewise, without the gap.
    pub(super) fn read_signals(&self, call: &Call, bytes: &[u8]) {
        for info in bytes.chunks_exact(128) {
            self.taken(call, number(info, 0), number(info, 8), number(info, 12) as u32);
        }
    }

    fn taken(&self, call: &Call, signal: i32, code: i32, from: u32) {
        let sender = if has_sender(code) { sender(from) } else { Known::none() };
        let group = code != libc::SI_TKILL;
        if is_ours(code, from) {
            return;
        }
        self.say(call, Body::Signal { signal, code, sender, group, queued: true });
    }

    /// A call that sends a signal is entered: its victims, if it is `SIGKILL`, will not say so.
    pub(super) fn kill(&self, call: &mut Call, target: i32, signal: u64) {
        if signal as i32 != libc::SIGKILL {
            return;
        }
        let victims = match target {
            1.. => vec![proc::process_of(target as u32).unwrap_or(target as u32)],
            _ => {
                let group = |pid: u32| getpgid(Some(UnixPid::from_raw(pid as i32))).ok();
                let wanted = match target {
                    0 => group(call.pid),
                    -1 => None,
                    group => Some(UnixPid::from_raw(-group)),
                };
                self.tracked.iter().copied().filter(|pid| target == -1 || group(*pid) == wanted).collect()
            }
        };
        let victims: Vec<u32> = victims.into_iter().filter(|pid| self.tracked.contains(pid)).collect();
        call.before = Before::Kills(victims, sender(call.pid));
    }

    /// It returned; or one of its victims is dead before it has.
    pub(super) fn killed(&self, call: &Call, ret: i64) {
        if let Before::Kills(victims, sender) = &call.before
            && ret == 0
        {
            victims.iter().for_each(|victim| self.told_of(call.enter_ns, *victim, sender.clone()));
        }
    }

    /// Tells of one victim.
    pub(super) fn told_of(&self, at_ns: u64, victim: u32, sender: Known<Sender>) {
        let (signal, code) = (libc::SIGKILL, libc::SI_USER);
        self.tell(at_ns, victim, victim, Body::Signal { signal, code, sender, group: true, queued: true });
    }
}

/// Whether the thread itself caused it.
const fn by_fault(signal: i32, code: i32) -> bool {
    let fault = matches!(
        signal,
        libc::SIGSEGV | libc::SIGBUS | libc::SIGFPE | libc::SIGILL | libc::SIGTRAP | libc::SIGSYS
    );
    (fault && code > 0) || signal == libc::SIGPIPE
}
