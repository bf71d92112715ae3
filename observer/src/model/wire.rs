//! AMQP conversations made by hand, for tests: frames as a client and a broker write them, in events of a session.

use amq_protocol::{
    frame::{AMQPContentHeader, AMQPFrame, gen_frame},
    protocol::{AMQPClass, basic, channel, confirm, connection, queue},
    types::{AMQPValue, FieldTable},
};

use super::fixture::{at, data, inet};
use crate::event::{Body, Direction, Event, Fd, Pid, SocketId, Tid};

pub(crate) fn encode(frame: &AMQPFrame) -> Vec<u8> {
    cookie_factory::gen_simple(gen_frame(frame), Vec::new()).unwrap()
}

pub(crate) fn on_basic(method: basic::AMQPMethod) -> Vec<u8> {
    encode(&AMQPFrame::Method(1, AMQPClass::Basic(method)))
}

fn on_connection(method: connection::AMQPMethod) -> Vec<u8> {
    encode(&AMQPFrame::Method(0, AMQPClass::Connection(method)))
}

fn on_queue(method: queue::AMQPMethod) -> Vec<u8> {
    encode(&AMQPFrame::Method(1, AMQPClass::Queue(method)))
}

pub(crate) fn body(queue: &str, id: &str, options: &str) -> String {
    format!(
        r#"{{"queue_name":"{queue}","actor_name":"add","args":["s3cret"],"kwargs":{{}},"options":{{{options}}},"message_id":"{id}","message_timestamp":1}}"#
    )
}

fn content(body: &str) -> Vec<u8> {
    let header = AMQPContentHeader {
        class_id: 60,
        body_size: body.len() as u64,
        properties: basic::AMQPProperties::default(),
    };
    [encode(&AMQPFrame::Header(1, header)), encode(&AMQPFrame::Body(1, body.as_bytes().to_vec()))].concat()
}

pub(crate) fn publish(queue: &str, body: &str) -> Vec<u8> {
    let publish = basic::Publish { routing_key: queue.into(), mandatory: true, ..basic::Publish::default() };
    [on_basic(basic::AMQPMethod::Publish(publish)), content(body)].concat()
}

pub(crate) fn deliver(tag: u64, queue: &str, redelivered: bool, body: &str) -> Vec<u8> {
    let deliver = basic::Deliver {
        consumer_tag: format!("tag-{queue}").as_str().into(),
        delivery_tag: tag,
        redelivered,
        exchange: "".into(),
        routing_key: queue.into(),
    };
    [on_basic(basic::AMQPMethod::Deliver(deliver)), content(body)].concat()
}

pub(crate) fn returned(queue: &str, body: &str) -> Vec<u8> {
    let returned = basic::Return {
        reply_code: 312,
        reply_text: "NO_ROUTE".into(),
        exchange: "".into(),
        routing_key: queue.into(),
    };
    [on_basic(basic::AMQPMethod::Return(returned)), content(body)].concat()
}

pub(crate) fn ack(delivery_tag: u64, multiple: bool) -> Vec<u8> {
    on_basic(basic::AMQPMethod::Ack(basic::Ack { delivery_tag, multiple }))
}

pub(crate) fn nack(delivery_tag: u64, requeue: bool) -> Vec<u8> {
    on_basic(basic::AMQPMethod::Nack(basic::Nack { delivery_tag, multiple: false, requeue }))
}

pub(crate) fn confirm_select() -> Vec<u8> {
    let select = confirm::AMQPMethod::Select(confirm::Select { nowait: false });
    encode(&AMQPFrame::Method(1, AMQPClass::Confirm(select)))
}

pub(crate) fn declare(name: &str) -> Vec<u8> {
    let mut arguments = FieldTable::default();
    arguments.insert(
        "x-dead-letter-routing-key".into(),
        AMQPValue::LongString(format!("{name}.XQ").as_str().into()),
    );
    on_queue(queue::AMQPMethod::Declare(queue::Declare {
        queue: name.into(),
        durable: true,
        arguments,
        ..Default::default()
    }))
}

pub(crate) fn declare_ok(name: &str, message_count: u32) -> Vec<u8> {
    let ok = queue::DeclareOk { queue: name.into(), message_count, consumer_count: 0 };
    on_queue(queue::AMQPMethod::DeclareOk(ok))
}

pub(crate) fn channel_close(code: u16, text: &str, class_id: u16, method_id: u16) -> Vec<u8> {
    let close = channel::Close { reply_code: code, reply_text: text.into(), class_id, method_id };
    encode(&AMQPFrame::Method(1, AMQPClass::Channel(channel::AMQPMethod::Close(close))))
}

/// One connection of one process, and what went over it so far.
pub(crate) struct Wire {
    socket: u64,
    pid: u32,
    tid: u32,
    offsets: [u64; 2],
}

impl Wire {
    /// A connection, made at that moment.
    pub(crate) fn connect(events: &mut Vec<Event>, since_us: u64, socket: u64, pid: u32, tid: u32) -> Self {
        let body = Body::Connect {
            socket: SocketId(socket),
            fd: Fd(9),
            peer: inet(5672),
            local: inet(40_000 + socket as u16),
            errno: 0,
            duration_ns: 85_000,
        };
        events.push(at(since_us, pid, tid, body));
        Self { socket, pid, tid, offsets: [0, 0] }
    }

    /// The process wrote this.
    pub(crate) fn sent(&mut self, events: &mut Vec<Event>, since_us: u64, bytes: &[u8]) {
        self.went(events, since_us, Direction::Sent, bytes);
    }

    /// The process read this.
    pub(crate) fn received(&mut self, events: &mut Vec<Event>, since_us: u64, bytes: &[u8]) {
        self.went(events, since_us, Direction::Received, bytes);
    }

    /// So many bytes went by that were not captured.
    pub(crate) fn missed(&mut self, direction: Direction, len_bytes: u64) {
        self.offsets[usize::from(direction == Direction::Received)] += len_bytes;
    }

    fn went(&mut self, events: &mut Vec<Event>, since_us: u64, direction: Direction, bytes: &[u8]) {
        let offset = &mut self.offsets[usize::from(direction == Direction::Received)];
        let event = data(since_us, self.socket, direction, *offset, bytes);
        *offset += bytes.len() as u64;
        events.push(Event { pid: Pid(self.pid), tid: Tid(self.tid), ..event });
    }

    /// The handshake, an open virtual host and an open channel.
    pub(crate) fn open(&mut self, events: &mut Vec<Event>, since_us: u64) {
        let mut properties = FieldTable::default();
        properties.insert("product".into(), AMQPValue::LongString("RabbitMQ".into()));
        properties.insert("version".into(), AMQPValue::LongString("3.10.8".into()));
        self.sent(events, since_us, b"AMQP\0\0\x09\x01");
        self.received(
            events,
            since_us + 100,
            &on_connection(connection::AMQPMethod::Start(connection::Start {
                version_major: 0,
                version_minor: 9,
                server_properties: properties,
                mechanisms: "PLAIN".into(),
                locales: "en_US".into(),
            })),
        );
        let mut properties = FieldTable::default();
        properties.insert("product".into(), AMQPValue::LongString("Pika \u{1b}[31m".into()));
        let ok = connection::StartOk {
            client_properties: properties,
            mechanism: "PLAIN".into(),
            response: "\0guest\0".into(),
            locale: "en_US".into(),
        };
        self.sent(events, since_us + 200, &on_connection(connection::AMQPMethod::StartOk(ok)));
        let tune = connection::Tune { channel_max: 2047, frame_max: 131_072, heartbeat: 60 };
        self.received(events, since_us + 300, &on_connection(connection::AMQPMethod::Tune(tune)));
        let tune = connection::TuneOk { channel_max: 2047, frame_max: 131_072, heartbeat: 60 };
        let open = connection::Open { virtual_host: "/".into() };
        let both = [
            on_connection(connection::AMQPMethod::TuneOk(tune)),
            on_connection(connection::AMQPMethod::Open(open)),
        ];
        self.sent(events, since_us + 400, &both.concat());
        let ok = on_connection(connection::AMQPMethod::OpenOk(connection::OpenOk {}));
        self.received(events, since_us + 500, &ok);
        let channel = AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {}));
        self.sent(events, since_us + 600, &encode(&AMQPFrame::Method(1, channel)));
    }

    /// Consumes a queue, with this prefetch.
    pub(crate) fn consume(&mut self, events: &mut Vec<Event>, since_us: u64, queue: &str, prefetch: u16) {
        let tag = format!("tag-{queue}");
        let qos = basic::Qos { prefetch_count: prefetch, global: false };
        let consume =
            basic::Consume { queue: queue.into(), consumer_tag: tag.as_str().into(), ..Default::default() };
        let both =
            [on_basic(basic::AMQPMethod::Qos(qos)), on_basic(basic::AMQPMethod::Consume(consume))].concat();
        self.sent(events, since_us, &both);
        let ok = basic::ConsumeOk { consumer_tag: tag.as_str().into() };
        self.received(events, since_us + 100, &on_basic(basic::AMQPMethod::ConsumeOk(ok)));
    }
}
