//! Finds frame boundaries again after a gap. Knows what a frame looks like; it must not know what came before.
//!
//! A method, content header or heartbeat frame is accepted when it decodes whole and ends in 0xCE; a body frame, whose payload can
//! be anything, when a possible frame header follows it as well. The candidate that is proved by the earliest byte wins, so that
//! the outcome does not depend on how the stream was cut.

use super::frame::{Content, FRAME_END, FrameHeader, HEADER_BYTES, decode};
use crate::amqp::names::method_name;

/// Candidates that wait for their end. Noise makes few; beyond this the oldest is given up.
const MOST_PENDING: usize = 64;

/// While boundaries are lost no larger frame is believed, unless the connection negotiated a smaller size.
const LARGEST_CANDIDATE: u32 = 1 << 20;

/// The search after one gap. Holds at most one candidate frame and what follows its header.
#[derive(Clone, Debug, Default)]
pub(super) struct Search {
    /// What may still be the beginning of a frame.
    pub(super) buffer: Vec<u8>,
    /// Positions in the buffer below this have been looked at.
    scanned: usize,
    pending: Vec<Candidate>,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    start: usize,
    header: FrameHeader,
}

impl Candidate {
    fn end(&self) -> usize {
        self.start + self.header.frame_len()
    }

    /// How many bytes it takes to judge it.
    fn needs(&self) -> usize {
        if self.header.frame_type == 3 { self.end() + HEADER_BYTES } else { self.end() }
    }

    fn is_frame(&self, bytes: &[u8], largest: u32) -> bool {
        let Some(frame) = bytes.get(self.start..self.end()) else { return false };
        if frame.last() != Some(&FRAME_END) {
            return false;
        }
        if self.header.frame_type == 3 {
            let after = bytes.get(self.end()..).unwrap_or_default();
            return match after.len() {
                // Only at the very end of a stream.
                0 => true,
                1..HEADER_BYTES => matches!(after.first(), Some(1 | 2 | 3 | 8)),
                _ => FrameHeader::read(after, largest).is_some(),
            };
        }
        matches!(
            decode(self.header, frame),
            Content::Method { .. } | Content::Header { .. } | Content::Heartbeat
        )
    }
}

impl Search {
    /// Forgets everything: what comes next does not adjoin.
    pub(super) fn clear(&mut self) {
        self.buffer.clear();
        self.scanned = 0;
        self.pending.clear();
    }

    /// Looks on in `bytes`, which begin with what was kept the last time. Answers where a frame begins.
    ///
    /// `at_end`: nothing more will come, judge by what is there.
    pub(super) fn look(&mut self, bytes: &[u8], frame_max: Option<u32>, at_end: bool) -> Option<usize> {
        let largest = match frame_max {
            None | Some(0) => LARGEST_CANDIDATE,
            Some(max) => max.min(LARGEST_CANDIDATE),
        };
        let mut best: Option<Candidate> = None;
        let consider = |candidate: Candidate, best: &mut Option<Candidate>| {
            let ready = candidate.needs() <= bytes.len() || at_end && candidate.end() <= bytes.len();
            if !ready {
                return true;
            }
            let sooner = best.is_none_or(|best| candidate.needs() < best.needs());
            if sooner && candidate.is_frame(bytes, largest) {
                *best = Some(candidate);
            }
            false
        };
        self.pending.retain(|candidate| consider(*candidate, &mut best));
        while self.scanned + HEADER_BYTES <= bytes.len()
            && best.is_none_or(|best| self.scanned < best.needs())
        {
            let start = self.scanned;
            self.scanned += 1;
            let Some(candidate) = candidate(bytes, start, largest) else { continue };
            if consider(candidate, &mut best) {
                if self.pending.len() == MOST_PENDING {
                    self.pending.remove(0);
                }
                self.pending.push(candidate);
            }
        }
        best.map(|best| best.start)
    }

    /// Keeps of `bytes`, just looked at in vain, what may still become a frame.
    pub(super) fn keep(&mut self, bytes: &[u8]) {
        let from = self.kept_from();
        self.buffer.extend_from_slice(bytes.get(from..).unwrap_or_default());
        self.rebase(from);
    }

    /// The same for the search's own buffer.
    pub(super) fn trim(&mut self) {
        let from = self.kept_from().min(self.buffer.len());
        self.buffer.drain(..from);
        self.rebase(from);
    }

    fn kept_from(&self) -> usize {
        self.pending.first().map_or(self.scanned, |oldest| oldest.start)
    }

    fn rebase(&mut self, from: usize) {
        self.scanned = self.scanned.saturating_sub(from);
        for candidate in &mut self.pending {
            candidate.start = candidate.start.saturating_sub(from);
        }
    }
}

/// Whether a frame may begin at `start`.
fn candidate(bytes: &[u8], start: usize, largest: u32) -> Option<Candidate> {
    let rest = bytes.get(start..)?;
    let header = FrameHeader::read(rest, largest)?;
    let possible = match (header.frame_type, rest.get(HEADER_BYTES..)?) {
        (1, [c1, c2, m1, m2, ..]) => {
            method_name(u16::from_be_bytes([*c1, *c2]), u16::from_be_bytes([*m1, *m2])).is_some()
        }
        (1, _) => header.size >= 4,
        (2, [class_high, class_low, ..]) => [*class_high, *class_low] == [0, 60],
        (2, _) => header.size >= 14,
        // RabbitMQ sends no empty body frames.
        (3, _) => header.size > 0,
        _ => true,
    };
    possible.then_some(Candidate { start, header })
}
