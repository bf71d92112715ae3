//! Users of a test's own: real ones, in the user database. It knows nothing of what they do.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::scene::Scene;

/// A user with a group besides the primary one. Gone when dropped; what they run has to have ended.
#[derive(Debug)]
pub struct Person {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group, which is their own.
    pub gid: u32,
    /// Home directory, in the scene.
    pub home: PathBuf,
}

impl Person {
    /// Adds one, whose login name begins so.
    pub fn new(scene: &Scene, name: &str) -> Result<Self> {
        let name = format!("{name}{}", std::process::id());
        let home = scene.path(&format!("home-{name}"));
        let mut add = Command::new("useradd");
        add.args(["--create-home", "--groups", "games", "--home-dir"]).arg(&home).arg(&name);
        let added = add.output().context("cannot run useradd")?;
        if !added.status.success() {
            bail!("useradd: {}", String::from_utf8_lossy(&added.stderr));
        }
        let facts = fs::metadata(&home)?;
        Ok(Self { name, uid: facts.uid(), gid: facts.gid(), home })
    }

    /// All their groups, in order.
    pub fn groups(&self) -> Result<Vec<u32>> {
        let output = Command::new("id").args(["-G", &self.name]).output()?;
        let printed = String::from_utf8(output.stdout)?;
        let mut groups = printed.split_whitespace().map(str::parse).collect::<Result<Vec<u32>, _>>()?;
        groups.sort_unstable();
        Ok(groups)
    }

    /// A command as this user, with their groups, their name and their home: the process that is started becomes it.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("setpriv");
        command.arg(format!("--reuid={}", self.uid)).arg(format!("--regid={}", self.gid));
        command.args(["--init-groups", "--"]).arg(program);
        // Not ours: whoever may not enter a directory in it gets another answer than "not found".
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin");
        command.env("HOME", &self.home).env("USER", &self.name).env("LOGNAME", &self.name);
        for ours in ["XDG_STATE_HOME", "SUDO_UID", "SUDO_GID", "SUDO_USER"] {
            command.env_remove(ours);
        }
        command
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        let removed = Command::new("userdel").arg(&self.name).output();
        assert!(removed.is_ok_and(|output| output.status.success()) || std::thread::panicking());
    }
}
