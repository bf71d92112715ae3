//! Messages that are refused or tried again. Knows settlements, and what dramatiq publishes beside them.

use super::Rule;

/// The rules of this family.
pub(super) const RULES: &[Rule] = &[];
