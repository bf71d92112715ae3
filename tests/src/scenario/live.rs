//! When it is time: the handshakes a scenario may name, asked of the session while it is being recorded. It knows no scenario.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rusqlite::{Connection, OpenFlags, ToSql};
use serde_json::Value;

use super::place::Place;
use crate::deadline;

/// How often the observer is asked to read the session again.
const EVERY: Duration = Duration::from_millis(250);

/// What is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ready {
    /// So many processes have reached this rung.
    Rung(String, usize),
    /// So many messages are settled.
    Settled(usize),
    /// The session has so many events of this kind whose fields contain this text.
    Event(String, String, usize),
    /// The broker was seen to say so many times that this queue has at least so many of this (`ready`, `unacked`, `consumers`).
    Queue { name: String, field: String, at_least: i64, times: usize },
    /// The command's output contains it.
    Output(String),
    /// There is such a file in the scene.
    File(String),
    /// The observation has ended.
    End,
    /// So much time has passed.
    Time(Duration),
    /// Nothing more.
    Steps,
}

impl Ready {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        let (what, count) = match rest.rsplit_once('*').and_then(|(what, n)| Some((what, n.parse().ok()?))) {
            Some((what, count)) => (what, count),
            None => (rest, 1),
        };
        Ok(match kind {
            "rung" => Self::Rung(what.into(), count),
            "settled" => Self::Settled(rest.parse().with_context(|| format!("{text}: write settled:3"))?),
            "event" => {
                let (kind, text) = what.split_once(':').unwrap_or((what, ""));
                Self::Event(kind.into(), text.into(), count)
            }
            "queue" => {
                let (name, field) = what.split_once(':').unwrap_or((what, "consumers=0"));
                let (field, number) = field.split_once('=').unwrap_or((field, ""));
                let at_least =
                    number.parse().with_context(|| format!("{text}: write queue:default:ready=3"))?;
                Self::Queue { name: name.into(), field: field.into(), at_least, times: count }
            }
            "output" => Self::Output(rest.into()),
            "file" => Self::File(rest.into()),
            "time" => {
                let seconds = rest.trim_end_matches('s').parse();
                Self::Time(Duration::from_secs_f64(
                    seconds.with_context(|| format!("{text}: write time:2s"))?,
                ))
            }
            "end" => Self::End,
            "steps" => Self::Steps,
            _ => bail!(
                "{text:?} is nothing to wait for: rung:, settled:, event:, queue:, output:, file:, time:, end or steps"
            ),
        })
    }
}

/// An observation that is going on.
pub(super) struct Live<'a> {
    pub(super) place: &'a Place,
    pub(super) program: &'a Path,
    /// The observer, or the command while nobody observes it yet.
    pub(super) child: &'a mut Child,
    pub(super) deadline: Instant,
}

impl Live<'_> {
    /// Waits until it holds. An error when time is over, or when the observation ended and it cannot come to hold any more.
    pub(super) fn wait(&mut self, text: &str) -> Result<()> {
        let text = &self.place.filled(text);
        let ready = Ready::parse(text)?;
        let begun = Instant::now();
        let left = self.deadline.saturating_duration_since(begun);
        deadline::poll_every(text, left, EVERY, || {
            // Looked at first: what holds at the end was there before it.
            let ended = self.child.try_wait().is_ok_and(|status| status.is_some());
            match self.holds(&ready, begun, ended) {
                Ok(true) => Some(Ok(())),
                Ok(false) if ended => Some(Err(anyhow::anyhow!("it ended before this: {text}"))),
                Ok(false) => None,
                Err(error) => Some(Err(error)),
            }
        })?
    }

    fn holds(&self, ready: &Ready, begun: Instant, ended: bool) -> Result<bool> {
        match ready {
            Ready::Steps => Ok(true),
            Ready::End => Ok(ended),
            Ready::Time(time) => Ok(begun.elapsed() >= *time),
            Ready::File(name) => Ok(self.place.scene().join(name).exists()),
            Ready::Output(text) => {
                let written = |name| std::fs::read(self.place.path(name)).unwrap_or_default();
                let has = |bytes: Vec<u8>| bytes.windows(text.len()).any(|part| part == text.as_bytes());
                Ok(has(written("log/stdout")) || has(written("log/stderr")) || self.recorded_output(text))
            }
            Ready::Event(kind, text, count) => {
                let query = "SELECT count(*) FROM events WHERE kind = ?1 AND instr(data, ?2) > 0";
                Ok(self.count(query, &[kind, text]) >= *count)
            }
            Ready::Queue { name, field, at_least, times } => {
                let vhost = self.place.filled("{vhost}");
                let field = format!("$.{field}");
                let query = "SELECT count(*) FROM events WHERE kind = 'queue-sample'
                    AND json_extract(data, '$.vhost') = ?1 AND json_extract(data, '$.queue') = ?2
                    AND json_extract(data, ?3) >= ?4";
                Ok(self.count(query, &[&vhost, name, &field, at_least]) >= *times)
            }
            Ready::Rung(rung, count) => {
                let reached = |worker: &&Value| {
                    let rungs = worker["rungs"].as_array().into_iter().flatten();
                    rungs.filter(|step| step["rung"] == **rung).any(|step| step["reached"] == true)
                };
                let shown = self.show("--ladder", "ladder");
                Ok(shown.as_array().into_iter().flatten().filter(reached).count() >= *count)
            }
            Ready::Settled(count) => {
                let shown = self.show("--messages", "messages");
                let passages =
                    shown.as_array().into_iter().flatten().filter_map(|one| one["passages"].as_array());
                Ok(passages.flatten().filter(|passage| !passage["settled"].is_null()).count() >= *count)
            }
        }
    }

    fn recorded_output(&self, text: &str) -> bool {
        self.count(
            "SELECT count(*) FROM events WHERE kind = 'output' AND instr(bytes, CAST(?1 AS BLOB)) > 0",
            &[&text],
        ) > 0
    }

    /// Asks the file itself. It may not be there yet, or be written to at this moment: then the answer comes with the next question.
    fn count(&self, query: &str, parameters: &[&dyn ToSql]) -> usize {
        let asked = || -> Option<usize> {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
            let database = Connection::open_with_flags(self.place.session()?, flags).ok()?;
            database
                .query_row(query, parameters, |row| row.get::<_, i64>(0))
                .ok()
                .and_then(|count| count.try_into().ok())
        };
        asked().unwrap_or(0)
    }

    fn show(&self, view: &str, key: &str) -> Value {
        let output = Command::new(self.program)
            .arg("--state-dir")
            .arg(self.place.path("state"))
            .args(["show", self.place.name, view, "--format", "json"])
            .stdin(Stdio::null())
            .output();
        let document = output.ok().and_then(|output| serde_json::from_slice(&output.stdout).ok());
        document.map_or(Value::Null, |mut document: Value| document[key].take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshakes_are_words_and_numbers() {
        assert_eq!(Ready::parse("rung:consume").unwrap(), Ready::Rung("consume".into(), 1));
        assert_eq!(Ready::parse("rung:consume*8").unwrap(), Ready::Rung("consume".into(), 8));
        assert_eq!(Ready::parse("event:exit").unwrap(), Ready::Event("exit".into(), String::new(), 1));
        assert_eq!(
            Ready::parse("event:connect:111*2").unwrap(),
            Ready::Event("connect".into(), "111".into(), 2)
        );
        let Ready::Queue { name, field, at_least, times } = Ready::parse("queue:mail:ready=4*2").unwrap()
        else {
            panic!("not a queue");
        };
        assert_eq!((name.as_str(), field.as_str(), at_least, times), ("mail", "ready", 4, 2));
        assert_eq!(Ready::parse("output:a: b*").unwrap(), Ready::Output("a: b*".into()));
        assert_eq!(Ready::parse("time:1.5s").unwrap(), Ready::Time(Duration::from_millis(1500)));
        assert!(Ready::parse("soon").is_err());
    }
}
