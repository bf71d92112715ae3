//! The lab: real parts for tests, the demo and the benchmark.

pub mod apt;
pub mod cache;
