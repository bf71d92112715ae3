//! What the broker says of queues and their consumers, beside what was observed, as text. Knows the model; decides nothing.

use super::{
    queues::who,
    style::{DIM, GOOD, Line, NAME, ODD, PLAIN},
};
use crate::model::{
    amqp::Mark,
    broker::{Client, Sampled},
    dramatiq::{self, QueueKind},
    reconcile::{Account, Consumed, Consumption, Holder, Reconciliation},
};
use crate::words::{self, escape, units};

/// Names of one kind in a line of the summary; more are counted.
const NAMED: usize = 3;

/// What the broker says of one queue.
pub(super) fn lines(account: &Account, started_ns: u64) -> Vec<Line> {
    let mut lines = Vec::new();
    if let Some(sampled) = &account.sampled {
        lines.push(held(sampled, started_ns));
        if sampled.backlog().is_some() {
            match account.consumed {
                Consumed::Nobody => lines.push(Line::new().with(ODD, "  consumed by nobody")),
                Consumed::Others => {
                    lines.push(Line::new().with(ODD, "  consumed by nobody that was observed"));
                }
                Consumed::Observed | Consumed::Unknown => {}
            }
        }
    }
    // What was seen to be asked for is told by who asked.
    let told = account.consumers.iter().filter(|one| one.told);
    lines.extend(told.map(|one| consuming(one, started_ns)));
    lines
}

fn held(sampled: &Sampled, started_ns: u64) -> Line {
    let mut line = Line::new().with(PLAIN, "  the broker says: ");
    match sampled.ready {
        Some(ready) => {
            line.push(if ready > 0 { ODD } else { PLAIN }, format!("{ready} ready"));
            if let Some(since_ns) = sampled.ready_since_ns {
                line.push(PLAIN, format!(" since {}", units::about(since_ns, started_ns)));
            }
        }
        None => {
            line.push(ODD, sampled.state.as_deref().map_or("no counts".into(), escape::quote));
        }
    }
    if let Some(unacked) = sampled.unacked {
        line.push(PLAIN, format!(", {unacked} unacknowledged"));
    }
    if let Some(consumers) = sampled.consumers {
        line.push(PLAIN, format!(", {}", units::counted(consumers, "consumer")));
    }
    line.push(DIM, format!(" {}", units::about(sampled.sampled_ns, started_ns)));
    if let Some((most, at_ns)) = sampled.highest_ready.filter(|(most, _)| Some(*most) != sampled.ready) {
        line.push(DIM, format!("; at most {most} ready {}", units::about(at_ns, started_ns)));
    }
    line
}

fn consuming(one: &Consumption, started_ns: u64) -> Line {
    let mut line = Line::new().with(PLAIN, "  the broker says: consumed by ");
    match &one.holder {
        Holder::Observed { pid, tid, .. } => {
            let mark = Mark { event: 0, at_ns: 0, pid: *pid, tid: tid.unwrap_or(crate::event::Tid(0)) };
            line.push(GOOD, who(mark))
        }
        Holder::Other(client) => line.push(ODD, other(client)),
        Holder::Unknown => line.push(ODD, "somebody, it cannot be told who"),
    };
    match one.prefetch {
        Some(0) => line.push(PLAIN, ", no prefetch limit"),
        Some(prefetch) => line.push(PLAIN, format!(", prefetch {prefetch}")),
        None => &mut line,
    };
    line.push(DIM, format!(" {}", units::about(one.since_ns, started_ns)));
    if let Some(ended_ns) = one.ended_ns {
        line.push(DIM, format!(" to {}", units::about(ended_ns, started_ns)));
    }
    line
}

/// A connection of somebody else: `pika 127.0.0.1:40123 (pid 4711 python rival.py)`.
fn other(client: &Client) -> String {
    let mut pieces = Vec::new();
    // What it calls itself is the client's own text.
    pieces.extend(client.product.as_deref().map(|product| match product {
        "Pika Python Client Library" => "pika".to_owned(),
        product => escape::quote(product),
    }));
    pieces.extend(client.connection_name.as_deref().map(escape::quote));
    pieces.push(match (&client.peer_host, client.peer_port) {
        (Some(host), Some(port)) if host.contains(':') => format!("[{host}]:{port}"),
        (Some(host), Some(port)) => format!("{host}:{port}"),
        _ => client.name.clone(),
    });
    if let Some(pid) = client.local_pid {
        let command = client.local_command.as_deref().map_or(String::new(), words::command);
        pieces.push(format!("(pid {})", format!("{pid} {command}").trim()));
    }
    pieces.join(" ")
}

/// What there is to say of it in the summary: at most two lines.
pub(crate) fn summary(model: &Reconciliation, started_ns: u64) -> Vec<Line> {
    let mut lines = Vec::new();
    let alive = |account: &&Account| dramatiq::queue_kind(&account.name) != QueueKind::Dead;
    let backlog: Vec<&Account> = model.backlog().into_iter().filter(alive).collect();
    let ours: Vec<&Account> = model.consumed().collect();
    if let Some((first, rest)) = backlog.split_first() {
        let mut line = Line::new();
        waiting(&mut line, first, &ours, started_ns);
        if !rest.is_empty() {
            line.push(DIM, format!(" (and {})", units::counted(rest.len() as u64, "more queue")));
        }
        // Delay queues go with their queue.
        let plain = ours.iter().filter(|account| dramatiq::queue_kind(&account.name) == QueueKind::Plain);
        let plain: Vec<String> = plain.map(|account| name(account, &ours)).collect();
        if !plain.is_empty() {
            let shown = plain.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
            line.push(PLAIN, "; the worker consumes ").push(NAME, shown);
            more(&mut line, plain.len());
        }
        lines.push(line);
    }
    // Several connections of one process are one rival.
    let mut rivals: Vec<(&Client, Vec<String>)> = Vec::new();
    for account in model.competing() {
        for one in account.competitors() {
            let Holder::Other(client) = &one.holder else { continue };
            let queue = name(account, &ours);
            let is_same = |known: &Client| match client.local_pid {
                Some(pid) => known.local_pid == Some(pid),
                None => known.name == client.name,
            };
            match rivals.iter_mut().find(|(known, _)| is_same(known)) {
                Some((_, queues)) if queues.contains(&queue) => {}
                Some((_, queues)) => queues.push(queue),
                None => rivals.push((client, vec![queue])),
            }
        }
    }
    if !rivals.is_empty() {
        let mut line = Line::new().with(PLAIN, "other consumers of ");
        for (index, (rival, queues)) in rivals.iter().take(NAMED).enumerate() {
            line.push(PLAIN, if index > 0 { "; of " } else { "" });
            let plain = queues.iter().filter(|queue| dramatiq::queue_kind(queue) == QueueKind::Plain);
            let plain: Vec<&str> = plain.map(String::as_str).collect();
            line.push(NAME, if plain.is_empty() { queues.join(", ") } else { plain.join(", ") });
            line.push(PLAIN, ": ").push(ODD, other(rival));
        }
        more(&mut line, rivals.len());
        lines.push(line);
    }
    lines
}

fn waiting(line: &mut Line, account: &Account, ours: &[&Account], started_ns: u64) {
    let Some((sampled, ready)) =
        account.sampled.as_ref().and_then(|sampled| Some((sampled, sampled.backlog()?)))
    else {
        return;
    };
    let since = sampled.ready_since_ns.map_or(sampled.sampled_ns, |since_ns| since_ns);
    line.push(NAME, name(account, ours)).push(ODD, format!(": {ready} ready"));
    line.push(PLAIN, format!(" since {}, consumed by ", units::about(since, started_ns)));
    let others: Vec<String> = account
        .consumers
        .iter()
        .filter(|one| one.ended_ns.is_none())
        .filter_map(|one| match &one.holder {
            Holder::Other(client) => Some(other(client)),
            _ => None,
        })
        .collect();
    match (account.consumed, others.as_slice()) {
        (Consumed::Others, [first, ..]) => line.push(ODD, first),
        _ => line.push(ODD, "nobody"),
    };
    if account.consumed == Consumed::Others {
        more(line, others.len().saturating_add(NAMED - 1));
    }
}

/// A queue's name, with its virtual host where that is not the one that everything of ours is in.
fn name(account: &Account, ours: &[&Account]) -> String {
    let is_home = !ours.is_empty() && ours.iter().all(|one| one.vhost == account.vhost);
    match &account.vhost {
        Some(vhost) if !is_home => format!("{} in vhost {vhost}", account.name),
        _ => account.name.clone(),
    }
}

fn more(line: &mut Line, all: usize) {
    if all > NAMED {
        line.push(DIM, format!(" and {} more", all - NAMED));
    }
}
