//! How the service is: what `observer status` prints and the figures are made of. Knows nothing of how it is shown.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::hooks::Counted;
use crate::source::ebpf::ProgramFacts;

/// The service at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// `observer.status/1`
    pub schema: String,
    /// Version of the program.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When it started, RFC 3339.
    pub started_at: String,
    /// How long it has run, in nanoseconds.
    pub uptime_ns: u64,
    /// The names of the rules that hold.
    pub rules: Vec<String>,
    /// What is recorded now: for an ordinary user, of what is theirs.
    pub recordings: Vec<Recorded>,
    /// Recordings begun since the start.
    pub begun: u64,
    /// Sessions kept because something failed, since the start.
    pub promoted: u64,
    /// Events since the start.
    pub events: u64,
    /// Events in a second, over the last ten.
    pub events_per_s: f64,
    /// Events lost since the start, by where.
    pub lost: BTreeMap<String, u64>,
    /// The programs in the kernel.
    pub programs: Vec<ProgramFacts>,
    /// Resident memory, in bytes.
    pub rss_bytes: u64,
    /// Processor time used, in seconds.
    pub cpu_s: f64,
    /// Finished sessions.
    pub sessions: u64,
    /// What they take, in bytes.
    pub sessions_bytes: u64,
    /// What is free where they are, in bytes.
    pub free_bytes: u64,
    /// Why nothing new is recorded, when that is so.
    pub stopped: Option<String>,
    /// Clients connected now.
    pub clients: u64,
    /// What became of hooks that were due, since the configuration was last read.
    #[serde(default)]
    pub hooks: Counted,
}

/// One recording under way.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    /// The session's id.
    pub id: String,
    /// The session's name.
    pub name: String,
    /// The root of the process tree.
    pub pid: u32,
    /// Whose it is.
    pub uid: u32,
    /// The systemd unit it runs in.
    pub unit: Option<String>,
    /// The rule by which it is recorded; `None` for a user's own `attach`.
    pub rule: Option<String>,
    /// Its command line, redacted.
    pub command: Vec<String>,
    /// How long it has been recorded, in nanoseconds.
    pub for_ns: u64,
    /// Whether a worker of it consumes.
    pub consumes: bool,
    /// Events so far.
    pub events: u64,
    /// Sessions kept of it so far.
    pub promoted: u64,
}
