//! Processes and threads as tracks, and what fills a thread: imports inside of imports, and system calls it sits in. Knows events, and who
//! is who; nothing of connections.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    io::Write,
};

use super::trace::{Lanes, Mark, Trace, Track};
use crate::{
    event::{Body, Event, Import, Imported, Known, Pid, Tid},
    export::{argv, process_name},
    model::{dramatiq, process::Processes},
    words,
};

/// Beyond so many, those that ended are forgotten: what is told of them later is drawn on a track of its own.
const MOST: usize = 50_000;

/// One process.
#[derive(Debug)]
pub(super) struct Place {
    /// Its own track.
    pub(super) track: Track,
    /// Its attempts to connect.
    pub(super) connects: Lanes,
    /// The messages it was given, until they were settled.
    pub(super) messages: Lanes,
    threads: HashSet<Tid>,
    ended: bool,
}

#[derive(Debug)]
struct Thread {
    track: Track,
    pid: Pid,
    open: Vec<Open>,
    /// Before this nothing can be drawn any more.
    last_ns: u64,
    ended: bool,
}

/// A slice that was begun.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Open {
    Import { module: Known<String>, depth: u32 },
    Call,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Places {
    processes: HashMap<Pid, Place>,
    threads: HashMap<Tid, Thread>,
}

impl Places {
    /// The process, whose track is made when it is not there yet.
    pub(super) fn process<W: Write>(
        &mut self,
        trace: &mut Trace<W>,
        known: &Processes,
        pid: Pid,
    ) -> &mut Place {
        self.make_room();
        match self.processes.entry(pid) {
            Entry::Occupied(place) => place.into_mut(),
            Entry::Vacant(place) => {
                let (name, argv) = named(known, pid);
                place.insert(Place::on(trace.process(None, pid.0, &name, argv)))
            }
        }
    }

    /// The same, where nobody can be asked for its name.
    pub(super) fn unnamed<W: Write>(&mut self, trace: &mut Trace<W>, pid: Pid) -> &mut Place {
        self.make_room();
        let make = || Place::on(trace.process(None, pid.0, "process", &[]));
        self.processes.entry(pid).or_insert_with(make)
    }

    fn make_room(&mut self) {
        if self.processes.len() >= MOST {
            self.processes.retain(|_, process| !process.ended);
        }
        if self.threads.len() >= MOST {
            self.threads.retain(|_, thread| !thread.ended);
        }
    }

    /// The track of a thread; of its process when it is none.
    pub(super) fn thread<W: Write>(&mut self, trace: &mut Trace<W>, pid: Pid, tid: Tid) -> Track {
        if tid.0 == 0 {
            return self.unnamed(trace, pid).track;
        }
        self.open_thread(trace, pid, tid).track
    }

    fn open_thread<W: Write>(&mut self, trace: &mut Trace<W>, pid: Pid, tid: Tid) -> &mut Thread {
        if self.threads.get(&tid).is_some_and(|thread| thread.pid != pid) {
            self.threads.remove(&tid);
        }
        let place = self.unnamed(trace, pid);
        let process = place.track;
        place.threads.insert(tid);
        match self.threads.entry(tid) {
            Entry::Occupied(thread) => thread.into_mut(),
            Entry::Vacant(thread) => thread.insert(Thread::on(trace.thread(process, pid.0, tid.0), pid)),
        }
    }

    /// Takes in the next event. `known` has taken it in already.
    pub(super) fn take<W: Write>(&mut self, trace: &mut Trace<W>, known: &Processes, id: u64, event: &Event) {
        let (pid, tid, at_ns) = (event.pid, event.tid, event.at_ns);
        match &event.body {
            // The kernel may have given the id of one that is gone to a new one.
            Body::Fork { child } if self.processes.get(child).is_some_and(|process| process.ended) => {
                self.processes.remove(child);
                self.threads.remove(&Tid(child.0));
            }
            Body::Thread { child } if self.threads.get(child).is_some_and(|thread| thread.ended) => {
                self.threads.remove(child);
            }
            Body::Exec(_) => {
                // What its threads were in the middle of is gone with the old program.
                self.end_threads(trace, pid, at_ns);
                let (name, argv) = named(known, pid);
                let track = self.process(trace, known, pid).track;
                trace.process(Some(track), pid.0, &name, argv);
                let words = words::command(argv);
                trace.instant(
                    at_ns,
                    track,
                    Mark::new("process", "exec").text("argv", Some(words)).count("event", id),
                );
            }
            Body::Exit { code, signal, core_dumped } => {
                self.end_threads(trace, pid, at_ns);
                let name = match (code, signal) {
                    (_, Some(signal)) => format!("killed by {}", words::names::signal(*signal)),
                    (Some(code), None) => format!("exit {code}"),
                    (None, None) => "exit".to_owned(),
                };
                let mark = Mark::new("process", name).whether("core_dumped", *core_dumped).count("event", id);
                let process = self.process(trace, known, pid);
                process.ended = true;
                trace.instant(at_ns, process.track, mark);
            }
            Body::ThreadExit { .. } => {
                if let Some(place) = self.processes.get_mut(&pid) {
                    place.threads.remove(&tid);
                }
                self.end_thread(trace, tid, at_ns);
            }
            Body::Signal { signal, sender, .. } => {
                let from = sender.get().map(|sender| format!("{} {}", sender.pid, sender.name));
                let mark =
                    Mark::new("process", words::names::signal(*signal)).text("from", from).count("event", id);
                let track = self.process(trace, known, pid).track;
                trace.instant(at_ns, track, mark);
            }
            Body::Import(import) => self.import(trace, id, event, import),
            Body::Imported(imported) => self.imported(trace, id, event, imported),
            Body::Stuck { syscall, since_ns, on, .. } => {
                let mark = Mark::new("syscall", syscall).text("on", on.get()).count("event", id);
                let thread = self.open_thread(trace, pid, tid);
                thread.close_calls(trace, *since_ns);
                thread.begin(trace, *since_ns, Open::Call, mark);
            }
            Body::Unstuck { syscall, since_ns, result } => {
                let mark =
                    Mark::new("syscall", syscall).number("result", result.get().copied()).count("event", id);
                let thread = self.open_thread(trace, pid, tid);
                if thread.open.last() != Some(&Open::Call) {
                    thread.begin(trace, *since_ns, Open::Call, mark);
                }
                thread.close_to(trace, at_ns, thread.open.len() - 1);
            }
            _ => {}
        }
    }

    fn import<W: Write>(&mut self, trace: &mut Trace<W>, id: u64, event: &Event, import: &Import) {
        let mark = Mark::new("import", module(&import.module))
            .text("importer", import.importer.get())
            .text("function", import.function.get())
            .count("event", id);
        let thread = self.open_thread(trace, event.pid, event.tid);
        // What is as deep as this one has ended unseen.
        thread.close_from_depth(trace, event.at_ns, import.depth);
        let open = Open::Import { module: import.module.clone(), depth: import.depth };
        thread.begin(trace, event.at_ns, open, mark);
    }

    fn imported<W: Write>(&mut self, trace: &mut Trace<W>, id: u64, event: &Event, imported: &Imported) {
        let thread = self.open_thread(trace, event.pid, event.tid);
        thread.close_from_depth(trace, event.at_ns, imported.depth + 1);
        let this = Open::Import { module: imported.module.clone(), depth: imported.depth };
        if thread.open.last() != Some(&this) {
            thread.close_from_depth(trace, event.at_ns, imported.depth);
            let mark = Mark::new("import", module(&imported.module)).count("event", id);
            thread.begin(trace, imported.since_ns, this, mark);
        }
        if !imported.loaded {
            let mark = Mark::new("import", format!("{} failed", module(&imported.module))).count("event", id);
            trace.instant(event.at_ns.max(thread.last_ns), thread.track, mark);
        }
        thread.close_to(trace, event.at_ns, thread.open.len() - 1);
    }

    fn end_threads<W: Write>(&mut self, trace: &mut Trace<W>, pid: Pid, at_ns: u64) {
        let tids = self.processes.get_mut(&pid).map(|process| std::mem::take(&mut process.threads));
        for tid in tids.unwrap_or_default() {
            if self.threads.get(&tid).is_some_and(|thread| thread.pid == pid) {
                self.end_thread(trace, tid, at_ns);
            }
        }
    }

    fn end_thread<W: Write>(&mut self, trace: &mut Trace<W>, tid: Tid, at_ns: u64) {
        if let Some(thread) = self.threads.get_mut(&tid) {
            thread.close_to(trace, at_ns, 0);
            thread.ended = true;
        }
    }

    /// The end: what is open ends now.
    pub(super) fn finish<W: Write>(&mut self, trace: &mut Trace<W>, at_ns: u64) {
        let mut threads: Vec<&mut Thread> = self.threads.values_mut().collect();
        threads.sort_by_key(|thread| thread.track);
        threads.into_iter().for_each(|thread| thread.close_to(trace, at_ns, 0));
    }
}

impl Place {
    fn on(track: Track) -> Self {
        Self {
            track,
            connects: Lanes::default(),
            messages: Lanes::default(),
            threads: HashSet::new(),
            ended: false,
        }
    }
}

impl Thread {
    const fn on(track: Track, pid: Pid) -> Self {
        Self { track, pid, open: Vec::new(), last_ns: 0, ended: false }
    }

    /// A slice begins inside of those that are open: not before anything that is drawn already.
    fn begin<W: Write>(&mut self, trace: &mut Trace<W>, at_ns: u64, open: Open, mark: Mark) {
        self.last_ns = self.last_ns.max(at_ns);
        self.ended = false;
        trace.begin_slice(self.last_ns, self.track, mark);
        self.open.push(open);
    }

    fn close_to<W: Write>(&mut self, trace: &mut Trace<W>, at_ns: u64, len: usize) {
        while self.open.len() > len {
            self.open.pop();
            self.last_ns = self.last_ns.max(at_ns);
            trace.end_slice(self.last_ns, self.track);
        }
    }

    fn close_calls<W: Write>(&mut self, trace: &mut Trace<W>, at_ns: u64) {
        let imports = self.open.iter().rposition(|open| *open != Open::Call).map_or(0, |last| last + 1);
        self.close_to(trace, at_ns, imports);
    }

    /// Ends system calls, and imports as deep as this or deeper.
    fn close_from_depth<W: Write>(&mut self, trace: &mut Trace<W>, at_ns: u64, least: u32) {
        let shallower = |open: &Open| matches!(open, Open::Import { depth, .. } if *depth < least);
        let kept = self.open.iter().rposition(shallower).map_or(0, |last| last + 1);
        self.close_to(trace, at_ns, kept);
    }
}

fn module(name: &Known<String>) -> &str {
    name.get().map_or("(not known)", String::as_str)
}

/// What a process is called, and its arguments: of a fork, its parent's.
fn named(known: &Processes, pid: Pid) -> (String, &[String]) {
    let argv = argv(known, known.get(pid));
    (process_name(dramatiq::role(known, pid), argv), argv)
}
