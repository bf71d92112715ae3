//! Debian packages the lab needs. It knows how to ask dpkg and apt, not what the packages are used for.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// A package and what it is wanted for; the reason is shown when it gets installed.
#[derive(Clone, Copy, Debug)]
pub struct Package {
    /// Its name in Debian.
    pub name: &'static str,
    /// What it is for, as the end of "install NAME: …".
    pub why: &'static str,
}

impl Package {
    /// A package and the reason for it.
    pub const fn new(name: &'static str, why: &'static str) -> Self {
        Self { name, why }
    }
}

/// Which of these are not installed.
pub fn missing(packages: &[Package]) -> Result<Vec<Package>> {
    packages
        .iter()
        .copied()
        .filter_map(|p| installed(p.name).map(|yes| (!yes).then_some(p)).transpose())
        .collect()
}

/// Installs what is missing, after saying so. Asks nothing, and starts no service.
pub fn ensure(packages: &[Package]) -> Result<()> {
    let missing = missing(packages)?;
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|p| p.name).collect();
    if !nix::unistd::geteuid().is_root() {
        bail!("not installed: {names}; as root, run: apt-get install -y {names}", names = names.join(" "));
    }
    for package in &missing {
        eprintln!("install {}: {}", package.name, package.why);
    }
    let _policy = NoServices::new()?;
    if apt(&["install", "-y", "--no-install-recommends"], &names).is_ok() {
        return Ok(());
    }
    // The lists are only fetched when the ones at hand did not do: they are minutes old on most machines, absent on a fresh one.
    eprintln!("apt-get update: {} could not be installed from the package lists at hand", names.join(", "));
    apt(&["update"], &[])?;
    apt(&["install", "-y", "--no-install-recommends"], &names)
}

fn installed(name: &str) -> Result<bool> {
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status}", name])
        .stdin(Stdio::null())
        .output()
        .context("cannot run dpkg-query: the lab installs its parts on Debian and its kin; elsewhere install them by hand")?;
    Ok(output.status.success() && output.stdout == b"installed")
}

fn apt(verb: &[&str], names: &[&str]) -> Result<()> {
    let output = Command::new("apt-get")
        .args(["-q", "-o", "Dpkg::Use-Pty=0", "-o", "DPkg::Lock::Timeout=300"])
        .args(verb)
        .args(names)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("NEEDRESTART_SUSPEND", "1")
        .stdin(Stdio::null())
        .output()
        .context("cannot run apt-get")?;
    if !output.status.success() {
        let answer = String::from_utf8_lossy(&output.stderr);
        bail!("apt-get {} {}: {}: {}", verb.join(" "), names.join(" "), output.status, answer.trim());
    }
    Ok(())
}

const POLICY: &str = "/usr/sbin/policy-rc.d";

/// 101 is "action forbidden by policy" (invoke-rc.d(8)).
const FORBID: &[u8] = b"#!/bin/sh\n# observer's lab, while it installs packages\nexit 101\n";

/// While it lives, a package's installation starts no service: the lab runs brokers of its own, on ports of its own.
struct NoServices {
    /// What stood there before, with its mode.
    before: Option<(Vec<u8>, u32)>,
}

impl NoServices {
    fn new() -> Result<Self> {
        let before = match fs::read(POLICY) {
            // Left by a lab that was killed here.
            Ok(text) if text == FORBID => None,
            Ok(text) => Some((text, fs::metadata(POLICY)?.permissions().mode())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("cannot read {POLICY}")),
        };
        let guard = Self { before };
        write(POLICY, FORBID, 0o755)?;
        Ok(guard)
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        let restored = match &self.before {
            Some((text, mode)) => write(POLICY, text, *mode),
            None => fs::remove_file(POLICY).context("remove"),
        };
        if let Err(error) = restored {
            eprintln!(
                "cannot restore {POLICY}: {error:#}; services will not start on installation until it is put right"
            );
        }
    }
}

fn write(path: &str, text: &[u8], mode: u32) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {path}"))?;
    fs::set_permissions(Path::new(path), fs::Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the mode of {path}"))
}
