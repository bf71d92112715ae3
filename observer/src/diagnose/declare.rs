//! What goes wrong with queues and consumers: arguments, permissions, exclusive use, deletion. Knows reply codes.

use super::Rule;

/// The rules of this family.
pub(super) const RULES: &[Rule] = &[];
