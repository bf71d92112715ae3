//! A comparison as text, the answer on the first screen, and as JSON. Knows comparisons; ranks nothing.

use std::io::{self, Write};

use serde::Serialize;

use crate::{
    compare::{Comparison, Difference, Divergence, run::Run},
    render::style::{BAD, DIM, GOOD, Line, PLAIN, STRONG},
    words,
};

const MAX_COLUMNS: usize = 100;
const MIN_COLUMNS: usize = 40;
/// Differences on the first screen: three lines each.
const FIRST: usize = 6;

/// Writes a comparison; without `all` only the likeliest differences.
///
/// # Errors
/// When the stream cannot be written.
pub fn write(
    out: &mut impl Write,
    working: &Run,
    failing: &Run,
    comparison: &Comparison,
    columns: usize,
    all: bool,
) -> io::Result<()> {
    let columns = columns.clamp(MIN_COLUMNS, MAX_COLUMNS);
    let mut lines = Vec::new();
    match comparison.differences.first() {
        Some(first) => {
            let what = format!("{} {}", first.kind.name(), first.key);
            lines.push(
                Line::new()
                    .with(STRONG, "likeliest  ")
                    .with(BAD, what)
                    .with(PLAIN, format!(": {}", first.why)),
            );
        }
        None => lines.push(Line::new().with(GOOD, "no difference was seen")),
    }
    if let Some(parted) = &comparison.first_divergence {
        lines.push(Line::new().with(STRONG, "parted     ").with(PLAIN, &parted.text));
        let event = |event: Option<u64>| event.map_or("none".to_owned(), |event| event.to_string());
        let events = format!("           events {} and {}", event(parted.working), event(parted.failing));
        lines.push(Line::new().with(DIM, events));
    }
    let shown = if all { comparison.differences.len() } else { FIRST };
    for one in comparison.differences.iter().take(shown) {
        lines.push(
            Line::new()
                .with(DIM, format!("{:>3}  ", one.rank))
                .with(STRONG, format!("{} {}", one.kind.name(), one.key))
                .with(DIM, format!("  {}", one.why)),
        );
        let side = |style, name: &str, value: &Option<String>| {
            Line::new()
                .with(DIM, format!("     {name:<8} "))
                .with(style, value.as_deref().unwrap_or("(not there)"))
        };
        lines.push(side(GOOD, "working", &one.working));
        lines.push(side(BAD, "failing", &one.failing));
    }
    let more = comparison.differences.len().saturating_sub(shown);
    if more > 0 {
        let name = |run: &Run| words::command(std::slice::from_ref(&run.header.name));
        let text =
            format!("… {more} less likely; all: observer diff {} {} --all", name(working), name(failing));
        lines.push(Line::new().with(DIM, text));
    }
    lines.iter().try_for_each(|line| line.write(out, (!all).then_some(columns)))
}

/// The comparison as a document of schema `observer.diff/1`.
pub fn document<'a>(working: &'a Run, failing: &'a Run, comparison: &'a Comparison) -> impl Serialize + 'a {
    Document {
        schema: "observer.diff/1",
        working: About::of(working),
        failing: About::of(failing),
        first_divergence: comparison.first_divergence.as_ref(),
        differences: &comparison.differences,
    }
}

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    working: About<'a>,
    failing: About<'a>,
    first_divergence: Option<&'a Divergence>,
    differences: &'a [Difference],
}

#[derive(Serialize)]
struct About<'a> {
    id: &'a str,
    name: &'a str,
    command: &'a [String],
    started_at: &'a str,
}

impl<'a> About<'a> {
    fn of(run: &'a Run) -> Self {
        let header = &run.header;
        Self { id: &header.id, name: &header.name, command: &header.command, started_at: &header.started_at }
    }
}
