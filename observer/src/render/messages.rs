//! Messages as a table: one line a way through a queue. Knows the model; decides nothing.

use crate::{
    model::{
        amqp::Mark,
        dramatiq::{QueueKind, queue_kind},
        message::{Confirmed, Life, Passage, Settled, Totals},
    },
    render::{
        queues::who,
        style::{BAD, DIM, GOOD, Line, NAME, ODD, PLAIN, STRONG, cut},
    },
    words::units,
};

/// A message's identifier is shown by so many characters: enough to tell one from another, and to ask for it.
const ID_COLUMNS: usize = 13;
const ACTOR_COLUMNS: usize = 20;
const QUEUE_COLUMNS: usize = 16;
const STEP_COLUMNS: usize = 30;

/// The table's head.
pub fn head() -> Line {
    Line::new().with(
        STRONG,
        format!(
            "{:<ID_COLUMNS$}  {:<ACTOR_COLUMNS$}  {:<QUEUE_COLUMNS$}  {:<STEP_COLUMNS$}  {:<STEP_COLUMNS$}  SETTLED",
            "MESSAGE", "ACTOR", "QUEUE", "PUBLISHED", "DELIVERED"
        ),
    )
}

/// A message; with `whole_id` its identifier stands above, in full.
pub fn lines(life: &Life, started_ns: u64, whole_id: bool) -> Vec<Line> {
    let mut lines = Vec::new();
    let id = life.message_id.as_deref().unwrap_or("(no id)");
    let actor = life.actor.as_deref().unwrap_or("-");
    if whole_id {
        lines.push(Line::new().with(NAME, id).with(PLAIN, format!("  {actor}  {}", life.state())));
    }
    if life.left_out > 0 {
        lines.push(
            Line::new().with(DIM, format!("  {} not kept", units::counted(life.left_out, "earlier passage"))),
        );
    }
    for (index, passage) in life.passages.iter().enumerate() {
        let (id, actor) = if index == 0 { (id, actor) } else { ("", "") };
        let mut line = Line::new();
        field(&mut line, NAME, id, ID_COLUMNS);
        field(&mut line, PLAIN, actor, ACTOR_COLUMNS);
        passed(&mut line, passage, started_ns);
        if index == 0 && life.is_canary {
            line.push(NAME, ", a canary");
        }
        lines.push(line);
    }
    lines
}

fn field(line: &mut Line, style: anstyle::Style, text: &str, columns: usize) {
    let end = line.width() + columns + 2;
    line.push(style, cut(&crate::words::escape::escape(text), columns));
    line.push(PLAIN, " ".repeat(end.saturating_sub(line.width())));
}

fn passed(line: &mut Line, passage: &Passage, started_ns: u64) {
    let route = passage.route.as_ref().map(|(exchange, key)| format!("→{exchange}/{key}"));
    let queue = passage.queue.clone().or(route).unwrap_or_else(|| "-".to_owned());
    field(line, PLAIN, &queue, QUEUE_COLUMNS);
    let moment = |mark: Mark| format!("{} by {}", units::moment(mark.at_ns, started_ns), who(mark));
    let published = match (passage.published, &passage.confirmed) {
        (Some(mark), Some(Confirmed::Unroutable { .. })) => (BAD, format!("{} UNROUTABLE", moment(mark))),
        (Some(mark), Some(Confirmed::Refused)) => (BAD, format!("{} REFUSED", moment(mark))),
        (Some(mark), _) => (PLAIN, moment(mark)),
        (None, _) => (DIM, "not seen".to_owned()),
    };
    field(line, published.0, &published.1, STEP_COLUMNS);
    let Some(delivered) = passage.delivered else {
        line.push(DIM, if passage.published.is_some() { "not delivered here" } else { "-" });
        extras(line, passage);
        return;
    };
    let waited = passage.published.map_or(String::new(), |published| {
        format!(" after {}", units::duration(delivered.at_ns.saturating_sub(published.at_ns)))
    });
    // After a publish that was seen, how long it waited says more than when it came.
    let delivered_text = if waited.is_empty() {
        format!("{} to {}", units::moment(delivered.at_ns, started_ns), who(delivered))
    } else {
        format!("to {}{waited}", who(delivered))
    };
    field(line, PLAIN, &delivered_text, STEP_COLUMNS);
    match &passage.settled {
        Some(settlement) => {
            let style = match settlement.how {
                Settled::Acked | Settled::Automatic => GOOD,
                Settled::Nacked | Settled::Rejected => BAD,
                Settled::Requeued | Settled::Returned => ODD,
            };
            let held = units::duration(settlement.mark.at_ns.saturating_sub(delivered.at_ns));
            line.push(style, settlement.how.name()).push(PLAIN, format!(" after {held}"));
        }
        None => drop(line.push(ODD, "not settled")),
    }
    extras(line, passage);
}

fn extras(line: &mut Line, passage: &Passage) {
    if passage.redelivered {
        line.push(ODD, ", redelivered");
    }
    if let Some(retries) = passage.retries.filter(|retries| *retries > 0) {
        line.push(ODD, format!(", retry {retries}"));
    }
    if let Some(failure) = &passage.failure {
        line.push(BAD, format!(" after {failure}"));
    }
    match passage.queue.as_deref().map(queue_kind) {
        Some(QueueKind::Delayed) => line.push(DIM, " (held until due)"),
        Some(QueueKind::Dead) => line.push(BAD, " (given up)"),
        _ => line,
    };
}

/// The sums, in a line.
pub fn totals(totals: &Totals) -> Line {
    let Totals { messages, published, delivered, redelivered, acked, refused, returned, .. } = totals;
    let mut line = Line::new().with(
        STRONG,
        format!(
            "{}: {published} published, {delivered} delivered, {acked} acked",
            units::counted(*messages, "message")
        ),
    );
    for (count, word) in [
        (refused, "nacked or rejected"),
        (returned, "given back"),
        (redelivered, "redelivered"),
        (&totals.unknown_tags, "settlements of deliveries that were not seen"),
        (
            &totals.untracked,
            "whose settlement cannot be told: too many unsettled on their channel, or a part of the recording is missing",
        ),
        (&totals.unidentified, "whose method was not seen"),
        (&totals.cut_short, "shown before their end: too many at a time"),
    ] {
        if *count > 0 {
            line.push(ODD, format!(", {count} {word}"));
        }
    }
    line
}
