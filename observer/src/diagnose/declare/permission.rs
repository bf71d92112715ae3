//! Permissions on queues and exchanges. Knows reply codes and which permission each method needs.

use super::{
    super::{
        case::Case,
        catalogue::{Code, Severity},
        finding::Finding,
        peers,
        refusals::{between, quoted, refusals},
    },
    is_consumed_later, resource,
};
use crate::model::{amqp::Closing, ladder::Rung, link::Link};

const ACCESS_REFUSED: u16 = 403;
/// The argument of a queue that has its dead letters sent on.
const DEAD_LETTERS: &str = "x-dead-letter-exchange";

/// `permission-refused`: `channel.close` 403 for want of configure, write or read permission on a resource.
///
/// Needs: that code on a channel, and a text that is not of exclusive use. Which permission it was is the text's in RabbitMQ 3.12 and
/// later ("configure access to queue …"), else follows from the method and the resource: declare, delete: configure (of a queue with a
/// dead-letter exchange also read on the queue and write on that exchange); publish: write; consume, get: read; bind: write on the
/// destination, read on the source. Looks alike: `queue-in-exclusive-use`, whose code is the same; a side task that is refused while the
/// worker consumes (a warning). Documented: RabbitMQ "Access Control"; 3.10.8 `rabbit_channel.erl`, `check_resource_access`,
/// `rabbit_access_control.erl`.
pub(super) fn permission_refused(case: &Case<'_>, findings: &mut Vec<Finding>) {
    let is_so = |closing: &Closing, link: &Link| {
        closing.code == ACCESS_REFUSED
            && (closing.channel.is_some() || link.facts().is_open)
            && !closing.text.contains("in exclusive use")
    };
    for refusal in refusals(case, is_so) {
        let text = refusal.last.text.as_str();
        let facts = refusal.link.facts();
        let user = facts.user.as_deref().or_else(|| between(text, "for user '", "'")).unwrap_or("(unknown)");
        let found = resource(text);
        let vhost = facts.vhost.as_deref().or(found.as_ref().and_then(|found| found.vhost)).unwrap_or("/");
        let (kind, name) = found.map_or(("resource", "(unknown)"), |found| (found.kind, found.name));
        let name = if name.is_empty() { "amq.default" } else { name };
        let method = refusal.last.cause.as_deref().unwrap_or("a method");
        let declared =
            case.model.amqp.queues.get(facts.vhost.as_deref(), name).and_then(|it| it.declared.as_ref());
        let keeps_dead_letters = declared.is_some_and(|it| it.arguments.get(DEAD_LETTERS).is_some());
        let permission = permission(text, method, kind, keeps_dead_letters);
        let summary = format!(
            "User {user} may not {} {kind} {name} in virtual host {vhost}: {method} needs the {permission} permission on it.",
            verb(method)
        );
        // Refused to publish, messages are lost however well it consumes; refused to consume or declare once, it may go on without.
        let is_publish = method.starts_with("basic.publish");
        let passes = if is_publish {
            false
        } else if kind == "queue" {
            is_consumed_later(case, &refusal, name)
        } else {
            refusal.count == 1 && peers::consumes(case, refusal.pid)
        };
        let rung = if method.starts_with("basic.consume") || method.starts_with("basic.get") {
            Rung::Consume
        } else {
            Rung::Declare
        };
        let finding = Finding::new(Code::PermissionRefused, 0.98, summary)
            .title(format!("user {user} lacks the {permission} permission on {kind} {name}"))
            .severity(if passes { Severity::Warning } else { Severity::Failure })
            .rung(rung)
            .about(case.subject(refusal.pid))
            .evidence(refusal.evidence())
            .remedy(format!(
                "rabbitmqctl set_permissions -p {} {} '.*' '.*' '.*'",
                quoted(vhost),
                quoted(user)
            ));
        findings.push(peers::with_exit(case, refusal.pid, finding));
    }
}

fn permission(text: &str, method: &str, kind: &str, keeps_dead_letters: bool) -> &'static str {
    for word in ["configure", "write", "read"] {
        if text.contains(&format!("{word} access to ")) {
            return word;
        }
    }
    match (method, kind) {
        ("basic.publish", _) => "write",
        ("basic.consume" | "basic.get" | "queue.purge", _) => "read",
        // A queue's dead letters are written to an exchange.
        ("queue.declare", "exchange") => "write",
        // Both are looked at, and before 3.12 the text does not say which was wanting.
        ("queue.declare", "queue") if keeps_dead_letters => "configure or read",
        ("queue.bind" | "queue.unbind", "queue") => "write",
        ("queue.bind" | "queue.unbind", _) => "read",
        _ => "configure",
    }
}

fn verb(method: &str) -> &'static str {
    match method {
        "basic.publish" => "publish to",
        "basic.consume" => "consume",
        "basic.get" => "get from",
        "queue.declare" | "exchange.declare" => "declare",
        _ => "use",
    }
}
