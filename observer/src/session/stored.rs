//! What a session holds, row by row, as it is stored: for whoever hands it on. Knows the schema, and nothing of what the rows mean.

use std::{borrow::Cow, ops::ControlFlow};

use rusqlite::types::ValueRef;

use super::{Session, SessionError};

/// An event as it is stored, of whatever kind: also of one that this program does not know.
#[derive(Debug)]
pub struct StoredEvent<'a> {
    /// Its number in the session.
    pub id: i64,
    /// When, in nanoseconds on `CLOCK_MONOTONIC`.
    pub at_ns: i64,
    /// Its process; 0 for none.
    pub pid: i64,
    /// Its thread; 0 for none.
    pub tid: i64,
    /// Its kind.
    pub kind: Cow<'a, str>,
    /// Who saw it.
    pub origin: Cow<'a, str>,
    /// Its fields, as JSON.
    pub data: Cow<'a, str>,
    /// What it carried; `None`: nothing.
    pub bytes: Option<&'a [u8]>,
}

/// A table that is derived from the events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DerivedTable {
    /// What was said to the broker and by it.
    AmqpMethods,
    /// The ways of messages through queues.
    Messages,
}

impl DerivedTable {
    const fn name(self) -> &'static str {
        match self {
            Self::AmqpMethods => "amqp_methods",
            Self::Messages => "messages",
        }
    }
}

impl Session {
    /// Hands events of these kinds (none: of every kind) to `each`, until it breaks. They come kind by kind, each in order of time, where
    /// the session is indexed, and else in order of arrival.
    ///
    /// # Errors
    /// When the file cannot be read on; what was handed out before is valid.
    pub fn stored(
        &self,
        kinds: &[&str],
        mut each: impl FnMut(&StoredEvent<'_>) -> ControlFlow<()>,
    ) -> Result<(), SessionError> {
        let sqlite = |source| SessionError::sqlite("read events of session", &self.path, source);
        let mut sql = "SELECT id, at_ns, pid, tid, kind, origin, data, bytes FROM main.events".to_owned();
        if !kinds.is_empty() {
            sql.push_str(&format!(" WHERE kind IN ({})", vec!["?"; kinds.len()].join(",")));
        }
        let mut statement = self.connection.prepare(&sql).map_err(sqlite)?;
        let mut rows = statement.query(rusqlite::params_from_iter(kinds)).map_err(sqlite)?;
        while let Some(row) = rows.next().map_err(sqlite)? {
            let number = |index| row.get_ref(index).map(integer);
            let words = |index| row.get_ref(index).map(text);
            let event = StoredEvent {
                id: number(0).map_err(sqlite)?,
                at_ns: number(1).map_err(sqlite)?,
                pid: number(2).map_err(sqlite)?,
                tid: number(3).map_err(sqlite)?,
                kind: words(4).map_err(sqlite)?,
                origin: words(5).map_err(sqlite)?,
                data: words(6).map_err(sqlite)?,
                bytes: row.get_ref(7).map_err(sqlite)?.as_bytes_or_null().unwrap_or_default(),
            };
            if each(&event).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Hands the rows of a derived table to `each`: these columns, in this order, until it breaks.
    ///
    /// # Errors
    /// When the file cannot be read on, or has no such column.
    pub fn derived(
        &self,
        table: DerivedTable,
        columns: &[&'static str],
        mut each: impl FnMut(&[ValueRef<'_>]) -> ControlFlow<()>,
    ) -> Result<(), SessionError> {
        let sqlite = |source| SessionError::sqlite("read derived tables of session", &self.path, source);
        let sql = format!("SELECT {} FROM {}", columns.join(", "), table.name());
        let mut statement = self.connection.prepare(&sql).map_err(sqlite)?;
        let mut rows = statement.query([]).map_err(sqlite)?;
        while let Some(row) = rows.next().map_err(sqlite)? {
            let values: rusqlite::Result<Vec<ValueRef<'_>>> =
                (0..columns.len()).map(|index| row.get_ref(index)).collect();
            if each(&values.map_err(sqlite)?).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// What is not of its type was not written by us, and says nothing.
fn integer(value: ValueRef<'_>) -> i64 {
    value.as_i64().unwrap_or(0)
}

fn text(value: ValueRef<'_>) -> Cow<'_, str> {
    String::from_utf8_lossy(value.as_bytes().unwrap_or_default())
}
