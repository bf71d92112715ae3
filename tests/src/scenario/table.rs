//! What came of the scenarios, as people read it. It judges nothing.

use std::collections::BTreeMap;

use super::file::Scenario;
use super::judge::{Outcome, word};
use super::run::Done;

/// How many scenarios came to what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals(BTreeMap<Outcome, usize>);

impl Totals {
    /// Whether there is nothing to be looked at.
    pub fn all_right(&self) -> bool {
        self.0.keys().all(|outcome| matches!(outcome, Outcome::Right | Outcome::NotYet | Outcome::NotHere))
    }

    fn of(&self, outcome: Outcome) -> usize {
        self.0.get(&outcome).copied().unwrap_or_default()
    }
}

impl std::fmt::Display for Totals {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            out,
            "{} right, {} wrong, {} undetermined, {} false alarms, {} not yet, {} not here",
            self.of(Outcome::Right),
            self.of(Outcome::Wrong),
            self.of(Outcome::Undetermined),
            self.of(Outcome::FalseAlarm),
            self.of(Outcome::NotYet),
            self.of(Outcome::NotHere)
        )?;
        match self.of(Outcome::Broken) {
            0 => Ok(()),
            broken => write!(out, "; {broken} could not be run to the end"),
        }
    }
}

/// Lines as they come, and the particulars of what is not right for the end.
pub(super) struct Table {
    name: usize,
    expected: usize,
    totals: Totals,
    odd: Vec<String>,
}

impl Table {
    /// Prints the heading.
    pub(super) fn new(scenarios: &[Scenario]) -> Self {
        let widest = |of: fn(&Scenario) -> usize| scenarios.iter().map(of).max().unwrap_or_default();
        let name = widest(|scenario| scenario.name.chars().count()).max(8);
        let expected = widest(|scenario| expected(scenario).chars().count()).max(8);
        println!(
            "{:<14} {:<name$}  {:<expected$}  {:<expected$}  conf   secs",
            "", "scenario", "expected", "concluded"
        );
        Self { name, expected, totals: Totals::default(), odd: Vec::new() }
    }

    /// Prints a line for one that will be tried once more, with what was concluded.
    pub(super) fn again(&self, scenario: &Scenario, done: &Done) {
        let concluded = &done.judgement.concluded;
        println!("{:<14} {:<name$}  {concluded}", "once more", scenario.name, name = self.name);
    }

    /// Prints a line.
    pub(super) fn add(&mut self, scenario: &Scenario, done: Done) {
        let mut judgement = done.judgement;
        if let (Some(why), false) = (&scenario.not_yet, judgement.outcome.is_fine()) {
            judgement.outcome = Outcome::NotYet;
            judgement.objections.push(format!("not yet: {why}"));
        }
        *self.totals.0.entry(judgement.outcome).or_default() += 1;
        let outcome = match judgement.outcome {
            Outcome::Right => "right",
            Outcome::Wrong => "WRONG",
            Outcome::Undetermined => "UNDETERMINED",
            Outcome::FalseAlarm => "FALSE ALARM",
            Outcome::Broken => "BROKEN",
            Outcome::NotYet => "NOT YET",
            Outcome::NotHere => "not here",
        };
        let concluded = match judgement.outcome {
            Outcome::NotHere => judgement.objections.join("; "),
            _ => judgement.concluded,
        };
        let confidence = judgement.confidence.map_or("–".into(), |confidence| format!("{confidence:.2}"));
        let line = format!(
            "{outcome:<14} {:<name$}  {:<wide$}  {concluded:<wide$}  {confidence:>4}  {:>5.1}",
            scenario.name,
            expected(scenario),
            done.took.as_secs_f64(),
            name = self.name,
            wide = self.expected,
        );
        println!("{line}");
        if matches!(judgement.outcome, Outcome::Right | Outcome::NotHere) {
            return;
        }
        let mut odd = format!("{outcome}: {}\n  {}", scenario.name, scenario.what);
        for objection in &judgement.objections {
            odd.push_str(&format!("\n  {}", objection.replace('\n', "\n    ")));
        }
        for part in ["title", "summary", "remedy"] {
            if let Some(text) = judgement.verdict[part].as_str() {
                odd.push_str(&format!("\n  {part:<8} {text}"));
            }
        }
        if let Some(left) = done.left {
            odd.push_str(&format!("\n  look: observer --state-dir {}/state explain run -v", left.display()));
        }
        self.odd.push(odd);
    }

    /// Prints what is to be looked at, and the totals.
    pub(super) fn finish(self) -> Totals {
        for odd in &self.odd {
            println!("\n{odd}");
        }
        println!("\n{}", self.totals);
        self.totals
    }
}

fn expected(scenario: &Scenario) -> String {
    word(&scenario.expect.code, scenario.expect.cause.as_deref())
}
