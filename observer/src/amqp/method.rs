//! AMQP methods with the arguments that matter to whoever asks why messages are not consumed. Knows one method at a time; nothing
//! of the conversation it belongs to, except who said it.

use std::fmt;

use amq_protocol::protocol::{AMQPClass, basic, channel, confirm, connection, exchange, queue};
use serde::{Deserialize, Serialize};

use super::{
    names::method_name,
    table::{Escaped, Quoted, Table},
};

/// Which end of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// The one that connected.
    Client,
    /// The broker.
    Server,
}

/// Limits and heartbeat, as proposed or agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tuning {
    /// Highest channel number; 0 is no limit.
    pub channel_max: u16,
    /// Largest frame in bytes, its eight bytes of frame included; 0 is no limit.
    pub frame_max_bytes: u32,
    /// Heartbeat timeout in seconds; 0 is none.
    pub heartbeat_s: u16,
}

/// A method, except those that carry a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the arguments are AMQP 0-9-1's own, by its names")]
pub enum Method {
    /// `connection.start`.
    Start { properties: Table, mechanisms: String },
    /// `connection.start-ok`. `user` is there when the recording kept it.
    StartOk { properties: Table, mechanism: String, user: Option<String>, locale: String },
    /// `connection.tune`: what the broker proposes.
    Tune(Tuning),
    /// `connection.tune-ok`: what is agreed.
    TuneOk(Tuning),
    /// `connection.open`.
    Open { vhost: String },
    /// `connection.open-ok`.
    OpenOk,
    /// `connection.close`. `cause` is the method that was answered so.
    Close { code: u16, text: String, cause: Option<String> },
    /// `channel.close`.
    ChannelClose { code: u16, text: String, cause: Option<String> },
    /// `connection.blocked`: the broker takes no messages for now.
    Blocked { reason: String },
    /// `connection.unblocked`.
    Unblocked,
    /// `connection.update-secret`; the secret itself is never kept.
    UpdateSecret { reason: String },
    /// `channel.open`.
    ChannelOpen,
    /// `channel.flow`.
    Flow { active: bool },
    /// `exchange.declare`.
    ExchangeDeclare { exchange: String, kind: String, passive: bool, durable: bool, arguments: Table },
    /// `exchange.delete`.
    ExchangeDelete { exchange: String },
    /// `exchange.bind`.
    ExchangeBind { destination: String, source: String, routing_key: String, arguments: Table },
    /// `exchange.unbind`.
    ExchangeUnbind { destination: String, source: String, routing_key: String, arguments: Table },
    /// `queue.declare`.
    QueueDeclare {
        queue: String,
        passive: bool,
        durable: bool,
        exclusive: bool,
        auto_delete: bool,
        arguments: Table,
    },
    /// `queue.declare-ok`.
    QueueDeclareOk { queue: String, message_count: u32, consumer_count: u32 },
    /// `queue.bind`.
    QueueBind { queue: String, exchange: String, routing_key: String, arguments: Table },
    /// `queue.unbind`.
    QueueUnbind { queue: String, exchange: String, routing_key: String, arguments: Table },
    /// `queue.purge`.
    QueuePurge { queue: String },
    /// `queue.delete`.
    QueueDelete { queue: String },
    /// `basic.qos`.
    Qos { prefetch_count: u16, global: bool },
    /// `basic.consume`.
    Consume { queue: String, consumer_tag: String, no_ack: bool, exclusive: bool, arguments: Table },
    /// `basic.consume-ok`.
    ConsumeOk { consumer_tag: String },
    /// `basic.cancel`. Said by the broker: the queue is gone (RabbitMQ's consumer cancel notification).
    Cancel { consumer_tag: String },
    /// `basic.cancel-ok`.
    CancelOk { consumer_tag: String },
    /// `basic.get`.
    Get { queue: String, no_ack: bool },
    /// `basic.get-empty`.
    GetEmpty,
    /// `basic.ack` by the client: deliveries are settled.
    Ack { delivery_tag: u64, multiple: bool },
    /// `basic.nack` by the client.
    Nack { delivery_tag: u64, multiple: bool, requeue: bool },
    /// `basic.reject`.
    Reject { delivery_tag: u64, requeue: bool },
    /// `basic.ack` by the broker: publishes are taken (RabbitMQ's publisher confirms).
    Confirmed { sequence: u64, multiple: bool },
    /// `basic.nack` by the broker: publishes are lost.
    Refused { sequence: u64, multiple: bool },
    /// `basic.recover` or `basic.recover-async`.
    Recover { requeue: bool },
    /// `confirm.select`.
    ConfirmSelect,
    /// Any other, without its arguments.
    Other { class_id: u16, method_id: u16 },
}

impl Method {
    /// Takes over a decoded method, said by `side`. `None` for those that carry a message.
    pub fn from_amqp(side: Side, class: &AMQPClass) -> Option<Self> {
        use basic::AMQPMethod as Basic;
        use connection::AMQPMethod as Connection;
        use exchange::AMQPMethod as Exchange;
        use queue::AMQPMethod as Queue;
        let other =
            || Self::Other { class_id: class.get_amqp_class_id(), method_id: class.get_amqp_method_id() };
        Some(match class {
            AMQPClass::Basic(Basic::Publish(_) | Basic::Deliver(_) | Basic::GetOk(_) | Basic::Return(_)) => {
                return None;
            }
            AMQPClass::Connection(method) => match method {
                Connection::Start(start) => Self::Start {
                    properties: (&start.server_properties).into(),
                    mechanisms: start.mechanisms.to_string(),
                },
                Connection::StartOk(ok) => Self::StartOk {
                    properties: (&ok.client_properties).into(),
                    mechanism: ok.mechanism.to_string(),
                    user: user(ok),
                    locale: ok.locale.to_string(),
                },
                Connection::Tune(t) => Self::Tune(tuning(t.channel_max, t.frame_max, t.heartbeat)),
                Connection::TuneOk(t) => Self::TuneOk(tuning(t.channel_max, t.frame_max, t.heartbeat)),
                Connection::Open(open) => Self::Open { vhost: open.virtual_host.to_string() },
                Connection::OpenOk(_) => Self::OpenOk,
                Connection::Close(c) => Self::Close {
                    code: c.reply_code,
                    text: c.reply_text.to_string(),
                    cause: method_name(c.class_id, c.method_id).map(str::to_owned),
                },
                Connection::Blocked(blocked) => Self::Blocked { reason: blocked.reason.to_string() },
                Connection::Unblocked(_) => Self::Unblocked,
                Connection::UpdateSecret(update) => Self::UpdateSecret { reason: update.reason.to_string() },
                _ => other(),
            },
            AMQPClass::Channel(method) => match method {
                channel::AMQPMethod::Open(_) => Self::ChannelOpen,
                channel::AMQPMethod::Flow(flow) => Self::Flow { active: flow.active },
                channel::AMQPMethod::Close(c) => Self::ChannelClose {
                    code: c.reply_code,
                    text: c.reply_text.to_string(),
                    cause: method_name(c.class_id, c.method_id).map(str::to_owned),
                },
                _ => other(),
            },
            AMQPClass::Exchange(method) => match method {
                Exchange::Declare(d) => Self::ExchangeDeclare {
                    exchange: d.exchange.to_string(),
                    kind: d.kind.to_string(),
                    passive: d.passive,
                    durable: d.durable,
                    arguments: (&d.arguments).into(),
                },
                Exchange::Delete(d) => Self::ExchangeDelete { exchange: d.exchange.to_string() },
                Exchange::Bind(b) => Self::ExchangeBind {
                    destination: b.destination.to_string(),
                    source: b.source.to_string(),
                    routing_key: b.routing_key.to_string(),
                    arguments: (&b.arguments).into(),
                },
                Exchange::Unbind(b) => Self::ExchangeUnbind {
                    destination: b.destination.to_string(),
                    source: b.source.to_string(),
                    routing_key: b.routing_key.to_string(),
                    arguments: (&b.arguments).into(),
                },
                _ => other(),
            },
            AMQPClass::Queue(method) => match method {
                Queue::Declare(d) => Self::QueueDeclare {
                    queue: d.queue.to_string(),
                    passive: d.passive,
                    durable: d.durable,
                    exclusive: d.exclusive,
                    auto_delete: d.auto_delete,
                    arguments: (&d.arguments).into(),
                },
                Queue::DeclareOk(ok) => Self::QueueDeclareOk {
                    queue: ok.queue.to_string(),
                    message_count: ok.message_count,
                    consumer_count: ok.consumer_count,
                },
                Queue::Bind(b) => Self::QueueBind {
                    queue: b.queue.to_string(),
                    exchange: b.exchange.to_string(),
                    routing_key: b.routing_key.to_string(),
                    arguments: (&b.arguments).into(),
                },
                Queue::Unbind(b) => Self::QueueUnbind {
                    queue: b.queue.to_string(),
                    exchange: b.exchange.to_string(),
                    routing_key: b.routing_key.to_string(),
                    arguments: (&b.arguments).into(),
                },
                Queue::Purge(p) => Self::QueuePurge { queue: p.queue.to_string() },
                Queue::Delete(d) => Self::QueueDelete { queue: d.queue.to_string() },
                _ => other(),
            },
            AMQPClass::Basic(method) => match method {
                Basic::Qos(qos) => Self::Qos { prefetch_count: qos.prefetch_count, global: qos.global },
                Basic::Consume(c) => Self::Consume {
                    queue: c.queue.to_string(),
                    consumer_tag: c.consumer_tag.to_string(),
                    no_ack: c.no_ack,
                    exclusive: c.exclusive,
                    arguments: (&c.arguments).into(),
                },
                Basic::ConsumeOk(ok) => Self::ConsumeOk { consumer_tag: ok.consumer_tag.to_string() },
                Basic::Cancel(c) => Self::Cancel { consumer_tag: c.consumer_tag.to_string() },
                Basic::CancelOk(ok) => Self::CancelOk { consumer_tag: ok.consumer_tag.to_string() },
                Basic::Get(get) => Self::Get { queue: get.queue.to_string(), no_ack: get.no_ack },
                Basic::GetEmpty(_) => Self::GetEmpty,
                Basic::Ack(a) if side == Side::Server => {
                    Self::Confirmed { sequence: a.delivery_tag, multiple: a.multiple }
                }
                Basic::Ack(a) => Self::Ack { delivery_tag: a.delivery_tag, multiple: a.multiple },
                Basic::Nack(n) if side == Side::Server => {
                    Self::Refused { sequence: n.delivery_tag, multiple: n.multiple }
                }
                Basic::Nack(n) => {
                    Self::Nack { delivery_tag: n.delivery_tag, multiple: n.multiple, requeue: n.requeue }
                }
                Basic::Reject(r) => Self::Reject { delivery_tag: r.delivery_tag, requeue: r.requeue },
                Basic::Recover(basic::Recover { requeue })
                | Basic::RecoverAsync(basic::RecoverAsync { requeue }) => Self::Recover { requeue: *requeue },
                _ => other(),
            },
            AMQPClass::Confirm(confirm::AMQPMethod::Select(_)) => Self::ConfirmSelect,
            _ => other(),
        })
    }
}

fn tuning(channel_max: u16, frame_max_bytes: u32, heartbeat_s: u16) -> Tuning {
    Tuning { channel_max, frame_max_bytes, heartbeat_s }
}

/// The user name of a PLAIN response whose password alone was blanked (RFC 4616).
fn user(ok: &connection::StartOk) -> Option<String> {
    match ok.response.as_bytes().split(|byte| *byte == 0).collect::<Vec<_>>().as_slice() {
        [[], user, _, ..] if ok.mechanism.as_str() == "PLAIN" => String::from_utf8(user.to_vec()).ok(),
        _ => None,
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flag = |name: &'static str, set: bool| if set { name } else { "" };
        match self {
            Self::Start { properties, mechanisms } => {
                write!(f, "connection.start {} {properties}", Quoted(mechanisms))
            }
            Self::StartOk { mechanism, user, .. } => {
                write!(f, "connection.start-ok {}", Escaped(mechanism))?;
                user.as_ref().map_or(Ok(()), |user| write!(f, " user {}", Quoted(user)))
            }
            Self::Tune(tuning) => write!(f, "connection.tune {tuning}"),
            Self::TuneOk(tuning) => write!(f, "connection.tune-ok {tuning}"),
            Self::Open { vhost } => write!(f, "connection.open vhost {}", Quoted(vhost)),
            Self::OpenOk => f.write_str("connection.open-ok"),
            Self::Close { code, text, cause } => closing(f, "connection", *code, text, cause.as_deref()),
            Self::ChannelClose { code, text, cause } => closing(f, "channel", *code, text, cause.as_deref()),
            Self::Blocked { reason } => write!(f, "connection.blocked {}", Quoted(reason)),
            Self::Unblocked => f.write_str("connection.unblocked"),
            Self::UpdateSecret { reason } => write!(f, "connection.update-secret {}", Quoted(reason)),
            Self::ChannelOpen => f.write_str("channel.open"),
            Self::Flow { active } => write!(f, "channel.flow {active}"),
            Self::ExchangeDeclare { exchange, kind, passive, durable, arguments } => {
                let (passive, durable) = (flag(" passive", *passive), flag(" durable", *durable));
                let (exchange, kind) = (Quoted(exchange), Escaped(kind));
                write!(f, "exchange.declare {exchange} {kind}{passive}{durable}{}", Arguments(arguments))
            }
            Self::ExchangeDelete { exchange } => write!(f, "exchange.delete {}", Quoted(exchange)),
            Self::ExchangeBind { destination: to, source, routing_key, arguments } => {
                binding(f, "exchange.bind", to, source, routing_key, arguments)
            }
            Self::ExchangeUnbind { destination: to, source, routing_key, arguments } => {
                binding(f, "exchange.unbind", to, source, routing_key, arguments)
            }
            Self::QueueDeclare { queue, passive, durable, exclusive, auto_delete, arguments } => {
                let (passive, durable) = (flag(" passive", *passive), flag(" durable", *durable));
                let (exclusive, auto) = (flag(" exclusive", *exclusive), flag(" auto-delete", *auto_delete));
                let (queue, arguments) = (Quoted(queue), Arguments(arguments));
                write!(f, "queue.declare {queue}{passive}{durable}{exclusive}{auto}{arguments}")
            }
            Self::QueueDeclareOk { queue, message_count, consumer_count } => {
                let queue = Quoted(queue);
                write!(f, "queue.declare-ok {queue} messages {message_count} consumers {consumer_count}")
            }
            Self::QueueBind { queue, exchange, routing_key, arguments } => {
                binding(f, "queue.bind", queue, exchange, routing_key, arguments)
            }
            Self::QueueUnbind { queue, exchange, routing_key, arguments } => {
                binding(f, "queue.unbind", queue, exchange, routing_key, arguments)
            }
            Self::QueuePurge { queue } => write!(f, "queue.purge {}", Quoted(queue)),
            Self::QueueDelete { queue } => write!(f, "queue.delete {}", Quoted(queue)),
            Self::Qos { prefetch_count, global } => {
                write!(f, "basic.qos prefetch {prefetch_count}{}", flag(" global", *global))
            }
            Self::Consume { queue, consumer_tag, no_ack, exclusive, arguments } => {
                let (queue, tag) = (Quoted(queue), Quoted(consumer_tag));
                let (no_ack, exclusive) = (flag(" no-ack", *no_ack), flag(" exclusive", *exclusive));
                write!(f, "basic.consume {queue} tag {tag}{no_ack}{exclusive}{}", Arguments(arguments))
            }
            Self::ConsumeOk { consumer_tag } => write!(f, "basic.consume-ok tag {}", Quoted(consumer_tag)),
            Self::Cancel { consumer_tag } => write!(f, "basic.cancel tag {}", Quoted(consumer_tag)),
            Self::CancelOk { consumer_tag } => write!(f, "basic.cancel-ok tag {}", Quoted(consumer_tag)),
            Self::Get { queue, no_ack } => {
                write!(f, "basic.get {}{}", Quoted(queue), flag(" no-ack", *no_ack))
            }
            Self::GetEmpty => f.write_str("basic.get-empty"),
            Self::Ack { delivery_tag: tag, multiple } | Self::Confirmed { sequence: tag, multiple } => {
                write!(f, "basic.ack {tag}{}", flag(" multiple", *multiple))
            }
            Self::Nack { delivery_tag, multiple, requeue } => {
                let (multiple, requeue) = (flag(" multiple", *multiple), flag(" requeue", *requeue));
                write!(f, "basic.nack {delivery_tag}{multiple}{requeue}")
            }
            Self::Refused { sequence, multiple } => {
                write!(f, "basic.nack {sequence}{}", flag(" multiple", *multiple))
            }
            Self::Reject { delivery_tag, requeue } => {
                write!(f, "basic.reject {delivery_tag}{}", flag(" requeue", *requeue))
            }
            Self::Recover { requeue } => write!(f, "basic.recover{}", flag(" requeue", *requeue)),
            Self::ConfirmSelect => f.write_str("confirm.select"),
            Self::Other { class_id, method_id } => match method_name(*class_id, *method_id) {
                Some(name) => f.write_str(name),
                None => write!(f, "unknown method {class_id}.{method_id}"),
            },
        }
    }
}

fn closing(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    code: u16,
    text: &str,
    cause: Option<&str>,
) -> fmt::Result {
    write!(f, "{what}.close {code} {}", Quoted(text))?;
    cause.map_or(Ok(()), |cause| write!(f, " in answer to {cause}"))
}

/// A method's arguments, when there are any.
struct Arguments<'a>(&'a Table);

impl fmt::Display for Arguments<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " {}", self.0) }
    }
}

fn binding(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    to: &str,
    from: &str,
    key: &str,
    arguments: &Table,
) -> fmt::Result {
    let arguments = Arguments(arguments);
    write!(f, "{name} {} to {} key {}{arguments}", Quoted(to), Quoted(from), Quoted(key))
}

impl fmt::Display for Tuning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { channel_max, frame_max_bytes, heartbeat_s } = self;
        write!(f, "channel_max {channel_max} frame_max {frame_max_bytes} B heartbeat {heartbeat_s} s")
    }
}
