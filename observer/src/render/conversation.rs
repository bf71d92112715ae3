//! AMQP connections as a person would tell them: who connected where as whom, what was agreed, then a line a method; the flow of
//! messages and heartbeats folded. Knows the model; decides nothing.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, Write},
};

use crate::{
    amqp::{
        conversation::{Item, Spoke, What},
        message::Carriage,
        method::{Method, Side},
    },
    event::Pid,
    model::{
        Model,
        amqp::{Link, LinkId, Said},
        dramatiq,
        message::Identity,
    },
    render::{
        queues::who,
        style::{BAD, DIM, GOOD, Line, NAME, ODD, PLAIN, STRONG},
        timeline,
    },
    words::units,
};

/// Of a run of deliveries, publishes and acknowledgements so many are told one by one.
const FLOW_LINES: usize = 8;
/// Of a connection so many lines are kept from its beginning, and so many from its end.
const FIRST_LINES: usize = 500;
const LAST_LINES: usize = 200;

/// What was said on one connection so far.
#[derive(Default)]
struct Script {
    first: Vec<Line>,
    last: VecDeque<Line>,
    omitted: u64,
    /// Lines told of the run of message flow that is under way.
    run: usize,
    /// What of it was not told one by one, by its word, and until when.
    folded: BTreeMap<&'static str, u64>,
    until_ns: u64,
    heartbeats: [u64; 2],
}

/// One thing said, as a line; heartbeats are none.
pub fn line(said: &Said<'_>, started_ns: u64) -> Option<Line> {
    let identity = match &said.item.what {
        What::Heartbeat => return None,
        What::Message(message) => dramatiq::identify(message),
        _ => Identity::default(),
    };
    Some(whole_line(said, identity, started_ns, false))
}

fn whole_line(said: &Said<'_>, identity: Identity, started_ns: u64, all: bool) -> Line {
    let Said { link, mark, item } = said;
    let mut line = Line::new().with(DIM, format!("{:>12} ", units::moment(mark.at_ns, started_ns)));
    line.push(NAME, format!(" {:<15} ", who(*mark)));
    line.push(STRONG, if sent(link, item.side) { "→ " } else { "← " });
    if item.channel > 0 {
        line.push(DIM, format!("{} ", item.channel));
    }
    line.append(told(item, identity, all));
    line
}

/// Collects what is said, and tells it connection by connection.
pub struct Narrator {
    started_ns: u64,
    /// Nothing is folded.
    all: bool,
    scripts: BTreeMap<LinkId, Script>,
}

impl Narrator {
    /// Of a session that began at `started_ns`; with `all` nothing is folded.
    pub const fn new(started_ns: u64, all: bool) -> Self {
        Self { started_ns, all, scripts: BTreeMap::new() }
    }

    /// Takes in one thing said.
    pub fn hear(&mut self, said: &Said<'_>) {
        let Said { link, mark, item } = said;
        let script = self.scripts.entry(link.id).or_default();
        if item.what == What::Heartbeat {
            let ours = sent(link, item.side);
            script.heartbeats[usize::from(!ours)] += 1;
            return;
        }
        let identity = match &item.what {
            What::Message(message) => dramatiq::identify(message),
            _ => Identity::default(),
        };
        let retries = identity.retries.filter(|retries| *retries > 0);
        // A retry is told whatever flows around it.
        let flow = if self.all || retries.is_some() { None } else { flow(&item.what) };
        match flow {
            Some(word) if script.run >= FLOW_LINES => {
                *script.folded.entry(word).or_default() += 1;
                script.until_ns = mark.at_ns;
                return;
            }
            Some(_) => script.run += 1,
            None => script.end_run(self.started_ns, self.all),
        }
        let line = whole_line(said, identity, self.started_ns, self.all);
        script.push(line, self.all);
    }

    /// Tells every connection, or those of some processes.
    ///
    /// # Errors
    /// When the stream cannot be written.
    pub fn write(mut self, out: &mut impl Write, model: &Model, pids: &[Pid]) -> io::Result<()> {
        let mut shown = 0;
        for link in model.amqp.links().filter(|link| pids.is_empty() || pids.contains(&link.opened.pid)) {
            if shown > 0 {
                writeln!(out)?;
            }
            shown += 1;
            let mut script = self.scripts.remove(&link.id).unwrap_or_default();
            script.end_run(self.started_ns, self.all);
            for line in head(link, self.started_ns) {
                line.write(out, None)?;
            }
            for line in &script.first {
                line.write(out, None)?;
            }
            if script.omitted > 0 {
                let text = format!("… {} left out; with them: --all", units::counted(script.omitted, "line"));
                Line::new().with(DIM, text).write(out, None)?;
            }
            for line in &script.last {
                line.write(out, None)?;
            }
            foot(link, &script, self.started_ns).write(out, None)?;
        }
        if model.amqp.left_out > 0 {
            let count = units::counted(model.amqp.left_out, "connection");
            Line::new().with(ODD, format!("and {count} that are not kept")).write(out, None)?;
        }
        if shown == 0 {
            Line::new().with(DIM, "no connection on which AMQP was tried").write(out, None)?;
        }
        Ok(())
    }
}

impl Script {
    fn push(&mut self, line: Line, all: bool) {
        if all || self.first.len() < FIRST_LINES {
            self.first.push(line);
            return;
        }
        if self.last.len() >= LAST_LINES {
            self.last.pop_front();
            self.omitted += 1;
        }
        self.last.push_back(line);
    }

    fn end_run(&mut self, started_ns: u64, all: bool) {
        self.run = 0;
        if self.folded.is_empty() {
            return;
        }
        let counts: Vec<String> = std::mem::take(&mut self.folded)
            .iter()
            .map(|(word, count)| format!("{count} × {word}"))
            .collect();
        let text = format!("… and {} until {}", counts.join(", "), units::moment(self.until_ns, started_ns));
        self.push(Line::new().with(DIM, format!("{:31}{text}", "")), all);
    }
}

/// What was said, without when, by whom and on which channel; with `all` whole.
pub(crate) fn told(item: &Item, identity: Identity, all: bool) -> Line {
    let mut line = Line::new();
    match &item.what {
        // A server's properties are the same on every connection: the head names what matters of them.
        What::Method(Method::Start { mechanisms, .. }) if !all => {
            line.push(PLAIN, format!("connection.start {mechanisms}"))
        }
        what => line.push(style(what), what.to_string()),
    };
    match &item.what {
        What::Unseen => {
            line.push(ODD, format!(" {}", units::size(item.end.saturating_sub(item.start))));
        }
        What::Message(message) => {
            if let Carriage::Deliver { queue: Some(queue), .. } = &message.carriage {
                line.push(PLAIN, format!(" from {queue}"));
            }
            for text in [identity.actor, identity.message_id].into_iter().flatten() {
                line.push(PLAIN, format!(" {text}"));
            }
            if let Some(retries) = identity.retries.filter(|retries| *retries > 0) {
                let failure = identity.failure.unwrap_or_default();
                line.push(ODD, format!(" retry {retries} {failure}"));
            }
        }
        _ => {}
    }
    line
}

/// Whether something said wants a look.
pub(crate) fn is_odd(what: &What) -> bool {
    [BAD, ODD].contains(&style(what))
}

/// Whether the observed process said it.
pub(crate) fn sent(link: &Link, side: Side) -> bool {
    (side == Side::Client) != link.accepted
}

/// The word for what makes up the flow of messages.
fn flow(what: &What) -> Option<&'static str> {
    match what {
        What::Method(Method::Ack { .. }) => Some("basic.ack"),
        What::Method(Method::Confirmed { .. }) => Some("confirmed"),
        What::Message(message) => match message.carriage {
            Carriage::Publish { .. } => Some("basic.publish"),
            Carriage::Deliver { .. } => Some("basic.deliver"),
            Carriage::GetOk { .. } => Some("basic.get-ok"),
            Carriage::Return { .. } | Carriage::Unseen => None,
        },
        _ => None,
    }
}

fn style(what: &What) -> anstyle::Style {
    match what {
        What::Method(Method::Close { code: 200, .. } | Method::ChannelClose { code: 0 | 200, .. }) => PLAIN,
        What::Method(Method::Close { .. } | Method::ChannelClose { .. } | Method::Blocked { .. })
        | What::NotAmqp(_)
        | What::UnknownMethod(..)
        | What::Malformed(_) => BAD,
        What::Method(
            Method::Nack { .. } | Method::Reject { .. } | Method::Cancel { .. } | Method::Refused { .. },
        )
        | What::Unseen => ODD,
        What::Method(Method::OpenOk | Method::ConsumeOk { .. }) => GOOD,
        What::Message(message) if matches!(message.carriage, Carriage::Return { .. }) => BAD,
        _ => PLAIN,
    }
}

/// Who is connected where as whom, and what was agreed.
pub(crate) fn head(link: &Link, started_ns: u64) -> Vec<Line> {
    let arrow = if link.accepted { "accepted from" } else { "→" };
    let mut line = Line::new()
        .with(STRONG, format!("connection {}  ", link.id.0))
        .with(NAME, who(link.opened))
        .with(
            PLAIN,
            format!("  {} {arrow} {}", timeline::address(&link.local), timeline::address(&link.peer)),
        )
        .with(DIM, format!("  {}", units::about(link.opened.at_ns, started_ns)));
    if link.since_attach {
        line.push(ODD, "  was open before the recording");
    }
    let facts = link.facts();
    let mut about = Line::new().with(PLAIN, "   ");
    if let Some(user) = &facts.user {
        about.push(PLAIN, format!(" user {user}"));
    }
    if let Some(vhost) = &facts.vhost {
        about.push(PLAIN, format!(" vhost {vhost}"));
    }
    if let Some(product) = facts.product() {
        about.push(DIM, format!(" at {product} {}", facts.version().unwrap_or_default()));
    }
    if let Some(client) = &facts.client_properties {
        let name = client.text("connection_name").or_else(|| client.text("product"));
        about.push(DIM, format!(" as {}", name.unwrap_or("a client without a name")));
    }
    if let Some(tuning) = &facts.negotiated {
        about.push(DIM, format!(", {tuning}"));
    }
    if about.width() > 3 { vec![line, about] } else { vec![line] }
}

fn foot(link: &Link, script: &Script, started_ns: u64) -> Line {
    let mut line = Line::new().with(DIM, format!("{:31}", ""));
    let [ours, theirs] = script.heartbeats;
    line.push(DIM, format!("heartbeats: {ours} sent, {theirs} received"));
    if link.unseen > 0 {
        line.push(ODD, format!("; {} not seen", units::counted(link.unseen, "span")));
    }
    if link.spoke(Side::Server) == Spoke::Silence && !link.accepted {
        line.push(ODD, "; the other end never said a word");
    }
    match link.ended_at_ns {
        Some(at_ns) => line.push(DIM, format!("; ended {}", units::about(at_ns, started_ns))),
        None => line.push(DIM, "; open at the end of the recording"),
    };
    line
}
