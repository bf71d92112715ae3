//! `cargo xtask ebpf`: builds the kernel half and puts the object where the observer embeds it. It knows the toolchain, not the programs.
//!
//! The object is committed, so that building the observer needs nothing but stable Rust; `--verify` keeps it honest.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use tests::apt::{self, Package};
use tests::cache;

use crate::run::{cargo, output, root, run};

const LLVM: &str = "/usr/lib/llvm-22";
const LINKER_VERSION: &str = "0.13.0";

const TOOLCHAIN: &[Package] = &[
    Package::new("rustc-web", "a Rust compiler whose LLVM matches bpf-linker's"),
    Package::new("cargo-web", "its cargo"),
    Package::new("rust-web-src", "the sources of core, which is built for the BPF target"),
    Package::new("llvm-22", "llvm-objcopy"),
    Package::new("llvm-22-dev", "bpf-linker links LLVM"),
    Package::new("libpolly-22-dev", "bpf-linker links LLVM's polyhedral optimiser"),
    Package::new("libzstd-dev", "bpf-linker links zstd through LLVM"),
    Package::new("zlib1g-dev", "bpf-linker links zlib through LLVM"),
    Package::new("g++", "links bpf-linker with LLVM's C++ libraries"),
];

/// Flags of `cargo xtask ebpf`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Install the toolchain first: Debian packages (as root) and bpf-linker, kept in the cache
    #[arg(long, conflicts_with = "nightly")]
    install: bool,
    /// Change nothing: rebuild elsewhere and compare byte for byte with the committed object
    #[arg(long, conflicts_with_all = ["nightly", "check"])]
    verify: bool,
    /// After the build, load every program into this machine's kernel and print its instruction count (as root)
    #[arg(long)]
    check: bool,
    /// Build with your own `rustup` nightly, its `rust-src`, and the bpf-linker and llvm-objcopy on PATH
    ///
    /// Good for trying things; the object to commit comes from the default toolchain, which everyone can have in the same version.
    #[arg(long)]
    nightly: bool,
}

/// Builds, and installs or compares the object.
pub(crate) fn main(args: &Args) -> Result<()> {
    if args.install {
        install()?;
    }
    let toolchain = if args.nightly { Toolchain::nightly() } else { Toolchain::debian()? };
    let committed = root().join("observer/bpf/observer.bpf.o");
    if args.verify {
        return verify(&toolchain, &committed);
    }
    let object = toolchain.build(&root().join("target/ebpf"))?;
    install_object(&object, &committed)?;
    fs::write(built_with(&committed), toolchain.describe()?)
        .context("cannot write what the object was built with")?;
    println!("{}: {} bytes", committed.display(), fs::metadata(&committed)?.len());
    if args.check {
        run(cargo().args(["run", "--quiet", "--package", "observer", "--", "doctor", "--programs"]))?;
    }
    Ok(())
}

fn verify(toolchain: &Toolchain, committed: &Path) -> Result<()> {
    // A build from nothing: an object kept from before would compare equal to itself.
    let scratch = root().join(format!("target/ebpf-verify-{}", std::process::id()));
    let rebuilt = toolchain.build(&scratch).and_then(|object| Ok(fs::read(object)?));
    let swept = fs::remove_dir_all(&scratch);
    let rebuilt = rebuilt?;
    swept.with_context(|| format!("cannot remove {}", scratch.display()))?;
    let kept = fs::read(committed)
        .with_context(|| format!("cannot read {}; run: cargo xtask ebpf", committed.display()))?;
    if rebuilt == kept {
        println!("{}: the same {} bytes when rebuilt", committed.display(), kept.len());
        return Ok(());
    }
    let then =
        fs::read_to_string(built_with(committed)).unwrap_or_else(|error| format!("unknown: {error}\n"));
    bail!(
        "{} is not what its sources give: {} bytes committed, {} bytes rebuilt\n\ncommitted, built with\n{then}\nrebuilt with\n{}\n\
         Run `cargo xtask ebpf` and commit the object.",
        committed.display(),
        kept.len(),
        rebuilt.len(),
        toolchain.describe()?
    )
}

/// The compiler, linker and objcopy to build with.
struct Toolchain {
    cargo: Vec<OsString>,
    rustc: Vec<OsString>,
    /// Goes in front of PATH: where `bpf-linker` and `llvm-objcopy` are.
    path: Vec<PathBuf>,
    /// Debian's compiler is a stable one, and building core is not a stable feature.
    bootstrap: bool,
}

impl Toolchain {
    fn debian() -> Result<Self> {
        let linker = linker_root().join("bin");
        let tools = [
            PathBuf::from("/usr/bin/rustc"),
            "/usr/bin/cargo".into(),
            Path::new(LLVM).join("bin/llvm-objcopy"),
        ];
        let absent: Vec<String> = tools
            .into_iter()
            .chain([linker.join("bpf-linker")])
            .filter(|tool| !tool.exists())
            .map(|tool| tool.display().to_string())
            .collect();
        ensure!(
            absent.is_empty(),
            "the eBPF toolchain is not complete: no {}\nOn Debian, as root, run: cargo xtask ebpf --install\n\
             Elsewhere, with a rustup nightly, rust-src and bpf-linker of your own: cargo xtask ebpf --nightly",
            absent.join(", no ")
        );
        let this = Self {
            cargo: vec!["/usr/bin/cargo".into()],
            rustc: vec!["/usr/bin/rustc".into()],
            path: vec![linker, Path::new(LLVM).join("bin")],
            bootstrap: true,
        };
        let core = PathBuf::from(output(this.tool(&this.rustc).args(["--print", "sysroot"]))?)
            .join("lib/rustlib/src/rust/library/core");
        ensure!(
            core.exists(),
            "no sources of core at {}: /usr/bin/rustc is not the one of rustc-web, or rust-web-src is missing\n\
             On Debian, as root, run: cargo xtask ebpf --install",
            core.display()
        );
        Ok(this)
    }

    fn nightly() -> Self {
        let rustup = |tool: &str| ["rustup", "run", "nightly", tool].map(OsString::from).to_vec();
        Self { cargo: rustup("cargo"), rustc: rustup("rustc"), path: Vec::new(), bootstrap: false }
    }

    /// A command with the toolchain on PATH, and without what the outer cargo or its user set for the host build.
    fn tool(&self, words: &[OsString]) -> Command {
        let mut command = Command::new(words.first().cloned().unwrap_or_default());
        command.args(words.iter().skip(1)).current_dir(root());
        let path = std::env::var_os("PATH").unwrap_or_default();
        let dirs = self.path.iter().cloned().chain(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(dirs).unwrap_or(path.clone()));
        let host_only = [
            "CARGO_BUILD_RUSTC",
            "CARGO_BUILD_RUSTC_WRAPPER",
            "CARGO_BUILD_RUSTFLAGS",
            "CARGO_BUILD_TARGET",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_INCREMENTAL",
            "CARGO_TARGET_DIR",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTC_WRAPPER",
            "RUSTUP_TOOLCHAIN",
        ];
        for name in host_only {
            command.env_remove(name);
        }
        command
    }

    fn build(&self, target: &Path) -> Result<PathBuf> {
        let home = std::env::var_os("HOME").unwrap_or_default();
        let registry =
            std::env::var_os("CARGO_HOME").map_or_else(|| Path::new(&home).join(".cargo"), PathBuf::from);
        let mut cargo = self.tool(&self.cargo);
        cargo.args(["build", "--locked", "--package", "observer-ebpf", "--bin", "observer-bpf"]);
        cargo.args(["--features", "programs", "--profile", "ebpf"]);
        cargo.args(["--target", "bpfel-unknown-none", "-Z", "build-std=core", "--target-dir"]).arg(target);
        // Folders of this machine must not reach the object: line info in .BTF.ext and panic locations carry paths.
        let flags = [
            "-Cdebuginfo=2".to_owned(),
            "-Clink-arg=--btf".to_owned(),
            format!("--remap-path-prefix={}=.", root().display()),
            format!("--remap-path-prefix={}=cargo", registry.display()),
        ];
        cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
        if self.bootstrap {
            cargo.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
        }
        run(&mut cargo)?;
        let built = target.join("bpfel-unknown-none/ebpf/observer-bpf");
        let stripped = target.join("observer.bpf.o");
        // DWARF is for debuggers; .BTF and .BTF.ext stay, and the verifier's complaints quote source lines from them.
        run(self.tool(&["llvm-objcopy".into()]).arg("--strip-debug").args([&built, &stripped]))?;
        Ok(stripped)
    }

    fn describe(&self) -> Result<String> {
        let rustc = output(self.tool(&self.rustc).arg("-vV"))?;
        let told =
            |key: &str| rustc.lines().find(|line| line.starts_with(key)).unwrap_or_default().to_owned();
        let linker = output(self.tool(&["bpf-linker".into()]).arg("--version"))?;
        Ok(format!("{}\n{}\n{linker}\n", told("rustc"), told("LLVM")))
    }
}

fn install() -> Result<()> {
    apt::ensure(TOOLCHAIN)?;
    let linker = linker_root();
    let at_hand = Command::new(linker.join("bin/bpf-linker")).arg("--version").output();
    let wanted = format!("bpf-linker {LINKER_VERSION}");
    if at_hand.is_ok_and(|out| out.status.success() && String::from_utf8_lossy(&out.stdout).contains(&wanted))
    {
        return Ok(());
    }
    eprintln!(
        "install bpf-linker {LINKER_VERSION} into {}: links the eBPF object (about 80 s)",
        linker.display()
    );
    let build = Toolchain {
        cargo: vec!["/usr/bin/cargo".into()],
        rustc: vec!["/usr/bin/rustc".into()],
        path: vec![Path::new(LLVM).join("bin")],
        bootstrap: false,
    };
    run(build
        .tool(&build.cargo)
        .args(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked", "--force", "--quiet"])
        .args(["--no-default-features", "--features", "llvm-22", "--root"])
        .arg(&linker)
        .env("RUSTC", "/usr/bin/rustc")
        .env("LLVM_PREFIX", LLVM))
}

fn linker_root() -> PathBuf {
    cache::dir().join("bpf-linker")
}

/// Beside the object: which versions made it, for the day the bytes differ.
fn built_with(object: &Path) -> PathBuf {
    object.with_extension("built-with")
}

/// Replaces the object in one step, so that a build of the observer never embeds half of it.
fn install_object(from: &Path, to: &Path) -> Result<()> {
    let dir = to.parent().context("the object has no folder")?;
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let new = to.with_extension("new");
    fs::copy(from, &new).with_context(|| format!("cannot write {}", new.display()))?;
    fs::rename(&new, to).with_context(|| format!("cannot replace {}", to.display()))
}
