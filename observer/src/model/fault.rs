//! What `faulthandler` wrote before a crash: the Python calls of the thread that crashed. Knows the form of its text (CPython 3.10 to 3.14,
//! `Python/traceback.c`, `_Py_DumpTracebackThreads`); nothing of signals.

use std::collections::BTreeMap;

use super::mark::Mark;
use crate::event::{Body, Event, OutputStream, Pid, Tid};

/// Writers followed at once, and processes whose stack is kept.
const MAX_WRITERS: usize = 1_000;
/// Calls kept of a stack, the innermost.
const MAX_CALLS: usize = 16;
const MAX_LINE_BYTES: usize = 1_024;

/// One Python call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The file.
    pub file: String,
    /// The line.
    pub line: u32,
    /// The function.
    pub function: String,
    /// The write that ended its line.
    pub mark: Mark,
}

/// The stacks of threads that crashed.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    stacks: BTreeMap<Pid, Vec<Call>>,
    writers: BTreeMap<(Pid, Tid), Writer>,
}

#[derive(Clone, Debug, Default)]
struct Writer {
    line: Vec<u8>,
    /// Within the lines of the current thread.
    inside: bool,
}

impl Faults {
    /// The calls of the thread of a process that crashed, the innermost first; empty when it did not say.
    pub fn of(&self, pid: Pid) -> &[Call] {
        self.stacks.get(&pid).map_or(&[], Vec::as_slice)
    }

    pub(super) fn add(&mut self, id: u64, event: &Event) {
        match &event.body {
            // It writes to the descriptor itself, never into a pipe that carries messages.
            Body::Output { stream: OutputStream::Stdout | OutputStream::Stderr, errno: 0, .. } => {
                let key = (event.pid, event.tid);
                if !self.writers.contains_key(&key) && self.writers.len() >= MAX_WRITERS {
                    return;
                }
                let writer = self.writers.entry(key).or_default();
                for &byte in &event.bytes {
                    if byte != b'\n' {
                        if writer.line.len() < MAX_LINE_BYTES {
                            writer.line.push(byte);
                        }
                        continue;
                    }
                    let line = std::mem::take(&mut writer.line);
                    let line = String::from_utf8_lossy(&line);
                    if line.starts_with("Current thread 0x") {
                        writer.inside = true;
                        self.stacks.insert(event.pid, Vec::new());
                    } else if writer.inside {
                        match (call(&line, Mark::new(id, event)), self.stacks.get_mut(&event.pid)) {
                            (Some(call), Some(stack)) if stack.len() < MAX_CALLS => stack.push(call),
                            (Some(_), _) => {}
                            (None, _) => writer.inside = false,
                        }
                    }
                }
            }
            Body::ThreadExit { .. } | Body::Exit { .. } => drop(self.writers.remove(&(event.pid, event.tid))),
            Body::Fork { child } => drop(self.stacks.remove(child)),
            _ => {}
        }
    }
}

/// `  File "/app/tasks.py", line 12 in crash`
fn call(line: &str, mark: Mark) -> Option<Call> {
    let (file, rest) = line.strip_prefix("  File \"")?.rsplit_once("\", line ")?;
    let (number, function) = rest.split_once(" in ")?;
    let (file, line, function) = (file.to_owned(), number.parse().ok()?, function.to_owned());
    Some(Call { file, line, function, mark })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::Fd,
        model::fixture::{WORKER, at, carrying},
    };

    #[test]
    fn only_the_current_thread_counts_and_it_comes_in_pieces() {
        let text = "Fatal Python error: Segmentation fault\n\nThread 0x1 (most recent call first):\n  File \"/a.py\", line 1 in wait\n\n\
                    Current thread 0x2 (most recent call first):\n  File \"/b.py\", line 12 in crash\n  File \"/c.py\", line 3 in run\n\n\
                    Extension modules: x (total: 1)\n";
        let mut faults = Faults::default();
        for (id, piece) in (1..).zip(text.as_bytes().chunks(5)) {
            let body = Body::Output {
                stream: OutputStream::Stderr,
                fd: Fd(2),
                inode: 1,
                len: 5,
                piece_offset: 0,
                errno: 0,
            };
            faults.add(id, &carrying(piece, at(id, WORKER, 7, body)));
        }
        let calls: Vec<_> =
            faults.of(Pid(WORKER)).iter().map(|call| (call.file.as_str(), call.line)).collect();
        assert_eq!(calls, [("/b.py", 12), ("/c.py", 3)]);
    }
}
