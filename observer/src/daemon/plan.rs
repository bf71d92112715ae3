//! What is to be recorded of one process tree, and what became of it. Knows neither the kernel nor the disk.

use serde::{Deserialize, Serialize};

use super::settings::{Keep, Span};
use crate::{event::Pid, session::Ending};

/// One recording, as it is planned. Written beside the sessions while it runs, so that it can go on when we were killed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Plan {
    /// The session's id.
    pub(super) id: String,
    /// The session's name.
    pub(super) name: String,
    /// The user whose processes they are, and whose session it will be.
    pub(super) uid: u32,
    /// That user's group.
    pub(super) gid: u32,
    /// The root of the tree.
    pub(super) root: Pid,
    /// When the root was created, in clock ticks since the machine's start (`/proc/PID/stat`, field 22): with the id it names a process.
    pub(super) root_ticks: u64,
    /// Its command line, as it was before anything was redacted; never written.
    #[serde(skip)]
    pub(super) command: Vec<String>,
    /// Whether it ran before we came.
    pub(super) attached: bool,
    /// When the recording began, in nanoseconds on `CLOCK_MONOTONIC`.
    pub(super) began_ns: u64,
    /// The systemd unit it runs in.
    pub(super) unit: Option<String>,
    /// The rule by which it is recorded; `None` for a user's own request.
    pub(super) rule: Option<String>,
    /// When it is kept.
    pub(super) keep: Keep,
    /// How long it is recorded.
    pub(super) limit: Option<Span>,
    /// The broker to ask, and its management API. A URL may hold a password: never written.
    #[serde(skip)]
    pub(super) broker: Option<String>,
    /// See `broker`.
    #[serde(skip)]
    pub(super) management: Option<String>,
    /// Whether to turn on the broker's tracing.
    #[serde(skip)]
    pub(super) firehose: bool,
    /// Whether message bodies are kept as they are.
    pub(super) bodies: bool,
}

/// What a recording is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// It is over: nothing more will come.
    Over(Ending),
}
