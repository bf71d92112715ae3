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

/// Makes what is asked for, and prints where it is.
pub(crate) fn main(args: &Args) -> Result<()> {
    // First: the program that cargo leaves in its folder at the end is the ordinary one.
    if args.only.as_deref() != Some("deb") {
        println!("{}", tarball(args.debug)?.display());
    }
    if args.only.as_deref() != Some("tarball") {
        let observer = match &args.observer {
            Some(program) => program
                .canonicalize()
                .with_context(|| format!("there is no observer {}", program.display()))?,
            None if args.debug => built(Link::Dynamic, true)?,
            None => machine::observer()?,
        };
        let package = debian::package(&observer, args.debug)?;
        debian::lint(&package)?;
        println!("{}", package.display());
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

/// Builds observer, and says where it is. A static one differs in how it is linked at the end, so what it is built of is not built anew.
fn built(link: Link, debug: bool) -> Result<PathBuf> {
    let (profile, features): (&str, &[&str]) =
        if debug { ("debug", &[]) } else { ("release", &["--release", "--features", "parquet"]) };
    eprintln!("build observer ({profile}, {link:?})");
    let mut build = cargo();
    build.args(["rustc", "--quiet", "--package", "observer", "--bin", "observer"]).args(features);
    if link == Link::Static {
        build.args(["--", "-Ctarget-feature=+crt-static", "-Crelocation-model=static"]);
    }
    run(&mut build)?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let binary = root().join(target).join(profile).join("observer");
    if !binary.is_file() {
        bail!("cargo built no {}", binary.display());
    }
    Ok(binary)
}

/// How the C library is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Dynamic,
    Static,
}

fn tarball(debug: bool) -> Result<PathBuf> {
    let observer = built(Link::Static, debug)?;
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
    for example in ["network.conf", "imports.conf"] {
        let place = format!("share/doc/observer/examples/{example}");
        stage.file(&root().join("observer/dist").join(example), &place)?;
    }
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
