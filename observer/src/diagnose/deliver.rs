//! Messages that do not come: other queues, other consumers, not yet due, alarms. Knows the broker's account beside the worker's.

use super::{
    Rule,
    case::Case,
    catalogue::{Code, Severity},
    finding::{Evidence, Finding},
};
use crate::{
    event::{Pid, Tid},
    model::{
        broker::Client,
        dramatiq::{QueueKind, queue_kind},
        mark::Mark,
        reconcile::{Account, Consumed, Consumption, Holder},
    },
    python::command::Command,
    words::{self, units},
};

/// The rules of this family.
pub(super) const RULES: &[Rule] = &[queue_mismatch, competing_consumer, message_delayed, broker_alarm];

/// Names this alike belong together: `default` and `defaults`, `mail` and `mails`.
const ALIKE: f64 = 0.75;

/// Messages are ready in a queue that nothing in this tree consumes, while the tree consumes others and was given nothing: a queue of the
/// same virtual host without any consumer, or one of the same or nearly the same name in another. Alike: dead-letter and delay queues,
/// which have no consumer of their own; queues of another application, which it consumes itself.
fn queue_mismatch(case: &Case<'_>, findings: &mut Vec<Finding>) {
    let Some(both) = &case.both else { return };
    let ours: Vec<&Account> = both.queues.iter().filter(|one| one.consumed == Consumed::Observed).collect();
    let consumer = case.model.amqp.consumers.iter().find(|consumer| consumer.confirmed.is_some());
    let Some(consumer) = consumer else { return };
    let delivered: u64 = case.model.amqp.lives.outcomes.iter().map(|(_, work)| work.delivered).sum();
    let related = |account: &Account| {
        let same_vhost = ours.iter().any(|own| own.vhost == account.vhost);
        let near = ours.iter().map(|own| strsim::jaro_winkler(&own.name, &account.name)).fold(0.0, f64::max);
        (same_vhost || near >= ALIKE).then_some(near)
    };
    let mut waiting: Vec<(&Account, u64, f64)> = both
        .queues
        .iter()
        .filter(|account| {
            account.consumed == Consumed::Nobody && queue_kind(&account.name) == QueueKind::Plain
        })
        .filter(|account| !account.name.starts_with("amq."))
        .filter_map(|account| Some((account, account.sampled.as_ref()?.backlog()?, related(account)?)))
        .collect();
    waiting.sort_by(|a, b| b.2.total_cmp(&a.2).then(b.1.cmp(&a.1)));
    let Some((account, ready, near)) = waiting.first().copied() else { return };
    let Some(sampled) = &account.sampled else { return };
    let severity = if delivered == 0 { Severity::Failure } else { Severity::Warning };
    let name = full_name(account);
    let mut own: Vec<&str> = ours
        .iter()
        .map(|one| one.name.as_str())
        .filter(|name| queue_kind(name) == QueueKind::Plain)
        .collect();
    own.dedup();
    let own = if own.is_empty() { consumer.queue.clone() } else { own.join(", ") };
    let since = sampled.ready_since_ns.map_or(String::new(), |since| format!(" since {}", case.about(since)));
    let at = Mark { event: sampled.event, at_ns: sampled.sampled_ns, pid: Pid(0), tid: Tid(0) };
    let count = units::counted(ready, "message");
    findings.push(
        Finding::new(
            Code::QueueMismatch,
            if near >= ALIKE { 0.95 } else { 0.88 },
            format!("{count} ready in {name}{since}, which nobody consumes; this worker consumes {own}."),
        )
        .title(format!("{count} wait in {name}, and this worker consumes {own}"))
        .severity(severity)
        .about(case.subject(consumer.asked.pid))
        .evidence([Evidence::new(at, format!("the broker: {ready} ready in {name}, 0 consumers"))])
        .evidence(consumer.confirmed.map(|mark| Evidence::new(mark, format!("consumes {}", consumer.queue))))
        .remedy(format!("send to {own}, or let a worker consume {}", account.name)),
    );
}

fn full_name(account: &Account) -> String {
    match account.vhost.as_deref() {
        None | Some("/") => format!("queue {}", account.name),
        Some(vhost) => format!("queue {} of vhost {vhost}", account.name),
    }
}

/// Somebody else consumes a queue of this tree, and its messages went there: the broker counted deliveries that this tree did not get, or
/// held unsettled messages that it does not hold. A warning where this tree gets its share; nothing where no message passed.
fn competing_consumer(case: &Case<'_>, findings: &mut Vec<Finding>) {
    let Some(both) = &case.both else { return };
    for account in both.queues.iter().filter(|one| queue_kind(&one.name) == QueueKind::Plain) {
        let Some((rival, client)) = account.competitors().find_map(|one| match &one.holder {
            Holder::Other(client) => Some((one, client)),
            _ => None,
        }) else {
            continue;
        };
        let queue = case.model.amqp.queues.get(account.vhost.as_deref(), &account.name);
        let ours: u64 = queue.map_or(0, |queue| queue.delivered.values().sum());
        let published: u64 = queue.map_or(0, |queue| queue.published.values().sum());
        let sampled = account.sampled.as_ref();
        let counted =
            sampled.and_then(|sample| sample.delivered).map_or(0, |(first, last)| last.saturating_sub(first));
        let unacked = sampled.map_or(0, |sample| sample.most_unacked);
        let went = sampled.is_some_and(|sample| sample.highest_ready.is_some() && sample.ready == Some(0));
        let elsewhere = counted.saturating_sub(ours).max(if ours == 0 {
            unacked.max(published).max(u64::from(went))
        } else {
            0
        });
        let (severity, base) = match (ours, elsewhere) {
            (_, 0) => (Severity::Warning, 0.6),
            (0, _) => (Severity::Failure, 0.93),
            _ => (Severity::Warning, 0.9),
        };
        findings.push(
            rivalry(case, account, rival, client, (ours, elsewhere)).severity(severity).confidence(base),
        );
    }
}

fn rivalry(
    case: &Case<'_>,
    account: &Account,
    rival: &Consumption,
    client: &Client,
    (ours, elsewhere): (u64, u64),
) -> Finding {
    let who = client_words(client);
    let orphaned = is_orphan(client);
    let consumer = account.consumers.iter().find_map(|one| match one.holder {
        Holder::Observed { pid, .. } => Some(pid),
        _ => None,
    });
    let share = match (ours, elsewhere) {
        (0, 0) => "No message passed while it was observed".to_owned(),
        (0, elsewhere) => {
            format!("This worker got none, {} went elsewhere", units::counted(elsewhere, "message"))
        }
        (ours, elsewhere) => format!("This worker got {ours}, {elsewhere} went elsewhere"),
    };
    let orphan = if orphaned { " It is a dramatiq worker whose parent has died." } else { "" };
    let at = Mark { event: rival.event, at_ns: rival.since_ns, pid: Pid(0), tid: Tid(0) };
    let finding = Finding::new(
        Code::CompetingConsumer,
        0.9,
        format!(
            "{} is consumed by {who} too, since {}. {share}.{orphan}",
            words::capital(&full_name(account)),
            case.about(rival.since_ns)
        ),
    )
    .cause(orphaned.then_some("orphaned-worker"))
    .title(format!("{who} consumes {} too", account.name))
    .evidence([Evidence::new(at, format!("the broker: {who} consumes {}", account.name))])
    .remedy(match client.local_pid {
        Some(pid) => format!("end it when it is not meant to be there: kill {pid}"),
        None => "find it by its address and stop it, or give it a queue or vhost of its own".to_owned(),
    });
    match consumer {
        Some(pid) => finding.about(case.subject(pid)),
        None => finding,
    }
}

/// A dramatiq worker without its master. A worker is forked from its master and shows the same command line; its parent is another once the
/// master is gone (`wait(2)`: it is given to a reaper).
fn is_orphan(client: &Client) -> bool {
    let Some(command) = &client.local_command else { return false };
    let is_dramatiq = Command::read(command).is_some();
    let is_spawned = command
        .iter()
        .any(|word| word.contains("multiprocessing.spawn") || word.contains("multiprocessing.forkserver"));
    let parent = client.local_parent_command.as_deref();
    let has_master = parent.is_some_and(|parent| Command::read(parent).is_some());
    (is_dramatiq || is_spawned) && parent.is_some() && !has_master
}

fn client_words(client: &Client) -> String {
    let command = client.local_command.as_deref().map(words::command);
    match (client.local_pid, command) {
        (Some(pid), Some(command)) => format!("process {pid} ({command})"),
        (Some(pid), None) => format!("process {pid}"),
        _ => match (&client.peer_host, client.peer_port) {
            (Some(host), Some(port)) => format!("a client at {host} port {port}"),
            _ => format!("connection {}", client.name),
        },
    }
}

/// Messages are held until they are due: dramatiq delivers `q.DQ` to the worker at once, which holds each until its eta (2.2, `worker.py`,
/// `_ConsumerThread.handle_delayed_messages`). Decides only where nothing else went on. Alike: retries of a failing actor wait there too, and
/// are told as such.
fn message_delayed(case: &Case<'_>, findings: &mut Vec<Finding>) {
    let outcomes = &case.model.amqp.lives.outcomes;
    let waiting: Vec<_> = outcomes
        .held()
        .iter()
        .filter(|held| {
            held.about.queue.as_deref().is_some_and(|queue| queue_kind(queue) == QueueKind::Delayed)
        })
        .filter(|held| held.about.retries.unwrap_or(0) == 0)
        .filter_map(|held| Some((held, held.about.eta_ms?)))
        .filter(|(_, eta_ms)| now_ms(case).is_some_and(|now| *eta_ms > now))
        .collect();
    let Some((first, eta_ms)) = waiting.iter().min_by_key(|(_, eta_ms)| *eta_ms) else { return };
    let count = units::counted(waiting.len() as u64, "message");
    let due = now_ms(case).map_or(0, |now| eta_ms.saturating_sub(now));
    let actor = first.about.actor.as_deref().unwrap_or("an actor");
    let due_in = units::duration(due.saturating_mul(1_000_000));
    findings.push(
        Finding::new(
            Code::MessageDelayed,
            0.93,
            format!("The worker holds {count} until due, the next for {actor} in {due_in}, counted from the end of the observation."),
        )
        .title(format!("{count} not yet due, the next in {due_in}"))
        .about(case.subject(first.delivered.pid))
        .evidence(waiting.iter().take(4).map(|(held, _)| {
            let id = held.about.message_id.as_deref().unwrap_or("without id");
            Evidence::new(held.delivered, format!("message {id} delivered from {}", held.about.queue.as_deref().unwrap_or("?")))
        })),
    );
}

/// The wall clock at the end of the observation, in milliseconds since 1970.
fn now_ms(case: &Case<'_>) -> Option<u64> {
    let started: jiff::Timestamp = case.header.started_at.parse().ok()?;
    let ran_ms = case.ended_ns().saturating_sub(case.header.started_ns) / 1_000_000;
    Some(u64::try_from(started.as_millisecond()).ok()? + ran_ms)
}

/// The broker takes no messages: it told a connection of this tree so (`connection.blocked`, RabbitMQ's extension, sent to who tries to publish
/// while an alarm is set), or it keeps other publishers waiting. Consumers are not stopped by an alarm. A failure where a publish of this
/// tree was kept waiting to the end, or publishers were and nothing arrived; else a warning.
fn broker_alarm(case: &Case<'_>, findings: &mut Vec<Finding>) {
    let blocked = case.model.amqp.links().find(|link| !link.accepted && link.facts().blocked.is_some());
    let waits: Vec<&Client> =
        case.model.broker.clients().filter(|client| client.is_blocked && client.gone_ns.is_none()).collect();
    let alarms = case.model.broker.alarms();
    let acked = case.model.amqp.lives.outcomes.iter().map(|(_, work)| work.acked).sum::<u64>();
    if blocked.is_none() && alarms.is_empty() {
        return;
    }
    let names: Vec<String> =
        alarms.iter().map(|(node, resource, _)| format!("{resource} on {node}")).collect();
    let what = match (names.as_slice(), blocked.and_then(|link| link.facts().blocked.clone())) {
        ([], Some(reason)) => format!("it says: {reason}"),
        (names, _) => format!("alarm of {}", names.join(", ")),
    };
    let severity = if blocked.is_some() || (acked == 0 && !waits.is_empty()) {
        Severity::Failure
    } else {
        Severity::Warning
    };
    let who = match (blocked, waits.len()) {
        (Some(_), _) => "a publish of this worker waits",
        (None, 0) => "publishers wait as soon as they publish",
        (None, _) => "publishers wait",
    };
    let mut finding = Finding::new(
        Code::BrokerAlarm,
        0.93,
        format!("The broker takes no messages ({what}): {who}. Consumers are not stopped by it."),
    )
    .title(format!("the broker blocks publishers: {what}"))
    .severity(severity)
    .evidence(alarms.iter().map(|(node, resource, mark)| {
        Evidence::new(*mark, format!("the broker: alarm of {resource} on {node}"))
    }))
    .remedy("free memory or disk at the broker, or raise its limits: rabbitmqctl status".to_owned());
    if let Some(link) = blocked {
        finding = finding
            .about(case.subject(link.opened.pid))
            .evidence([Evidence::new(link.opened, "this connection was told connection.blocked")]);
    }
    findings.push(finding);
}
