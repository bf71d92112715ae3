//! Any bytes, cut and holed in any way, from either side: the decoder must not panic, and what it tells must lie in order.
#![no_main]

use libfuzzer_sys::fuzz_target;
use observer::amqp::{conversation::Conversation, method::Side, stream::Decoder};

fuzz_target!(|data: &[u8]| {
    // Every chunk: how many bytes are skipped, how many captured, how many cut off.
    let (mut offset, mut rest) = (0_u64, data);
    let mut decoder = Decoder::new();
    let mut conversation = Conversation::new(1024);
    let (mut last, mut items) = (0_u64, Vec::new());
    while let [skip, len, cut, tail @ ..] = rest {
        let (chunk, after) = tail.split_at(usize::from(*len).min(tail.len()));
        offset += u64::from(*skip & 0x0F);
        let true_len = chunk.len() as u64 + u64::from(*cut & 0x0F);
        decoder.feed(offset, chunk, true_len, &mut |frame| {
            assert!(frame.start >= last && frame.end >= frame.start);
            last = frame.start;
        });
        let side = if *cut & 0x80 == 0 { Side::Client } else { Side::Server };
        conversation.feed(side, offset, chunk, true_len, &mut items);
        offset += true_len;
        rest = after;
    }
    decoder.finish(&mut |frame| assert!(frame.start >= last));
    conversation.finish(&mut items);
    // What people read holds no control character.
    assert!(!items.iter().any(|item| item.what.to_string().contains(char::is_control)));
});
