//! How much came lately. Knows numbers.

/// Events in a second, over the last ten.
#[derive(Default)]
pub(super) struct Rate {
    seconds: [(u64, u64); Self::OVER as usize],
}

impl Rate {
    const OVER: u64 = 10;

    pub(super) fn add(&mut self, now_ns: u64, count: u64) {
        let second = now_ns / 1_000_000_000;
        let slot = &mut self.seconds[(second % Self::OVER) as usize];
        if slot.0 != second {
            *slot = (second, 0);
        }
        slot.1 += count;
    }

    pub(super) fn per_s(&self, now_ns: u64) -> f64 {
        let second = now_ns / 1_000_000_000;
        let recent = self.seconds.iter().filter(|(at, _)| second.saturating_sub(*at) < Self::OVER);
        recent.map(|(_, count)| *count).sum::<u64>() as f64 / Self::OVER as f64
    }
}
