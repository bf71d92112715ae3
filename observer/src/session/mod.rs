//! The recording on disk: one SQLite file a session. Knows events, and nothing of where they came from or what they mean.

mod derived;
mod error;
mod invoker;
mod key;
mod mark;
mod name;
mod owner;
mod read;
mod redact;
mod resume;
pub mod retain;
mod ring;
mod secret;
pub mod service;
mod snapshot;
mod state_dir;
mod stored;
mod tally;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod trust;
mod write;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use derived::{Derived, MessageRow, MethodRow};
pub use error::SessionError;
pub use invoker::Invoker;
pub use name::check as check_name;
pub use owner::Owner;
pub use read::{Filter, Session};
pub use redact::Redactor;
pub use resume::{Alive, Resumed, StreamEnd};
pub use ring::Ring;
pub use secret::blank;
pub use service::SERVICE_BASE;
pub use state_dir::{Listed, StateDir, Summary, fitting_name, name_of, new_id};
pub use stored::{DerivedTable, StoredEvent};
pub use write::Recorder;

use crate::{
    capability::{Capability, Description},
    event::Pid,
};

/// What is known of a session when it begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Header {
    /// Unique, sorts by time (`20261123-161500-3f9a`).
    pub id: String,
    /// The name people use.
    pub name: String,
    /// The command that was started, or of the process attached to.
    pub command: Vec<String>,
    /// The process attached to, when the command was not started by us.
    pub attached: Option<Pid>,
    /// `ebpf` or `ptrace`.
    pub backend: String,
    /// Wall-clock time of the beginning, RFC 3339.
    pub started_at: String,
    /// The same moment on `CLOCK_MONOTONIC`, in nanoseconds: ties the two clocks together.
    pub started_ns: u64,
    /// Version of the observer that recorded.
    pub observer_version: String,
    /// Host name.
    pub host: String,
    /// Kernel release.
    pub kernel: String,
    /// Bytes kept of one call.
    pub snaplen: u64,
    /// The sources that took part, and what each cannot see.
    pub sources: Vec<Description>,
    /// What the machine allowed.
    pub capabilities: Vec<Capability>,
}

/// The version of the file's schema, its `PRAGMA user_version`. Raised when an older observer could misread the file.
pub(crate) const SCHEMA_VERSION: i64 = 1;

/// SQLite's `application_id` of our files (`obsv`): tells them from other programs' databases.
pub(crate) const APPLICATION_ID: i64 = 0x6f62_7376;

/// How far a session has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Somebody is recording it now.
    Recording,
    /// It was ended.
    Done,
    /// Whoever recorded it was killed; all but the last 100 ms is there.
    CutShort,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Recording => "recording",
            Self::Done => "done",
            Self::CutShort => "cut short",
        })
    }
}

/// How a session ended. A session without one was cut short (killed observer) or is still being recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ending {
    /// When, in nanoseconds on `CLOCK_MONOTONIC`.
    pub ended_ns: u64,
    /// The command's exit status; `None` when it was killed or lives on.
    pub code: Option<i32>,
    /// The signal that killed the command.
    pub signal: Option<i32>,
    /// Why the observation ended: `exited`, `time-limit`, `interrupted`, `let-go`.
    pub reason: String,
}
