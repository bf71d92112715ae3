//! Times as places in a drawing. Knows numbers only. The script draws the same anew for the part that is looked at.

/// How wide a drawing is before the script has seen the window.
pub(super) const WIDTH: f64 = 1_000.0;
/// Room kept free at both sides.
const SIDE: f64 = 12.0;

/// A span of time, in seconds since the start of the session, over the width of a drawing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    pub(super) from: f64,
    pub(super) until: f64,
}

/// A time that is written at the axis.
#[derive(Debug)]
pub(super) struct Tick {
    pub(super) x: String,
    pub(super) text: String,
}

impl Scale {
    /// From the first to the last moment. Never empty.
    pub(super) fn new(from: f64, until: f64) -> Self {
        Self { from, until: until.max(from + 0.001) }
    }

    /// Where a moment is.
    pub(super) fn x(self, at: f64) -> f64 {
        SIDE + (at - self.from) / (self.until - self.from) * (WIDTH - 2.0 * SIDE)
    }

    /// The same, as it is written.
    pub(super) fn place(self, at: f64) -> String {
        format!("{:.1}", self.x(at))
    }

    /// How wide a span is, as it is written; it can always be seen.
    pub(super) fn width(self, from: f64, until: f64) -> String {
        format!("{:.1}", (self.x(until) - self.x(from)).max(0.5))
    }

    /// Five times, from the first to the last.
    pub(super) fn ticks(self) -> Vec<Tick> {
        let part = |index: u8| self.from + (self.until - self.from) * f64::from(index) / 4.0;
        (0..5)
            .map(|index| Tick { x: self.place(part(index)), text: format!("{:.3} s", part(index)) })
            .collect()
    }
}

/// A moment on the monotonic clock, in seconds since the start.
pub(super) fn seconds(at_ns: u64, started_ns: u64) -> f64 {
    let ns = at_ns.cast_signed().wrapping_sub_unsigned(started_ns);
    #[expect(clippy::cast_precision_loss, reason = "a nanosecond more or less cannot be seen")]
    let seconds = ns as f64 / 1e9;
    seconds
}

/// The same, as it is written: to the microsecond.
pub(super) fn written(seconds: f64) -> String {
    format!("{seconds:.6}")
}
