//! One direction of one connection: recorded chunks → AMQP 0-9-1 frames. Knows bytes and frames; nothing of the other direction.
//!
//! A recording has holes: chunks cut by the capture length, lost, or sent before we came. A hole whose place inside a frame is known
//! costs that frame only; after any other the decoder searches for the next frame and says what it passed over.

mod frame;
mod search;

pub use frame::{Content, Foreign, Frame, protocol_name};
use frame::{FRAME_END, FrameHeader, HEADER_BYTES, Opening, decode, opening};
use search::Search;

/// Larger frames cannot be, where the connection's own frame_max was not seen.
const LARGEST_UNKNOWN: u32 = 16 << 20;
/// The limit where frame_max is 0, for none. RabbitMQ's largest message is 512 MiB.
const LARGEST_UNLIMITED: u32 = 512 << 20;

/// Decodes one direction of one connection.
///
/// Memory: at most one method or content header frame, or what is searched after a gap: frame_max, and never much over 1 MiB.
/// Bodies are not held.
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    /// Offset of the next expected byte.
    next: u64,
    frame_max: Option<u32>,
    state: State,
    /// The beginning of a structure that came in several chunks; it ends at `next`.
    held: Vec<u8>,
}

#[derive(Clone, Debug, Default)]
enum State {
    /// In the first bytes of the stream.
    #[default]
    Opening,
    /// At a frame's first byte, or in a frame that is being held.
    Frame,
    /// In a body frame's payload.
    Body { header: FrameHeader, start: u64, at: u32 },
    /// In the payload of a frame that has a hole and cannot be decoded.
    Skip { start: u64, left: u64 },
    /// At the end byte of a frame that was not held; it was skipped when `skipped` says where it began.
    End { skipped: Option<u64> },
    /// Frame boundaries are lost since that offset.
    Lost { since: u64, search: Search },
    /// Not AMQP.
    Foreign,
}

/// Bytes to go through again, and the offset of the first.
type Again = (Vec<u8>, u64);

impl Decoder {
    /// A decoder for a stream that begins at offset 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells the negotiated frame_max (0 is no limit): larger frames are refused.
    pub fn set_frame_max(&mut self, frame_max: u32) {
        self.frame_max = Some(frame_max);
    }

    /// Offset after the last byte that was fed.
    pub fn offset(&self) -> u64 {
        self.next
    }

    /// Takes one recorded chunk: `captured` is the beginning of what stood at `offset`, `len` its true length. Bytes already seen are
    /// passed over. Every frame that is now complete goes to `sink`.
    pub fn feed(&mut self, offset: u64, captured: &[u8], len: u64, sink: &mut impl FnMut(Frame<'_>)) {
        let seen = self.next.saturating_sub(offset);
        let end = offset.saturating_add(len.max(captured.len() as u64));
        if end <= self.next {
            return;
        }
        self.gap(offset, sink);
        if let Some(new) = captured.get(usize::try_from(seen).unwrap_or(usize::MAX)..) {
            let mut again = self.consume(new, sink);
            while let Some((bytes, offset)) = again {
                self.next = offset;
                again = self.consume(&bytes, sink);
            }
        }
        self.gap(end, sink);
    }

    /// Ends the stream: what is still undecided is decided by what is there.
    pub fn finish(&mut self, sink: &mut impl FnMut(Frame<'_>)) {
        let end = self.next;
        while let State::Lost { search, .. } = &mut self.state {
            let buffer = std::mem::take(&mut search.buffer);
            let Some(found) = search.look(&buffer, self.frame_max, true) else { break };
            self.next = end - (buffer.len() - found) as u64;
            self.found(self.next, sink);
            let mut again = self.consume(buffer.get(found..).unwrap_or_default(), sink);
            while let Some((bytes, offset)) = again {
                self.next = offset;
                again = self.consume(&bytes, sink);
            }
        }
        let start = match &self.state {
            State::Foreign => end,
            State::Lost { since, .. } => *since,
            State::Skip { start, .. } | State::Body { start, .. } => *start,
            State::End { skipped } => skipped.unwrap_or(end),
            State::Opening | State::Frame => self.held_start(),
        };
        unseen(start, end, sink);
        self.held.clear();
        self.state = State::Foreign;
    }

    fn held_start(&self) -> u64 {
        self.next - self.held.len() as u64
    }

    fn largest(&self) -> u32 {
        match self.frame_max {
            None => LARGEST_UNKNOWN,
            Some(0) => LARGEST_UNLIMITED,
            Some(max) => max,
        }
    }

    /// Boundaries are found again at `start`.
    fn found(&mut self, start: u64, sink: &mut impl FnMut(Frame<'_>)) {
        if let State::Lost { since, .. } = self.state {
            unseen(since, start, sink);
        }
        self.state = State::Frame;
    }

    fn lose(&mut self, since: u64) {
        self.state = State::Lost { since, search: Search::default() };
    }

    /// Passes over everything up to `end`: it was not captured.
    fn gap(&mut self, end: u64, sink: &mut impl FnMut(Frame<'_>)) {
        while self.next < end {
            let gap = end - self.next;
            let mut taken = gap;
            match &mut self.state {
                State::Foreign => {}
                State::Lost { search, .. } => search.clear(),
                State::Opening | State::Frame => {
                    let start = self.held_start();
                    let header = match self.state {
                        State::Frame => FrameHeader::read(&self.held, self.largest()),
                        _ => None,
                    };
                    match header {
                        Some(header) => {
                            let left = header.frame_len() - 1 - self.held.len().min(header.frame_len() - 1);
                            self.state = match left as u64 {
                                0 => State::End { skipped: Some(start) },
                                left => State::Skip { start, left },
                            };
                            taken = 0;
                        }
                        None => self.lose(start),
                    }
                    self.held.clear();
                }
                State::Body { header, start, at } => {
                    let missing = u32::try_from(gap).unwrap_or(u32::MAX).min(header.size - *at);
                    sink(body(*header, *start, *at, &[], missing));
                    *at += missing;
                    taken = u64::from(missing);
                    if *at == header.size {
                        self.state = State::End { skipped: None };
                    }
                }
                State::Skip { start, left } => {
                    taken = gap.min(*left);
                    *left -= taken;
                    if *left == 0 {
                        self.state = State::End { skipped: Some(*start) };
                    }
                }
                State::End { skipped } => {
                    taken = 1;
                    unseen(skipped.unwrap_or(self.next + 1), self.next + 1, sink);
                    self.state = State::Frame;
                }
            }
            self.next += taken;
        }
    }

    /// Goes through captured bytes, the first of which stands at `next`. What it could not place comes back.
    fn consume(&mut self, mut bytes: &[u8], sink: &mut impl FnMut(Frame<'_>)) -> Option<Again> {
        while let Some(first) = bytes.first() {
            let mut taken = bytes.len();
            match &mut self.state {
                State::Foreign => {}
                State::Opening => {
                    let start = self.held_start();
                    self.held.push(*first);
                    taken = 1;
                    let content = match opening(&self.held) {
                        Opening::More => None,
                        Opening::Amqp(version) => {
                            self.state = if version == [0, 0, 9, 1] { State::Frame } else { State::Foreign };
                            Some(Content::ProtocolHeader { version })
                        }
                        Opening::Foreign(foreign) => {
                            self.state = State::Foreign;
                            Some(Content::NotAmqp(foreign))
                        }
                        Opening::Unknown => {
                            self.lose(start);
                            return self.again(start, bytes.get(1..).unwrap_or_default());
                        }
                    };
                    if let Some(content) = content {
                        sink(Frame { start, end: self.next + 1, content });
                        self.held.clear();
                    }
                }
                State::Frame => match self.frame(bytes, sink) {
                    Ok(len) => taken = len,
                    Err(again) => return again,
                },
                State::Body { header, start, at } => {
                    let left = (header.size - *at) as usize;
                    let piece = bytes.get(..left).unwrap_or(bytes);
                    taken = piece.len();
                    if taken > 0 || header.size == 0 {
                        sink(body(*header, *start, *at, piece, 0));
                    }
                    *at += taken as u32;
                    if *at == header.size {
                        self.state = State::End { skipped: None };
                    }
                }
                State::Skip { start, left } => {
                    taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= taken as u64;
                    if *left == 0 {
                        self.state = State::End { skipped: Some(*start) };
                    }
                }
                State::End { skipped } => {
                    let start = skipped.unwrap_or(self.next);
                    if *first == FRAME_END {
                        taken = 1;
                        if skipped.is_some() {
                            unseen(start, self.next + 1, sink);
                        }
                        self.state = State::Frame;
                    } else {
                        taken = 0;
                        self.lose(start);
                    }
                }
                State::Lost { search, .. } if search.buffer.is_empty() => {
                    if let Some(start) = search.look(bytes, self.frame_max, false) {
                        taken = start;
                        self.found(self.next + start as u64, sink);
                    } else {
                        search.keep(bytes);
                    }
                }
                State::Lost { search, .. } => {
                    let mut buffer = std::mem::take(&mut search.buffer);
                    let base = self.next - buffer.len() as u64;
                    buffer.extend_from_slice(bytes);
                    if let Some(start) = search.look(&buffer, self.frame_max, false) {
                        let offset = base + start as u64;
                        buffer.drain(..start);
                        self.found(offset, sink);
                        return Some((buffer, offset));
                    }
                    search.buffer = buffer;
                    search.trim();
                }
            }
            self.next += taken as u64;
            bytes = bytes.get(taken..).unwrap_or_default();
        }
        None
    }

    /// Gives back what was held, and what comes after it, to be searched.
    fn again(&mut self, start: u64, rest: &[u8]) -> Option<Again> {
        let mut bytes = std::mem::take(&mut self.held);
        bytes.extend_from_slice(rest);
        Some((bytes, start))
    }

    /// At or in a frame: takes as much of it as is there, and answers how much that was.
    fn frame(&mut self, bytes: &[u8], sink: &mut impl FnMut(Frame<'_>)) -> Result<usize, Option<Again>> {
        let start = self.held_start();
        let held = self.held.len();
        if held == 0 && bytes.len() >= HEADER_BYTES {
            let Some(header) = FrameHeader::read(bytes, self.largest()) else {
                self.lose(start);
                return Ok(0);
            };
            if header.frame_type == 3 {
                self.state = State::Body { header, start, at: 0 };
                return Ok(HEADER_BYTES);
            }
            if let Some(frame) = bytes.get(..header.frame_len()) {
                if frame.last() != Some(&FRAME_END) {
                    self.lose(start);
                    return Ok(0);
                }
                let end = start + frame.len() as u64;
                sink(Frame { start, end, content: decode(header, frame) });
                return Ok(frame.len());
            }
        }
        let wanted = if held < HEADER_BYTES {
            HEADER_BYTES
        } else {
            // It was read when the seventh byte came.
            FrameHeader::read(&self.held, self.largest()).map_or(held, FrameHeader::frame_len)
        };
        let piece = bytes.get(..wanted.saturating_sub(held)).unwrap_or(bytes);
        self.held.extend_from_slice(piece);
        let rest = bytes.get(piece.len()..).unwrap_or_default();
        if self.held.len() < HEADER_BYTES {
            return Ok(piece.len());
        }
        let Some(header) = FrameHeader::read(&self.held, self.largest()) else {
            self.lose(start);
            return Err(self.again(start, rest));
        };
        if header.frame_type == 3 {
            self.held.clear();
            self.state = State::Body { header, start, at: 0 };
        } else if self.held.len() == header.frame_len() {
            if self.held.last() != Some(&FRAME_END) {
                self.lose(start);
                return Err(self.again(start, rest));
            }
            let end = start + self.held.len() as u64;
            sink(Frame { start, end, content: decode(header, &self.held) });
            self.held.clear();
        }
        Ok(piece.len())
    }
}

fn unseen(start: u64, end: u64, sink: &mut impl FnMut(Frame<'_>)) {
    if start < end {
        sink(Frame { start, end, content: Content::Unseen });
    }
}

fn body(header: FrameHeader, start: u64, at: u32, bytes: &[u8], missing: u32) -> Frame<'_> {
    let FrameHeader { channel, size, .. } = header;
    let end = start + header.frame_len() as u64;
    Frame { start, end, content: Content::Body { channel, size, at, bytes, missing } }
}

#[cfg(test)]
mod tests;
