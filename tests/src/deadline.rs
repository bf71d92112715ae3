//! Waiting for something to become true, with an end to the patience: the one place in the lab that sleeps.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Asks again and again until there is an answer; an error that says what was waited for when `limit` passes without one.
pub fn poll<T>(what: &str, limit: Duration, answer: impl FnMut() -> Option<T>) -> Result<T> {
    poll_every(what, limit, Duration::from_millis(20), answer)
}

/// [`poll`] where asking is dear: after a while, no more often than every `slowest`.
pub fn poll_every<T>(
    what: &str,
    limit: Duration,
    slowest: Duration,
    mut answer: impl FnMut() -> Option<T>,
) -> Result<T> {
    let start = Instant::now();
    let mut step = Duration::from_millis(1);
    loop {
        if let Some(answer) = answer() {
            return Ok(answer);
        }
        let waited = start.elapsed();
        if waited >= limit {
            bail!("waited {:.1} s in vain for this: {what}", waited.as_secs_f64());
        }
        std::thread::sleep(step.min(limit - waited));
        step = (step * 2).min(slowest);
    }
}

/// [`poll`] for tests: panics, at the caller's line.
#[track_caller]
pub fn until<T>(what: &str, limit: Duration, answer: impl FnMut() -> Option<T>) -> T {
    match poll(what, limit, answer) {
        Ok(answer) => answer,
        Err(error) => panic!("{error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_comes_as_soon_as_there_is_one() {
        let mut asked = 0;
        let answer = until("third time", Duration::from_secs(5), || {
            asked += 1;
            (asked == 3).then_some(asked)
        });
        assert_eq!(answer, 3);
    }

    #[test]
    fn patience_ends_with_what_was_waited_for() {
        let error = poll("the moon falls", Duration::from_millis(3), || None::<()>).unwrap_err();
        assert!(error.to_string().ends_with("in vain for this: the moon falls"), "{error}");
    }
}
