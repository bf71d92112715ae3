//! The lab: real parts for tests, the demo and the benchmark.
