//! AMQP tables → JSON, and back to what RabbitMQ's event exchange wrote as Erlang terms. Knows values; nothing of what they mean.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Value, json};

/// Nested deeper, a value is left out: no broker needs it, and a hostile client could send thousands of levels.
const DEPTH: usize = 8;

/// A table's fields. Values that are named like secrets are left out.
pub(super) fn facts(table: &FieldTable) -> BTreeMap<String, Value> {
    fields(table, DEPTH)
}

fn fields(table: &FieldTable, depth: usize) -> BTreeMap<String, Value> {
    let shown = |name: &str| {
        let name = name.to_ascii_lowercase();
        !["password", "secret", "token"].iter().any(|word| name.contains(word))
    };
    table
        .inner()
        .iter()
        .filter(|(name, _)| shown(name.as_str()))
        .map(|(name, field)| (name.as_str().to_owned(), value(field, depth)))
        .collect()
}

fn value(field: &AMQPValue, depth: usize) -> Value {
    if depth == 0 {
        return Value::Null;
    }
    match field {
        AMQPValue::Boolean(value) => json!(value),
        AMQPValue::ShortShortInt(value) => json!(value),
        AMQPValue::ShortShortUInt(value) => json!(value),
        AMQPValue::ShortInt(value) => json!(value),
        AMQPValue::ShortUInt(value) => json!(value),
        AMQPValue::LongInt(value) => json!(value),
        AMQPValue::LongUInt(value) => json!(value),
        AMQPValue::LongLongInt(value) => json!(value),
        AMQPValue::Float(value) => json!(value),
        AMQPValue::Double(value) => json!(value),
        AMQPValue::Timestamp(value) => json!(value),
        AMQPValue::ShortString(value) => json!(value.as_str()),
        AMQPValue::LongString(value) => json!(String::from_utf8_lossy(value.as_bytes())),
        AMQPValue::FieldArray(values) => {
            values.as_slice().iter().map(|field| value(field, depth - 1)).collect()
        }
        AMQPValue::FieldTable(table) => fields(table, depth - 1).into_iter().collect(),
        AMQPValue::DecimalValue(_) | AMQPValue::ByteArray(_) | AMQPValue::Void => Value::Null,
    }
}

/// Puts what the event exchange of RabbitMQ writes as Erlang terms into words: addresses (`{127,0,0,1}`), property lists
/// (`{<<"product">>,longstr,<<"Pika">>}`) and error texts (lists of character codes).
pub(super) fn untangle(facts: &mut BTreeMap<String, Value>) {
    for (name, value) in facts {
        match (name.as_str(), &*value) {
            ("host" | "peer_host", Value::String(text)) => *value = json!(address(text)),
            ("client_properties" | "arguments", Value::Array(terms)) => {
                *value = terms.iter().filter_map(|term| property(term.as_str()?)).collect();
            }
            ("error", Value::Array(codes)) => {
                let text: Option<String> =
                    codes.iter().map(|code| char::from_u32(u32::try_from(code.as_u64()?).ok()?)).collect();
                if let Some(text) = text {
                    *value = json!(text);
                }
            }
            _ => {}
        }
    }
}

fn address(text: &str) -> String {
    let Some(inner) = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) else {
        return text.to_owned();
    };
    let numbers: Option<Vec<u16>> = inner.split(',').map(|number| number.trim().parse().ok()).collect();
    let numbers = numbers.unwrap_or_default();
    let bytes: Vec<u8> = numbers.iter().filter_map(|number| u8::try_from(*number).ok()).collect();
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes.as_slice())
        && numbers.len() == 4
    {
        return Ipv4Addr::from(bytes).to_string();
    }
    match <[u16; 8]>::try_from(numbers.as_slice()) {
        Ok(segments) => IpAddr::V6(Ipv6Addr::from(segments)).to_canonical().to_string(),
        Err(_) => text.to_owned(),
    }
}

/// `{<<"product">>,longstr,<<"Pika">>}`. Tables and arrays inside stay as they are written.
fn property(term: &str) -> Option<(String, Value)> {
    let (name, rest) = term.strip_prefix("{<<\"")?.split_once("\">>,")?;
    let (_type, value) = rest.strip_suffix('}')?.split_once(',')?;
    let value = match value.strip_prefix("<<\"").and_then(|value| value.strip_suffix("\">>")) {
        Some(text) => json!(text.replace("\\\"", "\"").replace("\\\\", "\\")),
        None if value == "<<>>" => json!(""),
        None => serde_json::from_str(value).unwrap_or_else(|_| json!(value)),
    };
    Some((name.to_owned(), value))
}

/// The text values of an object: what a client says of itself.
pub(super) fn texts(value: Option<&Value>) -> BTreeMap<String, String> {
    let fields = value.and_then(Value::as_object).into_iter().flatten();
    fields.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erlang_terms_of_rabbitmq_3_10_become_words() {
        let mut facts: BTreeMap<String, Value> = serde_json::from_value(json!({
            "peer_host": "{127,0,0,1}",
            "host": "{0,0,0,0,0,65535,32512,1}",
            "client_properties": [
                "{<<\"product\">>,longstr,<<\"Pika Python Client Library\">>}",
                "{<<\"capabilities\">>,table,[{<<\"basic.nack\">>,bool,true}]}",
            ],
            "arguments": ["{<<\"x-dead-letter-exchange\">>,longstr,<<>>}", "{<<\"x-max-length\">>,signedint,100}"],
            "error": "user 'guest'".chars().map(u32::from).collect::<Vec<_>>(),
        }))
        .unwrap();
        untangle(&mut facts);
        assert_eq!(facts["peer_host"], "127.0.0.1");
        assert_eq!(facts["host"], "127.0.0.1");
        assert_eq!(facts["client_properties"]["product"], "Pika Python Client Library");
        assert_eq!(facts["arguments"], json!({"x-dead-letter-exchange": "", "x-max-length": 100}));
        assert_eq!(facts["error"], "user 'guest'");
        assert_eq!(texts(facts.get("client_properties"))["product"], "Pika Python Client Library");
    }

    #[test]
    fn what_cannot_be_read_stays_as_it_is() {
        assert_eq!(address("{1,2,3}"), "{1,2,3}");
        assert_eq!(address("{1,2,3,999}"), "{1,2,3,999}");
        assert_eq!(address("lab.example"), "lab.example");
        assert_eq!(property("nonsense"), None);
    }

    #[test]
    fn values_named_like_secrets_are_left_out() {
        let mut table = FieldTable::default();
        table.insert("name".into(), AMQPValue::LongString("shop".into()));
        table.insert("Password_hash".into(), AMQPValue::LongString("hunter2".into()));
        assert_eq!(facts(&table).into_keys().collect::<Vec<_>>(), ["name"]);
    }
}
