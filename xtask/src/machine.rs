//! What the verbs share about the machine: is it root's, can it load programs, and where is the observer just built. It installs nothing.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::run::{cargo, root, run};

/// Fails, saying how to go on, unless we are root on a kernel that describes its types.
pub(crate) fn can_observe(verb: &str) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "not root: installing packages and loading eBPF programs need it; run: sudo -E env PATH=\"$PATH\" cargo xtask {verb}"
        );
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        bail!(
            "no /sys/kernel/btf/vmlinux: this kernel was built without CONFIG_DEBUG_INFO_BTF, and the eBPF programs need it"
        );
    }
    Ok(())
}

/// Builds the release observer, with all that a release has, and says where it is.
pub(crate) fn observer() -> Result<PathBuf> {
    eprintln!("build observer (release)");
    run(cargo().args(["build", "--quiet", "--release", "--package", "observer", "--features", "parquet"]))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let binary = root().join(target).join("release/observer");
    if !binary.is_file() {
        bail!("cargo built no {}", binary.display());
    }
    Ok(binary)
}
