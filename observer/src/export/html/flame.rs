//! Imports as flames: each module a bar as long as it took, inside of the one that imported it. Knows the model's trees of imports.

use std::collections::BTreeMap;

use super::{
    scale::{Scale, Tick, seconds},
    text::Text,
    timeline::{Bar, bar},
};
use crate::{
    diagnose::case::Case,
    event::Tid,
    model::modules::{Module, Program},
    words::units,
};

/// Programs drawn, modules drawn of one (the longest), and how deep.
const MOST_PROGRAMS: usize = 12;
const MOST_MODULES: usize = 500;
const DEEPEST: usize = 40;
/// Height of a bar.
const ROW: usize = 17;
const TOP: usize = 20;

/// A program's imports.
#[derive(Debug)]
pub(super) struct Flame {
    pub(super) name: Text,
    pub(super) about: Text,
    pub(super) from: String,
    pub(super) until: String,
    pub(super) height: usize,
    pub(super) ticks: Vec<Tick>,
    pub(super) bars: Vec<Block>,
    /// The longest by themselves, as text.
    pub(super) longest: Vec<(Text, String, String)>,
}

/// A module.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) bar: Bar,
    pub(super) y: usize,
    pub(super) name: Text,
    pub(super) event: Option<u64>,
    pub(super) failed: bool,
    /// One of four shades, the same for a package wherever it is.
    pub(super) shade: usize,
}

/// All programs.
#[derive(Debug)]
pub(super) struct Flames {
    pub(super) programs: Vec<Flame>,
    pub(super) left_out: usize,
}

/// Draws them; `there` says whether an event is on the page.
pub(super) fn of(case: &Case<'_>, there: impl Fn(u64) -> bool) -> Flames {
    let timed = |program: &&Program| program.modules.iter().any(|module| module.total_ns().is_some());
    let mut programs: Vec<&Program> = case.model.modules.programs().filter(timed).collect();
    programs.sort_by_key(|program| std::cmp::Reverse(program.modules.len()));
    let left_out = programs.len().saturating_sub(MOST_PROGRAMS);
    programs.truncate(MOST_PROGRAMS);
    programs.sort_by_key(|program| (program.since_ns, program.pid));
    Flames { programs: programs.into_iter().map(|program| flame(case, program, &there)).collect(), left_out }
}

fn flame(case: &Case<'_>, program: &Program, there: &impl Fn(u64) -> bool) -> Flame {
    let started_ns = case.header.started_ns;
    let mut timed: Vec<&Module> =
        program.modules.iter().filter(|module| module.total_ns().is_some()).collect();
    let all = timed.len();
    let unknown = program.modules.len() - all;
    timed.sort_by_key(|module| std::cmp::Reverse(module.total_ns()));
    let first_ns = timed.iter().map(|module| module.start_ns).min().unwrap_or(started_ns);
    let last_ns = timed.iter().filter_map(|module| module.end_ns).max().unwrap_or(first_ns);
    let scale = Scale::new(seconds(first_ns, started_ns), seconds(last_ns, started_ns));
    let mut shown: Vec<&Module> =
        timed.iter().copied().filter(|module| module.depth < DEEPEST).take(MOST_MODULES).collect();
    // In the order of time: that is how it is read aloud.
    shown.sort_by_key(|module| (module.start_ns, module.depth));
    // Each thread has rows of its own.
    let mut rows: BTreeMap<Tid, usize> = BTreeMap::new();
    for module in &shown {
        let deepest = rows.entry(module.tid).or_default();
        *deepest = (*deepest).max(module.depth + 1);
    }
    let mut height = TOP;
    for row in rows.values_mut() {
        let deep = std::mem::replace(row, height);
        height += deep * ROW + 6;
    }
    let block = |module: &&Module| {
        let total = units::duration(module.total_ns().unwrap_or(0));
        let own = units::duration(module.self_ns().unwrap_or(0));
        let failed = module.loaded == Some(false);
        let how = if failed {
            format!(", failed with {}", module.exception.as_deref().unwrap_or("an exception"))
        } else {
            String::new()
        };
        let file = module.file.as_deref().map_or(String::new(), |file| format!(", {file}"));
        let title = Text::of(format!("{}: {total}, {own} of it itself{how}{file}", module.name));
        let (from, until) = (
            seconds(module.start_ns, started_ns),
            seconds(module.end_ns.unwrap_or(module.start_ns), started_ns),
        );
        let package = module.name.split('.').next().unwrap_or_default();
        Block {
            bar: bar(scale, from, until, title),
            y: rows.get(&module.tid).copied().unwrap_or(TOP) + module.depth * ROW,
            name: Text::of(if failed { format!("✗ {}", module.name) } else { module.name.clone() }),
            event: Some(module.event).filter(|event| there(*event)),
            failed,
            shade: package.bytes().map(usize::from).sum::<usize>() % 4,
        }
    };
    let bars: Vec<Block> = shown.iter().map(block).collect();
    timed.sort_by_key(|module| std::cmp::Reverse(module.self_ns()));
    let longest = timed.iter().take(10).map(|module| {
        let took = |ns: Option<u64>| units::duration(ns.unwrap_or(0));
        (Text::of(&module.name), took(module.self_ns()), took(module.total_ns()))
    });
    let mut about = format!("{} timed", units::counted(all as u64, "module"));
    for (count, what) in [
        (all - bars.len(), "shorter ones not drawn"),
        (unknown, "inferred from files or without an end, not drawn"),
        (usize::try_from(program.left_out).unwrap_or(usize::MAX), "not kept"),
    ] {
        if count > 0 {
            about.push_str(&format!(", {count} {what}"));
        }
    }
    Flame {
        name: Text::of(format!("process {} ({})", program.pid, case.role(program.pid).name())),
        about: Text::of(about),
        from: super::scale::written(scale.from),
        until: super::scale::written(scale.until),
        height: height + 4,
        ticks: scale.ticks(),
        longest: longest.collect(),
        bars,
    }
}
