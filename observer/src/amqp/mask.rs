//! Blanks the secrets of AMQP streams before they are stored. Knows frames, the three methods that carry secrets and that bodies carry
//! arguments; it must not know who records the streams nor where they go.
//!
//! Each direction of each socket is judged by itself and online: whether a byte is blanked depends on the bytes before it, never
//! on how the stream was cut into chunks. Only after a gap, when frame boundaries are lost, is the current chunk searched for
//! a whole frame; everything before it is blanked.

mod bodies;
mod fields;
mod recognise;
mod stream;

use std::collections::HashMap;

use stream::Stream;

use crate::event::{Direction, SocketId};

/// What a secret is overwritten with.
const BLANK: u8 = b'*';

/// Blanks the secrets of connections: the SASL response of `connection.start-ok` and `connection.secure-ok`, the new secret of
/// `connection.update-secret` (RabbitMQ's extension, sent by OAuth 2 clients), and, in both directions, the arguments of dramatiq
/// messages ([`BodyMasker`](super::dramatiq::BodyMasker) says which bytes, and what stays). A body that is no dramatiq message is
/// blanked whole; properties and headers of messages stay.
///
/// Where it cannot tell it blanks: the rest of a frame with a gap where a length should be, the rest of a body with a gap, bodies whose
/// content header was not seen, everything after a gap until a whole frame is seen, and every stream that opens like
/// nothing it knows. HTTP answers keep their first line, HTTP requests their method, TLS records are left alone: they are what a
/// wrong port answers.
///
/// Memory: about 100 bytes a direction and 128 for each of at most 32 bodies under way in it, until [`StreamMasker::forget`].
#[derive(Debug, Default)]
pub struct StreamMasker {
    streams: HashMap<(SocketId, Direction), Stream>,
    keep: Keep,
}

/// What is left readable.
#[derive(Clone, Copy, Debug, Default)]
struct Keep {
    user_name: bool,
    bodies: bool,
}

impl StreamMasker {
    /// A masker that has seen nothing and blanks SASL responses whole.
    pub fn new() -> Self {
        Self::default()
    }

    /// Leaves the user name of a `PLAIN` response readable (`\0user\0********`).
    #[must_use]
    pub fn keeping_user_name(self) -> Self {
        Self { keep: Keep { user_name: true, ..self.keep }, ..self }
    }

    /// Leaves message bodies as they are.
    #[must_use]
    pub fn keeping_bodies(self) -> Self {
        Self { keep: Keep { bodies: true, ..self.keep }, ..self }
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
            None => stream.lose(),
        }
        stream.see(bytes, offset, self.keep, &mut blanked);
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
        self.tell(base, start, end);
    }

    /// Notes what was blanked, `[start, end)` from `base` on.
    fn tell(&mut self, base: u64, start: usize, end: usize) {
        let (start, end) = (base.saturating_add(start as u64), base.saturating_add(end as u64));
        match self.ranges.last_mut() {
            Some(last) if last.1 == start => last.1 = end,
            _ => self.ranges.push((start, end)),
        }
    }
}

#[cfg(test)]
mod tests;
