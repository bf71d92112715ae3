//! Imports: where each process last searched for a module, which modules of dramatiq it loaded, what its main thread waits in, and
//! what the disk says of modules. Knows events only; draws no conclusions.

use std::collections::{BTreeMap, HashMap};

use super::{files, mark::Mark};
use crate::{
    event::{Body, Event, ModuleSearch, Pid, SourceLook},
    python::{self, Owner},
};

/// Processes followed.
const MAX_PROCESSES: usize = 10_000;
/// Directories of one search.
const MAX_SEARCHED: usize = 64;
/// Modules of dramatiq in one process.
const MAX_DRAMATIQ: usize = 200;
/// A wait of so long is remembered beside the last one.
const LONG_NS: u64 = 2_500_000_000;
/// Answers of the disk.
const MAX_ANSWERS: usize = 500;

/// What a thread waits in, or waited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The event that says so.
    pub mark: Mark,
    /// The call's name.
    pub syscall: String,
    /// When it entered.
    pub since_ns: u64,
    /// When it returned.
    pub until_ns: Option<u64>,
    /// What it waits on, when that is known.
    pub on: Option<String>,
    /// The call's arguments.
    pub args: [u64; 6],
}

/// How one process looked for modules.
#[derive(Clone, Debug, Default)]
pub struct Trail {
    /// The directories of the last search that went to the end of the module path, in order.
    pub searched: Vec<String>,
    /// The longest such search.
    pub longest: Vec<String>,
    /// The look-up that ended the last.
    pub searched_at: Option<Mark>,
    /// The files of dramatiq that were loaded, by their path inside it (`brokers/stub.py`), and when first.
    pub dramatiq: BTreeMap<String, Mark>,
    /// The own module opened last, the first time it was.
    pub last_own: Option<(String, Mark)>,
    /// When a thread other than the first looked a host name up (`/etc/hosts`, `/etc/resolv.conf`).
    pub resolved: Option<Mark>,
    /// The last wait of more than a second of its first thread.
    pub wait: Option<Wait>,
    /// The wait before it, when it lasted: a signal breaks one off, and it is entered again.
    pub long_wait: Option<Wait>,
    /// The last thing its first thread was seen to do, signals not counted.
    pub last_act: Option<Mark>,
    /// The module opened last, whosever it is.
    pub last_module: Option<Mark>,
    run: Vec<(String, Mark)>,
}

/// Of every process.
#[derive(Clone, Debug, Default)]
pub struct ImportTrails {
    by_pid: HashMap<Pid, Trail>,
    searches: Vec<(Mark, ModuleSearch)>,
    looks: Vec<(Mark, SourceLook)>,
}

impl ImportTrails {
    /// How a process looked for modules; `None` when nothing is known.
    pub fn of(&self, pid: Pid) -> Option<&Trail> {
        self.by_pid.get(&pid)
    }

    /// What the disk says of modules that may be missing or mistaken.
    pub fn searches(&self) -> &[(Mark, ModuleSearch)] {
        &self.searches
    }

    /// What the disk says of a module of this name.
    pub fn search(&self, name: &str) -> Option<&(Mark, ModuleSearch)> {
        self.searches.iter().find(|(_, search)| search.name == name)
    }

    /// What sources say of actors and brokers.
    pub fn looks(&self) -> &[(Mark, SourceLook)] {
        &self.looks
    }

    pub(super) fn add(&mut self, id: u64, event: &Event) {
        let mark = Mark::new(id, event);
        match &event.body {
            Body::ModuleSearch(search) if self.searches.len() < MAX_ANSWERS => {
                self.searches.push((mark, search.clone()));
            }
            Body::SourceLook(look) if self.looks.len() < MAX_ANSWERS => self.looks.push((mark, look.clone())),
            Body::ModuleSearch(_) | Body::SourceLook(_) | Body::FileLook(_) | Body::Distributions(_) => {}
            Body::Fork { child } => drop(self.by_pid.remove(child)),
            _ if event.pid.0 == 0 => {}
            _ if self.by_pid.len() < MAX_PROCESSES || self.by_pid.contains_key(&event.pid) => {
                self.by_pid.entry(event.pid).or_default().add(mark, event);
            }
            _ => {}
        }
    }
}

impl Trail {
    fn add(&mut self, mark: Mark, event: &Event) {
        let is_first = event.tid.0 == event.pid.0;
        match &event.body {
            Body::Signal { .. } | Body::SignalDelivered { .. } | Body::Exit { .. } | Body::State { .. } => {
                return;
            }
            Body::Stuck { syscall, since_ns, on, args } if is_first => {
                let (syscall, on) = (syscall.clone(), on.get().cloned());
                let (since_ns, args) = (*since_ns, *args);
                let lasted = |wait: &Wait| {
                    wait.until_ns.is_some_and(|end| end.saturating_sub(wait.since_ns) >= LONG_NS)
                };
                if self.wait.as_ref().is_some_and(lasted) {
                    self.long_wait = self.wait.take();
                }
                self.wait = Some(Wait { mark, syscall, since_ns, until_ns: None, on, args });
                return;
            }
            Body::Unstuck { since_ns, .. } if is_first => {
                if let Some(wait) = self.wait.as_mut().filter(|wait| wait.since_ns == *since_ns) {
                    wait.until_ns = Some(event.at_ns);
                }
            }
            Body::Open(call) if call.errno == 0 => {
                let path = files::path_of(call).unwrap_or_default();
                if !is_first && self.resolved.is_none() && matches!(path, "/etc/hosts" | "/etc/resolv.conf") {
                    self.resolved = Some(mark);
                }
                if let Some(module) = files::imported(&event.body) {
                    self.opened(mark, module);
                }
            }
            _ => {}
        }
        if !is_first {
            return;
        }
        self.last_act = Some(mark);
        self.search(mark, &event.body);
    }

    fn opened(&mut self, mark: Mark, module: python::ModuleFile) {
        // The directories asked before it was found are no search in vain.
        self.run.clear();
        self.last_module = Some(mark);
        match module.owner {
            Owner::Own if self.last_own.as_ref().is_none_or(|(path, _)| *path != module.path) => {
                self.last_own = Some((module.path, mark));
            }
            Owner::Package(package) if package == "dramatiq" && self.dramatiq.len() < MAX_DRAMATIQ => {
                if let Some((_, inside)) = module.path.rsplit_once("-packages/dramatiq/") {
                    self.dramatiq.entry(inside.to_owned()).or_insert(mark);
                }
            }
            _ => {}
        }
    }

    /// Python asks every directory of its path, in order, whether it has changed, and reads again those that have; what a directory
    /// does not list it does not look for (CPython 3.10 to 3.14, `importlib/_bootstrap_external.py`, `FileFinder.find_spec`). So a
    /// module that is nowhere shows as a run of such questions up to the last directory.
    fn search(&mut self, mark: Mark, body: &Body) {
        match body {
            Body::Stat(call) => {
                let Some(path) = files::path_of(call) else { return };
                let name = path.rsplit('/').next().unwrap_or_default();
                let is_directory = !name.contains('.') || is_library(path);
                if call.errno == 0 && is_directory {
                    if self.run.len() < MAX_SEARCHED && self.run.iter().all(|(known, _)| known != path) {
                        self.run.push((path.to_owned(), mark));
                    }
                } else if call.errno == 0 || !is_directory {
                    self.end_run();
                }
            }
            // Reading a directory again is part of it.
            Body::Open(call) if call.flags & 0o200_000 != 0 => {}
            Body::Scan(_) => {}
            _ => self.end_run(),
        }
    }

    fn end_run(&mut self) {
        let run = std::mem::take(&mut self.run);
        if run.len() >= 2 && run.last().is_some_and(|(path, _)| is_library(path)) {
            self.searched_at = run.last().map(|(_, mark)| *mark);
            self.searched = run.into_iter().map(|(path, _)| path).collect();
            if self.searched.len() >= self.longest.len() {
                self.longest.clone_from(&self.searched);
            }
        }
    }
}

/// Whether a directory of the module path holds the standard library or installed packages: what comes last on it.
fn is_library(path: &str) -> bool {
    path.ends_with("-packages") || path.ends_with("/lib-dynload") || {
        let name = path.rsplit('/').next().unwrap_or_default();
        name.strip_prefix("python3").is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }
}
