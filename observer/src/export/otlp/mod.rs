//! A session as OpenTelemetry traces and logs, in requests ready to be sent. Knows sessions and the model; what is said where is written
//! down in `schema/otlp.txt`. How requests travel is not its business.
//!
//! No SDK is used: its spans begin and end now, and these did when they were observed.

mod attributes;
mod batch;
mod conventions;
mod frame;
mod imports;
mod lives;
mod logs;
mod processes;

use std::{collections::HashMap, ops::ControlFlow};

use opentelemetry_proto::tonic::{
    common::v1::InstrumentationScope,
    logs::v1::SeverityNumber,
    resource::v1::Resource,
    trace::v1::{
        Span, Status,
        span::{Event as SpanEvent, SpanKind},
        status::StatusCode,
    },
};

pub use batch::Batch;

use self::{
    attributes::{Attributes, harmless},
    batch::Batches,
    conventions::{self as names, ours},
    frame::{Frame, key},
    imports::Imports,
    processes::Happened,
};
use super::{Lost, Progress, unseen};
use crate::{
    diagnose::{self, Explanation, case::Case, catalogue::Severity, finding::Finding},
    event::{Event, Pid},
    fold,
    model::{Model, message::Life, process::Process},
    session::{Filter, Header, Session, SessionError},
};

const SCHEMA: &str = "observer.otlp/1";

/// What was told of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Spans, all together.
    pub spans: u64,
    /// Log records, all together.
    pub logs: u64,
    /// Messages: each is a trace of its own.
    pub messages: u64,
    /// Processes.
    pub processes: u64,
    /// Imports.
    pub imports: u64,
    /// Findings.
    pub findings: u64,
}

/// Hands a session on in requests, each when it is full; what `sink` answers with an error ends it.
///
/// # Errors
/// When the session cannot be read, and `sink`'s own.
pub fn write<E: From<SessionError>>(
    session: &Session,
    progress: &Progress,
    sink: &mut dyn FnMut(Batch) -> Result<(), E>,
) -> Result<Told, E> {
    let header = session.header();
    let mut model = Model::with_lives(header.started_ns);
    let mut telling = Telling::begin(header, sink);
    let not_understood = fold::read_ahead(session, &Filter::default(), |id, event| {
        progress.one();
        telling.take(&mut model, id, &event);
        if telling.batches.failed() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if !telling.batches.failed() {
        model.finish();
        let last_ns = model.last_ns;
        let Model { amqp, processes, .. } = &mut model;
        amqp.lives.take_done().for_each(|life| telling.life(processes, &life, last_ns));
        let ending = session.ending();
        let case = Case::new(header, ending.as_ref(), &model);
        telling.rest(&case, &session.state().to_string(), not_understood);
    }
    let Telling { batches, told, .. } = telling;
    batches.finish().map(|()| told)
}

struct Telling<'a, E> {
    frame: Frame,
    batches: Batches<'a, E>,
    imports: Imports,
    happened: Happened,
    lost: Lost,
    told: Told,
}

impl<'a, E> Telling<'a, E> {
    fn begin(header: &Header, sink: &'a mut dyn FnMut(Batch) -> Result<(), E>) -> Self {
        let resource = Attributes::new()
            .text(names::SERVICE_NAME, Some(&header.name))
            .text(names::SERVICE_INSTANCE_ID, Some(&header.id))
            .text(names::HOST_NAME, Some(&header.host))
            .text(names::OS_TYPE, Some("linux"))
            .text(names::OS_VERSION, Some(&header.kernel))
            .text(ours::SCHEMA, Some(SCHEMA))
            .text(ours::SESSION_ID, Some(&header.id))
            .text(ours::SESSION_NAME, Some(&header.name))
            .text(ours::BACKEND, Some(&header.backend))
            .texts(ours::UNSEEN, unseen(header));
        let resource = Resource {
            attributes: resource.all,
            dropped_attributes_count: resource.dropped,
            ..Resource::default()
        };
        let version = harmless(&header.observer_version);
        let scope = InstrumentationScope { name: "observer".to_owned(), version, ..Default::default() };
        let mut telling = Self {
            frame: Frame::new(header),
            batches: Batches::new(resource, scope, sink),
            imports: Imports::default(),
            happened: Happened::default(),
            lost: Lost::default(),
            told: Told::default(),
        };
        for text in unseen(header) {
            telling.say(header.started_ns, ours::UNSEEN, SeverityNumber::Info, text, Attributes::new());
        }
        telling
    }

    fn take(&mut self, model: &mut Model, id: u64, event: &Event) {
        model.add(id, event);
        self.lost.add(event);
        let known = &model.processes;
        self.happened.take(&self.frame, known, id, event);
        let Self { imports, batches, told, .. } = self;
        imports.take(&self.frame, known, id, event, &mut |span| import(batches, told, span));
        if let Some(record) = logs::of_event(&self.frame, known, id, event) {
            self.told.logs += 1;
            self.batches.log(record);
        }
        let last_ns = model.last_ns;
        let Model { amqp, processes, .. } = model;
        amqp.lives.take_done().for_each(|life| self.life(processes, &life, last_ns));
    }

    fn life(&mut self, known: &crate::model::process::Processes, life: &Life, last_ns: u64) {
        self.told.messages += 1;
        for span in lives::spans(&self.frame, known, life, last_ns) {
            self.told.spans += 1;
            self.batches.span(span);
        }
    }

    /// What is known at the end only: processes with their findings, the session, the verdict.
    fn rest(&mut self, case: &Case<'_>, state: &str, not_understood: u64) {
        let (known, last_ns) = (&case.model.processes, case.model.last_ns);
        let Self { imports, batches, told, .. } = self;
        imports.finish(&self.frame, last_ns, &mut |span| import(batches, told, span));
        let explanation = diagnose::explain(case);
        let mut found = HashMap::<Option<(Pid, u64)>, Vec<SpanEvent>>::new();
        for finding in &explanation.findings {
            let process = finding.process.and_then(|subject| known.get(subject.pid));
            found.entry(process.map(key)).or_default().push(logs::as_event(&self.frame, finding, last_ns));
            self.finding(finding, process, last_ns);
        }
        for process in known.iter() {
            let (count, findings) = (self.imports.count(process), found.remove(&Some(key(process))));
            let findings = findings.unwrap_or_default();
            let span = self.happened.span(&self.frame, known, process, count, findings, last_ns);
            self.told.processes += 1;
            self.told.spans += 1;
            self.batches.span(span);
        }
        let span = self.session(case, &explanation, state, not_understood);
        let events = found.remove(&None).unwrap_or_default();
        self.told.spans += 1;
        self.batches.span(Span { events, ..span });
        let verdict = &explanation.verdict;
        let attributes = Attributes::new()
            .text(ours::CODE, Some(verdict.code.name()))
            .text(ours::CAUSE, verdict.cause)
            .fraction(ours::CONFIDENCE, verdict.confidence)
            .text(ours::SUMMARY, Some(&verdict.summary))
            .text(ours::REMEDY, Some(&verdict.remedy))
            .text(ours::LOST_WHAT, Some(self.lost.text()))
            .number(ours::LOST, Some(self.lost.total))
            .number(ours::NOT_UNDERSTOOD, Some(not_understood));
        let severity = logs::severity(verdict.severity);
        self.say(last_ns, ours::VERDICT, severity, &verdict.title, attributes);
    }

    fn finding(&mut self, finding: &Finding, process: Option<&Process>, last_ns: u64) {
        let span_id = process.map_or_else(|| self.frame.session(), |process| self.frame.process(process));
        self.told.findings += 1;
        self.told.logs += 1;
        self.batches.log(logs::of_finding(&self.frame, finding, span_id, last_ns));
    }

    fn session(&self, case: &Case<'_>, explanation: &Explanation, state: &str, not_understood: u64) -> Span {
        let (header, model, verdict) = (case.header, case.model, &explanation.verdict);
        let end_ns = case.ending.map_or(model.last_ns, |ending| ending.ended_ns.max(model.last_ns));
        let positive = |count: u64| (count > 0).then_some(count);
        let attributes = Attributes::new()
            .texts(names::PROCESS_COMMAND_ARGS, &header.command)
            .text(ours::STATE, Some(state))
            .text(ours::REASON, case.ending.map(|ending| &ending.reason))
            .signed(names::PROCESS_EXIT_CODE, case.ending.and_then(|ending| ending.code).map(i64::from))
            .text(ours::CODE, Some(verdict.code.name()))
            .text(ours::CAUSE, verdict.cause)
            .number(ours::LOST, Some(self.lost.total))
            .text(ours::LOST_WHAT, Some(self.lost.text()))
            .number(ours::NOT_UNDERSTOOD, Some(not_understood))
            .number(ours::PROCESSES_LEFT_OUT, positive(model.processes.left_out))
            .number(ours::MESSAGES_CUT_SHORT, positive(model.amqp.lives.totals.cut_short))
            .flag(ours::UNFINISHED, case.ending.is_none());
        let failed = verdict.severity == Severity::Failure;
        let status = Status { message: harmless(&verdict.title), code: StatusCode::Error.into() };
        Span {
            trace_id: self.frame.trace(),
            span_id: self.frame.session(),
            name: harmless(&format!("session {}", header.name)),
            kind: SpanKind::Internal.into(),
            start_time_unix_nano: self.frame.unix_ns(header.started_ns),
            end_time_unix_nano: self.frame.unix_ns(end_ns),
            attributes: attributes.all,
            status: failed.then_some(status),
            ..Span::default()
        }
    }

    fn say(&mut self, at_ns: u64, name: &str, severity: SeverityNumber, text: &str, about: Attributes) {
        self.told.logs += 1;
        self.batches.log(logs::of_session(&self.frame, at_ns, name, severity, text, about));
    }
}

fn import<E>(batches: &mut Batches<'_, E>, told: &mut Told, span: Span) {
    told.imports += 1;
    told.spans += 1;
    batches.span(span);
}

#[cfg(test)]
mod tests;
