use amq_protocol::{
    frame::{AMQPContentHeader, AMQPFrame, gen_frame},
    protocol::{basic, channel, confirm, connection, queue},
    types::{AMQPValue, FieldTable},
};
use proptest::prelude::*;

use super::*;
use crate::{amqp::mask::SaslMasker, event::SocketId};

fn encode(frame: &AMQPFrame) -> Vec<u8> {
    cookie_factory::gen_simple(gen_frame(frame), Vec::new()).unwrap()
}

fn on_connection(method: connection::AMQPMethod) -> Vec<u8> {
    encode(&AMQPFrame::Method(0, AMQPClass::Connection(method)))
}

fn on_basic(method: basic::AMQPMethod) -> Vec<u8> {
    encode(&AMQPFrame::Method(1, AMQPClass::Basic(method)))
}

fn content(body: &[u8], pieces: usize) -> Vec<u8> {
    let mut headers = FieldTable::default();
    headers.insert("x-death".into(), AMQPValue::LongLongInt(3));
    let properties = basic::AMQPProperties::default()
        .with_message_id("m-1".into())
        .with_delivery_mode(2)
        .with_headers(headers);
    let header = AMQPContentHeader { class_id: 60, body_size: body.len() as u64, properties };
    let mut bytes = encode(&AMQPFrame::Header(1, header));
    for piece in body.chunks(body.len().div_ceil(pieces).max(1)) {
        bytes.extend(encode(&AMQPFrame::Body(1, piece.to_vec())));
    }
    bytes
}

fn deliver(tag: u64) -> Vec<u8> {
    on_basic(basic::AMQPMethod::Deliver(basic::Deliver {
        consumer_tag: "ctag1.0".into(),
        delivery_tag: tag,
        redelivered: true,
        exchange: "".into(),
        routing_key: "default".into(),
    }))
}

fn publish(body: &[u8]) -> Vec<u8> {
    let publish =
        basic::Publish { exchange: "".into(), routing_key: "default.DQ".into(), ..basic::Publish::default() };
    [on_basic(basic::AMQPMethod::Publish(publish)), content(body, 1)].concat()
}

fn ack(tag: u64) -> Vec<u8> {
    on_basic(basic::AMQPMethod::Ack(basic::Ack { delivery_tag: tag, multiple: false }))
}

/// A worker's connection: what it says, and what the broker says.
fn client() -> Vec<u8> {
    let mut properties = FieldTable::default();
    properties.insert("product".into(), AMQPValue::LongString("Pika Python Client Library".into()));
    let mut arguments = FieldTable::default();
    arguments.insert("x-dead-letter-exchange".into(), AMQPValue::LongString("".into()));
    arguments.insert("x-max-priority".into(), AMQPValue::LongInt(10));
    let declare = queue::Declare { queue: "default".into(), durable: true, arguments, ..Default::default() };
    let consume =
        basic::Consume { queue: "default".into(), consumer_tag: "ctag1.0".into(), ..Default::default() };
    [
        b"AMQP\0\0\x09\x01".to_vec(),
        on_connection(connection::AMQPMethod::StartOk(connection::StartOk {
            client_properties: properties,
            mechanism: "PLAIN".into(),
            response: "\0alice\0s3cret".into(),
            locale: "en_US".into(),
        })),
        on_connection(connection::AMQPMethod::TuneOk(connection::TuneOk {
            channel_max: 2047,
            frame_max: 131_072,
            heartbeat: 5,
        })),
        on_connection(connection::AMQPMethod::Open(connection::Open { virtual_host: "/jobs".into() })),
        encode(&AMQPFrame::Method(1, AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {})))),
        encode(&AMQPFrame::Method(1, AMQPClass::Queue(queue::AMQPMethod::Declare(declare)))),
        encode(&AMQPFrame::Method(
            1,
            AMQPClass::Confirm(confirm::AMQPMethod::Select(confirm::Select { nowait: false })),
        )),
        on_basic(basic::AMQPMethod::Consume(consume)),
        ack(1),
        publish(b"first"),
        publish(b"second"),
        encode(&AMQPFrame::Heartbeat),
    ]
    .concat()
}

fn server() -> Vec<u8> {
    let mut properties = FieldTable::default();
    properties.insert("product".into(), AMQPValue::LongString("RabbitMQ".into()));
    properties.insert("version".into(), AMQPValue::LongString("3.10.8".into()));
    [
        on_connection(connection::AMQPMethod::Start(connection::Start {
            version_major: 0,
            version_minor: 9,
            server_properties: properties,
            mechanisms: "AMQPLAIN PLAIN".into(),
            locales: "en_US".into(),
        })),
        on_connection(connection::AMQPMethod::OpenOk(connection::OpenOk {})),
        deliver(1),
        content(b"{\"actor_name\":\"add\",\"args\":[1]}", 3),
        ack(2),
        on_connection(connection::AMQPMethod::Close(connection::Close {
            reply_code: 320,
            reply_text: "CONNECTION_FORCED - shut\x1b[31mdown".into(),
            class_id: 0,
            method_id: 0,
        })),
    ]
    .concat()
}

fn converse(client: &[u8], server: &[u8]) -> (Conversation, Vec<Item>) {
    let (mut conversation, mut items) = (Conversation::new(65_536), Vec::new());
    conversation.feed(Side::Client, 0, client, client.len() as u64, &mut items);
    conversation.feed(Side::Server, 0, server, server.len() as u64, &mut items);
    conversation.finish(&mut items);
    (conversation, items)
}

fn said(items: &[Item]) -> Vec<String> {
    items.iter().map(|item| format!("{:?} {} {}", item.side, item.channel, item.what)).collect()
}

#[test]
fn a_session_reads_as_people_would_tell_it() {
    let (conversation, items) = converse(&client(), &server());
    insta::assert_snapshot!(said(&items).join("\n"), @r#"
    Client 0 protocol header AMQP 0-9-1
    Client 0 connection.start-ok PLAIN user "alice"
    Client 0 connection.tune-ok channel_max 2047 frame_max 131072 B heartbeat 5 s
    Client 0 connection.open vhost "/jobs"
    Client 1 channel.open
    Client 1 queue.declare "default" durable {x-dead-letter-exchange: "", x-max-priority: 10}
    Client 1 confirm.select
    Client 1 basic.consume "default" tag "ctag1.0"
    Client 1 basic.ack 1
    Client 1 basic.publish to "" key "default.DQ" sequence 1 body 5 B
    Client 1 basic.publish to "" key "default.DQ" sequence 2 body 6 B
    Client 0 heartbeat
    Server 0 connection.start "AMQPLAIN PLAIN" {product: "RabbitMQ", version: "3.10.8"}
    Server 0 connection.open-ok
    Server 1 basic.deliver 1 redelivered key "default" tag "ctag1.0" body 31 B
    Server 1 basic.ack 2
    Server 0 connection.close 320 "CONNECTION_FORCED - shut\u{1b}[31mdown"
    "#);
    let facts = conversation.facts();
    assert_eq!((facts.product(), facts.version()), (Some("RabbitMQ"), Some("3.10.8")));
    assert_eq!((facts.mechanism.as_deref(), facts.user.as_deref()), (Some("PLAIN"), Some("alice")));
    assert_eq!(facts.vhost.as_deref(), Some("/jobs"));
    let tuning = Tuning { channel_max: 2047, frame_max_bytes: 131_072, heartbeat_s: 5 };
    assert_eq!(facts.negotiated, Some(tuning));
    assert!(facts.is_open);
    assert_eq!(facts.closed.as_ref().map(|closed| (closed.side, closed.code)), Some((Side::Server, 320)));
    assert_eq!(facts.channels, BTreeSet::from([1]));
    assert_eq!(conversation.spoke(Side::Server), Spoke::Amqp);
}

#[test]
fn a_masked_recording_still_tells_everything_but_the_secret() {
    let plain = said(&converse(&client(), &server()).1);
    for (mut masker, user) in [(SaslMasker::new(), None), (SaslMasker::keeping_user_name(), Some("alice"))] {
        let mut masked = client();
        masker.mask(SocketId(1), Direction::Sent, 0, masked.len() as u64, &mut masked);
        let (conversation, items) = converse(&masked, &server());
        assert_eq!(conversation.facts().user.as_deref(), user);
        assert_eq!(said(&items)[2..], plain[2..]);
        assert!(!format!("{items:?}").contains("s3cret"));
    }
    assert!(!format!("{:?}", converse(&client(), &server()).1).contains("s3cret"));
}

#[test]
fn a_message_has_its_properties_and_says_when_it_is_not_whole() {
    let mut stream = deliver(7);
    stream.extend(content(b"0123456789", 2));
    let cut = stream.len() - 5;
    let (mut conversation, mut items) = (Conversation::new(65_536), Vec::new());
    conversation.feed(Side::Server, 0, &stream[..cut], stream.len() as u64, &mut items);
    let [Item { what: What::Message(message), start: 0, end, .. }] = items.as_slice() else {
        panic!("{items:?}")
    };
    assert_eq!(*end, stream.len() as u64);
    assert_eq!((message.body.as_slice(), message.passed_bytes), (&b"012345"[..], 10));
    assert_eq!(message.body_size_bytes, Some(10));
    assert!(!message.is_whole());
    let properties = message.properties.as_ref().unwrap();
    assert_eq!(properties.message_id.as_deref(), Some("m-1"));
    assert_eq!(properties.headers.to_string(), "{x-death: 3}");

    let (mut conversation, mut items) = (Conversation::new(4), Vec::new());
    conversation.feed(Side::Server, 0, &stream, stream.len() as u64, &mut items);
    assert!(
        matches!(&items[0].what, What::Message(message) if message.body == b"0123" && !message.is_whole())
    );
}

#[test]
fn a_lost_method_leaves_its_message_without_one() {
    let lost = deliver(7).len() as u64;
    let rest = [content(b"body", 1), ack(9)].concat();
    let (mut conversation, mut items) = (Conversation::new(65_536), Vec::new());
    conversation.feed(Side::Server, lost, &rest, rest.len() as u64, &mut items);
    conversation.finish(&mut items);
    let [unseen, message, confirmed] = items.as_slice() else { panic!("{items:?}") };
    assert_eq!((unseen.start, unseen.end, &unseen.what), (0, lost, &What::Unseen));
    assert!(matches!(&message.what, What::Message(m) if m.carriage == Carriage::Unseen && m.is_whole()));
    assert!(matches!(confirmed.what, What::Method(Method::Confirmed { sequence: 9, .. })));
}

#[test]
fn after_a_gap_no_publish_claims_a_sequence_number() {
    let whole = client();
    let gap = whole.len() as u64 + 500;
    let (mut conversation, mut items) = (Conversation::new(65_536), Vec::new());
    conversation.feed(Side::Client, 0, &whole, whole.len() as u64, &mut items);
    let more = publish(b"third");
    conversation.feed(Side::Client, gap, &more, more.len() as u64, &mut items);
    let sequences: Vec<_> = items
        .iter()
        .filter_map(|item| match &item.what {
            What::Message(message) => match &message.carriage {
                Carriage::Publish { sequence, .. } => Some(*sequence),
                _ => None,
            },
            _ => None,
        })
        .collect();
    assert_eq!(sequences, [Some(1), Some(2), None]);
}

#[test]
fn who_answers_on_a_wrong_port_is_told_apart() {
    let spoke = |server: &[u8]| converse(b"AMQP\0\0\x09\x01", server).0.spoke(Side::Server);
    assert_eq!(spoke(b""), Spoke::Silence);
    assert_eq!(spoke(b"HTTP/1.1 400 Bad Request\r\n"), Spoke::Foreign(Foreign::HttpResponse));
    assert_eq!(spoke(b"\x15\x03\x01\0\x02\x02\x46"), Spoke::Foreign(Foreign::TlsAlert { description: 70 }));
    assert_eq!(spoke(b"AMQP\0\0\x09\x01"), Spoke::ProtocolHeader([0, 0, 9, 1]));
    assert_eq!(spoke(b"-ERR unknown command\r\n"), Spoke::Unrecognised);
    assert_eq!(spoke(&server()), Spoke::Amqp);
    assert_eq!(Side::speaking(Direction::Sent, false), Side::Client);
    assert_eq!(Side::speaking(Direction::Sent, true), Side::Server);
}

proptest! {
    #[test]
    fn any_split_says_the_same(cuts in proptest::collection::vec(any::<usize>(), 0..50)) {
        for (side, bytes) in [(Side::Client, client()), (Side::Server, server())] {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % bytes.len()).chain([0, bytes.len()]).collect();
            cuts.sort_unstable();
            let (mut conversation, mut items) = (Conversation::new(65_536), Vec::new());
            let (mut whole, mut wanted) = (Conversation::new(65_536), Vec::new());
            for cut in cuts.windows(2) {
                let piece = &bytes[cut[0]..cut[1]];
                conversation.feed(side, cut[0] as u64, piece, piece.len() as u64, &mut items);
            }
            conversation.finish(&mut items);
            whole.feed(side, 0, &bytes, bytes.len() as u64, &mut wanted);
            whole.finish(&mut wanted);
            prop_assert_eq!(items, wanted);
        }
    }

    #[test]
    fn any_damage_is_survived(
        at in any::<usize>(),
        damage in proptest::collection::vec(any::<u8>(), 1..40),
        gap in 0_u64..300,
    ) {
        for (side, bytes) in [(Side::Client, client()), (Side::Server, server())] {
            let at = at % bytes.len();
            let (mut conversation, mut items) = (Conversation::new(100), Vec::new());
            conversation.feed(side, 0, &bytes[..at], at as u64 + gap, &mut items);
            conversation.feed(side, at as u64 + gap, &damage, damage.len() as u64, &mut items);
            let from = at as u64 + gap + damage.len() as u64;
            conversation.feed(side, from, &bytes[at..], (bytes.len() - at) as u64, &mut items);
            conversation.finish(&mut items);
            prop_assert_eq!(conversation.fold.held_bytes, 0);
            prop_assert!(items.iter().all(|item| item.start <= item.end));
        }
    }
}
