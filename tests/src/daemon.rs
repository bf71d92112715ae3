//! The service under test, with a folder, a socket and rules of its own: it watches for nothing but one module of one test. It judges nothing.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::{deadline, target};

/// How long the service may take to start, to read its settings anew, or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A service that is up.
#[derive(Debug)]
pub struct Daemon {
    folder: PathBuf,
    child: Child,
    told: UnixDatagram,
}

/// A rule in a configuration: commands `python… -m dramatiq MODULE`, with more lines of it.
pub fn rule(module: &str, more: &str) -> String {
    format!(
        "[[rules]]\nname = \"{module}\"\nexe = \"python*\"\nargs = [\"-m\", \"dramatiq\", \"{module}\"]\n{more}\n"
    )
}

impl Daemon {
    /// Starts it in a folder of its own below this one, with this configuration, and waits until it says that it is ready.
    pub fn start(above: &Path, config: &str) -> Result<Self> {
        // A configuration that others could change is not followed.
        let folder = &above.join("service");
        fs::create_dir_all(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
        fs::write(folder.join("config.toml"), format!("metrics.listen = \"\"\n{config}"))?;
        fs::set_permissions(folder.join("config.toml"), fs::Permissions::from_mode(0o600))?;
        let told = folder.join("notify");
        let _ = fs::remove_file(&told);
        let told = UnixDatagram::bind(&told).context("cannot make a socket to be told on")?;
        told.set_read_timeout(Some(Duration::from_millis(100)))?;
        let child = Self::spawn(folder)?;
        let mut daemon = Self { folder: folder.to_owned(), child, told };
        daemon.hear("READY=1")?;
        Ok(daemon)
    }

    fn spawn(folder: &Path) -> Result<Child> {
        let log = fs::File::options().create(true).append(true).open(folder.join("log"))?;
        let mut observer = Command::new(target::observer()?);
        observer.arg("--state-dir").arg(folder.join("base")).args(["daemon", "--config"]);
        observer.arg(folder.join("config.toml")).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        observer.env("OBSERVER_SOCKET", folder.join("control")).env("NOTIFY_SOCKET", folder.join("notify"));
        observer.spawn().context("cannot start the service")
    }

    /// Waits until it says this to whoever started it.
    pub fn hear(&mut self, wanted: &str) -> Result<()> {
        let mut said = [0; 4096];
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let len = self.told.recv(&mut said).unwrap_or(0);
            if said[..len].split(|byte| *byte == b'\n').any(|line| line == wanted.as_bytes()) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the service ended ({status}) before it said {wanted}; {}", self.log());
            }
        }
        bail!("the service did not say {wanted} in {PATIENCE:?}; {}", self.log())
    }

    /// What it wrote.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it, as nothing can be prepared for.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Starts it again after it has ended, and waits until it is ready.
    pub fn restart(&mut self) -> Result<()> {
        self.child = Self::spawn(&self.folder)?;
        self.hear("READY=1")
    }

    /// Has it read this configuration.
    pub fn reload(&mut self, config: &str) -> Result<()> {
        fs::write(self.folder.join("config.toml"), format!("metrics.listen = \"\"\n{config}"))?;
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGHUP)?;
        self.hear("RELOADING=1")?;
        self.hear("READY=1")
    }

    /// Ends it by TERM.
    pub fn end(&mut self) -> Result<ExitStatus> {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM)?;
        deadline::poll("the service ends", PATIENCE, || self.child.try_wait().ok().flatten())
    }

    /// Its directory of sessions.
    pub fn base(&self) -> PathBuf {
        self.folder.join("base")
    }

    /// Its control socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("control")
    }

    /// `observer` as somebody who asks this service.
    pub fn observer<S: AsRef<OsStr>>(&self, words: &[S]) -> Result<Command> {
        let mut observer = Command::new(target::observer()?);
        observer.args(words).env("OBSERVER_SOCKET", self.socket()).stdin(Stdio::null());
        Ok(observer)
    }

    /// What `observer` prints of its sessions, as JSON.
    pub fn json<S: AsRef<OsStr>>(&self, words: &[S]) -> Result<Value> {
        let output =
            self.observer(words)?.args(["--format", "json", "--state-dir"]).arg(self.base()).output()?;
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("no JSON: {}", String::from_utf8_lossy(&output.stderr)))
    }

    /// Its sessions, the newest first.
    pub fn sessions(&self) -> Result<Vec<Value>> {
        let Value::Array(sessions) = self.json(&["ls"])?["sessions"].take() else {
            bail!("no sessions in it")
        };
        Ok(sessions)
    }

    /// How it says it is.
    pub fn status(&self) -> Result<Value> {
        let mut stream = UnixStream::connect(self.socket())?;
        stream.write_all(b"{\"op\":\"status\"}\n")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }

    /// Waits until it has concluded all that has ended: nothing is recorded, and nothing is left to be.
    pub fn idle(&self) -> Result<()> {
        deadline::poll("the service has concluded everything", PATIENCE, || {
            let status = self.status().ok()?;
            let running = fs::read_dir(self.base().join("running")).ok()?.count();
            (status["recordings"].as_array()?.is_empty() && running == 0).then_some(())
        })
        .with_context(|| self.log())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
