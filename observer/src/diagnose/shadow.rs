//! A local file that took the place of another module. Knows names of modules and the places they come from.

use super::{
    case::Case,
    catalogue::Code,
    finding::{Evidence, Finding},
};
use crate::{
    model::{dramatiq::Role, mark::Mark, process::Process, tracebacks::Raised},
    python::{
        self, Owner, stdlib,
        traceback::{Frame, Traceback},
    },
};

/// A file of the working directory or PYTHONPATH was loaded under the name of a module of the standard library or of an installed one
/// (CPython, `sys.path`: the script's directory, or with `-m` the working directory, comes first), and the process failed of it: the
/// import or the look-up that failed names that module, or a library imported the file for its own; or dramatiq itself was replaced, so
/// that nothing happened at all. Alike: a local module of such a name where everything works, or that was meant and raises by itself.
pub(super) fn shadowed(
    case: &Case<'_>,
    process: &Process,
    raised: Option<&Raised>,
    code: i32,
) -> Option<Finding> {
    let is_master = case.role(process.pid) == Role::Master;
    let replaced = candidates(case, process).into_iter().find(|(name, path, _)| {
        if *name == "dramatiq" && is_master && code == 0 {
            return true;
        }
        raised.is_some_and(|raised| {
            raised.traceback.chain().any(|one| names_it(one, name, path) || is_taken_by_library(one, path))
        })
    });
    let (name, path, mark) = replaced?;
    let other = if name == "dramatiq" || !stdlib::is_stdlib(&name) {
        "the installed module"
    } else {
        "the standard library's"
    };
    let came = match raised {
        Some(raised) => format!("It raised {}: {}", raised.traceback.kind, raised.traceback.message),
        None => "It did nothing: no worker was started, and nothing was printed".to_owned(),
    };
    Some(
        Finding::new(
            Code::ModuleShadowed,
            if raised.is_some() { 0.93 } else { 0.9 },
            format!("{path} was loaded as module {name}, in the place of {other}. {came}."),
        )
        .title(format!("{path} takes the place of module {name}"))
        .evidence([Evidence::new(mark, format!("opens {path}"))])
        .evidence(raised.map(|raised| {
            Evidence::new(raised.first, format!("{}: {}", raised.traceback.kind, raised.traceback.message))
        }))
        .remedy(format!("rename {path}")),
    )
}

/// Whether an exception says that something is not in this module: what was wanted of it the other one has.
fn names_it(one: &Traceback, name: &str, path: &str) -> bool {
    matches!(one.name(), "ImportError" | "ModuleNotFoundError" | "AttributeError")
        && (one.message.contains(&format!("'{name}'"))
            || one.message.contains(&format!("'{name}."))
            || one.message.contains(path))
}

/// Whether a library's own import led to this file. What dramatiq imports by name it was told to.
fn is_taken_by_library(one: &Traceback, path: &str) -> bool {
    let importer = |frame: &&Frame| {
        !frame.file.starts_with("<frozen importlib") && !frame.file.ends_with("/importlib/__init__.py")
    };
    let calls: Vec<&Frame> = one.frames.iter().filter(importer).collect();
    calls.windows(2).any(|pair| match pair {
        [by, of] => {
            of.file == path
                && python::module_file(&by.file).is_some_and(|module| module.owner != Owner::Own)
                && !by.file.ends_with("dramatiq/cli.py")
        }
        _ => false,
    })
}

/// Own module files that have the name of a module of others.
fn candidates(case: &Case<'_>, process: &Process) -> Vec<(String, String, Mark)> {
    let mut pids = vec![process.pid];
    pids.extend(process.parent);
    let mut found = Vec::new();
    for files in pids.iter().filter_map(|pid| case.model.files.imports.get(pid)) {
        for (path, mark) in &files.own {
            let stem = path.strip_suffix("/__init__.py").or_else(|| path.strip_suffix(".py")).unwrap_or(path);
            let Some((folder, name)) = stem.rsplit_once('/') else { continue };
            // A module inside a package has another name than its file's.
            let in_package = files.own.contains_key(&format!("{folder}/__init__.py"));
            let installed =
                || case.model.imports.search(name).is_some_and(|(_, search)| search.installed.is_some());
            let taken = name == "dramatiq" || stdlib::is_stdlib(name) || installed();
            if !in_package && taken && name != "__main__" {
                found.push((name.to_owned(), path.clone(), *mark));
            }
        }
    }
    found
}
