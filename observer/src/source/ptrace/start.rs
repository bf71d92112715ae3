//! What signals mean to a program that traces: one wakes the tracer, and stops of tracees are no news of children.
#![expect(unsafe_code, reason = "sigaction(2) has no safe wrapper")]

use nix::{
    errno::Errno,
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
};

/// Interrupts the tracer's wait. Nobody sends it otherwise, and by default it does nothing.
pub(super) const NUDGE: Signal = Signal::SIGURG;

extern "C" fn nothing(_: nix::libc::c_int) {}

/// To be called after the command is forked: it is to find its signals as we did.
pub(super) fn handle_signals() -> Result<(), Errno> {
    // Without SA_RESTART: to interrupt is its purpose.
    let wake = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
    // Every stop of a tracee would be a SIGCHLD.
    let ended = SigAction::new(SigHandler::SigDfl, SaFlags::SA_NOCLDSTOP, SigSet::empty());
    // SAFETY: the one handler does nothing, the other is the default.
    unsafe {
        sigaction(NUDGE, &wake)?;
        sigaction(Signal::SIGCHLD, &ended)?;
    }
    Ok(())
}

/// To be called in the tracer's thread.
pub(super) fn hear_nudges() {
    let mut own = SigSet::empty();
    own.add(NUDGE);
    let _ = own.thread_unblock();
}
