//! The lab: real parts for tests, the demo and the benchmark.

pub mod apt;
pub mod cache;
pub mod crowd;
pub mod daemon;
pub mod deadline;
pub mod large;
pub mod machine;
pub mod observe;
pub mod person;
pub mod privilege;
pub mod proxy;
pub mod rabbit;
pub mod rotel;
pub mod sameness;
pub mod scenario;
pub mod scene;
pub mod strace;
pub mod streams;
pub mod target;
pub mod tmux;
pub mod tshark;
pub mod venv;
