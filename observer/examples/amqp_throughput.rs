//! How fast recorded AMQP is decoded, on one core: `cargo run --release --example amqp_throughput`.

use std::time::{Duration, Instant};

use observer::{
    amqp::{conversation::Conversation, mask::SaslMasker, method::Side, stream::Decoder},
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

    let mut masker = SaslMasker::new();
    masker.mask(SocketId(1), Direction::Sent, 0, 8, &mut b"AMQP\0\0\x09\x01".to_vec());
    let mut offset = 8;
    let mut buffer = Vec::with_capacity(CHUNK);
    report("SaslMasker, basic.ack", &small, |chunk| {
        buffer.clear();
        buffer.extend_from_slice(chunk);
        masker.mask(SocketId(1), Direction::Sent, offset, chunk.len() as u64, &mut buffer);
        offset += chunk.len() as u64;
        chunk.len() as u64 / ack().len() as u64
    });
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
    let (begun, mut frames) = (Instant::now(), 0);
    while begun.elapsed() < SECONDS {
        frames += stream.chunks(CHUNK).map(&mut feed).sum::<u64>();
    }
    let per_second = frames as f64 / begun.elapsed().as_secs_f64();
    println!("{what}: {per_second:.0} frames/s, resident {}", resident());
}

/// `VmRSS` of `/proc/self/status`.
fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.map_or_else(|| "unknown".into(), |line| line.trim().to_owned())
}
