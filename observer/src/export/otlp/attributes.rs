//! Attributes as OTLP carries them. Knows its types; text of others comes in here and is made harmless and short.

use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, any_value::Value};

use crate::words::escape::escape;

/// Of one text this much is kept: a span of many must fit into a request.
const MOST_TEXT_BYTES: usize = 4 << 10;
/// Of one list so many are kept.
const MOST_WORDS: usize = 128;

/// What is said of a span, an event or a log record.
#[derive(Clone, Debug, Default)]
pub(super) struct Attributes {
    pub(super) all: Vec<KeyValue>,
    /// What was left out of lists.
    pub(super) dropped: u32,
}

impl Attributes {
    pub(super) fn new() -> Self {
        Self::default()
    }

    fn with(mut self, name: &str, value: Value) -> Self {
        let value = Some(AnyValue { value: Some(value) });
        self.all.push(KeyValue { key: name.to_owned(), value, ..KeyValue::default() });
        self
    }

    /// A text, when there is one.
    pub(super) fn text(self, name: &str, value: Option<impl AsRef<str>>) -> Self {
        match value {
            Some(value) => self.with(name, Value::StringValue(harmless(value.as_ref()))),
            None => self,
        }
    }

    /// A number, when there is one.
    pub(super) fn number(self, name: &str, value: Option<u64>) -> Self {
        match value {
            Some(value) => self.with(name, Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX))),
            None => self,
        }
    }

    /// A number that may be negative, when there is one.
    pub(super) fn signed(self, name: &str, value: Option<i64>) -> Self {
        match value {
            Some(value) => self.with(name, Value::IntValue(value)),
            None => self,
        }
    }

    /// A fraction.
    pub(super) fn fraction(self, name: &str, value: f64) -> Self {
        self.with(name, Value::DoubleValue(value))
    }

    /// That something is so; nothing when it is not.
    pub(super) fn flag(self, name: &str, is_so: bool) -> Self {
        if is_so { self.with(name, Value::BoolValue(true)) } else { self }
    }

    /// A list of texts; nothing when there are none.
    pub(super) fn texts(mut self, name: &str, values: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let mut values = values.into_iter();
        let kept: Vec<AnyValue> =
            values.by_ref().take(MOST_WORDS).map(|value| text_value(value.as_ref())).collect();
        let left_out = values.count();
        if kept.is_empty() {
            return self;
        }
        self.dropped += u32::from(left_out > 0);
        self.with(name, Value::ArrayValue(ArrayValue { values: kept }))
    }
}

/// A text as a value.
fn text_value(text: &str) -> AnyValue {
    AnyValue { value: Some(Value::StringValue(harmless(text))) }
}

/// A text of others: nothing in it is obeyed or hidden, and what is long is cut, which the `…` at its end says.
pub(super) fn harmless(text: &str) -> String {
    cut(escape(cut_at(text, MOST_TEXT_BYTES).0), MOST_TEXT_BYTES, text.len() > MOST_TEXT_BYTES)
}

fn cut(mut text: String, most: usize, is_cut: bool) -> String {
    let (kept, shorter) = cut_at(&text, most);
    let len = kept.len();
    text.truncate(len);
    if is_cut || shorter {
        text.push('…');
    }
    text
}

/// The beginning of a text, whole characters only, and whether something is missing.
fn cut_at(text: &str, most: usize) -> (&str, bool) {
    let end = text.floor_char_boundary(most);
    (text.get(..end).unwrap_or_default(), end < text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_harmless_and_bounded_and_say_that_they_are_cut() {
        assert_eq!(harmless("a\u{1b}[2J\u{202e}b"), "a\\x1b[2J\\u{202e}b");
        let long = harmless(&"\u{1}".repeat(MOST_TEXT_BYTES + 1));
        assert!(long.len() <= MOST_TEXT_BYTES + '…'.len_utf8() && long.ends_with('…'), "{}", long.len());
        assert_eq!(harmless(&"ä".repeat(MOST_TEXT_BYTES / 2)).chars().count(), MOST_TEXT_BYTES / 2);
        let many = Attributes::new().texts("words", (0..=MOST_WORDS).map(|word| word.to_string()));
        assert_eq!((many.all.len(), many.dropped), (1, 1));
        assert!(Attributes::new().texts("words", [""; 0]).all.is_empty());
        assert!(Attributes::new().text("absent", None::<&str>).number("absent", None).all.is_empty());
    }
}
