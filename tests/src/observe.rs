//! The observer under test, with a state directory of its own, and what it recorded. It judges nothing.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use tempfile::TempDir;

use crate::target;

/// A state directory, gone when dropped.
#[derive(Debug)]
pub struct State {
    folder: TempDir,
}

/// A row of a session's `events`.
#[derive(Clone, Debug)]
pub struct Event {
    /// Its place in the order of arrival.
    pub id: i64,
    /// When, on the monotonic clock.
    pub at_ns: i64,
    /// The process.
    pub pid: u32,
    /// The public name of its kind.
    pub kind: String,
    /// The fields of that kind.
    pub data: Value,
    /// The bytes it carries.
    pub bytes: Vec<u8>,
}

impl Event {
    /// An integer field; `None` when it is null, absent or no integer.
    pub fn int(&self, field: &str) -> Option<i64> {
        self.data[field].as_i64()
    }

    /// A text field, when its value is whole.
    pub fn text(&self, field: &str) -> Option<&str> {
        self.data[field].as_str()
    }

    /// The texts of a list, when all of it is whole.
    pub fn texts(&self, field: &str) -> Option<Vec<&str>> {
        self.data[field].as_array()?.iter().map(Value::as_str).collect()
    }
}

impl State {
    /// A new one.
    pub fn new() -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("observer-state-")
            .tempdir()
            .context("cannot create a state directory")?;
        Ok(Self { folder })
    }

    /// `observer attach` with these options, to run this command: standard input is empty, and nothing but errors is printed.
    pub fn attach<S: AsRef<OsStr>>(&self, options: &[&str], command: &[S]) -> Result<Command> {
        self.attach_by(&target::backend(), options, command)
    }

    /// The same by a backend of one's choice.
    pub fn attach_by<S: AsRef<OsStr>>(
        &self,
        backend: &str,
        options: &[&str],
        command: &[S],
    ) -> Result<Command> {
        let mut observer = Command::new(target::observer()?);
        observer.arg("--state-dir").arg(self.folder.path()).args(["attach", "--quiet", "--backend"]);
        observer.arg(backend);
        observer.args(options).arg("--").args(command).stdin(Stdio::null());
        Ok(observer)
    }

    /// Events of these kinds in the newest session, in the order of arrival; of all kinds when none is named.
    pub fn events(&self, kinds: &[&str]) -> Result<Vec<Event>> {
        let path = self.session()?;
        let database = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)
            .with_context(|| format!("cannot open session {}", path.display()))?;
        let mut rows = database.prepare(
            "SELECT id, at_ns, pid, kind, data, bytes FROM events
             WHERE ?1 = '' OR instr(?1, ',' || kind || ',') > 0 ORDER BY id",
        )?;
        let wanted = if kinds.is_empty() { String::new() } else { format!(",{},", kinds.join(",")) };
        let events = rows.query_map([wanted], |row| {
            let data: String = row.get(4)?;
            Ok((
                Event {
                    id: row.get(0)?,
                    at_ns: row.get(1)?,
                    pid: row.get(2)?,
                    kind: row.get(3)?,
                    data: Value::Null,
                    bytes: row.get::<_, Option<Vec<u8>>>(5)?.unwrap_or_default(),
                },
                data,
            ))
        })?;
        events
            .map(|row| {
                let (event, data) = row?;
                Ok(Event { data: serde_json::from_str(&data)?, ..event })
            })
            .collect()
    }

    /// How many records were lost anywhere on the way, by kind: the source's names.
    pub fn lost(&self) -> Result<BTreeMap<String, i64>> {
        let mut lost = BTreeMap::new();
        for event in self.events(&["lost"])? {
            let (Some(what), Some(count)) = (event.text("what"), event.int("count")) else {
                bail!("not a loss: {event:?}");
            };
            *lost.entry(what.to_owned()).or_default() += count;
        }
        Ok(lost)
    }

    /// Every byte of every file in the state directory, as it lies on the disk.
    pub fn raw(&self) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        let mut folders = vec![self.folder.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    all.extend(fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
                }
            }
        }
        Ok(all)
    }

    /// Another verb of the observer, on the same state directory.
    pub fn verb(&self, words: &[&str]) -> Result<Command> {
        let mut observer = Command::new(target::observer()?);
        observer.arg("--state-dir").arg(self.folder.path()).args(words).stdin(Stdio::null());
        Ok(observer)
    }

    /// `observer show` for the newest session, as JSON.
    pub fn show(&self, arguments: &[&str]) -> Result<Value> {
        let output = Command::new(target::observer()?)
            .arg("--state-dir")
            .arg(self.folder.path())
            .args(["--format", "json", "show", "@"])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .context("cannot run observer show")?;
        if !output.status.success() {
            bail!("observer show: {}: {}", output.status, said(&output));
        }
        serde_json::from_slice(&output.stdout).context("observer show printed no JSON")
    }

    /// The newest session's file.
    pub fn session(&self) -> Result<PathBuf> {
        let mut folders = vec![self.folder.path().to_owned()];
        let mut found = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if fs::read(&path).is_ok_and(|bytes| bytes.starts_with(b"SQLite format 3\0")) {
                    found.push((fs::metadata(&path)?.modified()?, path));
                }
            }
        }
        let newest = found.into_iter().max();
        newest
            .map(|(_, path)| path)
            .with_context(|| format!("no session in {}", self.folder.path().display()))
    }
}

/// What a program said on standard error.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}
