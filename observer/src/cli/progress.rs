//! A sign of life while something takes longer than a moment. Knows the terminal only; nothing is shown where there is none.

use indicatif::{ProgressBar, ProgressStyle};
use std::{
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

/// What is quicker needs no sign.
const A_MOMENT: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(100);

/// How far something has come, with a word on what is left.
pub(super) fn bar() -> ProgressBar {
    let bar = ProgressBar::new(1);
    if let Ok(style) = ProgressStyle::with_template("{spinner} [{bar:30}] {pos}/{len}  {msg}  {elapsed}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.enable_steady_tick(TICK);
    bar
}

/// Does `work`; when that takes longer than a moment, a line on standard error says what is being done until it is.
pub(super) fn while_slow<T>(what: &'static str, work: impl FnOnce() -> T) -> T {
    let (done, wait) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            if wait.recv_timeout(A_MOMENT) == Err(RecvTimeoutError::Timeout) {
                // Draws on standard error, and only when that is a terminal.
                let sign = ProgressBar::new_spinner().with_message(what);
                sign.enable_steady_tick(TICK);
                let _ = wait.recv();
                sign.finish_and_clear();
            }
        });
        let result = work();
        drop(done);
        result
    })
}
