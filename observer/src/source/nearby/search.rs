//! Where a module is, if it is near: a bounded walk from the working directory and the entries of the module path. Reads directories
//! only; follows no symbolic link.

use std::{
    collections::{BTreeSet, VecDeque},
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::{
    event::{ModuleSearch, Near},
    python::{self, Owner},
};

/// Directory entries that are looked at for one module, and how long that may take.
const MAX_ENTRIES: u64 = 4_000;
const MAX_TIME: Duration = Duration::from_millis(300);
/// Places that are told.
const MAX_NEAR: usize = 8;
/// Names taken from the output of one process.
const MAX_NAMES: usize = 8;
/// How deep the walk goes below the working directory, below the one above it, and below others.
const BELOW: u32 = 3;
const BESIDE: u32 = 2;
const ELSEWHERE: u32 = 1;
/// Anybody may write there: what lies beside has nothing to do with it.
const STICKY: u32 = 0o1000;

/// Whence a search starts.
#[derive(Clone, Debug, Default)]
pub(super) struct Place {
    pub(super) cwd: String,
    /// Entries of `PYTHONPATH` and `--path`, absolute.
    pub(super) module_path: Vec<String>,
    /// `site-packages` directories that are in use.
    pub(super) sites: Vec<String>,
}

/// Adds the names that output says were not found. CPython words it so in every version (`importlib/_bootstrap.py`, `_ERR_MSG_PREFIX`).
pub(super) fn names_in(output: &[u8], names: &mut Vec<String>) {
    const PREFIX: &[u8] = b"No module named '";
    let mut rest = output;
    while let Some(at) = memchr::memmem::find(rest, PREFIX) {
        rest = rest.get(at + PREFIX.len()..).unwrap_or_default();
        let Some(end) = rest.iter().position(|byte| matches!(byte, b'\'' | b'\n')) else { return };
        let name = String::from_utf8_lossy(rest.get(..end).unwrap_or_default()).into_owned();
        if names.len() < MAX_NAMES && name.len() <= 200 && !names.contains(&name) {
            names.push(name);
        }
    }
}

/// The name under which a file is a top-level module of the working directory or of an entry of the module path.
pub(super) fn top_level(path: &str, cwd: &str, module_path: &[String]) -> Option<String> {
    let inside = |entry: &str| path.strip_prefix(entry.trim_end_matches('/'))?.strip_prefix('/');
    let rest = inside(cwd).or_else(|| module_path.iter().find_map(|entry| inside(entry)))?;
    let name = match rest.split_once('/') {
        None => rest.strip_suffix(".py")?,
        Some((package, "__init__.py" | "__main__.py")) => package,
        Some(_) => return None,
    };
    name.chars().all(|c| c.is_alphanumeric() || c == '_').then(|| name.to_owned())
}

/// The paths a module of this name has below the directory it is imported from. A path that was given instead of a name is taken as
/// the module it means.
fn candidates(name: &str) -> Vec<String> {
    let meant = name.trim_start_matches("./").trim_end_matches('/');
    let meant = meant.strip_suffix(".py").unwrap_or(meant);
    let relative = meant.replace('.', "/");
    if relative.is_empty() || relative.starts_with('/') || relative.contains("//") {
        return Vec::new();
    }
    vec![format!("{relative}.py"), format!("{relative}/__init__.py")]
}

pub(super) fn search(name: &str, place: &Place) -> ModuleSearch {
    let candidates = candidates(name);
    let top = name.split(['.', '/']).next().unwrap_or(name);
    let installed = place.sites.iter().flat_map(|site| {
        [format!("{site}/{top}/__init__.py"), format!("{site}/{top}.py"), format!("{site}/{top}")]
    });
    let mut walk =
        Walk { deadline: Instant::now() + MAX_TIME, entries: 0, seen: BTreeSet::new(), complete: true };
    let mut near = Vec::new();
    if !candidates.is_empty() {
        for (start, depth) in starts(place) {
            walk.from(start, depth, &mut |root| {
                for candidate in &candidates {
                    let path = root.join(candidate);
                    if near.len() < MAX_NEAR && path.is_file() {
                        near.push(Near {
                            root: root.display().to_string(),
                            path: path.display().to_string(),
                        });
                    }
                }
            });
        }
    }
    let absent =
        place.module_path.iter().filter(|entry| !Path::new(entry).is_dir() && !entry.ends_with(".zip"));
    ModuleSearch {
        name: name.to_owned(),
        near,
        installed: installed.into_iter().find(|path| !top.is_empty() && Path::new(path).exists()),
        absent: absent.cloned().collect(),
        entries: walk.entries,
        complete: walk.complete,
    }
}

/// The directories a search starts from, and how deep it goes below each.
fn starts(place: &Place) -> Vec<(PathBuf, u32)> {
    let cwd = Path::new(&place.cwd);
    let mut starts = vec![(cwd.to_owned(), BELOW)];
    let above = |path: &Path| path.parent().filter(|parent| is_private(parent)).map(Path::to_owned);
    if let Some(parent) = above(cwd) {
        let grandparent = above(&parent);
        starts.push((parent, BESIDE));
        starts.extend(grandparent.map(|grandparent| (grandparent, ELSEWHERE)));
    }
    for entry in &place.module_path {
        let entry = Path::new(entry);
        starts.push((entry.to_owned(), ELSEWHERE));
        starts.extend(above(entry).map(|parent| (parent, ELSEWHERE)));
    }
    starts
}

/// Whether what lies in a directory belongs together: not the root, not one where anybody may write, not where homes are.
fn is_private(path: &Path) -> bool {
    path.parent().is_some()
        && path != Path::new("/home")
        && fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir() && meta.mode() & STICKY == 0)
}

struct Walk {
    deadline: Instant,
    entries: u64,
    seen: BTreeSet<PathBuf>,
    complete: bool,
}

impl Walk {
    /// Visits a directory and those below it, the nearest first.
    fn from(&mut self, start: PathBuf, depth: u32, visit: &mut dyn FnMut(&Path)) {
        let mut queue = VecDeque::from([(start, depth)]);
        while let Some((directory, depth)) = queue.pop_front() {
            if self.entries >= MAX_ENTRIES || Instant::now() >= self.deadline {
                self.complete = false;
                return;
            }
            if self.seen.insert(directory.clone()) {
                visit(&directory);
            }
            if depth == 0 {
                continue;
            }
            let Ok(entries) = fs::read_dir(&directory) else { continue };
            let mut below = Vec::new();
            for entry in entries.flatten() {
                self.entries += 1;
                if self.entries >= MAX_ENTRIES {
                    break;
                }
                // The type of the entry itself: a link is no directory here.
                if entry.file_type().is_ok_and(|kind| kind.is_dir())
                    && is_worth(&entry.file_name().to_string_lossy())
                {
                    below.push(entry.path());
                }
            }
            below.sort();
            below.retain(|path| !path.join("pyvenv.cfg").exists());
            queue.extend(below.into_iter().map(|path| (path, depth - 1)));
        }
    }
}

fn is_worth(name: &str) -> bool {
    !name.starts_with('.')
        && !matches!(
            name,
            "node_modules" | "site-packages" | "dist-packages" | "__pycache__" | "proc" | "sys" | "dev"
        )
        && python::owner(name) == Owner::Own
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[&str]) -> (tempfile::TempDir, Place) {
        let scratch = tempfile::tempdir().unwrap();
        for file in files {
            let path = scratch.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let cwd = scratch.path().join("app").display().to_string();
        (scratch, Place { cwd, ..Place::default() })
    }

    fn roots(name: &str, (scratch, place): &(tempfile::TempDir, Place)) -> Vec<String> {
        let base = scratch.path().display().to_string();
        search(name, place).near.into_iter().map(|near| near.root.replace(&base, "")).collect()
    }

    #[test]
    fn a_module_near_by_is_found_and_one_far_away_is_not() {
        let tree = tree(&[
            "app/service/tasks.py",
            "lib/helpers/__init__.py",
            "app/venv/pyvenv.cfg",
            "app/venv/other.py",
            "app/a/b/c/d/deep.py",
        ]);
        assert_eq!(roots("tasks", &tree), ["/app/service"]);
        assert_eq!(roots("service.tasks", &tree), ["/app"]);
        assert_eq!(roots("service/tasks.py", &tree), ["/app"]);
        assert_eq!(roots("helpers", &tree), ["/lib"]);
        for name in ["other", "deep", "", "..", "/etc/passwd"] {
            assert_eq!(roots(name, &tree), [""; 0], "{name}");
        }
    }

    #[test]
    fn names_are_read_from_output() {
        let mut names = Vec::new();
        names_in(b"ModuleNotFoundError: No module named 'a.b'; 'a' is not a package\nNo module named 'c'\nNo module named 'cut", &mut names);
        assert_eq!(names, ["a.b", "c"]);
    }

    #[test]
    fn only_top_level_modules_have_a_name() {
        let path = ["/lib".to_owned()];
        assert_eq!(top_level("/app/queue.py", "/app", &path).as_deref(), Some("queue"));
        assert_eq!(top_level("/lib/yaml/__init__.py", "/app", &path).as_deref(), Some("yaml"));
        assert_eq!(top_level("/app/pkg/queue.py", "/app", &path), None);
        assert_eq!(top_level("/else/queue.py", "/app", &path), None);
    }
}
