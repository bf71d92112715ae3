//! A Python virtual environment with a pinned dramatiq, made once per interpreter and set of requirements. It runs nothing of it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::apt::{self, Package};
use crate::cache;

/// What the lab's workers are made of.
pub const REQUIREMENTS: &str = "dramatiq[rabbitmq]==2.2.1\npika==1.4.4\n";

/// A finished virtual environment.
#[derive(Clone, Debug)]
pub struct Venv {
    root: PathBuf,
}

impl Venv {
    /// The lab's own, made when it is not there yet: `$OBSERVER_VENV` when set, else in the cache, with the interpreter of
    /// [`interpreter`].
    pub fn ensure() -> Result<Self> {
        if let Some(root) = std::env::var_os("OBSERVER_VENV").filter(|root| !root.is_empty()) {
            let venv = Self { root: root.into() };
            let python = venv.python();
            return if python.exists() {
                Ok(venv)
            } else {
                bail!("OBSERVER_VENV names no virtual environment: there is no {}", python.display())
            };
        }
        Self::ensure_with(&interpreter(), REQUIREMENTS)
    }

    /// One for this interpreter and these requirements (pip's format), made in the cache when it is not there yet.
    pub fn ensure_with(interpreter: &Path, requirements: &str) -> Result<Self> {
        Self::ensure_in(&cache::dir(), interpreter, requirements)
    }

    /// As [`Self::ensure_with`], in a folder of one's own choice: one that other users may enter, for instance.
    pub fn ensure_in(cache: &Path, interpreter: &Path, requirements: &str) -> Result<Self> {
        let system = interpreter == Path::new(DEBIANS);
        if system {
            apt::ensure(&[
                Package::new("python3", "runs dramatiq"),
                Package::new("python3-venv", "dramatiq goes into an environment of its own"),
            ])?;
        }
        let version = version(interpreter)?;
        let key = fnv1a(format!("{}\n{requirements}", interpreter.display()).as_bytes());
        fs::create_dir_all(cache).with_context(|| format!("cannot create {}", cache.display()))?;
        let root = cache.join(format!("venv-{version}-{key:016x}"));
        let done = root.join("done");
        // Its scripts hold its path, so it is made in place: the lock keeps others out meanwhile, the marker comes last.
        let lock = root.with_extension("lock");
        let lock = File::create(&lock).with_context(|| format!("cannot create {}", lock.display()))?;
        lock.lock().context("cannot lock the virtual environment")?;
        if done.exists() {
            return Ok(Self { root });
        }
        eprintln!(
            "make {}: Python {version} with {}",
            root.display(),
            requirements.trim().replace('\n', ", ")
        );
        run(Command::new(interpreter).args(["-m", "venv", "--clear"]).arg(&root))?;
        fs::write(root.join("requirements.txt"), requirements)?;
        let venv = Self { root };
        run(Command::new(venv.python())
            .args(["-m", "pip", "install", "--quiet", "--requirement"])
            .arg(venv.root.join("requirements.txt")))?;
        fs::write(done, "")?;
        Ok(venv)
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Its interpreter.
    pub fn python(&self) -> PathBuf {
        self.root.join("bin/python")
    }

    /// A PATH on which `python` is this one.
    pub fn path(&self) -> String {
        let rest = std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".into());
        format!("{}:{rest}", self.root.join("bin").display())
    }
}

/// The interpreter to use: `$OBSERVER_PYTHON`, else pyenv's newest 3.12, 3.11, 3.13 or 3.10, else Debian's.
pub fn interpreter() -> PathBuf {
    if let Some(chosen) = std::env::var_os("OBSERVER_PYTHON").filter(|chosen| !chosen.is_empty()) {
        return chosen.into();
    }
    ["3.12", "3.11", "3.13", "3.10"].into_iter().find_map(pyenv).unwrap_or_else(|| DEBIANS.into())
}

/// Debian's own interpreter: the one that every user may run.
pub const DEBIANS: &str = "/usr/bin/python3";

/// Every CPython from 3.9 on that is here.
pub fn interpreters() -> Vec<PathBuf> {
    let pyenvs = ["3.9", "3.10", "3.11", "3.12", "3.13", "3.14"].into_iter().filter_map(pyenv);
    pyenvs.chain([PathBuf::from(DEBIANS)]).filter(|python| python.exists()).collect()
}

/// pyenv's newest interpreter of a minor version, such as `3.12`.
pub fn pyenv(minor: &str) -> Option<PathBuf> {
    let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into()));
    let versions =
        std::env::var_os("PYENV_ROOT").map_or_else(|| home.join(".pyenv"), PathBuf::from).join("versions");
    let prefix = format!("{minor}.");
    let patch = |name: &str| name.strip_prefix(&prefix)?.parse::<u32>().ok();
    let installed = fs::read_dir(&versions).into_iter().flatten();
    let newest = installed
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| versions.join(name).join("bin/python3").exists())
        .filter_map(|name| Some((patch(&name)?, name)))
        .max()?;
    Some(versions.join(newest.1).join("bin/python3"))
}

fn version(interpreter: &Path) -> Result<String> {
    let output = Command::new(interpreter)
        .args(["-c", "import platform; print(platform.python_version())"])
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", interpreter.display()))?;
    if !output.status.success() {
        bail!("{}: {}", interpreter.display(), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// FNV-1a: a name for a set of requirements that stays the same from one compiler to the next.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
