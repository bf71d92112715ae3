//! Nothing is changed in what is observed: whatever a command can find out about itself is the same with and without us.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail like the test")]

mod killed;
mod people;
mod sameness;
mod signals;

use std::fs;
use std::path::Path;
use std::time::Duration;

use tests::{deadline, target};

const LIMIT: Duration = Duration::from_secs(60);
/// An interpreter that every user may run.
const PYTHON: &str = "/usr/bin/python3";

fn script(name: &str) -> String {
    target::folder().join(name).to_str().unwrap().to_owned()
}

/// The lines `signals.py` has written, once there are `count`; the first one names its process.
fn lines(file: &Path, count: usize) -> Vec<String> {
    deadline::until(&format!("{count} lines of {}", file.display()), LIMIT, || {
        let text = fs::read_to_string(file).unwrap_or_default();
        let lines: Vec<String> = text
            .split_inclusive('\n')
            .filter_map(|line| line.strip_suffix('\n'))
            .map(str::to_owned)
            .collect();
        (lines.len() >= count).then_some(lines)
    })
}
