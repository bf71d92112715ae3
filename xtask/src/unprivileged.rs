//! The live tests as somebody without privilege runs them: by ptrace, and what needs more is skipped and said. It makes that somebody, and
//! a folder that they can read; it knows no test.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::unistd::User;
use serde_json::Value;
use tests::target;
use tests::venv::{DEBIANS, REQUIREMENTS, Venv};

use crate::run::{cargo, run};

/// Nobody's account but that of these tests.
const USER: &str = "observer-test";
/// Where every user can run a worker.
const CACHE: &str = "/var/cache/observer-test";
/// The tests that they can run; the others hold the observer against what only root can have (eBPF, a capture of the network), or take
/// many minutes by ptrace.
const TESTS: [&str; 8] = ["attach_pid", "bodies", "commands", "ends", "harm", "ptrace", "streams", "witness"];

/// Runs them with this observer, and prints what was skipped.
pub(crate) fn test(observer: &Path, filter: Option<&str>) -> Result<()> {
    let user = user()?;
    let venv = Venv::ensure_in(Path::new(CACHE), Path::new(DEBIANS), REQUIREMENTS)?;
    let folder = tempfile::Builder::new()
        .prefix("observer-unprivileged-")
        .permissions(Permissions::from_mode(0o755))
        .tempdir()
        .context("cannot create a temporary folder")?;
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("home"))?;
    chown(at("home"), Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
    // Neither the sources' folder nor what is built in it need be open to other users.
    run(Command::new("cp").arg("-r").arg(target::folder()).arg(at("targets")))?;
    fs::copy(observer, at("observer")).with_context(|| format!("cannot copy {}", observer.display()))?;
    for (name, executable) in executables()? {
        fs::copy(&executable, at(&name)).with_context(|| format!("cannot copy {}", executable.display()))?;
    }
    run(Command::new("chmod").args(["-R", "go+rX"]).arg(at("targets")))?;
    eprintln!("live tests once more, as user {USER} and by ptrace: {}", TESTS.join(", "));
    let mut failed = Vec::new();
    for name in TESTS {
        let mut command = Command::new("runuser");
        command
            .args([
                "-u",
                USER,
                "--",
                "env",
                "-i",
                "PATH=/usr/local/bin:/usr/bin:/bin",
                "OBSERVER_BACKEND=ptrace",
            ])
            .arg(format!("HOME={}", at("home").display()))
            .arg(format!("OBSERVER_BIN={}", at("observer").display()))
            .arg(format!("OBSERVER_VENV={}", venv.root().display()))
            .arg(format!("OBSERVER_TARGETS={}", at("targets").display()))
            .arg(at(name))
            .args(filter)
            .arg("--test-threads=2")
            .current_dir(at("home"));
        if !passed(&mut command)? {
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("live tests failed as user {USER}: {}", failed.join(", "));
    }
    println!("NOT RUN as user {USER}: the other tests in tests/tests, tests/scenarios and tests/pairs");
    Ok(())
}

/// The user, made when there is none.
fn user() -> Result<User> {
    if let Some(user) = User::from_name(USER)? {
        return Ok(user);
    }
    eprintln!(
        "make user {USER}: live tests run once more as somebody without privilege (userdel {USER} removes it)"
    );
    run(Command::new("useradd").args([
        "--system",
        "--no-create-home",
        "--shell",
        "/usr/sbin/nologin",
        USER,
    ]))?;
    User::from_name(USER)?.with_context(|| format!("useradd made no {USER}"))
}

/// The tests as they are built, by name.
fn executables() -> Result<Vec<(String, PathBuf)>> {
    let mut build = cargo();
    build.args(["test", "--quiet", "--no-run", "--package", "tests", "--message-format", "json"]);
    build.args(TESTS.iter().flat_map(|name| ["--test", name]));
    let output =
        build.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("cannot run cargo test")?;
    if !output.status.success() {
        bail!("cargo test --no-run: {}", output.status);
    }
    let messages = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let built = messages.filter_map(|line| {
        let message: Value = serde_json::from_slice(line).ok()?;
        let name = message["target"]["name"].as_str().filter(|name| TESTS.contains(name))?;
        Some((name.to_owned(), message["executable"].as_str()?.into()))
    });
    Ok(built.collect())
}

/// Runs one of them and prints how it ended: all it said when it failed, else what it skipped and its last line.
fn passed(command: &mut Command) -> Result<bool> {
    let (reader, writer) = std::io::pipe()?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().context("cannot run runuser")?;
    // The writers are the child's alone from here on, so the reader comes to an end.
    *command = Command::new("true");
    let mut lines = Vec::new();
    for line in BufReader::new(reader).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        if line.starts_with("skipped: ") {
            println!("{line}");
        }
        lines.push(line);
    }
    let passed = child.wait()?.success();
    let told = lines.iter().filter(|line| !passed || line.starts_with("test result: "));
    told.for_each(|line| println!("{line}"));
    Ok(passed)
}
