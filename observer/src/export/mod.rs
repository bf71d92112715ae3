//! Sessions in the formats of other programs, one file or folder a format. Knows sessions, the model and what was concluded of it; nothing
//! of sources, of the command line, or of where the bytes go.
//!
//! A session is written as it is read: memory does not grow with it. Every format carries what was lost and what could not be seen. Nothing
//! is shown that the session does not hold: what was redacted stays so.

pub mod html;
pub mod jsonl;
pub mod markdown;
pub mod otlp;
pub mod parquet;
pub mod pcapng;
pub mod perfetto;

#[cfg(test)]
mod testing;

use std::{
    collections::BTreeMap,
    io,
    sync::atomic::{AtomicU64, Ordering},
};

use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    diagnose::case::Case,
    event::{Body, Event},
    model::{
        dramatiq::Role,
        process::{Process, Processes},
    },
    session::{Ending, Header, SessionError},
    words,
};

/// How deep it is looked for the program of a process that was forked.
const MOST_PARENTS: usize = 64;
const MOST_NAME_CHARS: usize = 120;

/// A format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One page for a browser.
    Html,
    /// One event a line, as JSON.
    Jsonl,
    /// A section for an issue or a log.
    Markdown,
    /// The AMQP conversations as packets, for Wireshark.
    Pcapng,
    /// A trace for ui.perfetto.dev.
    Perfetto,
    /// A folder of tables, for DuckDB and what else reads a fleet's. Needs the feature `parquet`.
    Parquet,
    /// Traces and logs, sent to an OpenTelemetry collector.
    Otlp,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Html, Self::Jsonl, Self::Markdown, Self::Pcapng, Self::Perfetto, Self::Parquet, Self::Otlp];
    /// Their names, in the same order.
    pub const NAMES: [&str; 7] = [
        Self::Html.name(),
        Self::Jsonl.name(),
        Self::Markdown.name(),
        Self::Pcapng.name(),
        Self::Perfetto.name(),
        Self::Parquet.name(),
        Self::Otlp.name(),
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Html => "html",
            Self::Jsonl => "jsonl",
            Self::Markdown => "markdown",
            Self::Pcapng => "pcapng",
            Self::Perfetto => "perfetto",
            Self::Parquet => "parquet",
            Self::Otlp => "otlp",
        }
    }

    /// Whether this program was built to write it.
    pub const fn is_built(self) -> bool {
        !matches!(self, Self::Parquet) || cfg!(feature = "parquet")
    }

    /// The format of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// Whether a terminal could not show it.
    pub const fn is_binary(self) -> bool {
        matches!(self, Self::Pcapng | Self::Perfetto)
    }

    /// What is where in it, and the version of that: JSON Schema for `jsonl`, text for the others.
    ///
    /// # Errors
    /// When the schema cannot be written as JSON.
    pub fn schema(self) -> serde_json::Result<String> {
        Ok(match self {
            Self::Html => include_str!("schema/html.txt").to_owned(),
            Self::Jsonl => jsonl::schema()?,
            Self::Markdown => include_str!("schema/markdown.txt").to_owned(),
            Self::Pcapng => include_str!("schema/pcapng.txt").to_owned(),
            Self::Perfetto => include_str!("schema/perfetto.txt").to_owned(),
            Self::Parquet => parquet::schema(),
            Self::Otlp => include_str!("schema/otlp.txt").to_owned(),
        })
    }
}

/// Why an export was not finished.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The session could not be read.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// What was made of it could not be written.
    #[error("cannot write the export")]
    Write(#[from] io::Error),
}

/// How many events were read by now, for whoever shows progress.
#[derive(Debug, Default)]
pub struct Progress(AtomicU64);

impl Progress {
    /// One more.
    pub(crate) fn one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The counter itself.
    pub const fn counter(&self) -> &AtomicU64 {
        &self.0
    }
}

/// What was lost on the way into the session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Lost {
    /// Events lost, all kinds together.
    pub total: u64,
    /// Events lost, by the kind of record that was lost.
    pub by: BTreeMap<String, u64>,
}

impl Lost {
    /// Takes in the next event.
    fn add(&mut self, event: &Event) {
        let (what, count) = match &event.body {
            Body::Lost { what, count, .. } => (what.as_str(), *count),
            // What happened while nobody watched cannot be counted: one.
            Body::Gap { .. } => ("gap", 1),
            _ => return,
        };
        self.total += count;
        *self.by.entry(what.to_owned()).or_default() += count;
    }

    /// For people: `12 events lost (file 12)`; `no event was lost`.
    fn text(&self) -> String {
        if self.total == 0 {
            return "no event was lost".to_owned();
        }
        let by: Vec<String> = self.by.iter().map(|(what, count)| format!("{what} {count}")).collect();
        format!("{} lost ({})", words::units::counted(self.total, "event"), by.join(", "))
    }
}

/// A session in a few lines, each with its name; as recorded, nothing is escaped.
fn facts(case: &Case<'_>) -> Vec<(&'static str, String)> {
    let header = case.header;
    let ended = match case.ending {
        None => "no end recorded".to_owned(),
        Some(Ending { signal: Some(signal), .. }) => format!("killed by {}", words::names::signal(*signal)),
        Some(Ending { code: Some(code), .. }) => format!("exited with {code}"),
        Some(Ending { reason, .. }) => reason.clone(),
    };
    let ran = words::units::duration(case.ended_ns().saturating_sub(header.started_ns));
    vec![
        ("id", header.id.clone()),
        ("command", words::command(&header.command)),
        ("began", header.started_at.clone()),
        ("lasted", format!("{ran}, {ended}")),
        ("host", format!("{}, Linux {}", header.host, header.kernel)),
        ("observer", format!("{}, {}", header.observer_version, header.backend)),
    ]
}

/// What the sources of a session could not see.
fn unseen(header: &Header) -> impl Iterator<Item = &str> {
    header.sources.iter().flat_map(|source| source.unseen.iter().map(String::as_str))
}

/// When a session began, in nanoseconds since 1970; 0 when that cannot be read.
fn started_at_ns(header: &Header) -> u64 {
    let at = header.started_at.parse::<jiff::Timestamp>().map(jiff::Timestamp::as_nanosecond);
    at.ok().and_then(|at| u64::try_from(at).ok()).unwrap_or(0)
}

/// The arguments of a process: of a fork, its parent's; none when they are not known.
fn argv<'a>(known: &'a Processes, mut process: Option<&'a Process>) -> &'a [String] {
    for _ in 0..MOST_PARENTS {
        let Some(one) = process else { break };
        if let Some(program) = one.program() {
            return program.argv.get().map_or(&[], Vec::as_slice);
        }
        process = one.parent.and_then(|parent| known.get(parent));
    }
    &[]
}

/// What a process is called: `worker python -m dramatiq …`.
fn process_name(role: Role, argv: &[String]) -> String {
    let name = format!("{} {}", role.name(), words::command(argv));
    let name: String = name.chars().take(MOST_NAME_CHARS).collect();
    name.trim_end().to_owned()
}
