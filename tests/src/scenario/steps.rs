//! Running the snippets of a scenario, one after the other. It knows not what they do.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::place::Place;
use crate::deadline;

/// The processes of steps that stay. Ended when dropped.
#[derive(Debug, Default)]
pub(super) struct Steps {
    count: usize,
    staying: Vec<Child>,
}

impl Steps {
    /// Runs a snippet until it ends, or says that it stays.
    pub(super) fn run(&mut self, place: &Place, told: &PathBuf, snippet: &str, limit: Instant) -> Result<()> {
        self.count += 1;
        let name = format!("lab/step-{}", self.count);
        let script = place.path(&format!("{name}.py"));
        let ready = place.path(&format!("{name}.ready"));
        let log = place.path(&format!("{name}.log"));
        // One line, so that a traceback names the snippet's own lines plus one.
        fs::write(&script, format!("import lab, os, signal, subprocess, sys, time\n{snippet}"))?;
        let written = File::create(&log)?;
        let mut child = Command::new(place.filled("{venv}/bin/python"))
            .arg(&script)
            .current_dir(place.scene())
            .env_clear()
            .env("PATH", place.filled("{path}"))
            .env("HOME", place.path("home"))
            .env("LANG", "C.UTF-8")
            .env("PYTHONPATH", place.path("lab"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("LAB_TOLD", told)
            .env("LAB_READY", &ready)
            .stdin(Stdio::null())
            .stdout(written.try_clone()?)
            .stderr(written)
            .spawn()
            .context("cannot start Python for a step")?;
        let nth = self.count;
        let left = limit.saturating_duration_since(Instant::now());
        let done = deadline::poll(&format!("step {nth} is done"), left, || {
            if ready.exists() {
                return Some(None);
            }
            child.try_wait().ok().flatten().map(Some)
        });
        let said = || fs::read_to_string(&log).unwrap_or_default();
        match done {
            Ok(Some(status)) if status.success() => Ok(()),
            Ok(Some(status)) => bail!("step {nth}: {status}\n{}", said().trim_end()),
            Ok(None) => {
                self.staying.push(child);
                Ok(())
            }
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                bail!("{error}\n{}", said().trim_end())
            }
        }
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        for child in &mut self.staying {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
