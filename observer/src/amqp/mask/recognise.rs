//! What a stream is by its first bytes, and where a frame may begin in one that was lost. Keeps no state.

use super::stream::FRAME_END;

/// While synchronisation is lost, a candidate must be no larger than this, so that noise is not mistaken for a frame.
const LARGEST_CANDIDATE: u32 = 1 << 20;

/// What a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// Not enough bytes yet.
    More,
    /// An AMQP 0-9-1 client's: its protocol header.
    Client,
    /// A server's: the header and ids of `connection.start`.
    Server,
    /// Another text protocol of which the first line may be shown.
    Line,
    /// Nothing secret comes in it.
    Clear,
    /// Nothing more of it may be shown.
    Opaque,
    /// Nothing known: frames, or the middle of one.
    Unknown,
}

/// Judges a stream by its first bytes.
pub(super) fn opening(first: &[u8]) -> Opening {
    const AMQP_0_9_1: &[u8] = b"AMQP\0\0\x09\x01";
    // Only the method of a request: paths and headers carry tokens.
    const REQUESTS: [&[u8]; 8] =
        [b"GET ", b"PUT ", b"POST ", b"HEAD ", b"PATCH ", b"DELETE ", b"OPTIONS ", b"CONNECT "];
    if AMQP_0_9_1.starts_with(first) || first.starts_with(b"AMQP") {
        return match first.len() {
            ..8 => Opening::More,
            _ if first == AMQP_0_9_1 => Opening::Client,
            // AMQP 1.0 carries SASL too.
            _ => Opening::Opaque,
        };
    }
    let server = [Some(1), Some(0), Some(0), None, None, None, None, Some(0), Some(10), Some(0), Some(10)];
    if first.iter().zip(server).all(|(byte, wanted)| wanted.is_none_or(|wanted| *byte == wanted)) {
        return if first.len() == server.len() { Opening::Server } else { Opening::More };
    }
    let known = [(&b"HTTP/"[..], Opening::Line), (b"SSH-", Opening::Line)]
        .into_iter()
        .chain([(&b"\x15\x03"[..], Opening::Clear), (b"\x16\x03", Opening::Clear)])
        .chain(REQUESTS.into_iter().map(|method| (method, Opening::Opaque)));
    for (known, opening) in known {
        if first == known {
            return opening;
        }
        if known.starts_with(first) {
            return Opening::More;
        }
    }
    Opening::Unknown
}

/// Whether a whole frame begins here that is not a body, and what follows it begins like one.
pub(super) fn is_whole_frame(bytes: &[u8]) -> bool {
    let [kind, c1, c2, a, b, c, d, payload @ ..] = bytes else { return false };
    let size = u32::from_be_bytes([*a, *b, *c, *d]);
    if size > LARGEST_CANDIDATE {
        return false;
    }
    let (Some(payload), Some(after)) = (payload.get(..size as usize), payload.get(size as usize..)) else {
        return false;
    };
    let plausible = match (kind, payload) {
        (8, []) => *c1 == 0 && *c2 == 0,
        (1, [0, class, 0, method, ..]) => {
            matches!(class, 10 | 20 | 30 | 40 | 50 | 60 | 85 | 90) && (10..=120).contains(method)
        }
        (2, [0, 60, 0, 0, _, _, _, _, _, _, _, _, _, _, ..]) => true,
        _ => false,
    };
    plausible
        && match after {
            [FRAME_END] => true,
            [FRAME_END, next, ..] => matches!(next, 1 | 2 | 3 | 8),
            _ => false,
        }
}
