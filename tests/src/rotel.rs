//! rotel, a collector for OpenTelemetry that we did not write, as the witness of what was sent: it receives by gRPC and HTTP and prints
//! what it got. Knows how it is started and what it prints; nothing of who sends.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::apt::{self, Package};
use crate::deadline;
use crate::rabbit::free_ports;
use crate::venv::{self, Venv};

const REQUIREMENTS: &str = "rotel==0.0.1a15\n";
const LIMIT: Duration = Duration::from_secs(60);

/// A running rotel; it ends when dropped.
#[derive(Debug)]
pub struct Rotel {
    agent: Child,
    folder: TempDir,
    grpc: u16,
    http: u16,
}

/// What arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arrived {
    /// Spans.
    pub spans: usize,
    /// Log records.
    pub logs: usize,
    /// Spans by the first word of their name.
    pub named: BTreeMap<String, usize>,
    /// Log records by the name of their event, where they have one.
    pub events: BTreeMap<String, usize>,
}

impl Arrived {
    /// Log records that are no events.
    pub fn plain_logs(&self) -> usize {
        self.logs - self.events.values().sum::<usize>()
    }
}

impl Rotel {
    /// Starts one that listens on ports of its own on 127.0.0.1.
    pub fn start() -> Result<Self> {
        let interpreter = venv::interpreter();
        if interpreter == Path::new(venv::DEBIANS) {
            apt::ensure(&[Package::new("libpython3-dev", "rotel is linked with Python's library")])?;
        }
        let venv = Venv::ensure_with(&interpreter, REQUIREMENTS)?;
        // The agent holds an interpreter, and is linked with the library of the one it was installed for.
        let asked = Command::new(venv.python())
            .args(["-c", "import rotel.agent, sysconfig; print(rotel.agent.Agent.agent_path); print(sysconfig.get_config_var('LIBDIR'))"])
            .stdin(Stdio::null())
            .output()
            .context("cannot ask where rotel is")?;
        let answer = String::from_utf8_lossy(&asked.stdout).into_owned();
        let Some((agent, libraries)) = answer.trim().split_once('\n') else {
            bail!("where is rotel? {}", String::from_utf8_lossy(&asked.stderr).trim());
        };
        let [grpc, http, ..] = free_ports()?;
        let folder = tempfile::Builder::new().prefix("observer-rotel-").tempdir()?;
        let log = File::create(folder.path().join("log"))?;
        let agent = Command::new(agent)
            .arg("start")
            .args(["--exporter", "blackhole", "--log-format", "json"])
            .args(["--debug-log", "traces", "--debug-log", "logs", "--debug-log-verbosity", "detailed"])
            .args(["--otlp-grpc-endpoint", &format!("127.0.0.1:{grpc}")])
            .args(["--otlp-http-endpoint", &format!("127.0.0.1:{http}")])
            .env("LD_LIBRARY_PATH", libraries)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot run {agent}"))?;
        let mut rotel = Self { agent, folder, grpc, http };
        let listening = deadline::poll("rotel listens on both its ports", LIMIT, || {
            if let Ok(Some(status)) = rotel.agent.try_wait() {
                return Some(Err(anyhow::anyhow!("rotel: {status}")));
            }
            let connects = |port| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
            (connects(grpc) && connects(http)).then_some(Ok(()))
        });
        listening.and_then(|listening| listening).with_context(|| format!("rotel says: {}", rotel.log()))?;
        Ok(rotel)
    }

    /// Where it listens for gRPC.
    pub fn grpc(&self) -> String {
        format!("http://127.0.0.1:{}", self.grpc)
    }

    /// Where it listens for HTTP.
    pub fn http(&self) -> String {
        format!("http://127.0.0.1:{}", self.http)
    }

    /// What arrived until now.
    pub fn arrived(&self) -> Arrived {
        let mut arrived = Arrived::default();
        for line in self.log().lines() {
            if line.starts_with("Span #") {
                arrived.spans += 1;
            } else if line.starts_with("LogRecord #") {
                arrived.logs += 1;
            } else if let Some(name) = line.strip_prefix("    Name           : ") {
                let word = name.split(' ').next().unwrap_or_default();
                *arrived.named.entry(word.to_owned()).or_default() += 1;
            } else if let Some(name) = line.strip_prefix("EventName: ").filter(|name| !name.is_empty()) {
                *arrived.events.entry(name.to_owned()).or_default() += 1;
            }
        }
        arrived
    }

    /// The same, when as much has arrived as is expected, or more; it is printed a moment after it is taken.
    pub fn wait_for(&self, spans: usize, logs: usize) -> Result<Arrived> {
        let arrived = deadline::poll(&format!("{spans} spans and {logs} log records arrive"), LIMIT, || {
            let arrived = self.arrived();
            (arrived.spans >= spans && arrived.logs >= logs).then_some(arrived)
        });
        arrived.with_context(|| format!("arrived have {:?}", self.arrived()))
    }

    /// All it printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Rotel {
    fn drop(&mut self) {
        // One that ended by itself is gone already.
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}
