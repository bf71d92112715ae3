//! How fast recorded AMQP is decoded, on one core: `cargo run --release --example amqp_throughput`.

use std::time::{Duration, Instant};

use observer::{
    amqp::{conversation::Conversation, mask::StreamMasker, method::Side, stream::Decoder},
    event::{Direction, SocketId},
};

const CHUNK: usize = 4096;
const SECONDS: Duration = Duration::from_secs(3);

fn main() {
    let small = ack().repeat(4000);
    let (mut frames, mut bytes) = (0_u64, 0_u64);
    let mut decoder = Decoder::new();
    let mut opened = decoder_open(&mut decoder);
    report("Decoder, basic.ack", &small, |chunk| {
        decoder.feed(opened, chunk, chunk.len() as u64, &mut |_| frames += 1);
        opened += chunk.len() as u64;
        bytes += chunk.len() as u64;
        std::mem::take(&mut frames)
    });

    let mut conversation = Conversation::new(65_536);
    let mut items = Vec::new();
    conversation.feed(Side::Client, 0, b"AMQP\0\0\x09\x01", 8, &mut items);
    let mut offset = 8;
    report("Conversation, basic.ack", &small, |chunk| {
        items.clear();
        conversation.feed(Side::Client, offset, chunk, chunk.len() as u64, &mut items);
        offset += chunk.len() as u64;
        items.len() as u64
    });

    report("StreamMasker, basic.ack", &small, masked(ack().len()));
    for argument_len in [20, 1000, 20_000] {
        let delivery = delivery(argument_len);
        let stream = delivery.repeat(1_000_000 / delivery.len() + 1);
        report(
            &format!("StreamMasker, deliveries of {} bytes", delivery.len()),
            &stream,
            masked(delivery.len()),
        );
    }
}

/// Masks a client's stream of one thing of this length, again and again.
fn masked(one_len: usize) -> impl FnMut(&[u8]) -> u64 {
    let mut masker = StreamMasker::new();
    masker.mask(SocketId(1), Direction::Sent, 0, 8, &mut b"AMQP\0\0\x09\x01".to_vec());
    let (mut offset, mut whole) = (8, 0);
    let mut buffer = Vec::with_capacity(CHUNK);
    move |chunk| {
        buffer.clear();
        buffer.extend_from_slice(chunk);
        masker.mask(SocketId(1), Direction::Sent, offset, chunk.len() as u64, &mut buffer);
        offset += chunk.len() as u64;
        let before = whole;
        whole = (offset - 8) / one_len as u64;
        whole - before
    }
}

/// A `basic.deliver` on channel 1 with a message of dramatiq's, whose argument is so long.
fn delivery(argument_len: usize) -> Vec<u8> {
    let body = format!(
        r#"{{"queue_name":"default","actor_name":"count_words","args":["{}",17],"kwargs":{{"retry":false}},"options":{{"retries":1}},"message_id":"0ab1c2d3-0ab1-4c2d-8e3f-0ab1c2d30ab1","message_timestamp":1700000000123}}"#,
        "x ".repeat(argument_len / 2)
    );
    let frame = |kind: u8, payload: &[u8]| {
        [&[kind, 0, 1], &(payload.len() as u32).to_be_bytes()[..], payload, &[0xCE]].concat()
    };
    let method = [&[0, 60, 0, 60, 4][..], b"ctag", &7_u64.to_be_bytes(), &[0, 0, 7], b"default"].concat();
    let header = [&[0, 60, 0, 0][..], &(body.len() as u64).to_be_bytes(), &[0, 0]].concat();
    [frame(1, &method), frame(2, &header), frame(3, body.as_bytes())].concat()
}

fn decoder_open(decoder: &mut Decoder) -> u64 {
    decoder.feed(0, b"AMQP\0\0\x09\x01", 8, &mut |_| {});
    8
}

/// One `basic.ack` on channel 1.
fn ack() -> Vec<u8> {
    let mut frame = vec![1, 0, 1, 0, 0, 0, 13, 0, 60, 0, 80];
    frame.extend_from_slice(&7_u64.to_be_bytes());
    frame.extend_from_slice(&[0, 0xCE]);
    frame
}

fn report(what: &str, stream: &[u8], mut feed: impl FnMut(&[u8]) -> u64) {
    let (begun, mut count, mut bytes) = (Instant::now(), 0, 0);
    while begun.elapsed() < SECONDS {
        count += stream.chunks(CHUNK).map(&mut feed).sum::<u64>();
        bytes += stream.len();
    }
    let seconds = begun.elapsed().as_secs_f64();
    let (per_second, mb) = (count as f64 / seconds, bytes as f64 / seconds / 1e6);
    println!("{what}: {per_second:.0}/s, {mb:.0} MB/s, resident {}", resident());
}

/// `VmRSS` of `/proc/self/status`.
fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.map_or_else(|| "unknown".into(), |line| line.trim().to_owned())
}
