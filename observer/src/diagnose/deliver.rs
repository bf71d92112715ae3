//! Messages that do not come: other queues, other consumers, not yet due, alarms. Knows the broker's account beside the worker's.

use super::Rule;

/// The rules of this family.
pub(super) const RULES: &[Rule] = &[];
