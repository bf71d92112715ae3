//! What goes wrong with queues and consumers: arguments, permissions, exclusive use, deletion. Knows reply codes.

mod deleted;
mod exclusive;
mod permission;

use super::{
    Rule,
    case::Case,
    catalogue::{Code, Severity},
    finding::Finding,
    peers,
    refusals::{Refusal, between, quoted, refusals},
};
use crate::model::{mark::Mark, queue::Answer};

/// The rules of this family.
pub(super) const RULES: &[Rule] = &[
    queue_precondition_failed,
    permission::permission_refused,
    exclusive::queue_in_exclusive_use,
    deleted::queue_deleted,
    deleted::queue_missing,
];

const PRECONDITION_FAILED: u16 = 406;

/// A resource as RabbitMQ names it in its texts (3.10 and 4.1 `rabbit_misc.erl`, `rs/1`): `queue 'mail' in vhost '/'`.
struct Resource<'t> {
    kind: &'static str,
    name: &'t str,
    vhost: Option<&'t str>,
}

fn resource(text: &str) -> Option<Resource<'_>> {
    ["queue", "exchange", "topic"].into_iter().find_map(|kind| {
        let (_, rest) = text.split_once(&format!("{kind} '"))?;
        // A name may have a quote in it: the last one before what follows every name.
        let (name, after) = rest.split_once("' in ").or_else(|| rest.split_once('\''))?;
        let vhost =
            after.split_once("vhost '").and_then(|(_, rest)| rest.split_once('\'')).map(|(vhost, _)| vhost);
        Some(Resource { kind, name, vhost })
    })
}

/// Whether a queue is consumed after a refusal, by the same process, or at least declared by it.
fn is_mended_later(case: &Case<'_>, refusal: &Refusal<'_>, queue: &str) -> bool {
    let is_after = |mark: Mark| mark.pid == refusal.pid && mark.at_ns > refusal.last.mark.at_ns;
    let vhost = refusal.link.facts().vhost.as_deref();
    let declared = case.model.amqp.queues.get(vhost, queue).and_then(|queue| queue.declared.as_ref());
    if declared
        .is_some_and(|it| matches!(it.answer, Some(Answer::Ok { mark, .. }) if !it.passive && is_after(mark)))
    {
        return true;
    }
    is_consumed_later(case, refusal, queue)
}

/// Whether a queue is consumed after a refusal, by the same process.
fn is_consumed_later(case: &Case<'_>, refusal: &Refusal<'_>, queue: &str) -> bool {
    case.model.amqp.consumers.iter().any(|consumer| {
        consumer.asked.pid == refusal.pid
            && consumer.queue == queue
            && consumer.confirmed.is_some_and(|mark| mark.at_ns > refusal.last.mark.at_ns)
    })
}

/// `queue-precondition-failed`: `channel.close` 406 as the answer to a declaration.
///
/// Needs: that code, and that a declaration was answered. Looks alike: 406 of an unknown delivery tag, or of a delivery that was held too
/// long (`consumer-timeout`); a program that tries one declaration and then takes the queue as it is: it consumes afterwards, and this is
/// a warning. Documented: AMQP 0-9-1, `queue.declare`; RabbitMQ 3.10.8 `rabbit_misc.erl`, `assert_field_equivalence`, and
/// `rabbit_amqqueue.erl`, `check_arguments`.
fn queue_precondition_failed(case: &Case<'_>, findings: &mut Vec<Finding>) {
    let is_so = |closing: &crate::model::amqp::Closing, _: &crate::model::link::Link| {
        closing.code == PRECONDITION_FAILED
            && closing.channel.is_some()
            && (closing.cause.as_deref().is_some_and(|cause| cause.ends_with(".declare"))
                || closing.text.contains("inequivalent arg"))
    };
    for refusal in refusals(case, is_so) {
        let text = refusal.last.text.as_str();
        let resource = resource(text);
        let facts = refusal.link.facts();
        let kind = resource.as_ref().map_or("queue", |resource| resource.kind);
        let name = resource.as_ref().map_or("(unknown)", |resource| resource.name);
        let vhost =
            facts.vhost.as_deref().or(resource.as_ref().and_then(|resource| resource.vhost)).unwrap_or("/");
        let argument = between(text, "arg '", "'");
        let values = text.split_once("received ").and_then(|(_, rest)| rest.split_once(" but current is "));
        let (summary, title) = match (argument, values) {
            (Some(argument), Some((received, current))) => {
                let (received, current) = (value(received), value(current));
                (
                    format!(
                        "The {kind} {name} in virtual host {vhost} exists with {argument} = {current}, and the worker declares it with {argument} = {received}."
                    ),
                    format!(
                        "{kind} {name}: {argument} is {current} at the broker and declared as {received}"
                    ),
                )
            }
            (Some(argument), None) => (
                format!(
                    "The broker does not take {argument} for {kind} {name} in virtual host {vhost}: {text}"
                ),
                format!("{kind} {name}: {argument} is not accepted"),
            ),
            _ => (
                format!(
                    "The broker does not take the declaration of {kind} {name} in virtual host {vhost}: {text}"
                ),
                format!("{kind} {name} cannot be declared so"),
            ),
        };
        let declared =
            case.model.amqp.queues.get(Some(vhost), name).and_then(|queue| queue.declared.as_ref());
        let taken_later = declared.and_then(|declared| declared.answer.as_ref()).is_some_and(
            |answer| matches!(answer, Answer::Ok { mark, .. } if mark.at_ns > refusal.last.mark.at_ns && mark.pid == refusal.pid),
        );
        let passes = taken_later || is_consumed_later(case, &refusal, name) || has_gone_on(case, &refusal);
        let remedy = if kind == "queue" {
            format!(
                "declare it as it is, or delete it once it is empty and let the worker make it: rabbitmqctl delete_queue -p {} {} --if-empty",
                quoted(vhost),
                quoted(name)
            )
        } else {
            format!("declare the {kind} {name} as it is, or delete it and let the worker make it")
        };
        let finding = Finding::new(Code::QueuePreconditionFailed, 0.98, summary)
            .title(title)
            .severity(if passes { Severity::Warning } else { Severity::Failure })
            .about(case.subject(refusal.pid))
            .evidence(refusal.evidence())
            .remedy(remedy);
        findings.push(peers::with_exit(case, refusal.pid, finding));
    }
}

/// Whether a program was refused once, went on and consumes now: what was refused was not what it needs. Who is refused again and again
/// does not go on.
fn has_gone_on(case: &Case<'_>, refusal: &Refusal<'_>) -> bool {
    refusal.count == 1
        && case.model.amqp.consumers.iter().any(|consumer| {
            consumer.asked.pid == refusal.pid
                && consumer.asked.tid == refusal.last.mark.tid
                && consumer.confirmed.is_some_and(|mark| mark.at_ns > refusal.last.mark.at_ns)
        })
}

/// A value as RabbitMQ writes it: `the value '5' of type 'signedint'`, `none`, `'true'`.
fn value(text: &str) -> String {
    let text = text.strip_prefix("the value ").unwrap_or(text);
    let text = text.split_once(" of type ").map_or(text, |(value, _)| value);
    let text = text.trim_matches('\'');
    if text.is_empty() { "''".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_rabbitmq_are_taken_apart() {
        let text = "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'it's' in vhost '/a': received none but current is the value '5' of type 'signedint'";
        let found = resource(text).unwrap();
        assert_eq!((found.kind, found.name, found.vhost), ("queue", "it's", Some("/a")));
        assert_eq!(value("the value '5' of type 'signedint'"), "5");
        assert_eq!(value("none"), "none");
        assert_eq!(value("'true'"), "true");
        let text = "ACCESS_REFUSED - access to topic 'a.b' in exchange 'x' in vhost '/' refused for user 'u'";
        assert_eq!(resource(text).map(|found| (found.kind, found.name)), Some(("exchange", "x")));
    }
}
