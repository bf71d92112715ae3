//! Processes that are gone: killed, crashed, out of memory, ended without a word, and orphans. Knows wait statuses and signals before log lines.

use super::Rule;

/// The rules of this family.
pub(super) const RULES: &[Rule] = &[];
