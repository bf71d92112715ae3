//! An event as one flat JSON object. Knows events only.
//!
//! Fields: `id`, `since_start_ns` (negative when it began before the session), then the event's own: `at_ns`, `pid`, `tid`,
//! `observed_from`, `kind` and the fields of that kind. `data` and `output` add `bytes`: `{"text": …}` when the bytes kept are
//! UTF-8, else `{"base64": …}`, so that they can always be had back exactly.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Serialize;

use crate::event::{Body, Event};

/// An event and what the session knows about it, ready to be serialised.
#[derive(Debug, Serialize)]
pub struct Record<'a> {
    id: u64,
    since_start_ns: i64,
    #[serde(flatten)]
    event: &'a Event,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<Bytes<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Bytes<'a> {
    Text(&'a str),
    Base64(String),
}

impl<'a> Record<'a> {
    /// The record of an event with this id, in a session that began at `started_ns`.
    pub fn new(id: u64, event: &'a Event, started_ns: u64) -> Self {
        let carries = matches!(event.body, Body::Data { .. } | Body::Output { .. });
        let bytes = carries.then(|| match std::str::from_utf8(&event.bytes) {
            Ok(text) => Bytes::Text(text),
            Err(_) => Bytes::Base64(STANDARD.encode(&event.bytes)),
        });
        Self { id, since_start_ns: event.at_ns.cast_signed().wrapping_sub_unsigned(started_ns), event, bytes }
    }
}
