use proptest::prelude::*;

use super::{stream::FRAME_END, *};
use crate::amqp::dramatiq::mask_body;

mod bodies;

const SOCKET: SocketId = SocketId(7);

/// A client's stream, which of its bytes are secret, and the stream as it should be stored.
#[derive(Clone, Debug, Default)]
struct Client {
    bytes: Vec<u8>,
    secret: Vec<bool>,
    masked: Vec<u8>,
}

impl Client {
    fn header() -> Self {
        let mut client = Self::default();
        client.raw(b"AMQP\0\0\x09\x01", false);
        client
    }

    fn raw(&mut self, bytes: &[u8], secret: bool) {
        self.bytes.extend_from_slice(bytes);
        self.secret.resize(self.bytes.len(), secret);
        self.masked.extend(bytes.iter().map(|byte| if secret { BLANK } else { *byte }));
    }

    fn frame(&mut self, kind: u8, channel: u16, parts: &[(&[u8], bool)]) {
        let size: usize = parts.iter().map(|(bytes, _)| bytes.len()).sum();
        self.raw(&[kind], false);
        self.raw(&channel.to_be_bytes(), false);
        self.raw(&(size as u32).to_be_bytes(), false);
        for (bytes, secret) in parts {
            self.raw(bytes, *secret);
        }
        self.raw(&[FRAME_END], false);
    }

    fn start_ok(&mut self, mechanism: &[u8], response: &[(&[u8], bool)]) {
        let mut table = b"\x07productS".to_vec();
        table.extend_from_slice(&long(b"Pika Python Client Library"));
        let length: usize = response.iter().map(|(bytes, _)| bytes.len()).sum();
        let (table, mechanism, length) = (long(&table), short(mechanism), (length as u32).to_be_bytes());
        let mut parts: Vec<(&[u8], bool)> =
            vec![(&[0, 10, 0, 11], false), (&table, false), (&mechanism, false), (&length, false)];
        parts.extend_from_slice(response);
        parts.push((b"\x05en_US", false));
        self.frame(1, 0, &parts);
    }

    fn update_secret(&mut self, secret: &[u8]) {
        let length = (secret.len() as u32).to_be_bytes();
        self.frame(
            1,
            0,
            &[(&[0, 10, 0, 70], false), (&length, false), (secret, true), (&short(b"new"), false)],
        );
    }

    fn publish(&mut self, body: &[u8]) {
        self.begin(1, body.len());
        self.body(1, body, 0..body.len());
    }

    /// A method with content and its content header.
    fn begin(&mut self, channel: u16, size: usize) {
        self.frame(1, channel, &[(&[0, 60, 0, 40, 0, 0, 0, 7], false), (b"default\0", false)]);
        self.frame(
            2,
            channel,
            &[(&[0, 60, 0, 0], false), (&(size as u64).to_be_bytes(), false), (&[0, 0], false)],
        );
    }

    /// A body frame with this piece of `body`.
    fn body(&mut self, channel: u16, body: &[u8], piece: std::ops::Range<usize>) {
        let mut masked = body.to_vec();
        let ranges = mask_body(&mut masked);
        let start = self.bytes.len() + 7;
        self.frame(3, channel, &[(&body[piece.clone()], false)]);
        for (at, offset) in piece.clone().enumerate() {
            self.masked[start + at] = masked[offset];
            self.secret[start + at] = ranges.iter().any(|(from, to)| (*from..*to).contains(&(offset as u64)));
        }
    }
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

fn short(bytes: &[u8]) -> Vec<u8> {
    [&[bytes.len() as u8], bytes].concat()
}

/// A session with every kind of secret in it.
fn session(password: &[u8], body: &[u8]) -> Client {
    let plain = [b"\0".as_slice(), b"user\0", password].concat();
    let mut client = Client::header();
    client.start_ok(b"PLAIN", &[(&plain, true)]);
    let length = (password.len() as u32).to_be_bytes();
    client.frame(1, 0, &[(&[0, 10, 0, 21], false), (&length, false), (password, true)]);
    client.frame(1, 0, &[(&[0, 10, 0, 31, 7, 255, 0, 2, 0, 0, 0, 5], false)]);
    client.frame(1, 0, &[(&[0, 10, 0, 40, 1, b'/', 0, 0], false)]);
    client.frame(8, 0, &[]);
    client.publish(body);
    client.update_secret(password);
    client.publish(body);
    client
}

/// Masks `bytes` cut at `cuts`, without gaps.
fn mask_cut(masker: &mut StreamMasker, bytes: &[u8], cuts: &[usize]) -> (Vec<u8>, Vec<(u64, u64)>) {
    let mut out = bytes.to_vec();
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    let mut at = 0;
    for end in cuts.iter().copied().chain([bytes.len()]) {
        if end <= at {
            continue;
        }
        for range in masker.mask(SOCKET, Direction::Sent, at as u64, (end - at) as u64, &mut out[at..end]) {
            match ranges.last_mut() {
                Some(last) if last.1 == range.0 => last.1 = range.1,
                _ => ranges.push(range),
            }
        }
        at = end;
    }
    (out, ranges)
}

fn mask_whole(bytes: &[u8]) -> Vec<u8> {
    mask_cut(&mut StreamMasker::new(), bytes, &[]).0
}

#[test]
fn everything_but_the_secrets_stays_readable() {
    let client = session(b"hunter2-hunter2", b"{\"queue_name\": \"default\"}");
    let (masked, ranges) = mask_cut(&mut StreamMasker::new(), &client.bytes, &[]);
    assert_eq!(masked, client.masked);
    assert_eq!(ranges.len(), 3);
    for (start, end) in ranges {
        assert!(client.secret[start as usize..end as usize].iter().all(|secret| *secret));
    }
    let text = String::from_utf8_lossy(&masked);
    for readable in ["Pika Python Client Library", "PLAIN", "en_US", "default"] {
        assert!(text.contains(readable), "{readable} is gone");
    }
}

#[test]
fn the_user_name_is_kept_when_asked_for_and_only_then() {
    let mut client = Client::header();
    client.start_ok(b"PLAIN", &[(b"\0alice\0", false), (b"s3cret\0s3cret", true)]);
    let cuts: Vec<usize> = (0..client.bytes.len()).collect();
    for cuts in [&cuts[..], &[]] {
        assert_eq!(
            mask_cut(&mut StreamMasker::new().keeping_user_name(), &client.bytes, cuts).0,
            client.masked
        );
    }
    assert!(!String::from_utf8_lossy(&mask_whole(&client.bytes)).contains("alice"));

    for (mechanism, response) in
        [(&b"AMQPLAIN"[..], &b"\0alice\0s3cret"[..]), (b"PLAI", b"\0alice\0s3cret"), (b"PLAIN", b"s3cret\0x")]
    {
        let mut client = Client::header();
        client.start_ok(mechanism, &[(response, true)]);
        let (masked, _) = mask_cut(&mut StreamMasker::new().keeping_user_name(), &client.bytes, &[]);
        let expected = client.masked;
        // A NUL is no secret, and where it stands depends on the case.
        let same = masked.iter().zip(&expected).all(|(a, b)| a == b || *a == 0);
        assert!(same, "{mechanism:?}: {}", String::from_utf8_lossy(&masked));
    }
}

#[test]
fn a_response_longer_than_its_frame_is_blanked_to_the_end_of_it() {
    let mut client = Client::header();
    client.frame(1, 0, &[(&[0, 10, 0, 21], false), (&[0, 0, 1], false), (&[0], true), (b"s3cret", true)]);
    client.frame(8, 0, &[]);
    assert_eq!(mask_whole(&client.bytes), client.masked);
}

#[test]
fn a_response_cut_by_the_snap_length_leaves_the_rest_in_step() {
    let client = session(b"hunter2-hunter2", b"body");
    let end = client.secret.iter().position(|secret| *secret).unwrap() + 9;
    let whole = client.bytes.windows(4).position(|ids| ids == [0, 10, 0, 31]).unwrap() - 7;
    let mut masker = StreamMasker::new();
    let mut first = client.bytes[..end].to_vec();
    masker.mask(SOCKET, Direction::Sent, 0, whole as u64, &mut first);
    assert_eq!(first, client.masked[..end]);
    // The gap ran over a second frame: what follows is shown once a whole frame is recognised, here at once.
    let mut second = client.bytes[whole..].to_vec();
    masker.mask(SOCKET, Direction::Sent, whole as u64, second.len() as u64, &mut second);
    assert_eq!(second, client.masked[whole..]);
}

#[test]
fn a_server_is_left_alone_and_so_is_what_answers_on_a_wrong_port() {
    let mut server = Client::default();
    server.frame(1, 0, &[(&[0, 10, 0, 10, 0, 9], false), (&long(b""), false), (&long(b"PLAIN"), false)]);
    server.raw(b"anything at all", false);
    assert_eq!(mask_cut(&mut StreamMasker::new().keeping_bodies(), &server.bytes, &[]).0, server.bytes);
    let alert = b"\x15\x03\x01\0\x02\x02\x46";
    assert_eq!(mask_whole(alert), alert);
    assert_eq!(mask_whole(b"AMQP\0\0\x09\x01"), b"AMQP\0\0\x09\x01");
    assert_eq!(mask_whole(b"AMQP\x03\x01\0\0\0secret"), b"AMQP\x03\x01\0\0*******");
    assert_eq!(mask_whole(b"HTTP/1.1 400 Bad Request\r\nx: y"), b"HTTP/1.1 400 Bad Request\r\n****");
    assert_eq!(mask_whole(b"GET /?token=x"), b"GET *********");
}

#[test]
fn a_reused_socket_starts_anew() {
    let client = session(b"hunter2", b"body");
    let mut masker = StreamMasker::new();
    for _ in 0..2 {
        assert_eq!(mask_cut(&mut masker, &client.bytes, &[40]).0, client.masked);
    }
    masker.forget(SOCKET);
    assert!(masker.streams.is_empty());
}

fn password() -> impl Strategy<Value = Vec<u8>> {
    // No `*`, so that a blank is told from a secret; no control characters, so that it does not spell a frame.
    proptest::collection::vec(prop_oneof![0x21_u8..0x2A, 0x2B_u8..0x7F, 0x80_u8..], 1..40)
}

/// A body: a message, one cut off, or no message; none spells a frame.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let message = ("[a-z\"\\\\{\\]é]{0,30}", any::<u8>(), 0_usize..300).prop_map(|(text, number, len)| {
        let mut body = serde_json::to_vec(&serde_json::json!({
            "queue_name": "default", "actor_name": "add", "args": [text, number], "kwargs": {"k": text},
            "options": {"pipe_target": {"actor_name": "next", "args": [text]}}, "message_id": "0ab1",
        }));
        body.as_mut().unwrap().truncate(len.max(1));
        body.unwrap()
    });
    prop_oneof![4 => message, 1 => password()]
}

proptest! {
    #[test]
    fn any_split_masks_the_same(
        password in password(),
        body in prop_oneof![body(), proptest::collection::vec(any::<u8>(), 0..200)],
        mut cuts in proptest::collection::vec(0_usize..1200, 0..60),
    ) {
        let client = session(&password, &body);
        cuts.retain(|cut| *cut < client.bytes.len());
        cuts.sort_unstable();
        let (masked, ranges) = mask_cut(&mut StreamMasker::new(), &client.bytes, &cuts);
        prop_assert_eq!(&masked, &client.masked);
        prop_assert_eq!(ranges, mask_cut(&mut StreamMasker::new(), &client.bytes, &[]).1);
    }

    #[test]
    fn no_secret_byte_survives_splits_and_gaps(
        password in password(),
        body in body(),
        keep_user_name in any::<bool>(),
        // Each piece: how long it is and how much of it is captured.
        pieces in proptest::collection::vec((1_usize..60, 0_usize..80, any::<bool>()), 1..80),
    ) {
        let client = session(&password, &body);
        let mut masker = StreamMasker { keep: Keep { user_name: keep_user_name, bodies: false }, ..StreamMasker::new() };
        let user = b"\0user\0".len();
        let mut at = 0;
        for (len, captured, told) in pieces {
            let end = (at + len).min(client.bytes.len());
            let kept = (at + captured).min(end);
            let mut bytes = client.bytes[at..kept].to_vec();
            // A piece that is not told at all is a chunk that was lost.
            if told {
                let ranges = masker.mask(SOCKET, Direction::Sent, at as u64, (end - at) as u64, &mut bytes);
                for (i, byte) in bytes.iter().enumerate() {
                    let offset = at + i;
                    let blanked = ranges.iter().any(|(start, end)| (*start..*end).contains(&(offset as u64)));
                    let begins = client.secret.iter().position(|secret| *secret).unwrap();
                    let is_user = keep_user_name && (begins..begins + user).contains(&offset);
                    if client.secret[offset] && !is_user {
                        let blank = *byte == BLANK || *byte == client.masked[offset];
                        prop_assert!(blank, "at {} of {:?}", offset, client.bytes);
                        prop_assert!(blanked);
                    }
                    prop_assert!(blanked || *byte == client.bytes[offset]);
                }
            }
            at = end;
        }
    }

    #[test]
    fn no_secret_byte_survives_an_attach_in_mid_stream(
        password in password(),
        start in 1_usize..400,
    ) {
        let client = session(&password, b"body");
        let start = start.min(client.bytes.len() - 1);
        let masked = mask_whole(&client.bytes[start..]);
        for (i, byte) in masked.iter().enumerate() {
            prop_assert!(!client.secret[start + i] || *byte == BLANK || *byte == client.masked[start + i]);
        }
    }

    #[test]
    fn noise_is_survived(chunks in proptest::collection::vec(
        (any::<u16>(), any::<u16>(), proptest::collection::vec(any::<u8>(), 0..64)), 0..30,
    )) {
        let mut masker = StreamMasker::new();
        for (offset, len, mut bytes) in chunks {
            let before = bytes.len();
            masker.mask(SOCKET, Direction::Received, u64::from(offset), u64::from(len), &mut bytes);
            prop_assert_eq!(bytes.len(), before);
        }
    }
}
