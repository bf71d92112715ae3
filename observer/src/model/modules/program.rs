//! What one program in one process imported. Knows what one process did; nothing of others.

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use serde::Serialize;

use super::{MAX_MODULES, MAX_PTH, MAX_TRIED, Mark, Module, TOP_LEVEL};
use crate::{
    event::{CachedImport, Import, Imported, Interpreter, Known, ModuleShadows, Pid, Tid},
    python::{Owner, naming},
};

/// What a process had when it was forked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Before {
    /// Its parent.
    pub pid: Pid,
    /// How many modules its parent had imported, itself or before it was forked in turn.
    pub modules: u64,
}

/// An import statement whose module was loaded already: the first of each place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cached {
    /// The name as it was written.
    pub name: String,
    /// See [`crate::event::Import::level`].
    pub level: u32,
    /// The thread.
    pub tid: Tid,
    /// The event.
    pub event: u64,
    /// When.
    pub at_ns: u64,
    /// The file whose code asked.
    pub importer: Option<String>,
    /// The function of that file.
    pub function: Option<String>,
}

/// `sys.modules` of a process, when it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AtEnd {
    /// The event.
    pub event: u64,
    /// How many modules there were.
    pub modules: u64,
    /// Whether these are all.
    pub complete: bool,
    /// Those of them that nothing else told of, in this process or in those it was forked from.
    pub otherwise_unseen: Vec<String>,
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
    /// Statements that asked for modules which were loaded.
    pub cached: Vec<Cached>,
    /// Modules that are not kept because there were too many.
    pub left_out: u64,
    /// What it had from the beginning; `None`: it was started, not forked.
    pub before: Option<Before>,
    /// The `.pth` files it read, in order.
    pub pth: Vec<String>,
    /// What the disk says of other modules of the same names; `None`: it was not asked.
    pub shadows: Option<ModuleShadows>,
    /// What it had loaded when it ended; `None`: that was not read.
    pub at_end: Option<AtEnd>,
    /// Whether it has ended.
    pub(super) over: bool,
    /// What each thread is in the middle of: the first are those begun first.
    stacks: HashMap<Tid, Vec<usize>>,
    /// Hashes of files that stand for a module.
    files: Arc<HashSet<u64>>,
    /// Bytecode a thread looked for in vain, last.
    pub(super) missed: HashMap<Tid, String>,
}

/// A name, and whether it is only the beginning of one.
fn name(module: &Known<String>) -> (String, bool) {
    match module {
        Known::Is(name) => (name.clone(), false),
        Known::Partial { partial, .. } => (partial.clone(), true),
        Known::Absent { .. } => ("?".to_owned(), true),
    }
}

fn hash(path: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}

impl Program {
    /// The entries of the module path that are directories, in order, as far as searches show: the longest run of questions for one
    /// top-level module. Complete where a module was found nowhere.
    pub fn search_path(&self) -> (&[String], bool) {
        let searched = self.modules.iter().filter(|module| !module.name.contains('.'));
        let longest = searched.max_by_key(|module| (module.loaded == Some(false), module.tried.len()));
        longest.map_or((&[], false), |module| (&module.tried, module.loaded == Some(false)))
    }

    /// One that has imported nothing yet.
    pub(super) fn new(pid: Pid, since_ns: u64) -> Self {
        Self { pid, since_ns, ..Self::default() }
    }

    /// Makes room: its modules are not kept any more, only counted. Returns how many that were.
    pub(super) fn forget(&mut self) -> usize {
        let modules = std::mem::take(&mut self.modules);
        (self.ended, self.cached) = (Vec::new(), Vec::new());
        self.stacks.clear();
        self.missed.clear();
        self.left_out += modules.len() as u64;
        modules.len()
    }

    /// Its child's: what it has loaded its child has too.
    pub(super) fn forked(&self, pid: Pid, since_ns: u64) -> Self {
        let modules = self.modules.len() as u64 + self.before.map_or(0, |before| before.modules);
        let before = (modules > 0).then_some(Before { pid: self.pid, modules });
        let (interpreter, files) = (self.interpreter.clone(), Arc::clone(&self.files));
        Self { before, interpreter, files, ..Self::new(pid, since_ns) }
    }

    /// The modules by the files they came from.
    pub fn by_file(&self) -> HashMap<&str, &str> {
        let named = self.modules.iter().filter_map(|one| Some((one.file.as_deref()?, one.name.as_str())));
        named.filter(|(file, _)| !naming::is_archive(file)).collect()
    }

    /// The module that asked for one: that whose code imports it, or the one below a package for whose sake that is imported first.
    pub fn asker<'a>(&'a self, module: &'a Module, by_file: &HashMap<&str, &'a str>) -> Option<&'a str> {
        let importer = module.importer.as_deref()?;
        if importer.starts_with("<frozen importlib") {
            return module.parent.and_then(|parent| self.modules.get(parent)).map(|one| one.name.as_str());
        }
        by_file.get(importer).copied()
    }

    /// Modules that a line of a `.pth` file imported, and `sitecustomize` and `usercustomize`, when they were loaded (CPython, `Lib/site.py`).
    pub fn customized(&self) -> impl Iterator<Item = &Module> {
        let below_site = |module: &&Module| {
            let parent = module.parent.and_then(|parent| self.modules.get(parent));
            parent.is_some_and(|parent| parent.name == "site") && module.loaded == Some(true)
        };
        self.modules.iter().filter(below_site).filter(|module| {
            matches!(module.name.as_str(), "sitecustomize" | "usercustomize")
                || module.importer.as_deref() == Some("<string>")
        })
    }

    /// The absolute name of what a statement asked for; `None` when it is relative to a package that is not known.
    pub fn absolute(&self, cached: &Cached, by_file: &HashMap<&str, &str>) -> Option<String> {
        let Some(up) = cached.level.checked_sub(1) else { return Some(cached.name.clone()) };
        let importer = cached.importer.as_deref()?;
        let mut package = *by_file.get(importer)?;
        let is_package = importer.ends_with("/__init__.py");
        for _ in 0..up + u32::from(!is_package) {
            package = package.rsplit_once('.')?.0;
        }
        let dot = if cached.name.is_empty() { "" } else { "." };
        Some(format!("{package}{dot}{}", cached.name))
    }

    pub(super) fn cached_import(&mut self, mark: Mark, tid: Tid, import: &CachedImport) {
        if self.cached.len() >= MAX_MODULES {
            self.left_out += 1;
            return;
        }
        self.cached.push(Cached {
            name: name(&import.module).0,
            level: import.level,
            tid,
            event: mark.event,
            at_ns: mark.at_ns,
            importer: import.importer.get().cloned(),
            function: import.function.get().cloned(),
        });
    }

    pub(super) fn is_known(&self, path: &str) -> bool {
        self.files.contains(&hash(path))
    }

    /// The import a thread is in the middle of, that was seen to begin.
    fn innermost(&mut self, tid: Tid) -> Option<&mut Module> {
        let at = *self.stacks.get(&tid)?.last()?;
        self.modules.get_mut(at).filter(|module| !module.inferred)
    }

    pub(super) fn import(&mut self, mark: Mark, tid: Tid, import: &Import) {
        let (name, name_cut) = name(&import.module);
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
            exception: None,
            level: import.level,
            parent,
            depth,
            file: None,
            importer,
            function,
            tried: Vec::new(),
            portions: Vec::new(),
            inside_ns: 0,
        });
    }

    pub(super) fn imported(&mut self, at_ns: u64, tid: Tid, import: &Imported) {
        let Some(stack) = self.stacks.get_mut(&tid) else { return };
        let modules = &mut self.modules;
        let is_it =
            |at: usize| modules.get(at).is_some_and(|one| !one.inferred && one.start_ns == import.since_ns);
        let Some(place) = stack.iter().rposition(|at| is_it(*at)) else { return };
        let at = stack[place];
        stack.truncate(place);
        let Some(module) = modules.get_mut(at) else { return };
        module.end_ns = Some(at_ns);
        module.loaded = Some(import.loaded);
        module.exception.clone_from(&import.exception);
        module.settle();
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
    pub(super) fn came_from(&mut self, tid: Tid, path: &str) -> bool {
        let Some(module) = self.innermost(tid) else { return false };
        let is_it = !module.has_file() && naming::fits(&module.name, path);
        if is_it {
            module.file = Some(path.to_owned());
            Arc::make_mut(&mut self.files).insert(hash(path));
        }
        is_it
    }

    /// A module's name, with the packages above it that are loaded.
    fn name_of(&self, path: &str, owner: &Owner) -> String {
        let mut name = naming::name_of(path, owner);
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

    pub(super) fn infer(&mut self, mark: Mark, tid: Tid, path: String, owner: &Owner) {
        let name = self.name_of(&path, owner);
        Arc::make_mut(&mut self.files).insert(hash(&path));
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
            exception: None,
            level: None,
            parent,
            depth,
            file: Some(path),
            importer: None,
            function: None,
            tried: Vec::new(),
            portions: Vec::new(),
            inside_ns: 0,
        });
    }

    /// Something that exists was asked for: an entry of the module path, or a directory that may be part of a namespace.
    pub(super) fn asked(&mut self, tid: Tid, path: &str) {
        let Some(module) = self.innermost(tid).filter(|module| !module.has_file()) else { return };
        let last = |text: &str, separator| text.rsplit(separator).next().map(str::to_owned);
        let list = if last(path, '/') == last(&module.name, '.') {
            &mut module.portions
        } else if naming::may_be_entry(&module.name, path) {
            &mut module.tried
        } else {
            return;
        };
        if list.len() < MAX_TRIED && list.iter().all(|known| known != path) {
            list.push(path.to_owned());
        }
    }

    /// A file that adds to the module path was opened, or an archive: to see what is in it, or to import from it.
    pub(super) fn opened_beside(&mut self, tid: Tid, path: &str) {
        if !naming::is_archive(path) {
            if self.pth.len() < MAX_PTH && self.pth.iter().all(|known| known != path) {
                self.pth.push(path.to_owned());
            }
        } else if let Some(module) = self.innermost(tid).filter(|module| !module.has_file()) {
            module.file = Some(path.to_owned());
        }
    }
}

impl Module {
    /// Whether the file it came from is known; an archive may only have been looked at.
    fn has_file(&self) -> bool {
        self.file.as_deref().is_some_and(|file| !naming::is_archive(file))
    }

    /// It has ended: what it turned out not to be is forgotten.
    fn settle(&mut self) {
        if self.loaded == Some(false) || self.file.is_some() {
            self.portions.clear();
        }
        if self.loaded == Some(false) && !self.has_file() {
            self.file = None;
        }
        // Frozen or built in: it was looked for nowhere, and what it asked for was its own business.
        if self.loaded == Some(true) && self.file.is_none() && self.portions.is_empty() {
            self.tried.clear();
        }
    }
}
