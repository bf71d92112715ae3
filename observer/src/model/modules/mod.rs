//! The tree of imports of every process: what imported what, from which file, how long it took. Joins the imports an interpreter was seen
//! to make with the files its threads opened meanwhile. Knows events only.
//!
//! What was not seen to be imported but whose file was opened as imports open files is there too, and marked as inferred: what
//! `importlib.import_module` and `python -m` load, and all modules of an interpreter that could not be probed. When such a module was
//! ready is not known.

mod program;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

pub use program::{AtEnd, Before, Cached, Program};
use serde::Serialize;

use super::{files, mark::Mark};
use crate::{
    event::{Body, Distributions, Event, FileCall, Pid, Tid},
    python::{self, naming},
};

/// Modules kept of one program, and of all.
const MAX_MODULES: usize = 20_000;
const MAX_ALL: usize = 200_000;
/// Modules kept of programs that have ended: the oldest are forgotten first.
const MAX_ENDED: usize = 20_000;
/// Directories of one search that are kept.
const MAX_TRIED: usize = 64;
/// How far up forks are followed.
const MAX_FORKS: usize = 64;
const MAX_DISTRIBUTIONS: usize = 64;
/// Files of one program that add to its module path.
const MAX_PTH: usize = 64;
const TOP_LEVEL: &str = "<module>";

/// One module, as it was imported by one process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Module {
    /// Its absolute name; of an inferred one as far as its path tells.
    pub name: String,
    /// Whether the name is only the beginning of it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub name_cut: bool,
    /// Whether it is only known from the file that was opened.
    pub inferred: bool,
    /// The thread.
    pub tid: Tid,
    /// The event that began it.
    pub event: u64,
    /// When it began.
    pub start_ns: u64,
    /// When it had been imported, or had failed; `None`: not seen.
    pub end_ns: Option<u64>,
    /// Whether it was imported; `None`: not seen.
    pub loaded: Option<bool>,
    /// The type of the exception with which it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exception: Option<String>,
    /// How many packages up the statement's name started (see [`crate::event::Import::level`]).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub level: Option<u32>,
    /// The module during whose import it was imported, by its place in the list.
    pub parent: Option<usize>,
    /// How many modules it is inside of.
    pub depth: usize,
    /// The source file, or extension module, it came from, or the archive it is in; `None` for what is frozen or built in, for a
    /// namespace, and for what was not found.
    pub file: Option<String>,
    /// The file whose code asked for it.
    pub importer: Option<String>,
    /// The function of that file.
    pub function: Option<String>,
    /// The directories it was looked for in, in order; only those asked again for this module.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tried: Vec<String>,
    /// The directories it consists of, when it is a namespace (PEP 420): at least the first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub portions: Vec<String>,
    /// Time spent importing other modules meanwhile, in nanoseconds.
    pub inside_ns: u64,
}

impl Module {
    /// How long it took, with what it imported.
    pub fn total_ns(&self) -> Option<u64> {
        Some(self.end_ns?.saturating_sub(self.start_ns))
    }

    /// Whether its time is part of no other's.
    pub fn is_outermost(&self, all: &[Self]) -> bool {
        let mut next = self.parent;
        while let Some(parent) = next.and_then(|parent| all.get(parent)) {
            if !parent.inferred {
                return false;
            }
            next = parent.parent;
        }
        !self.inferred
    }

    /// How long it took, without what it imported.
    pub fn self_ns(&self) -> Option<u64> {
        Some(self.total_ns()?.saturating_sub(self.inside_ns))
    }
}

/// Of all processes.
#[derive(Clone, Debug, Default)]
pub struct Modules {
    programs: BTreeMap<(Pid, usize), Program>,
    current: HashMap<Pid, usize>,
    distributions: Vec<Distributions>,
    kept: usize,
    /// Programs that have ended, each with how many modules it had then, and how many that are.
    ended: VecDeque<((Pid, usize), usize)>,
    kept_of_ended: usize,
}

impl Modules {
    /// Every program that imported something or is known to be Python, by process and in order of time.
    pub fn programs(&self) -> impl Iterator<Item = &Program> {
        self.programs.values().filter(|program| program.interpreter.is_some() || !program.modules.is_empty())
    }

    /// What a process imported last.
    pub fn of(&self, pid: Pid) -> Option<&Program> {
        self.programs.get(&(pid, *self.current.get(&pid)?))
    }

    /// Versions of what was loaded.
    pub fn distributions(&self) -> &[Distributions] {
        &self.distributions
    }

    pub(super) fn add(&mut self, id: u64, event: &Event) {
        match &event.body {
            Body::Fork { child } => {
                self.begin(*child, event.at_ns);
                let forked = self.of(event.pid).map(|parent| parent.forked(*child, event.at_ns));
                if let (Some(forked), Some(child)) = (forked, self.current(*child)) {
                    *child = forked;
                }
            }
            Body::Exec(_) => {
                self.over(event.pid);
                self.begin(event.pid, event.at_ns);
            }
            Body::Exit { .. } => self.over(event.pid),
            Body::Interpreter(interpreter) => {
                if let Some(program) = self.current(event.pid) {
                    program.interpreter = Some((**interpreter).clone());
                }
            }
            Body::Distributions(found) if self.distributions.len() < MAX_DISTRIBUTIONS => {
                self.distributions.push(found.clone());
            }
            Body::ModuleShadows(shadows) => {
                if let Some(program) = self.current(event.pid) {
                    program.shadows = Some(shadows.clone());
                }
            }
            Body::LoadedModules(loaded) => {
                let seen = self.seen_by(event.pid);
                let unseen = loaded.names.iter().filter(|name| !seen.contains(name.as_str()));
                let at_end = AtEnd {
                    event: id,
                    modules: loaded.names.len() as u64,
                    complete: loaded.complete,
                    otherwise_unseen: unseen.cloned().collect(),
                };
                if let Some(program) = self.current(event.pid) {
                    program.at_end = Some(at_end);
                }
            }
            Body::Import(import) => self.with_room(event.pid, |program| {
                program.import(Mark::new(id, event), event.tid, import);
            }),
            Body::Imported(import) => {
                if let Some(program) = self.current(event.pid) {
                    program.imported(event.at_ns, event.tid, import);
                }
            }
            Body::CachedImport(import) => {
                if let Some(program) = self.current(event.pid) {
                    program.cached_import(Mark::new(id, event), event.tid, import);
                }
            }
            Body::Open(call) if call.flags & 3 == 0 => self.opened(Mark::new(id, event), event.tid, call),
            Body::Stat(call) if call.errno == 0 => {
                if let Some(path) = files::path_of(call)
                    && let Some(program) = self.current(event.pid)
                {
                    program.asked(event.tid, path);
                }
            }
            _ => {}
        }
    }

    fn begin(&mut self, pid: Pid, since_ns: u64) {
        let empty = self.of(pid).is_none_or(|program| program.modules.is_empty());
        let number = match self.current.get(&pid) {
            Some(number) if empty => *number,
            Some(number) => number + 1,
            None if self.current.len() >= MAX_ALL => return,
            None => 0,
        };
        self.current.insert(pid, number);
        self.programs.insert((pid, number), Program::new(pid, since_ns));
    }

    /// A process is over, or its program: in a recording of days, what the first of thousands imported makes room for the last.
    fn over(&mut self, pid: Pid) {
        let Some(number) = self.current.get(&pid).copied() else { return };
        let Some(program) = self.programs.get_mut(&(pid, number)) else { return };
        // A program that imported nothing makes way for the next under the same number.
        if program.modules.is_empty() || std::mem::replace(&mut program.over, true) {
            return;
        }
        program.modules.shrink_to_fit();
        let had = program.modules.len();
        self.kept_of_ended += had;
        self.ended.push_back(((pid, number), had));
        while self.kept_of_ended > MAX_ENDED
            && self.ended.len() > 1
            && let Some((oldest, had)) = self.ended.pop_front()
        {
            // It may have got more since, from a process of the same number whose birth was not seen.
            self.kept_of_ended -= had;
            self.kept -= self.programs.get_mut(&oldest).map_or(0, Program::forget);
        }
    }

    /// Names of the modules that a process was seen to load, and those it was forked from before it.
    fn seen_by(&self, pid: Pid) -> HashSet<&str> {
        let mut seen = HashSet::new();
        let mut next = self.of(pid);
        // What forked itself is an ancestor of nobody: the way up ends.
        for _ in 0..MAX_FORKS {
            let Some(program) = next else { break };
            seen.extend(program.modules.iter().map(|module| module.name.as_str()));
            next = program.before.and_then(|before| self.of(before.pid));
        }
        seen
    }

    fn current(&mut self, pid: Pid) -> Option<&mut Program> {
        self.programs.get_mut(&(pid, *self.current.get(&pid)?))
    }

    /// Does something that may add a module, or counts that there is no room for one.
    fn with_room(&mut self, pid: Pid, add: impl FnOnce(&mut Program)) {
        if !self.current.contains_key(&pid) {
            self.begin(pid, 0);
        }
        let full = self.kept >= MAX_ALL;
        let Some(program) = self.current(pid) else { return };
        let before = program.modules.len();
        if full || before >= MAX_MODULES {
            program.left_out += 1;
            return;
        }
        add(program);
        let added = program.modules.len() - before;
        self.kept += added;
    }

    fn opened(&mut self, mark: Mark, tid: Tid, call: &FileCall) {
        let Some(path) = files::path_of(call) else { return };
        if call.errno == 0 && (path.ends_with(".pth") || naming::is_archive(path)) {
            if let Some(program) = self.current(mark.pid) {
                program.opened_beside(tid, path);
            }
            return;
        }
        let Some(module) = python::module_file(path) else { return };
        let Some(program) = self.current(mark.pid) else { return };
        if files::is_missing(call.errno) {
            if path.ends_with(".pyc") {
                program.missed.insert(tid, module.path);
            }
            return;
        }
        if call.errno != 0 || program.is_known(&module.path) {
            return;
        }
        // Source is opened for other reasons too (a traceback, `inspect`); to import it, its bytecode was looked for just before.
        let missed = program.missed.remove(&tid).is_some_and(|missed| missed == module.path);
        let by_import = missed || path.ends_with(".so") || path.contains("/__pycache__/");
        if program.came_from(tid, &module.path) || !by_import {
            return;
        }
        self.with_room(mark.pid, |program| program.infer(mark, tid, module.path, &module.owner));
    }
}

#[cfg(test)]
mod tests;
