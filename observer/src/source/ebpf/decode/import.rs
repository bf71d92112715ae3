//! Imports: which end belongs to which beginning, and how deep it stands. Knows the stack pointers of a thread, and how CPython keeps
//! text.

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use observer_ebpf as wire;
use observer_ebpf::flag;

use crate::event::{Body, CachedImport, Event, Import, Imported, Known, Origin, Pid, Tid};

/// Threads in the middle of an import, and imports inside each other, that are kept apart.
const MAX_THREADS: usize = 20_000;
const MAX_DEPTH: usize = 2_000;
/// Both places stand in one function: their stack pointers differ by the arguments that are passed on the stack.
const SAME_FRAME: u64 = 128;

/// Places that ask for loaded modules, of one process, that are kept apart.
const MAX_PLACES: usize = 50_000;
/// A statement whose module has not begun to load after this long asked for a loaded one.
const PATIENCE_NS: u64 = 1_000_000_000;

/// The imports every thread is in the middle of.
#[derive(Default)]
pub(super) struct Stacks {
    threads: HashMap<u32, Vec<Open>>,
    /// What each thread asked for last. Nothing comes between a statement and the beginning of what it loads.
    asked: HashMap<u32, Asked>,
    /// The places that asked for loaded modules, by process.
    places: HashMap<u32, HashSet<u64>>,
    /// Statements of a place that was told already.
    repeats: u64,
}

#[derive(Clone)]
struct Open {
    module: Known<String>,
    at_ns: u64,
    stack: u64,
}

struct Asked {
    at_ns: u64,
    tgid: u32,
    stack: u64,
    import: CachedImport,
}

impl Stacks {
    /// Import statements of loaded modules, at places that were told already, since the last time this was asked.
    pub(super) fn take_repeats(&mut self) -> u64 {
        std::mem::take(&mut self.repeats)
    }

    /// A child process goes on in the middle of what its parent was in the middle of.
    pub(super) fn fork(&mut self, tid: u32, fork: &wire::Fork) {
        if fork.header.flags & flag::THREAD == 0
            && self.threads.len() < MAX_THREADS
            && let Some(open) = self.threads.get(&tid).filter(|open| !open.is_empty())
        {
            let open = open.clone();
            self.threads.insert(fork.child_tid, open);
        }
    }

    /// The thread is no more.
    pub(super) fn forget(&mut self, tid: u32) {
        self.threads.remove(&tid);
    }

    /// Another program runs in that process, or none.
    pub(super) fn forget_process(&mut self, tgid: u32) {
        self.places.remove(&tgid);
    }

    /// A statement asks for a module.
    pub(super) fn call(&mut self, record: &wire::ImportStart, out: &mut Vec<Event>) {
        let wire::Header { tid, tgid, at_ns, .. } = record.header;
        self.settle(tid, out);
        let import = CachedImport {
            module: module(record),
            level: record.level as u32,
            importer: whole(text(&record.importer, &record.importer_text), wire::IMPORTER_MAX),
            function: whole(text(&record.function, &record.function_text), wire::FUNCTION_MAX),
            depth: self.threads.get(&tid).map_or(0, Vec::len) as u32,
        };
        if self.asked.len() < MAX_THREADS {
            self.asked.insert(tid, Asked { at_ns, tgid, stack: record.stack, import });
        }
    }

    /// What a thread asked for last was there: it goes on. Told once for each place.
    pub(super) fn settle(&mut self, tid: u32, out: &mut Vec<Event>) {
        let Some(Asked { at_ns, tgid, import, .. }) = self.asked.remove(&tid) else { return };
        let mut hasher = DefaultHasher::new();
        (import.module.get(), import.level, import.importer.get(), import.function.get()).hash(&mut hasher);
        let places = self.places.entry(tgid).or_default();
        if places.len() < MAX_PLACES && places.insert(hasher.finish()) {
            let (pid, tid) = (Pid(tgid), Tid(tid));
            let body = Body::CachedImport(Box::new(import));
            out.push(Event { at_ns, pid, tid, observed_from: Origin::Ebpf, body, bytes: Vec::new() });
        } else {
            self.repeats += 1;
        }
    }

    /// Settles what threads asked for a while ago.
    pub(super) fn give_up(&mut self, now_ns: u64, out: &mut Vec<Event>) {
        let old = |asked: &Asked| now_ns.saturating_sub(asked.at_ns) > PATIENCE_NS;
        let tids: Vec<u32> = self.asked.iter().filter(|(_, asked)| old(asked)).map(|(tid, _)| *tid).collect();
        for tid in tids {
            self.settle(tid, out);
        }
    }

    pub(super) fn start(&mut self, record: &wire::ImportStart) -> Body {
        let module = module(record);
        // It stands in the frame of the function that was asked.
        let asked = self.asked.remove(&record.header.tid).filter(|asked| asked.stack > record.stack);
        let mut depth = 0;
        if self.threads.len() < MAX_THREADS || self.threads.contains_key(&record.header.tid) {
            let open = self.threads.entry(record.header.tid).or_default();
            // The stack grows down: what stands no higher has been left without a word (an audit hook refused, an end was lost).
            while open.last().is_some_and(|last| last.stack <= record.stack) {
                open.pop();
            }
            depth = open.len();
            if open.len() < MAX_DEPTH {
                let (at_ns, stack) = (record.header.at_ns, record.stack);
                open.push(Open { module: module.clone(), at_ns, stack });
            }
        }
        Body::Import(Box::new(Import {
            module,
            importer: whole(text(&record.importer, &record.importer_text), wire::IMPORTER_MAX),
            function: whole(text(&record.function, &record.function_text), wire::FUNCTION_MAX),
            level: asked.map(|asked| asked.import.level),
            depth: depth as u32,
        }))
    }

    /// `None` when its beginning was not seen.
    pub(super) fn end(&mut self, record: &wire::ImportEnd) -> Option<Body> {
        let open = self.threads.get_mut(&record.header.tid)?;
        let mine = |one: &Open| one.stack <= record.stack && record.stack - one.stack <= SAME_FRAME;
        let at = open.iter().rposition(mine)?;
        open.truncate(at + 1);
        let begun = open.pop()?;
        if open.is_empty() {
            self.threads.remove(&record.header.tid);
        }
        Some(Body::Imported(Imported {
            module: begun.module,
            since_ns: begun.at_ns,
            loaded: record.module != 0,
            exception: exception(&record.exception),
            depth: at as u32,
        }))
    }
}

fn module(record: &wire::ImportStart) -> Known<String> {
    match text(&record.module, &record.module_text) {
        Known::Is(partial) if record.header.flags & flag::CUT != 0 => {
            Known::Partial { partial, missing_bytes: None }
        }
        module => module,
    }
}

/// The name of a type; `None` when what was read is no name.
fn exception(bytes: &[u8]) -> Option<String> {
    let name = str::from_utf8(bytes.split(|byte| *byte == 0).next()?).ok()?;
    let is_name = |part: &str| {
        !part.is_empty()
            && !part.starts_with(|first: char| first.is_ascii_digit())
            && part.chars().all(|c| c == '_' || c.is_alphanumeric())
    };
    name.split('.').all(is_name).then(|| name.to_owned())
}

/// Text that fills all the room there is may have had more.
fn whole(text: Known<String>, room: usize) -> Known<String> {
    match text {
        Known::Is(partial) if partial.len() + 3 >= room => Known::Partial { partial, missing_bytes: None },
        text => text,
    }
}

/// Characters of one, two or four bytes (PEP 393).
fn text(text: &wire::Text, bytes: &[u8]) -> Known<String> {
    let bytes = bytes.get(..text.len as usize).unwrap_or_default();
    let character = |code: u32| char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
    Known::Is(match text.width {
        1 => bytes.iter().copied().map(char::from).collect(),
        2 => bytes
            .chunks_exact(2)
            .map(|pair| character(u16::from_le_bytes([pair[0], pair[1]]).into()))
            .collect(),
        4 => bytes
            .chunks_exact(4)
            .map(|four| character(u32::from_le_bytes([four[0], four[1], four[2], four[3]])))
            .collect(),
        _ => return Known::unknown(),
    })
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros as _;

    use super::*;

    fn start(stack: u64, name: &str) -> wire::ImportStart {
        let mut record = wire::ImportStart::new_zeroed();
        record.header.tid = 7;
        record.header.at_ns = stack;
        record.stack = stack;
        record.module = wire::Text { len: name.len() as u32, width: 1 };
        record.module_text[..name.len()].copy_from_slice(name.as_bytes());
        record
    }

    fn end(stack: u64, module: u64) -> wire::ImportEnd {
        let mut record = wire::ImportEnd::new_zeroed();
        record.header.tid = 7;
        record.stack = stack;
        record.module = module;
        record
    }

    fn told(body: Option<Body>) -> Option<(String, u32, bool)> {
        match body? {
            Body::Import(import) => Some((import.module.get()?.clone(), import.depth, true)),
            Body::Imported(import) => Some((import.module.get()?.clone(), import.depth, import.loaded)),
            _ => None,
        }
    }

    #[test]
    fn an_end_finds_its_beginning_by_the_stack() {
        let mut stacks = Stacks::default();
        assert_eq!(told(Some(stacks.start(&start(9_000, "a")))), Some(("a".into(), 0, true)));
        assert_eq!(told(Some(stacks.start(&start(8_000, "b")))), Some(("b".into(), 1, true)));
        assert_eq!(told(stacks.end(&end(8_016, 1))), Some(("b".into(), 1, true)));
        // c is left without a word, then d begins at the same place.
        stacks.start(&start(7_000, "c"));
        assert_eq!(told(Some(stacks.start(&start(8_000, "d")))), Some(("d".into(), 1, true)));
        assert_eq!(told(stacks.end(&end(9_016, 0))), Some(("a".into(), 0, false)), "d's end was lost");
        assert_eq!(told(stacks.end(&end(9_016, 1))), None);
    }

    #[test]
    fn what_was_asked_for_and_did_not_load_was_there() {
        let mut stacks = Stacks::default();
        let mut out = Vec::new();
        let mut ask = |stacks: &mut Stacks, stack, name| {
            let mut record = start(stack, name);
            record.level = 1;
            stacks.call(&record, &mut out);
        };
        ask(&mut stacks, 9_100, "a");
        let Body::Import(import) = stacks.start(&start(9_000, "package.a")) else { panic!("no import") };
        assert_eq!(import.level, Some(1));
        ask(&mut stacks, 8_100, "b");
        ask(&mut stacks, 8_100, "b");
        ask(&mut stacks, 8_100, "c");
        stacks.settle(7, &mut out);
        let told: Vec<(String, u32)> = out
            .iter()
            .map(|event| match &event.body {
                Body::CachedImport(import) => (import.module.get().cloned().unwrap(), import.depth),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(told, [("b".to_owned(), 1), ("c".to_owned(), 1)]);
        assert_eq!((stacks.take_repeats(), stacks.take_repeats()), (1, 0));
        let mut failed = end(9_016, 0);
        failed.exception[..11].copy_from_slice(b"ImportError");
        let Some(Body::Imported(import)) = stacks.end(&failed) else { panic!("no end") };
        assert_eq!(import.exception.as_deref(), Some("ImportError"));
        assert_eq!(exception(b"\x1b[2J\0"), None);
        assert_eq!(exception(&[0; 64]), None);
    }

    #[test]
    fn text_of_every_width_is_read() {
        let of = |width: u32, bytes: &[u8]| text(&wire::Text { len: bytes.len() as u32, width }, bytes);
        assert_eq!(of(1, b"caf\xe9"), Known::Is("café".into()));
        assert_eq!(of(2, &[0x42, 0x30]), Known::Is("あ".into()));
        assert_eq!(of(4, &[0x00, 0xf6, 0x01, 0x00]), Known::Is("😀".into()));
        assert_eq!(of(0, b""), Known::unknown());
    }
}
