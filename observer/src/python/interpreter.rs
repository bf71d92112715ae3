//! The interpreter a command would run, and whether its symbols can be found: what `doctor` says of Python. Reads ELF, runs nothing.

use std::{
    fs,
    path::{Path, PathBuf},
};

use object::{Object, ObjectSymbol, read::elf::ElfFile64};

use crate::capability::{Capability, State};

/// Every import passes through it, in every CPython since 3.3.
const IMPORT: &str = "PyImport_ImportModuleLevelObject";

/// Looks at `wanted`, or at the first `python` or `python3` on PATH.
pub fn probe(wanted: Option<&Path>) -> Capability {
    let path = wanted.map(Path::to_path_buf).or_else(|| on_path(&["python", "python3"]));
    let limited = |found: String, remedy: &str| Capability {
        name: "python".into(),
        state: State::Limited,
        found,
        lost: "imports by name; imports by opened file remain".into(),
        remedy: remedy.into(),
    };
    let Some(path) = path else {
        return limited("no python on PATH".into(), "activate the virtual environment, or --python FILE");
    };
    let shown = path.display().to_string();
    let real = match fs::canonicalize(&path) {
        Ok(real) => real,
        Err(error) => return limited(format!("{shown}: {error}"), "--python FILE"),
    };
    let Ok(data) = fs::read(&real) else {
        return limited(format!("{shown} cannot be read"), "--python FILE");
    };
    if data.starts_with(b"#!") {
        let remedy = "name the interpreter it starts: --python \"$(pyenv which python)\"";
        return limited(format!("{shown} is a script (a pyenv shim?)"), remedy);
    }
    let Ok(elf) = ElfFile64::<object::Endianness>::parse(&*data) else {
        return limited(format!("{shown} is no 64-bit ELF file"), "--python FILE");
    };
    let place = if exports(&elf) { Some(real.clone()) } else { shared_library(&real) };
    match place {
        Some(place) => Capability {
            name: "python".into(),
            state: State::Works,
            found: format!("{shown}: {IMPORT} in {}", place.display()),
            lost: String::new(),
            remedy: String::new(),
        },
        None => limited(
            format!("{shown} has no {IMPORT}, nor a libpython beside it that has"),
            "a CPython build that exports its symbols",
        ),
    }
}

fn on_path(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    names
        .iter()
        .find_map(|name| std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file()))
}

fn exports(elf: &ElfFile64<'_>) -> bool {
    elf.dynamic_symbols().any(|symbol| symbol.is_definition() && symbol.name() == Ok(IMPORT))
}

/// A shared build keeps its symbols in `libpython3.N.so.1.0`: beside the interpreter's `bin`, or where the system keeps libraries.
fn shared_library(interpreter: &Path) -> Option<PathBuf> {
    let beside = interpreter.parent()?.parent()?.join("lib");
    let dirs = [
        beside,
        "/usr/lib/x86_64-linux-gnu".into(),
        "/usr/lib/aarch64-linux-gnu".into(),
        "/usr/lib64".into(),
    ];
    let is_libpython = |file: &PathBuf| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("libpython3.") && name.contains(".so.")
    };
    let files = dirs
        .iter()
        .flat_map(|dir| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()));
    files.filter(is_libpython).find(|file| {
        fs::read(file)
            .is_ok_and(|data| ElfFile64::<object::Endianness>::parse(&*data).is_ok_and(|elf| exports(&elf)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_not_taken_for_an_interpreter() {
        let dir = tempfile::tempdir().unwrap();
        let shim = dir.path().join("python");
        fs::write(&shim, "#!/bin/sh\n").unwrap();
        let found = probe(Some(&shim));
        assert_eq!(found.state, State::Limited);
        assert!(found.found.contains("script"), "{}", found.found);
    }
}
