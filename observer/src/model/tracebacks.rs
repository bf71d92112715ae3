//! Tracebacks: the exceptions that processes printed, each once. Knows output; what an exception means is for others to say.
//!
//! The text is support, not proof: a process may print a traceback of an exception it has dealt with, and one may be missing because
//! the process that was to relay it ended first.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
};

use super::mark::Mark;
use crate::{
    event::{Body, Event, OutputStream, Pid, Tid},
    python::traceback::{Line, Parser, Traceback},
};

/// Tracebacks kept of one process; beyond so many the latest takes the place of the one before it.
const MAX_OF_PROCESS: usize = 24;
/// Tracebacks kept of all processes.
const MAX_ALL: usize = 1_000;
/// Writers followed at once.
const MAX_WRITERS: usize = 5_000;
/// Of a line, this many bytes are read.
const MAX_LINE_BYTES: usize = 4_096;
/// Lines of tracebacks remembered, to be known again when an ancestor relays them.
const MAX_RELAYED: usize = 8_192;
/// Of lines that are alike, this many.
const MAX_ALIKE: usize = 32;
/// A process has few ancestors; a circle, from reused ids, would have no end.
const MAX_ANCESTORS: usize = 16;

/// An exception that a process printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raised {
    /// What it printed.
    pub traceback: Traceback,
    /// Where to.
    pub stream: OutputStream,
    /// The write that began it. It names the process and the thread that wrote.
    pub first: Mark,
    /// The write that ended it: the line with the exception.
    pub last: Mark,
    /// How often the same was printed.
    pub count: u64,
}

/// All tracebacks.
#[derive(Clone, Debug, Default)]
pub struct Tracebacks {
    all: Vec<Raised>,
    /// Tracebacks that are not kept because there were too many.
    pub left_out: u64,
    // Threads write to one stream in pieces: a traceback is put together thread by thread.
    writers: BTreeMap<(Pid, u8, Tid), Writer>,
    /// Lines that were written, by the hash of their text: by whom, to which inode. And the hashes in order of time.
    told: HashMap<u64, VecDeque<(Pid, u64)>>,
    order: VecDeque<u64>,
}

#[derive(Clone, Debug, Default)]
struct Writer {
    parser: Parser,
    line: Vec<u8>,
    began: Option<Mark>,
}

impl Tracebacks {
    /// All, in order of time.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Raised> {
        self.all.iter()
    }

    /// Those of one process, in order of time.
    pub fn of(&self, pid: Pid) -> impl DoubleEndedIterator<Item = &Raised> {
        self.all.iter().filter(move |raised| raised.last.pid == pid)
    }

    /// Takes in the next event. `parent_of` tells who started a process.
    pub(super) fn add(&mut self, id: u64, event: &Event, parent_of: impl Fn(Pid) -> Option<Pid>) {
        match &event.body {
            Body::Output { stream, inode, piece_offset, errno: 0, .. } => {
                let key = (event.pid, *stream as u8, event.tid);
                if !self.writers.contains_key(&key) && self.writers.len() >= MAX_WRITERS {
                    return;
                }
                let mut writer = self.writers.remove(&key).unwrap_or_default();
                let mark = Mark::new(id, event);
                for &byte in text(*stream, *piece_offset, &event.bytes) {
                    if byte == b'\n' {
                        let line = std::mem::take(&mut writer.line);
                        self.line(&mut writer, &line, mark, (*stream, *inode), &parent_of);
                    } else if writer.line.len() < MAX_LINE_BYTES {
                        writer.line.push(byte);
                    }
                }
                self.writers.insert(key, writer);
            }
            Body::ThreadExit { .. } => self.writers.retain(|key, _| key.2 != event.tid),
            Body::Exit { .. } => self.close(event.pid, Mark::new(id, event), &parent_of),
            _ => {}
        }
    }

    /// A process is gone: what it wrote without a newline was its last word.
    fn close(&mut self, pid: Pid, mark: Mark, parent_of: impl Fn(Pid) -> Option<Pid>) {
        let keys: Vec<_> = self
            .writers
            .range((pid, 0, Tid(0))..=(pid, u8::MAX, Tid(u32::MAX)))
            .map(|(key, _)| *key)
            .collect();
        for key in keys {
            let Some(mut writer) = self.writers.remove(&key) else { continue };
            if writer.parser.is_open() && !writer.line.is_empty() {
                let line = std::mem::take(&mut writer.line);
                let mark = Mark { tid: key.2, ..mark };
                self.line(&mut writer, &line, mark, (stream_at(key.1), 0), &parent_of);
            }
        }
    }

    fn line(
        &mut self,
        writer: &mut Writer,
        line: &[u8],
        mark: Mark,
        (stream, inode): (OutputStream, u64),
        parent_of: impl Fn(Pid) -> Option<Pid>,
    ) {
        let mut hasher = DefaultHasher::new();
        line.hash(&mut hasher);
        let hash = hasher.finish();
        if self.take_relayed(mark.pid, inode, hash, &parent_of) {
            // Its own parent may relay it once more.
            self.remember(mark.pid, inode, hash);
            return;
        }
        match writer.parser.push(&String::from_utf8_lossy(line)) {
            Line::Other => return,
            Line::Part => {}
            Line::First => writer.began = Some(mark),
            Line::Last(traceback) => {
                let first = writer.began.take().unwrap_or(mark);
                self.push(Raised { traceback: *traceback, stream, first, last: mark, count: 1 }, &parent_of);
            }
        }
        self.remember(mark.pid, inode, hash);
    }

    fn remember(&mut self, pid: Pid, inode: u64, hash: u64) {
        if self.order.len() >= MAX_RELAYED
            && let Some(oldest) = self.order.pop_front()
            && let Some(told) = self.told.get_mut(&oldest)
        {
            told.pop_front();
            if told.is_empty() {
                self.told.remove(&oldest);
            }
        }
        let told = self.told.entry(hash).or_default();
        if told.len() >= MAX_ALIKE {
            told.pop_front();
        }
        told.push_back((pid, inode));
        self.order.push_back(hash);
    }

    /// Whether a line was written before, by a descendant, to something else: then it is relayed.
    fn take_relayed(
        &mut self,
        pid: Pid,
        inode: u64,
        hash: u64,
        parent_of: impl Fn(Pid) -> Option<Pid>,
    ) -> bool {
        let Some(told) = self.told.get_mut(&hash) else { return false };
        let relayed = told.iter().position(|(writer, to)| *to != inode && descends(*writer, pid, &parent_of));
        let Some(index) = relayed else { return false };
        told.remove(index);
        true
    }

    fn push(&mut self, raised: Raised, parent_of: impl Fn(Pid) -> Option<Pid>) {
        let pid = raised.last.pid;
        // Printed again; or a chain or group whose beginning was handed out before.
        let known = self.all.iter_mut().rev().take(100).find(|known| {
            known.last.pid == pid
                && (known.traceback.is_same(&raised.traceback)
                    || (known.last.tid == raised.last.tid
                        && known.stream == raised.stream
                        && raised
                            .traceback
                            .earlier
                            .as_ref()
                            .is_some_and(|(_, t)| t.is_same(&known.traceback))))
        });
        if let Some(known) = known {
            let again = known.traceback.is_same(&raised.traceback) && raised.traceback.members.is_empty();
            known.count += u64::from(again);
            known.last = raised.last;
            known.traceback = raised.traceback;
            return;
        }
        // The relay's write may have returned before the one it relays.
        let relay = self.all.iter().rev().take(100).position(|known| {
            known.traceback.is_same(&raised.traceback) && descends(pid, known.last.pid, &parent_of)
        });
        if let Some(back) = relay {
            self.all.remove(self.all.len() - 1 - back);
        } else if self.all.iter().rev().take(100).any(|known| {
            known.traceback.is_same(&raised.traceback) && descends(known.last.pid, pid, &parent_of)
        }) {
            return;
        }
        if self.of(pid).count() >= MAX_OF_PROCESS {
            self.left_out += 1;
            if let Some(latest) = self.all.iter_mut().rev().find(|known| known.last.pid == pid) {
                *latest = raised;
            }
        } else if self.all.len() >= MAX_ALL {
            self.left_out += 1;
        } else {
            self.all.push(raised);
        }
    }
}

/// The text of a write. What dramatiq's workers hand to their parent is preceded by its length (`multiprocessing.connection`, CPython
/// 3.10 to 3.14), in the same write or, above 16 KiB, in one of its own; no text begins with a zero byte.
fn text(stream: OutputStream, piece_offset: u64, bytes: &[u8]) -> &[u8] {
    match bytes {
        [0, _, _, _, text @ ..] if stream == OutputStream::Pipe && piece_offset == 0 => text,
        _ => bytes,
    }
}

const fn stream_at(order: u8) -> OutputStream {
    match order {
        0 => OutputStream::Stdout,
        1 => OutputStream::Stderr,
        _ => OutputStream::Pipe,
    }
}

/// Whether `pid` is a child of `ancestor`, or a child's child.
fn descends(pid: Pid, ancestor: Pid, parent_of: impl Fn(Pid) -> Option<Pid>) -> bool {
    std::iter::successors(parent_of(pid), |parent| parent_of(*parent))
        .take(MAX_ANCESTORS)
        .any(|parent| parent == ancestor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::Fd,
        model::{
            Model,
            fixture::{MASTER, STARTED_NS, WORKER, at, carrying},
        },
    };

    const TEXT: &str = "Traceback (most recent call last):\n  File \"/app/w.py\", line 3, in <module>\n    import nowhere\nModuleNotFoundError: No module named 'nowhere'\n";

    fn write(since_us: u64, (pid, tid): (u32, u32), stream: OutputStream, bytes: &[u8]) -> Event {
        let inode = if stream == OutputStream::Pipe { u64::from(pid) } else { 1 };
        let len = bytes.len() as u64;
        carrying(
            bytes,
            at(since_us, pid, tid, Body::Output { stream, fd: Fd(2), inode, len, piece_offset: 0, errno: 0 }),
        )
    }

    fn message(text: &str) -> Vec<u8> {
        let length = u32::try_from(text.len()).unwrap().to_be_bytes();
        [&length[..], text.as_bytes()].concat()
    }

    fn raised(events: &[Event]) -> Vec<(u32, String, u64)> {
        let mut all = vec![at(0, MASTER, MASTER, Body::Fork { child: Pid(WORKER) })];
        all.extend_from_slice(events);
        let model = Model::fold(STARTED_NS, &all);
        model.tracebacks.iter().map(|r| (r.last.pid.0, r.traceback.kind.clone(), r.count)).collect()
    }

    fn one(pid: u32, count: u64) -> Vec<(u32, String, u64)> {
        vec![(pid, "ModuleNotFoundError".to_owned(), count)]
    }

    #[test]
    fn a_relayed_one_is_its_writers_and_counts_once() {
        let worker = (WORKER, WORKER);
        let mut events: Vec<Event> = Vec::new();
        for line in TEXT.split_inclusive('\n') {
            events.push(write(10, worker, OutputStream::Pipe, &message(line)));
            events.push(write(11, (MASTER, 9), OutputStream::Stderr, line.as_bytes()));
        }
        assert_eq!(raised(&events), one(WORKER, 1));
        events.reverse();
        let late: Vec<Event> = vec![
            write(10, (MASTER, 9), OutputStream::Stderr, TEXT.as_bytes()),
            write(11, worker, OutputStream::Pipe, &message(TEXT)),
        ];
        assert_eq!(raised(&late), one(WORKER, 1));
    }

    #[test]
    fn the_masters_own_is_the_masters() {
        let events = [write(10, (MASTER, MASTER), OutputStream::Stderr, TEXT.as_bytes())];
        assert_eq!(raised(&events), one(MASTER, 1));
    }

    #[test]
    fn pieces_of_two_threads_are_kept_apart() {
        let mut events = Vec::new();
        let mut other = TEXT.split_inclusive(' ').cycle();
        for piece in TEXT.split_inclusive([' ', '\n']) {
            events.push(write(10, (WORKER, WORKER), OutputStream::Stderr, piece.as_bytes()));
            events.push(write(10, (WORKER, 7), OutputStream::Stderr, other.next().unwrap().as_bytes()));
        }
        assert!(raised(&events).iter().any(|found| *found == one(WORKER, 1)[0] || found.2 == 2));
    }

    #[test]
    fn what_has_no_newline_at_the_end_is_the_last_word() {
        let events = [
            write(10, (WORKER, WORKER), OutputStream::Stderr, TEXT.trim_end().as_bytes()),
            at(20, WORKER, WORKER, Body::Exit { code: Some(1), signal: None, core_dumped: false }),
        ];
        assert_eq!(raised(&events), one(WORKER, 1));
    }

    #[test]
    fn a_loop_of_failures_is_bounded() {
        let events: Vec<Event> = (0..500)
            .map(|n| {
                write(
                    n,
                    (WORKER, WORKER),
                    OutputStream::Stderr,
                    TEXT.replace("nowhere", &format!("m{n}")).as_bytes(),
                )
            })
            .chain((0..500).map(|n| write(600 + n, (WORKER, WORKER), OutputStream::Stderr, TEXT.as_bytes())))
            .collect();
        let found = raised(&events);
        assert!(found.len() <= MAX_OF_PROCESS && found.last().unwrap().2 > 400, "{found:?}");
    }
}
