//! What goes wrong while modules are imported. Knows file look-ups, tracebacks and exit statuses.

use super::Rule;

/// The rules of this family.
pub(super) const RULES: &[Rule] = &[];
