//! One direction of one socket: which of its bytes are secret. Knows frames; it must not know of other directions and sockets.

use super::{
    Blanked, Keep,
    bodies::{self, Bodies},
    fields::{Fields, SECURE_OK, START_OK, UPDATE_SECRET},
    recognise::{Opening, is_whole_frame, opening},
};

/// The end byte of every frame (AMQP 0-9-1, 4.2.3).
pub(super) const FRAME_END: u8 = 0xCE;

/// Larger frames are taken for a loss of synchronisation. RabbitMQ's default frame_max is 128 KiB; frame_max 0 means no limit, and
/// a message is then one frame.
const LARGEST_FRAME: u32 = 512 << 20;

/// One direction of one socket.
#[derive(Debug)]
pub(super) struct Stream {
    /// Offset of the next expected byte.
    pub(super) next: u64,
    /// Payload bytes left in the current frame, its end byte not counted.
    left: u64,
    /// The current frame's channel.
    channel: u16,
    phase: Phase,
    bodies: Bodies,
}

impl Default for Stream {
    fn default() -> Self {
        let phase = Phase::Opening(Held::default());
        Self { next: 0, left: 0, channel: 0, phase, bodies: Bodies::default() }
    }
}

/// Bytes of a short fixed structure, gathered across chunks.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    bytes: [u8; 12],
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
    /// In a content header's class, weight and body size.
    Content(Held),
    /// In a payload that carries no secret.
    Readable,
    /// In a piece of a body.
    Body,
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
    pub(super) fn miss(&mut self, mut missing: u64) {
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
                // Of an unknown size: `header` has made the channel's body one of which nothing is known.
                Phase::Content(_) => {
                    self.phase = Phase::Readable;
                    continue;
                }
                Phase::Readable | Phase::Secret => missing.min(self.left),
                Phase::Body => {
                    let taken = missing.min(self.left);
                    self.bodies.miss(self.channel, taken);
                    taken
                }
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

    /// What comes next does not follow what was seen.
    pub(super) fn lose(&mut self) {
        self.phase = Phase::Lost;
    }

    /// Passes over captured bytes and blanks what is secret among them. `base` is the offset of the first.
    pub(super) fn see(&mut self, bytes: &mut [u8], base: u64, keep: Keep, blanked: &mut Blanked) {
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
                        self.bodies.clear();
                        self.phase = Phase::Header(Held::default());
                    }
                }
                Phase::Opening(mut held) => {
                    held.push(bytes[at]);
                    at += 1;
                    self.open(held, keep);
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
                    self.header(held, keep);
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
                Phase::Content(mut held) => {
                    held.push(bytes[at]);
                    at += 1;
                    self.phase = Phase::Content(held);
                    if let Some(size) = bodies::size(held.get()) {
                        self.bodies.begin(self.channel, size);
                        self.phase = Phase::Readable;
                    }
                    self.spend(1);
                }
                Phase::Body => {
                    let taken = rest.min(usize::try_from(self.left).unwrap_or(rest));
                    let piece = &mut bytes[at..at + taken];
                    let first = base.saturating_add(at as u64);
                    self.bodies.mask(self.channel, piece, |start, end| blanked.tell(first, start, end));
                    at += taken;
                    self.spend(taken as u64);
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
                    if let Some(secret) = fields.step(bytes[at], self.left, keep.user_name) {
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

    /// Judges the stream by its first bytes as far as they are there.
    fn open(&mut self, held: Held, keep: Keep) {
        self.phase = match opening(held.get()) {
            Opening::More => Phase::Opening(held),
            Opening::Client => Phase::Header(Held::default()),
            Opening::Server if keep.bodies => Phase::Clear,
            Opening::Server => {
                let mut start = held;
                start.len = 7;
                self.header(start, keep);
                match self.left.checked_sub(4) {
                    Some(left) if left > 0 && matches!(self.phase, Phase::Ids(_)) => {
                        self.left = left;
                        Phase::Readable
                    }
                    _ => Phase::Lost,
                }
            }
            Opening::Line => Phase::FirstLine,
            Opening::Clear => Phase::Clear,
            Opening::Opaque => Phase::Opaque,
            Opening::Unknown => Phase::Lost,
        };
    }

    /// Judges a frame's header as far as it is there.
    fn header(&mut self, held: Held, keep: Keep) {
        self.phase = match *held.get() {
            [kind, ..] if !matches!(kind, 1 | 2 | 3 | 8) => Phase::Lost,
            [kind, c1, c2, a, b, c, d] => {
                let size = u32::from_be_bytes([a, b, c, d]);
                self.left = u64::from(size);
                self.channel = u16::from_be_bytes([c1, c2]);
                if kind == 2 {
                    self.bodies.end(self.channel);
                }
                match (kind, size) {
                    (_, size) if size > LARGEST_FRAME => Phase::Lost,
                    (_, 0) => Phase::End,
                    (1, _) => Phase::Ids(Held::default()),
                    (8, _) => Phase::Lost,
                    _ if keep.bodies => Phase::Readable,
                    (2, _) => Phase::Content(Held::default()),
                    _ => Phase::Body,
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
