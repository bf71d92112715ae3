//! The message bodies under way in one direction of a connection, by channel. Knows content headers and dramatiq's masker; it must not
//! know where frames begin and end.

use super::BLANK;
use crate::amqp::dramatiq::BodyMasker;

/// Bodies under way at once: a client sends one after the other, on few channels. When there are more, the oldest is given up, and what
/// is left of it blanked.
const MOST: usize = 32;

/// Bodies whose content header was seen and whose end was not.
#[derive(Debug, Default)]
pub(super) struct Bodies {
    open: Vec<Body>,
}

#[derive(Debug)]
struct Body {
    channel: u16,
    /// Bytes still to come.
    left: u64,
    masker: BodyMasker,
}

impl Bodies {
    /// A content header on `channel` announces a body of `size` bytes.
    pub(super) fn begin(&mut self, channel: u16, size: u64) {
        self.end(channel);
        if size == 0 {
            return;
        }
        if self.open.len() == MOST {
            self.open.remove(0);
        }
        self.open.push(Body { channel, left: size, masker: BodyMasker::new() });
    }

    /// What comes on `channel` up to the next content header belongs to nothing known.
    pub(super) fn end(&mut self, channel: u16) {
        self.open.retain(|body| body.channel != channel);
    }

    /// Nothing is known of any channel.
    pub(super) fn clear(&mut self) {
        self.open.clear();
    }

    /// Blanks what is secret in the next piece of a body frame, and tells the ranges, as offsets in `piece`.
    pub(super) fn mask(&mut self, channel: u16, piece: &mut [u8], mut blanked: impl FnMut(usize, usize)) {
        let mut known = 0;
        if let Some(at) = self.find(channel) {
            let body = &mut self.open[at];
            known = piece.len().min(usize::try_from(body.left).unwrap_or(usize::MAX));
            body.masker.mask_with(&mut piece[..known], &mut blanked);
            self.spend(at, known as u64);
        }
        // Behind the announced end, or of a body whose beginning was not seen.
        if known < piece.len() {
            piece[known..].fill(BLANK);
            blanked(known, piece.len());
        }
    }

    /// Passes over a piece of a body frame that was not captured.
    pub(super) fn miss(&mut self, channel: u16, missing: u64) {
        if let Some(at) = self.find(channel) {
            self.open[at].masker.lose();
            self.spend(at, missing);
        }
    }

    fn find(&self, channel: u16) -> Option<usize> {
        self.open.iter().position(|body| body.channel == channel)
    }

    fn spend(&mut self, at: usize, taken: u64) {
        let body = &mut self.open[at];
        body.left = body.left.saturating_sub(taken);
        if body.left == 0 {
            self.open.remove(at);
        }
    }
}

/// The body's size, from the beginning of a content header: class, weight, size (AMQP 0-9-1, 4.2.6.1).
pub(super) fn size(header: &[u8]) -> Option<u64> {
    let [_, _, _, _, size @ ..] = header else { return None };
    size.try_into().ok().map(u64::from_be_bytes)
}
