//! One direction of one connection: recorded chunks → whole AMQP frames, as the bytes they are. Knows where frames begin and end by the
//! decoder; nothing of packets.
//!
//! Wireshark takes a segment for what begins in it (its AMQP dissector tells the version from the first one): a frame must not begin in
//! the middle of a packet.

use std::collections::VecDeque;

use amq_protocol::protocol::{AMQPClass, connection::AMQPMethod};

use super::packet::MOST_PAYLOAD;
use crate::amqp::stream::{Content, Decoder};

/// What is kept while frame boundaries are searched for: more than the decoder itself looks back.
const MOST_KEPT_BYTES: usize = 4 << 20;

/// A piece of the stream, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// Captured bytes: a frame, or as much of one as fits into a packet or was captured; of what is no AMQP, what is there.
    Bytes(&'a [u8]),
    /// So many bytes that were not captured, or of which nobody can say where a frame begins.
    Gap(u64),
}

/// Cuts one direction into frames.
///
/// Memory: what the decoder holds, and the same bytes once more.
#[derive(Debug, Default)]
pub(super) struct Cutter {
    decoder: Decoder,
    /// What was captured and not given out, in order.
    kept: VecDeque<Run>,
    kept_bytes: usize,
    /// The next frames and gaps, as far as they are known.
    told: VecDeque<Told>,
    /// All before this offset was given out.
    done: u64,
    /// No frame comes any more: what is captured is given out as it is.
    foreign: bool,
    ended: bool,
}

/// Bytes that follow on each other.
#[derive(Debug)]
struct Run {
    /// Offset of the first that was not given out.
    start: u64,
    bytes: Vec<u8>,
    /// How many of them were.
    given: usize,
}

impl Run {
    fn rest(&self) -> &[u8] {
        self.bytes.get(self.given..).unwrap_or_default()
    }

    fn end(&self) -> u64 {
        self.start + self.rest().len() as u64
    }

    fn give(&mut self, len: usize) {
        self.start += len as u64;
        self.given += len;
    }

    fn extend(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.given);
        self.given = 0;
        self.bytes.extend_from_slice(bytes);
    }
}

#[derive(Clone, Copy, Debug)]
struct Told {
    start: u64,
    end: u64,
    is_frame: bool,
}

impl Cutter {
    /// Offset before which all was given out.
    pub(super) const fn done(&self) -> u64 {
        self.done
    }

    /// The negotiated frame_max.
    pub(super) fn set_frame_max(&mut self, frame_max: u32) {
        self.decoder.set_frame_max(frame_max);
    }

    /// Takes one recorded chunk, as [`Decoder::feed`] does, and hands out what is complete. Answers the frame_max that was agreed on in
    /// it.
    pub(super) fn feed(
        &mut self,
        offset: u64,
        captured: &[u8],
        len: u64,
        each: &mut dyn FnMut(Piece<'_>),
    ) -> Option<u32> {
        let seen = self.decoder.offset().saturating_sub(offset);
        if let Some(new) = captured.get(usize::try_from(seen).unwrap_or(usize::MAX)..) {
            self.keep(offset + seen, new);
        }
        let mut frame_max = None;
        let Self { decoder, told, foreign, done, .. } = self;
        decoder.feed(offset, captured, len, &mut |frame| {
            match &frame.content {
                Content::NotAmqp(_) => {
                    *foreign = true;
                    return;
                }
                // After any other nothing more is decoded.
                Content::ProtocolHeader { version } => *foreign = *version != [0, 0, 9, 1],
                Content::Method { method: AMQPClass::Connection(AMQPMethod::TuneOk(tuning)), .. } => {
                    frame_max = Some(tuning.frame_max);
                }
                _ => {}
            }
            let is_frame = frame.content != Content::Unseen;
            // A body comes in pieces.
            let known =
                told.back().is_some_and(|last| last.start == frame.start && last.is_frame == is_frame);
            if !known && frame.end > *done {
                told.push_back(Told { start: frame.start, end: frame.end, is_frame });
            }
        });
        self.give(each);
        frame_max
    }

    /// Ends the stream: what is incomplete is given out as far as it goes.
    pub(super) fn finish(&mut self, each: &mut dyn FnMut(Piece<'_>)) {
        let Self { decoder, told, .. } = self;
        decoder.finish(&mut |frame| {
            let is_frame = frame.content != Content::Unseen;
            told.push_back(Told { start: frame.start, end: frame.end, is_frame });
        });
        self.ended = true;
        self.give(each);
    }

    fn keep(&mut self, start: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.kept_bytes += bytes.len();
        match self.kept.back_mut() {
            Some(last) if last.end() == start => last.extend(bytes),
            _ => self.kept.push_back(Run { start, bytes: bytes.to_vec(), given: 0 }),
        }
        // Nobody looks back so far for where a frame begins.
        while let Some(run) = self.kept.front_mut().filter(|_| self.kept_bytes > MOST_KEPT_BYTES) {
            let dropped = run.rest().len().min(self.kept_bytes - MOST_KEPT_BYTES);
            run.give(dropped);
            self.kept_bytes -= dropped;
            if run.rest().is_empty() {
                self.kept.pop_front();
            }
        }
    }

    /// Forgets what was captured before `offset`: it is done.
    fn pass(&mut self, offset: u64) {
        self.done = self.done.max(offset);
        while let Some(run) = self.kept.front_mut() {
            let over = usize::try_from(self.done.saturating_sub(run.start)).unwrap_or(usize::MAX);
            let over = over.min(run.rest().len());
            run.give(over);
            self.kept_bytes -= over;
            if !run.rest().is_empty() {
                return;
            }
            self.kept.pop_front();
        }
    }

    fn gap(&mut self, end: u64, each: &mut dyn FnMut(Piece<'_>)) {
        if end > self.done {
            each(Piece::Gap(end - self.done));
        }
        self.pass(end);
    }

    fn give(&mut self, each: &mut dyn FnMut(Piece<'_>)) {
        while let Some(told) = self.told.front().copied() {
            if !told.is_frame {
                self.gap(told.end, each);
            } else {
                self.gap(told.start, each);
                if !self.give_to(told.end, each) && !self.ended {
                    return;
                }
            }
            self.told.pop_front();
        }
        if self.foreign {
            let end = self.decoder.offset();
            self.give_to(end, each);
        }
    }

    /// Gives out what there is up to `end`. Answers whether that was all; otherwise the rest is still to come.
    fn give_to(&mut self, end: u64, each: &mut dyn FnMut(Piece<'_>)) -> bool {
        while self.done < end {
            let reached = self.decoder.offset();
            match self.kept.front().filter(|run| run.start <= self.done) {
                Some(run) => {
                    let wanted = usize::try_from(end - self.done).unwrap_or(usize::MAX);
                    let bytes = run.rest().get(..wanted).unwrap_or(run.rest());
                    let ends_here = self.done + bytes.len() as u64;
                    let all = ends_here == end || reached > ends_here || self.ended;
                    if !all && bytes.len() < MOST_PAYLOAD {
                        return false;
                    }
                    let piece = bytes.get(..MOST_PAYLOAD).unwrap_or(bytes);
                    each(Piece::Bytes(piece));
                    let done = self.done + piece.len() as u64;
                    self.pass(done);
                }
                None => {
                    let next = self.kept.front().map_or(reached, |run| run.start).min(end);
                    if next <= self.done {
                        return false;
                    }
                    self.gap(next, each);
                }
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::wire::{ack, body, deliver};

    #[derive(Clone, Debug, PartialEq, Eq)]
    enum Given {
        Bytes(Vec<u8>),
        Gap(u64),
    }

    fn collect(given: &mut Vec<Given>) -> impl FnMut(Piece<'_>) {
        |piece| {
            given.push(match piece {
                Piece::Bytes(bytes) => Given::Bytes(bytes.to_vec()),
                Piece::Gap(len) => Given::Gap(len),
            });
        }
    }

    fn frames(bytes: &[u8]) -> Vec<Given> {
        let (mut given, mut rest) = (Vec::new(), bytes);
        if let Some(after) = rest.strip_prefix(b"AMQP\0\0\x09\x01") {
            given.push(Given::Bytes(rest[..8].to_vec()));
            rest = after;
        }
        while !rest.is_empty() {
            let size = u32::from_be_bytes(rest[3..7].try_into().unwrap()) as usize + 8;
            given.push(Given::Bytes(rest[..size].to_vec()));
            rest = &rest[size..];
        }
        given
    }

    fn stream() -> Vec<u8> {
        let message = deliver(1, "default", false, &body("default", "m-1", ""));
        [b"AMQP\0\0\x09\x01".as_slice(), &message, &ack(1, false), &message].concat()
    }

    #[test]
    fn a_frame_larger_than_a_packet_comes_in_several() {
        let large = deliver(1, "q", false, &"x".repeat(3 * MOST_PAYLOAD));
        let mut given = Vec::new();
        let mut cutter = Cutter::default();
        for (index, chunk) in large.chunks(40_000).enumerate() {
            cutter.feed(index as u64 * 40_000, chunk, chunk.len() as u64, &mut collect(&mut given));
        }
        let bytes = |given: &Given| match given {
            Given::Bytes(bytes) => bytes.clone(),
            Given::Gap(_) => panic!("a gap"),
        };
        assert_eq!(given.iter().flat_map(bytes).collect::<Vec<_>>(), large);
        assert!(given.iter().all(|given| bytes(given).len() <= MOST_PAYLOAD));
        assert_eq!(given[..2], frames(&large)[..2]);
        assert_eq!(bytes(&given[2])[..7], bytes(&frames(&large)[2])[..7], "it begins with its header");
    }

    #[test]
    fn what_is_not_amqp_is_given_as_it_is() {
        let answer = b"HTTP/1.1 400 Bad Request\r\n\r\n";
        let mut given = Vec::new();
        let mut cutter = Cutter::default();
        cutter.feed(0, answer, 40, &mut collect(&mut given));
        cutter.finish(&mut collect(&mut given));
        assert_eq!(given, [Given::Bytes(answer.to_vec()), Given::Gap(40 - answer.len() as u64)]);
    }

    proptest! {
        #[test]
        fn each_frame_is_one_piece_however_the_stream_was_read(cuts in prop::collection::vec(0usize..400, 0..12)) {
            let stream = stream();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(stream.len())).collect();
            cuts.sort_unstable();
            let (mut given, mut cutter, mut at) = (Vec::new(), Cutter::default(), 0);
            for cut in cuts.into_iter().chain([stream.len()]) {
                cutter.feed(at as u64, &stream[at..cut], (cut - at) as u64, &mut collect(&mut given));
                at = cut;
            }
            cutter.finish(&mut collect(&mut given));
            prop_assert_eq!(given, frames(&stream));
        }

        #[test]
        fn with_holes_nothing_is_made_up_and_every_byte_is_in_its_place(
            chunks in prop::collection::vec((1usize..200, 0usize..200), 1..20),
        ) {
            let stream = [stream(), stream().split_off(8), stream().split_off(8)].concat();
            let (mut given, mut cutter, mut at) = (Vec::new(), Cutter::default(), 0);
            for (len, captured) in chunks {
                let end = (at + len).min(stream.len());
                let captured = &stream[at..(at + captured).min(end)];
                cutter.feed(at as u64, captured, (end - at) as u64, &mut collect(&mut given));
                at = end;
            }
            cutter.finish(&mut collect(&mut given));
            let mut offset = 0;
            for piece in &given {
                match piece {
                    Given::Bytes(bytes) => {
                        prop_assert_eq!(bytes.as_slice(), &stream[offset..offset + bytes.len()]);
                        offset += bytes.len();
                    }
                    Given::Gap(len) => offset += usize::try_from(*len).unwrap(),
                }
            }
            prop_assert_eq!(offset, at);
        }
    }
}
