//! The dramatiq message in a body: who is to run it and how often it was tried. Knows dramatiq's JSON encoding; nothing of AMQP.
//! Arguments are never kept.

mod mask;

pub use mask::{BodyMasker, mask_body};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The option that marks a canary. Options are the application's: dramatiq passes on those it does not know.
pub const CANARY: &str = "observer_canary";

/// A dramatiq message (dramatiq 2.2, `dramatiq/message.py`), without its arguments.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DramatiqMessage {
    /// Its identifier, a UUID. It stays the same when the message is retried.
    pub message_id: Option<String>,
    /// The actor to run.
    pub actor_name: Option<String>,
    /// The queue it was sent to; a delayed message's ends in `.DQ`.
    pub queue_name: Option<String>,
    /// When it was made, in milliseconds since 1970, by the sender's clock.
    pub message_timestamp_ms: Option<u64>,
    /// How often it was retried.
    pub retries: Option<u64>,
    /// When it is due, in milliseconds since 1970.
    pub eta_ms: Option<u64>,
    /// How old it may get before it is thrown away, in milliseconds.
    pub max_age_ms: Option<u64>,
    /// How long it may run, in milliseconds.
    pub time_limit_ms: Option<u64>,
    /// The last failure's traceback.
    pub traceback: Option<String>,
    /// Whether `observer send` sent it (or it is a retry of one that it sent).
    pub is_canary: bool,
    /// The body was cut off: what is missing here may have been in the rest.
    pub is_partial: bool,
}

/// Why a body is not a dramatiq message. Never quotes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum Undecodable {
    /// There is nothing in it.
    #[error("the body is empty")]
    Empty,
    /// It is not JSON: pickled, compressed, encrypted or another encoder's.
    #[error("the body is not JSON (line {line}, column {column})")]
    NotJson {
        /// Line of the first error, from 1.
        line: usize,
        /// Column of the first error, from 1.
        column: usize,
    },
    /// It is JSON of another shape: Celery's, for one.
    #[error("the body is JSON, but not an object")]
    NotAnObject,
    /// It is a JSON object that names no actor.
    #[error("the body is a JSON object without an actor_name")]
    NoActor,
}

impl DramatiqMessage {
    /// Decodes a body. `is_whole` is false for one of which only the beginning was captured: its whole members are then read.
    ///
    /// Reads bodies that went through [`BodyMasker`] as well.
    ///
    /// # Errors
    /// When the body is no dramatiq message.
    pub fn decode(body: &[u8], is_whole: bool) -> Result<Self, Undecodable> {
        let Some(first) = body.iter().find(|byte| !byte.is_ascii_whitespace()) else {
            return Err(Undecodable::Empty);
        };
        if is_whole || *first != b'{' {
            return Self::from_json(body);
        }
        let end = usize::try_from(mask::whole_members(body)).unwrap_or(body.len());
        let mut members = body.get(..end).unwrap_or(body).to_vec();
        if end == 0 {
            members.push(b'{');
        }
        members.push(b'}');
        let message = Self::from_json(&members);
        message.map(|message| Self { is_partial: true, ..message })
    }

    fn from_json(body: &[u8]) -> Result<Self, Undecodable> {
        let raw: Raw = serde_json::from_slice(body).map_err(|error| {
            // A sound value of the wrong shape; the error's own text would quote it.
            if error.is_data() {
                Undecodable::NotAnObject
            } else {
                Undecodable::NotJson { line: error.line(), column: error.column() }
            }
        })?;
        let text = |value: Option<Value>| value.and_then(|value| value.as_str().map(str::to_owned));
        let option = |name: &str| raw.options.as_ref().and_then(|options| options.get(name));
        let message = Self {
            retries: option("retries").and_then(Value::as_u64),
            eta_ms: option("eta").and_then(Value::as_u64),
            max_age_ms: option("max_age").and_then(Value::as_u64),
            time_limit_ms: option("time_limit").and_then(Value::as_u64),
            traceback: option("traceback").and_then(Value::as_str).map(str::to_owned),
            is_canary: option(CANARY).and_then(Value::as_bool) == Some(true),
            message_id: text(raw.message_id),
            actor_name: text(raw.actor_name),
            queue_name: text(raw.queue_name),
            message_timestamp_ms: raw.message_timestamp.and_then(|value| value.as_u64()),
            is_partial: false,
        };
        if message.actor_name.is_none() { Err(Undecodable::NoActor) } else { Ok(message) }
    }
}

/// The members that are read; of any type, so that one odd member does not cost the others.
#[derive(Default)]
struct Raw {
    message_id: Option<Value>,
    actor_name: Option<Value>,
    queue_name: Option<Value>,
    message_timestamp: Option<Value>,
    options: Option<Value>,
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> serde::de::Visitor<'de> for Members {
            type Value = Raw;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            // By hand, because the last of two equal keys counts in Python's json, and a derived reader refuses them.
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
                let mut raw = Raw::default();
                while let Some(key) = map.next_key::<String>()? {
                    let slot = match key.as_str() {
                        "message_id" => &mut raw.message_id,
                        "actor_name" => &mut raw.actor_name,
                        "queue_name" => &mut raw.queue_name,
                        "message_timestamp" => &mut raw.message_timestamp,
                        "options" => &mut raw.options,
                        _ => {
                            map.next_value::<serde::de::IgnoredAny>()?;
                            continue;
                        }
                    };
                    *slot = Some(map.next_value()?);
                }
                Ok(raw)
            }
        }
        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests;
