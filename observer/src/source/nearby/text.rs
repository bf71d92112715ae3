//! What a text that was read is: its content, to be hashed before anything is kept of it, and which variables of the environment it
//! names. Reads files; concludes nothing.

use std::{
    collections::HashMap,
    fs::{self, File, Metadata, OpenOptions},
    io::Read,
    os::unix::fs::OpenOptionsExt as _,
};

use nix::libc::O_NONBLOCK;

use crate::event::{FileLook, Pid};

/// A longer file is neither configuration nor source that somebody wrote.
const MAX_BYTES: u64 = 256 << 10;
/// Variables told of one file.
const MAX_NAMES: usize = 64;

/// The names of a program's variables, to be found in texts.
#[derive(Debug, Default)]
pub(super) struct Names {
    exact: HashMap<String, usize>,
    alike: HashMap<String, usize>,
    names: Vec<String>,
}

impl Names {
    /// Of an environment, `NAME=value` strings.
    pub(super) fn of(environment: &[String]) -> Self {
        let mut found = Self::default();
        for name in environment.iter().filter_map(|pair| Some(pair.split_once('=')?.0)) {
            let index = found.names.len();
            found.names.push(name.to_owned());
            found.exact.insert(name.to_owned(), index);
            let lower = name.to_ascii_lowercase();
            // `SHOP_QUEUE_NAME`: settings classes leave a prefix out, format strings put one in. One word alone says too little.
            if let Some((_, rest)) = lower.split_once('_') {
                if rest.contains('_') {
                    found.alike.insert(rest.to_owned(), index);
                }
                found.alike.insert(format!("_{rest}"), index);
                found.alike.insert(lower, index);
            }
        }
        found
    }

    /// Where a text names them: in quotes, and otherwise.
    fn find(&self, text: &str, look: &mut FileLook) {
        let mut seen = vec![(false, false); self.names.len()];
        for (number, line) in (1_u32..).zip(text.lines()) {
            let mut start = None;
            for (at, c) in line.char_indices().chain([(line.len(), ' ')]) {
                match (c == '_' || c.is_ascii_alphanumeric(), start) {
                    (true, None) => start = Some(at),
                    (false, Some(from)) => {
                        start = None;
                        self.word(line, from..at, number, &mut seen, look);
                    }
                    _ => {}
                }
            }
        }
    }

    fn word(
        &self,
        line: &str,
        range: std::ops::Range<usize>,
        number: u32,
        seen: &mut [(bool, bool)],
        look: &mut FileLook,
    ) {
        let word = line.get(range.clone()).unwrap_or_default();
        let quote = |c: Option<char>| c.is_some_and(|c| matches!(c, '"' | '\''));
        let before = line.get(..range.start).and_then(|before| before.chars().next_back());
        let after = line.get(range.end..).and_then(|after| after.chars().next());
        if let Some(index) = self.exact.get(word)
            && quote(before)
            && quote(after)
        {
            if !std::mem::replace(&mut seen[*index].0, true) && look.variables.len() < MAX_NAMES {
                look.variables.push((number, self.names[*index].clone()));
            }
        } else if word.ends_with('_') && word.len() > 3 && quote(before) && quote(after) {
            // `startswith("SHOP_")`, `env_prefix="SHOP_"`: all of them are read.
            for (index, name) in self.names.iter().enumerate().filter(|(_, name)| name.starts_with(word)) {
                if !std::mem::replace(&mut seen[index].1, true) && look.alike.len() < MAX_NAMES {
                    look.alike.push((number, name.clone()));
                }
            }
        } else if word.contains('_')
            && let Some(index) = self.alike.get(&word.to_ascii_lowercase())
            && !std::mem::replace(&mut seen[*index].1, true)
            && look.alike.len() < MAX_NAMES
        {
            look.alike.push((number, self.names[*index].clone()));
        }
    }
}

/// A file of its own right, and no larger: a pipe or a device is not even opened, which whoever is at its other end would notice.
fn open(path: &str) -> Option<File> {
    let fits = |meta: Metadata| meta.is_file() && meta.len() <= MAX_BYTES;
    fs::metadata(path).is_ok_and(fits).then_some(())?;
    let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path).ok()?;
    file.metadata().is_ok_and(fits).then_some(file)
}

/// Looks at a file that a process opened. `None` when it is no text, or cannot be read. With `own` its content is given too.
pub(super) fn look(pid: Pid, path: &str, names: &Names, own: bool) -> Option<(FileLook, Vec<u8>)> {
    // As the process sees it, while it lives.
    let file = open(&format!("/proc/{pid}/root{path}")).or_else(|| open(path))?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).ok()?;
    if bytes.contains(&0) {
        return None;
    }
    let mut look = FileLook { path: path.to_owned(), len_bytes: bytes.len() as u64, ..FileLook::default() };
    names.find(&String::from_utf8_lossy(&bytes), &mut look);
    if own {
        return Some((look, bytes));
    }
    // Words in a library's source are like all words.
    look.alike.clear();
    (!look.variables.is_empty()).then(|| (look, Vec::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_found_in_quotes_and_as_words_alike() {
        let environment = ["SHOP_QUEUE_NAME=a", "HOME=/root", "SHOP_REGION=eu", "QUEUE=mail"];
        let names = Names::of(&environment.map(str::to_owned));
        let mut look = FileLook::default();
        let text =
            "import os\nx = os.environ['HOME']\nhome = QUEUE\nqueue_name: str = 'Q'\nr = f\"{p}_REGION\"\n";
        names.find(text, &mut look);
        assert_eq!(look.variables, [(2, "HOME".to_owned())]);
        assert_eq!(look.alike, [(4, "SHOP_QUEUE_NAME".to_owned()), (5, "SHOP_REGION".to_owned())]);
        let mut look = FileLook::default();
        names.find("prefix = 'SHOP_'", &mut look);
        assert_eq!(look.alike, [(1, "SHOP_QUEUE_NAME".to_owned()), (1, "SHOP_REGION".to_owned())]);
    }

    #[test]
    fn a_binary_and_a_device_are_no_texts_and_a_library_tells_names_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        let names = Names::of(&["HOME=/root".to_owned()]);
        fs::write(path("a.bin"), b"\x7fELF\0").unwrap();
        fs::write(path("a.py"), "x = 'HOME'").unwrap();
        let pid = Pid(std::process::id());
        assert_eq!(look(pid, &path("a.bin"), &names, true), None);
        assert_eq!(look(pid, "/dev/zero", &names, true), None);
        let (found, content) = look(pid, &path("a.py"), &names, true).unwrap();
        assert_eq!((found.len_bytes, content.as_slice()), (10, &b"x = 'HOME'"[..]));
        let (found, content) = look(pid, &path("a.py"), &names, false).unwrap();
        assert_eq!((found.variables.len(), content.len()), (1, 0));
    }
}
