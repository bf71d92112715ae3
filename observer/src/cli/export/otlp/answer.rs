//! What a receiver answers, by gRPC or HTTP, and what fails on the way, in the words of `retry`. Knows the messages that carry it; decides
//! nothing. Text of a receiver is made harmless here.

use std::{error::Error, io, time::Duration};

use prost::Message;
use reqwest::{StatusCode, header::HeaderMap};

use super::retry::{Failure, Kind};
use crate::cli::printable;

/// Of what a receiver says this much is shown.
const MOST_CHARS: usize = 300;

/// What a receiver says of a request it took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// Spans or log records it took none the less.
    pub(super) rejected: u64,
    /// What there is to tell of it, `says: …`; empty when nothing.
    pub(super) message: String,
}

impl Taken {
    pub(super) fn new(rejected: i64, message: &str) -> Self {
        let message = if message.is_empty() { String::new() } else { format!("says: {}", short(message)) };
        Self { rejected: u64::try_from(rejected).unwrap_or(0), message }
    }

    /// Of an answer that is a success of something else.
    pub(super) fn perhaps() -> Self {
        let message =
            "answers with something that is not OTLP: whether it took the data cannot be told".to_owned();
        Self { rejected: 0, message }
    }
}

/// `google.rpc.Status`, the body of an HTTP error and the details of a gRPC one (googleapis, `google/rpc/status.proto`).
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo` (`google/rpc/error_details.proto`).
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<ProtoDuration>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, Message)]
struct ProtoDuration {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// An answer of gRPC that is no success, or what kept it from coming.
pub(super) fn of_grpc(status: &tonic::Status) -> Failure {
    if let Some(error) = status.source() {
        return of_error(error);
    }
    let text = format!("{:?}: {}", status.code(), status.message());
    Failure {
        kind: Kind::Grpc(status.code().into()),
        text: short(&text),
        after: retry_delay(status.details()),
    }
}

fn retry_delay(details: &[u8]) -> Option<Duration> {
    let status = RpcStatus::decode(details).ok()?;
    let info = status.details.iter().find(|any| any.type_url.ends_with("/google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(info.value.as_slice()).ok()?.retry_delay?;
    let (seconds, nanos) = (u64::try_from(delay.seconds).ok()?, u32::try_from(delay.nanos).ok()?);
    Some(Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanos.into())))
}

/// An answer of HTTP that is no success.
pub(super) fn of_http(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Failure {
    let said = match RpcStatus::decode(body) {
        Ok(said) if is_protobuf(headers) => said.message,
        _ => String::from_utf8_lossy(body).trim().to_owned(),
    };
    let separator = if said.is_empty() { "" } else { ": " };
    let text = format!("HTTP {status}{separator}{said}");
    Failure { kind: Kind::Http(status.as_u16()), text: short(&text), after: retry_after(headers) }
}

/// Whether a body is what OTLP says it is.
pub(super) fn is_protobuf(headers: &HeaderMap) -> bool {
    let kind = headers.get("content-type").and_then(|kind| kind.to_str().ok());
    kind.is_some_and(|kind| {
        kind.split(';').next().is_some_and(|kind| kind.trim() == "application/x-protobuf")
    })
}

/// Seconds, or a date (RFC 9110, 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("retry-after")?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Duration::try_from(date.duration_since(jiff::Timestamp::now())).ok().or(Some(Duration::ZERO))
}

/// What failed on the way, told by its cause.
pub(super) fn of_error(error: &(dyn Error + 'static)) -> Failure {
    let mut cause = error;
    let mut io = None;
    loop {
        if let Some(found) = cause.downcast_ref::<io::Error>() {
            io = Some(found.kind());
        }
        match cause.source() {
            Some(source) => cause = source,
            None => break,
        }
    }
    let kind = match io {
        Some(io::ErrorKind::TimedOut) => Kind::TimedOut,
        Some(
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::InvalidData,
        )
        | None => Kind::NoAnswer,
        Some(_) => Kind::Unreachable,
    };
    let text = match io {
        Some(io::ErrorKind::ConnectionRefused) => "nothing listens there".to_owned(),
        _ => short(&cause.to_string()),
    };
    Failure { kind, text, after: None }
}

fn short(text: &str) -> String {
    let mut chars = text.chars();
    let kept = printable(&chars.by_ref().take(MOST_CHARS).collect::<String>());
    if chars.next().is_some() { format!("{kept}…") } else { kept }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn grpcs_retry_info_is_read() {
        let info = RetryInfo { retry_delay: Some(ProtoDuration { seconds: 2, nanos: 500_000_000 }) };
        let type_url = "type.googleapis.com/google.rpc.RetryInfo".to_owned();
        let any = Any { type_url, value: info.encode_to_vec() };
        let details = RpcStatus { code: 8, message: "full".to_owned(), details: vec![any] };
        let status = tonic::Status::with_details(
            Code::ResourceExhausted,
            "full \u{1b}[2J",
            details.encode_to_vec().into(),
        );
        let failure = of_grpc(&status);
        assert_eq!((failure.kind, failure.after), (Kind::Grpc(8), Some(Duration::from_millis(2_500))));
        assert_eq!(failure.text, "ResourceExhausted: full \\x1b[2J");
        assert_eq!(of_grpc(&tonic::Status::new(Code::ResourceExhausted, "full")).after, None);
    }

    #[test]
    fn https_errors_say_what_the_receiver_says() {
        let said = RpcStatus { code: 3, message: "no trace id".to_owned(), details: Vec::new() };
        let protobuf = headers(&[("content-type", "application/x-protobuf"), ("retry-after", " 7 ")]);
        let failure = of_http(StatusCode::BAD_REQUEST, &protobuf, &said.encode_to_vec());
        assert_eq!((failure.kind, failure.after), (Kind::Http(400), Some(Duration::from_secs(7))));
        assert_eq!(failure.text, "HTTP 400 Bad Request: no trace id");
        let failure = of_http(StatusCode::NOT_FOUND, &headers(&[]), "\u{202e}no\n".repeat(200).as_bytes());
        assert!(failure.text.starts_with("HTTP 404 Not Found: \\u{202e}no\\n"), "{}", failure.text);
        assert!(failure.text.ends_with('…'));
    }

    #[test]
    fn a_date_to_come_back_at_is_understood() {
        let past = headers(&[("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")]);
        assert_eq!(retry_after(&past), Some(Duration::ZERO));
        let later = retry_after(&headers(&[("retry-after", "Fri, 31 Dec 2100 23:59:59 GMT")])).unwrap();
        assert!(later > Duration::from_secs(1_000_000), "{later:?}");
        assert_eq!(retry_after(&headers(&[("retry-after", "soon")])), None);
    }

    #[test]
    fn who_is_not_there_is_told_from_who_does_not_answer() {
        let of = |kind: io::ErrorKind| of_error(&io::Error::from(kind));
        assert_eq!(of(io::ErrorKind::ConnectionRefused).kind, Kind::Unreachable);
        assert_eq!(of(io::ErrorKind::ConnectionRefused).text, "nothing listens there");
        assert_eq!(of(io::ErrorKind::ConnectionReset).kind, Kind::NoAnswer);
        assert_eq!(of(io::ErrorKind::TimedOut).kind, Kind::TimedOut);
    }
}
