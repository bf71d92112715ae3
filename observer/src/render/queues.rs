//! Queues as text: who declared them how, who consumes them, who publishes to them, what the broker says of them. Knows the model; decides nothing.

use std::collections::BTreeMap;

use crate::{
    event::Pid,
    model::{
        Model,
        amqp::Mark,
        consumer::{Consumer, How},
        queue::{Answer, Queue, QueueKey},
        reconcile::{Account, Consumed, Reconciliation},
    },
    render::{
        reconcile,
        style::{BAD, DIM, GOOD, Line, NAME, ODD, PLAIN, STRONG},
    },
    words::units,
};

/// A process and its thread: `3864/3871`.
pub(crate) fn who(mark: Mark) -> String {
    if mark.tid.0 == 0 || mark.tid.0 == mark.pid.0 {
        mark.pid.to_string()
    } else {
        format!("{}/{}", mark.pid, mark.tid)
    }
}

/// Every queue, a block each.
pub fn lines(model: &Model) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut consumers: BTreeMap<QueueKey, Vec<&Consumer>> = BTreeMap::new();
    for consumer in model.amqp.consumers.iter() {
        consumers.entry((consumer.vhost.clone(), consumer.queue.clone())).or_default().push(consumer);
    }
    let unseen = Queue::default();
    let mut queues: BTreeMap<&QueueKey, &Queue> = model.amqp.queues.iter().collect();
    for key in consumers.keys() {
        queues.entry(key).or_insert(&unseen);
    }
    let reconciliation = Reconciliation::of(model);
    let mut accounts: BTreeMap<QueueKey, &Account> = BTreeMap::new();
    for account in reconciliation.iter().flat_map(|both| &both.queues) {
        accounts.insert((account.vhost.clone(), account.name.clone()), account);
    }
    // A broker has queues of many: those that stand idle and that nobody here speaks of are only counted.
    let idle = |account: &Account| {
        account.consumed != Consumed::Observed
            && account.sampled.as_ref().is_none_or(|one| one.backlog().is_none())
    };
    let mut unshown = 0;
    for (key, account) in &accounts {
        if queues.contains_key(key) || !idle(account) {
            queues.entry(key).or_insert(&unseen);
        } else {
            unshown += 1;
        }
    }
    for (key, queue) in queues {
        block(&mut lines, model.started_ns, key, queue, consumers.get(key).map_or(&[][..], Vec::as_slice));
        if let Some(account) = accounts.get(key) {
            lines.extend(reconcile::lines(account, model.started_ns));
        }
    }
    if unshown > 0 {
        let others = units::counted(unshown, "other queue");
        lines.push(Line::new().with(DIM, format!("and {others} of the broker, with nothing ready")));
    }
    for (vhost, exchange, routing_key, pid, count) in model.amqp.queues.routes() {
        let vhost = vhost.map_or(String::new(), |vhost| format!(" vhost {vhost}"));
        lines.push(
            Line::new()
                .with(STRONG, format!("exchange {exchange} key {routing_key}"))
                .with(DIM, vhost)
                .with(PLAIN, format!("  published to by {pid}: {count}")),
        );
    }
    let left_out = model.amqp.queues.left_out + model.amqp.consumers.left_out;
    if left_out > 0 {
        lines.push(Line::new().with(ODD, format!("and {left_out} that are not kept")));
    }
    if lines.is_empty() {
        lines.push(Line::new().with(DIM, "no queue was declared, consumed or published to"));
    }
    lines
}

fn block(lines: &mut Vec<Line>, started_ns: u64, key: &QueueKey, queue: &Queue, consumers: &[&Consumer]) {
    let (vhost, name) = key;
    let vhost = vhost.as_ref().map_or(String::new(), |vhost| format!("  vhost {vhost}"));
    lines.push(
        Line::new()
            .with(STRONG, if name.is_empty() { "(named by the server)" } else { name })
            .with(DIM, vhost),
    );
    if let Some(declared) = &queue.declared {
        let by = format!("{} {}", who(declared.by), units::about(declared.by.at_ns, started_ns));
        let mut line = Line::new().with(PLAIN, "  declared by ").with(NAME, by);
        for (is, word) in [
            (declared.passive, "passive"),
            (declared.durable, "durable"),
            (declared.exclusive, "exclusive"),
            (declared.auto_delete, "auto-delete"),
        ] {
            line.push(PLAIN, if is { format!(", {word}") } else { String::new() });
        }
        if !declared.arguments.is_empty() {
            line.push(DIM, format!(" {}", declared.arguments));
        }
        lines.push(line);
        lines.push(match &declared.answer {
            Some(Answer::Ok { messages, consumers, .. }) => {
                let (messages, consumers) = (
                    units::counted((*messages).into(), "message"),
                    units::counted((*consumers).into(), "consumer"),
                );
                Line::new().with(DIM, format!("    then it had {messages} ready and {consumers}"))
            }
            Some(Answer::Refused { code, text, .. }) => {
                Line::new().with(BAD, format!("    refused: {code} {text}"))
            }
            None => Line::new().with(ODD, "    no answer was seen"),
        });
    }
    lines.extend(consumers.iter().map(|consumer| consuming(consumer, started_ns)));
    if !queue.published.is_empty() {
        lines.push(Line::new().with(PLAIN, format!("  published to by {}", counts(&queue.published))));
    }
    if !queue.delivered.is_empty() {
        let mut line = Line::new().with(PLAIN, format!("  delivered to {}", counts(&queue.delivered)));
        if queue.redelivered > 0 {
            line.push(ODD, format!(" ({} redelivered)", queue.redelivered));
        }
        for (how, count) in &queue.settled {
            line.push(PLAIN, format!(", {} {count}", how.name()));
        }
        lines.push(line);
    }
}

fn counts(by: &BTreeMap<Pid, u64>) -> String {
    by.iter().map(|(pid, count)| format!("{pid}: {count}")).collect::<Vec<_>>().join(", ")
}

fn consuming(consumer: &Consumer, started_ns: u64) -> Line {
    let mut line = Line::new().with(PLAIN, "  consumed by ").with(NAME, who(consumer.asked));
    line.push(DIM, format!(" {}", units::about(consumer.asked.at_ns, started_ns)));
    match consumer.prefetch {
        Some(0) => line.push(PLAIN, ", no prefetch limit"),
        Some(prefetch) => line.push(PLAIN, format!(", prefetch {prefetch}")),
        None => line.push(DIM, ", prefetch not seen"),
    };
    if consumer.no_ack {
        line.push(PLAIN, ", without acknowledgements");
    }
    if consumer.exclusive {
        line.push(PLAIN, ", exclusive");
    }
    match consumer.confirmed {
        Some(_) => line.push(GOOD, ", confirmed"),
        None => line.push(ODD, ", no answer seen"),
    };
    line.push(PLAIN, format!(", {} delivered", consumer.deliveries));
    if let Some(ended) = &consumer.ended {
        let (style, how) = match ended.how {
            How::Cancelled => (PLAIN, "cancelled"),
            How::CancelledByServer => (BAD, "cancelled by the broker: its queue is gone"),
            How::ChannelClosed => (PLAIN, "channel closed"),
            How::ConnectionEnded => (PLAIN, "connection ended"),
        };
        line.push(style, format!(", {how} {}", units::about(ended.at_ns, started_ns)));
    }
    line.push(DIM, format!(" (connection {} channel {})", consumer.connection.0, consumer.channel));
    line
}
