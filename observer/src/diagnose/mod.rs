//! What happened → why. A pure function of a session: the same session gives the same answer. Knows the model; nothing of where events
//! come from, of files on disk, or of how an answer is shown.
//!
//! Each file but those of the frame, and what families share, holds the rules of one family. A rule concludes from positive evidence only: what was not
//! observed did not therefore not happen, and a worker that consumes is never called broken.

mod boot;
pub mod case;
pub mod catalogue;
mod connect;
mod declare;
mod deliver;
mod ends;
mod exec;
mod exits;
pub mod finding;
mod handshake;
mod import;
mod lost;
mod missing;
mod nothing;
mod orphans;
mod output;
mod peers;
mod process;
mod refusals;
mod setting;
mod settle;
mod shadow;
mod stopped;
mod verdict;
mod well;

use case::Case;
use finding::{Finding, Verdict};

/// A rule looks at a case and says what it found.
type Rule = fn(&Case<'_>, &mut Vec<Finding>);

/// Every rule, by family; their order is no precedence.
const RULES: &[&[Rule]] = &[
    boot::RULES,
    connect::RULES,
    declare::RULES,
    deliver::RULES,
    exec::RULES,
    exits::RULES,
    handshake::RULES,
    import::RULES,
    lost::RULES,
    nothing::RULES,
    orphans::RULES,
    output::RULES,
    process::RULES,
    setting::RULES,
    settle::RULES,
    stopped::RULES,
    well::RULES,
];

/// The answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// What is concluded.
    pub verdict: Verdict,
    /// All that was found, what counts most first. The verdict is the first, where there is one.
    pub findings: Vec<Finding>,
}

/// Explains a case.
pub fn explain(case: &Case<'_>) -> Explanation {
    let mut findings = Vec::new();
    for rule in RULES.iter().copied().flatten() {
        rule(case, &mut findings);
    }
    verdict::conclude(case, findings)
}
