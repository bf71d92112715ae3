//! What keeps a connection from being made, up to the first AMQP answer. Knows sockets and the first bytes of both sides.

use super::Rule;

/// The rules of this family.
pub(super) const RULES: &[Rule] = &[];
