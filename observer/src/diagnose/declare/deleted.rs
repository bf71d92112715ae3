//! Queues that are gone, or never were. Knows consumers and reply codes.

use std::collections::BTreeMap;

use super::{
    super::{
        case::Case,
        catalogue::{Code, Severity},
        finding::{Evidence, Finding},
        peers,
        refusals::{quoted, refusals},
    },
    is_mended_later, resource,
};
use crate::{
    event::Pid,
    model::{
        amqp::Closing,
        consumer::{Consumer, How},
        link::Link,
        mark::Mark,
    },
};

const NOT_FOUND: u16 = 404;

/// `queue-deleted`: the server cancelled a consumer, because its queue is gone.
///
/// Needs: `basic.cancel` from the server. A process that consumes the queue again afterwards has recovered, and this is a warning
/// (dramatiq 2.2 declares anew; 1.17 does not). Looks alike: a mirrored or quorum queue that changes its leader cancels too, where the
/// consumer asked for it; the client's own cancel, which is none of the server's. Documented: RabbitMQ "Consumer Cancel Notification".
pub(super) fn queue_deleted(case: &Case<'_>, findings: &mut Vec<Finding>) {
    let mut last: BTreeMap<(Pid, &str), (&Consumer, Mark, u64)> = BTreeMap::new();
    for consumer in case.model.amqp.consumers.iter() {
        if let Some(ended) = consumer.ended.as_ref().filter(|ended| ended.how == How::CancelledByServer) {
            let mark = Mark { event: ended.event, at_ns: ended.at_ns, ..consumer.asked };
            let known = last.entry((consumer.asked.pid, &consumer.queue)).or_insert((consumer, mark, 0));
            *known = (consumer, mark, known.2 + 1);
        }
    }
    for ((pid, queue), (consumer, mark, count)) in last {
        let again = case.model.amqp.consumers.iter().any(|later| {
            later.asked.pid == pid
                && later.queue == queue
                && later.asked.at_ns > mark.at_ns
                && later.confirmed.is_some()
                && !matches!(&later.ended, Some(ended) if ended.how == How::CancelledByServer)
        });
        let vhost = consumer.vhost.as_deref().unwrap_or("/");
        let missing = case.model.amqp.closings.iter().find(|closing| {
            closing.code == NOT_FOUND
                && closing.mark.pid == pid
                && closing.mark.at_ns >= mark.at_ns
                && resource(&closing.text).is_some_and(|found| found.name == queue)
        });
        let after = match (again, missing) {
            (true, _) => "the worker has declared it anew and consumes again",
            (false, Some(_)) => "the worker tries to consume it again and it is not there",
            (false, None) => "nothing in this process consumes it any more",
        };
        let times = if count > 1 { "more than once " } else { "" };
        let finding = Finding::new(
            Code::QueueDeleted,
            0.95,
            format!("The queue {queue} in virtual host {vhost} was deleted {times}while it was consumed: the broker cancelled the consumer, and {after}."),
        )
        .title(format!("the queue {queue} was deleted while it was consumed"))
        .severity(if again { Severity::Warning } else { Severity::Failure })
        .about(case.subject(pid))
        .evidence([Evidence::new(mark, format!("basic.cancel from the broker for the consumer of {queue}"))])
        .evidence(missing.map(|closing| Evidence::new(closing.mark, format!("channel.close 404: {}", closing.text))))
        .remedy(if again {
            format!("find who deletes the queue {queue}; messages that were in it are gone")
        } else {
            format!("restart the worker, so that it declares the queue {queue} again, and find who deletes it")
        });
        findings.push(peers::with_exit(case, pid, finding));
    }
}

/// `queue-deleted`, of a queue that was not there from the beginning: 404 as the answer to `basic.consume` or `basic.get`.
///
/// Needs: that code and method, and neither a consumer of the queue nor a declaration later. Looks alike: a thread of dramatiq 1.17 that
/// consumes before another has declared, and tries again 3 s later; a passive declare that only asks whether a queue is
/// there, which does not count. Documented: AMQP 0-9-1, `basic.consume`; RabbitMQ 3.10.8 `rabbit_amqqueue.erl`, `not_found`.
pub(super) fn queue_missing(case: &Case<'_>, findings: &mut Vec<Finding>) {
    let is_so = |closing: &Closing, _: &Link| {
        closing.code == NOT_FOUND
            && closing.cause.as_deref().is_some_and(|cause| matches!(cause, "basic.consume" | "basic.get"))
    };
    for refusal in refusals(case, is_so) {
        let Some(found) = resource(&refusal.last.text).filter(|found| found.kind == "queue") else {
            continue;
        };
        let was_consumed = case.model.amqp.consumers.iter().any(|consumer| {
            consumer.asked.pid == refusal.pid && consumer.queue == found.name && consumer.confirmed.is_some()
        });
        // One that was consumed before is told by its cancel.
        if was_consumed || is_mended_later(case, &refusal, found.name) {
            continue;
        }
        let vhost = refusal.link.facts().vhost.as_deref().or(found.vhost).unwrap_or("/");
        let others = peers::consumes(case, refusal.pid);
        let finding = Finding::new(
            Code::QueueDeleted,
            0.85,
            format!("The queue {} does not exist in virtual host {vhost}: it was deleted, or never declared, and the broker refuses to let it be consumed.", found.name),
        )
        .title(format!("the queue {} does not exist", found.name))
        .severity(if others { Severity::Warning } else { Severity::Failure })
        .about(case.subject(refusal.pid))
        .evidence(refusal.evidence())
        .remedy(format!(
            "declare the queue {} before it is consumed, or correct its name; which there are: rabbitmqctl list_queues -p {}",
            found.name,
            quoted(vhost)
        ));
        findings.push(peers::with_exit(case, refusal.pid, finding));
    }
}
