//! What a test needs and this user may not do. A skip is said where nobody can overlook it.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Whether the test that runs in this thread cannot be run for want of root, which is then said: "needs root: …".
pub fn lacking(what_for: &str) -> bool {
    if nix::unistd::geteuid().is_root() {
        return false;
    }
    skip(&format!("needs root: {what_for}"));
    true
}

/// Says, once, that the test that runs in this thread is not run, or a part of it, and why.
pub fn skip(why: &str) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let line = format!("skipped: {}: {why}\n", thread::current().name().unwrap_or("a test"));
    if SAID.lock().unwrap_or_else(PoisonError::into_inner).insert(line.clone()) {
        // Not `eprintln!`, which the test harness keeps to itself when a test is right.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}
