//! Which modules hide others of the same name: the directories of the module path in the order in which they were seen to be asked, and
//! what else is in them. Reads directories, and asks for `__init__.py`; draws no conclusions.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
};

use crate::{
    event::{Body, Event, Hiding, ModuleShadows, Tid},
    python::naming,
};

/// Threads in the middle of an import, imports inside each other, and directories of the path, that are followed.
const MAX_THREADS: usize = 200;
const MAX_DEPTH: usize = 500;
const MAX_PATH: usize = 64;
/// Modules asked for, and told.
const MAX_MODULES: usize = 2_000;
const MAX_HIDING: usize = 50;
/// Entries of one directory that are read.
const MAX_ENTRIES: usize = 10_000;

/// The searches of one process.
#[derive(Clone, Default)]
pub(super) struct Searches {
    threads: HashMap<Tid, Vec<Search>>,
    path: Vec<String>,
    /// Whether the path was searched to its end.
    whole: bool,
    /// Top-level modules by name, and the directory each was found in.
    found: BTreeMap<String, String>,
}

#[derive(Clone)]
struct Search {
    module: String,
    asked: Vec<String>,
    /// Its file was opened: what comes now is not the search.
    over: bool,
}

impl Searches {
    pub(super) fn see(&mut self, event: &Event) {
        match &event.body {
            Body::Import(import) => {
                if self.threads.len() >= MAX_THREADS && !self.threads.contains_key(&event.tid) {
                    return;
                }
                let open = self.threads.entry(event.tid).or_default();
                open.truncate((import.depth as usize).min(MAX_DEPTH));
                let module = import.module.get().cloned().unwrap_or_default();
                open.push(Search { module, asked: Vec::new(), over: false });
            }
            Body::Imported(import) => {
                let Some(open) = self.threads.get_mut(&event.tid) else { return };
                open.truncate((import.depth as usize).saturating_add(1));
                let Some(search) = open.pop() else { return };
                if open.is_empty() {
                    self.threads.remove(&event.tid);
                }
                if import.module.get() == Some(&search.module) {
                    self.end(search, import.loaded);
                }
            }
            Body::Stat(call) if call.errno == 0 => {
                let Some(search) = self.threads.get_mut(&event.tid).and_then(|open| open.last_mut()) else {
                    return;
                };
                let path = call.resolved.get().or_else(|| call.path.get());
                if let Some(path) = path.filter(|path| naming::may_be_entry(&search.module, path))
                    && !search.over
                    && search.asked.len() < MAX_PATH
                    && !search.asked.contains(path)
                {
                    search.asked.push(path.clone());
                }
            }
            _ => {}
        }
    }

    /// The thread has opened the file of a module.
    pub(super) fn opened(&mut self, tid: Tid) {
        if let Some(search) = self.threads.get_mut(&tid).and_then(|open| open.last_mut()) {
            search.over = true;
        }
    }

    fn end(&mut self, search: Search, loaded: bool) {
        if search.module.contains('.') || (loaded && !search.over) {
            return;
        }
        if loaded
            && let Some(entry) = search.asked.last()
            && self.found.len() < MAX_MODULES
        {
            self.found.insert(search.module, entry.clone());
        }
        // Where a module was found nowhere the whole path was searched; the last time counts.
        if (!loaded, search.asked.len()) >= (self.whole, self.path.len()) {
            self.path = search.asked;
            self.whole = !loaded;
        }
    }

    /// What to ask the disk: the path, and the modules with where each was found. `None`: nothing.
    pub(super) fn question(self) -> Option<(Vec<String>, BTreeMap<String, String>)> {
        (self.path.len() > 1 && !self.found.is_empty()).then_some((self.path, self.found))
    }
}

pub(super) fn look(path: &[String], found: &BTreeMap<String, String>) -> ModuleShadows {
    let mut complete = found.len() < MAX_MODULES;
    let mut holds = Vec::new();
    for entry in path {
        let (modules, whole) = modules_in(Path::new(entry), found);
        complete &= whole;
        holds.push(modules);
    }
    let mut hiding = Vec::new();
    for (name, entry) in found {
        let Some(at) = path.iter().position(|one| one == entry) else { continue };
        let hidden: Vec<String> =
            holds.iter().skip(at + 1).filter_map(|modules| modules.get(name.as_str()).cloned()).collect();
        if !hidden.is_empty() {
            hiding.push(Hiding { name: name.clone(), entry: entry.clone(), hidden });
        }
    }
    complete &= hiding.len() <= MAX_HIDING;
    hiding.truncate(MAX_HIDING);
    ModuleShadows { hiding, asked: found.len() as u64, complete }
}

/// The wanted modules that a directory holds, with their files, and whether all of it was read.
fn modules_in<'a>(
    directory: &Path,
    wanted: &'a BTreeMap<String, String>,
) -> (BTreeMap<&'a str, String>, bool) {
    let mut modules = BTreeMap::new();
    let Ok(entries) = fs::read_dir(directory) else { return (modules, false) };
    let mut read = 0;
    for entry in entries.flatten().take(MAX_ENTRIES) {
        read += 1;
        let file = entry.file_name().to_string_lossy().into_owned();
        let stem = file.split('.').next().unwrap_or(&file);
        let Some((name, _)) = wanted.get_key_value(stem) else { continue };
        let path = if file == stem { entry.path().join("__init__.py") } else { entry.path() };
        let is_module = file == stem || file == format!("{stem}.py") || file.ends_with(".so");
        if is_module && path.is_file() {
            modules.insert(name.as_str(), path.display().to_string());
        }
    }
    (modules, read < MAX_ENTRIES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Import, Imported, Known},
        model::fixture::{WORKER, at, file},
    };

    #[test]
    fn a_module_hides_what_comes_after_it_and_not_what_comes_before() {
        let scratch = tempfile::tempdir().unwrap();
        let put = |path: &str| {
            let path = scratch.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        };
        ["lib/queue.py", "app/queue.py", "lib/json/__init__.py", "site/json.py", "site/app/none"]
            .into_iter()
            .for_each(put);
        let entry = |name: &str| scratch.path().join(name).display().to_string();
        let path = ["app", "lib", "site"].map(entry);
        let found = [("queue", "app"), ("json", "lib"), ("app", "app")]
            .map(|(module, in_)| (module.to_owned(), entry(in_)))
            .into();
        let told = look(&path, &found);
        let hiding: Vec<_> = told.hiding.iter().map(|one| (one.name.as_str(), one.hidden.clone())).collect();
        assert_eq!(hiding, [("json", vec![entry("site/json.py")]), ("queue", vec![entry("lib/queue.py")])]);
        assert!(told.complete);
    }

    #[test]
    fn the_path_is_what_was_asked_for_a_module_that_is_nowhere() {
        let name = |module: &str| Known::Is(module.to_owned());
        let import = |module: &str, depth| {
            Body::Import(Box::new(Import {
                module: name(module),
                importer: Known::none(),
                function: Known::none(),
                level: None,
                depth,
            }))
        };
        let imported = |module: &str, loaded, depth| {
            Body::Imported(Imported { module: name(module), since_ns: 0, loaded, exception: None, depth })
        };
        let stat = |path: &str| Body::Stat(file("newfstatat", path, Ok(0)));
        let mut searches = Searches::default();
        for body in [
            import("nowhere", 0),
            stat("/srv"),
            stat("/usr/lib/python3.12"),
            imported("nowhere", false, 0),
            import("tasks", 0),
            stat("/srv"),
            stat("/srv/tasks.py"),
        ] {
            searches.see(&at(1, WORKER, WORKER, body));
        }
        searches.opened(Tid(WORKER));
        for body in [stat("/data"), imported("tasks", true, 0)] {
            searches.see(&at(1, WORKER, WORKER, body));
        }
        let (path, found) = searches.question().unwrap();
        assert_eq!(path, ["/srv", "/usr/lib/python3.12"]);
        assert_eq!(found, [("tasks".to_owned(), "/srv".to_owned())].into());
    }
}
