//! Connections that were there and are gone: heartbeats, consumer time-outs, resets. Knows both ends' last words.

use super::Rule;

/// The rules of this family.
pub(super) const RULES: &[Rule] = &[];
