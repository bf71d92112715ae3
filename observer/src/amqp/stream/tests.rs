use amq_protocol::{
    frame::{AMQPContentHeader, AMQPFrame, gen_frame},
    protocol::{AMQPClass, basic, basic::AMQPProperties, connection, queue},
    types::{AMQPValue, FieldArray, FieldTable},
};
use proptest::prelude::*;

use super::*;

/// A frame as tests compare it: pieces of a body put together.
#[derive(Clone, Debug, PartialEq)]
enum Whole {
    Body { start: u64, channel: u16, bytes: Vec<u8>, missing: u32 },
    Other { start: u64, end: u64, content: String },
    Unseen { start: u64, end: u64 },
}

#[derive(Default)]
struct Seen(Vec<Whole>);

impl Seen {
    fn push(&mut self, frame: Frame<'_>) {
        let Frame { start, end, content } = frame;
        match content {
            Content::Body { channel, bytes, missing, at, .. } => {
                if at > 0
                    && let Some(Whole::Body { bytes: before, missing: gone, .. }) = self.0.last_mut()
                {
                    assert_eq!(before.len() as u32 + *gone, at);
                    before.extend_from_slice(bytes);
                    *gone += missing;
                    return;
                }
                self.0.push(Whole::Body { start, channel, bytes: bytes.to_vec(), missing });
            }
            Content::Unseen => self.0.push(Whole::Unseen { start, end }),
            other => self.0.push(Whole::Other { start, end, content: format!("{other:?}") }),
        }
    }
}

/// Feeds `(offset, captured, len)` chunks.
fn decode_chunks(chunks: &[(u64, &[u8], u64)]) -> Vec<Whole> {
    let (mut decoder, mut seen) = (Decoder::new(), Seen::default());
    for (offset, captured, len) in chunks {
        decoder.feed(*offset, captured, *len, &mut |frame| seen.push(frame));
    }
    decoder.finish(&mut |frame| seen.push(frame));
    seen.0
}

fn decode_whole(bytes: &[u8]) -> Vec<Whole> {
    decode_chunks(&[(0, bytes, bytes.len() as u64)])
}

fn encode(frame: &AMQPFrame) -> Vec<u8> {
    cookie_factory::gen_simple(gen_frame(frame), Vec::new()).unwrap()
}

fn method(channel: u16, class: AMQPClass) -> Vec<u8> {
    encode(&AMQPFrame::Method(channel, class))
}

fn ack(tag: u64) -> Vec<u8> {
    method(1, AMQPClass::Basic(basic::AMQPMethod::Ack(basic::Ack { delivery_tag: tag, multiple: false })))
}

fn deliver(tag: u64, bodies: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let deliver = basic::Deliver {
        consumer_tag: "ctag1.0".into(),
        delivery_tag: tag,
        redelivered: false,
        exchange: "".into(),
        routing_key: "default".into(),
    };
    let size = bodies.iter().map(Vec::len).sum::<usize>() as u64;
    let properties = AMQPProperties::default().with_delivery_mode(2);
    let header = AMQPContentHeader { class_id: 60, body_size: size, properties };
    let mut frames = vec![
        method(1, AMQPClass::Basic(basic::AMQPMethod::Deliver(deliver))),
        encode(&AMQPFrame::Header(1, header)),
    ];
    frames.extend(bodies.iter().map(|body| encode(&AMQPFrame::Body(1, body.clone()))));
    frames
}

fn start() -> Vec<u8> {
    let mut properties = FieldTable::default();
    properties.insert("product".into(), AMQPValue::LongString("RabbitMQ".into()));
    method(
        0,
        AMQPClass::Connection(connection::AMQPMethod::Start(connection::Start {
            version_major: 0,
            version_minor: 9,
            server_properties: properties,
            mechanisms: "PLAIN".into(),
            locales: "en_US".into(),
        })),
    )
}

fn raw(frame_type: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![frame_type];
    frame.extend_from_slice(&channel.to_be_bytes());
    frame.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    frame.extend_from_slice(payload);
    frame.push(FRAME_END);
    frame
}

/// The frames of a server's or client's stream.
fn frames(client: bool) -> impl Strategy<Value = Vec<Vec<u8>>> {
    let text = proptest::collection::vec(0x20_u8..0x7F, 1..300);
    let body = prop_oneof![text.clone(), text.clone(), proptest::collection::vec(any::<u8>(), 1..300)];
    let one = prop_oneof![
        any::<u64>().prop_map(|tag| vec![ack(tag)]),
        Just(vec![raw(8, 0, &[])]),
        Just(vec![raw(1, 1, &[0, 60, 1, 99, 1, 2, 3])]),
        Just(vec![raw(1, 1, &[0, 60, 0, 60])]),
        (any::<u64>(), proptest::collection::vec(body, 1..3)).prop_map(|(tag, bodies)| deliver(tag, &bodies)),
    ];
    proptest::collection::vec(one, 1..12).prop_map(move |rest| {
        let first = if client { b"AMQP\0\0\x09\x01".to_vec() } else { start() };
        std::iter::once(first).chain(rest.into_iter().flatten()).collect()
    })
}

fn cut<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<(u64, &'a [u8], u64)> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % bytes.len().max(1)).collect();
    cuts.extend([0, bytes.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|w| (w[0] as u64, &bytes[w[0]..w[1]], (w[1] - w[0]) as u64)).collect()
}

#[test]
fn both_directions_of_a_session_decode() {
    let mut bytes = b"AMQP\0\0\x09\x01".to_vec();
    bytes.extend(raw(8, 0, &[]));
    bytes.extend(deliver(7, &[b"hello".to_vec(), b"world".to_vec()]).concat());
    bytes.extend(raw(1, 1, &[0, 60, 1, 99, 1, 2, 3]));
    bytes.extend(raw(1, 1, &[0, 60, 0, 60]));
    let seen = decode_whole(&bytes);
    let text = format!("{seen:?}");
    assert_eq!(seen.len(), 8, "{text}");
    assert!(matches!(&seen[4], Whole::Body { start: _, channel: 1, bytes, missing: 0 } if bytes == b"hello"));
    for part in
        ["ProtocolHeader", "Heartbeat", "delivery_tag: 7", "UnknownMethod", "method_id: 355", "Malformed"]
    {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn what_is_not_amqp_is_named() {
    let named = |bytes: &[u8]| match decode_whole(bytes).as_slice() {
        [Whole::Other { content, .. }] => content.clone(),
        other => format!("{other:?}"),
    };
    assert_eq!(named(b"HTTP/1.1 400 Bad Request\r\n"), "NotAmqp(HttpResponse)");
    assert_eq!(named(b"POST /api HTTP/1.1\r\n"), "NotAmqp(HttpRequest)");
    assert_eq!(named(b"\x15\x03\x01\0\x02\x02\x46"), "NotAmqp(TlsAlert { description: 70 })");
    assert_eq!(named(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"), "NotAmqp(TlsClientHello)");
    assert_eq!(named(b"AMQP\x03\x01\0\0more"), "ProtocolHeader { version: [3, 1, 0, 0] }");
    assert_eq!(protocol_name([1, 1, 0, 9]), "AMQP 0-9");
    assert_eq!(named(b"+PONG\r\n"), "[Unseen { start: 0, end: 7 }]");
    assert_eq!(named(b""), "[]");
}

#[test]
fn a_length_that_cannot_be_is_refused_at_once() {
    let mut decoder = Decoder::new();
    decoder.set_frame_max(131_072);
    let mut seen = Seen::default();
    let mut bytes = b"AMQP\0\0\x09\x01".to_vec();
    bytes.extend([3, 0, 1, 0x7F, 0xFF, 0xFF, 0xFF]);
    bytes.extend(ack(9));
    decoder.feed(0, &bytes, bytes.len() as u64, &mut |frame| seen.push(frame));
    assert_eq!(seen.0.len(), 3, "{:?}", seen.0);
    assert_eq!(seen.0[1], Whole::Unseen { start: 8, end: 15 });
}

#[test]
fn a_hole_in_a_body_costs_that_body_only() {
    let mut bytes = b"AMQP\0\0\x09\x01".to_vec();
    bytes.extend(deliver(1, &[vec![b'x'; 1000]]).concat());
    bytes.extend(ack(2));
    let hole = bytes.len() - 100;
    let seen = decode_chunks(&[(0, &bytes[..500], hole as u64), (hole as u64, &bytes[hole..], 100)]);
    assert_eq!(seen.len(), 5, "{seen:?}");
    assert!(matches!(&seen[3], Whole::Body { bytes, missing, .. } if bytes.len() as u32 + missing == 1000));
    assert!(matches!(&seen[4], Whole::Other { content, .. } if content.contains("delivery_tag: 2")));
}

#[test]
fn an_attach_in_mid_connection_begins_with_the_first_whole_frame() {
    let bytes = deliver(1, &[vec![b'x'; 1000], vec![b'y'; 1000]]).concat();
    let from = bytes.len() - 1500;
    let seen = decode_chunks(&[(0, &bytes[from..], 1500)]);
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert!(matches!(&seen[1], Whole::Body { bytes, missing: 0, .. } if *bytes == vec![b'y'; 1000]));
}

#[test]
fn tables_nested_deep_do_not_exhaust_the_stack() {
    let mut value = Vec::new();
    for _ in 0..20_000 {
        let mut outer = vec![b'A'];
        outer.extend_from_slice(&(value.len() as u32).to_be_bytes());
        outer.append(&mut value);
        value = outer;
        if value.len() > 100_000 {
            break;
        }
    }
    let mut payload = vec![0, 50, 0, 10, 0, 0, 1, b'q', 2];
    payload.extend_from_slice(&(value.len() as u32 + 2).to_be_bytes());
    payload.extend_from_slice(b"\x01k");
    payload.extend_from_slice(&value);
    let mut bytes = b"AMQP\0\0\x09\x01".to_vec();
    bytes.extend(raw(1, 1, &payload));
    bytes.extend(ack(1));
    let seen = decode_whole(&bytes);
    assert!(matches!(&seen[1], Whole::Other { content, .. } if content.contains("Malformed")), "{seen:?}");
    assert_eq!(seen.len(), 3);

    let nested = (0..20)
        .fold(AMQPValue::Boolean(true), |value, _| AMQPValue::FieldArray(FieldArray::from(vec![value])));
    let mut arguments = FieldTable::default();
    arguments.insert("k".into(), nested);
    let declare = queue::Declare { queue: "q".into(), arguments, ..queue::Declare::default() };
    let bytes = method(1, AMQPClass::Queue(queue::AMQPMethod::Declare(declare)));
    assert!(format!("{:?}", decode_whole(&bytes)).contains("Declare"));
}

proptest! {
    #[test]
    fn any_split_gives_the_same_frames(
        frames in any::<bool>().prop_flat_map(frames),
        cuts in proptest::collection::vec(any::<usize>(), 0..60),
        skip in 0_usize..40,
    ) {
        let bytes = frames.concat();
        // Also for a connection that was attached to in its middle.
        for bytes in [&bytes[..], &bytes[skip.min(bytes.len())..]] {
            prop_assert_eq!(decode_chunks(&cut(bytes, &cuts)), decode_whole(bytes));
        }
        let every: Vec<usize> = (0..bytes.len()).collect();
        prop_assert_eq!(decode_chunks(&cut(&bytes, &every)), decode_whole(&bytes));
    }

    #[test]
    fn every_frame_of_a_whole_stream_is_seen(frames in any::<bool>().prop_flat_map(frames)) {
        let seen = decode_whole(&frames.concat());
        prop_assert_eq!(seen.len(), frames.len());
        let unseen = seen.iter().any(|whole| matches!(whole, Whole::Unseen { .. }));
        prop_assert!(!unseen);
    }

    #[test]
    fn a_gap_costs_the_frames_it_touches(
        frames in any::<bool>().prop_flat_map(frames),
        // Each piece: its length, how much of it was captured, and whether it was told at all.
        pieces in proptest::collection::vec((1_usize..400, 0_usize..500, any::<bool>()), 1..30),
    ) {
        let bytes = frames.concat();
        let mut captured = vec![false; bytes.len()];
        let mut chunks = Vec::new();
        let mut at = 0;
        for (len, kept, told) in pieces {
            let end = (at + len).min(bytes.len());
            let kept = if told { (at + kept).min(end) } else { at };
            captured[at..kept].fill(true);
            if told {
                chunks.push((at as u64, &bytes[at..kept], (end - at) as u64));
            }
            at = end;
        }
        captured[at..].fill(true);
        chunks.push((at as u64, &bytes[at..], (bytes.len() - at) as u64));
        let seen = decode_chunks(&chunks);
        let all = decode_whole(&bytes);

        let mut start = 0;
        for (frame, whole) in frames.iter().zip(&all) {
            let end = start + frame.len();
            let untouched = captured[start..end].iter().all(|byte| *byte);
            // After a gap a body is believed once a frame header follows it, an undecodable method not at all.
            let in_step = captured[..end + HEADER_BYTES.min(bytes.len() - end)].iter().all(|byte| *byte);
            let follows = captured[end..(end + HEADER_BYTES).min(bytes.len())].iter().all(|byte| *byte);
            let proves = match whole {
                Whole::Body { .. } => follows,
                Whole::Other { content, .. } => !content.contains("Malformed") && !content.contains("Unknown"),
                Whole::Unseen { .. } => false,
            };
            // A gap at the very beginning hides what protocol it is.
            let opening = content_is_opening(whole) && !in_step;
            if untouched && proves && !opening {
                prop_assert!(seen.contains(whole), "{:?} is not in {:?}", whole, seen);
            }
            start = end;
        }
        // Nothing is made up.
        for whole in &seen {
            if let Whole::Other { .. } = whole {
                prop_assert!(all.contains(whole), "{:?} is not in {:?}", whole, all);
            }
        }
        // Nothing is told twice, and nothing out of order.
        let starts: Vec<u64> = seen.iter().map(|whole| match whole {
            Whole::Body { start, .. } | Whole::Other { start, .. } | Whole::Unseen { start, .. } => *start,
        }).collect();
        prop_assert!(starts.is_sorted(), "{:?}", seen);
    }

    #[test]
    fn noise_is_survived_in_bounded_memory(chunks in proptest::collection::vec(
        (0_u64..5000, 0_u64..300, proptest::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(3), Just(0xCE), any::<u8>()], 0..60)), 0..20,
    )) {
        let mut decoder = Decoder::new();
        for (offset, len, bytes) in chunks {
            decoder.feed(offset, &bytes, len, &mut |_| {});
        }
        decoder.finish(&mut |_| {});
    }
}

fn content_is_opening(whole: &Whole) -> bool {
    matches!(whole, Whole::Other { content, .. } if content.contains("ProtocolHeader"))
}
