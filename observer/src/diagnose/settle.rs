//! Messages that are refused or tried again. Knows settlements, and what dramatiq publishes beside them; log lines are support only.

use std::collections::BTreeMap;

use super::{
    Rule,
    case::Case,
    catalogue::{Code, Severity},
    finding::{Evidence, Finding},
};
use crate::{
    event::Pid,
    model::{
        dramatiq::{Remark, Role},
        outcomes::{Refusal, Retried},
    },
    words::units,
};

/// The rules of this family.
pub(super) const RULES: &[Rule] = &[refused, failing];

/// A log line or traceback belongs to a refusal when it came within this time before it, or just after.
const NEAR_NS: u64 = 2_000_000_000;

/// Why a message was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Why {
    Undecodable,
    UnknownActor,
    TooOld,
    Exhausted,
}

/// Why, which actor, which queue.
type Group<'a> = (Why, Option<&'a str>, Option<&'a str>);

/// A worker refused messages without requeue (`basic.nack`): RabbitMQ dead-letters them to `.XQ` (dramatiq 2.2, `brokers/rabbitmq.py`,
/// `_build_queue_arguments`). Four things lead to it, told apart by the message first and by what the worker said of it second:
///
/// - the body is no dramatiq message (`brokers/rabbitmq.py`, `_RabbitmqConsumer.__next__`);
/// - its actor is not declared here (`worker.py`, `_ConsumerThread.handle_message`), which no acknowledged message names;
/// - it is older than `max_age` (`middleware/age_limit.py`);
/// - it failed once more than it may be retried (`middleware/retries.py`).
///
/// Programs that are no dramatiq workers refuse what they like: of them nothing is concluded.
fn refused(case: &Case<'_>, findings: &mut Vec<Finding>) {
    let refusals = case.model.amqp.lives.outcomes.refusals();
    let mut groups: BTreeMap<Group<'_>, Vec<&Refusal>> = BTreeMap::new();
    for refusal in refusals.iter().filter(|refusal| case.role(refusal.refused.pid) == Role::Worker) {
        let key = (why(case, refusal), refusal.about.actor.as_deref(), refusal.about.queue.as_deref());
        groups.entry(key).or_default().push(refusal);
    }
    for ((why, actor, queue), refusals) in groups {
        findings.extend(finding(case, why, actor, queue, &refusals));
    }
}

fn why(case: &Case<'_>, refusal: &Refusal) -> Why {
    let about = &refusal.about;
    let Some(actor) = &about.actor else { return Why::Undecodable };
    let pid = refusal.refused.pid;
    let said = |remark| case.model.remarks.of(pid, remark).is_some();
    let outcomes = &case.model.amqp.lives.outcomes;
    // What was run once, in whichever worker of the tree, is declared.
    let is_declared = outcomes.iter().any(|(_, work)| work.acked_by_actor.contains_key(actor))
        || outcomes.retried().iter().any(|retried| retried.about.actor.as_ref() == Some(actor));
    let raised = case
        .model
        .tracebacks
        .of(pid)
        .filter(|raised| {
            let near = |at_ns: u64| {
                at_ns + NEAR_NS > refusal.refused.at_ns && at_ns < refusal.refused.at_ns + NEAR_NS
            };
            near(raised.last.at_ns) || near(raised.first.at_ns)
        })
        .any(|raised| raised.traceback.name() != "ActorNotFound");
    let age_ms = age_ms(case, refusal);
    let too_old = about.max_age_ms.zip(age_ms).is_some_and(|(most, age)| age >= most);
    if too_old || (said(Remark::AgeLimit) && !raised && about.retries.unwrap_or(0) == 0) {
        return Why::TooOld;
    }
    if about.retries.unwrap_or(0) > 0 || is_declared || (said(Remark::RetriesExceeded) && raised) {
        return Why::Exhausted;
    }
    match (said(Remark::UndefinedActor), raised) {
        (false, true) => Why::Exhausted,
        _ => Why::UnknownActor,
    }
}

/// How old the message was when it came, in milliseconds, by the sender's clock and ours.
fn age_ms(case: &Case<'_>, refusal: &Refusal) -> Option<u64> {
    let started: jiff::Timestamp = case.header.started_at.parse().ok()?;
    let since_ms = refusal.delivered.at_ns.saturating_sub(case.header.started_ns) / 1_000_000;
    let came_ms = u64::try_from(started.as_millisecond()).ok()? + since_ms;
    came_ms.checked_sub(refusal.about.made_ms?)
}

fn finding(
    case: &Case<'_>,
    why: Why,
    actor: Option<&str>,
    queue: Option<&str>,
    refusals: &[&Refusal],
) -> Option<Finding> {
    let first = refusals.first()?;
    let count = units::counted(refusals.len() as u64, "message");
    let queue = queue.unwrap_or("a queue");
    let dead = format!("{queue}.XQ");
    let actor_name = actor.unwrap_or("?");
    let went = format!("refused for good (basic.nack), to the dead-letter queue {dead}");
    let pid = first.refused.pid;
    let said = |remark| case.model.remarks.of(pid, remark).map(|said| said.first);
    let finding = match why {
        Why::Undecodable => Finding::new(
            Code::MessageUndecodable,
            0.95,
            format!("{count} from {queue} {} no dramatiq message: {went}.", is(refusals.len())),
        )
        .title(format!("{count} in {queue} cannot be decoded"))
        .remedy(format!("look at one in {dead}, and find who sends to {queue} without dramatiq")),
        Why::UnknownActor => {
            let sure = if said(Remark::UndefinedActor).is_some() { 0.97 } else { 0.75 };
            Finding::new(
                Code::ActorNotFound,
                sure,
                format!("{count} from {queue} for actor {actor_name}, which this worker does not have: {went}."),
            )
            .title(format!("no actor {actor_name} in this worker"))
            .remedy(format!("import the module that declares actor {actor_name} in this worker, or correct the sender's actor name"))
        }
        Why::TooOld => {
            let age = age_ms(case, first).map_or(String::new(), |age| {
                format!(" (the first was {} old)", units::duration(age * 1_000_000))
            });
            Finding::new(
                Code::MessageTooOld,
                0.9,
                format!("{count} from {queue} for actor {actor_name} came after its age limit{age}: {went}."),
            )
            .title(format!("messages for {actor_name} are older than max_age"))
            .remedy(format!("consume sooner, or raise max_age of actor {actor_name}"))
        }
        Why::Exhausted => {
            let retries = refusals.iter().filter_map(|refusal| refusal.about.retries).max().unwrap_or(0);
            let failure = failure(case, first).map_or(String::new(), |failure| format!(" with {failure}"));
            Finding::new(
                Code::RetriesExhausted,
                0.93,
                format!(
                    "Actor {actor_name} failed{failure} after {} on {count} from {queue}: {went}.",
                    if retries == 1 { "1 retry".to_owned() } else { format!("{retries} retries") }
                ),
            )
            .title(format!("{actor_name} failed until its retries were used up{failure}"))
            .remedy(format!("mend actor {actor_name}; its messages are in {dead}"))
        }
    };
    let remark = match why {
        Why::Undecodable => said(Remark::Undecodable),
        Why::UnknownActor => said(Remark::UndefinedActor),
        Why::TooOld => said(Remark::AgeLimit),
        Why::Exhausted => said(Remark::RetriesExceeded),
    };
    let raised = (why == Why::Exhausted).then(|| traceback(case, pid, first.refused.at_ns)).flatten();
    Some(
        finding
            .about(case.subject(pid))
            .evidence(refusals.iter().take(5).map(|refusal| {
                let id = refusal.about.message_id.as_deref().unwrap_or("without id");
                Evidence::new(refusal.refused, format!("message {id} refused: basic.nack without requeue"))
            }))
            .evidence(remark.map(|mark| Evidence::new(mark, "the worker said so")))
            .evidence(raised),
    )
}

const fn is(count: usize) -> &'static str {
    if count == 1 { "is" } else { "are" }
}

/// The exception, as the message carries it or the worker printed it.
fn failure(case: &Case<'_>, refusal: &Refusal) -> Option<String> {
    let printed = || {
        let before = case
            .model
            .tracebacks
            .of(refusal.refused.pid)
            .rfind(|raised| raised.first.at_ns <= refusal.refused.at_ns + NEAR_NS)?;
        Some(before.traceback.name().to_owned())
    };
    refusal.about.failure.clone().or_else(printed)
}

/// The last exception a process printed before a moment, with its place.
fn traceback(case: &Case<'_>, pid: Pid, at_ns: u64) -> Option<Evidence> {
    let raised = case.model.tracebacks.of(pid).rfind(|raised| raised.first.at_ns <= at_ns + NEAR_NS)?;
    let place = raised
        .traceback
        .innermost()
        .map_or(String::new(), |frame| format!(" at {}:{}", frame.file, frame.line));
    Some(Evidence::new(raised.first, format!("{}{place}", raised.traceback.name())))
}

/// The actor raised: dramatiq publishes the message again with a retry count and the traceback, and acknowledges the first
/// (`middleware/retries.py`, `after_process_message`). Failing while messages wait for another try at the end; a warning when all that
/// failed were acknowledged later.
fn failing(case: &Case<'_>, findings: &mut Vec<Finding>) {
    let mut actors: BTreeMap<(&str, Option<&str>), Vec<&Retried>> = BTreeMap::new();
    for retried in case.model.amqp.lives.outcomes.retried() {
        // What was refused in the end is told by the refusal.
        if case.role(retried.first.pid) == Role::Worker && !retried.given_up {
            let actor = retried.about.actor.as_deref().unwrap_or("?");
            actors.entry((actor, retried.about.failure.as_deref())).or_default().push(retried);
        }
    }
    for ((actor, failure), retried) in actors {
        let Some(first) = retried.first() else { continue };
        let open = retried.iter().filter(|one| !one.recovered).count();
        let failure = failure.unwrap_or("an exception");
        let count = units::counted(retried.len() as u64, "message");
        let most = retried.iter().map(|one| one.times).max().unwrap_or(1);
        let tries = if most == 1 { "once".to_owned() } else { format!("up to {most} times") };
        let (severity, end) = match open {
            0 => (Severity::Warning, "All of them were processed in the end.".to_owned()),
            open => (
                Severity::Failure,
                format!(
                    "{} to be tried again.",
                    if open == 1 { "1 waits".to_owned() } else { format!("{open} wait") }
                ),
            ),
        };
        findings.push(
            Finding::new(
                Code::ActorFailing,
                0.95,
                format!("Actor {actor} raised {failure} on {count}, which it tried again {tries}. {end}"),
            )
            .title(format!("actor {actor} raises {failure}"))
            .severity(severity)
            .about(case.subject(first.first.pid))
            .evidence(retried.iter().take(5).map(|one| {
                let id = one.about.message_id.as_deref().unwrap_or("without id");
                Evidence::new(
                    one.first,
                    format!("message {id} published again, retry {}", one.about.retries.unwrap_or(1)),
                )
            }))
            .evidence(traceback(case, first.first.pid, first.first.at_ns))
            .remedy(format!(
                "mend actor {actor}: observer show @ --messages, and its traceback in the worker's output"
            )),
        );
    }
}
