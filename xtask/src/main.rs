//! What a developer of observer runs.
fn main() {}
