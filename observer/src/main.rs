//! Parse, dispatch, exit status; nothing else.
fn main() {}
