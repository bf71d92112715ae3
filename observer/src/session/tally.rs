//! Counts by kind. Knows names only.

/// Counts by kind. A recording sees a handful of kinds most of the time: a list is faster than a map.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally(pub(super) Vec<(&'static str, u64)>);

impl Tally {
    pub(super) fn add(&mut self, kind: &'static str, count: u64) {
        match self.0.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, total)) => *total += count,
            None => self.0.push((kind, count)),
        }
    }

    pub(super) fn take(&mut self, other: &mut Self) {
        for (kind, count) in other.0.drain(..) {
            self.add(kind, count);
        }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
