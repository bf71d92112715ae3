//! The Debian package. It knows Debian's policy, and what the program is only as far as the package describes it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use tests::apt::{self, Package};

use super::stage::Stage;
use super::{VERSION, epoch, folder};
use crate::run::{output, root, run};

const TOOLS: &[Package] = &[
    Package::new("dpkg-dev", "finds out what the package depends on"),
    Package::new("binutils", "takes from the program what only a debugger reads"),
];
const LINTER: Package = Package::new("lintian", "holds the package against Debian's policy");
const REVISION: &str = "1";
const MAINTAINER: &str = "The observer developers <observer@observer.invalid>";

/// Makes `target/dist/observer_VERSION_amd64.deb` around a program; `quick` compresses little.
pub(super) fn package(observer: &Path, quick: bool) -> Result<PathBuf> {
    apt::ensure(TOOLS)?;
    let scratch = tempfile::tempdir().context("cannot create a temporary folder")?;
    // Its mode becomes that of the machine's root folder.
    fs::set_permissions(scratch.path(), Permissions::from_mode(0o755))?;
    let stage = Stage::new(scratch.path().join("root"));
    let dist = root().join("observer/dist");
    let binary = stage.program(observer, "usr/bin/observer")?;
    stage.documents(observer, "usr/share")?;
    stage.service("lib", "etc/observer")?;
    move_to_usr(&stage)?;
    for example in ["network.conf", "imports.conf"] {
        let place = format!("usr/share/doc/observer/examples/{example}");
        stage.file(&root().join("observer/dist").join(example), &place)?;
    }
    stage.file(&dist.join("debian/copyright"), "usr/share/doc/observer/copyright")?;
    stage.compress(&stage.file(&root().join("CHANGELOG.md"), "usr/share/doc/observer/changelog")?)?;
    let changelog = stage.write("usr/share/doc/observer/changelog.Debian", changelog()?.as_bytes())?;
    stage.compress(&changelog)?;
    stage.file(&dist.join("debian/lintian-overrides"), "usr/share/lintian/overrides/observer")?;
    for script in ["postinst", "prerm", "postrm"] {
        stage.script(&dist.join("debian").join(script), &format!("DEBIAN/{script}"))?;
    }
    stage.write("DEBIAN/conffiles", b"/etc/observer/config.toml\n")?;
    stage.write("DEBIAN/control", control(&stage, &binary)?.as_bytes())?;
    run(Command::new("chmod").args(["-R", "u+rwX,go=rX"]).arg(stage.folder()))?;
    let package = folder()?.join(format!("observer_{VERSION}-{REVISION}_amd64.deb"));
    run(Command::new("dpkg-deb")
        .args([
            "--root-owner-group",
            if quick { "-Zgzip" } else { "-Zxz" },
            if quick { "-z1" } else { "-z6" },
        ])
        .arg("--build")
        .arg(stage.folder())
        .arg(&package)
        .env("SOURCE_DATE_EPOCH", epoch()?)
        .stdout(std::process::Stdio::null()))?;
    Ok(package)
}

/// Fails when lintian finds an error; what it warns of is printed.
pub(super) fn lint(package: &Path) -> Result<()> {
    apt::ensure(&[LINTER])?;
    run(Command::new("lintian").args(["--allow-root", "--fail-on", "error"]).arg(package))
}

/// sysusers.d and tmpfiles.d are below /usr/lib; units of Debian 12 still are below /lib.
fn move_to_usr(stage: &Stage) -> Result<()> {
    let usr = stage.folder().join("usr/lib");
    fs::create_dir_all(&usr)?;
    for name in ["sysusers.d", "tmpfiles.d"] {
        fs::rename(stage.folder().join("lib").join(name), usr.join(name))
            .with_context(|| format!("cannot move {name} to {}", usr.display()))?;
    }
    Ok(())
}

fn control(stage: &Stage, binary: &Path) -> Result<String> {
    let bytes = output(
        Command::new("du").args(["--summarize", "--apparent-size", "--block-size=1024"]).arg(stage.folder()),
    )?;
    let kib = bytes.split_whitespace().next().unwrap_or("0");
    Ok(format!(
        "Package: observer\n\
         Version: {VERSION}-{REVISION}\n\
         Architecture: amd64\n\
         Maintainer: {MAINTAINER}\n\
         Installed-Size: {kib}\n\
         Depends: {}, init-system-helpers (>= 1.54), systemd (>= 252)\n\
         Section: admin\n\
         Priority: optional\n\
         Description: says why a dramatiq worker does not consume its messages\n \
         A worker starts, logs \"ready\", and consumes nothing; or it is gone without a\n \
         word. observer watches its whole process tree from the kernel, with nothing\n \
         changed in its code, its environment or its behaviour, and names the cause\n \
         with the events that prove it.\n \
         .\n \
         The service records every dramatiq worker of the machine, and keeps what led\n \
         to a failure. It lets users record what is theirs without sudo.\n",
        libraries(binary)?
    ))
}

/// What the program's libraries are in Debian, with the versions it takes.
fn libraries(binary: &Path) -> Result<String> {
    let scratch = tempfile::tempdir().context("cannot create a temporary folder")?;
    fs::create_dir(scratch.path().join("debian"))?;
    fs::write(
        scratch.path().join("debian/control"),
        "Source: observer\n\nPackage: observer\nArchitecture: amd64\n",
    )?;
    let told = output(Command::new("dpkg-shlibdeps").arg("-O").arg(binary).current_dir(scratch.path()))?;
    let depends = told.lines().find_map(|line| line.strip_prefix("shlibs:Depends="));
    Ok(depends.with_context(|| format!("dpkg-shlibdeps named no library: {told}"))?.to_owned())
}

fn changelog() -> Result<String> {
    let date = output(
        Command::new("date")
            .args(["--utc", "--rfc-email"])
            .arg(format!("--date=@{}", epoch()?))
            .env("LC_ALL", "C"),
    )?;
    Ok(format!(
        "observer ({VERSION}-{REVISION}) unstable; urgency=medium\n\n  * Version {VERSION}; what is new is in changelog.gz.\n\n -- {MAINTAINER}  {date}\n"
    ))
}
