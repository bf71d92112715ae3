//! A terminal of a test's own, in tmux: what is typed, what is seen. It knows nothing of what runs in it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::apt::{self, Package};
use crate::deadline;

/// What it needs to be installed.
pub const PACKAGE: Package = Package::new("tmux", "the live view is looked at in it");

const LIMIT: Duration = Duration::from_secs(60);

/// A tmux server with one window, in which a shell with job control runs. Gone when dropped.
#[derive(Debug)]
pub struct Tmux {
    socket: String,
}

impl Tmux {
    /// A window of 80×24, in this folder.
    pub fn start(folder: &Path) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        apt::ensure(&[PACKAGE])?;
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let tmux = Self { socket: format!("observer-{}-{count}", std::process::id()) };
        let folder = folder.to_string_lossy();
        let shell = "env PS1='$ ' bash --norc --noprofile -i";
        tmux.run(&["-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", "-c", &folder, shell])?;
        tmux.until("the shell", |screen| screen.starts_with("$"))?;
        Ok(tmux)
    }

    fn run(&self, words: &[&str]) -> Result<String> {
        let output = Command::new("tmux")
            .args(["-u", "-L", &self.socket])
            .args(words)
            .env("LC_ALL", "C.UTF-8")
            .env_remove("TMUX")
            .stdin(Stdio::null())
            .output()
            .context("cannot run tmux")?;
        if !output.status.success() {
            bail!("tmux {words:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Types a line of text, and Enter.
    pub fn line(&self, text: &str) -> Result<()> {
        self.run(&["send-keys", "-l", text])?;
        self.keys(&["Enter"])
    }

    /// Presses keys, by tmux's names for them: `Tab`, `Enter`, `C-c`, `q`.
    pub fn keys(&self, keys: &[&str]) -> Result<()> {
        self.run(&[&["send-keys"], keys].concat()).map(drop)
    }

    /// Makes the window another size.
    pub fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        let (columns, rows) = (columns.to_string(), rows.to_string());
        self.run(&["resize-window", "-x", &columns, "-y", &rows]).map(drop)
    }

    /// What is on the screen.
    pub fn screen(&self) -> Result<String> {
        self.run(&["capture-pane", "-p"])
    }

    /// Whether a program has the alternate screen, and whether the cursor is shown.
    pub fn modes(&self) -> Result<(bool, bool)> {
        let modes = self.run(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"])?;
        Ok((modes.starts_with('1'), modes.trim_end().ends_with('1')))
    }

    /// Waits until the screen is as wanted, and returns it.
    pub fn until(&self, what: &str, is_it: impl Fn(&str) -> bool) -> Result<String> {
        let mut last = String::new();
        let found = deadline::poll_every(what, LIMIT, Duration::from_millis(100), || {
            last = self.screen().unwrap_or_default();
            is_it(&last).then(|| last.clone())
        });
        found.with_context(|| format!("the screen is:\n{last}"))
    }

    /// Waits until all of these are on the screen.
    pub fn shows(&self, all: &[&str]) -> Result<String> {
        self.until(&format!("{all:?}"), |screen| all.iter().all(|part| screen.contains(part)))
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let _ = self.run(&["kill-server"]);
    }
}
