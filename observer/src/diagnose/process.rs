//! Messages that are held and not dealt with: blocked actors, full pipes, stopped processes. Knows thread states before words.

use super::Rule;

/// The rules of this family.
pub(super) const RULES: &[Rule] = &[];
