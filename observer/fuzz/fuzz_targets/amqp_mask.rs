//! Any bytes, cut in any way: what is told to be blanked is, and nothing else changes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use observer::{
    amqp::mask::SaslMasker,
    event::{Direction, SocketId},
};

fuzz_target!(|data: &[u8]| {
    let [cut, stream @ ..] = data else { return };
    // Opens as a client's, so that the methods with secrets are within reach.
    let stream = [b"AMQP\0\0\x09\x01", stream].concat();
    let (mut masker, mut pieces) = (SaslMasker::new(), stream.clone());
    let (mut at, mut blanked) = (0_u64, Vec::new());
    for piece in pieces.chunks_mut(usize::from(*cut).max(1)) {
        let len = piece.len() as u64;
        blanked.extend(masker.mask(SocketId(1), Direction::Sent, at, len, piece));
        at += len;
    }
    for (i, (before, after)) in stream.iter().zip(&pieces).enumerate() {
        let told = blanked.iter().any(|(start, end)| (*start..*end).contains(&(i as u64)));
        assert_eq!(*after, if told { b'*' } else { *before });
    }
});
