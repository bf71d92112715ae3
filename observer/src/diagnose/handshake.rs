//! What a broker refuses before a channel is open: credentials, virtual host, limits. Knows reply codes.

use super::{
    Rule,
    case::{Case, Kind},
    catalogue::{Code, Severity},
    finding::{Evidence, Finding},
    peers,
    refusals::{Refusal, between, quoted, refusals},
};
use crate::{
    amqp::{conversation::Spoke, method::Side},
    model::link::Link,
    words::capital,
};

/// The rules of this family.
pub(super) const RULES: &[Rule] = &[auth_refused, auth_refused_silently, not_allowed];

const ACCESS_REFUSED: u16 = 403;
const NOT_ALLOWED: u16 = 530;
/// RabbitMQ's internal error: the virtual host is down (`rabbit_reader.erl`, `is_vhost_alive`).
const INTERNAL_ERROR: u16 = 541;

/// A refused process that is let in later, or that consumes all the same, is not kept from its work.
fn severity(case: &Case<'_>, refusal: &Refusal<'_>) -> Severity {
    if refusal.was_let_in_later(case) || peers::consumes(case, refusal.pid) {
        Severity::Warning
    } else {
        Severity::Failure
    }
}

fn broker(link: &Link) -> String {
    link.peer.get().map_or("the broker".to_owned(), |peer| format!("the broker at {peer}"))
}

/// `auth-refused`: `connection.close` 403 as the answer to the credential.
///
/// Needs: that code on a connection on which no virtual host was asked for yet. Looks alike: 403 on a channel (`permission-refused`), 530
/// for the virtual host. Documented: RabbitMQ 3.10 and 4.1 `rabbit_reader.erl`, `auth_fail`, which hides the reason from the client; pika
/// announces `authentication_failure_close`.
fn auth_refused(case: &Case<'_>, findings: &mut Vec<Finding>) {
    let is_so = |closing: &crate::model::amqp::Closing, link: &Link| {
        closing.channel.is_none()
            && closing.code == ACCESS_REFUSED
            && !link.facts().is_open
            && link.facts().vhost.is_none()
    };
    for refusal in refusals(case, is_so) {
        let finding = of_credential(case, refusal.link, 0.99)
            .severity(severity(case, &refusal))
            .evidence(refusal.evidence());
        findings.push(peers::with_exit(case, refusal.pid, finding));
    }
}

/// `auth-refused` by a broker that only hangs up: the credential was sent, and the stream ended before `connection.tune`.
///
/// Needs: `connection.start-ok` and nothing of the server after it but its end. Looks alike: a process that closes by itself, which does
/// not count. Documented: AMQP 0-9-1, 4.10 ("the server should close the socket"); RabbitMQ does so for clients without
/// `authentication_failure_close`, after a second.
fn auth_refused_silently(case: &Case<'_>, findings: &mut Vec<Finding>) {
    for pid in peers::clients(case) {
        if peers::was_let_in(case, pid) {
            continue;
        }
        let hung_up = |link: &&Link| {
            let Some(start_ok) = link.course.start_ok else { return false };
            let connection = case.model.connections.at(link.socket, link.opened.at_ns);
            let by_peer = connection.and_then(|one| one.first_end).is_some_and(|end| {
                use crate::event::Disconnect::{ByPeer, ResetByPeer};
                matches!(end.how, ByPeer | ResetByPeer)
            });
            link.spoke(Side::Server) == Spoke::Amqp
                && link.facts().proposed.is_none()
                && link.facts().closed.is_none()
                && link.unseen == 0
                && link.course.server_last.is_none_or(|last| last.at_ns <= start_ok.at_ns)
                && by_peer
        };
        let Some(link) = case.links(pid).filter(hung_up).last() else { continue };
        let sent = link.course.start_ok.map(|mark| Evidence::new(mark, "start-ok: the credential is sent"));
        let end =
            case.model.connections.at(link.socket, link.opened.at_ns).and_then(|one| one.first_end).map(
                |end| {
                    let mark = crate::model::mark::Mark { event: end.event, at_ns: end.at_ns, ..link.opened };
                    Evidence::new(mark, "the broker closes the connection without a word")
                },
            );
        let confidence = case.confidence(0.85, &[Kind::Streams]);
        let finding = of_credential(case, link, confidence).evidence(sent).evidence(end);
        findings.push(peers::with_exit(case, pid, finding));
    }
}

fn of_credential(case: &Case<'_>, link: &Link, confidence: f64) -> Finding {
    let facts = link.facts();
    let mechanism = facts.mechanism.as_deref().unwrap_or("an unknown mechanism");
    let (who, remedy) = match facts.user.as_deref() {
        Some(user) => (
            format!("user {user} with mechanism {mechanism}"),
            format!(
                "correct user and password in the broker's URL; to try them at the broker: rabbitmqctl authenticate_user {}",
                quoted(user)
            ),
        ),
        None => (
            format!("the credential (mechanism {mechanism})"),
            "correct user and password in the broker's URL; which users there are: rabbitmqctl list_users"
                .to_owned(),
        ),
    };
    // The default user is let in from the broker's own machine only (`loopback_users`).
    let is_loopback = match link.peer.get() {
        Some(crate::event::Address::Inet { ip, .. }) => ip.to_canonical().is_loopback(),
        _ => true,
    };
    let guest = facts.user.as_deref() == Some("guest") && !is_loopback;
    let guest = if guest { " By default guest may only log in on the broker's own machine." } else { "" };
    Finding::new(
        Code::AuthRefused,
        confidence,
        format!("{} refuses {who}: no such user, or another password.{guest}", capital(&broker(link))),
    )
    .title(match facts.user.as_deref() {
        Some(user) => format!("the broker refuses to log in user {user}"),
        None => "the broker refuses the credential".to_owned(),
    })
    .about(case.subject(link.opened.pid))
    .remedy(remedy)
}

/// `vhost-not-found`, `vhost-access-refused`, `connection-limit-reached`: `connection.close` 530 before a virtual host is open.
///
/// Needs: that code; its text tells the three apart. A limit's text also says "refused for user", so it comes first. Looks alike: other
/// reasons of 530 (negotiated values), which say none of this. Documented: RabbitMQ 3.10.8 and 4.1 `rabbit_reader.erl`,
/// `is_over_vhost_connection_limit`, `is_over_user_connection_limit`, `is_over_node_connection_limit`, `create_channel`;
/// `rabbit_access_control.erl`, `check_vhost_access`; `rabbit_vhost.erl`.
fn not_allowed(case: &Case<'_>, findings: &mut Vec<Finding>) {
    let is_so = |closing: &crate::model::amqp::Closing, link: &Link| {
        closing.channel.is_none()
            && (matches!(closing.code, NOT_ALLOWED | INTERNAL_ERROR) && !link.facts().is_open
                || closing.code == NOT_ALLOWED && closing.text.contains("limit"))
    };
    for refusal in refusals(case, is_so) {
        let text = refusal.last.text.as_str();
        let facts = refusal.link.facts();
        let vhost = facts.vhost.as_deref().or_else(|| between(text, "vhost '", "'")).unwrap_or("(unknown)");
        let user = facts.user.as_deref().or_else(|| between(text, "user '", "'"));
        let user_or = user.unwrap_or("(unknown)");
        let finding = if text.contains("limit") && (text.contains("reached") || text.contains("maximum")) {
            of_limit(&refusal, text, vhost, user_or)
        } else if text.contains("not found") {
            Finding::new(
                Code::VhostNotFound,
                0.99,
                format!(
                    "{} has no virtual host {vhost}; user {user_or} asked for it.",
                    capital(&broker(refusal.link))
                ),
            )
            .title(format!("the virtual host {vhost} does not exist"))
            .remedy(format!(
                "correct the virtual host in the broker's URL, or make it: rabbitmqctl add_vhost {}",
                quoted(vhost)
            ))
        } else if refusal.last.code == NOT_ALLOWED && text.contains("refused") {
            Finding::new(
                Code::VhostAccessRefused,
                0.99,
                format!(
                    "User {user_or} may not use the virtual host {vhost} of {}: it has no permissions there.",
                    broker(refusal.link)
                ),
            )
            .title(format!("user {user_or} may not use the virtual host {vhost}"))
            .remedy(format!(
                "rabbitmqctl set_permissions -p {} {} '.*' '.*' '.*'",
                quoted(vhost),
                quoted(user_or)
            ))
        } else {
            continue;
        };
        // Under a limit some connections are let in and others never: what goes on to the end is a failure all the same.
        let is_limit = finding.code == Code::ConnectionLimitReached;
        let goes_on = refusal.count > 1 && !is_served_later(case, &refusal);
        let severity = if is_limit && goes_on { Severity::Failure } else { severity(case, &refusal) };
        let finding =
            finding.severity(severity).about(case.subject(refusal.pid)).evidence(refusal.evidence());
        findings.push(peers::with_exit(case, refusal.pid, finding));
    }
}

/// Whether a connection was let in after the last refusal.
fn is_served_later(case: &Case<'_>, refusal: &Refusal<'_>) -> bool {
    case.links(refusal.pid)
        .any(|link| link.course.open_ok.is_some_and(|mark| mark.at_ns > refusal.last.mark.at_ns))
}

fn of_limit(refusal: &Refusal<'_>, text: &str, vhost: &str, user: &str) -> Finding {
    let number = between(text, "limit (", ")").or_else(|| text.rsplit("limit of ").next()).unwrap_or("?");
    let number = number.trim_matches(|c: char| !c.is_ascii_digit());
    let (what, whose, remedy) = if text.contains("number of channels") {
        (
            "channels",
            format!("user {user}"),
            format!(
                "close channels, or raise the limit: rabbitmqctl set_user_limits {} '{{\"max-channels\": N}}'",
                quoted(user)
            ),
        )
    } else if text.contains("user connection limit") {
        (
            "connections",
            format!("user {user}"),
            format!(
                "close connections, or raise the limit: rabbitmqctl set_user_limits {} '{{\"max-connections\": N}}'",
                quoted(user)
            ),
        )
    } else if text.contains("node connection limit") {
        (
            "connections",
            "the broker's node".to_owned(),
            "close connections, or raise connection_max in rabbitmq.conf".to_owned(),
        )
    } else {
        (
            "connections",
            format!("the virtual host {vhost}"),
            format!(
                "close connections, or raise the limit: rabbitmqctl set_vhost_limits -p {} '{{\"max-connections\": N}}'",
                quoted(vhost)
            ),
        )
    };
    Finding::new(
        Code::ConnectionLimitReached,
        0.99,
        format!(
            "{} lets nobody else in: the limit of {number} {what} of {whose} is reached (user {user}, virtual host {vhost}).",
            capital(&broker(refusal.link))
        ),
    )
    .title(format!("the limit of {number} {what} of {whose} is reached"))
    .remedy(remedy)
}
