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
    bisected: usize,
    broken: usize,
    not_here: usize,
}

impl Totals {
    /// Whether there is nothing to be looked at. `all`: no pair was left out.
    pub fn all_right(&self, all: bool) -> bool {
        self.near == self.pairs && self.bisected == self.pairs && (!all || self.first >= FIRST)
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
                self.bisected += usize::from(compared.bisected.is_ok());
            }
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pairs, first, near, bisected, broken, not_here } = self;
        write!(
            out,
            "{pairs} pairs: {first} ranked first, {near} within the first {NEAR}, {bisected} bisected rightly, {broken} broken; {not_here} not here"
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
            let fine = compared.bisected.is_ok() && compared.rank.is_some_and(|rank| rank <= NEAR);
            let rank = compared.rank.map_or("none".to_owned(), |rank| rank.to_string());
            let bisected = match &compared.bisected {
                Ok(said) | Err(said) => said.lines().next().unwrap_or_default(),
            };
            println!(
                "{:<6} {name:<24} {planted:<38} {rank:>4}  {bisected:<34} {:>4} {secs:>6.1}",
                if fine { "right" } else { "WRONG" },
                compared.runs
            );
        }
    }
}
