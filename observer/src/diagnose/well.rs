//! What went well: healthy, idle, stopped. Concludes only where nothing speaks against it.

use super::Rule;

/// The rules of this family.
pub(super) const RULES: &[Rule] = &[];
