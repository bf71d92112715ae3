//! How long things took, as a distribution: counts by length, and what half, nine of ten and ninety-nine of a hundred stayed below. Knows
//! numbers only.

use std::collections::BTreeMap;

use crate::words::units;

/// Lengths within an octave that are told apart: a percentile is exact to 1/64.
const STEPS: u32 = 6;
/// Bars a decade, and decades drawn: from a microsecond to a thousand seconds.
const BARS: usize = 4;
const DECADES: usize = 9;
const FIRST_NS: f64 = 1e3;
/// Sizes of the drawing.
const LEFT: f64 = 40.0;
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 120.0;

/// Lengths of time, counted.
#[derive(Clone, Debug, Default)]
pub(super) struct Histogram {
    counts: BTreeMap<u64, u64>,
    total: u64,
    longest_ns: u64,
}

/// What stayed below what, as text.
#[derive(Debug)]
pub(super) struct Percentiles {
    pub(super) count: u64,
    pub(super) p50: String,
    pub(super) p90: String,
    pub(super) p99: String,
    pub(super) max: String,
}

/// A drawing of a distribution.
#[derive(Debug)]
pub(super) struct Chart {
    pub(super) bars: Vec<Rect>,
    pub(super) ticks: Vec<(String, &'static str)>,
    /// Place, name and the row its name stands in.
    pub(super) lines: Vec<(String, &'static str, u32)>,
    pub(super) most: u64,
}

/// A bar.
#[derive(Debug)]
pub(super) struct Rect {
    pub(super) x: String,
    pub(super) y: String,
    pub(super) width: String,
    pub(super) height: String,
    pub(super) title: String,
}

impl Histogram {
    /// One more.
    pub(super) fn add(&mut self, ns: u64) {
        *self.counts.entry(bucket(ns)).or_default() += 1;
        self.total += 1;
        self.longest_ns = self.longest_ns.max(ns);
    }

    /// Whether there is none.
    pub(super) const fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// What this share of a hundred stayed below or was equal to, in nanoseconds; 0 when there is none.
    fn percentile(&self, hundredths: u64) -> u64 {
        let rank = (self.total * hundredths).div_ceil(100).max(1);
        let mut below = 0;
        for (bucket, count) in &self.counts {
            below += count;
            if below >= rank {
                return end(*bucket).min(self.longest_ns);
            }
        }
        self.longest_ns
    }

    /// As text.
    pub(super) fn percentiles(&self) -> Percentiles {
        let text = |hundredths| units::duration(self.percentile(hundredths));
        Percentiles {
            count: self.total,
            p50: text(50),
            p90: text(90),
            p99: text(99),
            max: units::duration(self.longest_ns),
        }
    }

    /// As a drawing.
    pub(super) fn chart(&self) -> Chart {
        let mut bins = [0_u64; BARS * DECADES];
        for (bucket, count) in &self.counts {
            if let Some(bin) = bins.get_mut(bin(*bucket)) {
                *bin += count;
            }
        }
        let most = bins.iter().copied().max().unwrap_or(0);
        let step = WIDTH / float(bins.len() as u64);
        let rect = |(index, count): (usize, &u64)| {
            let height = (float(*count) / float(most.max(1)) * (HEIGHT - 20.0)).max(1.5);
            let edge = |index: usize| units::duration(length_ns(index));
            (*count > 0).then(|| Rect {
                x: format!("{:.1}", LEFT + step * float(index as u64) + 0.5),
                y: format!("{:.1}", HEIGHT - height),
                width: format!("{:.1}", step - 1.0),
                height: format!("{height:.1}"),
                title: format!("{} to {}: {count}", edge(index), edge(index + 1)),
            })
        };
        let names = ["1 µs", "10 µs", "100 µs", "1 ms", "10 ms", "100 ms", "1 s", "10 s", "100 s", "1000 s"];
        let decade = WIDTH / float(DECADES as u64);
        let ticks = names.into_iter().enumerate();
        let ticks = ticks.map(|(index, name)| (format!("{:.1}", LEFT + decade * float(index as u64)), name));
        let line = |(row, (hundredths, name))| (place(self.percentile(hundredths)), name, row);
        let lines = (0..).zip([(50, "p50"), (90, "p90"), (99, "p99"), (100, "max")]).map(line);
        Chart {
            bars: bins.iter().enumerate().filter_map(rect).collect(),
            ticks: ticks.collect(),
            lines: lines.collect(),
            most,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "for a drawing")]
const fn float(number: u64) -> f64 {
    number as f64
}

/// Numbers lengths so that each octave has 64.
const fn bucket(ns: u64) -> u64 {
    if ns < 1 << STEPS {
        return ns;
    }
    let octave = ns.ilog2() - STEPS;
    ((octave as u64 + 1) << STEPS) + ((ns >> octave) - (1 << STEPS))
}

/// The longest length of a number.
const fn end(bucket: u64) -> u64 {
    if bucket < 1 << STEPS {
        return bucket;
    }
    let octave = (bucket >> STEPS) - 1;
    let step = bucket & ((1 << STEPS) - 1);
    (((1 << STEPS) + step + 1) << octave).wrapping_sub(1)
}

/// Decades above a microsecond.
fn decades(ns: u64) -> f64 {
    (float(ns.max(1)) / FIRST_NS).log10().clamp(0.0, float(DECADES as u64))
}

fn place(ns: u64) -> String {
    format!("{:.1}", LEFT + decades(ns) / float(DECADES as u64) * WIDTH)
}

fn bin(bucket: u64) -> usize {
    let bin = (decades(end(bucket)) * float(BARS as u64)).floor();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 36")]
    let bin = bin as usize;
    bin.min(BARS * DECADES - 1)
}

/// The length at the beginning of a bar.
fn length_ns(bin: usize) -> u64 {
    let length = FIRST_NS * 10_f64.powf(float(bin as u64) / float(BARS as u64));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most a thousand seconds")]
    let ns = length.round() as u64;
    ns
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_length_is_told_to_a_sixty_fourth(ns in any::<u64>()) {
            let end = end(bucket(ns));
            prop_assert!(end >= ns && end - ns <= ns / 64, "{ns} is told as {end}");
        }
    }

    #[test]
    fn percentiles_are_of_the_lengths_and_not_of_their_average() {
        let mut histogram = Histogram::default();
        (0..98).for_each(|_| histogram.add(1_000_000));
        histogram.add(30_000_000_000);
        histogram.add(60_000_000_000);
        let told = histogram.percentiles();
        assert_eq!((told.count, told.max.as_str()), (100, "1 min 0 s"));
        assert!(told.p50.starts_with("1.0 ms") && told.p90.starts_with("1.0 ms"), "{told:?}");
        assert!(told.p99.starts_with("30."), "{told:?}");
        let chart = histogram.chart();
        assert_eq!((chart.bars.len(), chart.most), (3, 98));
    }
}
