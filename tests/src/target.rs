//! Where the target programs and the observer under test are. It starts none of them.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// The folder of the target programs: `minimal_worker.py`, `bench_worker.py`, `send.py`, … `$OBSERVER_TARGETS` where they are read by a
/// user who may not enter the sources' folder.
pub fn folder() -> PathBuf {
    let elsewhere = std::env::var_os("OBSERVER_TARGETS").map(PathBuf::from);
    elsewhere.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("targets"))
}

/// The observer under test: `$OBSERVER_BIN`, which `cargo xtask test` sets to the release build it has just made.
pub fn observer() -> Result<PathBuf> {
    match std::env::var_os("OBSERVER_BIN").map(PathBuf::from) {
        Some(binary) if binary.is_file() => Ok(binary),
        Some(binary) => bail!("OBSERVER_BIN: there is no {}", binary.display()),
        None => bail!("OBSERVER_BIN is not set: live tests are run by `cargo xtask test`"),
    }
}

/// The Debian package around the observer under test: `$OBSERVER_DEB`, which `cargo xtask test` sets to the one it has just made.
pub fn package() -> Result<PathBuf> {
    match std::env::var_os("OBSERVER_DEB").map(PathBuf::from) {
        Some(package) if package.is_file() => Ok(package),
        Some(package) => bail!("OBSERVER_DEB: there is no {}", package.display()),
        None => bail!("OBSERVER_DEB is not set: make one with `cargo xtask dist --debug --only deb`"),
    }
}

/// How the observer under test is to observe where a test leaves it open: `$OBSERVER_BACKEND`, or eBPF.
pub fn backend() -> String {
    std::env::var("OBSERVER_BACKEND").unwrap_or_else(|_| "ebpf".into())
}
