//! Any body: decoding must not panic, blanking must keep the length and be the same for every cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use observer::amqp::dramatiq::{BodyMasker, DramatiqMessage, mask_body};

fuzz_target!(|data: &[u8]| {
    let [cut, body @ ..] = data else { return };
    let whole = DramatiqMessage::decode(body, true);
    let _ = DramatiqMessage::decode(body, false);

    let mut masked = body.to_vec();
    mask_body(&mut masked);
    if let Ok(whole) = whole {
        // What is read does not depend on whether arguments were blanked; unless blanking had to stop at something it did not know.
        if let Ok(read) = DramatiqMessage::decode(&masked, true) {
            assert_eq!(read.actor_name.is_some(), whole.actor_name.is_some());
        }
    }

    let (mut masker, mut pieces) = (BodyMasker::new(), body.to_vec());
    for piece in pieces.chunks_mut(usize::from(*cut).max(1)) {
        masker.mask(piece);
    }
    assert_eq!(pieces, masked);
});
