//! Names that do not resolve. Knows look-ups and what followed them.

use super::super::{
    case::{Case, Kind},
    catalogue::Code,
    finding::{Evidence, Finding},
    peers,
};
use crate::{
    event::Pid,
    model::{
        hints::Hint,
        ladder::Rung,
        lookups::{Asked, Consulted},
    },
    words::{names, units},
};

/// A name server that says nothing for so long will not be waited for (resolv.conf(5): `timeout`, 5 s).
const SILENCE_NS: u64 = 4_000_000_000;
/// A look-up without any connection after it, for so long, came to nothing.
const NOTHING_NS: u64 = 1_500_000_000;

/// `dns-failure`: the broker's name was looked up, and no address came back.
///
/// Needs: a process that never spoke to a broker, and tried no connection to one unless it has a list of them (pika 1.4 begins its list
/// anew after a failed look-up: what follows is never tried); a name that its name server did not know (the answer's
/// code), or an address book (`/etc/hosts`) that was read again and again without a connection after it; and that the name is the broker's:
/// a URL says so, or pika's pair of loopback sockets was made just before. What is printed (`gaierror`) only supports it. Looks alike:
/// another service's name, while the broker is found; a name that resolves at the second try; `getfqdn` at start. Documented:
/// getaddrinfo(3); RFC 1035, 4.1.1; pika 1.4 `selector_ioloop_adapter.py`, `_AddressResolver`; RFC 6724 for the datagram connects.
pub(super) fn dns_failure(case: &Case<'_>, findings: &mut Vec<Finding>) {
    for pid in peers::clients(case) {
        if peers::has_reached(case, pid, Rung::Connect) {
            continue;
        }
        let lookups = &case.model.lookups;
        let hosts: Vec<String> = peers::urls(case, pid).into_iter().map(|url| url.host).collect();
        let failed: Vec<(&str, &Asked)> =
            lookups.names(pid).filter(|(_, asked)| is_failed(case, asked)).collect();
        // The resolver adds its search domains to a name: the URL's is the beginning of what was asked for.
        let of_url = failed.iter().find(|(name, _)| hosts.iter().any(|host| is_of(name, host)));
        if of_url.is_none() && !peers::broker_attempts(case, pid).is_empty() {
            continue;
        }
        let of_pair = failed
            .iter()
            .filter(|(_, asked)| peers::makes_pairs(case, pid, asked.first.at_ns, None))
            .min_by_key(|(name, asked)| (asked.first.at_ns, name.len()));
        let hint = case.model.hints.get(pid, Hint::Name);
        let (name, base, evidence) = match (of_url, of_pair, lookups.consulted(pid)) {
            (Some((name, asked)), ..) => (Some(shown(name, &hosts)), 0.97, asked_evidence(name, asked)),
            (None, Some((name, asked)), _) => (Some(shown(name, &hosts)), 0.92, asked_evidence(name, asked)),
            (None, None, Some(consulted)) if failed.is_empty() => {
                let Some(base) = by_hosts(case, pid, consulted, hint.is_some()) else { continue };
                let named = hosts.iter().filter(|host| host.parse::<std::net::IpAddr>().is_err());
                let evidence = Evidence::new(
                    consulted.last,
                    format!(
                        "/etc/hosts is read {}, and no connection follows",
                        units::counted(consulted.count, "time")
                    ),
                );
                (named.cloned().next_back(), base, vec![evidence])
            }
            _ => continue,
        };
        let answer = of_url.or(of_pair).map_or("no address came back".to_owned(), |(_, asked)| told(asked));
        let (summary, title, remedy) = match &name {
            Some(name) => (
                format!(
                    "The broker's host {name} was looked up and {answer}; no connection to it could be tried."
                ),
                format!("the broker's name {name} does not resolve"),
                format!(
                    "correct the host in the broker's URL, or make it resolve; to see: getent hosts {name}"
                ),
            ),
            None => (
                format!(
                    "A name was looked up before every attempt to connect and {answer}; no connection could be tried."
                ),
                "the broker's name does not resolve".to_owned(),
                "correct the host in the broker's URL, or make it resolve; to see: getent hosts HOST"
                    .to_owned(),
            ),
        };
        let confidence = case.confidence(base, &[Kind::Streams]);
        let finding = Finding::new(Code::DnsFailure, confidence, summary)
            .title(title)
            .about(case.subject(pid))
            .evidence(evidence)
            .evidence(hint.map(|mark| Evidence::new(mark, "the C library's words for it in the output")))
            .remedy(remedy);
        findings.push(peers::with_exit(case, pid, finding));
    }
}

fn is_of(name: &str, host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    name.strip_prefix(host.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The name as the URL has it, where one has it; else as it was asked for.
fn shown(name: &str, hosts: &[String]) -> String {
    hosts.iter().find(|host| is_of(name, host)).cloned().unwrap_or_else(|| name.to_owned())
}

fn is_failed(case: &Case<'_>, asked: &Asked) -> bool {
    let silent_ns = case.ended_ns().saturating_sub(asked.first.at_ns);
    !asked.resolved && (asked.answers > 0 || silent_ns >= SILENCE_NS)
}

fn told(asked: &Asked) -> String {
    match asked.refused {
        Some((_, 3)) => "does not exist (NXDOMAIN)".to_owned(),
        Some((_, code)) => format!("the name server answered {}", names::name_server_code(code)),
        None if asked.answers == 0 => "no name server answered".to_owned(),
        None => "has no address".to_owned(),
    }
}

fn asked_evidence(name: &str, asked: &Asked) -> Vec<Evidence> {
    let question = Evidence::new(asked.first, format!("a name server is asked for {name}"));
    let answer = match asked.refused {
        Some((mark, code)) => Evidence::new(mark, format!("it answers {}", names::name_server_code(code))),
        None => Evidence::new(
            asked.last,
            format!("{} asked, no address told", units::counted(asked.questions, "time")),
        ),
    };
    vec![question, answer]
}

/// How sure it is without a name server's word: by the look-ups that nothing followed.
fn by_hosts(case: &Case<'_>, pid: Pid, consulted: &Consulted, printed: bool) -> Option<f64> {
    let pairs = peers::makes_pairs(case, pid, consulted.last.at_ns, None);
    let waited_ns = case.ended_ns().saturating_sub(consulted.last.at_ns);
    let settled = waited_ns >= NOTHING_NS || peers::failed_exit(case, pid).is_some() || consulted.count > 1;
    // Any other connection may be what the name was looked up for.
    let others = peers::attempts(case, pid).any(|one| one.at_ns >= consulted.first.at_ns);
    if others || !settled {
        return None;
    }
    match (pairs, printed) {
        (true, true) => Some(0.9),
        (true, false) if consulted.count > 1 => Some(0.75),
        _ => None,
    }
}
