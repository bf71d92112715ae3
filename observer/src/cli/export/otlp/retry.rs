//! When a request is sent once more, and after how long. Knows the answers that OTLP 1.10 names; decides only, and sends nothing.

use std::time::Duration;

/// How often a failure is met before the wait stops to grow.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);

/// What went wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// There is no connection.
    Unreachable,
    /// No answer in time.
    TimedOut,
    /// An HTTP status.
    Http(u16),
    /// A gRPC status.
    Grpc(i32),
    /// What came back is no answer at all.
    NoAnswer,
}

/// A failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    /// What was answered, for people.
    pub(super) text: String,
    /// After how long the receiver wants to be asked again, where it says so.
    pub(super) after: Option<Duration>,
}

/// How long to wait before a request is sent again; `None`: it is not.
///
/// `attempt` counts from 0. `reached`: the receiver has answered before, so that a connection that fails is a passing thing. `chance` is
/// from 0 to 1: many that were cut off at once do not come back at once.
pub(super) fn wait(failure: &Failure, attempt: u32, reached: bool, chance: f64) -> Option<Duration> {
    let again = match failure.kind {
        Kind::Unreachable | Kind::NoAnswer => reached,
        Kind::TimedOut => true,
        Kind::Http(status) => matches!(status, 429 | 502 | 503 | 504),
        // CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS.
        Kind::Grpc(1 | 4 | 10 | 11 | 14 | 15) => true,
        // RESOURCE_EXHAUSTED passes only where the receiver says when.
        Kind::Grpc(8) => failure.after.is_some(),
        Kind::Grpc(_) => false,
    };
    let grown = FIRST.saturating_mul(2_u32.saturating_pow(attempt)).min(LONGEST);
    let jittered = grown.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0);
    again.then(|| failure.after.map_or(jittered, |after| after.max(jittered)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(kind: Kind, after_ms: Option<u64>) -> Failure {
        Failure { kind, text: String::new(), after: after_ms.map(Duration::from_millis) }
    }

    fn waited(kind: Kind, after_ms: Option<u64>) -> Option<u128> {
        wait(&failure(kind, after_ms), 0, true, 1.0).map(|wait| wait.as_millis())
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        for status in [429, 502, 503, 504] {
            assert_eq!(waited(Kind::Http(status), None), Some(500), "{status}");
        }
        for status in [200, 302, 400, 401, 403, 404, 413, 500, 501] {
            assert_eq!(waited(Kind::Http(status), Some(1)), None, "{status}");
        }
        let again: Vec<i32> = (0..=16).filter(|code| waited(Kind::Grpc(*code), None).is_some()).collect();
        assert_eq!(again, [1, 4, 10, 11, 14, 15]);
        assert_eq!(waited(Kind::Grpc(8), Some(2_000)), Some(2_000));
        assert_eq!(waited(Kind::TimedOut, None), Some(500));
        for kind in [Kind::Unreachable, Kind::NoAnswer] {
            assert_eq!(
                wait(&failure(kind, None), 0, false, 1.0),
                None,
                "nobody was there from the beginning"
            );
            assert!(wait(&failure(kind, None), 0, true, 1.0).is_some());
        }
    }

    #[test]
    fn waits_double_up_to_a_limit_and_are_spread() {
        let unavailable = failure(Kind::Http(503), None);
        let ms = |attempt, chance| wait(&unavailable, attempt, true, chance).unwrap().as_millis();
        assert_eq!([0, 1, 2, 3].map(|attempt| ms(attempt, 1.0)), [500, 1_000, 2_000, 4_000]);
        assert_eq!([ms(0, 0.0), ms(0, 0.5)], [250, 375]);
        assert_eq!([ms(6, 1.0), ms(60, 1.0), ms(u32::MAX, 0.0)], [30_000, 30_000, 15_000]);
    }

    #[test]
    fn the_receiver_is_never_asked_sooner_than_it_wants() {
        let later = failure(Kind::Http(429), Some(60_000));
        assert_eq!(wait(&later, 0, true, 0.0), Some(Duration::from_secs(60)));
        let sooner = failure(Kind::Http(429), Some(0));
        assert_eq!(wait(&sooner, 0, true, 0.0), Some(Duration::from_millis(250)));
    }
}
