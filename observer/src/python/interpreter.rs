//! The interpreter a command would run, and whether its symbols can be found: what `doctor` says of Python. Reads ELF, runs nothing.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    entrance::{self, IMPORT},
    installed,
};
use crate::capability::{Capability, State};

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
    let Some(holder) = installed::holder(&real, Path::new("/")) else {
        return limited(
            format!("{shown} has no {IMPORT}, nor is it linked with a libpython that has"),
            "a CPython build that exports its symbols",
        );
    };
    let name = |path: &Path| path.file_name().and_then(|name| installed::minor_in(&name.to_string_lossy()));
    match entrance::find(&holder, name(&holder).or_else(|| name(&real))) {
        Ok(_) => Capability {
            name: "python".into(),
            state: State::Works,
            found: format!("{shown}: {IMPORT} in {}", holder.display()),
            lost: String::new(),
            remedy: String::new(),
        },
        Err(why) => limited(
            format!("{shown}: cannot find where {} imports: {why}", holder.display()),
            "a CPython build from 3.9 to 3.14, with a GIL",
        ),
    }
}

fn on_path(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    names
        .iter()
        .find_map(|name| std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file()))
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
