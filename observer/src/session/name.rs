//! Names of sessions: which are allowed, and which one a command suggests. Knows command lines and nothing of files.

use super::SessionError;

const LONGEST: usize = 64;

/// Whether a session may have this name.
///
/// # Errors
/// When it may not: says why.
pub fn check(name: &str) -> Result<(), SessionError> {
    let why = if name.is_empty() {
        "it is empty"
    } else if name.len() > LONGEST {
        "it is longer than 64 characters"
    } else if name.starts_with(['-', '.']) {
        "it begins with `-` or `.`"
    } else if !name.bytes().all(allowed) {
        "it holds other characters"
    } else {
        return Ok(());
    };
    Err(SessionError::BadName { name: name.to_owned(), why })
}

const fn allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

/// What a person would call a run of this command: the module or script that is the point of it.
pub(super) fn suggest(command: &[String]) -> String {
    let name = subject(command).map(|word| clean(&word)).filter(|name| !name.is_empty());
    name.unwrap_or_else(|| "session".to_owned())
}

fn subject(command: &[String]) -> Option<String> {
    let (program, rest) = command.split_first()?;
    let program = base(program);
    if program == "dramatiq" {
        return Some(worker_module(rest).unwrap_or(program));
    }
    if matches!(program.as_str(), "env" | "sh" | "bash" | "dash") {
        // A shim: what it stands for is among its words.
        let inner = rest.iter().position(|word| is_python(&base(word)) || base(word) == "dramatiq");
        return inner.map_or(Some(program), |at| subject(rest.get(at..)?));
    }
    if !is_python(&program) {
        return Some(program);
    }
    let mut words = rest.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "-m" => {
                let module = words.next()?;
                return match module.as_str() {
                    "dramatiq" => Some(worker_module(words.as_slice()).unwrap_or_else(|| module.clone())),
                    _ => Some(module.clone()),
                };
            }
            "-c" | "-" => return Some(program),
            // The interpreter's own options that take a word.
            "-W" | "-X" => drop(words.next()),
            option if option.starts_with('-') => {}
            script => return Some(base(script)),
        }
    }
    Some(program)
}

fn is_python(program: &str) -> bool {
    program.starts_with("python") || program.starts_with("pypy")
}

/// A name with something said after it, not longer than a name may be.
pub(super) fn with_suffix(name: &str, after: &str) -> String {
    let room = LONGEST.saturating_sub(after.len() + 1);
    format!("{}-{after}", name.chars().take(room).collect::<String>())
}

/// The first module among the arguments of a launcher (`worker:broker` is module `worker`). Numbers are options' values.
fn worker_module(words: &[String]) -> Option<String> {
    let word =
        words.iter().find(|word| !word.starts_with(['-', '.', '/']) && word.parse::<f64>().is_err())?;
    Some(word.split(':').next().unwrap_or(word).to_owned())
}

fn base(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.strip_suffix(".py").unwrap_or(file).to_owned()
}

fn clean(word: &str) -> String {
    let replaced: String =
        word.chars().map(|c| if u8::try_from(c).is_ok_and(allowed) { c } else { '_' }).collect();
    // Room for `-99`, so that a counted name is allowed too.
    replaced.trim_start_matches(['-', '.']).chars().take(LONGEST - 8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shim_is_called_after_what_it_stands_for() {
        assert_eq!(name("/usr/bin/env bash /root/.pyenv/shims/python3 -m dramatiq shop"), "shop");
        assert_eq!(name("bash ./start.sh"), "bash");
        let long = with_suffix(&"x".repeat(56), "not-ready");
        assert!(check(&long).is_ok() && long.ends_with("x-not-ready"), "{long}");
    }

    fn name(command: &str) -> String {
        suggest(&command.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn a_session_is_named_after_what_runs() {
        assert_eq!(name("python -m dramatiq minimal_worker"), "minimal_worker");
        assert_eq!(name("/venv/bin/python3.12 -X dev -m dramatiq -p 1 -t 2 app.worker:broker"), "app.worker");
        assert_eq!(name("dramatiq worker other"), "worker");
        assert_eq!(name("python foo.py"), "foo");
        assert_eq!(name("python -u /srv/my tools/foo.py"), "my");
        assert_eq!(name("python -m http.server"), "http.server");
        assert_eq!(name("python -c pass"), "python");
        assert_eq!(name("python -m dramatiq"), "dramatiq");
        assert_eq!(name("/usr/bin/celery -A app worker"), "celery");
        assert_eq!(suggest(&[]), "session");
        assert_eq!(name("./-\u{1b}[31m"), "__31m");
    }

    #[test]
    fn every_suggestion_is_allowed() {
        for command in ["python -m dramatiq ..", "/", "..", "-", "\u{1b}]0;x\u{7}", "é", &"x".repeat(500)] {
            assert!(check(&name(command)).is_ok(), "{command:?} suggests {:?}", name(command));
        }
    }

    #[test]
    fn names_that_would_confuse_a_shell_or_a_path_are_refused() {
        for bad in ["", "-rf", ".hidden", "a/b", "a b", "@", "a\n", &"x".repeat(65)] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "minimal_worker-2", "_x", "1.2"] {
            assert!(check(good).is_ok(), "{good:?}");
        }
    }
}
