//! AMQP field tables and message properties as people write them. Knows values, nothing of methods.
//!
//! Displayed text is safe on a terminal: control characters are escaped. The serialised text is as it was sent.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::Arc,
};

use amq_protocol::{
    protocol::basic::AMQPProperties,
    types::{AMQPValue, FieldTable},
};
use serde::{Deserialize, Serialize};

/// A field table; displays as `{x-dead-letter-exchange: "", x-max-priority: 10}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Table(pub BTreeMap<String, Value>);

/// Tables that are the same, once in memory: each of the thousand connections of one program tells the same of itself.
#[derive(Clone, Debug, Default)]
pub struct SharedTables(VecDeque<Arc<Table>>);

impl SharedTables {
    /// Different tables that are remembered.
    const MOST: usize = 64;

    /// Has `table` be the one that equals it, if there was one lately.
    pub fn share(&mut self, table: &mut Arc<Table>) {
        if let Some(known) = self.0.iter().find(|known| *known == table) {
            *table = Arc::clone(known);
            return;
        }
        if self.0.len() >= Self::MOST {
            self.0.pop_front();
        }
        self.0.push_back(Arc::clone(table));
    }
}

/// A field value. Integers of every width are one kind: brokers and clients differ in the widths they choose.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// No value.
    Void,
    /// A boolean.
    Boolean(bool),
    /// Any integer, or a timestamp in seconds since 1970.
    Integer(i64),
    /// A floating point number, or a decimal.
    Float(f64),
    /// A string.
    Text(String),
    /// A list.
    Array(Vec<Value>),
    /// A table inside a table.
    Table(Table),
    /// Bytes that are not UTF-8.
    Bytes {
        /// The bytes.
        bytes: Vec<u8>,
    },
}

impl Table {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// The text of a key, when it has one.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Whether it has no keys.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&FieldTable> for Table {
    fn from(table: &FieldTable) -> Self {
        Self(table.into_iter().map(|(key, value)| (key.to_string(), value.into())).collect())
    }
}

impl From<&AMQPValue> for Value {
    fn from(value: &AMQPValue) -> Self {
        match value {
            AMQPValue::Boolean(value) => Self::Boolean(*value),
            AMQPValue::ShortShortInt(value) => Self::Integer((*value).into()),
            AMQPValue::ShortShortUInt(value) => Self::Integer((*value).into()),
            AMQPValue::ShortInt(value) => Self::Integer((*value).into()),
            AMQPValue::ShortUInt(value) => Self::Integer((*value).into()),
            AMQPValue::LongInt(value) => Self::Integer((*value).into()),
            AMQPValue::LongUInt(value) => Self::Integer((*value).into()),
            AMQPValue::LongLongInt(value) => Self::Integer(*value),
            AMQPValue::Timestamp(value) => Self::Integer(i64::try_from(*value).unwrap_or(i64::MAX)),
            AMQPValue::Float(value) => Self::Float((*value).into()),
            AMQPValue::Double(value) => Self::Float(*value),
            AMQPValue::DecimalValue(value) => {
                Self::Float(f64::from(value.value) / 10_f64.powi(i32::from(value.scale)))
            }
            AMQPValue::ShortString(value) => Self::Text(value.to_string()),
            AMQPValue::LongString(value) => bytes(value.as_bytes()),
            AMQPValue::ByteArray(value) => bytes(value.as_slice()),
            AMQPValue::FieldArray(values) => Self::Array(values.as_slice().iter().map(Self::from).collect()),
            AMQPValue::FieldTable(table) => Self::Table(table.into()),
            AMQPValue::Void => Self::Void,
        }
    }
}

fn bytes(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::Text(text.to_owned()),
        Err(_) => Value::Bytes { bytes: bytes.to_vec() },
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, (key, value)) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{}: {value}", Escaped(key))?;
        }
        f.write_str("}")
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Void => f.write_str("null"),
            Self::Boolean(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::Float(value) => value.fmt(f),
            Self::Text(text) => Quoted(text).fmt(f),
            Self::Bytes { bytes } => write!(f, "<{} bytes>", bytes.len()),
            Self::Table(table) => table.fmt(f),
            Self::Array(values) => {
                f.write_str("[")?;
                for (i, value) in values.iter().enumerate() {
                    let comma = if i == 0 { "" } else { ", " };
                    write!(f, "{comma}{value}")?;
                }
                f.write_str("]")
            }
        }
    }
}

/// Text with its control characters, and those that reorder or hide text, escaped.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.chars() {
            match char {
                // Bidirectional controls, zero-width characters and line separators.
                '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{FEFF}' => {
                    write!(f, "{}", char.escape_unicode())?;
                }
                char if char.is_control() => write!(f, "{}", char.escape_default())?,
                char => write!(f, "{char}")?,
            }
        }
        Ok(())
    }
}

/// The same in double quotes.
pub(super) struct Quoted<'a>(pub(super) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", Escaped(&self.0.replace('\\', "\\\\").replace('"', "\\\"")))
    }
}

/// A message's properties (AMQP 0-9-1, 1.8.1); each is there only when it was sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Properties {
    /// MIME type of the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Encoding of the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_encoding: Option<String>,
    /// The application's headers; `x-death` for one.
    #[serde(skip_serializing_if = "Table::is_empty")]
    pub headers: Table,
    /// 1 transient, 2 persistent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery_mode: Option<u8>,
    /// Priority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// Correlation identifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// Queue to reply to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<String>,
    /// Time to live, in milliseconds, as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration: Option<String>,
    /// The application's identifier of the message. dramatiq sets none: its own is in the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// When it was sent, in seconds since 1970, by the sender's account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<u64>,
    /// The application's type of the message.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub message_type: Option<String>,
    /// The sending user, checked by the broker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// The sending application.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_id: Option<String>,
}

impl From<&AMQPProperties> for Properties {
    fn from(properties: &AMQPProperties) -> Self {
        let text = |value: &Option<amq_protocol::types::ShortString>| value.as_ref().map(ToString::to_string);
        Self {
            content_type: text(properties.content_type()),
            content_encoding: text(properties.content_encoding()),
            headers: properties.headers().as_ref().map(Table::from).unwrap_or_default(),
            delivery_mode: *properties.delivery_mode(),
            priority: *properties.priority(),
            correlation_id: text(properties.correlation_id()),
            reply_to: text(properties.reply_to()),
            expiration: text(properties.expiration()),
            message_id: text(properties.message_id()),
            timestamp: *properties.timestamp(),
            message_type: text(properties.kind()),
            user_id: text(properties.user_id()),
            app_id: text(properties.app_id()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_that_are_the_same_are_one_and_few_are_remembered() {
        let table = |text: &str| {
            Arc::new(Table([("product".to_owned(), Value::Text(text.to_owned()))].into_iter().collect()))
        };
        let mut shared = SharedTables::default();
        let (mut first, mut second, mut other) = (table("a"), table("a"), table("b"));
        for table in [&mut first, &mut second, &mut other] {
            shared.share(table);
        }
        assert!(Arc::ptr_eq(&first, &second) && !Arc::ptr_eq(&first, &other));
        for number in 0..200 {
            shared.share(&mut table(&number.to_string()));
        }
        assert_eq!(shared.0.len(), SharedTables::MOST);
    }
}
