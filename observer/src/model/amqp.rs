//! AMQP connections: which process holds which, who is at its ends, and what is said on it, method by method. Knows sockets and the
//! protocol; nothing of dramatiq.

use std::collections::{BTreeMap, HashMap};

pub use super::link::{Course, Link, LinkId, Mark, Said};
use super::{
    connection::Connections,
    consumer::Consumers,
    held::Held,
    lives::{Delivered, Lives},
    message::Settled,
    queue::Queues,
};
use crate::{
    amqp::{
        conversation::{Conversation, Item, What},
        message::{Carriage, Message},
        method::{Method, Side},
        table::SharedTables,
    },
    event::{Address, Body, Event, Hop, Known, Pid, SocketId},
};

/// Of each body so much is kept while its message is put together: enough for dramatiq's own fields, which follow the arguments.
const BODY_LIMIT_BYTES: usize = 256 << 10;
/// Beyond this many connections the oldest that are over are only counted.
const MAX_LINKS: usize = 5_000;
/// Closings kept, the first: a worker that tries again for days says the same every three seconds.
const MAX_CLOSINGS: usize = 1_000;
/// Processes of which is kept what they held when they ended.
const MAX_ENDED: usize = 1_000;
/// Declares and gets that wait for their answer on one channel.
const MAX_WAITING: usize = 1_000;

/// All that was said in AMQP.
#[derive(Clone, Debug)]
pub struct Amqp {
    links: BTreeMap<LinkId, Link>,
    current: HashMap<SocketId, LinkId>,
    next: u64,
    /// Connections that were not kept because there were too many.
    pub left_out: u64,
    /// Who consumes what.
    pub consumers: Consumers,
    /// The queues.
    pub queues: Queues,
    /// The messages.
    pub lives: Lives,
    /// What the server closed, in order of time.
    pub closings: Vec<Closing>,
    /// What processes held when they ended; nothing of those that held nothing.
    pub held_at_exit: BTreeMap<Pid, Held>,
    items: Vec<Item>,
    tables: SharedTables,
}

/// A connection or channel that the server closed, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closing {
    /// On which connection.
    pub link: LinkId,
    /// Which channel; `None`: the connection itself.
    pub channel: Option<u16>,
    /// When it was read, in the process and thread that held it.
    pub mark: Mark,
    /// Reply code (AMQP 0-9-1, 1.2 "constants").
    pub code: u16,
    /// Reply text.
    pub text: String,
    /// The method that was answered so (`queue.declare`).
    pub cause: Option<String>,
}

impl Amqp {
    /// Nothing said yet; `lives` will hold the messages.
    pub fn new(lives: Lives) -> Self {
        Self {
            links: BTreeMap::new(),
            current: HashMap::new(),
            next: 0,
            left_out: 0,
            consumers: Consumers::default(),
            queues: Queues::default(),
            lives,
            closings: Vec::new(),
            held_at_exit: BTreeMap::new(),
            items: Vec::new(),
            tables: SharedTables::default(),
        }
    }

    /// Every connection, in order of time.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    /// A connection by its number.
    pub fn link(&self, id: LinkId) -> Option<&Link> {
        self.links.get(&id)
    }

    /// Takes in the next event; what it completes goes to `each`. `connections` has taken it in already.
    pub(super) fn add(
        &mut self,
        id: u64,
        event: &Event,
        connections: &Connections,
        each: &mut dyn FnMut(&Said<'_>),
    ) {
        self.lives.pass(event.at_ns);
        match &event.body {
            Body::Data { socket, direction, offset, len, errno: 0, since_attach, .. } if *len > 0 => {
                let mark = Mark::new(id, event);
                let link = self.open(*socket, mark, *since_attach, connections);
                let Some(link) = self.links.get_mut(&link) else { return };
                let side = Side::speaking(*direction, link.accepted);
                link.course.went(side, mark);
                let mut items = std::mem::take(&mut self.items);
                link.conversation.feed(side, *offset, &event.bytes, *len, &mut items);
                if items.iter().any(|item| matches!(item.what, What::Method(Method::OpenOk))) {
                    link.conversation.share(&mut self.tables);
                }
                self.tell(*socket, mark, &mut items, each);
                self.items = items;
            }
            // A new socket of this number makes the old one history.
            Body::Socket { socket, .. } | Body::Accept { socket, .. } => {
                self.end(*socket, Mark::new(id, event), each);
                self.current.remove(socket);
            }
            // What was received before it may still be read: the conversation goes on, but the broker has taken back what was not
            // settled.
            Body::Disconnect { socket, .. } => {
                if let Some(link) = self.current.get(socket).and_then(|id| self.links.get_mut(id)) {
                    link.ended_at_ns = Some(event.at_ns);
                    let mark = Mark::new(id, event);
                    link.course.outstanding += self.lives.connection_over(link.id, mark, &mut self.queues);
                    self.consumers.connection_over(link.id, mark);
                }
            }
            Body::Gap { .. } | Body::Lost { hop: Hop::Evicted, .. } => self.lives.doubt(),
            // Its connections are closed after it, by the kernel.
            Body::Exit { .. } if self.held_at_exit.len() < MAX_ENDED => {
                let mine = self.links.values().filter(|link| link.opened.pid == event.pid && !link.accepted);
                let held = self.lives.held_on(mine.map(|link| link.id));
                if held.count > 0 {
                    self.held_at_exit.insert(event.pid, held);
                }
            }
            _ => {}
        }
    }

    /// Ends every stream: what is incomplete is told as it is. To be called once, after the last event.
    pub(super) fn finish(&mut self, last: Mark, each: &mut dyn FnMut(&Said<'_>)) {
        let mut sockets: Vec<SocketId> = self.current.keys().copied().collect();
        sockets.sort_by_key(|socket| self.current.get(socket).copied());
        for socket in sockets {
            self.flush(socket, last, each);
        }
        self.lives.finish();
    }

    fn end(&mut self, socket: SocketId, mark: Mark, each: &mut dyn FnMut(&Said<'_>)) {
        self.flush(socket, mark, each);
        if let Some(link) = self.current.get(&socket).and_then(|id| self.links.get_mut(id)) {
            link.ended_at_ns.get_or_insert(mark.at_ns);
            self.lives.connection_over(link.id, mark, &mut self.queues);
            self.consumers.connection_over(link.id, mark);
        }
    }

    fn flush(&mut self, socket: SocketId, mark: Mark, each: &mut dyn FnMut(&Said<'_>)) {
        let Some(link) = self.current.get(&socket).and_then(|id| self.links.get_mut(id)) else { return };
        let mut items = Vec::new();
        link.conversation.finish(&mut items);
        let mark = Mark { pid: link.opened.pid, tid: link.opened.tid, ..mark };
        self.tell(socket, mark, &mut items, each);
    }

    fn open(
        &mut self,
        socket: SocketId,
        mark: Mark,
        since_attach: bool,
        connections: &Connections,
    ) -> LinkId {
        if let Some(id) = self.current.get(&socket) {
            return *id;
        }
        if self.links.len() >= MAX_LINKS {
            let oldest = self.links.values().find(|link| link.ended_at_ns.is_some());
            if let Some(oldest) = oldest.or_else(|| self.links.values().next()) {
                let (id, socket) = (oldest.id, oldest.socket);
                if self.current.get(&socket) == Some(&id) {
                    self.current.remove(&socket);
                }
                self.links.remove(&id);
                self.left_out += 1;
            }
        }
        self.next += 1;
        let id = LinkId(self.next);
        let connection = connections.current(socket);
        let address = |end: fn(&super::connection::Connection) -> &Known<Address>| {
            connection.map_or(Known::unknown(), |connection| end(connection).clone())
        };
        let link = Link {
            id,
            socket,
            accepted: connection.is_some_and(|connection| connection.accepted == Some(true)),
            since_attach,
            peer: address(|connection| &connection.peer),
            local: address(|connection| &connection.local),
            opened: mark,
            ended_at_ns: None,
            unseen: 0,
            course: Course::default(),
            channels: BTreeMap::new(),
            conversation: Conversation::new(BODY_LIMIT_BYTES),
        };
        self.links.insert(id, link);
        self.current.insert(socket, id);
        id
    }

    fn tell(&mut self, socket: SocketId, mark: Mark, items: &mut Vec<Item>, each: &mut dyn FnMut(&Said<'_>)) {
        let Some(id) = self.current.get(&socket).copied() else { return };
        for item in items.drain(..) {
            // Before it is folded: a closing still finds its channel.
            if let Some(link) = self.links.get(&id) {
                each(&Said { link, mark, item: &item });
            }
            match &item.what {
                What::Method(method) => self.method(id, mark, &item, method),
                What::Message(message) => self.message(id, mark, item.channel, message),
                What::Unseen => {
                    if let Some(link) = self.links.get_mut(&id) {
                        link.unseen += 1;
                    }
                    if item.side == Side::Client {
                        self.lives.missed(id);
                    }
                }
                _ => {}
            }
        }
    }

    fn method(&mut self, id: LinkId, mark: Mark, item: &Item, method: &Method) {
        let Self { links, consumers, queues, lives, closings, .. } = self;
        let Some(link) = links.get_mut(&id) else { return };
        let number = item.channel;
        let at = (id, number);
        let vhost = link.facts().vhost.clone();
        link.course.said(item.side, mark, method);
        if item.side == Side::Server
            && let Method::ChannelClose { code, text, cause } | Method::Close { code, text, cause } = method
            && closings.len() < MAX_CLOSINGS
        {
            let channel = matches!(method, Method::ChannelClose { .. }).then_some(number);
            let (code, text, cause) = (*code, text.clone(), cause.clone());
            closings.push(Closing { link: id, channel, mark, code, text, cause });
        }
        match method {
            Method::Qos { prefetch_count, .. } => {
                link.channels.entry(number).or_default().prefetch = Some(*prefetch_count);
            }
            Method::QueueDeclare { queue, passive, .. } => {
                let channel = link.channels.entry(number).or_default();
                if channel.declaring.len() < MAX_WAITING {
                    channel.declaring.push(queue.clone());
                }
                if !queue.is_empty() && (!passive || queues.get(vhost.as_deref(), queue).is_none()) {
                    queues.declare(vhost, queue, mark, method);
                }
            }
            Method::QueueDeclareOk { queue, message_count, consumer_count } => {
                let channel = link.channels.entry(number).or_default();
                if !channel.declaring.is_empty() {
                    channel.declaring.remove(0);
                }
                queues.declared(vhost, queue, mark, *message_count, *consumer_count);
            }
            Method::Get { queue, no_ack } => {
                let channel = link.channels.entry(number).or_default();
                if channel.getting.len() < MAX_WAITING {
                    channel.getting.push((queue.clone(), *no_ack));
                }
            }
            Method::GetEmpty => drop(link.channels.entry(number).or_default().take_get()),
            Method::Consume { .. } => {
                let prefetch = link.prefetch(number);
                consumers.consume(at, vhost, prefetch, mark, method);
            }
            Method::ConsumeOk { consumer_tag } => consumers.confirmed(at, consumer_tag, mark),
            Method::Cancel { consumer_tag } => consumers.cancelled(at, consumer_tag, item.side, mark),
            Method::Ack { delivery_tag, multiple } => {
                lives.settle(at, *delivery_tag, *multiple, Settled::Acked, mark, queues);
            }
            Method::Nack { delivery_tag, multiple, requeue } => {
                let how = if *requeue { Settled::Requeued } else { Settled::Nacked };
                lives.settle(at, *delivery_tag, *multiple, how, mark, queues);
            }
            Method::Reject { delivery_tag, requeue } => {
                let how = if *requeue { Settled::Requeued } else { Settled::Rejected };
                lives.settle(at, *delivery_tag, false, how, mark, queues);
            }
            Method::Recover { .. } => lives.channel_over(at, mark, queues),
            Method::Confirmed { sequence, multiple } => lives.confirm(at, *sequence, *multiple, true),
            Method::Refused { sequence, multiple } => lives.confirm(at, *sequence, *multiple, false),
            Method::ChannelClose { code, text, cause } => {
                let channel = link.channels.remove(&number).unwrap_or_default();
                if item.side == Side::Server
                    && cause.as_deref() == Some("queue.declare")
                    && let Some(queue) = channel.declaring.first()
                {
                    queues.refused(vhost, queue, mark, *code, text);
                }
                lives.channel_over(at, mark, queues);
                consumers.channel_over(at, mark);
            }
            Method::Close { .. } => {
                link.course.outstanding += lives.connection_over(id, mark, queues);
                consumers.connection_over(id, mark);
            }
            _ => {}
        }
    }

    fn message(&mut self, id: LinkId, mark: Mark, number: u16, message: &Message) {
        let Self { links, consumers, queues, lives, .. } = self;
        let Some(link) = links.get_mut(&id) else { return };
        // Seen from the broker's own process every message would have a second life.
        if link.accepted {
            return;
        }
        let at = (id, number);
        let vhost = link.facts().vhost.clone();
        match &message.carriage {
            Carriage::Publish { exchange, routing_key, .. } => {
                queues.published(vhost.as_deref(), exchange, routing_key, mark.pid);
                lives.published(at, vhost, message, mark);
            }
            Carriage::Deliver { consumer_tag, delivery_tag, redelivered, exchange, routing_key, queue } => {
                let consumer = consumers.delivered(at, consumer_tag);
                let queue = queue.clone().or_else(|| consumer.map(|consumer| consumer.queue.clone()));
                let delivered = Delivered {
                    queue: queue.or_else(|| exchange.is_empty().then(|| routing_key.clone())),
                    delivery_tag: *delivery_tag,
                    redelivered: *redelivered,
                    no_ack: consumer.is_some_and(|consumer| consumer.no_ack),
                };
                lives.delivered(at, vhost, delivered, message, mark, queues);
            }
            Carriage::GetOk { delivery_tag, redelivered, exchange, routing_key, .. } => {
                let asked = link.channels.entry(number).or_default().take_get();
                let no_ack = asked.as_ref().is_some_and(|(_, no_ack)| *no_ack);
                let queue = asked.map(|(queue, _)| queue);
                let delivered = Delivered {
                    queue: queue.or_else(|| exchange.is_empty().then(|| routing_key.clone())),
                    delivery_tag: *delivery_tag,
                    redelivered: *redelivered,
                    no_ack,
                };
                lives.delivered(at, vhost, delivered, message, mark, queues);
            }
            Carriage::Return { code, text, .. } => {
                lives.returned(message, *code, text);
            }
            Carriage::Unseen => lives.totals.unidentified += 1,
        }
    }
}
