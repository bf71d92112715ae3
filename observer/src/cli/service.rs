//! Talking to the service (`observer daemon`) over its control socket. Knows the protocol; nothing of what is asked.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, bail};

use crate::daemon::protocol::{MOST_LINE, Reply, Request, SOCKET};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(20);
/// Names another socket than the usual one.
const VARIABLE: &str = "OBSERVER_SOCKET";

/// A connection to the service.
pub(super) struct Service {
    stream: BufReader<UnixStream>,
    path: PathBuf,
}

/// Where it listens.
pub(super) fn socket() -> PathBuf {
    std::env::var_os(VARIABLE).filter(|path| !path.is_empty()).map_or_else(|| SOCKET.into(), PathBuf::from)
}

impl Service {
    /// Connects.
    ///
    /// # Errors
    /// When no service listens.
    pub(super) fn connect() -> anyhow::Result<Self> {
        let path = socket();
        let stream = UnixStream::connect(&path).with_context(|| {
            format!(
                "cannot reach the service at {}; start it (systemctl start observer), or see why it is not there (systemctl status observer)",
                path.display()
            )
        })?;
        stream.set_read_timeout(Some(PATIENCE)).context("cannot wait for the service")?;
        stream.set_write_timeout(Some(PATIENCE)).context("cannot wait for the service")?;
        Ok(Self { stream: BufReader::new(stream), path })
    }

    /// Asks, and returns the answer; what it refuses is an error in its own words.
    ///
    /// # Errors
    /// When it refuses, goes away, or is not understood.
    pub(super) fn ask(&mut self, request: &Request) -> anyhow::Result<Reply> {
        // Some things last.
        let patience = if matches!(request, Request::Wait { .. }) { None } else { Some(PATIENCE) };
        let at = self.path.display().to_string();
        let gone = || format!("the service at {at} went away; see its journal: journalctl -u observer");
        self.stream.get_ref().set_read_timeout(patience).with_context(gone)?;
        let line = serde_json::to_string(request)? + "\n";
        if line.len() > MOST_LINE {
            bail!("the command is too long to be told to the service; use sudo, or --backend ptrace");
        }
        self.stream.get_ref().write_all(line.as_bytes()).with_context(gone)?;
        let mut answer = String::new();
        // What it says is bounded by how many recordings there can be.
        self.stream.by_ref().take(64 << 20).read_line(&mut answer).with_context(gone)?;
        if answer.is_empty() {
            bail!(gone());
        }
        match serde_json::from_str(&answer)
            .context("the service is of another version: it said something unknown")?
        {
            Reply::Error { message } => bail!(message),
            reply => Ok(reply),
        }
    }
}
