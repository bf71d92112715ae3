//! Terminal text. Knows the model and events; decides nothing.

pub mod escape;
pub mod names;
pub mod style;
pub mod units;
