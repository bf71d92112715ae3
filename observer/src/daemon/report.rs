//! What the service tells the world about one worker: a conclusion, and where the session is. Knows nothing of how it is told.

use serde::Serialize;

/// Why the service speaks up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Occasion {
    /// The worker ended.
    Ended,
    /// It does not consume, long after its start.
    NotReady,
    /// It holds messages and settles none.
    Stalled,
}

/// A conclusion about a worker, with the session that shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Why now.
    pub occasion: Occasion,
    /// The verdict's code (`observer explain --list`).
    pub code: String,
    /// Its cause, where there is one.
    pub cause: Option<String>,
    /// `failure`, `warning` or `ok`.
    pub severity: String,
    /// The verdict in a few words.
    pub title: String,
    /// What happened.
    pub summary: String,
    /// What to do next.
    pub remedy: Option<String>,
    /// The session's id.
    pub session: String,
    /// The session's name.
    pub name: String,
    /// The session's file.
    pub path: String,
    /// The worker's root process.
    pub pid: u32,
    /// Whose it is.
    pub uid: u32,
    /// The systemd unit it runs in.
    pub unit: Option<String>,
    /// The rule by which it was recorded.
    pub rule: Option<String>,
    /// Its command line, redacted.
    pub command: Vec<String>,
}
