//! A sign of life while something takes longer than a moment. Knows the terminal only; nothing is shown where there is none.

use std::{
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

/// What is quicker needs no sign.
const A_MOMENT: Duration = Duration::from_secs(1);

/// Does `work`; when that takes longer than a moment, a line on standard error says what is being done until it is.
pub(super) fn while_slow<T>(what: &'static str, work: impl FnOnce() -> T) -> T {
    let (done, wait) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            if wait.recv_timeout(A_MOMENT) == Err(RecvTimeoutError::Timeout) {
                // Draws on standard error, and only when that is a terminal.
                let sign = indicatif::ProgressBar::new_spinner().with_message(what);
                sign.enable_steady_tick(Duration::from_millis(100));
                let _ = wait.recv();
                sign.finish_and_clear();
            }
        });
        let result = work();
        drop(done);
        result
    })
}
