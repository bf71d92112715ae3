//! Terminal text. Knows the model and events; decides nothing.

mod broker;
pub mod escape;
pub mod json;
pub mod names;
pub mod style;
pub mod summary;
pub mod timeline;
pub mod units;

#[cfg(test)]
mod tests;
