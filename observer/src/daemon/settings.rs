//! What the service is told to do. Knows neither files nor variables: where a value comes from is `config`'s business.

use serde::{Deserialize, Serialize};

/// Bytes, written as people write them (`64MiB`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Bytes(pub u64);

/// A length of time in nanoseconds, written as people write it (`30s`, `14d`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Span(pub u64);

const MIB: u64 = 1 << 20;
const SECOND: u64 = 1_000_000_000;
const DAY: u64 = 86_400 * SECOND;

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Which commands are recorded; the first that fits counts.
    pub rules: Vec<Rule>,
    /// The ring in which a worker's steady state is kept.
    pub flight: Flight,
    /// What is kept of finished sessions.
    pub retention: Retention,
    /// What is done about findings.
    pub hooks: Vec<Hook>,
    /// Where the figures can be read.
    pub metrics: Metrics,
}

/// When a worker that runs by the rule is kept as a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// When it failed: died, stalled, or did not get to consume.
    #[default]
    Failures,
    /// Whatever became of it.
    Always,
}

/// A command to record. What is not said fits everything, but one of `exe` and `args` must be said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// What the rule is called, in the journal and in `observer status`.
    pub name: String,
    /// Glob for the file that is executed, or the script of it: its name, or with a `/` its whole path.
    pub exe: Option<String>,
    /// Globs for words that stand one after another, anywhere in the command line.
    pub args: Vec<String>,
    /// Login name or user id of whoever runs it.
    pub user: Option<String>,
    /// Glob for the systemd unit it runs in, or a cgroup's name.
    pub unit: Option<String>,
    /// Glob for its cgroup's path, from the root of the hierarchy (`/system.slice/*`).
    pub cgroup: Option<String>,
    /// How long to record; without it, until it ends.
    #[serde(rename = "for")]
    pub limit: Option<Span>,
    /// The broker to ask for its own account: a URL, or `worker` for the one that the worker logs in to.
    pub broker: Option<String>,
    /// The broker's management API, when it is not ten thousand ports above AMQP.
    pub management: Option<String>,
    /// The session's name; without it, after the command.
    pub session: Option<String>,
    /// When it is kept.
    pub keep: Keep,
}

/// How much of a worker is kept while nothing is wrong, and when something is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Flight {
    /// What is kept of a worker's beginning for as long as it runs.
    pub head: Bytes,
    /// What is kept of its latest past.
    pub ring: Bytes,
    /// A worker that does not consume so long after its start is one that failed.
    pub ready_within: Span,
    /// A worker that holds messages and settles none for so long has stalled.
    pub stalled_after: Span,
}

/// What is kept of finished sessions: the oldest healthy ones go first, then the oldest; pinned ones stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// No session older than this.
    pub max_age: Span,
    /// No more sessions than this.
    pub max_sessions: u64,
    /// No more bytes than this, all sessions together.
    pub max_bytes: Bytes,
    /// So much is left free on the file system: below it sessions are removed, and when that does not help nothing new is recorded.
    pub min_free: Bytes,
}

/// What is done when something is concluded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hook {
    /// Globs for the codes it is for (`observer explain --list`).
    pub on: Vec<String>,
    /// The command, its words; it gets the report as JSON on standard input and in `OBSERVER_*` variables.
    #[serde(default)]
    pub command: Vec<String>,
    /// Where to POST the report to, as JSON (`http://` only).
    #[serde(default)]
    pub url: Option<String>,
    /// At most once in this time for each code.
    #[serde(default = "every_minute")]
    pub every: Span,
}

/// Where the figures can be read in the Prometheus text format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// `unix:PATH`, or a loopback address and port; empty for nowhere.
    pub listen: String,
}

const fn every_minute() -> Span {
    Span(60 * SECOND)
}

impl Default for Settings {
    fn default() -> Self {
        let named = |name: &str| Rule { name: name.into(), ..Rule::default() };
        let exe = |exe: &str| Rule { exe: Some(exe.into()), ..named(exe) };
        Self {
            rules: vec![
                Rule {
                    exe: Some("python*".into()),
                    args: vec!["-m".into(), "dramatiq".into()],
                    ..named("python-m-dramatiq")
                },
                exe("dramatiq"),
                exe("dramatiq-gevent"),
            ],
            flight: Flight::default(),
            retention: Retention::default(),
            hooks: Vec::new(),
            metrics: Metrics::default(),
        }
    }
}

impl Default for Flight {
    fn default() -> Self {
        Self {
            head: Bytes(16 * MIB),
            ring: Bytes(32 * MIB),
            ready_within: Span(30 * SECOND),
            stalled_after: Span(300 * SECOND),
        }
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            max_age: Span(14 * DAY),
            max_sessions: 1_000,
            max_bytes: Bytes(2_048 * MIB),
            min_free: Bytes(512 * MIB),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self { listen: "unix:/run/observer/metrics.sock".into() }
    }
}
