//! Folds a finished session once: into a model, and on the way into its derived tables. Knows sessions and the model; neither knows
//! the other.

use std::ops::ControlFlow;

use crate::{
    amqp::{conversation::What, method::Side},
    model::{
        Model,
        amqp::{Mark, Said},
        dramatiq,
        message::Life,
    },
    session::{Derived, Filter, MessageRow, MethodRow, Session, SessionError},
};

/// Folds a session into a model. With `derived`, what is said in AMQP and what became of each message is written there.
///
/// # Errors
/// When the session cannot be read, or the tables cannot be written.
pub fn fold(session: &Session, derived: Option<&Derived<'_>>) -> Result<Model, SessionError> {
    let started_ns = session.header().started_ns;
    let Some(derived) = derived else {
        let mut model = Model::new(started_ns);
        session.events(&Filter::default(), |id, event| {
            model.add(id, &event);
            ControlFlow::Continue(())
        })?;
        model.finish();
        return Ok(model);
    };
    let mut model = Model::with_lives(started_ns);
    let mut result = Ok(());
    session.events(&Filter::default(), |id, event| {
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
