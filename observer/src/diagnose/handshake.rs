//! What a broker refuses before a channel is open: credentials, virtual host, limits. Knows reply codes.

use super::Rule;

/// The rules of this family.
pub(super) const RULES: &[Rule] = &[];
