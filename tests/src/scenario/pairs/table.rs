//! What came of the pairs, as people read it, and whether it is enough. It judges no pair.

use std::fmt;

use super::Done;

/// So many pairs must have what was planted in the first place, when all are run.
const FIRST: usize = 12;
/// And all must have it so far up.
pub(super) const NEAR: usize = 3;

/// How many pairs came to what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pairs: usize,
    first: usize,
    near: usize,
    asked: usize,
    bisected: usize,
    broken: usize,
    not_here: usize,
}

impl Totals {
    /// Whether there is nothing to be looked at. `all`: no pair was left out.
    pub fn all_right(&self, all: bool) -> bool {
        self.broken == 0
            && self.near == self.pairs
            && self.bisected == self.asked
            && (!all || self.first >= FIRST)
    }

    pub(super) fn add(&mut self, done: &Done) {
        match done {
            Done::NotHere(_) => self.not_here += 1,
            Done::Broken(_) => {
                self.pairs += 1;
                self.broken += 1;
            }
            Done::Compared(compared) => {
                self.pairs += 1;
                self.first += usize::from(compared.rank == Some(1));
                self.near += usize::from(compared.rank.is_some_and(|rank| rank <= NEAR));
                self.asked += usize::from(compared.bisected.is_some());
                self.bisected += usize::from(compared.bisected.as_ref().is_some_and(Result::is_ok));
            }
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pairs, first, near, asked, bisected, broken, not_here } = self;
        write!(
            out,
            "{pairs} pairs: {first} ranked first, {near} within the first {NEAR}, {bisected} of {asked} bisected rightly, {broken} broken; {not_here} not here"
        )
    }
}

/// Prints the heading.
pub(super) fn heading() {
    println!(
        "{:<6} {:<24} {:<38} {:>4}  {:<34} {:>4} {:>6}",
        "", "pair", "planted", "rank", "bisect", "runs", "secs"
    );
}

/// Prints a line.
pub(super) fn line(name: &str, planted: &str, done: &Done, secs: f64) {
    match done {
        Done::NotHere(why) => println!("{:<6} {name:<24} {planted:<38} not here: {why}", "-"),
        Done::Broken(_) => println!("{:<6} {name:<24} {planted:<38} BROKEN", "BROKEN"),
        Done::Compared(compared) => {
            let fine = compared.is_bisected_rightly() && compared.rank.is_some_and(|rank| rank <= NEAR);
            let rank = compared.rank.map_or("none".to_owned(), |rank| rank.to_string());
            let bisected = match &compared.bisected {
                Some(Ok(said) | Err(said)) => said.lines().next().unwrap_or_default(),
                None => "not asked",
            };
            println!(
                "{:<6} {name:<24} {planted:<38} {rank:>4}  {bisected:<34} {:>4} {secs:>6.1}",
                if fine { "right" } else { "WRONG" },
                compared.runs
            );
        }
    }
}
