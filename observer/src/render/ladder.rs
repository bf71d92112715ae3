//! Ladders as text: one line a process, one rung a word. Knows the model; decides nothing.

use crate::{
    event::Pid,
    model::ladder::{Ladder, Rung, Step},
    render::style::{DIM, GOOD, Line, NAME, ODD, PLAIN},
    words::units,
};

/// A ladder in a line or two of so many columns: `3864 worker exec ✓ boot ✓ … deliver –`. `✓` reached, `–` not reached, `?` not
/// observable.
pub fn fitted(ladder: &Ladder, columns: usize) -> Vec<Line> {
    let mut line = Line::new().with(NAME, format!("{} ", ladder.pid)).with(PLAIN, ladder.role);
    let mut lines = Vec::new();
    for step in &ladder.rungs {
        let (style, sign) = sign(step);
        let word = format!(" {} {sign}", step.rung.name());
        if line.width() + word.chars().count() > columns && lines.is_empty() {
            lines.push(std::mem::replace(&mut line, Line::new().with(PLAIN, " ")));
        }
        line.push(style, word);
    }
    lines.push(line);
    lines
}

/// The style and the sign of a rung.
pub(crate) const fn sign(step: &Step) -> (anstyle::Style, &'static str) {
    match step.reached {
        Some(true) => (GOOD, "✓"),
        Some(false) => (ODD, "–"),
        None => (DIM, "?"),
    }
}

/// A ladder with a line for each rung: when it was reached, and by which event.
pub fn lines(ladder: &Ladder, started_ns: u64) -> Vec<Line> {
    let mut lines = vec![Line::new().with(NAME, format!("{} ", ladder.pid)).with(PLAIN, ladder.role)];
    for step in &ladder.rungs {
        let (style, sign) = sign(step);
        let mut line = Line::new().with(style, format!("  {sign} {:<10}", step.rung.name()));
        match step.reached {
            Some(true) => {
                let at = step.at_ns.map_or(String::new(), |at_ns| units::moment(at_ns, started_ns));
                line.push(PLAIN, format!("{at:>12}"));
                line.push(DIM, step.event.map_or(String::new(), |event| format!("  event {event}")));
            }
            Some(false) => drop(line.push(PLAIN, " not reached")),
            None => drop(line.push(DIM, " not observable")),
        }
        if let Some(why) = &step.why {
            line.push(DIM, format!(" ({why})"));
        }
        lines.push(line);
    }
    lines
}

/// That a process has reached a rung.
pub fn news(pid: Pid, rung: Rung, at_ns: u64, started_ns: u64) -> Line {
    Line::new()
        .with(DIM, format!("{:>12} ", units::moment(at_ns, started_ns)))
        .with(NAME, format!(" {:<15} ", pid.to_string()))
        .with(GOOD, format!("ladder     ✓ {}", rung.name()))
}
