//! What can be seen, and what not, on this machine and by each source: decided once, used by `attach`, printed by `doctor`, kept in the
//! session. Knows neither of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One thing that was probed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Capability {
    /// A short stable name (`btf`, `cap-bpf`, `broker`).
    pub name: String,
    /// How it stands.
    pub state: State,
    /// What was found, in one line.
    pub found: String,
    /// What is lost without it; empty when it works.
    pub lost: String,
    /// How to get it; empty when it works.
    pub remedy: String,
}

/// How a capability stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It works.
    Works,
    /// It is missing, and recording goes on with less.
    Limited,
    /// It is missing, and recording is impossible without it.
    Missing,
}

/// What a source is and what it cannot see; goes into the session header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Description {
    /// `ebpf`, `ptrace`, `broker` or `replay`.
    pub name: String,
    /// What it cannot see, each in a sentence a person can read.
    pub unseen: Vec<String>,
}
