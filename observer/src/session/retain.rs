//! Which finished sessions are to go. Knows sizes, ages and what was concluded; no files: who removes them is somebody else's business.

use std::path::PathBuf;

/// A finished session, as far as keeping it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub owner: u32,
    /// Its file.
    pub path: PathBuf,
    /// When it began, in nanoseconds since 1970.
    pub began_ns: i128,
    /// Space it takes.
    pub bytes: u64,
    /// Whether nothing was wrong.
    pub healthy: bool,
    /// Whether somebody asked for it to be kept.
    pub pinned: bool,
}

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// No session older than this, in nanoseconds.
    pub max_age_ns: u64,
    /// No more sessions than this.
    pub max_sessions: u64,
    /// No more bytes than this, all sessions together.
    pub max_bytes: u64,
    /// So many bytes are left free on the file system.
    pub min_free_bytes: u64,
}

/// The sessions that are to go, in the order in which they go: what is too old; then as many as it takes, the oldest of those in which
/// nothing was wrong first, then the oldest of the others. Pinned ones count and stay. `now_ns` is nanoseconds since 1970, and
/// `free_bytes` what is free on the file system; what is removed is taken to be free then.
pub fn to_remove<'a>(entries: &'a [Entry], limits: &Limits, now_ns: i128, free_bytes: u64) -> Vec<&'a Entry> {
    let oldest_ns = now_ns - i128::from(limits.max_age_ns);
    let mut loose: Vec<&Entry> = entries.iter().filter(|entry| !entry.pinned).collect();
    loose.sort_by(|a, b| {
        let turn = |entry: &Entry| (!is_expired(entry, oldest_ns), !entry.healthy, entry.began_ns);
        turn(a).cmp(&turn(b)).then_with(|| a.id.cmp(&b.id))
    });
    let mut count = entries.len() as u64;
    let mut bytes: u64 = entries.iter().fold(0, |sum, entry| sum.saturating_add(entry.bytes));
    let mut free = free_bytes;
    let mut leaving = loose.into_iter();
    let mut removed = Vec::new();
    loop {
        let is_over = count > limits.max_sessions || bytes > limits.max_bytes || free < limits.min_free_bytes;
        match leaving.next() {
            Some(entry) if is_over || is_expired(entry, oldest_ns) => {
                count -= 1;
                bytes = bytes.saturating_sub(entry.bytes);
                free = free.saturating_add(entry.bytes);
                removed.push(entry);
            }
            _ => return removed,
        }
    }
}

const fn is_expired(entry: &Entry, oldest_ns: i128) -> bool {
    entry.began_ns < oldest_ns
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn entry(number: u32, began_ns: i128, bytes: u64, healthy: bool, pinned: bool) -> Entry {
        let id = format!("s{number:03}");
        let path = PathBuf::from(format!("/x/{id}.sqlite"));
        Entry { id, owner: 1000, path, began_ns, bytes, healthy, pinned }
    }

    fn entries() -> impl Strategy<Value = Vec<Entry>> {
        let one = (0_i128..1_000, 0_u64..100, any::<bool>(), prop::bool::weighted(0.2));
        prop::collection::vec(one, 0..40).prop_map(|all| {
            (0..)
                .zip(all)
                .map(|(n, (began, bytes, healthy, pinned))| entry(n, began, bytes, healthy, pinned))
                .collect()
        })
    }

    fn limits() -> impl Strategy<Value = Limits> {
        (0_u64..1_200, 0_u64..50, 0_u64..4_000, 0_u64..2_000).prop_map(
            |(max_age_ns, max_sessions, max_bytes, min_free_bytes)| Limits {
                max_age_ns,
                max_sessions,
                max_bytes,
                min_free_bytes,
            },
        )
    }

    const NO_LIMITS: Limits =
        Limits { max_age_ns: u64::MAX, max_sessions: u64::MAX, max_bytes: u64::MAX, min_free_bytes: 0 };

    #[test]
    fn the_order_is_expired_then_healthy_then_oldest() {
        let all = [
            entry(1, 100, 1, false, false),
            entry(2, 300, 1, true, false),
            entry(3, 200, 1, false, false),
            entry(4, 400, 1, true, false),
            entry(5, 0, 1, true, true),
            entry(6, 50, 1, false, false),
        ];
        let limits = Limits { max_age_ns: 940, max_sessions: 1, ..NO_LIMITS };
        let gone: Vec<&str> = to_remove(&all, &limits, 1_000, 0).iter().map(|one| one.id.as_str()).collect();
        assert_eq!(gone, ["s006", "s002", "s004", "s001", "s003"], "the pinned one stays, old as it is");
    }

    #[test]
    fn nothing_goes_while_there_is_room() {
        let all = [entry(1, 0, 5, true, false), entry(2, 0, 5, false, false)];
        assert!(to_remove(&all, &NO_LIMITS, 1_000, 0).is_empty());
        let free = Limits { min_free_bytes: 10, ..NO_LIMITS };
        assert_eq!(to_remove(&all, &free, 1_000, 6).len(), 1, "what is removed is free then");
        assert_eq!(to_remove(&all, &free, 1_000, 0).len(), 2);
    }

    proptest! {
        #[test]
        fn pinned_ones_stay_and_none_goes_twice(all in entries(), limits in limits(), free in 0_u64..3_000) {
            let gone = to_remove(&all, &limits, 1_000, free);
            prop_assert!(gone.iter().all(|entry| !entry.pinned));
            let ids: HashSet<&str> = gone.iter().map(|entry| entry.id.as_str()).collect();
            prop_assert_eq!(ids.len(), gone.len());
        }

        #[test]
        fn what_stays_is_within_the_limits_or_pinned(all in entries(), limits in limits(), free in 0_u64..3_000) {
            let gone: HashSet<&str> =
                to_remove(&all, &limits, 1_000, free).iter().map(|entry| entry.id.as_str()).collect();
            let stays: Vec<&Entry> = all.iter().filter(|entry| !gone.contains(entry.id.as_str())).collect();
            let loose = stays.iter().filter(|entry| !entry.pinned).count();
            let bytes: u64 = stays.iter().map(|entry| entry.bytes).sum();
            let freed: u64 =
                all.iter().filter(|entry| gone.contains(entry.id.as_str())).map(|entry| entry.bytes).sum();
            prop_assert!(loose == 0 || stays.len() as u64 <= limits.max_sessions);
            prop_assert!(loose == 0 || bytes <= limits.max_bytes);
            prop_assert!(loose == 0 || free + freed >= limits.min_free_bytes);
            let oldest = 1_000 - i128::from(limits.max_age_ns);
            prop_assert!(stays.iter().all(|entry| entry.pinned || entry.began_ns >= oldest));
        }

        #[test]
        fn none_goes_before_one_that_is_less_worth(all in entries(), limits in limits(), free in 0_u64..3_000) {
            let gone = to_remove(&all, &limits, 1_000, free);
            let oldest = 1_000 - i128::from(limits.max_age_ns);
            let worth = |entry: &Entry| (entry.began_ns >= oldest, !entry.healthy, entry.began_ns);
            prop_assert!(gone.windows(2).all(|pair| worth(pair[0]) <= worth(pair[1])));
            let ids: HashSet<&str> = gone.iter().map(|entry| entry.id.as_str()).collect();
            if let Some(last) = gone.last() {
                let stays = all.iter().filter(|entry| !entry.pinned && !ids.contains(entry.id.as_str()));
                prop_assert!(stays.into_iter().all(|entry| worth(entry) >= worth(last)));
            }
        }

        #[test]
        fn no_more_go_than_must(all in entries(), limits in limits(), free in 0_u64..3_000) {
            let gone = to_remove(&all, &limits, 1_000, free);
            let oldest = 1_000 - i128::from(limits.max_age_ns);
            if let Some(last) = gone.last().filter(|last| last.began_ns >= oldest) {
                // Without the last removal something was over its limit.
                let others: HashSet<&str> =
                    gone.iter().filter(|entry| entry.id != last.id).map(|entry| entry.id.as_str()).collect();
                let (without, freed): (Vec<&Entry>, Vec<&Entry>) =
                    all.iter().partition(|entry| !others.contains(entry.id.as_str()));
                let bytes: u64 = without.iter().map(|entry| entry.bytes).sum();
                let freed: u64 = freed.iter().map(|entry| entry.bytes).sum();
                prop_assert!(
                    without.len() as u64 > limits.max_sessions
                        || bytes > limits.max_bytes
                        || free + freed < limits.min_free_bytes
                );
            }
        }
    }
}
