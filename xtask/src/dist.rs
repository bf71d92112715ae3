//! `cargo xtask dist`: a Debian package and a static tarball. It knows where things belong in a system, not what they say.

mod debian;
mod stage;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::machine;
use crate::run::{cargo, output, root, run};
use stage::Stage;

/// Flags of `cargo xtask dist`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Take this observer for the package, instead of building one
    #[arg(long, value_name = "FILE")]
    observer: Option<PathBuf>,
    /// Package debug builds, compressed little: to try the packages
    #[arg(long)]
    debug: bool,
    /// Make only one of them
    #[arg(long, value_parser = ["deb", "tarball"])]
    only: Option<String>,
}

const VERSION: &str = env!("CARGO_PKG_VERSION");
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Makes what is asked for, and prints where it is.
pub(crate) fn main(args: &Args) -> Result<()> {
    if args.only.as_deref() != Some("tarball") {
        let observer = match &args.observer {
            Some(program) => program
                .canonicalize()
                .with_context(|| format!("there is no observer {}", program.display()))?,
            None if args.debug => built(&[], args.debug)?,
            None => machine::observer()?,
        };
        let package = debian::package(&observer, args.debug)?;
        debian::lint(&package)?;
        println!("{}", package.display());
    }
    if args.only.as_deref() != Some("deb") {
        println!("{}", tarball(args.debug)?.display());
    }
    Ok(())
}

/// A package around this observer, for tests: compressed little.
pub(crate) fn package(observer: &Path) -> Result<PathBuf> {
    debian::package(observer, true)
}

/// Where packages are put.
fn folder() -> Result<PathBuf> {
    let folder = root().join("target/dist");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder)
}

/// The time that files in packages bear: that of the last commit, so that the same sources give the same package.
fn epoch() -> Result<String> {
    output(Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(root()))
}

fn built(flags: &[&str], debug: bool) -> Result<PathBuf> {
    let (profile, features): (&str, &[&str]) =
        if debug { ("debug", &[]) } else { ("release", &["--release", "--features", "parquet"]) };
    eprintln!("build observer ({profile}{})", if flags.is_empty() { "" } else { ", static" });
    let mut build = cargo();
    build.args(["build", "--quiet", "--package", "observer"]).args(features).args(flags);
    if !flags.is_empty() {
        // With --target these are not for build scripts and macros, which cannot be static.
        build.env("RUSTFLAGS", "-Ctarget-feature=+crt-static -Crelocation-model=static");
    }
    run(&mut build)?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let place = if flags.is_empty() { profile.to_owned() } else { format!("{TARGET}/{profile}") };
    let binary = root().join(target).join(place).join("observer");
    if !binary.is_file() {
        bail!("cargo built no {}", binary.display());
    }
    Ok(binary)
}

fn tarball(debug: bool) -> Result<PathBuf> {
    let observer = built(&["--target", TARGET], debug)?;
    let headers = output(Command::new("readelf").args(["--program-headers"]).arg(&observer))?;
    if headers.contains("INTERP") || headers.contains("DYNAMIC") {
        bail!("{} is not static", observer.display());
    }
    let scratch = tempfile::tempdir().context("cannot create a temporary folder")?;
    let name = format!("observer-{VERSION}-x86_64-linux");
    let stage = Stage::new(scratch.path().join(&name));
    stage.program(&observer, "bin/observer")?;
    stage.documents(&observer, "share")?;
    stage.service("lib", "etc/observer")?;
    let top = root();
    stage.file(&top.join("observer/dist/network.conf"), "share/doc/observer/examples/network.conf")?;
    stage.file(&top.join("observer/dist/INSTALL"), "INSTALL")?;
    stage.file(&top.join("LICENSE"), "LICENSE")?;
    stage.file(&top.join("CHANGELOG.md"), "CHANGELOG.md")?;
    let archive = folder()?.join(format!("{name}.tar.gz"));
    run(Command::new("tar")
        .args(["--create", "--sort=name", "--owner=0", "--group=0", "--numeric-owner"])
        .arg(format!("--mtime=@{}", epoch()?))
        .arg(if debug { "--use-compress-program=gzip -1n" } else { "--use-compress-program=gzip -9n" })
        .arg("--file")
        .arg(&archive)
        .arg("--directory")
        .arg(scratch.path())
        .arg(&name))?;
    Ok(archive)
}
