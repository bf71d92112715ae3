//! Blanks the secrets of AMQP streams before they are stored. Knows frames and the three methods that carry secrets; it must not
//! know who records the streams nor where they go.
//!
//! Each direction of each socket is judged by itself and online: whether a byte is blanked depends on the bytes before it, never
//! on how the stream was cut into chunks. Only after a gap, when frame boundaries are lost, is the current chunk searched for
//! a whole frame; everything before it is blanked.

mod fields;
mod recognise;

use std::collections::HashMap;

use fields::{Fields, SECURE_OK, START_OK, UPDATE_SECRET};
use recognise::{is_whole_frame, opening};

use crate::event::{Direction, SocketId};

/// What a secret is overwritten with.
const BLANK: u8 = b'*';

/// The end byte of every frame (AMQP 0-9-1, 4.2.3).
const FRAME_END: u8 = 0xCE;

/// Larger frames are taken for a loss of synchronisation. RabbitMQ's default frame_max is 128 KiB; frame_max 0 means no limit, and
/// a message is then one frame.
const LARGEST_FRAME: u32 = 512 << 20;

/// Blanks the secrets of client streams: the SASL response of `connection.start-ok` and `connection.secure-ok`, and the new secret
/// of `connection.update-secret` (RabbitMQ's extension, sent by OAuth 2 clients).
///
/// Where it cannot tell it blanks: the rest of a frame with a gap where a length should be, everything after a gap until a whole
/// frame is seen, and every stream that opens like nothing it knows. HTTP answers keep their first line, HTTP requests their
/// method, TLS records are left alone: they are what a wrong port answers.
///
/// Memory: about 64 bytes a direction, until [`SaslMasker::forget`].
#[derive(Debug, Default)]
pub struct SaslMasker {
    streams: HashMap<(SocketId, Direction), Stream>,
    keep_user_name: bool,
}

impl SaslMasker {
    /// A masker that has seen nothing and blanks SASL responses whole.
    pub fn new() -> Self {
        Self::default()
    }

    /// A masker that leaves the user name of a `PLAIN` response readable (`\0user\0********`).
    pub fn keeping_user_name() -> Self {
        Self { keep_user_name: true, ..Self::default() }
    }

    /// Blanks, in place, what is secret in one recorded chunk, and returns the blanked ranges as `[start, end)` stream offsets.
    ///
    /// Call it for every chunk, in stream order per socket and direction. `offset` is where the chunk stands in the stream, `len` its
    /// true length; `bytes` holds what was captured of its beginning. An offset beyond the last chunk's end is a gap; offset 0
    /// begins a stream anew.
    pub fn mask(
        &mut self,
        socket: SocketId,
        direction: Direction,
        offset: u64,
        len: u64,
        bytes: &mut [u8],
    ) -> Vec<(u64, u64)> {
        let len = len.max(bytes.len() as u64);
        let mut blanked = Blanked::default();
        if len == 0 {
            return blanked.ranges;
        }
        let stream = self.streams.entry((socket, direction)).or_default();
        if offset == 0 {
            *stream = Stream::default();
        }
        match offset.checked_sub(stream.next) {
            Some(missing) => stream.miss(missing),
            None => stream.phase = Phase::Lost,
        }
        stream.see(bytes, offset, self.keep_user_name, &mut blanked);
        stream.miss(len - bytes.len() as u64);
        stream.next = offset.saturating_add(len);
        blanked.ranges
    }

    /// Drops what is known of a socket: it was closed.
    pub fn forget(&mut self, socket: SocketId) {
        self.streams.remove(&(socket, Direction::Sent));
        self.streams.remove(&(socket, Direction::Received));
    }
}

/// One direction of one socket.
#[derive(Debug)]
struct Stream {
    /// Offset of the next expected byte.
    next: u64,
    /// Payload bytes left in the current frame, its end byte not counted.
    left: u64,
    phase: Phase,
}

impl Default for Stream {
    fn default() -> Self {
        Self { next: 0, left: 0, phase: Phase::Opening(Held::default()) }
    }
}

/// Bytes of a short fixed structure, gathered across chunks.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    bytes: [u8; 11],
    len: u8,
}

impl Held {
    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(usize::from(self.len)) {
            *slot = byte;
            self.len += 1;
        }
    }

    fn get(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

/// Where in the stream we are.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// In the first bytes of the stream.
    Opening(Held),
    /// In a frame's seven-byte header.
    Header(Held),
    /// In a method frame's class and method ids.
    Ids(Held),
    /// In the fields of a method that carries a secret.
    Fields(Fields),
    /// In a payload that carries no secret.
    Readable,
    /// In a payload that may carry one.
    Secret,
    /// At a frame's end byte.
    End,
    /// In the first line of a stream that is not AMQP.
    FirstLine,
    /// Nothing secret comes in this stream.
    Clear,
    /// Nothing more in this stream can be judged.
    Opaque,
    /// Frame boundaries are lost.
    Lost,
}

impl Stream {
    /// Passes over `missing` bytes that were not captured.
    fn miss(&mut self, mut missing: u64) {
        while missing > 0 {
            let taken = match &mut self.phase {
                Phase::Clear | Phase::Opaque | Phase::Lost => return,
                Phase::FirstLine => {
                    self.phase = Phase::Opaque;
                    return;
                }
                Phase::Opening(_) | Phase::Header(_) => {
                    self.phase = Phase::Lost;
                    return;
                }
                Phase::Ids(_) => {
                    self.phase = Phase::Secret;
                    continue;
                }
                Phase::Fields(fields) if fields.content_left == 0 => {
                    self.phase = Phase::Secret;
                    continue;
                }
                Phase::Fields(fields) => {
                    let taken = missing.min(fields.content_left);
                    fields.content_left -= taken;
                    // Which bytes a gap swallowed decides what they were: PLAIN or not, before or after the user name.
                    fields.separators = 2;
                    fields.advance();
                    taken
                }
                Phase::Readable | Phase::Secret => missing.min(self.left),
                Phase::End => {
                    self.phase = Phase::Header(Held::default());
                    missing -= 1;
                    continue;
                }
            };
            missing -= taken;
            self.spend(taken);
        }
    }

    /// Takes `taken` bytes off the current frame's payload.
    fn spend(&mut self, taken: u64) {
        self.left = self.left.saturating_sub(taken);
        if self.left == 0 {
            self.phase = Phase::End;
        }
    }

    /// Passes over captured bytes and blanks what is secret among them. `base` is the offset of the first.
    fn see(&mut self, bytes: &mut [u8], base: u64, keep_user_name: bool, blanked: &mut Blanked) {
        let mut at = 0;
        // Where the structure being gathered began in this chunk: if it proves impossible, the search starts there.
        let mut began = 0;
        while at < bytes.len() {
            let rest = bytes.len() - at;
            match self.phase {
                Phase::Clear => return,
                Phase::Opaque => {
                    blanked.blank(bytes, base, at, bytes.len());
                    return;
                }
                Phase::FirstLine => {
                    let line = bytes.iter().skip(at).position(|byte| *byte == b'\n');
                    at = line.map_or(bytes.len(), |end| at + end + 1);
                    if line.is_some() {
                        self.phase = Phase::Opaque;
                    }
                }
                Phase::Lost => {
                    let found = (at..bytes.len()).find(|&start| is_whole_frame(&bytes[start..]));
                    let end = found.unwrap_or(bytes.len());
                    blanked.blank(bytes, base, at, end);
                    at = end;
                    began = at;
                    if found.is_some() {
                        self.phase = Phase::Header(Held::default());
                    }
                }
                Phase::Opening(mut held) => {
                    held.push(bytes[at]);
                    at += 1;
                    self.phase = opening(held);
                    match self.phase {
                        Phase::Lost => at = began,
                        Phase::Opening(_) => {}
                        _ => began = at,
                    }
                }
                Phase::Header(mut held) => {
                    if held.len == 0 {
                        began = at;
                    }
                    held.push(bytes[at]);
                    at += 1;
                    self.header(held);
                    if matches!(self.phase, Phase::Lost) {
                        at = began;
                    }
                }
                Phase::Ids(mut held) => {
                    held.push(bytes[at]);
                    at += 1;
                    self.phase = ids(held);
                    self.spend(1);
                }
                Phase::Readable => {
                    let taken = rest.min(usize::try_from(self.left).unwrap_or(rest));
                    at += taken;
                    self.spend(taken as u64);
                }
                Phase::Secret => {
                    let taken = rest.min(usize::try_from(self.left).unwrap_or(rest));
                    blanked.blank(bytes, base, at, at + taken);
                    at += taken;
                    self.spend(taken as u64);
                }
                Phase::Fields(mut fields) => {
                    self.phase = Phase::Secret;
                    if let Some(secret) = fields.step(bytes[at], self.left, keep_user_name) {
                        if secret {
                            blanked.blank(bytes, base, at, at + 1);
                        }
                        at += 1;
                        self.phase = Phase::Fields(fields);
                        self.spend(1);
                    }
                }
                Phase::End if bytes[at] == FRAME_END => {
                    at += 1;
                    self.phase = Phase::Header(Held::default());
                }
                Phase::End => self.phase = Phase::Lost,
            }
        }
    }

    /// Judges a frame's header as far as it is there.
    fn header(&mut self, held: Held) {
        self.phase = match *held.get() {
            [kind, ..] if !matches!(kind, 1 | 2 | 3 | 8) => Phase::Lost,
            [kind, _, _, a, b, c, d] => {
                let size = u32::from_be_bytes([a, b, c, d]);
                self.left = u64::from(size);
                match (kind, size) {
                    (_, size) if size > LARGEST_FRAME => Phase::Lost,
                    (_, 0) => Phase::End,
                    (1, _) => Phase::Ids(Held::default()),
                    _ => Phase::Readable,
                }
            }
            _ => Phase::Header(held),
        };
    }
}

/// What a method is, by its ids as far as they are there.
fn ids(held: Held) -> Phase {
    match *held.get() {
        [0, 10, 0, 11] => Phase::Fields(Fields::new(START_OK)),
        [0, 10, 0, 21] => Phase::Fields(Fields::new(SECURE_OK)),
        [0, 10, 0, 70] => Phase::Fields(Fields::new(UPDATE_SECRET)),
        [_, _, _, _] => Phase::Readable,
        _ => Phase::Ids(held),
    }
}

/// What was blanked in one chunk.
#[derive(Debug, Default)]
struct Blanked {
    ranges: Vec<(u64, u64)>,
}

impl Blanked {
    fn blank(&mut self, bytes: &mut [u8], base: u64, start: usize, end: usize) {
        if start >= end {
            return;
        }
        if let Some(secret) = bytes.get_mut(start..end) {
            secret.fill(BLANK);
        }
        let (start, end) = (base.saturating_add(start as u64), base.saturating_add(end as u64));
        match self.ranges.last_mut() {
            Some(last) if last.1 == start => last.1 = end,
            _ => self.ranges.push((start, end)),
        }
    }
}

#[cfg(test)]
mod tests;
