//! What a table of a Parquet export is said to be. Knows no table, and writes nothing.

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number.
    Int,
    /// A number between two.
    Float,
    /// True or false.
    Flag,
    /// Two columns: NAME_ns on `CLOCK_MONOTONIC`, and NAME_time, the same moment on the wall clock.
    Clock,
    /// Text.
    Text,
    /// Any bytes.
    Bytes,
    /// Words in order.
    Words,
    /// A value as JSON.
    Json,
    /// How a value of the session is known.
    Known,
}

/// A column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Where it is among the fields of what the row is made of: the first of these that is there. Empty: it is the event's own, or has
    /// this name.
    pub from: &'static [&'static str],
    /// What it means.
    pub about: &'static str,
}

/// Which rows a table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// A row an event of these kinds; of every kind, when there is none.
    Events(&'static [&'static str]),
    /// A row a variable of an exec.
    Environment,
    /// A row a file of a Python module that was opened.
    Imports,
    /// The session's own table of this name.
    Derived(crate::session::DerivedTable),
    /// Made of the session as a whole.
    Made,
}

/// A table.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// Its name, and its folder's.
    pub name: &'static str,
    /// What a row is.
    pub about: &'static str,
    /// Which rows it has.
    pub rows: Rows,
    /// Its columns.
    pub columns: &'static [Column],
}
