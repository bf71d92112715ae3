//! Where to send, and how: from the options and, where they say nothing, from the variables that OpenTelemetry's specification names.
//! Knows neither sessions nor the network. Headers hold tokens: their values are never printed.

use std::time::Duration;

use anyhow::{anyhow, bail};
use reqwest::{
    Url,
    header::{HeaderMap, HeaderName, HeaderValue},
};

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const PROTOCOL: &str = "OTEL_EXPORTER_OTLP_PROTOCOL";
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
const TIMEOUT: &str = "OTEL_EXPORTER_OTLP_TIMEOUT";
const COMPRESSION: &str = "OTEL_EXPORTER_OTLP_COMPRESSION";

/// The specification's own.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
const GRPC_ENDPOINT: &str = "http://localhost:4317";
const HTTP_ENDPOINT: &str = "http://localhost:4318";
const HTTP_PORT: u16 = 4318;

/// How OTLP travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Protocol {
    Grpc,
    HttpProtobuf,
}

impl Protocol {
    pub(in super::super) const NAMES: [&str; 2] = ["grpc", "http/protobuf"];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::HttpProtobuf => "http/protobuf",
        }
    }

    fn named(name: &str) -> Option<Self> {
        [Self::Grpc, Self::HttpProtobuf].into_iter().find(|protocol| protocol.name() == name)
    }
}

/// Where to send, and how.
pub(super) struct Endpoint {
    pub(super) url: Url,
    pub(super) protocol: Protocol,
    pub(super) headers: HeaderMap,
    /// How long one request may take.
    pub(super) timeout: Duration,
    /// Whether requests are compressed, where that is known how (gRPC).
    pub(super) gzip: bool,
}

impl Endpoint {
    /// `variable` answers with the value of a variable of the environment.
    pub(super) fn new(
        endpoint: Option<&str>,
        protocol: Option<&str>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> anyhow::Result<Self> {
        // Empty is unset, as the specification has it.
        let variable = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let protocol = match (protocol.map(str::to_owned), variable(PROTOCOL)) {
            (Some(name), _) => Some(of_name(&name, "--protocol")?),
            (None, Some(name)) => Some(of_name(&name, PROTOCOL)?),
            (None, None) => None,
        };
        let (url, from) = match (endpoint.map(str::to_owned), variable(ENDPOINT)) {
            (Some(url), _) => (url, "--endpoint"),
            (None, Some(url)) => (url, ENDPOINT),
            (None, None) if protocol == Some(Protocol::HttpProtobuf) => {
                (HTTP_ENDPOINT.to_owned(), "--endpoint")
            }
            (None, None) => (GRPC_ENDPOINT.to_owned(), "--endpoint"),
        };
        let url = address(&url, from)?;
        let by_port = if url.port() == Some(HTTP_PORT) { Protocol::HttpProtobuf } else { Protocol::Grpc };
        let protocol = protocol.unwrap_or(by_port);
        if protocol == Protocol::HttpProtobuf && url.scheme() == "https" {
            bail!(
                "cannot send by https over http/protobuf: TLS is spoken with gRPC only; use --protocol grpc, or http:// to a collector near by"
            );
        }
        let timeout = variable(TIMEOUT).map_or(Ok(DEFAULT_TIMEOUT), |text| {
            let ms = text.trim().parse::<u64>().ok().filter(|ms| *ms > 0);
            let wrong = || anyhow!("{TIMEOUT} is no number of milliseconds; write 10000 for ten seconds");
            ms.map(Duration::from_millis).ok_or_else(wrong)
        })?;
        let headers = variable(HEADERS).map_or_else(|| Ok(HeaderMap::new()), |text| headers(&text))?;
        let gzip = variable(COMPRESSION).is_some_and(|name| name.trim() == "gzip");
        Ok(Self { url, protocol, headers, timeout, gzip })
    }

    /// Where a signal (`traces`, `logs`) goes over HTTP.
    pub(super) fn of_signal(&self, signal: &str) -> Url {
        let mut url = self.url.clone();
        url.set_path(&format!("{}/v1/{signal}", self.url.path().trim_end_matches('/')));
        url
    }
}

impl std::fmt::Display for Endpoint {
    /// Without what the URL may hold of secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut url = self.url.clone();
        url.set_query(None);
        url.set_fragment(None);
        f.write_str(url.as_str().trim_end_matches('/'))
    }
}

fn of_name(name: &str, from: &str) -> anyhow::Result<Protocol> {
    let known = Protocol::NAMES.join(" or ");
    Protocol::named(name.trim())
        .ok_or_else(|| anyhow!("{from} names a protocol that is not spoken; use {known}"))
}

/// A URL of http or https without a user. What is wrong is not quoted: it may hold a password.
fn address(text: &str, from: &str) -> anyhow::Result<Url> {
    let wrong = || anyhow!("{from} is no address to send to; write http://HOST:PORT");
    let url: Url = text.trim().parse().map_err(|_| wrong())?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(wrong());
    }
    if !url.username().is_empty() || url.password().is_some() {
        bail!("{from} holds a user; put the receiver's token into {HEADERS} (authorization=Basic%20…)");
    }
    Ok(url)
}

/// `name=value,name=value` as in W3C Baggage: values are percent-encoded.
fn headers(text: &str) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (index, pair) in text.split(',').map(str::trim).enumerate().filter(|(_, pair)| !pair.is_empty()) {
        let wrong = || anyhow!("{HEADERS}: entry {} is no header; write name=value,name=value", index + 1);
        let (name, value) = pair.split_once('=').ok_or_else(wrong)?;
        let name: HeaderName = name.trim().to_ascii_lowercase().parse().map_err(|_| wrong())?;
        let mut value = HeaderValue::from_bytes(&percent_decoded(value.trim())).map_err(|_| wrong())?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

/// What is no escape stays as it is.
fn percent_decoded(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = after.split_at_checked(2).filter(|_| *first == b'%').and_then(|(digits, after)| {
            let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
            Some((u8::from_str_radix(digits, 16).ok()?, after))
        });
        let (byte, after) = escaped.unwrap_or((*first, after));
        decoded.push(byte);
        rest = after;
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(
        url: Option<&str>,
        protocol: Option<&str>,
        variables: &[(&str, &str)],
    ) -> anyhow::Result<Endpoint> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Endpoint::new(url, protocol, variable)
    }

    fn chosen(url: Option<&str>, protocol: Option<&str>, variables: &[(&str, &str)]) -> (String, Protocol) {
        let endpoint = endpoint(url, protocol, variables).unwrap();
        (endpoint.to_string(), endpoint.protocol)
    }

    fn refused(url: Option<&str>, protocol: Option<&str>, variables: &[(&str, &str)]) -> String {
        match endpoint(url, protocol, variables) {
            Err(error) => error.to_string(),
            Ok(endpoint) => panic!("{endpoint}"),
        }
    }

    #[test]
    fn options_come_before_variables_and_those_before_the_defaults() {
        use Protocol::{Grpc, HttpProtobuf};
        assert_eq!(chosen(None, None, &[]), ("http://localhost:4317".to_owned(), Grpc));
        assert_eq!(
            chosen(None, Some("http/protobuf"), &[]),
            ("http://localhost:4318".to_owned(), HttpProtobuf)
        );
        let variables = [(ENDPOINT, "http://collector.invalid:1/x/"), (PROTOCOL, "http/protobuf")];
        assert_eq!(chosen(None, None, &variables), ("http://collector.invalid:1/x".to_owned(), HttpProtobuf));
        assert_eq!(
            chosen(Some("http://127.0.0.1:2"), Some("grpc"), &variables),
            ("http://127.0.0.1:2".to_owned(), Grpc)
        );
        assert_eq!(chosen(Some("http://127.0.0.1:4318"), None, &[(PROTOCOL, " ")]).1, HttpProtobuf);
        let endpoint = endpoint(None, None, &variables).unwrap();
        assert_eq!(endpoint.of_signal("traces").as_str(), "http://collector.invalid:1/x/v1/traces");
        assert_eq!(endpoint.timeout, Duration::from_secs(10));
    }

    #[test]
    fn what_cannot_be_used_is_refused_without_being_quoted() {
        for url in ["127.0.0.1:4317", "ftp://127.0.0.1", "http://", "s3cret"] {
            let said = refused(Some(url), None, &[]);
            assert!(said.contains("write http://HOST:PORT") && !said.contains("s3cret"), "{said}");
        }
        let said = refused(Some("http://me:s3cret@127.0.0.1:4317"), None, &[]);
        assert!(said.contains(HEADERS) && !said.contains("s3cret"), "{said}");
        assert!(refused(None, None, &[(PROTOCOL, "http/json")]).contains("grpc or http/protobuf"));
        assert!(refused(None, None, &[(TIMEOUT, "soon")]).contains("milliseconds"));
        assert!(refused(Some("https://h.invalid"), Some("http/protobuf"), &[]).contains("--protocol grpc"));
        assert!(endpoint(Some("https://h.invalid"), None, &[]).is_ok());
        let shown = endpoint(Some("http://h.invalid:1/p?key=s3cret#s3cret"), None, &[]).unwrap().to_string();
        assert_eq!(shown, "http://h.invalid:1/p");
    }

    #[test]
    fn headers_are_decoded_and_their_values_are_not_shown() {
        let endpoint =
            endpoint(None, None, &[(HEADERS, " Authorization=Bearer%20s3cret%3D, x-tenant = 7,")]).unwrap();
        assert_eq!(endpoint.headers["authorization"].as_bytes(), b"Bearer s3cret=");
        assert_eq!(endpoint.headers["x-tenant"], "7");
        assert!(!format!("{:?}", endpoint.headers).contains("s3cret"));
        assert_eq!(percent_decoded("a%2Gb%+1%"), b"a%2Gb%+1%");
        for wrong in ["s3cret", "a b=s3cret", "a=s3cret%0a"] {
            let said = refused(None, None, &[(HEADERS, &format!("ok=1,{wrong}"))]);
            assert!(said.contains("entry 2") && !said.contains("s3cret"), "{said}");
        }
    }
}
