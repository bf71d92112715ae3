//! What keeps workers from being started: the command, its arguments, the PID file, settings. Knows processes and exit statuses before log lines.

use super::Rule;

/// The rules of this family.
pub(super) const RULES: &[Rule] = &[];
