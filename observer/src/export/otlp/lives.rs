//! A message's life as spans: a trace of its own, in it the whole life, and below that a publish, a delivery until its settlement, and the
//! settlement, for each of its ways through a queue. Knows messages and processes; nothing of events.

use opentelemetry_proto::tonic::trace::v1::{
    Span, Status,
    span::{Event as SpanEvent, Link, SpanKind},
    status::StatusCode,
};

use super::{
    attributes::{Attributes, harmless},
    conventions::{self as names, ours},
    frame::{Frame, Step},
};
use crate::model::{
    mark::Mark,
    message::{Confirmed, Life, Passage, Settled},
    process::Processes,
};

/// The spans of a message; the first is that of its whole life. What has not ended goes on until `last_ns`.
pub(super) fn spans(frame: &Frame, known: &Processes, life: &Life, last_ns: u64) -> Vec<Span> {
    let telling = Telling { frame, known, life, last_ns };
    let mut spans = vec![telling.whole()];
    let mut earlier = None;
    for (index, passage) in life.passages.iter().enumerate() {
        let number = life.left_out + index as u64 + 1;
        spans.extend(passage.published.map(|mark| telling.send(number, passage, mark, earlier)));
        if let Some(mark) = passage.delivered {
            let failure = life.passages.get(index + 1).and_then(|next| retried(passage, next));
            spans.push(telling.process(number, passage, mark, earlier, failure));
            spans.extend(telling.settle(number, passage));
            earlier = Some(number);
        }
    }
    spans
}

/// When the next way through a queue is one retry more: its publish, and the exception that made it one.
fn retried<'a>(passage: &Passage, next: &'a Passage) -> Option<(u64, &'a str)> {
    let failure = next.failure.as_deref().filter(|_| next.retries > passage.retries)?;
    Some((next.published?.at_ns, failure))
}

struct Telling<'a> {
    frame: &'a Frame,
    known: &'a Processes,
    life: &'a Life,
    last_ns: u64,
}

impl Telling<'_> {
    fn whole(&self) -> Span {
        let life = self.life;
        let marks = || {
            life.passages.iter().flat_map(|passage| {
                [passage.published, passage.delivered, passage.settled.map(|settlement| settlement.mark)]
            })
        };
        let moments = || marks().flatten().map(|mark| mark.at_ns);
        let first_ns = moments().min().unwrap_or(self.last_ns);
        let unfinished = life.is_open();
        let end_ns = moments().max().unwrap_or(first_ns);
        let end_ns = if unfinished { end_ns.max(self.last_ns) } else { end_ns };
        let state = life.state();
        let attributes = self
            .about(None)
            .text(names::MESSAGING_DESTINATION_NAME, life.passages.front().and_then(destination))
            .text(ours::MESSAGE_STATE, Some(state))
            .text(ours::VHOST, life.vhost.as_ref())
            .flag(ours::CANARY, life.is_canary)
            .flag(ours::UNFINISHED, unfinished)
            .number(ours::PASSAGES_LEFT_OUT, (life.left_out > 0).then_some(life.left_out));
        let failed = matches!(state, "nacked" | "rejected" | "refused" | "unroutable");
        let queue = life.passages.front().and_then(|passage| passage.queue.as_deref());
        Span {
            trace_id: self.frame.message_trace(life.number),
            span_id: self.frame.message(life.number),
            name: harmless(&format!("message {}", life.actor.as_deref().or(queue).unwrap_or("(not known)"))),
            kind: SpanKind::Internal.into(),
            start_time_unix_nano: self.frame.unix_ns(first_ns),
            end_time_unix_nano: self.frame.unix_ns(end_ns),
            attributes: attributes.all,
            status: failed.then(|| error(state)),
            ..Span::default()
        }
    }

    fn send(&self, number: u64, passage: &Passage, mark: Mark, earlier: Option<u64>) -> Span {
        let (confirmed, failed) = match &passage.confirmed {
            Some(Confirmed::Taken) => (Some("taken".to_owned()), None),
            Some(Confirmed::Refused) => (Some("refused".to_owned()), Some("refused")),
            Some(Confirmed::Unroutable { code, text }) => {
                (Some(format!("unroutable: {code} {text}")), Some("unroutable"))
            }
            None => (None, None),
        };
        let key = passage.route.as_ref().map(|(_, key)| key).or(passage.queue.as_ref());
        let attributes = self
            .operation(number, names::SEND, names::SEND, mark)
            .text(names::MESSAGING_DESTINATION_NAME, destination(passage))
            .text(names::MESSAGING_ROUTING_KEY, key.filter(|key| !key.is_empty()))
            .number(ours::RETRIES, passage.retries)
            .text(ours::CONFIRMED, confirmed)
            .text(names::ERROR_TYPE, failed);
        let mut links = self.process_link(mark);
        links.extend(earlier.map(|earlier| self.link(earlier, Step::Process, "comes after")));
        let span = self.step(number, Step::Send, SpanKind::Producer, destination(passage), attributes);
        Span { links, status: failed.map(error), ..self.at(span, (mark.at_ns, mark.at_ns)) }
    }

    fn process(
        &self,
        number: u64,
        passage: &Passage,
        mark: Mark,
        earlier: Option<u64>,
        failure: Option<(u64, &str)>,
    ) -> Span {
        let unfinished = passage.settled.is_none();
        let end_ns = passage.settled.map_or(self.last_ns, |settlement| settlement.mark.at_ns);
        let settled = passage.settled.map(|settlement| settlement.how);
        let from = source(passage);
        let attributes = self
            .operation(number, names::PROCESS, names::PROCESS, mark)
            .text(names::MESSAGING_DESTINATION_NAME, from.as_ref())
            .text(ours::SETTLED, settled.map(Settled::name))
            .flag(ours::REDELIVERED, passage.redelivered)
            .flag(ours::UNFINISHED, unfinished)
            .text(names::ERROR_TYPE, failure.map(|(_, exception)| exception));
        let mut links = self.process_link(mark);
        links.extend(passage.published.map(|_| self.link(number, Step::Send, "published")));
        if passage.published.is_none() {
            links.extend(earlier.map(|earlier| self.link(earlier, Step::Process, "delivered before")));
        }
        let exception = |(at_ns, exception): (u64, &str)| SpanEvent {
            time_unix_nano: self.frame.unix_ns(at_ns),
            name: names::EXCEPTION.to_owned(),
            attributes: Attributes::new().text(names::EXCEPTION_TYPE, Some(exception)).all,
            ..SpanEvent::default()
        };
        let failed = match settled {
            Some(Settled::Nacked | Settled::Rejected) => settled.map(Settled::name),
            _ => failure.map(|(_, exception)| exception),
        };
        let span = self.step(number, Step::Process, SpanKind::Consumer, from, attributes);
        Span {
            links,
            events: failure.map(exception).into_iter().collect(),
            status: failed.map(error),
            ..self.at(span, (mark.at_ns, end_ns))
        }
    }

    /// What a client said; the broker's own ways to settle are none of its operations.
    fn settle(&self, number: u64, passage: &Passage) -> Option<Span> {
        let settlement = passage.settled?;
        let name = match settlement.how {
            Settled::Acked => "ack",
            Settled::Nacked => "nack",
            Settled::Rejected => "reject",
            Settled::Requeued => "requeue",
            Settled::Returned | Settled::Automatic => return None,
        };
        let mark = settlement.mark;
        let from = source(passage);
        let attributes = self
            .operation(number, name, names::SETTLE, mark)
            .text(names::MESSAGING_DESTINATION_NAME, from.as_ref());
        let span = self.step(number, Step::Settle, SpanKind::Client, from, attributes);
        let name = span.name.replacen(names::SETTLE, name, 1);
        let parent_span_id = self.frame.step(self.life.number, number, Step::Process);
        Some(Span { name, parent_span_id, ..self.at(span, (mark.at_ns, mark.at_ns)) })
    }

    fn about(&self, passage: Option<u64>) -> Attributes {
        Attributes::new()
            .text(names::MESSAGING_SYSTEM, Some(names::RABBITMQ))
            .text(names::MESSAGING_MESSAGE_ID, self.life.message_id.as_ref())
            .text(ours::ACTOR, self.life.actor.as_ref())
            .number(ours::MESSAGE, Some(self.life.number))
            .number(ours::PASSAGE, passage)
    }

    fn operation(&self, passage: u64, name: &str, kind: &str, mark: Mark) -> Attributes {
        let some = |number: u32| (number != 0).then_some(u64::from(number));
        self.about(Some(passage))
            .text(names::MESSAGING_OPERATION_NAME, Some(name))
            .text(names::MESSAGING_OPERATION_TYPE, Some(kind))
            .number(names::PROCESS_PID, some(mark.pid.0))
            .number(names::THREAD_ID, some(mark.tid.0))
            .number(ours::EVENT, Some(mark.event))
    }

    fn step(&self, passage: u64, step: Step, kind: SpanKind, of: Option<String>, about: Attributes) -> Span {
        let operation = match step {
            Step::Send => names::SEND,
            Step::Process => names::PROCESS,
            Step::Settle => names::SETTLE,
        };
        Span {
            trace_id: self.frame.message_trace(self.life.number),
            span_id: self.frame.step(self.life.number, passage, step),
            parent_span_id: self.frame.message(self.life.number),
            name: harmless(&format!("{operation} {}", of.as_deref().unwrap_or_default()))
                .trim_end()
                .to_owned(),
            kind: kind.into(),
            attributes: about.all,
            ..Span::default()
        }
    }

    fn at(&self, span: Span, (from_ns, to_ns): (u64, u64)) -> Span {
        Span {
            start_time_unix_nano: self.frame.unix_ns(from_ns),
            end_time_unix_nano: self.frame.unix_ns(to_ns.max(from_ns)),
            ..span
        }
    }

    /// To a span of the same message.
    fn link(&self, passage: u64, step: Step, why: &str) -> Link {
        Link {
            trace_id: self.frame.message_trace(self.life.number),
            span_id: self.frame.step(self.life.number, passage, step),
            attributes: Attributes::new().text(ours::LINK, Some(why)).all,
            ..Link::default()
        }
    }

    /// To the process that did it, when it is known.
    fn process_link(&self, mark: Mark) -> Vec<Link> {
        let process = self.known.get(mark.pid).filter(|process| process.first_seen_ns <= mark.at_ns);
        let link = process.map(|process| Link {
            trace_id: self.frame.trace(),
            span_id: self.frame.process(process),
            attributes: Attributes::new().text(ours::LINK, Some("process")).all,
            ..Link::default()
        });
        link.into_iter().collect()
    }
}

fn destination(passage: &Passage) -> Option<String> {
    match (&passage.route, &passage.queue) {
        (Some((exchange, key)), _) => Some(names::sent_to(exchange, key)),
        (None, Some(queue)) => Some(names::sent_to("", queue)),
        (None, None) => None,
    }
}

fn source(passage: &Passage) -> Option<String> {
    let queue = passage.queue.as_deref()?;
    let route = passage.route.as_ref();
    let (exchange, key) = route.map_or(("", queue), |(exchange, key)| (exchange.as_str(), key.as_str()));
    Some(names::delivered_from(exchange, key, queue))
}

fn error(message: &str) -> Status {
    Status { message: harmless(message), code: StatusCode::Error.into() }
}
