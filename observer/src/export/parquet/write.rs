//! Writes a session table by table. Knows where each table's rows come from; what stands in them is for others.

use std::{
    io::{self, Write},
    ops::ControlFlow,
};

use parquet::errors::ParquetError;
use serde_json::Value;

use super::{
    made, rows,
    sheet::{Cell, Clocks, Sheet},
    tables::{Rows, SCHEMA, TABLES, Table},
};
use crate::{
    diagnose::{self, case::Case},
    export::{ExportError, Progress},
    fold,
    model::Model,
    session::{Filter, Header, Session, State, StoredEvent},
};

/// Hive's name for a partition whose value is not known.
const UNKNOWN: &str = "__HIVE_DEFAULT_PARTITION__";

/// Where the files are kept. Nobody sees one before all are there; that is for whoever made the folder, afterwards.
pub trait Folder {
    /// A file being written.
    type File: Write + Send;

    /// Begins a file: `TABLE/host=…/date=…/session=…/part-0.parquet`.
    ///
    /// # Errors
    /// When it cannot be made.
    fn create(&mut self, path: &str) -> io::Result<Self::File>;

    /// All of it is written.
    ///
    /// # Errors
    /// When the last of it could not be kept.
    fn close(&mut self, file: Self::File) -> io::Result<()>;
}

/// Writes a session into a folder, one table after another: memory does not grow with it, but for what `explain` keeps as well.
///
/// # Errors
/// When the session cannot be read, or a file cannot be written.
pub fn write(session: &Session, folder: &mut impl Folder, progress: &Progress) -> Result<(), ExportError> {
    // What is derived when a recording ends is not there before.
    let derived = (session.state() != State::Done).then(|| derive(session)).transpose()?;
    let source = derived.as_ref().map_or(session, |(aside, _)| aside);
    let mut events = 0;
    for table in TABLES.iter().filter(|table| table.rows != Rows::Made) {
        let rows = one(session.header(), table, folder, |sheet| fill(source, table, sheet, progress))?;
        if table.rows == Rows::Events(&[]) {
            events = rows;
        }
    }
    let model = match derived {
        Some((_, model)) => model,
        None => fold::fold(session, &Filter::default(), None)?,
    };
    let ending = session.ending();
    let case = Case::new(session.header(), ending.as_ref(), &model);
    let explanation = diagnose::explain(&case);
    for table in TABLES.iter().filter(|table| table.rows == Rows::Made) {
        one(session.header(), table, folder, |sheet| {
            let documents = made::table(table.name, session, &case, &explanation, events)?;
            documents.iter().try_for_each(|document| made_row(sheet, table, document)).map_err(refused)?;
            Ok(documents.len() as u64)
        })?;
    }
    Ok(())
}

/// A session opened anew whose derived tables are made now, aside, and the model on the way.
fn derive(session: &Session) -> Result<(Session, Model), ExportError> {
    let aside = Session::open_to_derive_aside(session.path())?;
    let derived = aside.derive()?;
    let model = fold::fold(&aside, &Filter::default(), Some(&derived))?;
    derived.finish()?;
    Ok((aside, model))
}

/// Writes one table; `fill` says how many rows it has.
fn one<F: Folder>(
    header: &Header,
    table: &Table,
    folder: &mut F,
    fill: impl FnOnce(&mut Sheet<F::File>) -> Result<u64, ExportError>,
) -> Result<u64, ExportError> {
    let about = [
        ("observer.schema", SCHEMA.to_owned()),
        ("observer.session.id", header.id.clone()),
        ("observer.session.name", header.name.clone()),
        ("observer.session.schema", crate::session::SCHEMA_VERSION.to_string()),
        ("observer.version", header.observer_version.clone()),
    ];
    let wall_ns = header.started_at.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_nanosecond);
    let clocks = Clocks { monotonic_ns: header.started_ns, wall_ns };
    let file = folder.create(&place(header, table.name))?;
    let mut sheet = Sheet::begin(file, table.columns, clocks, &about).map_err(refused)?;
    let rows = fill(&mut sheet)?;
    folder.close(sheet.finish().map_err(refused)?)?;
    Ok(rows)
}

fn fill<W: Write + Send>(
    session: &Session,
    table: &Table,
    sheet: &mut Sheet<W>,
    progress: &Progress,
) -> Result<u64, ExportError> {
    let mut count = 0;
    let mut result = Ok(());
    let mut keep = |kept: Result<u64, ParquetError>| match kept {
        Ok(rows) => {
            count += rows;
            ControlFlow::Continue(())
        }
        Err(error) => {
            result = Err(error);
            ControlFlow::Break(())
        }
    };
    let mut stored = |kinds: &[&str], row: &mut dyn FnMut(&StoredEvent<'_>) -> Result<u64, ParquetError>| {
        session.stored(kinds, |event| {
            progress.one();
            keep(row(event))
        })
    };
    match table.rows {
        Rows::Events(kinds) => {
            let asks = table.columns.iter().any(|column| !column.from.is_empty());
            stored(kinds, &mut |event| {
                let fields = if asks { rows::fields(event) } else { Value::Null };
                event_row(sheet, table, event, &fields)
            })?;
        }
        Rows::Imports => stored(&["open"], &mut |event| {
            let fields = rows::fields(event);
            if rows::is_module_file(&fields) { event_row(sheet, table, event, &fields) } else { Ok(0) }
        })?,
        Rows::Environment => stored(&["exec"], &mut |event| {
            let (fields, mut count) = (rows::fields(event), 0);
            for (name, value) in rows::variables(&fields) {
                let value = value.map_or(Cell::Null, Cell::Text);
                let of_event = [event.id, event.at_ns, event.pid].map(Cell::Int);
                sheet.row(of_event.into_iter().chain([Cell::Text(name), value]))?;
                count += 1;
            }
            Ok(count)
        })?,
        Rows::Derived(derived) => {
            let columns: Vec<&str> = table.columns.iter().map(rows::stored_name).collect();
            session.derived(derived, &columns, |values| {
                keep(sheet.row(values.iter().copied().map(rows::stored)).map(|()| 1))
            })?;
        }
        Rows::Made => {}
    }
    result.map_err(refused)?;
    Ok(count)
}

fn event_row<W: Write + Send>(
    sheet: &mut Sheet<W>,
    table: &Table,
    event: &StoredEvent<'_>,
    fields: &Value,
) -> Result<u64, ParquetError> {
    sheet.row(table.columns.iter().map(|column| rows::of_event(event, fields, column)))?;
    Ok(1)
}

fn made_row<W: Write + Send>(
    sheet: &mut Sheet<W>,
    table: &Table,
    document: &Value,
) -> Result<(), ParquetError> {
    sheet.row(table.columns.iter().map(|column| rows::cell(document, column)))
}

/// Where a table of a session is kept.
pub(super) fn place(header: &Header, table: &str) -> String {
    let date = header.started_at.parse::<jiff::Timestamp>().ok();
    let date = date.map_or_else(|| UNKNOWN.to_owned(), |at| at.strftime("%Y-%m-%d").to_string());
    let (host, id) = (partition(&header.host), partition(&header.id));
    format!("{table}/host={host}/date={date}/session={id}/part-0.parquet")
}

/// A value as the name of a folder, which can do no harm.
fn partition(value: &str) -> String {
    if value.is_empty() {
        return UNKNOWN.to_owned();
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let encoded = value
        .bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") });
    encoded.collect()
}

/// What a file answered, when that is what went wrong.
fn refused(error: ParquetError) -> ExportError {
    ExportError::Write(match error {
        ParquetError::External(source) => match source.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(source) => io::Error::other(source),
        },
        error => io::Error::other(error),
    })
}
