//! Spans and logs in requests of bounded size, handed on as they fill. Knows OTLP's requests; neither what is in them nor how they travel.

use opentelemetry_proto::tonic::{
    collector::{logs::v1::ExportLogsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::InstrumentationScope,
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message;

use super::conventions::SCHEMA_URL;

/// Spans or log records of one request.
pub(super) const MOST_RECORDS: usize = 512;
/// Their bytes. Receivers take 4 MiB unless told otherwise, and one span or record alone may be this long.
pub(super) const MOST_BYTES: usize = 1 << 20;

/// A request, ready to be sent.
#[derive(Clone, Debug)]
pub enum Batch {
    /// Spans.
    Traces(ExportTraceServiceRequest),
    /// Log records.
    Logs(ExportLogsServiceRequest),
}

impl Batch {
    /// How many spans or log records it holds.
    pub fn records(&self) -> usize {
        match self {
            Self::Traces(request) => {
                let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
                scopes.map(|scope| scope.spans.len()).sum()
            }
            Self::Logs(request) => {
                let scopes = request.resource_logs.iter().flat_map(|resource| &resource.scope_logs);
                scopes.map(|scope| scope.log_records.len()).sum()
            }
        }
    }
}

/// Records that wait for their request to fill.
#[derive(Debug)]
struct Waiting<T> {
    records: Vec<T>,
    bytes: usize,
}

impl<T: Message> Waiting<T> {
    const fn new() -> Self {
        Self { records: Vec::new(), bytes: 0 }
    }

    /// Puts one in; answers those that have to leave first.
    fn push(&mut self, record: T) -> Option<Vec<T>> {
        let bytes = record.encoded_len();
        let full = self.records.len() >= MOST_RECORDS || self.bytes + bytes > MOST_BYTES;
        let leaving = if full { self.take() } else { None };
        self.bytes += bytes;
        self.records.push(record);
        leaving
    }

    fn take(&mut self) -> Option<Vec<T>> {
        self.bytes = 0;
        (!self.records.is_empty()).then(|| std::mem::take(&mut self.records))
    }
}

/// What is on its way to a sink. What fails stops it: nothing more is handed on, and [`Batches::finish`] says why.
pub(super) struct Batches<'a, E> {
    resource: Resource,
    scope: InstrumentationScope,
    spans: Waiting<Span>,
    logs: Waiting<LogRecord>,
    sink: &'a mut dyn FnMut(Batch) -> Result<(), E>,
    result: Result<(), E>,
}

impl<'a, E> Batches<'a, E> {
    /// All of one resource, told by `scope`.
    pub(super) fn new(
        resource: Resource,
        scope: InstrumentationScope,
        sink: &'a mut dyn FnMut(Batch) -> Result<(), E>,
    ) -> Self {
        Self { resource, scope, spans: Waiting::new(), logs: Waiting::new(), sink, result: Ok(()) }
    }

    /// Whether it was stopped.
    pub(super) const fn failed(&self) -> bool {
        self.result.is_err()
    }

    pub(super) fn span(&mut self, span: Span) {
        if let Some(spans) = self.spans.push(span) {
            self.send_spans(spans);
        }
    }

    pub(super) fn log(&mut self, record: LogRecord) {
        if let Some(records) = self.logs.push(record) {
            self.send_logs(records);
        }
    }

    /// Hands on what is left, or says what stopped it.
    pub(super) fn finish(mut self) -> Result<(), E> {
        if let Some(spans) = self.spans.take() {
            self.send_spans(spans);
        }
        if let Some(records) = self.logs.take() {
            self.send_logs(records);
        }
        self.result
    }

    fn send_spans(&mut self, spans: Vec<Span>) {
        let scope = Some(self.scope.clone());
        let scope_spans = vec![ScopeSpans { scope, spans, schema_url: SCHEMA_URL.to_owned() }];
        let resource = Some(self.resource.clone());
        let resource_spans = vec![ResourceSpans { resource, scope_spans, schema_url: SCHEMA_URL.to_owned() }];
        self.send(Batch::Traces(ExportTraceServiceRequest { resource_spans }));
    }

    fn send_logs(&mut self, log_records: Vec<LogRecord>) {
        let scope = Some(self.scope.clone());
        let scope_logs = vec![ScopeLogs { scope, log_records, schema_url: SCHEMA_URL.to_owned() }];
        let resource = Some(self.resource.clone());
        let resource_logs = vec![ResourceLogs { resource, scope_logs, schema_url: SCHEMA_URL.to_owned() }];
        self.send(Batch::Logs(ExportLogsServiceRequest { resource_logs }));
    }

    fn send(&mut self, batch: Batch) {
        if self.result.is_ok() {
            self.result = (self.sink)(batch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batches(spans: impl IntoIterator<Item = Span>) -> Vec<(usize, usize)> {
        let mut sent = Vec::new();
        let mut sink = |batch: Batch| {
            let Batch::Traces(request) = &batch else { panic!("{batch:?}") };
            sent.push((batch.records(), request.encoded_len()));
            Ok::<(), ()>(())
        };
        let mut batches = Batches::new(Resource::default(), InstrumentationScope::default(), &mut sink);
        spans.into_iter().for_each(|span| batches.span(span));
        batches.finish().unwrap();
        sent
    }

    #[test]
    fn requests_are_bounded_by_number_and_by_bytes_and_nothing_is_left_behind() {
        let many = batches((0..2 * MOST_RECORDS + 1).map(|_| Span::default()));
        assert_eq!(
            many.iter().map(|(records, _)| *records).collect::<Vec<_>>(),
            [MOST_RECORDS, MOST_RECORDS, 1]
        );
        let big = || Span { name: "x".repeat(MOST_BYTES / 4), ..Span::default() };
        let big = batches((0..10).map(|_| big()));
        assert_eq!(big.iter().map(|(records, _)| *records).sum::<usize>(), 10);
        assert!(big.iter().all(|(_, bytes)| *bytes < MOST_BYTES + 1_000), "{big:?}");
        // One that is too long alone goes alone.
        let huge = Span { name: "x".repeat(2 * MOST_BYTES), ..Span::default() };
        let sent = batches([Span::default(), huge, Span::default()]);
        assert_eq!(sent.iter().map(|(records, _)| *records).collect::<Vec<_>>(), [1, 1, 1]);
    }

    #[test]
    fn what_fails_stops_it() {
        let mut asked = 0;
        let mut sink = |_| {
            asked += 1;
            Err("no")
        };
        let mut batches = Batches::new(Resource::default(), InstrumentationScope::default(), &mut sink);
        for _ in 0..3 * MOST_RECORDS {
            batches.span(Span::default());
        }
        assert!(batches.failed());
        batches.log(LogRecord::default());
        assert_eq!(batches.finish(), Err("no"));
        assert_eq!(asked, 1);
    }
}
