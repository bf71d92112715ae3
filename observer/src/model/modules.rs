//! The tree of imports of every process: what imported what, from which file, how long it took. Joins the imports an interpreter was seen
//! to make with the files its threads opened meanwhile. Knows events only.
//!
//! What was not seen to be imported but whose file was opened as imports open files is there too, and marked as inferred: what
//! `importlib.import_module` and `python -m` load, and all modules of an interpreter that could not be probed. When such a module was
//! ready is not known.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
};

use serde::Serialize;

use super::{files, mark::Mark};
use crate::{
    event::{Body, Distributions, Event, FileCall, Import, Interpreter, Known, Pid, Tid},
    python::{self, Owner},
};

/// Modules kept of one program, and of all.
const MAX_MODULES: usize = 20_000;
const MAX_ALL: usize = 200_000;
/// Directories of one search that are kept.
const MAX_TRIED: usize = 64;
const MAX_DISTRIBUTIONS: usize = 64;
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
    /// The module during whose import it was imported, by its place in the list.
    pub parent: Option<usize>,
    /// How many modules it is inside of.
    pub depth: usize,
    /// The source file, or extension module, it came from; `None` for what is frozen, built in, in an archive, or was not found.
    pub file: Option<String>,
    /// The file whose code asked for it.
    pub importer: Option<String>,
    /// The function of that file.
    pub function: Option<String>,
    /// The directories it was looked for in, in order; only those asked again for this module.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tried: Vec<String>,
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

/// What one program in one process imported.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// The process.
    pub pid: Pid,
    /// When the program was started, or the process was forked.
    pub since_ns: u64,
    /// Which interpreter it runs.
    pub interpreter: Option<Interpreter>,
    /// The modules, in the order in which their imports began.
    pub modules: Vec<Module>,
    /// The places of those whose end was seen, in the order in which they ended.
    pub ended: Vec<usize>,
    /// Modules that are not kept because there were too many.
    pub left_out: u64,
    /// What each thread is in the middle of: the first are those begun first.
    stacks: HashMap<Tid, Vec<usize>>,
    /// Hashes of files that stand for a module.
    files: HashSet<u64>,
    /// Bytecode a thread looked for in vain, last.
    missed: HashMap<Tid, String>,
}

/// Of all processes.
#[derive(Clone, Debug, Default)]
pub struct Modules {
    programs: BTreeMap<(Pid, usize), Program>,
    current: HashMap<Pid, usize>,
    distributions: Vec<Distributions>,
    kept: usize,
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
                let stack =
                    self.of(event.pid).map(|parent| (parent.interpreter.clone(), parent.files.clone()));
                if let (Some((interpreter, files)), Some(child)) = (stack, self.current(*child)) {
                    // What its parent has loaded it has too.
                    child.interpreter = interpreter;
                    child.files = files;
                }
            }
            Body::Exec(_) => self.begin(event.pid, event.at_ns),
            Body::Interpreter(interpreter) => {
                if let Some(program) = self.current(event.pid) {
                    program.interpreter = Some((**interpreter).clone());
                }
            }
            Body::Distributions(found) if self.distributions.len() < MAX_DISTRIBUTIONS => {
                self.distributions.push(found.clone());
            }
            Body::Import(import) => self.with_room(event.pid, |program| {
                program.import(Mark::new(id, event), event.tid, import);
            }),
            Body::Imported(import) => {
                if let Some(program) = self.current(event.pid) {
                    program.imported(event.at_ns, event.tid, import.since_ns, import.loaded);
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
        self.programs.insert((pid, number), Program { pid, since_ns, ..Program::default() });
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

fn hash(path: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}

/// A module's name as far as its path tells: below a directory of packages or the standard library all of it, else the last parts.
fn name_of(path: &str, owner: &Owner) -> String {
    let inside = match owner {
        Owner::Package(_) => path.rsplit_once("-packages/").map(|(_, inside)| inside),
        Owner::Stdlib => path
            .rsplit_once("/lib-dynload/")
            .or_else(|| path.rsplit_once("/python3").and_then(|(_, rest)| rest.split_once('/')))
            .map(|(_, inside)| inside),
        Owner::Own => None,
    };
    let inside = inside.unwrap_or_else(|| {
        let package = path.strip_suffix("/__init__.py").unwrap_or(path);
        package.rsplit('/').next().unwrap_or(package)
    });
    let stem = inside.strip_suffix("/__init__.py").unwrap_or(inside);
    let (directory, last) = stem.rsplit_once('/').map_or(("", stem), |(directory, last)| (directory, last));
    let last = last.split('.').next().unwrap_or(last);
    if directory.is_empty() { last.to_owned() } else { format!("{}.{last}", directory.replace('/', ".")) }
}

/// Whether a file can be that of a module of this name: `a/b.py`, `a/b/__init__.py`, `a/b.abi3.so`.
fn fits(name: &str, path: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    let path = path.strip_suffix("/__init__.py").unwrap_or(path);
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().is_some_and(|stem| stem == last)
}

impl Program {
    /// The entries of the module path that are directories, in order, as far as searches show: the longest run of questions for one
    /// top-level module. Complete where a module was found nowhere.
    pub fn search_path(&self) -> (&[String], bool) {
        let searched = self.modules.iter().filter(|module| !module.name.contains('.'));
        let longest = searched.max_by_key(|module| (module.loaded == Some(false), module.tried.len()));
        longest.map_or((&[], false), |module| (&module.tried, module.loaded == Some(false)))
    }

    fn is_known(&self, path: &str) -> bool {
        self.files.contains(&hash(path))
    }

    /// The import a thread is in the middle of, that was seen to begin.
    fn innermost(&mut self, tid: Tid) -> Option<&mut Module> {
        let at = *self.stacks.get(&tid)?.last()?;
        self.modules.get_mut(at).filter(|module| !module.inferred)
    }

    fn import(&mut self, mark: Mark, tid: Tid, import: &Import) {
        let (name, name_cut) = match &import.module {
            Known::Is(name) => (name.clone(), false),
            Known::Partial { partial, .. } => (partial.clone(), true),
            Known::Absent { .. } => ("?".to_owned(), true),
        };
        let importer = import.importer.get().cloned();
        let function = import.function.get().cloned();
        let modules = &self.modules;
        let inferred = |at: usize| modules.get(at).is_some_and(|module| module.inferred);
        let stack = self.stacks.entry(tid).or_default();
        // Of those that were seen to begin, what is deeper has ended without our knowledge.
        while stack.iter().filter(|at| !inferred(**at)).count() > import.depth as usize {
            stack.pop();
        }
        let is_file = |at: usize| modules.get(at).is_some_and(|module| module.file == importer);
        let guessed = stack.iter().rev().take_while(|at| inferred(**at)).count();
        let asking = stack.iter().rev().take(guessed).position(|at| is_file(*at));
        match asking {
            Some(above) => stack.truncate(stack.len() - above),
            // The top level of another file runs: what we took for being imported has been.
            None if function.as_deref() == Some(TOP_LEVEL) => stack.truncate(stack.len() - guessed),
            None => {}
        }
        // A function may be called while an inferred module is imported, or long after: only what its own file asks for is below it.
        let parent = match asking {
            Some(_) => stack.last().copied(),
            None => stack.iter().rfind(|at| !inferred(**at)).copied(),
        };
        let depth = parent.and_then(|parent| modules.get(parent)).map_or(0, |parent| parent.depth + 1);
        stack.push(self.modules.len());
        self.modules.push(Module {
            name,
            name_cut,
            inferred: false,
            tid,
            event: mark.event,
            start_ns: mark.at_ns,
            end_ns: None,
            loaded: None,
            parent,
            depth,
            file: None,
            importer,
            function,
            tried: Vec::new(),
            inside_ns: 0,
        });
    }

    fn imported(&mut self, at_ns: u64, tid: Tid, since_ns: u64, loaded: bool) {
        let Some(stack) = self.stacks.get_mut(&tid) else { return };
        let modules = &mut self.modules;
        let is_it = |at: usize| modules.get(at).is_some_and(|one| !one.inferred && one.start_ns == since_ns);
        let Some(place) = stack.iter().rposition(|at| is_it(*at)) else { return };
        let at = stack[place];
        stack.truncate(place);
        let Some(module) = modules.get_mut(at) else { return };
        module.end_ns = Some(at_ns);
        module.loaded = Some(loaded);
        let (parent, took) = (module.parent, at_ns.saturating_sub(module.start_ns));
        self.ended.push(at);
        // An inferred parent has no time of its own to take it from, but what is above it has.
        let mut next = parent;
        while let Some(parent) = next.and_then(|parent| modules.get_mut(parent)) {
            parent.inside_ns += took;
            next = if parent.inferred { parent.parent } else { None };
        }
    }

    /// Takes a file for the one the innermost import comes from, when it fits.
    fn came_from(&mut self, tid: Tid, path: &str) -> bool {
        let Some(module) = self.innermost(tid) else { return false };
        let is_it = module.file.is_none() && fits(&module.name, path);
        if is_it {
            module.file = Some(path.to_owned());
            self.files.insert(hash(path));
        }
        is_it
    }

    /// A module's name, with the packages above it that are loaded.
    fn name_of(&self, path: &str, owner: &Owner) -> String {
        let mut name = name_of(path, owner);
        if *owner != Owner::Own {
            return name;
        }
        let module = path.strip_suffix("/__init__.py").unwrap_or(path);
        let mut directory = module.rsplit_once('/').map(|(directory, _)| directory);
        while let Some(package) =
            directory.filter(|directory| self.is_known(&format!("{directory}/__init__.py")))
        {
            let (above, last) = package.rsplit_once('/').unwrap_or(("", package));
            name = format!("{last}.{name}");
            directory = Some(above);
        }
        name
    }

    fn infer(&mut self, mark: Mark, tid: Tid, path: String, owner: &Owner) {
        let name = self.name_of(&path, owner);
        self.files.insert(hash(&path));
        // Whether the one before was ready is not known; most often it was, and where not, what it imports will tell.
        let modules = &self.modules;
        let inferred = |at: usize| modules.get(at).is_some_and(|module| module.inferred);
        let stack = self.stacks.entry(tid).or_default();
        let guessed = stack.iter().rev().take_while(|at| inferred(**at)).count();
        let under_package = |at: usize| {
            let package =
                modules.get(at).and_then(|module| module.file.as_deref()?.strip_suffix("__init__.py"));
            package.is_some_and(|package| path.starts_with(package))
        };
        let keep = stack.iter().rev().take(guessed).position(|at| under_package(*at));
        stack.truncate(stack.len() - keep.unwrap_or(0));
        let (parent, depth) = (stack.last().copied(), stack.len());
        stack.push(self.modules.len());
        self.modules.push(Module {
            name,
            name_cut: false,
            inferred: true,
            tid,
            event: mark.event,
            start_ns: mark.at_ns,
            end_ns: None,
            loaded: None,
            parent,
            depth,
            file: Some(path),
            importer: None,
            function: None,
            tried: Vec::new(),
            inside_ns: 0,
        });
    }

    /// Something that exists was asked for: each entry of the module path is, in order, before a module is looked for in it (CPython 3.9
    /// to 3.14, `importlib/_bootstrap_external.py`, `FileFinder.find_spec`).
    fn asked(&mut self, tid: Tid, path: &str) {
        let Some(module) = self.innermost(tid) else { return };
        let last = path.rsplit('/').next().unwrap_or(path);
        let is_file = [".py", ".pyc", ".so", ".zip", ".cfg", ".pth"].iter().any(|end| last.ends_with(end));
        if module.file.is_none()
            && !is_file
            && !module.name.contains('.')
            && last != module.name
            && module.tried.len() < MAX_TRIED
            && module.tried.iter().all(|known| known != path)
        {
            module.tried.push(path.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::Imported,
        model::fixture::{WORKER, at, file},
    };

    fn import(at_ns: u64, module: &str, importer: &str, depth: u32) -> Event {
        let body = Body::Import(Box::new(Import {
            module: Known::Is(module.into()),
            importer: Known::Is(importer.into()),
            function: Known::Is(TOP_LEVEL.into()),
            depth,
        }));
        at(at_ns, WORKER, WORKER, body)
    }

    fn imported(at_ns: u64, module: &str, since_ns: u64, depth: u32) -> Event {
        let module = Known::Is(module.into());
        at(at_ns, WORKER, WORKER, Body::Imported(Imported { module, since_ns, loaded: true, depth }))
    }

    fn open(at_ns: u64, path: &str) -> Event {
        at(at_ns, WORKER, WORKER, Body::Open(file("openat", path, Ok(3))))
    }

    fn tree(events: &[Event]) -> Vec<(String, usize, bool, Option<u64>)> {
        let mut modules = Modules::default();
        for (id, event) in (1..).zip(events) {
            modules.add(id, event);
        }
        let program = modules.of(Pid(WORKER)).unwrap();
        let of = |module: &Module| (module.name.clone(), module.depth, module.inferred, module.self_ns());
        program.modules.iter().map(of).collect()
    }

    #[test]
    fn times_are_told_apart_and_files_are_joined() {
        let events = [
            import(100, "app", "/srv/main.py", 0),
            open(110, "/srv/app/__pycache__/__init__.cpython-312.pyc"),
            import(120, "app.b", "/srv/app/__init__.py", 1),
            open(130, "/srv/app/__pycache__/b.cpython-312.pyc"),
            imported(150, "app.b", 120, 1),
            imported(200, "app", 100, 0),
        ];
        assert_eq!(tree(&events), [("app".into(), 0, false, Some(70)), ("app.b".into(), 1, false, Some(30))]);
    }

    #[test]
    fn what_import_module_loads_is_inferred_and_what_it_imports_stands_below() {
        let events = [
            import(100, "dramatiq", "/srv/main.py", 0),
            imported(110, "dramatiq", 100, 0),
            open(120, "/srv/__pycache__/tasks.cpython-312.pyc"),
            import(130, "json", "/srv/tasks.py", 0),
            imported(140, "json", 130, 0),
            import(150, "csv", "/srv/main.py", 0),
            imported(160, "csv", 150, 0),
            open(170, "/srv/app/__pycache__/__init__.cpython-312.pyc"),
            open(180, "/srv/app/__pycache__/b.cpython-312.pyc"),
        ];
        let names: Vec<_> =
            tree(&events).into_iter().map(|(name, depth, inferred, _)| (name, depth, inferred)).collect();
        assert_eq!(
            names,
            [
                ("dramatiq".into(), 0, false),
                ("tasks".into(), 0, true),
                ("json".into(), 1, false),
                ("csv".into(), 0, false),
                ("app".into(), 0, true),
                ("app.b".into(), 1, true),
            ]
        );
    }

    #[test]
    fn a_path_tells_a_name() {
        let name = |path: &str| name_of(path, &python::owner(path));
        assert_eq!(name("/v/lib/python3.12/site-packages/dramatiq/brokers/stub.py"), "dramatiq.brokers.stub");
        assert_eq!(name("/v/lib/python3.12/site-packages/dramatiq/__init__.py"), "dramatiq");
        assert_eq!(name("/usr/lib/python3.12/json/decoder.py"), "json.decoder");
        assert_eq!(name("/usr/lib/python3.12/lib-dynload/_ssl.cpython-312-x86_64-linux-gnu.so"), "_ssl");
        assert_eq!(name("/srv/app/tasks.py"), "tasks");
        assert_eq!(name("/srv/app/__init__.py"), "app");
    }
}
