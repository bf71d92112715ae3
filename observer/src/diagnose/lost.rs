//! Connections that were there and are gone: heartbeats, consumer time-outs, resets. Knows both ends' last words.

mod broken;

use super::{
    Rule,
    case::{Case, Kind},
    catalogue::Code,
    finding::{Evidence, Finding},
    peers,
    refusals::{between, refusals},
};
use crate::{
    model::{amqp::Closing, link::Link},
    words::units,
};
use broken::{Broken, Consumed, How, broken};

/// The rules of this family.
pub(super) const RULES: &[Rule] = &[connection_lost, heartbeat_timeout, consumer_timeout];

const PRECONDITION_FAILED: u16 = 406;
/// RabbitMQ gives up on a client after two whole intervals without a byte (3.10.8 `rabbit_heartbeat.erl`, `heartbeater`: it looks once an
/// interval, and the first look may come at once). In tenths of an interval, with some room for the time on the way.
const MISSED_TENTHS: u64 = 17;

/// Whether the broker gave up on a connection because nothing came from us.
fn is_heartbeat(broken: &Broken<'_>) -> bool {
    let heartbeat_s = broken.link.facts().negotiated.map_or(0, |tuning| tuning.heartbeat_s);
    let Some(last) = broken.link.course.client_last.filter(|_| heartbeat_s > 0) else { return false };
    let silent_ns = broken.mark.at_ns.saturating_sub(last.at_ns);
    broken.how == How::ByBroker && silent_ns * 10 >= u64::from(heartbeat_s) * 1_000_000_000 * MISSED_TENTHS
}

/// `heartbeat-timeout`: the broker missed two heartbeats on a connection that consumes, and closed it.
///
/// Needs: a consumer; the negotiated heartbeat; no byte from us for that long; then the broker's end or reset. Looks alike: dramatiq's
/// idle *declare* connection, which nobody pumps and whose loss is benign: it has no consumer. A network that breaks: the bytes we wrote
/// are seen, delivered or not. Documented: AMQP 0-9-1, 4.2.7; RabbitMQ "Heartbeats", `rabbit_heartbeat.erl`; pika 1.4 `heartbeat.py`.
fn heartbeat_timeout(case: &Case<'_>, findings: &mut Vec<Finding>) {
    let consumed = Consumed::of(case);
    for pid in peers::clients(case) {
        let all: Vec<Broken<'_>> = broken(case, &consumed, pid).into_iter().filter(is_heartbeat).collect();
        let Some(first) = all.first() else { continue };
        let outstanding: u64 = all.iter().map(|one| one.link.course.outstanding).sum();
        let heartbeat_s = first.link.facts().negotiated.map_or(0, |tuning| tuning.heartbeat_s);
        // Nothing was held and it consumes again: nothing came of it.
        let is_failure = outstanding > 0 || !all.iter().all(|one| one.has_recovered(&consumed));
        let queues = broken::names(&all);
        let held = if outstanding > 0 {
            " Messages that were delivered and not yet acknowledged go to the queue again."
        } else {
            ""
        };
        let summary = format!(
            "The process sent nothing for two heartbeats ({} each) while it consumed {queues}, and the broker closed the connection: the thread that serves it was kept from running.{held}",
            units::counted(u64::from(heartbeat_s), "second")
        );
        let proofs = all.iter().take(3).flat_map(|one| {
            let last =
                one.link.course.client_last.map(|mark| Evidence::new(mark, "the last bytes to the broker"));
            let silent_ns =
                one.link.course.client_last.map_or(0, |last| one.mark.at_ns.saturating_sub(last.at_ns));
            let text = format!(
                "{} after {} without a byte from us, {} outstanding",
                one.what(),
                units::duration(silent_ns),
                units::counted(one.link.course.outstanding, "delivery").replace("deliverys", "deliveries")
            );
            last.into_iter().chain([Evidence::new(one.mark, text)])
        });
        let finding = Finding::new(
            Code::HeartbeatTimeout,
            case.confidence(if outstanding > 0 { 0.93 } else { 0.85 }, &[Kind::Streams]),
            summary,
        )
        .severity(broken::severity(is_failure))
        .about(case.subject(pid))
        .evidence(proofs)
        .remedy(format!(
            "find what keeps the process from running for {}: C code that holds the GIL, a stopped process; or raise heartbeat= in the broker's URL",
            units::counted(2 * u64::from(heartbeat_s), "second")
        ));
        findings.push(peers::with_exit(case, pid, finding));
    }
}

/// `consumer-timeout`: `channel.close` 406 because a delivery was held too long.
///
/// Needs: that code and that text; it answers no method. Looks alike: 406 of a declaration, or of an unknown delivery tag. Documented:
/// RabbitMQ "Delivery Acknowledgement Timeout"; 3.10.8 `rabbit_channel.erl`, `evaluate_consumer_timeout`.
fn consumer_timeout(case: &Case<'_>, findings: &mut Vec<Finding>) {
    let is_so = |closing: &Closing, _: &Link| {
        closing.code == PRECONDITION_FAILED
            && closing.channel.is_some()
            && closing.text.contains("delivery acknowledgement")
            && closing.text.contains("timed out")
    };
    for refusal in refusals(case, is_so) {
        let limit_ms =
            between(&refusal.last.text, "Timeout value used: ", " ms").and_then(|ms| ms.parse::<u64>().ok());
        let limit = limit_ms.map_or("the broker's consumer_timeout".to_owned(), |ms| {
            format!("{} (consumer_timeout)", units::duration(ms.saturating_mul(1_000_000)))
        });
        let channel = refusal.last.channel;
        let queues: Vec<&str> = case
            .model
            .amqp
            .consumers
            .iter()
            .filter(|one| one.connection == refusal.last.link && Some(one.channel) == channel)
            .map(|one| one.queue.as_str())
            .collect();
        let queue = queues.first().copied().unwrap_or("(unknown)");
        let finding = Finding::new(
            Code::ConsumerTimeout,
            0.98,
            format!("A message of queue {queue} was held without acknowledgement for longer than {limit}: the broker closed the channel and gives the message to the next consumer."),
        )
        .title(format!("a message of {queue} was held longer than {limit}"))
        .about(case.subject(refusal.pid))
        .evidence(refusal.evidence())
        .remedy(format!(
            "make the actor shorter, or let it wait longer at the broker: consumer_timeout = {} in rabbitmq.conf",
            limit_ms.map_or(3_600_000, |ms| ms.saturating_mul(4))
        ));
        findings.push(peers::with_exit(case, refusal.pid, finding));
    }
}

/// `connection-lost`: a connection that consumed was ended by the other side, or the broker fell silent on it.
///
/// Needs: a consumer on a connection that the broker had let in; then the broker's reset or end, `connection.close` of its own (320 when
/// it is shut down or an operator closes it), or two heartbeats without a byte of the broker before we gave it up. When every queue is
/// consumed again it is a warning. Looks alike: dramatiq's idle *declare* connection (it has no consumer); our own end at shutdown; missed
/// heartbeats of ours (`heartbeat-timeout`). A broker that is gone refuses new connections: that is told here, as part of the loss.
/// Documented: AMQP 0-9-1, 1.2 (320 connection-forced); dramatiq 2.2 `worker.py`, `_ConsumerThread.run`.
fn connection_lost(case: &Case<'_>, findings: &mut Vec<Finding>) {
    let consumed = Consumed::of(case);
    for pid in peers::clients(case) {
        let all: Vec<Broken<'_>> =
            broken(case, &consumed, pid).into_iter().filter(|one| !is_heartbeat(one)).collect();
        let Some(last) = all.last() else { continue };
        // Of each queue the last loss counts.
        let lost: Vec<&Broken<'_>> = all.iter().filter(|one| !one.has_recovered(&consumed)).collect();
        let after = broken::since(case, pid, last.mark.at_ns);
        let is_failure = !lost.is_empty() && after.is_settled(case, pid, last.mark.at_ns);
        let queues = broken::names(&all);
        let address =
            last.link.peer.get().map_or("the broker".to_owned(), |peer| format!("the broker at {peer}"));
        let then =
            if lost.is_empty() { "It consumes again on a new connection.".to_owned() } else { after.told() };
        let summary = format!(
            "The connection to {address} on which {queues} was consumed is lost: {}. {then}",
            last.why()
        );
        let finding = Finding::new(
            Code::ConnectionLost,
            case.confidence(if is_failure { 0.93 } else { 0.8 }, &[Kind::Streams]),
            summary,
        )
        .title(if lost.is_empty() {
            format!("the connection to {address} was lost, and made again")
        } else {
            format!("the connection to {address} is lost")
        })
        .severity(broken::severity(is_failure))
        .about(case.subject(pid))
        .evidence(all.iter().take(4).map(|one| Evidence::new(one.mark, one.what())))
        .evidence(after.evidence)
        .remedy(format!(
            "look at the broker: its log says why it closed the connection{}",
            if lost.is_empty() { "" } else { "; whether it runs: rabbitmqctl status" }
        ));
        findings.push(peers::with_exit(case, pid, finding));
    }
}
