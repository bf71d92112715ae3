//! What a module's name and its file tell of each other. Knows names and paths only.

use super::Owner;

/// A module's name as far as its path tells: below a directory of packages or the standard library all of it, else the last parts.
pub fn name_of(path: &str, owner: &Owner) -> String {
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
pub fn fits(name: &str, path: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    let path = path.strip_suffix("/__init__.py").unwrap_or(path);
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().is_some_and(|stem| stem == last)
}

/// Whether something that exists and was asked for while a top-level module was looked for can be an entry of the module path: each entry
/// is asked whether it has changed, in order, before a module is looked for in it (CPython 3.9 to 3.14,
/// `importlib/_bootstrap_external.py`, `FileFinder.find_spec`).
pub fn may_be_entry(module: &str, path: &str) -> bool {
    let last = path.rsplit('/').next().unwrap_or(path);
    let is_file = [".py", ".pyc", ".so", ".zip", ".cfg", ".pth"].iter().any(|end| last.ends_with(end));
    !is_file && !module.contains('.') && last != module
}

/// Whether a path is that of an archive modules are imported from (PEP 273, PEP 441).
pub fn is_archive(path: &str) -> bool {
    [".zip", ".egg", ".whl", ".pyz"].iter().any(|end| path.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::python;

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

    #[test]
    fn an_entry_is_told_from_what_is_in_it() {
        assert!(may_be_entry("app", "/srv"));
        assert!(!may_be_entry("app", "/srv/app"));
        assert!(!may_be_entry("app", "/srv/app.py"));
        assert!(!may_be_entry("app.tasks", "/srv/app"));
    }
}
