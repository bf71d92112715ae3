//! What the service is told to do. Knows neither files nor variables: where a value comes from is `config`'s business.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Visitor},
};

use crate::words::units;

/// Bytes, written as people write them (`64MiB`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// A length of time in nanoseconds, written as people write it (`30s`, `14d`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Login name or user id of whoever runs it.
    #[serde(deserialize_with = "name_or_number")]
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
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
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

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&units::exact_size(self.0))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&units::exact_duration(self.0))
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wanted = Quantity { what: "a size with its unit, as \"64MiB\"", parse: units::parse_size };
        deserializer.deserialize_any(wanted).map(Self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parse = |text: &str| match text.bytes().last() {
            Some(b'0'..=b'9') => Err(format!(
                "`{text}` has no unit; write \"{text}s\" for seconds, or one of 200ms, 3m, 1h, 14d"
            )),
            _ => units::parse_duration_ns(text),
        };
        let wanted = Quantity { what: "a length of time with its unit, as \"30s\"", parse };
        deserializer.deserialize_any(wanted).map(Self)
    }
}

/// Reads text with a unit in it. A bare number is refused: nobody who reads it knows of what.
struct Quantity {
    what: &'static str,
    parse: fn(&str) -> Result<u64, String>,
}

impl Visitor<'_> for Quantity {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
        (self.parse)(text.trim()).map_err(E::custom)
    }
}

/// A user is a name or an id, and people write an id without quotes.
fn name_or_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    struct User;
    impl Visitor<'_> for User {
        type Value = Option<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a login name or a user id")
        }

        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_none<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            Ok(Some(text.to_owned()))
        }

        fn visit_u64<E: de::Error>(self, id: u64) -> Result<Self::Value, E> {
            Ok(Some(id.to_string()))
        }

        fn visit_i64<E: de::Error>(self, id: i64) -> Result<Self::Value, E> {
            Ok(Some(id.to_string()))
        }
    }
    deserializer.deserialize_any(User)
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
