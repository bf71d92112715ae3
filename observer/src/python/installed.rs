//! Python installations as they lie on disk: which file holds an interpreter's code, which environment it belongs to, and which
//! interpreters a command may turn out to start. Reads files, runs nothing.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use object::{
    Endianness, Object, ObjectSection, ObjectSymbol, ReadCache,
    elf::{DT_NEEDED, DT_RPATH, DT_RUNPATH, DynamicTag},
    read::elf::{Dyn as _, ElfFile64, FileHeader as _, SectionHeader as _},
};

use super::{entrance::IMPORT, plain};

/// Where the dynamic linker looks last.
const LIBRARIES: [&str; 6] = [
    "/usr/lib/x86_64-linux-gnu",
    "/lib/x86_64-linux-gnu",
    "/usr/lib64",
    "/lib64",
    "/usr/local/lib",
    "/usr/lib",
];
/// No executable or library of an interpreter is larger, and no text that configures one.
pub(super) const MOST_BYTES: u64 = 256 << 20;
const MOST_TEXT_BYTES: u64 = 64 << 10;
/// Directories of PATH, and entries of directories, that are looked at.
const MAX_DIRECTORIES: usize = 64;
const MAX_ENTRIES: usize = 1_000;

/// A virtual environment's configuration (PEP 405).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VirtualEnv {
    /// The environment's folder: `sys.prefix`.
    pub prefix: String,
    /// The folder of the installation it was made from: `sys.base_prefix`, as far as `home` tells.
    pub base_prefix: Option<String>,
    /// Whether that installation's packages are seen too.
    pub system_site_packages: bool,
}

/// A path of an absolute one inside another root directory.
pub fn inside(root: &Path, path: &Path) -> PathBuf {
    if root == Path::new("/") { path.to_owned() } else { root.join(path.strip_prefix("/").unwrap_or(path)) }
}

/// The minor version in a name such as `python3.12` or `libpython3.12.so.1.0`; `None` too for a free-threaded one.
pub fn minor_in(name: &str) -> Option<u32> {
    let (_, rest) = name.split_once("python3.")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    let after = rest.get(digits.len()..).unwrap_or_default();
    if after.starts_with('t') { None } else { digits.parse().ok() }
}

/// Whether a program of this name may be an interpreter.
pub fn may_be_python(path: &str) -> bool {
    path.rsplit('/').next().unwrap_or(path).starts_with("python")
}

/// The file that holds the interpreter's code: `real` itself, or the `libpython` it is linked with. Both are paths inside `root`.
pub fn holder(real: &Path, root: &Path) -> Option<PathBuf> {
    let data = ReadCache::new(plain::open(&inside(root, real), MOST_BYTES).ok()?);
    let elf = ElfFile64::<Endianness, _>::parse(&data).ok()?;
    if elf.dynamic_symbols().any(|symbol| symbol.is_definition() && symbol.name() == Ok(IMPORT)) {
        return Some(real.to_owned());
    }
    let (needed, search) = dynamic(&elf)?;
    let name = needed.into_iter().find(|name| name.starts_with("libpython3"))?;
    let origin = real.parent()?;
    let of_path = search.iter().flat_map(|path| path.split(':')).map(|dir| {
        let origin = origin.to_string_lossy();
        PathBuf::from(dir.replace("$ORIGIN", &origin).replace("${ORIGIN}", &origin))
    });
    let beside = origin.parent().map(|prefix| prefix.join("lib"));
    let mut directories = of_path.chain(beside).chain(LIBRARIES.iter().map(PathBuf::from));
    directories.find_map(|dir| {
        let file = dir.join(&name);
        inside(root, &file).is_file().then_some(file)
    })
}

type Strings = Vec<String>;

/// Libraries an executable needs, and where it has them looked for.
fn dynamic<'data, R: object::ReadRef<'data>>(
    elf: &ElfFile64<'data, Endianness, R>,
) -> Option<(Strings, Strings)> {
    let endian = elf.endian();
    let sections = elf.elf_header().sections(endian, elf.data()).ok()?;
    let (entries, link) =
        sections.iter().find_map(|section| section.dynamic(endian, elf.data()).ok().flatten())?;
    let strings = elf.section_by_index(link).ok()?.data().ok()?;
    let text = |at: u64| {
        let bytes = strings.get(at as usize..)?.split(|byte| *byte == 0).next()?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    };
    let of = |tags: &[DynamicTag]| {
        let wanted = entries.iter().filter(|entry| tags.contains(&entry.d_tag(endian)));
        wanted.filter_map(|entry| text(entry.d_val(endian))).collect()
    };
    Some((of(&[DT_NEEDED]), of(&[DT_RPATH, DT_RUNPATH])))
}

/// The virtual environment an interpreter started by this path belongs to (CPython's `getpath`: beside the executable, or one above).
pub fn virtual_env(started: &Path, root: &Path) -> Option<VirtualEnv> {
    let bin = started.parent()?;
    [Some(bin), bin.parent()].into_iter().flatten().find_map(|dir| {
        let text = plain::text(&inside(root, &dir.join("pyvenv.cfg")), MOST_TEXT_BYTES).ok()?;
        let value = |key: &str| {
            text.lines()
                .filter_map(|line| line.split_once('='))
                .find(|(name, _)| name.trim().eq_ignore_ascii_case(key))
                .map(|(_, value)| value.trim().to_owned())
        };
        let base =
            value("home").and_then(|home| Some(Path::new(&home).parent()?.to_string_lossy().into_owned()));
        Some(VirtualEnv {
            prefix: dir.to_string_lossy().into_owned(),
            base_prefix: base,
            system_site_packages: value("include-system-site-packages").is_some_and(|value| value == "true"),
        })
    })
}

/// What is known of a command before it runs.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// Its words.
    pub words: Vec<String>,
    /// Its environment.
    pub environment: Vec<String>,
    /// Its working directory.
    pub cwd: PathBuf,
}

impl Start {
    fn variable(&self, name: &str) -> Option<&str> {
        self.environment.iter().find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }

    fn path(&self) -> impl Iterator<Item = PathBuf> {
        let path = self.variable("PATH").unwrap_or("/bin:/usr/bin");
        path.split(':').take(MAX_DIRECTORIES).map(|dir| self.cwd.join(dir))
    }

    fn on_path(&self, name: &str) -> Option<PathBuf> {
        if name.contains('/') {
            return Some(self.cwd.join(name));
        }
        self.path().map(|dir| dir.join(name)).find(|file| file.is_file())
    }

    /// Interpreters the command may start, the likeliest first: what it names, what the scripts it names begin with, what PATH and
    /// virtual environments hold, and what pyenv would choose. Resolved, each once. A command that is an interpreter is expected to start
    /// no other: each that is expected costs a tenth of a second or more when it is let go of.
    pub fn interpreters(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for word in self.words.iter().take(8) {
            // `sh -c "exec python …"`: the words inside may name one too.
            for word in word.split([' ', '=', ';', '\'', '"']).take(32) {
                let Some(name) = word.rsplit('/').next() else { continue };
                let first = self.words.first().is_some_and(|first| first == word);
                if first || name.starts_with("python") {
                    self.follow(word, &mut found, 0);
                }
            }
        }
        if self.is_python() {
            return found;
        }
        for name in ["python", "python3"] {
            self.follow(name, &mut found, 0);
        }
        if let Some(prefix) = self.variable("VIRTUAL_ENV") {
            add(&Path::new(prefix).join("bin/python"), &mut found);
        }
        for entry in [".venv", "venv"] {
            add(&self.cwd.join(entry).join("bin/python"), &mut found);
        }
        for tool in [".tox", ".nox"] {
            for entry in fs::read_dir(self.cwd.join(tool)).into_iter().flatten().flatten().take(MAX_ENTRIES) {
                add(&entry.path().join("bin/python"), &mut found);
            }
        }
        for dir in self.path() {
            let entries = fs::read_dir(&dir).into_iter().flatten().flatten().take(MAX_ENTRIES);
            for entry in entries {
                let name = entry.file_name();
                // `python3.12`, not `python3.12-config`.
                let rest = name.to_string_lossy().strip_prefix("python3.").map(str::to_owned);
                if rest.is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit())) {
                    add(&entry.path(), &mut found);
                }
            }
        }
        found
    }

    /// Whether the command is an interpreter itself, and no script that may choose one.
    fn is_python(&self) -> bool {
        let first = self.words.first().and_then(|word| self.on_path(word));
        first.is_some_and(|file| may_be_python(&file.to_string_lossy()) && script(&file).is_none())
    }

    /// Takes an executable, or what a script begins with, or what pyenv's shim would start.
    fn follow(&self, word: &str, found: &mut Vec<PathBuf>, depth: usize) {
        let Some(file) = self.on_path(word).filter(|_| depth < 4) else { return };
        match script(&file) {
            None => add(&file, found),
            Some(_) if file.parent().is_some_and(|dir| dir.ends_with("shims")) => self.pyenv(found),
            Some(line) => {
                let mut words = line.split_whitespace();
                let interpreter = words.next().unwrap_or_default();
                let named = if interpreter.ends_with("/env") {
                    words.find(|word| !word.starts_with('-') && !word.contains('='))
                } else {
                    Some(interpreter)
                };
                if let Some(named) = named {
                    self.follow(named, found, depth + 1);
                }
            }
        }
    }

    /// What pyenv's shim starts: the version `PYENV_VERSION` or the nearest `.python-version` names, else the global one.
    fn pyenv(&self, found: &mut Vec<PathBuf>) {
        let home = self.variable("HOME").unwrap_or("/root");
        let root = self.variable("PYENV_ROOT").map_or_else(|| Path::new(home).join(".pyenv"), PathBuf::from);
        let local = self.cwd.ancestors().find_map(|dir| fs::read_to_string(dir.join(".python-version")).ok());
        let chosen = self
            .variable("PYENV_VERSION")
            .map(|version| version.replace(':', "\n"))
            .or(local)
            .or_else(|| fs::read_to_string(root.join("version")).ok())
            .unwrap_or_default();
        let mut versions: Vec<String> = fs::read_dir(root.join("versions"))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        versions.sort();
        for wanted in chosen.split_whitespace() {
            let dotted = format!("{wanted}.");
            let is_it = |version: &&String| *version == wanted || version.starts_with(&dotted);
            if let Some(version) = versions.iter().rfind(is_it) {
                add(&root.join("versions").join(version).join("bin/python3"), found);
            }
        }
    }
}

/// The first line of a script, without `#!`.
fn script(file: &Path) -> Option<String> {
    let mut bytes = [0; 256];
    let len = File::open(file).and_then(|mut file| file.read(&mut bytes)).ok()?;
    let line = bytes.get(..len)?.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    Some(String::from_utf8_lossy(line).trim().to_owned())
}

fn add(file: &Path, found: &mut Vec<PathBuf>) {
    if let Ok(real) = fs::canonicalize(file)
        && may_be_python(&real.to_string_lossy())
        && script(&real).is_none()
        && !found.contains(&real)
    {
        found.push(real);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_the_name() {
        assert_eq!(minor_in("libpython3.12.so.1.0"), Some(12));
        assert_eq!(minor_in("/usr/bin/python3.9"), Some(9));
        assert_eq!(minor_in("libpython3.13t.so.1.0"), None);
        assert_eq!(minor_in("python3"), None);
    }

    #[test]
    fn a_virtual_environment_says_where_it_comes_from() {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("bin");
        fs::create_dir(&bin).unwrap();
        fs::write(dir.path().join("pyvenv.cfg"), "home = /opt/py/bin\ninclude-system-site-packages = true\n")
            .unwrap();
        let found = virtual_env(&bin.join("python"), Path::new("/")).unwrap();
        assert_eq!(found.base_prefix.as_deref(), Some("/opt/py"));
        assert!(found.system_site_packages);
        assert_eq!(virtual_env(Path::new("/nowhere/bin/python"), Path::new("/")), None);
    }

    #[test]
    fn a_script_leads_to_its_interpreter() {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("bin");
        fs::create_dir(&bin).unwrap();
        fs::write(bin.join("python3.99"), "\x7fELF").unwrap();
        fs::write(bin.join("worker"), format!("#!{}\n", bin.join("python3.99").display())).unwrap();
        let environment = vec![format!("PATH={}", bin.display())];
        for words in [vec!["worker"], vec!["sh", "-c", "exec python3.99 x.py"], vec!["python3.99", "x.py"]] {
            let words = words.into_iter().map(str::to_owned).collect();
            let start = Start { words, environment: environment.clone(), cwd: dir.path().to_owned() };
            assert_eq!(
                start.interpreters().first(),
                Some(&fs::canonicalize(bin.join("python3.99")).unwrap())
            );
        }
    }
}
