//! What waits for its answer on a channel, by number. Knows places of messages; nothing of what is waited for.

use std::collections::BTreeMap;

use super::message::Place;

/// Deliveries without settlement, and publishes without confirm, that one channel may have; beyond so many the oldest is forgotten. A
/// consumer without a prefetch limit that never acknowledges would else grow without end.
const MAX_WAITING: usize = 100_000;

/// What waits for an answer on one channel, by delivery tag or publish number.
#[derive(Clone, Debug, Default)]
pub(super) struct Waiting {
    pub(super) places: BTreeMap<u64, Place>,
    /// Up to here, some were forgotten.
    pub(super) forgotten_to: u64,
}

impl Waiting {
    /// Puts one in; answers the one that was forgotten for it.
    pub(super) fn insert(&mut self, tag: u64, place: Place) -> Option<Place> {
        self.places.insert(tag, place);
        if self.places.len() <= MAX_WAITING {
            return None;
        }
        let (tag, place) = self.places.pop_first()?;
        self.forgotten_to = self.forgotten_to.max(tag);
        Some(place)
    }

    /// Takes one, or all up to it (0: all, as AMQP 0-9-1 says of `multiple`).
    pub(super) fn take(&mut self, tag: u64, multiple: bool) -> Vec<Place> {
        if !multiple {
            return self.places.remove(&tag).into_iter().collect();
        }
        let after = if tag == 0 { BTreeMap::new() } else { self.places.split_off(&(tag.saturating_add(1))) };
        std::mem::replace(&mut self.places, after).into_values().collect()
    }
}
