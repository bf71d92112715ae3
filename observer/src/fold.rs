//! Folds a finished session once: into a model, and on the way into its derived tables. Knows sessions and the model; neither knows
//! the other.

use std::{ops::ControlFlow, path::Path, sync::mpsc, thread};

use crate::{
    amqp::{conversation::What, method::Side},
    event::{Body, Event},
    model::{
        Model,
        amqp::{Mark, Said},
        dramatiq,
        message::Life,
    },
    session::{Derived, Filter, MessageRow, MethodRow, Session, SessionError},
};

/// Everything but file look-ups: enough for all but a model's imports and refused files.
pub fn without_files() -> Filter {
    let others = Body::KINDS.iter().filter(|kind| Body::of_file_call(kind).is_none());
    let kinds = others.map(|kind| (*kind).to_owned());
    Filter { kinds: kinds.collect(), ..Filter::default() }
}

/// Folds what `filter` wants of a session into a model. With `derived`, what is said in AMQP and what became of each message is written
/// there.
///
/// # Errors
/// When the session cannot be read, or the tables cannot be written.
pub fn fold(
    session: &Session,
    filter: &Filter,
    derived: Option<&Derived<'_>>,
) -> Result<Model, SessionError> {
    let started_ns = session.header().started_ns;
    let Some(derived) = derived else {
        let mut model = Model::new(started_ns);
        read_ahead(session, filter, |id, event| {
            model.add(id, &event);
            ControlFlow::Continue(())
        })?;
        model.finish();
        return Ok(model);
    };
    let mut model = Model::with_lives(started_ns);
    let mut result = Ok(());
    session.events(filter, |id, event| {
        model.add_and_tell(id, &event, &mut |said| {
            if result.is_ok() {
                result = method(derived, said);
            }
        });
        for life in model.amqp.lives.take_done() {
            if result.is_ok() {
                result = message(derived, &life);
            }
        }
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    model.finish_and_tell(&mut |said| {
        if result.is_ok() {
            result = method(derived, said);
        }
    });
    result?;
    model.amqp.lives.take_done().try_for_each(|life| message(derived, &life))?;
    Ok(model)
}

/// Folds the session that has ended; writes what is derived from it where that can be, and gives what happened.
///
/// # Errors
/// When the session cannot be read.
pub fn derive(path: &Path, wanted: &Filter) -> Result<Model, SessionError> {
    let written = Session::open_to_derive(path).and_then(|session| {
        let derived = session.derive()?;
        let model = fold(&session, wanted, Some(&derived))?;
        derived.finish()?;
        Ok(model)
    });
    written.or_else(|error| {
        // A full disk, or a reader that is there already: all is in the events.
        tracing::debug!(%error, "the tables amqp_methods and messages stay empty");
        fold(&Session::open(path)?, wanted, None)
    })
}

/// As [`Session::events`], but reads in one thread what is folded in another: each takes about as long as the other.
///
/// # Errors
/// When the session cannot be read on; what was handed out before is valid.
pub(crate) fn read_ahead(
    session: &Session,
    filter: &Filter,
    mut each: impl FnMut(u64, Event) -> ControlFlow<()>,
) -> Result<u64, SessionError> {
    /// Events handed over at once, the bytes they may carry, and such batches on their way: bounds memory.
    const BATCH: usize = 1_024;
    const BATCH_BYTES: usize = 1 << 20;
    const ON_THEIR_WAY: usize = 8;
    let (sender, receiver) = mpsc::sync_channel::<Vec<(u64, Event)>>(ON_THEIR_WAY);
    let path = session.path();
    thread::scope(|scope| {
        let reader = scope.spawn(move || {
            // A connection cannot be shared between threads.
            let session = Session::open(path)?;
            let mut batch = Vec::with_capacity(BATCH);
            let mut carried = 0;
            let not_understood = session.events(filter, |id, event| {
                carried += event.bytes.len();
                batch.push((id, event));
                if batch.len() < BATCH && carried < BATCH_BYTES {
                    return ControlFlow::Continue(());
                }
                carried = 0;
                let full = std::mem::replace(&mut batch, Vec::with_capacity(BATCH));
                if sender.send(full).is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            // Nobody listens any more: then nobody misses the rest.
            drop(sender.send(batch));
            Ok(not_understood)
        });
        for (id, event) in receiver.iter().flatten() {
            if each(id, event).is_break() {
                break;
            }
        }
        // What is on its way is not wanted any more, and the reader hears of it.
        drop(receiver);
        reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn method(derived: &Derived<'_>, said: &Said<'_>) -> Result<(), SessionError> {
    let Said { link, mark, item } = *said;
    let message_id = match &item.what {
        What::Heartbeat => return Ok(()),
        What::Message(message) => dramatiq::identify(message).message_id,
        _ => None,
    };
    derived.method(&MethodRow {
        event: mark.event,
        at_ns: mark.at_ns,
        pid: mark.pid.0,
        tid: mark.tid.0,
        connection: link.id.0,
        channel: item.channel,
        side: if item.side == Side::Client { "client" } else { "server" },
        method: said.name(),
        message_id,
        arguments: serde_json::to_string(&item.what).unwrap_or_default(),
    })
}

fn message(derived: &Derived<'_>, life: &Life) -> Result<(), SessionError> {
    let short = |mark: Mark| (mark.event, mark.at_ns, mark.pid.0);
    for (index, passage) in (life.left_out + 1..).zip(&life.passages) {
        derived.message(&MessageRow {
            message: life.number,
            passage: index,
            message_id: life.message_id.clone(),
            actor: life.actor.clone(),
            vhost: life.vhost.clone(),
            queue: passage.queue.clone(),
            published: passage.published.map(short),
            delivered: passage.delivered.map(|mark| (mark.event, mark.at_ns, mark.pid.0, mark.tid.0)),
            redelivered: passage.redelivered,
            settled: passage
                .settled
                .map(|settlement| (settlement.mark.event, settlement.mark.at_ns, settlement.how.name())),
            retries: passage.retries,
            failure: passage.failure.clone(),
            state: life.state(),
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::Event,
        model::{
            fixture::{self, WORKER},
            wire::{Wire, ack, body, deliver},
        },
        session::{Invoker, Recorder, Redactor, StateDir},
    };

    fn count(path: &Path, sql: &str) -> i64 {
        rusqlite::Connection::open(path).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn the_tables_hold_what_was_said_and_what_became_of_it() {
        let mut events: Vec<Event> = Vec::new();
        let mut wire = Wire::connect(&mut events, 1_000, 2, WORKER, 4715);
        wire.open(&mut events, 2_000);
        wire.consume(&mut events, 3_000, "default", 4);
        for tag in 1..=3 {
            let text = body("default", &format!("m-{tag}"), "");
            wire.received(&mut events, 4_000 + tag, &deliver(tag, "default", false, &text));
        }
        wire.sent(&mut events, 5_000, &ack(2, true));
        let scratch = tempfile::tempdir().unwrap();
        let dir = StateDir::open(Some(scratch.path()), &Invoker::current()).unwrap();
        let mut recorder = Recorder::create(&dir, fixture::header(), Redactor::open(&dir).unwrap()).unwrap();
        let path = recorder.path().to_owned();
        recorder.append(events, None);
        assert_eq!(recorder.finish(fixture::ending()), None);

        // Twice, the first time given up: what counts is what was finished.
        for finish in [false, true, true] {
            let session = Session::open_to_derive(&path).unwrap();
            let derived = session.derive().unwrap();
            fold(&session, &without_files(), Some(&derived)).unwrap();
            if finish {
                derived.finish().unwrap();
            } else {
                drop(derived);
            }
            let rows = if finish { 3 } else { 0 };
            assert_eq!(count(&path, "SELECT count(*) FROM messages"), rows);
        }
        let acked = "SELECT count(*) FROM messages WHERE settled = 'acked' AND state = 'acked' AND delivered_tid = 4715 AND published_ns IS NULL";
        assert_eq!(count(&path, acked), 2);
        assert_eq!(
            count(&path, "SELECT count(*) FROM messages WHERE settled IS NULL AND state = 'delivered'"),
            1
        );
        let delivers = "SELECT count(*) FROM amqp_methods JOIN events ON events.id = event WHERE method = 'basic.deliver' AND side = 'server' AND message_id GLOB 'm-?' AND events.kind = 'data'";
        assert_eq!(count(&path, delivers), 3);
        let secret = "SELECT count(*) FROM amqp_methods WHERE instr(arguments, 's3cret') > 0";
        assert_eq!(count(&path, secret), 0);
    }
}
