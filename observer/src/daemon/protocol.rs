//! What is said over the control socket: one JSON document a line, a reply to each request. Knows nothing of sockets.

use serde::{Deserialize, Serialize};

use super::status::Status;

/// Where the service listens.
pub const SOCKET: &str = "/run/observer/observer.sock";
/// The longest line, in bytes; who sends more is hung up on.
pub const MOST_LINE: usize = 256 << 10;

/// What a client may ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Request {
    /// How the service is.
    Status,
    /// To record a process of the client's own user.
    Record(Record),
    /// To stop recording one.
    LetGo {
        /// The session's id.
        id: String,
    },
    /// To be told when a recording is over and concluded.
    Wait {
        /// The session's id.
        id: String,
    },
    /// That a session is never removed to make room, or may be again.
    Pin {
        /// The session's id.
        id: String,
        /// Whether it is to stay.
        on: bool,
    },
}

/// A process to be recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The process.
    pub pid: u32,
    /// It waits to execute its command, rather than running already.
    #[serde(default)]
    pub held: bool,
    /// The command, when it is held.
    #[serde(default)]
    pub command: Vec<String>,
    /// The session's name; without it, after the command.
    #[serde(default)]
    pub name: Option<String>,
    /// The broker to ask: a URL, or `worker`.
    #[serde(default)]
    pub broker: Option<String>,
    /// Its management API.
    #[serde(default)]
    pub management: Option<String>,
    /// Whether to turn on its tracing.
    #[serde(default)]
    pub firehose: bool,
    /// Whether message bodies are kept.
    #[serde(default)]
    pub bodies: bool,
}

/// What a client is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    /// How the service is.
    Status(Box<Status>),
    /// A recording has begun.
    Begun {
        /// The session's id.
        id: String,
        /// The session's name.
        name: String,
        /// The session's file.
        path: String,
    },
    /// It is done.
    Done,
    /// It cannot be done.
    Error {
        /// Why, and what to do.
        message: String,
    },
}
