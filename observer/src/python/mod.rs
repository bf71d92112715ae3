//! What is specific to CPython: how a path tells whose module it is. Knows paths only; nothing of events, processes or terminals.

pub(crate) mod arguments;
pub mod command;
pub mod entrance;
pub mod installed;
pub mod interpreter;
pub mod layout;
pub mod naming;
mod plain;
pub mod registry;
pub mod stdlib;
pub mod traceback;

/// Whose code a module file is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// The user's: in no place where Python installs things.
    Own,
    /// Of an installed distribution: the top-level package or module in `site-packages` or `dist-packages`.
    Package(String),
    /// The standard library's.
    Stdlib,
}

/// A file that Python imports code from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleFile {
    /// The source file it stands for (`__pycache__/x.cpython-312.pyc` stands for `x.py`); an extension module stands for itself.
    pub path: String,
    /// Whose it is.
    pub owner: Owner,
}

/// The text inside a message of `multiprocessing.connection`: its length as four big-endian bytes, then it. dramatiq's workers hand
/// their log lines to their parent in such messages. `None` when the bytes are not one whole message.
pub fn connection_message(bytes: &[u8]) -> Option<&[u8]> {
    let (length, text) = bytes.split_first_chunk::<4>()?;
    (u32::from_be_bytes(*length) as usize == text.len() && !text.is_empty()).then_some(text)
}

/// The module that an interpreter's arguments name with `-m`; what stands after a script, or after `-c`, is not the interpreter's
/// (`python(1)`; CPython, `Python/initconfig.c`, `config_parse_cmdline`). The first word is the interpreter.
pub fn module_of(argv: &[String]) -> Option<&str> {
    let mut words = argv.get(1..)?.iter().map(String::as_str);
    while let Some(word) = words.next() {
        match word {
            "-m" => return words.next(),
            "-X" | "-W" | "--check-hash-based-pycs" => drop(words.next()),
            "-c" | "-" | "--" => return None,
            word if word.starts_with("-m") => return word.get(2..),
            // `-um dramatiq`: options that take nothing can stand together.
            word if word.starts_with('-') && !word.starts_with("--") && word.ends_with('m') => {
                return words.next();
            }
            word if word.starts_with('-') => {}
            _ => return None,
        }
    }
    None
}

/// What module file a path is, if it is one.
///
/// File names follow PEP 3147 and PEP 488 (`x.cpython-312.opt-1.pyc`) and PEP 3149 (`x.cpython-312-x86_64-linux-gnu.so`). A plain
/// `.so` counts only where Python keeps extension modules: elsewhere it is a shared library that the linker loaded.
pub fn module_file(path: &str) -> Option<ModuleFile> {
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
    let (stem, extension) = name.rsplit_once('.')?;
    let source = match extension {
        "py" => path.to_owned(),
        "pyc" => source_of_cached(directory, stem).unwrap_or_else(|| path.to_owned()),
        "so" => path.to_owned(),
        _ => return None,
    };
    let owner = owner(&source);
    if extension == "so" && !is_extension_module(directory, stem, &owner) {
        return None;
    }
    Some(ModuleFile { path: source, owner })
}

fn source_of_cached(directory: &str, stem: &str) -> Option<String> {
    let parent = directory.strip_suffix("__pycache__")?;
    let (module, _tag) = stem.split_once('.')?;
    Some(format!("{parent}{module}.py"))
}

fn is_extension_module(directory: &str, stem: &str, owner: &Owner) -> bool {
    let tagged = stem.contains(".cpython-") || stem.ends_with(".abi3");
    match owner {
        // auditwheel puts the shared libraries of a wheel into `NAME.libs` beside the package.
        Owner::Package(package) => tagged || !(package.ends_with(".libs") || directory.ends_with(".libs")),
        Owner::Stdlib => tagged || directory.ends_with("/lib-dynload"),
        Owner::Own => tagged,
    }
}

/// Whose a file is, by where it lies.
pub fn owner(path: &str) -> Owner {
    let mut previous = "";
    let mut stdlib = false;
    let mut parts = path.split('/');
    while let Some(part) = parts.next() {
        if part == "site-packages" || part == "dist-packages" {
            return parts.next().map_or(Owner::Own, |top| Owner::Package(top_level(top)));
        }
        // `lib/python3.12`, `lib64/python3.13t`, and the zip beside them.
        stdlib |= previous.starts_with("lib") && is_versioned_python(part);
        previous = part;
    }
    if stdlib { Owner::Stdlib } else { Owner::Own }
}

fn is_versioned_python(part: &str) -> bool {
    part.strip_prefix("python").is_some_and(|version| version.starts_with(|c: char| c.is_ascii_digit()))
}

fn top_level(entry: &str) -> String {
    // `six.py` and `_cffi_backend.cpython-312-x86_64-linux-gnu.so` are modules; a directory's dots are part of its name.
    let is_file = [".py", ".pyc", ".so"].iter().any(|extension| entry.ends_with(extension));
    match entry.split_once('.') {
        Some((module, _)) if is_file => module.to_owned(),
        _ => entry.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_the_interpreters_own_argument() {
        let of = |line: &str| {
            let argv: Vec<String> = line.split(' ').map(str::to_owned).collect();
            module_of(&argv).map(str::to_owned)
        };
        assert_eq!(of("python -m dramatiq tasks").as_deref(), Some("dramatiq"));
        assert_eq!(of("python3.12 -X dev -W error -u -m dramatiq tasks").as_deref(), Some("dramatiq"));
        assert_eq!(of("python -um dramatiq tasks").as_deref(), Some("dramatiq"));
        assert_eq!(of("python -mdramatiq tasks").as_deref(), Some("dramatiq"));
        assert_eq!(of("python /venv/bin/tox exec -- python -m dramatiq tasks"), None);
        assert_eq!(of("python -c pass -m dramatiq"), None);
        assert_eq!(of("python"), None);
    }

    #[test]
    fn a_message_is_told_from_plain_text() {
        assert_eq!(connection_message(b"\0\0\0\x03hi\n"), Some(&b"hi\n"[..]));
        assert_eq!(connection_message(b"hi, all of you\n"), None);
        assert_eq!(connection_message(b"\0\0\0\0"), None);
        assert_eq!(connection_message(b"\0"), None);
    }

    fn owner_of(path: &str) -> Option<(String, Owner)> {
        module_file(path).map(|file| (file.path, file.owner))
    }

    #[test]
    fn cached_bytecode_stands_for_its_source() {
        assert_eq!(
            owner_of("/app/__pycache__/worker.cpython-312.pyc"),
            Some(("/app/worker.py".into(), Owner::Own))
        );
        assert_eq!(
            owner_of("/app/__pycache__/worker.cpython-312.opt-1.pyc"),
            Some(("/app/worker.py".into(), Owner::Own))
        );
        assert_eq!(
            owner_of("__pycache__/worker.cpython-312.pyc"),
            Some(("worker.py".into(), Owner::Own)),
            "a relative path"
        );
        assert_eq!(
            owner_of("/app/plain.pyc"),
            Some(("/app/plain.pyc".into(), Owner::Own)),
            "a module without source"
        );
    }

    #[test]
    fn the_path_tells_whose_a_module_is() {
        let package = |name: &str| Owner::Package(name.into());
        for (path, owner) in [
            ("/venv/lib/python3.12/site-packages/pika/__init__.py", package("pika")),
            ("/venv/lib/python3.12/site-packages/six.py", package("six")),
            ("/venv/lib/python3.12/site-packages/__pycache__/six.cpython-312.pyc", package("six")),
            (
                "/venv/lib/python3.12/site-packages/_cffi_backend.cpython-312-x86_64-linux-gnu.so",
                package("_cffi_backend"),
            ),
            ("/usr/lib/python3/dist-packages/yaml/loader.py", package("yaml")),
            ("/usr/lib/python3.11/json/decoder.py", Owner::Stdlib),
            ("/usr/local/lib/python3.13t/lib-dynload/_ssl.cpython-313t-x86_64-linux-gnu.so", Owner::Stdlib),
            ("/home/me/python3.12/worker.py", Owner::Own),
            ("/app/lib/worker.py", Owner::Own),
        ] {
            assert_eq!(owner_of(path).map(|(_, owner)| owner), Some(owner), "{path}");
        }
    }

    #[test]
    fn what_the_dynamic_linker_loads_is_no_module() {
        for path in [
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/usr/lib/libz.so",
            "/venv/lib/python3.12/site-packages/psycopg2_binary.libs/libpq.so",
            "/app/README.md",
            "/app/Makefile",
        ] {
            assert_eq!(module_file(path), None, "{path}");
        }
    }
}
