//! How much the queues held, over time, as the broker says. Knows samples of queues.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{
    scale::{Scale, Tick, seconds},
    text::Text,
};
use crate::{event::broker::QueueSample, words::units};

/// Queues followed, queues drawn, and points kept of one.
const MOST_QUEUES: usize = 200;
const MOST_DRAWN: usize = 20;
const MOST_POINTS: usize = 600;
/// Heights of a drawing.
const HEIGHT: f64 = 110.0;
const TOP: f64 = 10.0;

/// Watches while a session is read.
#[derive(Debug)]
pub(super) struct Gauge {
    started_ns: u64,
    queues: BTreeMap<(String, String), Series>,
    left_out: u64,
}

#[derive(Debug, Default)]
struct Series {
    points: Vec<Point>,
    /// So many samples are one point.
    merged: usize,
    /// How many of them the last point has.
    in_last: usize,
    samples: u64,
}

/// The most that was ready and unacknowledged from a moment on.
#[derive(Clone, Copy, Debug)]
struct Point {
    at: f64,
    ready: Option<u64>,
    unacked: Option<u64>,
}

/// A queue.
#[derive(Debug)]
pub(super) struct Depth {
    pub(super) name: Text,
    pub(super) ready: Curve,
    pub(super) unacked: Curve,
    pub(super) most: u64,
    pub(super) samples: u64,
    pub(super) first: String,
    pub(super) last: String,
    pub(super) ticks: Vec<Tick>,
}

/// A line of a drawing; empty when nothing was told.
#[derive(Debug)]
pub(super) struct Curve {
    pub(super) path: String,
    pub(super) most: String,
    pub(super) last: String,
}

/// All queues.
#[derive(Debug)]
pub(super) struct Depths {
    pub(super) queues: Vec<Depth>,
    pub(super) left_out: u64,
}

impl Gauge {
    /// Of a session that began then.
    pub(super) const fn new(started_ns: u64) -> Self {
        Self { started_ns, queues: BTreeMap::new(), left_out: 0 }
    }

    /// Takes in a sample.
    pub(super) fn take(&mut self, at_ns: u64, sample: &QueueSample) {
        let key = (sample.vhost.clone(), sample.queue.clone());
        if self.queues.len() >= MOST_QUEUES && !self.queues.contains_key(&key) {
            self.left_out += 1;
            return;
        }
        let at = seconds(at_ns, self.started_ns);
        self.queues.entry(key).or_default().add(Point { at, ready: sample.ready, unacked: sample.unacked });
    }

    /// The drawings, fullest queues first.
    pub(super) fn finish(self, scale: Scale) -> Depths {
        let mut queues: Vec<_> = self.queues.into_iter().collect();
        queues.sort_by_key(|(_, series)| std::cmp::Reverse(series.most()));
        let left_out = self.left_out + queues.len().saturating_sub(MOST_DRAWN) as u64;
        let drawn = queues.into_iter().take(MOST_DRAWN);
        Depths {
            queues: drawn.map(|((vhost, name), series)| series.drawn(&vhost, &name, scale)).collect(),
            left_out,
        }
    }
}

impl Series {
    fn add(&mut self, point: Point) {
        self.samples += 1;
        let merged = self.merged.max(1);
        match self.points.last_mut() {
            Some(last) if self.in_last < merged => {
                *last = last.with(point);
                self.in_last += 1;
            }
            _ => {
                self.points.push(point);
                self.in_last = 1;
            }
        }
        if self.points.len() > MOST_POINTS {
            let pairs = self.points.chunks(2);
            let joined = |pair: &[Point]| pair.iter().copied().reduce(Point::with);
            self.points = pairs.filter_map(joined).collect();
            self.merged = merged * 2;
            self.in_last = merged;
        }
    }

    fn most(&self) -> u64 {
        let points = self.points.iter();
        points.map(|point| point.ready.unwrap_or(0).max(point.unacked.unwrap_or(0))).max().unwrap_or(0)
    }

    fn drawn(self, vhost: &str, name: &str, scale: Scale) -> Depth {
        let most = self.most();
        let moment =
            |point: Option<&Point>| point.map_or(String::new(), |point| format!("{:+.3} s", point.at));
        Depth {
            name: Text::of(if vhost == "/" { name.to_owned() } else { format!("{vhost} {name}") }),
            ready: self.curve(scale, most, |point| point.ready),
            unacked: self.curve(scale, most, |point| point.unacked),
            most,
            samples: self.samples,
            first: moment(self.points.first()),
            last: moment(self.points.last()),
            ticks: scale.ticks(),
        }
    }

    fn curve(&self, scale: Scale, most: u64, value: impl Fn(&Point) -> Option<u64>) -> Curve {
        #[expect(clippy::cast_precision_loss, reason = "for a drawing")]
        let y = |value: u64| TOP + (HEIGHT - TOP) * (1.0 - value as f64 / most.max(1) as f64);
        let (mut path, mut broken) = (String::new(), true);
        for point in &self.points {
            // What was not told is a gap, not a zero.
            let Some(value) = value(point) else {
                broken = true;
                continue;
            };
            let (x, y) = (scale.x(point.at), y(value));
            // Writing to a String cannot fail.
            let _ = if broken { write!(path, "M{x:.1} {y:.1}") } else { write!(path, "H{x:.1}V{y:.1}") };
            broken = false;
        }
        if !path.is_empty() && !broken {
            let _ = write!(path, "h3");
        }
        let told = || self.points.iter().filter_map(&value);
        let text =
            |value: Option<u64>| value.map_or_else(|| "not told".to_owned(), |value| value.to_string());
        Curve { path, most: text(told().max()), last: text(told().next_back()) }
    }
}

impl Point {
    /// The most of both, from the first on.
    fn with(self, other: Self) -> Self {
        Self { at: self.at, ready: self.ready.max(other.ready), unacked: self.unacked.max(other.unacked) }
    }
}

impl Depths {
    /// How many queues are not drawn, in words.
    pub(super) fn not_drawn(&self) -> String {
        units::counted(self.left_out, "other queue")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::broker::Way;

    #[test]
    fn peaks_stay_however_many_samples_there_are_and_what_is_not_told_is_no_zero() {
        let mut gauge = Gauge::new(0);
        for n in 0..100_000_u64 {
            let ready = Some(if n == 54_321 { 9_000 } else { n % 7 });
            let sample = QueueSample {
                vhost: "/".to_owned(),
                queue: "default".to_owned(),
                ready,
                unacked: None,
                consumers: None,
                state: None,
                published: None,
                delivered: None,
                how: Way::PassiveDeclare,
                ours: false,
            };
            gauge.take(n * 1_000_000, &sample);
        }
        let depths = gauge.finish(Scale::new(0.0, 100.0));
        let [queue] = depths.queues.as_slice() else { panic!("{depths:?}") };
        assert_eq!((queue.ready.most.as_str(), queue.samples), ("9000", 100_000));
        assert!(queue.ready.path.matches('H').count() <= MOST_POINTS && queue.ready.path.len() > 1_000);
        assert_eq!((queue.unacked.path.as_str(), queue.unacked.most.as_str()), ("", "not told"));
    }
}
