//! A sign of life while something takes longer than a moment. Knows the terminal only; nothing is shown where there is none.

use indicatif::{ProgressBar, ProgressStyle};
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

/// How far something has come, with a word on what is left.
pub(super) fn bar() -> ProgressBar {
    let bar = ProgressBar::new(1);
    if let Ok(style) = ProgressStyle::with_template("{spinner} [{bar:30}] {pos}/{len}  {msg}  {elapsed}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.enable_steady_tick(OFTEN);
    bar
}

/// Does `work`; when that takes longer than a moment, a line on standard error says what is being done until it is.
pub(super) fn while_slow<T>(what: &'static str, work: impl FnOnce() -> T) -> T {
    let sign = || ProgressBar::new_spinner().with_message(what);
    let tick = |sign: &ProgressBar, wait: &mpsc::Receiver<()>| {
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
        let style = ProgressStyle::with_template("{msg} {wide_bar} {percent}% {eta}");
        let bar = ProgressBar::new(total.max(1)).with_message(what);
        style.into_iter().fold(bar, ProgressBar::with_style)
    };
    let tick = |sign: &ProgressBar, wait: &mpsc::Receiver<()>| {
        while wait.recv_timeout(OFTEN) == Err(RecvTimeoutError::Timeout) {
            sign.set_position(done.load(Ordering::Relaxed).min(total));
        }
    };
    shown_while_slow(sign, tick, work)
}

fn shown_while_slow<T>(
    sign: impl FnOnce() -> ProgressBar + Send,
    tick: impl FnOnce(&ProgressBar, &mpsc::Receiver<()>) + Send,
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
