//! What `observer export --schema parquet` prints, made of the tables' own definitions. Knows them, and writes nothing.

use std::fmt::Write as _;

use super::tables::{
    Column,
    Kind::{Bytes, Clock, Flag, Float, Int, Json, Known, Text, Words},
    SCHEMA, TABLES,
};

/// The name and the type of the columns of Parquet that a column becomes.
pub(crate) fn written(column: &Column) -> Vec<(String, &'static str)> {
    let name = column.name;
    let one = |kind| vec![(name.to_owned(), kind)];
    match column.kind {
        Int => one("int64"),
        Float => one("double"),
        Flag => one("boolean"),
        Clock => vec![(format!("{name}_ns"), "int64"), (format!("{name}_time"), "timestamp")],
        Text => one("string"),
        Bytes => one("binary"),
        Words => one("list of string"),
        Json => one("json"),
        Known => one("known"),
    }
}

/// What `observer export --schema parquet` prints.
pub fn schema() -> String {
    let mut text = include_str!("../schema/parquet.txt").replace("{schema}", SCHEMA);
    for table in TABLES {
        let _ = write!(text, "\n{}: {}\n", table.name, table.about);
        for column in table.columns {
            for (name, kind) in written(column) {
                // Of a moment, the first of its two columns says what it is.
                let about = if name.ends_with("_time") { "" } else { column.about };
                let line = format!("  {name:<17} {kind:<15} {about}");
                text.push_str(line.trim_end());
                text.push('\n');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{super::tables::Rows, *};
    use crate::event::Body;

    #[test]
    fn names_are_unique_and_none_is_a_partitions() {
        let tables: BTreeSet<&str> = TABLES.iter().map(|table| table.name).collect();
        assert_eq!(tables.len(), TABLES.len());
        assert_eq!(TABLES.last().unwrap().name, "sessions");
        for table in TABLES {
            let names: Vec<String> = table.columns.iter().flat_map(written).map(|(name, _)| name).collect();
            let unique: BTreeSet<&String> = names.iter().collect();
            assert_eq!(unique.len(), names.len(), "{}: {names:?}", table.name);
            assert!(!names.iter().any(|name| ["host", "date", "session"].contains(&name.as_str())));
        }
    }

    #[test]
    fn every_kind_that_is_asked_for_exists() {
        for table in TABLES {
            if let Rows::Events(kinds) = table.rows {
                assert!(kinds.iter().all(|kind| Body::KINDS.contains(kind)), "{}", table.name);
            }
        }
    }

    #[test]
    fn the_schema_names_its_version_and_every_column() {
        let schema = schema();
        assert!(schema.starts_with("observer.parquet/1\n"), "{schema}");
        assert!(!schema.contains("{schema}"));
        for table in TABLES {
            assert!(schema.contains(&format!("\n{}: ", table.name)));
        }
        assert!(schema.contains("  published_time    timestamp\n"), "{schema}");
        assert!(schema.contains("  path_known        known"), "{schema}");
    }
}
