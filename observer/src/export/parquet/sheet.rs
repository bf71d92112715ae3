//! A table being written: cells are gathered into batches, batches into row groups. Knows columns and Parquet, and nothing of sessions.

use std::{fmt::Write as _, io::Write, sync::Arc};

use arrow::{
    array::{
        ArrayRef, BinaryBuilder, BooleanBuilder, Float64Builder, Int64Builder, ListBuilder, StringBuilder,
        TimestampNanosecondBuilder,
    },
    datatypes::{DataType, Field, Schema, TimeUnit},
    error::ArrowError,
    record_batch::RecordBatch,
};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::{metadata::KeyValue, properties::WriterProperties},
};

use serde_json::Value;

use super::{
    schema::written,
    tables::{Column, Kind},
};

/// Rows of a batch, and what they may carry.
const BATCH_ROWS: usize = 8_192;
const BATCH_BYTES: usize = 4 << 20;
/// A row group is written out when it has so many rows, or so many bytes as encoded: readers take row groups in parallel, and we keep
/// one in memory.
const GROUP_ROWS: usize = 1 << 17;
const GROUP_BYTES: usize = 16 << 20;

/// What stands in a cell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Cell<'a> {
    /// Nothing: it is not known, or there is nothing.
    Null,
    /// A number, or a moment in nanoseconds on `CLOCK_MONOTONIC`.
    Int(i64),
    /// A number between two.
    Float(f64),
    /// True or false.
    Flag(bool),
    /// Text.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
    /// Bytes that are to be text, and may not be.
    Said(&'a [u8]),
    /// A value as JSON.
    Json(&'a Value),
    /// Words in order.
    Words(&'a [Value]),
}

impl<'a> From<&'a Value> for Cell<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(flag) => Self::Flag(*flag),
            // What an int64 cannot hold is near enough, where a column takes such a number at all.
            Value::Number(number) => {
                number.as_i64().map_or_else(|| number.as_f64().map_or(Self::Null, Self::Float), Self::Int)
            }
            Value::String(text) => Self::Text(text),
            Value::Array(words) => Self::Words(words),
            Value::Object(_) => Self::Json(value),
        }
    }
}

/// Two clocks, tied together at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clocks {
    /// That moment on `CLOCK_MONOTONIC`, in nanoseconds.
    pub(super) monotonic_ns: u64,
    /// And since 1970; `None`: it is not known.
    pub(super) wall_ns: Option<i128>,
}

impl Clocks {
    /// A moment on the wall clock, in nanoseconds since 1970.
    fn wall_ns(self, at_ns: i64) -> Option<i64> {
        i64::try_from(self.wall_ns? + i128::from(at_ns) - i128::from(self.monotonic_ns)).ok()
    }
}

/// What is gathered of a column.
enum Builder {
    Int(Int64Builder),
    Float(Float64Builder),
    Flag(BooleanBuilder),
    Clock(Int64Builder, TimestampNanosecondBuilder),
    Text(StringBuilder),
    Bytes(BinaryBuilder),
    Words(ListBuilder<StringBuilder>),
}

impl Builder {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::Int => Self::Int(Int64Builder::new()),
            Kind::Float => Self::Float(Float64Builder::new()),
            Kind::Flag => Self::Flag(BooleanBuilder::new()),
            Kind::Clock => Self::Clock(
                Int64Builder::new(),
                TimestampNanosecondBuilder::new().with_data_type(timestamp()),
            ),
            Kind::Text | Kind::Json | Kind::Known => Self::Text(StringBuilder::new()),
            Kind::Bytes => Self::Bytes(BinaryBuilder::new()),
            Kind::Words => Self::Words(ListBuilder::new(StringBuilder::new())),
        }
    }

    /// What is not of the column's type is not known.
    fn push(&mut self, cell: Cell<'_>, clocks: Clocks) {
        match self {
            Self::Int(column) => column.append_option(int(cell)),
            Self::Float(column) => column.append_option(match cell {
                Cell::Float(number) => Some(number),
                #[expect(clippy::cast_precision_loss, reason = "such a column holds small numbers")]
                Cell::Int(number) => Some(number as f64),
                _ => None,
            }),
            Self::Flag(column) => column.append_option(match cell {
                Cell::Flag(flag) => Some(flag),
                Cell::Int(number @ (0 | 1)) => Some(number == 1),
                _ => None,
            }),
            Self::Clock(monotonic, wall) => {
                let at_ns = int(cell);
                monotonic.append_option(at_ns);
                wall.append_option(at_ns.and_then(|at_ns| clocks.wall_ns(at_ns)));
            }
            Self::Text(column) => match cell {
                Cell::Text(text) => column.append_value(text),
                Cell::Said(bytes) => column.append_value(String::from_utf8_lossy(bytes)),
                Cell::Json(value) => {
                    // What is written to it belongs to the next value; writing to memory does not fail.
                    let _ = write!(column, "{value}");
                    column.append_value("");
                }
                _ => column.append_null(),
            },
            Self::Bytes(column) => column.append_option(match cell {
                Cell::Bytes(bytes) => Some(bytes),
                _ => None,
            }),
            Self::Words(column) => match cell {
                Cell::Words(words) => column.append_value(words.iter().map(Value::as_str)),
                _ => column.append(false),
            },
        }
    }

    fn finish(&mut self, into: &mut Vec<ArrayRef>) {
        match self {
            Self::Int(column) => into.push(Arc::new(column.finish())),
            Self::Float(column) => into.push(Arc::new(column.finish())),
            Self::Flag(column) => into.push(Arc::new(column.finish())),
            Self::Clock(monotonic, wall) => {
                into.push(Arc::new(monotonic.finish()));
                into.push(Arc::new(wall.finish()));
            }
            Self::Text(column) => into.push(Arc::new(column.finish())),
            Self::Bytes(column) => into.push(Arc::new(column.finish())),
            Self::Words(column) => into.push(Arc::new(column.finish())),
        }
    }
}

const fn int(cell: Cell<'_>) -> Option<i64> {
    match cell {
        Cell::Int(number) => Some(number),
        _ => None,
    }
}

const fn weight(cell: Cell<'_>) -> usize {
    match cell {
        Cell::Text(text) => text.len(),
        Cell::Bytes(bytes) | Cell::Said(bytes) => bytes.len(),
        // What one exec was given is at most some MiB (ARG_MAX), and mostly a few hundred bytes.
        Cell::Words(words) => 64 * words.len(),
        Cell::Json(_) => 1_024,
        _ => 8,
    }
}

fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()))
}

fn fields(column: &Column) -> Vec<Field> {
    let of = |kind: &str| match kind {
        "int64" => DataType::Int64,
        "double" => DataType::Float64,
        "boolean" => DataType::Boolean,
        "timestamp" => timestamp(),
        "binary" => DataType::Binary,
        "list of string" => DataType::List(Arc::new(Field::new("item", DataType::Utf8, true))),
        _ => DataType::Utf8,
    };
    written(column).into_iter().map(|(name, kind)| Field::new(name, of(kind), true)).collect()
}

/// A table being written to a file of its own.
pub(super) struct Sheet<W: Write + Send> {
    writer: ArrowWriter<W>,
    schema: Arc<Schema>,
    columns: Vec<Builder>,
    clocks: Clocks,
    rows: usize,
    bytes: usize,
}

impl<W: Write + Send> Sheet<W> {
    /// Begins a table of these columns, with what is to be known of it as pairs.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn begin(
        out: W,
        columns: &[Column],
        clocks: Clocks,
        about: &[(&str, String)],
    ) -> Result<Self, ParquetError> {
        let schema = Arc::new(Schema::new(columns.iter().flat_map(fields).collect::<Vec<_>>()));
        let about = about.iter().map(|(key, value)| KeyValue::new((*key).to_owned(), value.clone()));
        let properties = WriterProperties::builder()
            .set_created_by(format!("observer {}", env!("CARGO_PKG_VERSION")))
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .set_key_value_metadata(Some(about.collect()))
            .build();
        let writer = ArrowWriter::try_new(out, Arc::clone(&schema), Some(properties))?;
        let columns = columns.iter().map(|column| Builder::new(column.kind)).collect();
        Ok(Self { writer, schema, columns, clocks, rows: 0, bytes: 0 })
    }

    /// Adds a row: a cell a column, in order. What is not given is not known.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn row<'a>(&mut self, cells: impl IntoIterator<Item = Cell<'a>>) -> Result<(), ParquetError> {
        let mut cells = cells.into_iter();
        for column in &mut self.columns {
            let cell = cells.next().unwrap_or(Cell::Null);
            self.bytes += weight(cell);
            column.push(cell, self.clocks);
        }
        debug_assert!(cells.next().is_none(), "more cells than columns");
        self.rows += 1;
        if self.rows >= BATCH_ROWS || self.bytes >= BATCH_BYTES { self.hand_over() } else { Ok(()) }
    }

    fn hand_over(&mut self) -> Result<(), ParquetError> {
        let mut arrays = Vec::with_capacity(self.schema.fields().len());
        self.columns.iter_mut().for_each(|column| column.finish(&mut arrays));
        (self.rows, self.bytes) = (0, 0);
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), arrays).map_err(arrow)?;
        self.writer.write(&batch)?;
        if self.writer.memory_size() >= GROUP_BYTES { self.writer.flush() } else { Ok(()) }
    }

    /// All rows are there: writes the rest and hands the file back.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn finish(mut self) -> Result<W, ParquetError> {
        if self.rows > 0 {
            self.hand_over()?;
        }
        // What cannot be written is told as it is, where the footer would hide it.
        self.writer.flush()?;
        self.writer.sync()?;
        self.writer.into_inner()
    }
}

fn arrow(error: ArrowError) -> ParquetError {
    ParquetError::ArrowError(error.to_string())
}

#[cfg(test)]
mod tests {
    use parquet::file::metadata::RowGroupMetaData;

    use super::*;

    fn groups<'a>(kind: Kind, rows: usize, cell: impl Fn(usize) -> Cell<'a>) -> Vec<i64> {
        let clocks = Clocks { monotonic_ns: 0, wall_ns: None };
        let columns = [Column { name: "some", kind, from: &[], about: "" }];
        let mut sheet = Sheet::begin(Vec::new(), &columns, clocks, &[]).unwrap();
        (0..rows).for_each(|row| sheet.row([cell(row)]).unwrap());
        sheet.hand_over().unwrap();
        let metadata = sheet.writer.finish().unwrap();
        metadata.row_groups().iter().map(RowGroupMetaData::num_rows).collect()
    }

    #[test]
    fn row_groups_are_bounded_by_rows_and_by_bytes() {
        assert_eq!(groups(Kind::Int, GROUP_ROWS + 1, |_| Cell::Int(1)), [GROUP_ROWS as i64, 1]);
        // What does not get smaller, and is never the same.
        let mut state = 1_u64;
        let mut noise = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        let noise: Vec<u8> = (0..2 << 20).map(|_| noise()).collect();
        let large = groups(Kind::Bytes, 40, |row| Cell::Bytes(&noise[row * 1_000..][..1 << 20]));
        assert!(large.len() > 1, "{large:?}");
    }

    #[test]
    fn what_is_not_of_a_columns_type_is_not_known() {
        let columns = [Kind::Int, Kind::Float, Kind::Flag, Kind::Clock, Kind::Text, Kind::Bytes, Kind::Words]
            .map(|kind| Column { name: "some", kind, from: &[], about: "" });
        for cell in
            [Cell::Text("a"), Cell::Int(7), Cell::Bytes(b"b"), Cell::Json(&Value::Null), Cell::Words(&[])]
        {
            for column in &columns {
                let mut builder = Builder::new(column.kind);
                builder.push(cell, Clocks { monotonic_ns: 0, wall_ns: Some(0) });
                let mut arrays = Vec::new();
                builder.finish(&mut arrays);
                assert!(arrays.iter().all(|array| array.len() == 1), "{cell:?} in {:?}", column.kind);
            }
        }
        let clocks = Clocks { monotonic_ns: 10, wall_ns: Some(i128::from(i64::MAX)) };
        assert_eq!((clocks.wall_ns(10), clocks.wall_ns(11)), (Some(i64::MAX), None));
    }
}
