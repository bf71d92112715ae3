//! A sign of life while something takes longer than a moment. Knows the terminal only; nothing is shown where there is none.

use std::{
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

/// What is quicker needs no sign.
const A_MOMENT: Duration = Duration::from_secs(1);
/// How often a sign is drawn anew.
const OFTEN: Duration = Duration::from_millis(100);

/// Does `work`; when that takes longer than a moment, a line on standard error says what is being done until it is.
pub(super) fn while_slow<T>(what: &'static str, work: impl FnOnce() -> T) -> T {
    let sign = || indicatif::ProgressBar::new_spinner().with_message(what);
    let tick = |sign: &indicatif::ProgressBar, wait: &mpsc::Receiver<()>| {
        sign.enable_steady_tick(OFTEN);
        let _ = wait.recv();
    };
    shown_while_slow(sign, tick, work)
}

/// As [`while_slow`], with a bar: `work` counts in `done` what it has done, of about `total`.
pub(super) fn while_counted<T>(
    what: &'static str,
    total: u64,
    done: &AtomicU64,
    work: impl FnOnce() -> T,
) -> T {
    let sign = || {
        let style = indicatif::ProgressStyle::with_template("{msg} {wide_bar} {percent}% {eta}");
        let bar = indicatif::ProgressBar::new(total.max(1)).with_message(what);
        style.into_iter().fold(bar, indicatif::ProgressBar::with_style)
    };
    let tick = |sign: &indicatif::ProgressBar, wait: &mpsc::Receiver<()>| {
        while wait.recv_timeout(OFTEN) == Err(RecvTimeoutError::Timeout) {
            sign.set_position(done.load(Ordering::Relaxed).min(total));
        }
    };
    shown_while_slow(sign, tick, work)
}

fn shown_while_slow<T>(
    sign: impl FnOnce() -> indicatif::ProgressBar + Send,
    tick: impl FnOnce(&indicatif::ProgressBar, &mpsc::Receiver<()>) + Send,
    work: impl FnOnce() -> T,
) -> T {
    let (done, wait) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            if wait.recv_timeout(A_MOMENT) == Err(RecvTimeoutError::Timeout) {
                // Draws on standard error, and only when that is a terminal.
                let sign = sign();
                tick(&sign, &wait);
                sign.finish_and_clear();
            }
        });
        let result = work();
        drop(done);
        result
    })
}
