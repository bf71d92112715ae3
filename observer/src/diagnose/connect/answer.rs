//! What answers at the broker's address and is no AMQP broker, or not in the way it was spoken to. Knows the first bytes of both sides.

use std::collections::BTreeMap;

use super::super::{
    case::{Case, Kind},
    catalogue::Code,
    finding::{Evidence, Finding},
    peers::{self, AMQPS_PORT},
};
use crate::{
    amqp::{
        conversation::Spoke,
        method::Side,
        stream::{Foreign, protocol_name},
    },
    event::{Address, Disconnect, Pid},
    model::{
        connection::{Connection, End},
        hints::Hint,
        link::Link,
        mark::Mark,
    },
    words::units,
};

/// RabbitMQ answers within milliseconds; one that says nothing for so long will not.
const SILENCE_NS: u64 = 3_000_000_000;
/// The management port of RabbitMQ, by default.
const MANAGEMENT_PORT: u16 = 15_672;
/// A TLS server that is spoken to in plain text ends it at once.
const AT_ONCE_NS: u64 = 2_000_000_000;

const fn is_tls(spoke: Spoke) -> bool {
    matches!(
        spoke,
        Spoke::Foreign(Foreign::TlsClientHello | Foreign::TlsHandshake | Foreign::TlsAlert { .. })
    )
}

/// A link of a process, and the connection that carried it.
struct Met<'a> {
    link: &'a Link,
    connection: Option<&'a Connection>,
}

impl Met<'_> {
    fn end(&self) -> Option<End> {
        self.connection.and_then(|connection| connection.first_end)
    }

    /// How long it took from the client's first bytes to the end, or to the end of the recording.
    fn lasted_ns(&self, case: &Case<'_>) -> u64 {
        let ended_ns = self.end().map_or(case.ended_ns(), |end| end.at_ns);
        ended_ns.saturating_sub(self.link.opened.at_ns)
    }

    fn was_reset(&self) -> bool {
        self.end().is_some_and(|end| end.how == Disconnect::ResetByPeer)
            || self
                .connection
                .and_then(|connection| connection.io_failed)
                .is_some_and(|(_, errno)| errno == 104)
    }

    fn ended_by_peer(&self) -> bool {
        self.was_reset() || self.end().is_some_and(|end| end.how == Disconnect::ByPeer)
    }

    fn address(&self) -> String {
        self.link.peer.get().map_or("the broker's address".to_owned(), ToString::to_string)
    }

    fn port(&self) -> Option<u16> {
        match self.link.peer.get() {
            Some(Address::Inet { port, .. }) => Some(*port),
            _ => None,
        }
    }

    fn end_mark(&self) -> Option<Mark> {
        let end = self.end()?;
        Some(Mark { event: end.event, at_ns: end.at_ns, ..self.link.opened })
    }
}

/// The links of a process that was never let in by any broker, of each address the last that tells something.
fn strangers<'a>(case: &'a Case<'_>, pid: Pid) -> Vec<Met<'a>> {
    let mut last: BTreeMap<String, Met<'a>> = BTreeMap::new();
    // Where a broker answered, be it with a refusal, what the process speaks to elsewhere does not keep it from consuming.
    if case.links(pid).any(|link| link.spoke(Side::Server) == Spoke::Amqp || link.since_attach) {
        return Vec::new();
    }
    for link in case.links(pid) {
        let met = Met { link, connection: case.model.connections.at(link.socket, link.opened.at_ns) };
        // One that has only just begun tells nothing yet.
        let tells = met.link.spoke(Side::Server) != Spoke::Silence
            || met.ended_by_peer()
            || met.lasted_ns(case) >= SILENCE_NS;
        if tells || !last.contains_key(&met.address()) {
            last.insert(met.address(), met);
        }
    }
    last.into_values().collect()
}

/// `not-an-amqp-broker`: the AMQP header was sent, and what came back is another protocol, silence, or the end.
///
/// Needs: the client's header, and bytes of the server that are no AMQP frame; or no bytes for three seconds; or its end without a word.
/// Looks alike: a broker that is slow to answer (so the patience); one that speaks TLS (`tls-mismatch`: an alert, or port 5671); a stopped
/// broker process, which is silent too: the kernel accepts for it. Documented: AMQP 0-9-1, 4.2.2; RabbitMQ `rabbit_reader.erl`,
/// `handle_input(handshake, …)`; cowboy 2 closes after `request_timeout`, 5 s.
pub(super) fn not_an_amqp_broker(case: &Case<'_>, findings: &mut Vec<Finding>) {
    for pid in peers::clients(case) {
        for met in strangers(case, pid) {
            if met.link.spoke(Side::Client) != Spoke::Amqp || is_tls_answer(case, &met) {
                continue;
            }
            let server = met.link.spoke(Side::Server);
            let lasted_ns = met.lasted_ns(case);
            let (spoke, confidence) = match server {
                Spoke::Foreign(foreign) => (format!("answers with {foreign}"), 0.98),
                Spoke::ProtocolHeader(version) => {
                    (format!("speaks {}, not AMQP 0-9-1", protocol_name(version)), 0.97)
                }
                Spoke::Unrecognised => ("answers with bytes that are no AMQP".to_owned(), 0.95),
                Spoke::Silence if met.ended_by_peer() => {
                    (format!("says nothing and then closes the connection{}", after(lasted_ns)), 0.9)
                }
                Spoke::Silence if lasted_ns >= SILENCE_NS => {
                    ("accepts the connection and then says nothing".to_owned(), 0.85)
                }
                Spoke::Silence | Spoke::Amqp => continue,
            };
            let address = met.address();
            let hint = if met.port() == Some(MANAGEMENT_PORT) {
                " It is the port of RabbitMQ's management."
            } else if server == Spoke::Foreign(Foreign::HttpResponse) {
                " It is an HTTP server, as RabbitMQ's management is."
            } else {
                ""
            };
            let summary = format!(
                "What listens at {address} is no AMQP broker: it is sent the AMQP header and {spoke}.{hint}"
            );
            let said =
                met.link.course.answered.map(|mark| Evidence::new(mark, format!("the other end {spoke}")));
            let finding =
                Finding::new(Code::NotAnAmqpBroker, case.confidence(confidence, &[Kind::Streams]), summary)
                    .title(format!("{address} {}", spoke))
                    .about(case.subject(pid))
                    .evidence([Evidence::new(
                        met.link.opened,
                        format!("the AMQP header is sent to {address}"),
                    )])
                    .evidence(said)
                    .evidence(met.end_mark().map(|mark| Evidence::new(mark, "the connection ends")))
                    .remedy(remedy(&met));
            findings.push(peers::with_exit(case, pid, finding));
        }
    }
}

/// Silence in whole seconds, so that eight workers say the same.
fn after(lasted_ns: u64) -> String {
    match (lasted_ns + 500_000_000) / 1_000_000_000 {
        0 => String::new(),
        seconds => format!(" after {}", units::counted(seconds, "second")),
    }
}

fn remedy(met: &Met<'_>) -> String {
    let port = met.port().unwrap_or_default();
    match port {
        MANAGEMENT_PORT => "use the AMQP port in the broker's URL: 5672 instead of 15672".to_owned(),
        _ => format!(
            "use the broker's AMQP port in its URL (5672 by default); who listens here: ss -ltnp 'sport = :{port}'"
        ),
    }
}

/// Whether a server that was sent the plain AMQP header wants TLS.
fn is_tls_answer(case: &Case<'_>, met: &Met<'_>) -> bool {
    is_tls(met.link.spoke(Side::Server)) || closes_as_tls(case, met)
}

/// On the port that IANA gave to AMQP over TLS, an end at once and without a word. On any port, a reset at once: a TLS server reads the five
/// bytes of a record's header, closes with the rest of AMQP's eight unread, and the kernel makes that a reset, which overtakes the alert
/// (RFC 1122, 4.2.2.13).
fn closes_as_tls(case: &Case<'_>, met: &Met<'_>) -> bool {
    let reset_at_once = met.was_reset() && met.lasted_ns(case) < AT_ONCE_NS;
    (met.port() == Some(AMQPS_PORT) || reset_at_once)
        && met.link.spoke(Side::Client) == Spoke::Amqp
        && met.link.spoke(Side::Server) == Spoke::Silence
        && met.ended_by_peer()
}

/// `tls-mismatch`: one side speaks TLS and the other does not.
///
/// Needs: a ClientHello that is answered by anything but TLS, or by the end; or the AMQP header that is answered by a TLS record (an
/// alert), or by an end at once on port 5671. Where the bytes were not recorded (only what begins with the AMQP header is, on ports that
/// are no known broker's): connections to the broker that are made and end within moments, never with an AMQP header, and OpenSSL's words
/// in the output. Looks alike: a certificate that is not accepted (both sides speak TLS: no mismatch). Documented: RFC 8446, 6; RabbitMQ
/// `rabbit_reader.erl`, `detected_tls`.
pub(super) fn tls_mismatch(case: &Case<'_>, findings: &mut Vec<Finding>) {
    for pid in peers::clients(case) {
        let before = findings.len();
        for met in strangers(case, pid) {
            let (client, server) = (met.link.spoke(Side::Client), met.link.spoke(Side::Server));
            let address = met.address();
            let (summary, confidence, remedy) = if is_tls(client) && !is_tls(server) {
                let ended = met.ended_by_peer() || met.link.ended_at_ns.is_some();
                let answer = match server {
                    Spoke::ProtocolHeader(_) | Spoke::Amqp => "with a plain AMQP header".to_owned(),
                    Spoke::Foreign(foreign) => format!("with {foreign}"),
                    Spoke::Unrecognised => "with bytes that are no TLS".to_owned(),
                    Spoke::Silence if ended && met.ended_by_peer() => "by closing the connection".to_owned(),
                    Spoke::Silence => continue,
                };
                let sure = if server == Spoke::Silence { 0.8 } else { 0.97 };
                (client_summary(&address, &answer), sure, CLIENT_REMEDY.to_owned())
            } else if client == Spoke::Amqp && is_tls_answer(case, &met) {
                let (answer, sure) = match server {
                    Spoke::Foreign(foreign) => (format!("answers with {foreign}"), 0.97),
                    _ => ("closes the connection at once".to_owned(), 0.8),
                };
                let summary = format!(
                    "What listens at {address} wants TLS: it is sent a plain AMQP header and {answer}. The worker's URL says amqp://, not amqps://."
                );
                (
                    summary,
                    sure,
                    format!(
                        "use amqps:// in the broker's URL, or its plain AMQP port (5672) with amqp://; {address} speaks TLS"
                    ),
                )
            } else {
                continue;
            };
            let said = met.link.course.answered.map(|mark| Evidence::new(mark, "the other end answers"));
            let first = if is_tls(client) { "a TLS ClientHello" } else { "a plain AMQP header" };
            let finding =
                Finding::new(Code::TlsMismatch, case.confidence(confidence, &[Kind::Streams]), summary)
                    .title(format!("{address}: one side speaks TLS and the other does not"))
                    .about(case.subject(pid))
                    .evidence([Evidence::new(met.link.opened, format!("{first} is sent to {address}"))])
                    .evidence(said)
                    .evidence(met.end_mark().map(|mark| Evidence::new(mark, "the connection ends")))
                    .remedy(remedy);
            findings.push(peers::with_exit(case, pid, finding));
        }
        if findings.len() == before {
            findings.extend(unrecorded(case, pid));
        }
    }
}

const CLIENT_REMEDY: &str =
    "use amqp:// in the broker's URL, or the broker's TLS port (5671 by default) with amqps://";

fn client_summary(address: &str, answer: &str) -> String {
    format!(
        "The worker speaks TLS (amqps://) and what listens at {address} does not: a TLS ClientHello is answered {answer}."
    )
}

/// A TLS client at a port whose bytes were not recorded.
fn unrecorded(case: &Case<'_>, pid: Pid) -> Option<Finding> {
    let printed = case.model.hints.get(pid, Hint::Tls)?;
    if case.links(pid).next().is_some() {
        return None;
    }
    let attempts = peers::broker_attempts(case, pid);
    // Established, never an AMQP header, over within moments.
    let is_so = |one: &Connection| {
        one.result == Some(0)
            && !one.is_amqp
            && one.first_end.is_some_and(|end| end.at_ns.saturating_sub(one.at_ns) < AT_ONCE_NS)
    };
    let (last, likelihood) = attempts.iter().rev().find(|(one, _)| is_so(one))?;
    let address = last.peer.get()?.to_string();
    let mark = Mark { event: last.event, at_ns: last.at_ns, pid, tid: last.tid };
    let end = last
        .first_end
        .map(|end| Evidence::new(Mark { event: end.event, at_ns: end.at_ns, ..mark }, "it ends at once"));
    let certificate = case.model.hints.get(pid, Hint::Certificate);
    let (summary, title, remedy) = if certificate.is_some() {
        (
            format!(
                "Both sides speak TLS, and the worker does not accept the certificate of what listens at {address}."
            ),
            format!("the certificate of {address} is not accepted"),
            "give the client the broker's CA (ssl_options with cafile=…), and connect by the name in its certificate",
        )
    } else {
        (
            format!(
                "The worker speaks TLS (amqps://) and what listens at {address} does not: every connection is made and ends at once, before any AMQP, and the TLS library says so."
            ),
            format!("{address}: one side speaks TLS and the other does not"),
            CLIENT_REMEDY,
        )
    };
    let base = if certificate.is_some() { 0.75 } else { 0.85 };
    let finding = Finding::new(
        Code::TlsMismatch,
        case.confidence(base * likelihood, &[Kind::Streams, Kind::Output]),
        summary,
    )
    .title(title)
    .about(case.subject(pid))
    .evidence([Evidence::new(mark, format!("a connection to {address} is made; no AMQP header follows"))])
    .evidence(end)
    .evidence([Evidence::new(printed, "the TLS library's words for it in the output")])
    .remedy(remedy);
    Some(peers::with_exit(case, pid, finding))
}
