//! Which of a process's connections are meant for its broker, and whether it came through. Shared by the families that are about
//! connections; concludes nothing.

use std::net::IpAddr;

use super::{
    case::Case,
    finding::{Evidence, Finding},
};
use crate::{
    amqp::{conversation::Spoke, method::Side},
    event::{Address, Pid},
    model::{connection::Connection, ladder::Rung, link::Link, mark::Mark},
};

/// AMQP's ports by IANA: plain and over TLS.
pub(super) const AMQP_PORT: u16 = 5672;
pub(super) const AMQPS_PORT: u16 = 5671;
/// pika makes a pair of sockets to wake its own loop before it looks up the broker's name (1.4, `select_connection.py`,
/// `_PollerBase.__init__`): it connects at most so much later.
const PAIR_NS: u64 = 60_000_000_000;

/// A broker's URL as it stands in the environment or the command line; the password is not in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
}

/// Where a process was told its broker is: every AMQP URL in its environment and arguments.
pub(super) fn urls(case: &Case<'_>, pid: Pid) -> Vec<Url> {
    let words = case.argv(pid).unwrap_or_default().iter();
    let mut found = Vec::new();
    for text in case.environment(pid).unwrap_or_default().iter().chain(words) {
        for (scheme, tls) in [("amqp://", false), ("amqps://", true)] {
            for (at, _) in text.match_indices(scheme) {
                let url = url(text.get(at + scheme.len()..).unwrap_or_default(), tls);
                found.extend(url.filter(|url| !found.contains(url)));
            }
        }
    }
    found
}

fn url(rest: &str, tls: bool) -> Option<Url> {
    let end = |c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#' | '\'' | '"' | ',' | ';');
    let authority = rest.split(end).next()?;
    let place = authority.rsplit('@').next()?;
    let (host, port) = match place.strip_prefix('[') {
        Some(v6) => {
            let (host, after) = v6.split_once(']')?;
            (host, after.strip_prefix(':'))
        }
        None => place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
    };
    let default = if tls { AMQPS_PORT } else { AMQP_PORT };
    let port = port.map_or(Some(default), |port| port.parse().ok())?;
    // pika's own default for a URL without a host.
    let host = if host.is_empty() { "localhost" } else { host };
    Some(Url { tls, host: host.to_owned(), port })
}

/// The other end of a connection, when it is an internet address.
pub(super) fn inet(connection: &Connection) -> Option<(IpAddr, u16)> {
    match connection.peer.get()? {
        Address::Inet { ip, port } => Some((ip.to_canonical(), *port)),
        _ => None,
    }
}

/// The TCP connections that a process tried to make, in order of time. Its own loops are not among them.
pub(super) fn attempts<'a>(case: &'a Case<'_>, pid: Pid) -> impl Iterator<Item = &'a Connection> {
    let connections = &case.model.connections;
    connections.iter().filter(move |connection| {
        connection.pid == pid
            && connection.accepted == Some(false)
            && !connection.is_datagram
            && inet(connection).is_some()
            && !connections.is_own_loop(connection)
    })
}

/// How sure it is that a connection was meant for the process's broker; 0 when nothing says so.
///
/// A process has other services too: a database, a result backend, an HTTP API. The broker's is what spoke AMQP, here or in another
/// connection to the same address; what a URL in the environment names; what goes to AMQP's own ports; and what a thread connects to
/// after it has made pika's pair of loopback sockets.
pub(super) fn broker_likelihood(case: &Case<'_>, connection: &Connection) -> f64 {
    let Some(peer @ (ip, port)) = inet(connection) else { return 0.0 };
    let same = |link: &Link| match link.peer.get() {
        Some(Address::Inet { ip, port }) => (ip.to_canonical(), *port) == peer,
        _ => false,
    };
    let spoke = |link: &Link| !matches!(link.spoke(Side::Client), Spoke::Silence | Spoke::Unrecognised);
    if connection.is_amqp || case.model.amqp.links().any(|link| !link.accepted && same(link) && spoke(link)) {
        return 1.0;
    }
    let named = |url: &Url| {
        url.port == port && url.host.parse::<IpAddr>().map_or(true, |host| host.to_canonical() == ip)
    };
    if matches!(port, AMQP_PORT | AMQPS_PORT) || urls(case, connection.pid).iter().any(named) {
        return 0.95;
    }
    if makes_pairs(case, connection.pid, connection.at_ns, Some(connection.tid.0)) { 0.9 } else { 0.0 }
}

/// Whether a process made a connection with itself, as pika does, shortly before a moment; in this thread where it matters.
pub(super) fn makes_pairs(case: &Case<'_>, pid: Pid, at_ns: u64, tid: Option<u32>) -> bool {
    let connections = &case.model.connections;
    connections.iter().any(|pair| {
        pair.pid == pid
            && pair.accepted == Some(false)
            && tid.is_none_or(|tid| pair.tid.0 == tid)
            && pair.at_ns <= at_ns
            && at_ns - pair.at_ns < PAIR_NS
            && connections.is_own_loop(pair)
    })
}

/// The attempts of a process to reach its broker, each with how sure that is.
pub(super) fn broker_attempts<'a>(case: &'a Case<'_>, pid: Pid) -> Vec<(&'a Connection, f64)> {
    attempts(case, pid)
        .map(|connection| (connection, broker_likelihood(case, connection)))
        .filter(|(_, likelihood)| *likelihood > 0.0)
        .collect()
}

/// Whether a broker ever let a process in: a virtual host was opened, or it had a connection before we came.
pub(super) fn was_let_in(case: &Case<'_>, pid: Pid) -> bool {
    case.links(pid).any(|link| link.facts().is_open || link.since_attach)
}

/// Whether something consumes in a process when the recording ends, or did when the process ended.
pub(super) fn consumes(case: &Case<'_>, pid: Pid) -> bool {
    let exit_ns =
        case.model.processes.get(pid).and_then(|process| process.exit.as_ref()).map(|exit| exit.at_ns);
    // At the end a process closes its connections itself: what it held shortly before counts.
    let until_ns = exit_ns.unwrap_or(u64::MAX).saturating_sub(1_000_000_000);
    case.model.amqp.consumers.iter().any(|consumer| {
        consumer.asked.pid == pid
            && consumer.confirmed.is_some()
            && consumer.ended.as_ref().is_none_or(|ended| ended.at_ns >= until_ns)
    })
}

/// Every process that may have a broker: workers, and all others that connect or look a name up.
pub(super) fn clients(case: &Case<'_>) -> Vec<Pid> {
    case.model.processes.iter().map(|process| process.pid).collect()
}

/// When and how a process failed by itself: a status that is not 0.
pub(super) fn failed_exit(case: &Case<'_>, pid: Pid) -> Option<(Mark, i32)> {
    let exit = case.model.processes.get(pid)?.exit.as_ref()?;
    let code = exit.code.filter(|code| *code != 0)?;
    Some((Mark { event: exit.event, at_ns: exit.at_ns, pid, tid: crate::event::Tid(pid.0) }, code))
}

/// Adds how a process failed to what proves a finding.
pub(super) fn with_exit(case: &Case<'_>, pid: Pid, finding: Finding) -> Finding {
    let exit = failed_exit(case, pid)
        .map(|(mark, code)| Evidence::new(mark, format!("process {pid} exits with status {code}")));
    finding.evidence(exit)
}

/// Whether a process got so far.
pub(super) fn has_reached(case: &Case<'_>, pid: Pid, rung: Rung) -> bool {
    case.reached(pid, rung) == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_without_their_password() {
        let parsed = |rest, tls| url(rest, tls).map(|url| (url.host, url.port));
        let is = |host: &str, port| Some((host.to_owned(), port));
        assert_eq!(parsed("u:«redacted:3f9a»@rabbit.invalid:5673/x?y=1", false), is("rabbit.invalid", 5673));
        assert_eq!(parsed("rabbit", true), is("rabbit", AMQPS_PORT));
        assert_eq!(parsed("u:p@[::1]:1234/", false), is("::1", 1234));
        assert_eq!(parsed("/", false), is("localhost", AMQP_PORT));
        assert_eq!(parsed("host:port", false), None);
    }
}
