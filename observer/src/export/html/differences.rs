//! What differs from a run that works. Knows comparisons; ranks nothing.

use std::collections::BTreeSet;

use super::{
    conclusion::{self, Conclusion},
    text::Text,
};
use crate::{
    compare::{Comparison, run::Run},
    diagnose::{self, case::Case},
};

/// Differences shown.
const MOST: usize = 500;

/// One difference.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) rank: usize,
    pub(super) kind: String,
    pub(super) key: Text,
    pub(super) working: Text,
    pub(super) failing: Text,
    pub(super) why: Text,
}

/// All of them, and the other side.
#[derive(Debug)]
pub(super) struct Differences {
    pub(super) other: Text,
    pub(super) working: Conclusion,
    pub(super) parted: Text,
    pub(super) rows: Vec<Row>,
    pub(super) left_out: usize,
}

/// What differs.
pub(super) fn of(working: &Run, comparison: &Comparison) -> Differences {
    let case = Case::new(&working.header, working.ending.as_ref(), &working.model);
    let side = |value: &Option<String>| Text::of(value.as_deref().unwrap_or("(not there)"));
    let rows = comparison.differences.iter().take(MOST).map(|one| Row {
        rank: one.rank,
        kind: one.kind.name(),
        key: Text::of(&one.key),
        working: side(&one.working),
        failing: side(&one.failing),
        why: Text::of(&one.why),
    });
    Differences {
        other: Text::of(&working.header.name),
        // Its events are in its own session.
        working: conclusion::of(&case, &diagnose::explain(&case), &BTreeSet::new()),
        parted: comparison
            .first_divergence
            .as_ref()
            .map_or_else(Text::default, |parted| Text::of(&parted.text)),
        rows: rows.collect(),
        left_out: comparison.differences.len().saturating_sub(MOST),
    }
}
