//! What a process held when it ended: messages that were delivered to it and not settled. Knows messages; nothing of why it ended.

use super::mark::Mark;

/// Of one process so many are kept, the oldest.
pub(super) const MAX_HELD: usize = 8;

/// A message that was delivered and not settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsettled {
    /// Its identifier.
    pub message_id: Option<String>,
    /// What was to be run.
    pub actor: Option<String>,
    /// The queue.
    pub queue: Option<String>,
    /// When it came.
    pub delivered: Mark,
}

/// All that a process held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// How many.
    pub count: u64,
    /// The oldest of them, in the order they came.
    pub oldest: Vec<Unsettled>,
}
