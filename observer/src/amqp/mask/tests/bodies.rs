use super::*;
use crate::amqp::{
    dramatiq::DramatiqMessage,
    stream::{Content, Decoder},
};

/// What no stored stream may hold.
const NEEDLE: &str = "s3cret-argument";

fn message(id: &str, needles: usize) -> Vec<u8> {
    let text = vec![NEEDLE; needles];
    serde_json::to_vec(&serde_json::json!({
        "queue_name": "default", "actor_name": "add", "args": [text, 1], "kwargs": {"who": text},
        "options": {"retries": 2, "traceback": "boom", "pipe_target": {"actor_name": "next", "args": text}},
        "message_id": id, "message_timestamp": 7,
    }))
    .unwrap()
}

/// `count` messages whose bodies come in frames of `frame` bytes, two by two interleaved on two channels.
fn conversation(mut stream: Client, count: usize, frame: usize) -> Client {
    for pair in 0..count {
        let bodies = [message(&format!("left-{pair}"), 1), message(&format!("right-{pair}"), 2)];
        for (channel, body) in (1..).zip(&bodies) {
            stream.begin(channel, body.len());
        }
        for at in (0..bodies[1].len()).step_by(frame) {
            for (channel, body) in (1..).zip(&bodies) {
                let end = (at + frame).min(body.len());
                if at < end {
                    stream.body(channel, body, at..end);
                }
            }
        }
        stream.frame(8, 0, &[]);
    }
    stream
}

fn server() -> Client {
    let mut server = Client::default();
    server.frame(
        1,
        0,
        &[
            (&[0, 10, 0, 10, 0, 9], false),
            (&long(b""), false),
            (&long(b"PLAIN"), false),
            (&long(b"x"), false),
        ],
    );
    server
}

fn holds_needle(bytes: &[u8]) -> bool {
    memchr::memmem::find(bytes, NEEDLE.as_bytes()).is_some()
}

/// The frames of a stream without what bodies say, and the message facts of the bodies.
fn decoded(bytes: &[u8]) -> (Vec<String>, Vec<Result<DramatiqMessage, String>>) {
    let (mut frames, mut facts) = (Vec::new(), Vec::new());
    let mut bodies: HashMap<u16, (u64, Vec<u8>)> = HashMap::new();
    let mut decoder = Decoder::new();
    decoder.feed(0, bytes, bytes.len() as u64, &mut |frame| {
        let place = (frame.start, frame.end);
        match frame.content {
            Content::Header { channel, body_size, .. } => {
                bodies.insert(channel, (body_size, Vec::new()));
            }
            Content::Body { channel, size, bytes, .. } => {
                let (body_size, body) = bodies.get_mut(&channel).unwrap();
                body.extend_from_slice(bytes);
                if body.len() as u64 == *body_size {
                    facts.push(DramatiqMessage::decode(body, true).map_err(|error| error.to_string()));
                }
                return frames.push(format!("{place:?} body of {size} on {channel}"));
            }
            _ => {}
        }
        frames.push(format!("{place:?} {:?}", frame.content));
    });
    (frames, facts)
}

#[test]
fn a_masked_stream_decodes_to_the_same_frames_and_message_facts() {
    for stream in [conversation(Client::header(), 3, 50), conversation(server(), 2, 4096)] {
        let (masked, ranges) = mask_cut(&mut StreamMasker::new(), &stream.bytes, &[]);
        assert!(holds_needle(&stream.bytes) && !holds_needle(&masked));
        assert_eq!(masked, stream.masked);
        assert!(!ranges.is_empty());
        let (frames, facts) = decoded(&masked);
        assert_eq!((&frames, &facts), (&decoded(&stream.bytes).0, &decoded(&stream.bytes).1));
        assert!(facts.len() >= 4 && facts.iter().all(Result::is_ok), "{facts:?}");
        assert_eq!(facts[0].as_ref().unwrap().traceback.as_deref(), Some("boom"));
    }
}

#[test]
fn bodies_are_kept_when_asked_for() {
    for stream in [conversation(Client::header(), 2, 50), conversation(server(), 2, 50)] {
        let mut masker = StreamMasker::new().keeping_bodies();
        assert_eq!(mask_cut(&mut masker, &stream.bytes, &[9, 40, 300]), (stream.bytes, Vec::new()));
    }
    // A password is blanked all the same.
    let client = session(b"hunter2-hunter2", NEEDLE.as_bytes());
    let (masked, ranges) = mask_cut(&mut StreamMasker::new().keeping_bodies(), &client.bytes, &[]);
    assert_eq!(ranges.len(), 3);
    assert!(holds_needle(&masked) && !String::from_utf8_lossy(&masked).contains("hunter2"));
}

#[test]
fn a_body_whose_beginning_or_middle_was_not_seen_is_blanked() {
    let body = message("0ab1", 1);
    let options = memchr::memmem::find(&body, b"options").unwrap();
    let mut client = Client::header();
    client.begin(1, body.len());
    let header = client.bytes.len();
    client.body(1, &body, 0..body.len());
    client.publish(&body);
    // Cut by the snap length in the body: the next frame is in step, and the rest of this body is not shown.
    let mut masker = StreamMasker::new();
    let cut = header + 7 + options;
    for (start, seen, end) in [(0, cut, cut + 5), (cut + 5, client.bytes.len(), client.bytes.len())] {
        let mut bytes = client.bytes[start..seen].to_vec();
        masker.mask(SOCKET, Direction::Sent, start as u64, (end - start) as u64, &mut bytes);
        let rest = if start == 0 { 0 } else { header + 7 + body.len() - start };
        assert!(bytes[..rest].iter().all(|byte| *byte == BLANK));
        assert_eq!(bytes[rest..], client.masked[start + rest..seen]);
    }
    // Without its content header.
    let mut client = Client::header();
    client.body(1, &body, 0..body.len());
    let masked = mask_whole(&client.bytes);
    assert!(masked[8 + 7..masked.len() - 1].iter().all(|byte| *byte == BLANK));
    // A frame that goes on behind the announced end, or is cut there, says nothing either.
    let mut client = Client::header();
    client.begin(1, options);
    client.body(1, &body, 0..body.len());
    let masked = mask_whole(&client.bytes);
    assert!(masked[header + 7 + options..masked.len() - 1].iter().all(|byte| *byte == BLANK));
}

#[test]
fn a_body_is_not_taken_for_the_rest_of_one_that_a_gap_cut_off() {
    let mut client = Client::header();
    client.begin(1, 1000);
    // A readable string is open: whatever is taken to follow here would be shown.
    client.body(1, br#"{"queue_name":"a"#, 0..16);
    let unfinished = client.bytes.len();
    client.begin(1, 1000);
    let begun = client.bytes.len();
    client.frame(8, 0, &[]);
    client.body(1, NEEDLE.as_bytes(), 0..NEEDLE.len());
    // The first gap runs over frame boundaries; the second stays in the content header, over its size.
    for (from, to) in [(unfinished, begun), (begun - 10, begun - 3)] {
        let mut masker = StreamMasker::new();
        let mut stored = client.bytes.clone();
        masker.mask(SOCKET, Direction::Sent, 0, from as u64, &mut stored[..from]);
        let rest = (client.bytes.len() - to) as u64;
        masker.mask(SOCKET, Direction::Sent, to as u64, rest, &mut stored[to..]);
        assert!(!holds_needle(&stored), "{from}..{to}");
        // Everything else is in step again.
        assert_eq!(stored[begun..begun + 8], client.bytes[begun..begun + 8]);
    }
}

#[test]
fn memory_stays_bounded_however_many_bodies_are_begun() {
    let mut client = Client::header();
    for channel in 1..2000 {
        client.begin(channel, 1 << 20);
    }
    let mut masker = StreamMasker::new();
    mask_cut(&mut masker, &client.bytes, &[]);
    // On a channel that was given up everything is blanked; on one that is remembered, the argument.
    let mut at = client.bytes.len() as u64;
    for (channel, blanked) in [(1, 18), (1999, "\"s3cret\"".len() as u64)] {
        let mut frame = Client::default();
        frame.body(channel, br#"{"args":"s3cret", "#, 0..18);
        let len = frame.bytes.len() as u64;
        let ranges = masker.mask(SOCKET, Direction::Sent, at, len, &mut frame.bytes);
        assert_eq!(ranges.iter().map(|(start, end)| end - start).sum::<u64>(), blanked, "channel {channel}");
        at += len;
    }
}

proptest! {
    #[test]
    fn any_split_of_many_bodies_masks_the_same(
        frame in 1_usize..400,
        from_server in any::<bool>(),
        mut cuts in proptest::collection::vec(0_usize..6000, 0..80),
    ) {
        let stream = conversation(if from_server { server() } else { Client::header() }, 3, frame);
        cuts.retain(|cut| *cut < stream.bytes.len());
        cuts.sort_unstable();
        let (masked, ranges) = mask_cut(&mut StreamMasker::new(), &stream.bytes, &cuts);
        prop_assert_eq!(&masked, &stream.masked);
        prop_assert_eq!(ranges, mask_cut(&mut StreamMasker::new(), &stream.bytes, &[]).1);
    }

    #[test]
    fn no_argument_survives_splits_and_gaps(
        frame in 1_usize..400,
        from_server in any::<bool>(),
        // Each piece: how long it is, how much of it is captured, and whether it is told at all.
        pieces in proptest::collection::vec((1_usize..200, 0_usize..260, any::<bool>()), 1..80),
    ) {
        let stream = conversation(if from_server { server() } else { Client::header() }, 3, frame);
        let mut masker = StreamMasker::new();
        let (mut at, mut stored) = (0, vec![0; stream.bytes.len()]);
        for (len, captured, told) in pieces {
            let end = (at + len).min(stream.bytes.len());
            let kept = (at + captured).min(end);
            if told {
                let mut bytes = stream.bytes[at..kept].to_vec();
                masker.mask(SOCKET, Direction::Received, at as u64, (end - at) as u64, &mut bytes);
                for (byte, offset) in bytes.iter().zip(at..) {
                    let blank = *byte == BLANK || *byte == stream.masked[offset];
                    prop_assert!(blank || !stream.secret[offset], "{} at {}", *byte as char, offset);
                }
                stored[at..kept].copy_from_slice(&bytes);
            }
            at = end;
        }
        prop_assert!(!holds_needle(&stored));
    }
}
