//! One event a line, as JSON. Knows how an event is written, and nothing of what it means.
//!
//! The first line describes the session, the last what is not in it; each line has a `kind`.

use std::{
    io::{self, Write},
    ops::ControlFlow,
};

use schemars::{JsonSchema, generate::SchemaSettings};
use serde::Serialize;

use super::{ExportError, Lost, Progress, unseen};
use crate::{
    event::Event,
    fold,
    render::json::{self, Described, Record},
    session::{Filter, Session, State},
};

const SCHEMA: &str = "observer.events/1";

/// The first and the last line.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum Edge<'a> {
    /// The first line.
    Header {
        /// `observer.events/1`. Within one version fields and kinds are only added.
        schema: &'static str,
        /// The session.
        session: Described<'a>,
        /// Whether it is still being recorded: then more may come.
        state: State,
        /// What could not be seen, whatever happened.
        unseen: Vec<&'a str>,
    },
    /// The last line. A file without one was cut off.
    Summary {
        /// How many events the lines between hold.
        events: u64,
        /// Events of the session that are not among them: a newer observer recorded them.
        not_understood: u64,
        /// Events that were lost before they could be recorded.
        lost: Lost,
    },
}

/// A line: the header, an event, or the summary.
#[derive(JsonSchema)]
#[schemars(untagged, title = "observer.events/1")]
#[expect(dead_code, reason = "its schema is what is wanted of it")]
enum Line<'a> {
    Edge(Edge<'a>),
    Event(Record<'a>),
}

/// The JSON Schema of a line.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn schema() -> serde_json::Result<String> {
    let generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    json::pretty(&generator.into_root_schema_for::<Line<'_>>())
}

/// Writes a session, event by event in order of time.
///
/// # Errors
/// When the session cannot be read, or the stream cannot be written.
pub fn write(session: &Session, out: &mut impl Write, progress: &Progress) -> Result<(), ExportError> {
    let mut lines = Lines::begin(session, out)?;
    let mut result = Ok(());
    let not_understood = fold::read_ahead(session, &Filter::default(), |id, event| {
        progress.one();
        result = lines.event(id, &event, out);
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    result?;
    lines.end(not_understood, out)?;
    Ok(())
}

/// Lines being written, for whoever has the events.
pub(crate) struct Lines {
    started_ns: u64,
    /// How many events were written.
    pub(crate) events: u64,
    lost: Lost,
}

impl Lines {
    /// Writes the header.
    ///
    /// # Errors
    /// When the stream cannot be written.
    pub(crate) fn begin(session: &Session, out: &mut impl Write) -> io::Result<Self> {
        let header = session.header();
        let (unseen, state) = (unseen(header).collect(), session.state());
        line(out, &Edge::Header { schema: SCHEMA, session: Described::new(session), state, unseen })?;
        Ok(Self { started_ns: header.started_ns, events: 0, lost: Lost::default() })
    }

    /// Writes an event.
    ///
    /// # Errors
    /// When the stream cannot be written.
    pub(crate) fn event(&mut self, id: u64, event: &Event, out: &mut impl Write) -> io::Result<()> {
        self.events += 1;
        self.lost.add(event);
        line(out, &Record::new(id, event, self.started_ns))
    }

    /// Counts what an event that is not written says was lost.
    pub(crate) fn left_out(&mut self, event: &Event) {
        self.lost.add(event);
    }

    /// Writes the summary.
    ///
    /// # Errors
    /// When the stream cannot be written.
    pub(crate) fn end(self, not_understood: u64, out: &mut impl Write) -> io::Result<()> {
        line(out, &Edge::Summary { events: self.events, not_understood, lost: self.lost })
    }
}

fn line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    json::write(out, value)?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::{
        event::Body,
        export::testing::{self, exported},
    };

    #[test]
    fn each_event_is_a_line_between_a_header_and_a_summary() {
        let (_scratch, session) = testing::session();
        let text = exported(|out, progress| write(&session, out, progress));
        let lines: Vec<Value> = String::from_utf8(text)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let [head, events @ .., tail] = lines.as_slice() else { panic!("{lines:?}") };
        assert_eq!((&head["kind"], &head["schema"]), (&"header".into(), &SCHEMA.into()));
        assert_eq!(head["session"]["id"], session.header().id);
        assert_eq!(head["unseen"], serde_json::json!(["file calls made through io_uring"]));
        assert_eq!(tail["kind"], "summary");
        assert_eq!(tail["events"], events.len());
        assert_eq!(tail["lost"], serde_json::json!({"total": 12, "by": {"file": 12}}));
        let mut expected = 0;
        session
            .events(&Filter::default(), |id, event| {
                let line = &events[expected];
                assert_eq!((&line["id"], &line["kind"]), (&id.into(), &event.body.kind().into()));
                expected += 1;
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(events.len(), expected);
        assert!(!Body::KINDS.contains(&"header") && !Body::KINDS.contains(&"summary"));
    }

    #[test]
    fn nothing_in_it_steers_a_terminal() {
        let (_scratch, session) = testing::session();
        let text = String::from_utf8(exported(|out, progress| write(&session, out, progress))).unwrap();
        assert!(text.lines().flat_map(str::chars).all(crate::words::escape::is_plain));
    }

    #[test]
    fn the_schema_names_every_kind_and_explains_its_fields() {
        let schema: Value = serde_json::from_str(&schema().unwrap()).unwrap();
        let text = schema.to_string();
        for kind in Body::KINDS {
            assert!(text.contains(&format!(r#""const":"{kind}""#)), "{kind}");
        }
        assert!(text.contains("nanoseconds on `CLOCK_MONOTONIC`"), "{text}");
    }
}
