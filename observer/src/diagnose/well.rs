//! What went well: healthy and idle. Concludes only from what was seen to go well; what failed beside it comes first by precedence.

use super::{
    Rule,
    case::{Case, Kind},
    catalogue::Code,
    finding::{Evidence, Finding},
};
use crate::{
    model::{
        consumer::{Consumer, How},
        dramatiq::{QueueKind, queue_kind},
        ladder::Rung,
        queue::Answer,
    },
    words::units,
};

/// The rules of this family.
pub(super) const RULES: &[Rule] = &[healthy, idle];

/// Deliveries arrived and were acknowledged (AMQP 0-9-1, `basic.ack`), or needed no acknowledgement. Alike: a worker that acknowledged for a
/// while and then got stuck, whose failure is found by another rule and comes first.
fn healthy(case: &Case<'_>, findings: &mut Vec<Finding>) {
    let outcomes = &case.model.amqp.lives.outcomes;
    let at_work = outcomes.iter().filter(|(_, work)| work.acked > 0);
    let (mut acked, mut first, mut last) = (0, None, None);
    let mut evidence = Vec::new();
    for (pid, work) in at_work {
        acked += work.acked;
        first.get_or_insert(pid);
        last = last.max(work.last_acked.map(|mark| mark.at_ns));
        evidence
            .extend(work.first_acked.map(|mark| Evidence::new(mark, "the first message was acknowledged")));
    }
    let (Some(pid), Some(last)) = (first, last) else { return };
    let summary = format!(
        "{} arrived and {} acknowledged, the last {}.",
        units::counted(acked, "message"),
        if acked == 1 { "was" } else { "were" },
        case.about(last)
    );
    findings.push(Finding::new(Code::Healthy, 0.97, summary).about(case.subject(pid)).evidence(evidence));
}

/// It consumes every queue it declared, was given nothing, and the broker says that those queues are empty: in samples of its own account
/// where it was asked, else in its answer to `queue.declare` (AMQP 0-9-1, `declare-ok`, message-count). Alike: a queue whose messages
/// somebody else takes; messages that wait and are not delivered.
fn idle(case: &Case<'_>, findings: &mut Vec<Finding>) {
    let amqp = &case.model.amqp;
    let plain = |consumer: &&Consumer| queue_kind(&consumer.queue) != QueueKind::Dead;
    let consumers: Vec<&Consumer> =
        amqp.consumers.iter().filter(plain).filter(|one| is_steady(case, one)).collect();
    let Some(first) = consumers.first() else { return };
    if consumers.iter().any(|one| one.deliveries > 0)
        || amqp.lives.outcomes.iter().any(|(_, work)| work.delivered > 0)
    {
        return;
    }
    let consumed = |vhost: Option<&str>, name: &str| {
        consumers.iter().any(|one| one.queue == name && one.vhost.as_deref() == vhost)
    };
    let mut declared = amqp.queues.iter().filter(|((_, name), queue)| {
        queue.declared.as_ref().is_some_and(|declared| !declared.passive)
            && queue_kind(name) == QueueKind::Plain
    });
    if !declared.all(|((vhost, name), _)| consumed(vhost.as_deref(), name)) {
        return;
    }
    let mut sampled = true;
    for one in &consumers {
        let account = case.both.as_ref().and_then(|both| {
            both.queues.iter().find(|account| account.name == one.queue && account.vhost == one.vhost)
        });
        match account.and_then(|account| account.sampled.as_ref()) {
            // Messages that come and go between two samples went to nobody of ours.
            Some(sample) if sample.ready.is_none_or(|ready| ready > 0) || sample.highest_ready.is_some() => {
                return;
            }
            Some(_) => {}
            None => {
                sampled = false;
                let queue = amqp.queues.get(one.vhost.as_deref(), &one.queue);
                let answer = queue
                    .and_then(|queue| queue.declared.as_ref())
                    .and_then(|declared| declared.answer.as_ref());
                if !matches!(answer, Some(Answer::Ok { messages: 0, .. })) {
                    return;
                }
            }
        }
    }
    let mut names: Vec<&str> = consumers.iter().map(|one| one.queue.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let how = if sampled {
        "and the broker says that they are empty"
    } else {
        "and the broker said that they were empty when they were declared; it was not asked again (--broker worker)"
    };
    let base = if sampled { 0.95 } else { 0.75 };
    let evidence = first.confirmed.map(|mark| Evidence::new(mark, format!("consumes {}", first.queue)));
    findings.push(
        Finding::new(
            Code::Idle,
            case.confidence(base, &[Kind::Streams]),
            format!("It consumes {}, {how}.", names.join(", ")),
        )
        .about(case.subject(first.asked.pid))
        .rung(Rung::Consume)
        .evidence(evidence)
        .remedy(format!("send a message to one of them: observer send {} ACTOR", first.queue)),
    );
}

/// Whether a consumer was confirmed and stayed, to the end of its process or of the observation.
fn is_steady(case: &Case<'_>, consumer: &Consumer) -> bool {
    let Some(confirmed) = consumer.confirmed else { return false };
    let ended_by_itself = |at_ns: u64| {
        let process = case.model.processes.get(consumer.asked.pid);
        // A worker that was asked to stop cancels, or closes, and then exits: that is the same end.
        let exit_ns =
            process.and_then(|process| process.exit.as_ref()).map_or(case.ended_ns(), |exit| exit.at_ns);
        exit_ns.saturating_sub(at_ns) < STOPPING_NS
    };
    match &consumer.ended {
        None => true,
        Some(ended) if ended.how == How::CancelledByServer => false,
        Some(ended) => ended.at_ns > confirmed.at_ns && ended_by_itself(ended.at_ns),
    }
}

/// A worker takes so long from closing its consumers to its own end (dramatiq waits for its threads, a second each at the most).
const STOPPING_NS: u64 = 15_000_000_000;
