//! Where two runs first did different things. Knows steps in words that compare; nothing of what they mean.

use super::{
    Divergence,
    run::{Run, Step},
};

/// A divergence and how much the failing run had done by then.
pub(super) struct Found {
    pub(super) found: Divergence,
    /// When the failing run got there, in nanoseconds on its own clock; the end of its lane when it did nothing more.
    pub(super) failing_ns: u64,
}

/// The first divergence. Processes of one role are compared with each other; of several roles the one that parted earliest counts.
pub(super) fn first(working: &Run, failing: &Run) -> Option<Found> {
    let roles = ["program", "master", "worker", "fork"];
    let lanes = roles.into_iter().filter_map(|role| {
        let (empty, other) = (Vec::new(), Vec::new());
        let (a, b) = (working.steps.get(role).unwrap_or(&empty), failing.steps.get(role).unwrap_or(&other));
        lane(role, a, b)
    });
    lanes.min_by_key(|found| found.failing_ns)
}

fn lane(role: &str, working: &[Step], failing: &[Step]) -> Option<Found> {
    // What threads do beside each other comes in any order: a step counts as missing when the other run never does it.
    let never = |steps: &[Step], what: &str| !steps.iter().any(|step| step.what == what);
    let mut in_order = working.iter().zip(failing);
    let at = in_order.position(|(a, b)| a.what != b.what).unwrap_or(working.len().min(failing.len()));
    let a = working.get(at..)?.iter().find(|step| never(failing, &step.what));
    let b = failing.get(at..)?.iter().find(|step| never(working, &step.what));
    if a.is_none() && b.is_none() {
        return None;
    }
    let say = |step: Option<&Step>| step.map_or("does nothing more".to_owned(), |step| step.what.clone());
    let text = format!("the {role} that works {}; the one that fails {}", say(a), say(b));
    let failing_ns = b.or_else(|| failing.last()).map_or(u64::MAX, |step| step.at_ns);
    Some(Found {
        found: Divergence { working: a.map(|step| step.event), failing: b.map(|step| step.event), text },
        failing_ns,
    })
}
