//! How fast recorded AMQP is decoded and masked, on one core and at constant memory: `cargo bench --bench amqp`. It knows no target but
//! the one of the decoder, 1,000,000 small frames a second.

use divan::{
    AllocProfiler, Bencher, black_box,
    counter::{BytesCount, ItemsCount},
};
use observer::{
    amqp::{conversation::Conversation, mask::StreamMasker, method::Side, stream::Decoder},
    event::{Direction, SocketId},
};

#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

/// How much one recorded read or write holds.
const CHUNK: usize = 4096;
const PROTOCOL_HEADER: &[u8] = b"AMQP\0\0\x09\x01";

fn main() {
    divan::main();
}

/// Feeds the stream of `thing`, again and again, chunk by chunk, to what was opened by a client's protocol header. One iteration is
/// about a megabyte; its items are things.
fn stream(bencher: Bencher, thing: &[u8], mut feed: impl FnMut(u64, &mut [u8])) {
    let things = 1_000_000 / thing.len() + 1;
    let bytes = thing.repeat(things);
    let mut buffer = [0; CHUNK];
    let mut offset = 0;
    let mut see = |chunk: &[u8]| {
        let chunk_copy = &mut buffer[..chunk.len()];
        chunk_copy.copy_from_slice(chunk);
        feed(offset, chunk_copy);
        offset += chunk.len() as u64;
    };
    see(PROTOCOL_HEADER);
    bencher
        .counter(ItemsCount::new(things))
        .counter(BytesCount::of_slice(&bytes))
        .bench_local(|| bytes.chunks(CHUNK).for_each(&mut see));
}

#[divan::bench]
fn decode_acks(bencher: Bencher) {
    let mut decoder = Decoder::new();
    stream(bencher, &ack(), |offset, chunk| {
        decoder.feed(offset, chunk, chunk.len() as u64, &mut |frame| {
            black_box(frame);
        });
    });
}

#[divan::bench]
fn converse_acks(bencher: Bencher) {
    let (mut conversation, mut items) = (Conversation::new(65_536), Vec::new());
    stream(bencher, &ack(), |offset, chunk| {
        items.clear();
        conversation.feed(Side::Client, offset, chunk, chunk.len() as u64, &mut items);
    });
}

#[divan::bench]
fn mask_acks(bencher: Bencher) {
    mask(bencher, &ack());
}

#[divan::bench(args = [20, 1000, 20_000])]
fn mask_deliveries(bencher: Bencher, argument_len: usize) {
    mask(bencher, &delivery(argument_len));
}

fn mask(bencher: Bencher, thing: &[u8]) {
    let mut masker = StreamMasker::new();
    stream(bencher, thing, |offset, chunk| {
        black_box(masker.mask(SocketId(1), Direction::Sent, offset, chunk.len() as u64, chunk));
    });
}

/// One `basic.ack` on channel 1.
fn ack() -> Vec<u8> {
    frame(1, &[&[0, 60, 0, 80][..], &7_u64.to_be_bytes(), &[0]].concat())
}

/// A `basic.deliver` on channel 1 with a message of dramatiq's, whose argument is so long.
fn delivery(argument_len: usize) -> Vec<u8> {
    let body = format!(
        r#"{{"queue_name":"default","actor_name":"count_words","args":["{}",17],"kwargs":{{"retry":false}},"options":{{"retries":1}},"message_id":"0ab1c2d3-0ab1-4c2d-8e3f-0ab1c2d30ab1","message_timestamp":1700000000123}}"#,
        "x ".repeat(argument_len / 2)
    );
    let method = [&[0, 60, 0, 60, 4][..], b"ctag", &7_u64.to_be_bytes(), &[0, 0, 7], b"default"].concat();
    let header = [&[0, 60, 0, 0][..], &(body.len() as u64).to_be_bytes(), &[0, 0]].concat();
    [frame(1, &method), frame(2, &header), frame(3, body.as_bytes())].concat()
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    [&[kind, 0, 1], &(payload.len() as u32).to_be_bytes()[..], payload, &[0xCE]].concat()
}
