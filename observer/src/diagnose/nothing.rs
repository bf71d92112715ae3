//! Workers that live and never try to connect: no queue, another broker, a filter. Knows threads, imports and the absence of connections.

use super::Rule;

/// The rules of this family.
pub(super) const RULES: &[Rule] = &[];
