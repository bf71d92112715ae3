//! The views of a session that fold it: conversations, messages, queues, ladders. Knows sessions, the model and rendering.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    ops::ControlFlow,
};

use serde::Serialize;

use super::Args;
use crate::{
    event::Pid,
    fold::without_files,
    model::{
        Model,
        amqp::{Link, Mark, Said},
        dramatiq, ladder,
        message::Life,
        reconcile::{Account, Reconciliation},
    },
    render::{
        conversation::Narrator,
        json, ladder as ladder_text, messages, queues,
        style::{DIM, Line},
    },
    session::Session,
    words::units,
};

/// Lines of a table for people, unless `--limit` says otherwise.
const TABLE_LIVES: u64 = 100;

/// A way to look at a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    Amqp,
    Messages,
    Queues,
    Ladder,
}

/// Folds a session; what is said in AMQP goes to `each`, and the messages that are over to `over`.
fn fold(
    session: &Session,
    model: &mut Model,
    each: &mut dyn FnMut(&Said<'_>) -> io::Result<()>,
    over: &mut dyn FnMut(Life) -> io::Result<()>,
) -> anyhow::Result<()> {
    let mut result = Ok(());
    session.events(&without_files(), |id, event| {
        model.add_and_tell(id, &event, &mut |said| {
            if result.is_ok() {
                result = each(said);
            }
        });
        for life in model.amqp.lives.take_done() {
            if result.is_ok() {
                result = over(life);
            }
        }
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    result?;
    let mut result = Ok(());
    model.finish_and_tell(&mut |said| {
        if result.is_ok() {
            result = each(said);
        }
    });
    result?;
    model.amqp.lives.take_done().try_for_each(over)?;
    Ok(())
}

fn is_wanted(args: &Args, life: &Life) -> bool {
    let by_id = args
        .message
        .as_ref()
        .is_none_or(|prefix| life.message_id.as_ref().is_some_and(|id| id.starts_with(prefix.as_str())));
    let touched = |mark: Option<Mark>| mark.is_some_and(|mark| args.pids.contains(&mark.pid.0));
    by_id
        && (args.pids.is_empty()
            || life.passages.iter().any(|passage| touched(passage.published) || touched(passage.delivered)))
}

/// Writes a view as text.
pub(super) fn screen(view: View, args: &Args, session: &Session, out: &mut impl Write) -> anyhow::Result<()> {
    let started_ns = session.header().started_ns;
    let pids: Vec<Pid> = args.pids.iter().copied().map(Pid).collect();
    let mut model =
        if view == View::Messages { Model::with_lives(started_ns) } else { Model::new(started_ns) };
    match view {
        View::Amqp => {
            let mut narrator = Narrator::new(started_ns, args.all);
            let hear = &mut |said: &Said<'_>| {
                narrator.hear(said);
                Ok(())
            };
            fold(session, &mut model, hear, &mut |_| Ok(()))?;
            narrator.write(out, &model, &pids)?;
        }
        View::Messages => {
            let limit = args.limit.unwrap_or(TABLE_LIVES);
            let mut lives = BTreeMap::new();
            let mut wanted = 0_u64;
            fold(session, &mut model, &mut |_| Ok(()), &mut |life| {
                if is_wanted(args, &life) {
                    wanted += 1;
                    lives.insert(life.number, life);
                    if lives.len() as u64 > limit {
                        lives.pop_last();
                    }
                }
                Ok(())
            })?;
            if !lives.is_empty() {
                messages::head().write(out, None)?;
            }
            for life in lives.values() {
                for line in messages::lines(life, started_ns, args.message.is_some()) {
                    line.write(out, None)?;
                }
            }
            let hidden = wanted - lives.len() as u64;
            if hidden > 0 {
                let text =
                    format!("… {} more; with them: --limit {wanted}", units::counted(hidden, "message"));
                Line::new().with(DIM, text).write(out, None)?;
            }
            messages::totals(&model.amqp.lives.totals).write(out, None)?;
        }
        View::Queues => {
            fold(session, &mut model, &mut |_| Ok(()), &mut |_| Ok(()))?;
            for line in queues::lines(&model) {
                line.write(out, None)?;
            }
        }
        View::Ladder => {
            fold(session, &mut model, &mut |_| Ok(()), &mut |_| Ok(()))?;
            let ladders = ladder::ladders(&model);
            for ladder in ladders.iter().filter(|ladder| pids.is_empty() || pids.contains(&ladder.pid)) {
                for line in ladder_text::lines(ladder, started_ns) {
                    line.write(out, None)?;
                }
            }
            if ladders.is_empty() {
                Line::new().with(DIM, "no dramatiq worker, and nothing that speaks AMQP").write(out, None)?;
            }
        }
    }
    Ok(())
}

/// Writes a view as one JSON document: schema `observer.show-amqp/1`, `-messages`, `-queues` or `-ladder`.
pub(super) fn document(
    view: View,
    args: &Args,
    session: &Session,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let header = session.header();
    let started_ns = header.started_ns;
    let name = match view {
        View::Amqp => "amqp",
        View::Messages => "messages",
        View::Queues => "queues",
        View::Ladder => "ladder",
    };
    write!(out, r#"{{"schema":"observer.show-{name}/1","session":"#)?;
    json::write(out, &json::Described::new(session))?;
    let mut model =
        if view == View::Messages { Model::with_lives(started_ns) } else { Model::new(started_ns) };
    let limit = args.limit.unwrap_or(u64::MAX);
    let mut written = 0;
    match view {
        View::Amqp => {
            write!(out, r#","said":["#)?;
            let mut tell = |said: &Said<'_>| {
                if written >= limit || !(args.pids.is_empty() || args.pids.contains(&said.mark.pid.0)) {
                    return Ok(());
                }
                written += 1;
                out.write_all(if written == 1 { b"\n" } else { b",\n" })?;
                json::write(out, &Telling::new(said, started_ns))
            };
            fold(session, &mut model, &mut tell, &mut |_| Ok(()))?;
            write!(out, "\n],\"connections\":")?;
            json::write(out, &model.amqp.links().map(Connected::new).collect::<Vec<_>>())?;
        }
        View::Messages => {
            write!(out, r#","messages":["#)?;
            let mut tell = |life: Life| {
                if written >= limit || !is_wanted(args, &life) {
                    return Ok(());
                }
                written += 1;
                out.write_all(if written == 1 { b"\n" } else { b",\n" })?;
                json::write(out, &Lived { state: life.state(), life: &life })
            };
            fold(session, &mut model, &mut |_| Ok(()), &mut tell)?;
            write!(out, "\n],\"totals\":")?;
            json::write(out, &model.amqp.lives.totals)?;
        }
        View::Queues => {
            fold(session, &mut model, &mut |_| Ok(()), &mut |_| Ok(()))?;
            write!(out, r#","queues":"#)?;
            let queues: Vec<_> = model
                .amqp
                .queues
                .iter()
                .map(|((vhost, name), queue)| serde_json::json!({"vhost": vhost, "name": name, "use": queue}))
                .collect();
            json::write(out, &queues)?;
            write!(out, r#","consumers":"#)?;
            json::write(out, &model.amqp.consumers.iter().collect::<Vec<_>>())?;
            write!(out, r#","routes":"#)?;
            let routes: Vec<_> = model
                .amqp
                .queues
                .routes()
                .map(|(vhost, exchange, routing_key, pid, published)| {
                    serde_json::json!({"vhost": vhost, "exchange": exchange, "routing_key": routing_key, "pid": pid, "published": published})
                })
                .collect();
            json::write(out, &routes)?;
            write!(out, r#","broker":"#)?;
            json::write(out, &Reconciliation::of(&model).map(|both| from_broker(&both)))?;
        }
        View::Ladder => {
            fold(session, &mut model, &mut |_| Ok(()), &mut |_| Ok(()))?;
            write!(out, r#","ladder":"#)?;
            json::write(out, &ladder::ladders(&model))?;
        }
    }
    writeln!(out, "}}")?;
    Ok(())
}

/// The broker's account beside what was observed; `null` where the broker told nothing.
fn from_broker(both: &Reconciliation) -> serde_json::Value {
    let name = |account: &Account| serde_json::json!({"vhost": account.vhost, "name": account.name});
    let competing = both.competing().map(|account| {
        let mut named = name(account);
        named["consumers"] = serde_json::json!(account.competitors().collect::<Vec<_>>());
        named
    });
    serde_json::json!({
        "queues": both.queues,
        "backlog": both.backlog().into_iter().map(name).collect::<Vec<_>>(),
        "consumed": both.consumed().map(name).collect::<Vec<_>>(),
        "competing": competing.collect::<Vec<_>>(),
    })
}

#[derive(Serialize)]
struct Lived<'a> {
    state: &'static str,
    #[serde(flatten)]
    life: &'a Life,
}

#[derive(Serialize)]
struct Telling<'a> {
    #[serde(flatten)]
    mark: Mark,
    since_start_ns: i64,
    connection: u64,
    name: String,
    #[serde(flatten)]
    item: &'a crate::amqp::conversation::Item,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<String>,
}

impl<'a> Telling<'a> {
    fn new(said: &Said<'a>, started_ns: u64) -> Self {
        let identity = match &said.item.what {
            crate::amqp::conversation::What::Message(message) => dramatiq::identify(message),
            _ => crate::model::message::Identity::default(),
        };
        Self {
            mark: said.mark,
            since_start_ns: said.mark.at_ns.cast_signed().wrapping_sub_unsigned(started_ns),
            connection: said.link.id.0,
            name: said.name(),
            item: said.item,
            message_id: identity.message_id,
            actor: identity.actor,
        }
    }
}

#[derive(Serialize)]
struct Connected<'a> {
    connection: u64,
    opened: Mark,
    ended_at_ns: Option<u64>,
    accepted: bool,
    since_attach: bool,
    socket: crate::event::SocketId,
    local: &'a crate::event::Known<crate::event::Address>,
    peer: &'a crate::event::Known<crate::event::Address>,
    unseen_spans: u64,
    client_spoke: crate::amqp::conversation::Spoke,
    server_spoke: crate::amqp::conversation::Spoke,
    #[serde(flatten)]
    facts: &'a crate::amqp::conversation::Facts,
}

impl<'a> Connected<'a> {
    fn new(link: &'a Link) -> Self {
        use crate::amqp::method::Side;
        Self {
            connection: link.id.0,
            opened: link.opened,
            ended_at_ns: link.ended_at_ns,
            accepted: link.accepted,
            since_attach: link.since_attach,
            socket: link.socket,
            local: &link.local,
            peer: &link.peer,
            unseen_spans: link.unseen,
            client_spoke: link.spoke(Side::Client),
            server_spoke: link.spoke(Side::Server),
            facts: link.facts(),
        }
    }
}
