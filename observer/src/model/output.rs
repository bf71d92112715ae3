//! Output: what the processes wrote, counted whole and kept at its end. Knows bytes and lines; the text is the target's and hostile.

use std::collections::{BTreeMap, VecDeque};

use super::mark::Mark;
use crate::{
    event::{Body, Event, OutputStream, Pid},
    python,
};

/// Of each stream, and of all together, this many lines are kept.
const MAX_LINES: usize = 20;
/// Of a line, this many bytes are kept.
const MAX_LINE_BYTES: usize = 400;
/// Streams told apart; more are not kept.
const MAX_STREAMS: usize = 20_000;

/// One line that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When its end was written.
    pub at_ns: u64,
    /// The event that says so.
    pub event: u64,
    /// By whom.
    pub pid: Pid,
    /// Where to.
    pub stream: OutputStream,
    /// Its bytes, cut at 400, without the newline.
    pub bytes: Vec<u8>,
    relayed: bool,
}

/// One stream of one process.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// Bytes written.
    pub bytes: u64,
    /// Newlines among those that were kept.
    pub lines: u64,
    /// Writes that failed, and the last error number.
    pub failed: Option<(u64, i32)>,
    /// The first write that failed.
    pub first_failed: Option<Mark>,
    /// The last whole lines, oldest first.
    pub last: VecDeque<Vec<u8>>,
    /// What stands after the last newline, when it was written.
    pub unfinished: Option<(u64, Vec<u8>)>,
}

/// All output.
#[derive(Clone, Debug, Default)]
pub struct Outputs {
    /// By process and stream (`stream_order` of it).
    streams: BTreeMap<(Pid, u8), Written>,
    tail: VecDeque<Line>,
}

const fn stream_order(stream: OutputStream) -> u8 {
    match stream {
        OutputStream::Stdout => 0,
        OutputStream::Stderr => 1,
        OutputStream::Pipe => 2,
    }
}

const fn stream_at(order: u8) -> OutputStream {
    match order {
        0 => OutputStream::Stdout,
        1 => OutputStream::Stderr,
        _ => OutputStream::Pipe,
    }
}

impl Outputs {
    /// Every stream.
    pub fn iter(&self) -> impl Iterator<Item = (Pid, OutputStream, &Written)> {
        self.streams.iter().map(|((pid, order), written)| (*pid, stream_at(*order), written))
    }

    /// The last lines of all streams together, oldest first. A line that a parent relayed from a worker's pipe stands here once, as the
    /// worker's: dramatiq's parent prints what its workers write.
    pub fn tail(&self) -> impl Iterator<Item = &Line> {
        self.tail.iter()
    }

    /// `parent_of` tells who started a process.
    pub(super) fn add(&mut self, id: u64, event: &Event, parent_of: impl Fn(Pid) -> Option<Pid>) {
        let Body::Output { stream, len, errno, .. } = &event.body else { return };
        let key = (event.pid, stream_order(*stream));
        if !self.streams.contains_key(&key) && self.streams.len() >= MAX_STREAMS {
            return;
        }
        let written = self.streams.entry(key).or_default();
        if *errno != 0 {
            let count = written.failed.map_or(0, |(count, _)| count);
            written.failed = Some((count + 1, *errno));
            written.first_failed.get_or_insert(Mark::new(id, event));
            return;
        }
        written.bytes += len;
        let text = match stream {
            OutputStream::Pipe => python::connection_message(&event.bytes).unwrap_or(&event.bytes),
            _ => &event.bytes,
        };
        for bytes in written.complete(event.at_ns, text) {
            let line = Line {
                at_ns: event.at_ns,
                event: id,
                pid: event.pid,
                stream: *stream,
                bytes,
                relayed: false,
            };
            push_line(&mut self.tail, line, &parent_of);
        }
    }
}

fn push_line(tail: &mut VecDeque<Line>, line: Line, parent_of: impl Fn(Pid) -> Option<Pid>) {
    let origin = tail.iter_mut().find(|earlier| {
        earlier.stream == OutputStream::Pipe
            && !earlier.relayed
            && earlier.bytes == line.bytes
            && parent_of(earlier.pid) == Some(line.pid)
    });
    match origin {
        Some(origin) if line.stream != OutputStream::Pipe => origin.relayed = true,
        _ => push_bounded(tail, line),
    }
}

fn push_bounded<T>(queue: &mut VecDeque<T>, item: T) {
    if queue.len() >= MAX_LINES {
        queue.pop_front();
    }
    queue.push_back(item);
}

impl Written {
    /// Takes in more bytes and gives back the lines they completed; at most as many as are kept.
    fn complete(&mut self, at_ns: u64, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut whole = VecDeque::new();
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            let (piece, after) = rest.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            let mut line = self.unfinished.take().map(|(_, line)| line).unwrap_or_default();
            extend_bounded(&mut line, piece);
            self.lines += 1;
            push_bounded(&mut self.last, line.clone());
            push_bounded(&mut whole, line);
        }
        if !rest.is_empty() {
            let (written_ns, line) = self.unfinished.get_or_insert_with(|| (at_ns, Vec::new()));
            *written_ns = at_ns;
            extend_bounded(line, rest);
        }
        whole.into()
    }
}

fn extend_bounded(line: &mut Vec<u8>, piece: &[u8]) {
    let room = MAX_LINE_BYTES.saturating_sub(line.len());
    line.extend_from_slice(piece.get(..room).unwrap_or(piece));
}
