//! Files: which modules each process imported, and what could not be opened. Knows file calls; nothing of what a missing file means.

use std::{
    collections::{BTreeMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
};

use super::mark::Mark;
use crate::{
    event::{Body, Event, FileCall, Pid},
    python::{self, Owner},
};

/// `open`'s access mode, and the two error numbers by which a search goes on.
const O_ACCMODE: u64 = 3;
const ENOENT: i32 = 2;
const ENOTDIR: i32 = 20;
/// Of the user's own modules of one process, this many are kept by name.
const MAX_OWN: usize = 1_000;
/// Modules of one process told apart; more are not counted.
const MAX_MODULES: usize = 100_000;
/// Files that could not be opened, kept by name.
const MAX_REFUSED: usize = 200;

/// What one process imported, by the files it opened.
#[derive(Clone, Debug, Default)]
pub struct Imports {
    /// The user's own module files, and when each was first opened.
    pub own: BTreeMap<String, Mark>,
    /// Module files opened of each installed top-level package.
    pub packages: BTreeMap<String, u64>,
    /// Module files opened of the standard library.
    pub stdlib: u64,
    /// The user's own module files that are not in `own` because there were too many.
    pub own_left_out: u64,
    seen: HashSet<u64>,
}

/// A file that could not be opened for another reason than that it does not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Who tried first.
    pub pid: Pid,
    /// When it was first tried.
    pub first_ns: u64,
    /// How often it was tried.
    pub count: u64,
    /// The event of the first try.
    pub event: u64,
}

/// All that is known of files.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// Imports by process.
    pub imports: BTreeMap<Pid, Imports>,
    /// Calls that named something that does not exist, by process: mostly Python searching its path.
    pub missing: BTreeMap<Pid, u64>,
    /// Files that exist and could not be opened, by path and error number.
    pub refused: BTreeMap<(String, i32), Refused>,
    /// Refused files that are not in `refused` because there were too many.
    pub refused_left_out: u64,
}

/// The path a file call was about: resolved when that is known, else as given.
pub fn path_of(call: &FileCall) -> Option<&str> {
    let whole = |path: &'_ Option<&String>| path.is_some_and(|path| !path.is_empty());
    Some(call.resolved.get())
        .filter(whole)
        .or_else(|| Some(call.path.get()).filter(whole))
        .flatten()
        .map(String::as_str)
}

/// The module file an event imported from: one opened for reading, with success.
pub fn imported(body: &Body) -> Option<python::ModuleFile> {
    match body {
        Body::Open(call) if call.errno == 0 && call.flags & O_ACCMODE == 0 => {
            python::module_file(path_of(call)?)
        }
        _ => None,
    }
}

/// Whether an error number says that the thing named does not exist.
pub const fn is_missing(errno: i32) -> bool {
    matches!(errno, ENOENT | ENOTDIR)
}

impl Files {
    pub(super) fn add(&mut self, id: u64, event: &Event) {
        let Some(call) = event.body.file_call() else { return };
        let to_write = matches!(event.body, Body::Open(_)) && call.flags & O_ACCMODE != 0;
        // A file that cannot be made is no search.
        if is_missing(call.errno) && to_write {
            self.refuse(id, event, call);
        } else if is_missing(call.errno) {
            *self.missing.entry(event.pid).or_default() += 1;
        } else if call.errno != 0 {
            if matches!(event.body, Body::Open(_)) {
                self.refuse(id, event, call);
            }
        } else if let Some(module) = imported(&event.body) {
            self.imports.entry(event.pid).or_default().add(Mark::new(id, event), module);
        }
    }

    fn refuse(&mut self, id: u64, event: &Event, call: &FileCall) {
        let key = (path_of(call).unwrap_or("(path unknown)").to_owned(), call.errno);
        if let Some(refused) = self.refused.get_mut(&key) {
            refused.count += 1;
        } else if self.refused.len() < MAX_REFUSED {
            self.refused.insert(key, Refused { pid: event.pid, first_ns: event.at_ns, count: 1, event: id });
        } else {
            self.refused_left_out += 1;
        }
    }
}

impl Imports {
    fn add(&mut self, mark: Mark, module: python::ModuleFile) {
        // A module can be opened more than once (source and bytecode, a traceback quoting it) and is one module.
        let mut hasher = DefaultHasher::new();
        module.path.hash(&mut hasher);
        if self.seen.len() >= MAX_MODULES || !self.seen.insert(hasher.finish()) {
            return;
        }
        match module.owner {
            Owner::Own if self.own.len() < MAX_OWN => {
                self.own.insert(module.path, mark);
            }
            Owner::Own => self.own_left_out += 1,
            Owner::Package(name) => *self.packages.entry(name).or_default() += 1,
            Owner::Stdlib => self.stdlib += 1,
        }
    }
}
