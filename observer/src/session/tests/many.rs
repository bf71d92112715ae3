//! A directory of thousands of sessions.

use std::time::{Duration, Instant};

use super::store::ending;
use crate::session::testing::{header, record, state_dir};

#[test]
fn five_thousand_sessions_are_listed_at_once() {
    let (_scratch, dir) = state_dir();
    record(&dir, header("s0000", "one"), vec![]).finish(ending());
    for n in 1..5_000 {
        std::fs::copy(dir.path_of("s0000"), dir.path_of(&format!("s{n:04}"))).unwrap();
    }
    let began = Instant::now();
    let listed = dir.list().unwrap();
    let took = began.elapsed();
    assert!(listed.len() == 5_000 && listed.iter().all(|one| one.summary.is_ok()));
    println!("listed 5,000 sessions in {took:?}");
    // With an optimised SQLite it is about a second of two processors; here nothing is, and others use the machine.
    assert!(took < Duration::from_secs(30), "{took:?}");
}
