//! Queues that somebody else has for themselves. Knows reply codes, and who consumes by the broker's account.

use super::{
    super::{
        case::Case,
        catalogue::{Code, Severity},
        finding::{Evidence, Finding},
        peers,
        refusals::{quoted, refusals},
    },
    is_consumed_later, resource,
};
use crate::{
    event::Pid,
    model::{amqp::Closing, link::Link, reconcile::Holder},
    words,
};

const ACCESS_REFUSED: u16 = 403;
const RESOURCE_LOCKED: u16 = 405;

/// `queue-in-exclusive-use`: `channel.close` 403 "in exclusive use", or 405.
///
/// Needs: one of the codes. Looks alike: 403 for want of a permission. A consumer that gets the queue later was only early: a warning.
/// Documented: RabbitMQ 3.10.8 `rabbit_channel.erl` ("in exclusive use": another consumer is exclusive, or this one wants to be and
/// another is there), `rabbit_amqqueue.erl` (RESOURCE_LOCKED: an exclusive queue of another connection).
pub(super) fn queue_in_exclusive_use(case: &Case<'_>, findings: &mut Vec<Finding>) {
    let is_so = |closing: &Closing, _: &Link| {
        closing.code == RESOURCE_LOCKED
            || (closing.code == ACCESS_REFUSED && closing.text.contains("in exclusive use"))
    };
    for refusal in refusals(case, is_so) {
        let text = refusal.last.text.as_str();
        let found = resource(text);
        let facts = refusal.link.facts();
        let vhost = facts.vhost.as_deref().or(found.as_ref().and_then(|found| found.vhost)).unwrap_or("/");
        let name = found.map_or("(unknown)", |found| found.name);
        let (who, proof) = holder(case, refusal.pid, vhost, name);
        let is_locked = refusal.last.code == RESOURCE_LOCKED;
        let how = if is_locked {
            "is exclusive to another connection"
        } else if asks_to_be_alone(case, refusal.pid, name) && who.is_none() {
            "has a consumer already, and the worker asks to be its only one"
        } else {
            "has another consumer that asked to be its only one"
        };
        let by = who.as_ref().map(|who| format!(": {who}")).unwrap_or_default();
        let method = refusal.last.cause.as_deref().unwrap_or("it");
        let summary =
            format!("The queue {name} in virtual host {vhost} {how}{by}. The broker refuses {method}.");
        let next = match &who {
            Some(who) => format!("stop {who}, or give it a queue of its own"),
            None => format!(
                "find who has it: rabbitmqctl list_consumers -p {} ; stop that one, or give it a queue of its own",
                quoted(vhost)
            ),
        };
        let passes = is_consumed_later(case, &refusal, name);
        let finding = Finding::new(Code::QueueInExclusiveUse, 0.98, summary)
            .title(format!("somebody else has the queue {name} for themselves"))
            .severity(if passes { Severity::Warning } else { Severity::Failure })
            .about(case.subject(refusal.pid))
            .evidence(refusal.evidence())
            .evidence(proof)
            .remedy(next);
        findings.push(peers::with_exit(case, refusal.pid, finding));
    }
}

fn asks_to_be_alone(case: &Case<'_>, pid: Pid, queue: &str) -> bool {
    case.model.amqp.consumers.iter().any(|one| one.asked.pid == pid && one.queue == queue && one.exclusive)
}

/// Who consumes the queue, when the broker's account knows, or another observed process does.
fn holder(case: &Case<'_>, own: Pid, vhost: &str, queue: &str) -> (Option<String>, Option<Evidence>) {
    let observed = |pid: Pid| {
        let command = case.command(pid).map(|command| format!(" ({command})")).unwrap_or_default();
        format!("process {pid}{command}")
    };
    let accounts = case.both.iter().flat_map(|both| &both.queues);
    let account = accounts
        .filter(|account| account.name == queue && account.vhost.as_deref().is_none_or(|of| of == vhost))
        .flat_map(|account| &account.consumers);
    for consumer in account {
        let who = match &consumer.holder {
            Holder::Observed { pid, .. } if *pid != own => observed(*pid),
            Holder::Other(client) => match (client.local_pid, &client.local_command) {
                (Some(pid), Some(command)) => format!("process {pid} ({})", words::command(command)),
                (Some(pid), None) => format!("process {pid}"),
                _ => format!("the connection {}", client.name),
            },
            _ => continue,
        };
        let mark = crate::model::mark::Mark {
            event: consumer.event,
            at_ns: consumer.since_ns,
            pid: own,
            tid: crate::event::Tid(own.0),
        };
        return (
            Some(who.clone()),
            Some(Evidence::new(mark, format!("the broker tells of its consumer: {who}"))),
        );
    }
    let seen = case.model.amqp.consumers.iter().find(|one| {
        one.queue == queue && one.asked.pid != own && one.confirmed.is_some() && one.ended.is_none()
    });
    match seen.and_then(|one| one.confirmed.map(|mark| (one, mark))) {
        Some((one, mark)) => {
            let who = observed(one.asked.pid);
            (Some(who.clone()), Some(Evidence::new(mark, format!("{who} consumes it"))))
        }
        None => (None, None),
    }
}
