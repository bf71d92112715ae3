//! A session, and an event as one flat JSON object. Knows sessions and events only.
//!
//! Fields: `id`, `since_start_ns` (negative when it began before the session), then the event's own: `at_ns`, `pid`, `tid`,
//! `observed_from`, `kind` and the fields of that kind. `data` and `output` add `bytes`: `{"text": …}` when the bytes kept are
//! UTF-8, else `{"base64": …}`, so that they can always be had back exactly.
//!
//! JSON lets DEL, C1 and bidirectional overrides stand in strings as they are. It may be read on a terminal, so here they are written
//! as `\u009b`: the same text for a program, harmless for a person.

use std::{
    fmt::Write as _,
    io::{self, Write},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::ser::Formatter;

use crate::{
    event::{Body, Event},
    session::{Ending, Header, Session},
    words::escape,
};

/// A session and how it ended, ready to be serialised: the fields of the header, and `ending`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Described<'a> {
    #[serde(flatten)]
    header: &'a Header,
    ending: Option<Ending>,
}

impl<'a> Described<'a> {
    /// What is known of a session.
    pub fn new(session: &'a Session) -> Self {
        Self { header: session.header(), ending: session.ending() }
    }
}

/// An event and what the session knows about it, ready to be serialised.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Record<'a> {
    id: u64,
    since_start_ns: i64,
    #[serde(flatten)]
    event: &'a Event,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<Bytes<'a>>,
}

#[derive(Debug, Serialize, JsonSchema)]
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

/// Writes a value as JSON on one line, with every character a terminal obeys escaped.
///
/// # Errors
/// When the stream cannot be written, with its own error.
pub fn write(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    value.serialize(&mut serde_json::Serializer::with_formatter(out, Harmless)).map_err(io::Error::from)
}

/// A value as JSON on indented lines, with every character a terminal obeys escaped, and a last newline.
///
/// # Errors
/// When the value cannot be written as JSON.
pub fn pretty(value: &impl Serialize) -> serde_json::Result<String> {
    let json = serde_json::to_string_pretty(value)?;
    let mut harmless = String::with_capacity(json.len() + 1);
    for c in json.chars() {
        // Strings hold no raw newline: those that are here are the indentation's.
        if c == '\n' || escape::is_plain(c) {
            harmless.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(harmless, "\\u{unit:04x}");
            }
        }
    }
    harmless.push('\n');
    Ok(harmless)
}

struct Harmless;

impl Formatter for Harmless {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| !escape::is_plain(*c)) {
            let (plain, after) = rest.split_at(at);
            out.write_all(plain.as_bytes())?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}")?;
            }
            rest = after.get(c.len_utf8()..).unwrap_or_default();
        }
        out.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_says_the_same_and_holds_nothing_a_terminal_obeys(text in "[\u{0}-\u{ff}\u{2020}-\u{2070}\u{e0000}-\u{e007f}]{0,40}") {
            let mut out = Vec::new();
            write(&mut out, &[&text]).unwrap();
            let json = String::from_utf8(out).unwrap();
            prop_assert!(json.chars().all(escape::is_plain), "{json}");
            prop_assert_eq!(serde_json::from_str::<[String; 1]>(&json).unwrap(), [text]);
        }
    }
}
