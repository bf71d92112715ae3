//! Sends requests to a receiver of OTLP, one after the other, and each again for as long as that may help. Knows the two ways OTLP travels;
//! nothing of what is sent.

use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use opentelemetry_proto::tonic::collector::{
    logs::v1::{ExportLogsServiceResponse, logs_service_client::LogsServiceClient},
    trace::v1::{ExportTraceServiceResponse, trace_service_client::TraceServiceClient},
};
use prost::Message;
use reqwest::{Client, redirect};
use tokio::runtime::Runtime;
use tonic::{
    Request,
    codec::CompressionEncoding,
    metadata::MetadataMap,
    transport::{Channel, ClientTlsConfig},
};

use super::{
    answer::{Taken, is_protobuf, of_error, of_grpc, of_http},
    endpoint::{Endpoint, Protocol},
    retry::{self, Failure, Kind},
};
use crate::{export::otlp::Batch, words::units};

/// For so long one request is tried again.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of an answer this much is read.
const MOST_ANSWER_BYTES: usize = 1 << 20;
/// Different things a receiver may have to say that are shown.
const MOST_WARNINGS: usize = 10;

/// The way to a receiver.
pub(super) struct Sender {
    runtime: Runtime,
    wire: Wire,
    endpoint: Endpoint,
    deadline: Instant,
    time_limit: Duration,
    /// Whether the receiver has answered at all.
    reached: bool,
    /// Spans and log records it took.
    sent: u64,
    /// What it took none the less, and what it had to say.
    pub(super) rejected: u64,
    pub(super) warnings: Vec<String>,
}

enum Wire {
    Grpc(Box<Grpc>),
    Http(Client),
}

struct Grpc {
    traces: TraceServiceClient<Channel>,
    logs: LogsServiceClient<Channel>,
}

impl Sender {
    /// A way to `endpoint`; `time_limit` is for all that is sent together.
    pub(super) fn new(endpoint: Endpoint, time_limit: Duration) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the sender's event loop")?;
        let wire = {
            let _inside = runtime.enter();
            Wire::new(&endpoint).with_context(|| format!("cannot send to {endpoint}"))?
        };
        Ok(Self {
            runtime,
            wire,
            endpoint,
            deadline: Instant::now() + time_limit,
            time_limit,
            reached: false,
            sent: 0,
            rejected: 0,
            warnings: Vec::new(),
        })
    }

    /// Where to.
    pub(super) const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Sends a request, and comes back when the receiver has it.
    pub(super) fn send(&mut self, batch: Batch) -> anyhow::Result<()> {
        let records = batch.records() as u64;
        let give_up = self.deadline.min(Instant::now() + PATIENCE);
        for attempt in 0.. {
            let left = give_up.saturating_duration_since(Instant::now());
            let limit = left.min(self.endpoint.timeout);
            let answer = self.runtime.block_on(async {
                let answer = tokio::time::timeout(limit, self.wire.ask(&self.endpoint, &batch));
                answer.await.unwrap_or_else(|_| Err(timed_out(limit)))
            });
            let failure = match answer {
                Ok(taken) => {
                    self.took(records, taken);
                    return Ok(());
                }
                Err(failure) => failure,
            };
            // A receiver that answers, whatever it says, is there.
            self.reached |= matches!(failure.kind, Kind::Http(_) | Kind::Grpc(_));
            let wait = retry::wait(&failure, attempt, self.reached, chance());
            let left = give_up.saturating_duration_since(Instant::now());
            match wait.filter(|wait| *wait < left) {
                Some(wait) => {
                    tracing::debug!("{}: {}; once more in {wait:?}", self.endpoint, failure.text);
                    self.runtime.block_on(async { tokio::time::sleep(wait).await });
                }
                None => return Err(self.failed(&failure, attempt, wait.is_some())),
            }
        }
        Ok(())
    }

    fn took(&mut self, records: u64, taken: Taken) {
        self.reached = true;
        self.sent += records.saturating_sub(taken.rejected);
        self.rejected += taken.rejected;
        let said = taken.message;
        if !said.is_empty() && !self.warnings.contains(&said) && self.warnings.len() < MOST_WARNINGS {
            self.warnings.push(said);
        }
    }

    /// What was attempted, what was answered, what to do next.
    fn failed(&self, failure: &Failure, attempt: u32, passing: bool) -> anyhow::Error {
        let mut text =
            format!("cannot send to {} ({}): {}", self.endpoint, self.endpoint.protocol.name(), failure.text);
        if attempt > 0 {
            text += &format!(", tried {} times", attempt + 1);
        }
        if passing && self.deadline <= Instant::now() + PATIENCE {
            let limit = units::duration(u64::try_from(self.time_limit.as_nanos()).unwrap_or(u64::MAX));
            text += &format!(", and the time limit of {limit} does not allow another try (--time-limit)");
        }
        text += "; ";
        text += match failure.kind {
            Kind::NoAnswer if self.endpoint.url.scheme() == "https" => {
                "is TLS spoken there? Where it is not, write http://"
            }
            kind => next(kind),
        };
        if self.sent > 0 {
            let taken = units::counted(self.sent, "span or log record");
            text +=
                &format!(". Before that it took {taken}; what is sent again has the same trace and span ids");
        }
        anyhow!(text)
    }
}

/// What a person can do next.
const fn next(kind: Kind) -> &'static str {
    match kind {
        Kind::Unreachable => "start a collector (a receiver of OTLP) there, or name another --endpoint",
        Kind::TimedOut => {
            "look whether the receiver works, or give it longer (OTEL_EXPORTER_OTLP_TIMEOUT, in ms)"
        }
        Kind::NoAnswer | Kind::Http(404 | 405 | 415) | Kind::Grpc(12) => {
            "is it a receiver of OTLP, and of this protocol? As a rule --protocol grpc goes to port 4317, http/protobuf to 4318"
        }
        Kind::Http(401 | 403) | Kind::Grpc(7 | 16) => {
            "put the receiver's token into OTEL_EXPORTER_OTLP_HEADERS (authorization=Bearer%20…)"
        }
        Kind::Http(413) => "let the receiver take requests of 4 MiB",
        Kind::Http(429 | 502 | 503 | 504) | Kind::Grpc(1 | 4 | 8 | 10 | 11 | 14 | 15) => {
            "send again when the receiver has recovered"
        }
        Kind::Http(_) | Kind::Grpc(_) => "the receiver's log may say why",
    }
}

fn timed_out(limit: Duration) -> Failure {
    if limit.is_zero() {
        let text = "the time was over before it could be asked".to_owned();
        return Failure { kind: Kind::TimedOut, text, after: None };
    }
    let limit = units::duration(u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX));
    Failure { kind: Kind::TimedOut, text: format!("no answer within {limit}"), after: None }
}

/// From 0 to 1.
fn chance() -> f64 {
    getrandom::u32().map_or(1.0, |number| f64::from(number) / f64::from(u32::MAX))
}

impl Wire {
    fn new(endpoint: &Endpoint) -> anyhow::Result<Self> {
        if endpoint.protocol == Protocol::HttpProtobuf {
            // Nowhere else: headers hold tokens.
            let client = Client::builder().redirect(redirect::Policy::none()).user_agent(product()).build();
            return Ok(Self::Http(client.context("cannot start an HTTP client")?));
        }
        let mut channel = Channel::from_shared(endpoint.url.as_str().to_owned())?.user_agent(product())?;
        if endpoint.url.scheme() == "https" {
            channel = channel.tls_config(ClientTlsConfig::new().with_native_roots())?;
        }
        let channel = channel.connect_lazy();
        let (mut traces, mut logs) =
            (TraceServiceClient::new(channel.clone()), LogsServiceClient::new(channel));
        if endpoint.gzip {
            traces = traces.send_compressed(CompressionEncoding::Gzip);
            logs = logs.send_compressed(CompressionEncoding::Gzip);
        }
        Ok(Self::Grpc(Box::new(Grpc { traces, logs })))
    }

    async fn ask(&mut self, endpoint: &Endpoint, batch: &Batch) -> Result<Taken, Failure> {
        match (self, batch) {
            (Self::Grpc(grpc), Batch::Traces(request)) => {
                let answer = grpc.traces.export(with_headers(endpoint, request.clone())).await;
                Ok(of_traces(answer.map_err(|status| of_grpc(&status))?.get_ref()))
            }
            (Self::Grpc(grpc), Batch::Logs(request)) => {
                let answer = grpc.logs.export(with_headers(endpoint, request.clone())).await;
                Ok(of_logs(answer.map_err(|status| of_grpc(&status))?.get_ref()))
            }
            (Self::Http(client), Batch::Traces(request)) => {
                post(client, endpoint, "traces", request.encode_to_vec(), of_traces).await
            }
            (Self::Http(client), Batch::Logs(request)) => {
                post(client, endpoint, "logs", request.encode_to_vec(), of_logs).await
            }
        }
    }
}

fn product() -> String {
    format!("observer/{}", env!("CARGO_PKG_VERSION"))
}

fn with_headers<T>(endpoint: &Endpoint, message: T) -> Request<T> {
    let mut request = Request::new(message);
    *request.metadata_mut() = MetadataMap::from_headers(endpoint.headers.clone());
    request
}

fn of_traces(answer: &ExportTraceServiceResponse) -> Taken {
    let partial = answer.partial_success.as_ref();
    partial.map_or_else(Taken::default, |part| Taken::new(part.rejected_spans, &part.error_message))
}

fn of_logs(answer: &ExportLogsServiceResponse) -> Taken {
    let partial = answer.partial_success.as_ref();
    partial.map_or_else(Taken::default, |part| Taken::new(part.rejected_log_records, &part.error_message))
}

async fn post<T: Message + Default>(
    client: &Client,
    endpoint: &Endpoint,
    signal: &str,
    body: Vec<u8>,
    taken: fn(&T) -> Taken,
) -> Result<Taken, Failure> {
    let request = client
        .post(endpoint.of_signal(signal))
        .headers(endpoint.headers.clone())
        .header("content-type", "application/x-protobuf")
        .body(body);
    let mut answer = request.send().await.map_err(|error| of_error(&error.without_url()))?;
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| of_error(&error.without_url()))? {
        let room = MOST_ANSWER_BYTES - body.len();
        body.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
        if body.len() >= MOST_ANSWER_BYTES {
            break;
        }
    }
    let (status, headers) = (answer.status(), answer.headers());
    if !status.is_success() {
        return Err(of_http(status, headers, &body));
    }
    match T::decode(body.as_slice()) {
        Ok(said) if body.is_empty() || is_protobuf(headers) => Ok(taken(&said)),
        _ => Ok(Taken::perhaps()),
    }
}
