//! The lab: real parts for tests, the demo and the benchmark.

pub mod apt;
pub mod cache;
pub mod deadline;
pub mod proxy;
pub mod rabbit;
pub mod scene;
pub mod target;
pub mod venv;
