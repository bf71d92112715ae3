//! A folder of a test's own, the observer run in it, and what it recorded as a program reads it. It knows no target.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::target;

/// Where one test takes place. Removed with all that is in it when dropped.
#[derive(Debug)]
pub struct Scene {
    folder: TempDir,
}

impl Scene {
    /// An empty folder that every user may enter, so that commands can be run as another one.
    pub fn new() -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("observer-test-")
            .permissions(Permissions::from_mode(0o777))
            .tempdir()
            .context("cannot create a temporary folder")?;
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777))?;
        Ok(Self { folder })
    }

    /// A file of the test's own.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where the sessions are.
    pub fn state_dir(&self) -> PathBuf {
        self.path("state")
    }

    /// The observer with this scene's state directory.
    pub fn observer(&self) -> Result<Command> {
        let mut command = Command::new(target::observer()?);
        command.arg("--state-dir").arg(self.state_dir()).stdin(Stdio::null());
        Ok(command)
    }

    /// `observer attach --name NAME`, as the words to start it with: options and `--` are to follow.
    pub fn attach_words(&self, name: &str) -> Result<Vec<String>> {
        let words = [
            target::observer()?,
            "--state-dir".into(),
            self.state_dir(),
            "attach".into(),
            "--name".into(),
            name.into(),
            "--backend".into(),
            target::backend().into(),
        ];
        Ok(words.iter().map(|word: &PathBuf| word.to_string_lossy().into_owned()).collect())
    }

    /// `observer attach --name NAME`: options and `--` are to follow.
    pub fn attach(&self, name: &str) -> Result<Command> {
        let mut command = self.observer()?;
        command.args(["attach", "--name", name, "--backend", &target::backend()]);
        Ok(command)
    }

    /// What `observer show NAME --format json` prints.
    pub fn session(&self, name: &str) -> Result<Session> {
        Session::of(self.observer()?.args(["show", name]))
    }
}

impl Drop for Scene {
    /// A test that fails half-way must leave neither an observer in the kernel nor a target: whatever names our folder on its command
    /// line is ours.
    fn drop(&mut self) {
        use std::os::unix::ffi::OsStrExt;

        let ours = self.folder.path().as_os_str().as_bytes();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if let Some(pid) = pid.filter(|_| line.windows(ours.len()).any(|part| part == ours)) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
}

/// A session as `observer show --format json` tells it.
#[derive(Clone, Debug)]
pub struct Session {
    /// The header, and the `ending` if there is one.
    pub header: Value,
    /// The events in order of time.
    pub events: Vec<Value>,
}

impl Session {
    /// Runs a `show` command and reads what it prints.
    pub fn of(show: &mut Command) -> Result<Self> {
        let output = show.args(["--format", "json"]).output().context("cannot run observer show")?;
        if !output.status.success() {
            bail!("observer show: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
        }
        let mut document: Value =
            serde_json::from_slice(&output.stdout).context("observer show prints no JSON")?;
        if document["schema"] != "observer.show/1" {
            bail!("observer show prints schema {}", document["schema"]);
        }
        let Value::Array(events) = document["events"].take() else { bail!("`events` is no array") };
        Ok(Self { header: document["session"].take(), events })
    }

    /// The events of one kind.
    pub fn kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.events.iter().filter(move |event| event["kind"] == kind)
    }

    /// The events of one kind in one process.
    pub fn of_process<'a>(&'a self, pid: u64, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.kind(kind).filter(move |event| event["pid"] == pid)
    }

    /// The first process whose program was started with this word among its arguments.
    pub fn process_with(&self, word: &str) -> Option<u64> {
        let has = |exec: &&Value| {
            exec["argv"].as_array().is_some_and(|argv| argv.iter().any(|argument| argument == word))
        };
        self.kind("exec").find(has)?["pid"].as_u64()
    }

    /// All text a process wrote on standard output and standard error, or into pipes.
    pub fn output_of(&self, pid: u64) -> String {
        self.of_process(pid, "output").filter_map(|event| event["bytes"]["text"].as_str()).collect()
    }
}

/// Reads JSON that a target wrote; a target writes aside and renames, so a file that exists is whole.
pub fn written(path: &Path) -> Result<Value> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("no JSON in {}", path.display()))
}
