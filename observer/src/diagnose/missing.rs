//! Modules that could not be found: where they were looked for, where they are instead, and whose they are. Knows look-ups, exceptions and
//! what the disk said.

use super::{
    case::Case,
    catalogue::Code,
    finding::{Evidence, Finding},
    import::{self, is_own_file},
};
use crate::{
    event::{ModuleSearch, Pid},
    model::{mark::Mark, process::Process, tracebacks::Raised},
    python::command::Command,
};

/// What was missing, and how that is known.
struct Missing {
    name: String,
    mark: Option<Mark>,
    /// The file that asked for it; `None`: the command.
    asked_by: Option<String>,
    sure: f64,
}

/// The search for a module went through every directory of `sys.path` in vain and ended the process: ModuleNotFoundError (CPython,
/// `importlib/_bootstrap.py`, `_find_and_load_unlocked`), or `runpy`'s own words for a program that is not there; or, where nothing was
/// printed, a module of the command line whose file was never opened. Alike: an ImportError that the module itself catches.
pub(super) fn not_found(
    case: &Case<'_>,
    process: &Process,
    raised: Option<&Raised>,
    code: i32,
) -> Option<Finding> {
    let command = import::command(case, process.pid);
    let missing = of_traceback(raised)
        .or_else(|| relative(raised, command.as_ref()))
        .or_else(|| of_runpy(case, process))
        .or_else(|| of_look_ups(case, process, raised, code, command.as_ref()))?;
    let cause = cause(case, process.pid, &missing, command.as_ref());
    let name = &missing.name;
    let requested = requested(command.as_ref(), name);
    let search = requested.and_then(|name| search(case, name)).or_else(|| search(case, name));
    let near = search.and_then(|(_, search)| search.near.first());
    let trail = case.model.imports.of(process.pid);
    let searched = trail.map(|trail| trail.searched.as_slice()).unwrap_or_default();
    let shown: Vec<&str> = searched.iter().take(4).map(String::as_str).collect();
    let looked = match (shown.len(), searched.len()) {
        (0, _) => String::new(),
        (few, all) if few == all => format!(" It was looked for in {}.", shown.join(", ")),
        (few, all) => format!(" It was looked for in {}, and {} more.", shown.join(", "), all - few),
    };
    let by = missing.asked_by.as_ref().map_or(String::new(), |file| format!(", which {file} imports"));
    let found = near.map_or(String::new(), |near| format!(" There is {}.", near.path));
    let absent = search.map(|(_, search)| search.absent.as_slice()).unwrap_or_default();
    let absent_words = absent
        .first()
        .map_or(String::new(), |entry| format!(" {entry}, on the module path, is no directory."));
    let cwd = case.cwd(process.pid).unwrap_or("another directory");
    let remedy = match (cause, near) {
        (Some("file-argument"), _) => {
            let module = as_module(requested.unwrap_or(name));
            format!("give the module, not the file: python -m dramatiq {module}")
        }
        (Some("wrong-cwd"), Some(near)) => {
            format!("start it in {} (it was started in {cwd}), or add --path {}", near.root, near.root)
        }
        (Some("pythonpath-missing"), Some(near)) => {
            format!("put {} on the module path: PYTHONPATH={}", near.root, near.root)
        }
        (Some("pythonpath-missing"), None) => format!(
            "correct PYTHONPATH: {} does not exist",
            absent.first().map_or("one of its entries", String::as_str)
        ),
        (Some("dependency-missing"), _) => format!(
            "install it in this environment: python -m pip install {}",
            name.split('.').next().unwrap_or(name)
        ),
        _ => format!("make {name} importable, or correct its name"),
    };
    Some(
        Finding::new(
            Code::ModuleNotFound,
            missing.sure,
            format!("There is no module {name}{by}.{looked}{found}{absent_words}"),
        )
        .cause(cause)
        .title(match requested.filter(|requested| requested != name) {
            Some(requested) => format!("no module named {name}, for {requested}"),
            None => format!("no module named {name}"),
        })
        .evidence(missing.mark.map(|mark| Evidence::new(mark, format!("No module named '{name}'"))))
        .evidence(
            trail.and_then(|trail| trail.searched_at).map(|mark| {
                Evidence::new(mark, "the last directory of the module path was searched in vain")
            }),
        )
        .evidence(
            search.zip(near).map(|((mark, _), near)| Evidence::new(*mark, format!("on disk: {}", near.path))),
        )
        .remedy(remedy),
    )
}

/// `No module named 'a.b'`, as the exception's text has it.
fn named(message: &str) -> Option<&str> {
    let rest = message.split("No module named ").nth(1)?;
    let quoted = rest.strip_prefix('\'').and_then(|rest| rest.split('\'').next());
    quoted.or_else(|| rest.split([';', ' ']).next()).filter(|name| !name.is_empty())
}

fn of_traceback(raised: Option<&Raised>) -> Option<Missing> {
    let raised = raised?;
    let traceback = raised.traceback.chain().next().filter(|one| one.name() == "ModuleNotFoundError")?;
    let name = named(&traceback.message)?.to_owned();
    let asked_by = traceback.frames.iter().rev().find(|frame| {
        !frame.file.starts_with('<')
            && !frame.file.contains("/importlib/")
            && !frame.file.contains("dramatiq/cli.py")
    });
    Some(Missing {
        name,
        mark: Some(raised.first),
        asked_by: asked_by.map(|frame| frame.file.clone()),
        sure: 0.97,
    })
}

/// `./worker`: Python takes it for a relative import, for which there is no package (`importlib/__init__.py`, `import_module`: TypeError).
fn relative(raised: Option<&Raised>, command: Option<&Command>) -> Option<Missing> {
    let raised = raised.filter(|raised| {
        raised.traceback.name() == "TypeError" && raised.traceback.message.contains("relative import")
    })?;
    let name = command?.imports().find(|name| name.starts_with('.'))?.to_owned();
    Some(Missing { name, mark: Some(raised.first), asked_by: None, sure: 0.95 })
}

/// `python: No module named dramatiq`: `runpy` says so without a traceback (CPython, `runpy.py`, `_run_module_as_main`).
fn of_runpy(case: &Case<'_>, process: &Process) -> Option<Missing> {
    let argv = case.argv(process.pid)?;
    let module = argv.windows(2).find_map(|words| match words {
        [flag, module] if flag == "-m" => Some(module),
        _ => None,
    })?;
    let words = format!("No module named {module}");
    let line = case.model.outputs.tail().find(|line| {
        line.pid == process.pid && memchr::memmem::find(&line.bytes, words.as_bytes()).is_some()
    })?;
    let mark =
        Mark { event: line.event, at_ns: line.at_ns, pid: line.pid, tid: crate::event::Tid(line.pid.0) };
    Some(Missing { name: module.clone(), mark: Some(mark), asked_by: None, sure: 0.95 })
}

/// Nothing was printed: dramatiq's status for an ImportError, a search that came to the end of the module path, and a module of the command
/// line whose file was never opened.
fn of_look_ups(
    case: &Case<'_>,
    process: &Process,
    raised: Option<&Raised>,
    code: i32,
    command: Option<&Command>,
) -> Option<Missing> {
    if code != 2 || raised.is_some() {
        return None;
    }
    let trail = case.model.imports.of(process.pid)?;
    let mark = trail.searched_at?;
    let opened = |name: &str| {
        let inside = name.replace('.', "/");
        let files = case.model.files.imports.get(&process.pid);
        files.is_some_and(|files| {
            files
                .own
                .keys()
                .any(|path| path.contains(&format!("/{inside}.")) || path.contains(&format!("/{inside}/")))
        })
    };
    let name = command?.imports().find(|name| !opened(name))?.to_owned();
    Some(Missing { name, mark: Some(mark), asked_by: None, sure: 0.75 })
}

/// Nothing was printed, all that the command line asks for was opened, and the last thing before dramatiq's status for an ImportError is a
/// search that came to the end of the module path: what one of those modules imports is missing, and its name was told nowhere. Alike: an
/// attribute of `MODULE:ATTRIBUTE` that is not there, before which nothing is searched; `sys.exit(2)`, the same.
pub(super) fn unnamed(
    case: &Case<'_>,
    process: &Process,
    raised: Option<&Raised>,
    code: i32,
) -> Option<Finding> {
    if code != 2 || raised.is_some() {
        return None;
    }
    let trail = case.model.imports.of(process.pid)?;
    let mark = trail.searched_at?;
    // What an installed package looks for in vain it mostly can do without: nothing of one was opened in between.
    let is_last = |opened: &Mark| trail.last_module == Some(*opened) && opened.event < mark.event;
    let (path, opened) = trail.last_own.as_ref().filter(|(_, opened)| is_last(opened))?;
    let searched = trail.searched.join(", ");
    Some(
        Finding::new(
            Code::ModuleNotFound,
            0.65,
            format!(
                "While {path} was imported, a module was looked for in {searched}, and not found; then the process ended with dramatiq's status for an ImportError. Nothing was printed that names the module."
            ),
        )
        .title(format!("a module that {path} imports was not found"))
        .evidence([
            Evidence::new(*opened, format!("opens {path}")),
            Evidence::new(mark, "the last directory of the module path was searched in vain"),
        ])
        .remedy(format!("import it by hand to see the name: python {path}")),
    )
}

/// The word of the command line that asks for this module.
fn requested<'c>(command: Option<&'c Command>, name: &str) -> Option<&'c str> {
    command?.imports().find(|word| {
        *word == name || word.strip_prefix(name).is_some_and(|rest| rest.starts_with(['.', '/']))
    })
}

/// What the disk said of a module, or of the package it would be in.
fn search<'a>(case: &Case<'a>, name: &str) -> Option<&'a (Mark, ModuleSearch)> {
    let imports = &case.model.imports;
    imports.search(name).or_else(|| imports.search(name.split('.').next().unwrap_or(name)))
}

/// A file's path as the module it would be.
fn as_module(word: &str) -> String {
    let word = word.trim_start_matches("./");
    word.strip_suffix(".py").unwrap_or(word).replace('/', ".")
}

fn is_file(word: &str) -> bool {
    word.contains('/') || word.ends_with(".py") || word.starts_with('.')
}

fn cause(case: &Case<'_>, pid: Pid, missing: &Missing, command: Option<&Command>) -> Option<&'static str> {
    let name = missing.name.as_str();
    let top = name.split('.').next().unwrap_or(name);
    let requested = requested(command, name);
    if let Some(word) = requested
        && is_file(word)
    {
        return Some("file-argument");
    }
    let of_disk = requested
        .and_then(|name| search(case, name))
        .or_else(|| search(case, name))
        .map(|(_, search)| search);
    let is_near = of_disk.is_some_and(|search| !search.near.is_empty());
    let has_absent = of_disk.is_some_and(|search| !search.absent.is_empty());
    let asked_by_own = missing.asked_by.as_deref().is_some_and(is_own_file);
    if requested.is_some() && !asked_by_own {
        // The package is there, and has no such module: a slip of the pen.
        let is_package = top != name && loaded(case, pid, top);
        return match (is_near, has_absent) {
            _ if is_package => None,
            (_, true) => Some("pythonpath-missing"),
            (true, false) => Some("wrong-cwd"),
            (false, false) => None,
        };
    }
    if is_near || (has_absent && of_disk.is_none_or(|search| search.installed.is_none())) {
        return Some("pythonpath-missing");
    }
    // Of an own package that was found: the name is wrong, nothing has to be installed.
    if top != name && loaded(case, pid, top) {
        return None;
    }
    Some("dependency-missing")
}

/// Whether an own package or module of this name was opened.
fn loaded(case: &Case<'_>, pid: Pid, top: &str) -> bool {
    let files = case.model.files.imports.get(&pid);
    files.is_some_and(|files| {
        files.own.keys().any(|path| {
            path.ends_with(&format!("/{top}/__init__.py")) || path.ends_with(&format!("/{top}.py"))
        })
    })
}
