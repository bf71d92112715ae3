//! Rows of tables: made of a stored event, or of any document, by what the columns say. Knows JSON and columns, and nothing of Parquet.

use rusqlite::types::ValueRef;
use serde_json::Value;

use super::{
    sheet::Cell,
    tables::{Column, Kind},
};
use crate::session::StoredEvent;

/// What is found at a place in a document. A value of a session may say why it is not there (`Known`).
#[derive(Clone, Copy, Debug, PartialEq)]
enum Looked<'a> {
    /// A value, and whether only its beginning could be had.
    Found(&'a Value, bool),
    /// None, and this is why.
    Absent(&'a str),
    /// There is no such place.
    Nowhere,
}

/// Looks at `a/b/c`.
fn look<'a>(document: &'a Value, path: &str) -> Looked<'a> {
    let (mut value, mut partial) = (document, false);
    for key in path.split('/') {
        let Some(inner) = value.get(key) else { return Looked::Nowhere };
        value = inner;
        if let Some(why) = value.get("absent").and_then(Value::as_str) {
            return Looked::Absent(why);
        }
        if let Some(beginning) = value.get("partial") {
            (value, partial) = (beginning, true);
        }
    }
    if value.is_null() { Looked::Nowhere } else { Looked::Found(value, partial) }
}

/// A document's cell of a column.
pub(super) fn cell<'a>(document: &'a Value, column: &Column) -> Cell<'a> {
    let name = [column.name];
    let places = if column.from.is_empty() { &name } else { column.from };
    let mut looked = places.iter().map(|path| look(document, path));
    if column.kind == Kind::Known {
        return match looked.find(|looked| *looked != Looked::Nowhere) {
            Some(Looked::Found(_, false)) => Cell::Text("whole"),
            Some(Looked::Found(_, true)) => Cell::Text("partial"),
            Some(Looked::Absent(why)) => Cell::Text(why),
            Some(Looked::Nowhere) | None => Cell::Null,
        };
    }
    let found = looked.find_map(|looked| match looked {
        Looked::Found(value, _) => Some(value),
        _ => None,
    });
    match found {
        Some(value) if column.kind == Kind::Json => Cell::Json(value),
        Some(value) => value.into(),
        None => Cell::Null,
    }
}

/// The fields of an event; null when they are not what we write.
pub(super) fn fields(event: &StoredEvent<'_>) -> Value {
    serde_json::from_str(&event.data).unwrap_or_default()
}

/// An event's cell of a column. `fields` are its own.
pub(super) fn of_event<'a>(event: &'a StoredEvent<'_>, fields: &'a Value, column: &Column) -> Cell<'a> {
    if !column.from.is_empty() {
        return cell(fields, column);
    }
    match column.name {
        "id" | "event" => Cell::Int(event.id),
        "at" => Cell::Int(event.at_ns),
        "pid" => Cell::Int(event.pid),
        "tid" => Cell::Int(event.tid),
        "kind" => Cell::Text(&event.kind),
        "origin" => Cell::Text(&event.origin),
        "data" => Cell::Text(&event.data),
        "bytes" => event.bytes.map_or(Cell::Null, Cell::Bytes),
        "text" => event.bytes.map_or(Cell::Null, Cell::Said),
        _ => Cell::Null,
    }
}

/// The variables that an exec was given: names, and values where there is a `=`.
pub(super) fn variables(fields: &Value) -> impl Iterator<Item = (&str, Option<&str>)> {
    let entries = match look(fields, "env") {
        Looked::Found(Value::Array(entries), _) => entries.as_slice(),
        _ => &[],
    };
    let entries = entries.iter().filter_map(Value::as_str);
    entries.map(|entry| entry.split_once('=').map_or((entry, None), |(name, value)| (name, Some(value))))
}

/// Whether an open is that of a Python module's file.
pub(super) fn is_module_file(fields: &Value) -> bool {
    let opened = fields.get("errno").and_then(Value::as_i64) == Some(0);
    opened
        && match look(fields, "resolved") {
            Looked::Found(Value::String(path), _) => {
                [".py", ".pyc", ".so"].iter().any(|ending| path.ends_with(ending))
            }
            _ => false,
        }
}

/// The name of a column in the session's own tables.
pub(super) fn stored_name(column: &Column) -> &'static str {
    match (column.name, column.kind) {
        ("at", Kind::Clock) => "at_ns",
        ("published", Kind::Clock) => "published_ns",
        ("delivered", Kind::Clock) => "delivered_ns",
        ("settled", Kind::Clock) => "settled_ns",
        (name, _) => name,
    }
}

/// What stands in the session's own tables.
pub(super) fn stored(value: ValueRef<'_>) -> Cell<'_> {
    match value {
        ValueRef::Null => Cell::Null,
        ValueRef::Integer(number) => Cell::Int(number),
        ValueRef::Real(number) => Cell::Float(number),
        ValueRef::Text(text) => Cell::Said(text),
        ValueRef::Blob(bytes) => Cell::Bytes(bytes),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_absent_says_why_and_what_is_partial_says_so() {
        let document = json!({
            "path": {"partial": "/srv/a", "missing_bytes": 3},
            "tty": {"absent": "none"},
            "exe": {"path": {"absent": "not-collected"}},
            "user": {"uid": 7, "groups": {"absent": "lost"}},
            "code": null,
        });
        let at = |path: &'static [&'static str], kind| {
            cell(&document, &Column { name: "", kind, from: path, about: "" })
        };
        assert_eq!(at(&["path"], Kind::Text), Cell::Text("/srv/a"));
        assert_eq!(at(&["path"], Kind::Known), Cell::Text("partial"));
        assert_eq!((at(&["tty"], Kind::Text), at(&["tty"], Kind::Known)), (Cell::Null, Cell::Text("none")));
        assert_eq!(at(&["exe/path"], Kind::Known), Cell::Text("not-collected"));
        assert_eq!(at(&["user/uid"], Kind::Int), Cell::Int(7));
        assert_eq!(at(&["user"], Kind::Known), Cell::Text("whole"));
        assert_eq!((at(&["code"], Kind::Int), at(&["code"], Kind::Known)), (Cell::Null, Cell::Null));
        assert_eq!(
            (at(&["nowhere/at/all"], Kind::Int), at(&["nowhere"], Kind::Known)),
            (Cell::Null, Cell::Null)
        );
        assert_eq!(at(&["nowhere", "user/uid"], Kind::Int), Cell::Int(7), "the first that is there");
    }

    #[test]
    fn a_variable_may_have_no_value() {
        let fields = json!({"env": {"partial": ["A=b=c", "B=", "C", ""], "missing_bytes": null}});
        let variables: Vec<_> = variables(&fields).collect();
        assert_eq!(variables, [("A", Some("b=c")), ("B", Some("")), ("C", None), ("", None)]);
    }
}
