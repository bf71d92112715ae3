//! A folder of Parquet files, one a table, partitioned by host, date and session, so that a fleet is queried as one. Knows sessions and
//! what was concluded of them; where the files are kept it does not know.

#[cfg(feature = "parquet")]
mod made;
#[cfg(feature = "parquet")]
mod rows;
mod schema;
#[cfg(feature = "parquet")]
mod sheet;
mod table;
pub mod tables;
#[cfg(test)]
#[cfg(feature = "parquet")]
mod tests;
#[cfg(feature = "parquet")]
mod write;

pub use schema::schema;
#[cfg(feature = "parquet")]
pub use write::{Folder, write};
