//! What keeps a connection from being made, up to the first AMQP answer. Knows sockets and the first bytes of both sides.

mod answer;
mod descriptors;
mod name;

use std::net::IpAddr;

use super::{
    Rule,
    case::{Case, Kind},
    catalogue::Code,
    finding::{Evidence, Finding},
    peers::{self, broker_attempts},
};
use crate::{
    event::Pid,
    model::{connection::Connection, ladder::Rung, mark::Mark},
    words::{names, units},
};

/// The rules of this family.
pub(super) const RULES: &[Rule] = &[
    name::dns_failure,
    connection_refused,
    connection_timeout,
    answer::not_an_amqp_broker,
    answer::tls_mismatch,
    descriptors::fd_limit_reached,
];

const ECONNREFUSED: i32 = 111;
/// Given up by its own process before anybody answered.
const ECANCELED: i32 = 125;
/// `connect` got no answer, or the network said that there is no way: ETIMEDOUT, EHOSTUNREACH, EHOSTDOWN, ENETUNREACH, ENETDOWN.
const UNANSWERED: [i32; 5] = [110, 113, 112, 101, 100];
/// A SYN is sent again after 1 s and after 3 s (Linux 6.1, `tcp_timeout_init`): who has not answered by then does not listen well.
const PATIENCE_NS: u64 = 3_000_000_000;
/// So long after the last failure a success would have come, had there been one: dramatiq tries again every 3 s (2.2, `worker.py`,
/// `CONSUMER_RESTART_DELAY`).
const SETTLED_NS: u64 = 1_500_000_000;

/// The attempts of a process, when none of them ever led to a broker, and the last failures.
struct Failed<'a> {
    /// Those that failed so, in order of time.
    attempts: Vec<&'a Connection>,
    peer: (IpAddr, u16),
    likelihood: f64,
}

/// What failed in one way, and nothing after it went better. `None` when the process was ever let in: then a connection was lost.
fn failed<'a>(case: &'a Case<'_>, pid: Pid, is_so: impl Fn(&Connection) -> bool) -> Option<Failed<'a>> {
    if peers::was_let_in(case, pid) {
        return None;
    }
    let all = broker_attempts(case, pid);
    let established = |connection: &Connection| connection.result == Some(0);
    // One of several addresses of a name may refuse, and a broker may come up late: what was established later counts.
    let better_ns = all.iter().filter(|(one, _)| established(one)).map(|(one, _)| one.at_ns).max();
    let later: Vec<_> = all
        .into_iter()
        .filter(|(one, _)| is_so(one) && better_ns.is_none_or(|better_ns| one.at_ns > better_ns))
        .collect();
    let (last, _) = later.last().copied()?;
    // The address that failed last is named; others are of the same name.
    let peer = peers::inet(last)?;
    let likelihood = later.iter().map(|(_, likelihood)| *likelihood).fold(0.0, f64::max);
    let attempts: Vec<&Connection> = later.into_iter().map(|(one, _)| one).collect();
    let span_ns = last.at_ns.saturating_sub(attempts.first()?.at_ns);
    let waited_ns = case.ended_ns().saturating_sub(last.at_ns);
    // After something that went well, a recording that ends at once proves nothing: it may be on its way.
    let is_settled = better_ns.is_none() || span_ns >= SETTLED_NS;
    let may_come = span_ns < SETTLED_NS && waited_ns < SETTLED_NS && peers::failed_exit(case, pid).is_none();
    let likelihood = if may_come { likelihood * 0.7 } else { likelihood };
    is_settled.then_some(Failed { attempts, peer, likelihood })
}

/// The other addresses that failed beside the one that is named.
fn beside(failed: &Failed<'_>) -> String {
    let mut others: Vec<String> = Vec::new();
    for peer in failed.attempts.iter().filter_map(|one| peers::inet(one)).filter(|peer| *peer != failed.peer)
    {
        let text = std::net::SocketAddr::from(peer).to_string();
        if !others.contains(&text) {
            others.push(text);
        }
    }
    if others.is_empty() { String::new() } else { format!(", nor does {}", others.join(" or ")) }
}

fn mark(connection: &Connection) -> Mark {
    Mark { event: connection.event, at_ns: connection.at_ns, pid: connection.pid, tid: connection.tid }
}

/// The first and the last of some attempts, as evidence.
fn evidence(failed: &Failed<'_>, what: &str) -> Vec<Evidence> {
    let count = failed.attempts.len() as u64;
    let show = |one: &Connection, text: &str| {
        let peer = one.peer.get().map(ToString::to_string).unwrap_or_default();
        let errno =
            one.result.filter(|errno| *errno != ECANCELED).map(|errno| format!(": {}", names::errno(errno)));
        Evidence::new(mark(one), format!("{}connect to {peer}{}", text, errno.unwrap_or(what.to_owned())))
    };
    let mut found: Vec<Evidence> = failed.attempts.first().map(|one| show(one, "")).into_iter().collect();
    if count > 1 {
        let last = format!("{} in all, the last: ", units::counted(count, "attempt"));
        found.extend(failed.attempts.last().map(|one| show(one, &last)));
    }
    found
}

/// `connection-refused`: ECONNREFUSED from the broker's address, again and again or until the program gave up.
///
/// Needs: a TCP connect that was refused, that it was meant for the broker ([`peers::broker_likelihood`]), and nothing better after it.
/// Looks alike: a broker that restarts while its worker waits (a later connect succeeds, or the worker had been let in before: that is
/// `connection-lost`); `localhost` with one address refused and the other not; other services that refuse. Documented: connect(2);
/// dramatiq 2.2 `worker.py`, `_ConsumerThread.run` tries again after 3 s; pika 1.4 `BlockingConnection._create_connection`.
fn connection_refused(case: &Case<'_>, findings: &mut Vec<Finding>) {
    for pid in peers::clients(case) {
        let Some(failed) = failed(case, pid, |one| one.result == Some(ECONNREFUSED)) else { continue };
        // Not every address refused: one that does not answer is the worse one to mend.
        let address = std::net::SocketAddr::from(failed.peer);
        let summary = format!(
            "The broker's address {address} refuses every connection (ECONNREFUSED): nobody listens there{}.",
            beside(&failed)
        );
        let finding = Finding::new(
            Code::ConnectionRefused,
            case.confidence(failed.likelihood, &[Kind::Streams]),
            summary,
        )
        .title(format!("nobody listens at {address}"))
        .about(case.subject(pid))
        .evidence(evidence(&failed, ""))
        .remedy(refused_remedy(address));
        findings.push(peers::with_exit(case, pid, finding));
    }
}

fn refused_remedy(address: std::net::SocketAddr) -> String {
    if address.ip().is_loopback() {
        format!(
            "start the broker (systemctl start rabbitmq-server), or correct the URL; who listens: ss -ltnp 'sport = :{}'",
            address.port()
        )
    } else {
        format!("start the broker on {}, or correct host and port in its URL", address.ip())
    }
}

/// `connection-timeout`: the broker's address gave no answer to a SYN, or the network has no way to it.
///
/// Needs: a TCP connect to the broker that failed with ETIMEDOUT or for want of a route; or that got no answer for three seconds, be it
/// that its process gave up (pika's `socket_timeout`, 10 s) or still waits. Looks alike: a connect that has only begun; a slow broker
/// that answers at last (then it is established). Documented: tcp(7), `tcp_syn_retries`; pika 1.4 `connection.py`, `socket_timeout`.
fn connection_timeout(case: &Case<'_>, findings: &mut Vec<Finding>) {
    let ended_ns = case.ended_ns();
    let waited_ns = |one: &Connection| match (one.result, one.established_after_ns, one.closed_at) {
        (Some(_), Some(after_ns), _) => after_ns,
        (None, _, Some(closed)) => closed.at_ns.saturating_sub(one.at_ns),
        (None, _, None) => ended_ns.saturating_sub(one.at_ns),
        _ => 0,
    };
    let is_so = |one: &Connection| match one.result {
        Some(errno) if UNANSWERED.contains(&errno) => true,
        Some(ECANCELED) | None => waited_ns(one) >= PATIENCE_NS,
        Some(_) => false,
    };
    for pid in peers::clients(case) {
        // It waits for an answer that may still come while its process has reached a broker elsewhere.
        if peers::has_reached(case, pid, Rung::Handshake) {
            continue;
        }
        let Some(failed) = failed_late(case, pid, is_so) else { continue };
        let address = std::net::SocketAddr::from(failed.peer);
        let routes: Vec<i32> = failed
            .attempts
            .iter()
            .filter_map(|one| one.result)
            .filter(|errno| matches!(errno, 113 | 112 | 101 | 100))
            .collect();
        let longest_ns = failed.attempts.iter().map(|one| waited_ns(one)).max().unwrap_or(0);
        let summary = match routes.first() {
            Some(errno) => format!(
                "The broker's address {address} cannot be reached: the network has no way to it ({}).",
                names::errno(*errno)
            ),
            None => format!(
                "The broker's address {address} does not answer: connections are asked for, and neither accepted nor refused{}.",
                beside(&failed)
            ),
        };
        let base = if longest_ns >= 2 * PATIENCE_NS || !routes.is_empty() { 0.95 } else { 0.8 };
        let finding = Finding::new(
            Code::ConnectionTimeout,
            case.confidence(failed.likelihood.min(base), &[Kind::Streams]),
            summary,
        )
        .title(format!("{address} does not answer"))
        .about(case.subject(pid))
        .evidence(evidence(&failed, &format!(": no answer for {}", units::duration(longest_ns))))
        .remedy(format!(
            "try it from this machine: nc -vz -w 5 {} {}; then see to the firewall, the route, or a listener that does not accept",
            address.ip(),
            address.port()
        ));
        findings.push(peers::with_exit(case, pid, finding));
    }
}

/// As [`failed`], for what takes its time: it is settled by itself.
fn failed_late<'a>(case: &'a Case<'_>, pid: Pid, is_so: impl Fn(&Connection) -> bool) -> Option<Failed<'a>> {
    if peers::was_let_in(case, pid) {
        return None;
    }
    let all = broker_attempts(case, pid);
    let better_ns = all.iter().filter(|(one, _)| one.result == Some(0)).map(|(one, _)| one.at_ns).max();
    let later: Vec<_> = all
        .into_iter()
        .filter(|(one, _)| is_so(one) && better_ns.is_none_or(|better_ns| one.at_ns > better_ns))
        .collect();
    let (last, _) = later.last().copied()?;
    let peer = peers::inet(last)?;
    let likelihood = later.iter().map(|(_, likelihood)| *likelihood).fold(0.0, f64::max);
    Some(Failed { attempts: later.into_iter().map(|(one, _)| one).collect(), peer, likelihood })
}
