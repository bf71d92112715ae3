//! What processes wrote, what was found, what was lost and what could not be seen, as log records. Knows events and findings; nothing of
//! spans but their identifiers.

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, any_value::Value},
    logs::v1::{LogRecord, SeverityNumber},
    trace::v1::span::Event as SpanEvent,
};

use super::{
    attributes::{Attributes, harmless},
    conventions::{self as names, ours},
    frame::Frame,
};
use crate::{
    diagnose::{catalogue::Severity, finding::Finding},
    event::{Body, Event, NoteLevel, OutputStream},
    model::process::Processes,
    python,
    words::{self, escape::escape_bytes, units},
};

/// Of one write this much is told.
const MOST_BODY_BYTES: usize = 64 << 10;
/// Levels as `logging` of Python's standard library and dramatiq print them, in brackets; looked for in so much of a line.
const LEVELS: [(&[u8], SeverityNumber); 5] = [
    (b"[DEBUG]", SeverityNumber::Debug),
    (b"[INFO]", SeverityNumber::Info),
    (b"[WARNING]", SeverityNumber::Warn),
    (b"[ERROR]", SeverityNumber::Error),
    (b"[CRITICAL]", SeverityNumber::Fatal),
];
const MOST_PREFIX_BYTES: usize = 200;
/// Pieces of evidence that are told.
const MOST_EVIDENCE: usize = 16;

/// What is told of an event, when something is.
pub(super) fn of_event(frame: &Frame, known: &Processes, id: u64, event: &Event) -> Option<LogRecord> {
    let record = match &event.body {
        Body::Output { stream, len, errno, .. } => output(event, *stream, *len, *errno),
        Body::Lost { what, count, .. } => {
            let attributes =
                Attributes::new().text(ours::LOST_WHAT, Some(what)).number(ours::LOST, Some(*count));
            let text = format!("{} lost", units::counted(*count, "event"));
            record(ours::LOST, SeverityNumber::Warn, &text, attributes)
        }
        Body::Gap { since_ns, gone, why } => {
            let attributes = Attributes::new().text(ours::LOST_WHAT, Some("gap")).number(ours::LOST, Some(1));
            let text = words::gap(*since_ns, event.at_ns, gone, why);
            record(ours::LOST, SeverityNumber::Warn, &text, attributes)
        }
        Body::Note { level, text } => {
            let severity = match level {
                NoteLevel::Info => SeverityNumber::Info,
                NoteLevel::Warning => SeverityNumber::Warn,
                NoteLevel::Trouble => SeverityNumber::Error,
            };
            record(ours::NOTE, severity, text, Attributes::new())
        }
        _ => return None,
    };
    let mut attributes = record.attributes;
    attributes.extend(Attributes::new().number(ours::EVENT, Some(id)).all);
    let process = known.get(event.pid);
    let span_id = process.map_or_else(|| frame.session(), |process| frame.process(process));
    Some(at(frame, event.at_ns, LogRecord { attributes, trace_id: frame.trace(), span_id, ..record }))
}

fn output(event: &Event, stream: OutputStream, len: u64, errno: i32) -> LogRecord {
    let (name, text) = match stream {
        OutputStream::Stdout => ("stdout", None),
        OutputStream::Stderr => ("stderr", None),
        // How a worker hands its lines to its parent.
        OutputStream::Pipe => ("pipe", python::connection_message(&event.bytes)),
    };
    let text = text.unwrap_or(&event.bytes);
    let kept = text.get(..MOST_BODY_BYTES).unwrap_or(text);
    let missing = len.saturating_sub(event.bytes.len() as u64) + (text.len() - kept.len()) as u64;
    let lines = kept.strip_suffix(b"\n").unwrap_or(kept).split(|byte| *byte == b'\n').map(escape_bytes);
    let body = lines.collect::<Vec<_>>().join("\n");
    let (severity_number, severity_text) = level(kept).unwrap_or_default();
    let attributes = Attributes::new()
        .text(names::LOG_IOSTREAM, (stream != OutputStream::Pipe).then_some(name))
        .text(ours::STREAM, Some(name))
        .number(names::PROCESS_PID, Some(event.pid.0.into()))
        .number(names::THREAD_ID, (event.tid.0 != 0).then_some(event.tid.0.into()))
        .number(ours::MISSING_BYTES, (missing > 0).then_some(missing))
        .text(names::ERROR_TYPE, (errno != 0).then(|| words::names::errno(errno)));
    LogRecord {
        severity_number,
        severity_text,
        body: Some(AnyValue { value: Some(Value::StringValue(body)) }),
        attributes: attributes.all,
        ..LogRecord::default()
    }
}

/// The level that a line names; not known when it names none.
fn level(text: &[u8]) -> Option<(i32, String)> {
    let line = text.split(|byte| *byte == b'\n').next()?;
    let prefix = line.get(..MOST_PREFIX_BYTES).unwrap_or(line);
    let place = |name: &[u8]| prefix.windows(name.len()).position(|window| window == name);
    let named = LEVELS.iter().filter_map(|(name, level)| Some((place(name)?, *name, *level)));
    let (_, name, level) = named.min_by_key(|(place, ..)| *place)?;
    let name = String::from_utf8_lossy(name.strip_prefix(b"[")?.strip_suffix(b"]")?).into_owned();
    Some((level.into(), name))
}

/// A finding; `span_id` is that of the process it is about.
pub(super) fn of_finding(frame: &Frame, finding: &Finding, span_id: Vec<u8>, last_ns: u64) -> LogRecord {
    let attributes = about(finding);
    let record = record(ours::FINDING, severity(finding.severity), &finding.title, attributes);
    at(frame, moment(finding, last_ns), LogRecord { trace_id: frame.trace(), span_id, ..record })
}

/// The same as an event of a span.
pub(super) fn as_event(frame: &Frame, finding: &Finding, last_ns: u64) -> SpanEvent {
    SpanEvent {
        time_unix_nano: frame.unix_ns(moment(finding, last_ns)),
        name: ours::FINDING.to_owned(),
        attributes: about(finding).text(ours::TITLE, Some(&finding.title)).all,
        ..SpanEvent::default()
    }
}

/// Something of the session as a whole.
pub(super) fn of_session(
    frame: &Frame,
    at_ns: u64,
    name: &str,
    severity: SeverityNumber,
    text: &str,
    attributes: Attributes,
) -> LogRecord {
    let record = record(name, severity, text, attributes);
    at(frame, at_ns, LogRecord { trace_id: frame.trace(), span_id: frame.session(), ..record })
}

/// How bad it is, as logs say it.
pub(super) const fn severity(severity: Severity) -> SeverityNumber {
    match severity {
        Severity::Ok => SeverityNumber::Info,
        Severity::Warning => SeverityNumber::Warn,
        Severity::Failure => SeverityNumber::Error,
    }
}

/// A finding stands where its first evidence does.
fn moment(finding: &Finding, last_ns: u64) -> u64 {
    finding.evidence.first().map_or(last_ns, |evidence| evidence.at_ns)
}

fn about(finding: &Finding) -> Attributes {
    let evidence = finding.evidence.iter().take(MOST_EVIDENCE);
    let evidence = evidence.map(|evidence| format!("event {}: {}", evidence.event, evidence.text));
    let left_out = finding.evidence.len().saturating_sub(MOST_EVIDENCE) as u64;
    Attributes::new()
        .text(ours::CODE, Some(finding.code.name()))
        .text(ours::CAUSE, finding.cause)
        .fraction(ours::CONFIDENCE, finding.confidence)
        .text(ours::SUMMARY, Some(&finding.summary))
        .text(ours::REMEDY, Some(&finding.remedy))
        .texts(ours::EVIDENCE, evidence)
        .number(ours::EVIDENCE_LEFT_OUT, (left_out > 0).then_some(left_out))
        .number(names::PROCESS_PID, finding.process.map(|process| process.pid.0.into()))
}

fn record(name: &str, severity: SeverityNumber, text: &str, attributes: Attributes) -> LogRecord {
    let severity_text = match severity {
        SeverityNumber::Info => "INFO",
        SeverityNumber::Warn => "WARN",
        _ => "ERROR",
    };
    LogRecord {
        event_name: name.to_owned(),
        severity_number: severity.into(),
        severity_text: severity_text.to_owned(),
        body: Some(AnyValue { value: Some(Value::StringValue(harmless(text))) }),
        attributes: attributes.all,
        ..LogRecord::default()
    }
}

fn at(frame: &Frame, at_ns: u64, record: LogRecord) -> LogRecord {
    let unix_ns = frame.unix_ns(at_ns);
    LogRecord { time_unix_nano: unix_ns, observed_time_unix_nano: unix_ns, ..record }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_level_it_names_first_and_none_when_it_names_none() {
        let line =
            b"[2026-11-23 16:15:00,000] [PID 4712] [MainThread] [dramatiq.Worker] [WARNING] not [ERROR]\n";
        assert_eq!(level(line), Some((SeverityNumber::Warn.into(), "WARNING".to_owned())));
        assert_eq!(level(b"hello\n[ERROR] in a later line"), None);
        assert_eq!(level(b""), None);
    }
}
