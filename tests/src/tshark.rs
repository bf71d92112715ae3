//! tshark as a second witness: captures a broker's port and lists the AMQP methods of each connection, with Wireshark's own names. It
//! knows how tshark writes PDML, and nothing of who spoke.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::deadline;

/// What is needed for it.
pub const PACKAGE: crate::apt::Package = crate::apt::Package::new(
    "tshark",
    "tests hold the decoded AMQP against what Wireshark reads in the same packets",
);

const LIMIT: Duration = Duration::from_secs(60);

/// A capture under way.
#[derive(Debug)]
pub struct Capture {
    tshark: Child,
    folder: TempDir,
    port: u16,
}

/// What was said on one connection, in order: by the client, by the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conversation {
    /// The client's methods.
    pub client: Vec<String>,
    /// The server's methods.
    pub server: Vec<String>,
}

impl Capture {
    /// Captures a TCP port of the loopback interface, where something must be listening; returns when packets come in.
    pub fn start(port: u16) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("observer-tshark-").tempdir()?;
        let log = fs::File::create(folder.path().join("log"))?;
        let tshark = Command::new("tshark")
            .args(["-q", "-n", "-i", "lo", "-f", &format!("tcp port {port}"), "-w"])
            .arg(folder.path().join("packets"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot run tshark; as root, run: cargo xtask test, or: apt-get install tshark")?;
        let mut capture = Self { tshark, folder, port };
        capture.reach()?;
        Ok(capture)
    }

    /// Ends the capture, once it has all packets until now, and lists what was said on each connection, by the client's port.
    pub fn finish(mut self) -> Result<BTreeMap<u16, Conversation>> {
        self.reach()?;
        // As Ctrl-C does: it writes out what it has.
        kill(Pid::from_raw(i32::try_from(self.tshark.id())?), Signal::SIGINT)?;
        let ended = deadline::poll("tshark ends", LIMIT, || self.tshark.try_wait().transpose())??;
        if !ended.success() {
            bail!("tshark: {ended}: {}", self.log());
        }
        dissect(&self.packets(), self.port)
    }

    fn packets(&self) -> PathBuf {
        self.folder.path().join("packets")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Waits until a packet sent now is in the file: so is every one before it. Connections made before the capture began are not, so
    /// it is tried anew.
    fn reach(&mut self) -> Result<()> {
        let mut probes = Vec::new();
        let port = self.port;
        let reached = deadline::poll("a connection made now is captured", LIMIT, || {
            if let Ok(Some(status)) = self.tshark.try_wait() {
                return Some(Err(anyhow::anyhow!("tshark: {status}: {}", self.log())));
            }
            let probe = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).and_then(|probe| probe.local_addr());
            if let Ok(from) = probe {
                // Addresses and ports as they stand in the headers of IPv4 and TCP.
                let header =
                    [&[127, 0, 0, 1, 127, 0, 0, 1][..], &from.port().to_be_bytes(), &port.to_be_bytes()];
                probes.push(header.concat());
            }
            let file = fs::read(self.packets()).unwrap_or_default();
            let is_there = |probe: &Vec<u8>| file.windows(probe.len()).any(|bytes| bytes == probe);
            probes.iter().any(is_there).then_some(Ok(()))
        });
        reached.and_then(|reached| reached).with_context(|| format!("tshark says: {}", self.log()))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // One that was finished is gone already.
        let _ = self.tshark.kill();
        let _ = self.tshark.wait();
    }
}

/// What was said on each connection of a file of packets, by the client's port; the broker's is `port`.
pub fn dissect(packets: &Path, port: u16) -> Result<BTreeMap<u16, Conversation>> {
    conversations(&read(packets, port, &["-T", "pdml"])?, port)
}

/// What tshark prints of a file of packets with these options, AMQP being spoken at `port`.
pub fn read(packets: &Path, port: u16, options: &[&str]) -> Result<String> {
    let output = Command::new("tshark")
        .args(["-n", "-d", &format!("tcp.port=={port},amqp")])
        .args(options)
        .arg("-r")
        .arg(packets)
        .stdin(Stdio::null())
        .output()
        .context("cannot run tshark")?;
    if !output.status.success() {
        bail!("tshark {options:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The same as `observer show --amqp --format json` tells it.
pub fn decoded(shown: &Value) -> Result<BTreeMap<u16, Conversation>> {
    let list = |name: &str| shown[name].as_array().with_context(|| format!("no {name}: {shown}"));
    let number = |value: &Value| value.as_u64().with_context(|| format!("no number: {value}"));
    let mut ports = BTreeMap::new();
    for connection in list("connections")? {
        let port = u16::try_from(number(&connection["local"]["port"])?)?;
        ports.insert(number(&connection["connection"])?, port);
    }
    let mut said: Vec<&Value> = list("said")?.iter().collect();
    // A message is told when it is whole, and another channel may come between: by its first byte it stands where its method does.
    said.sort_by_key(|said| said["start"].as_u64());
    let mut found = BTreeMap::<u16, Conversation>::new();
    for said in said {
        let name = said["name"].as_str().with_context(|| format!("no name: {said}"))?;
        // What has no dot is no method: of both witnesses only those are compared.
        if !name.contains('.') {
            continue;
        }
        let port =
            ports.get(&number(&said["connection"])?).with_context(|| format!("no connection: {said}"))?;
        let conversation = found.entry(*port).or_default();
        match said["side"].as_str() {
            Some("client") => conversation.client.push(name.to_owned()),
            Some("server") => conversation.server.push(name.to_owned()),
            side => bail!("which side? {side:?}"),
        }
    }
    Ok(found)
}

/// Takes PDML apart: a line a field, in the order of the bytes.
fn conversations(pdml: &str, port: u16) -> Result<BTreeMap<u16, Conversation>> {
    let mut found = BTreeMap::<u16, Conversation>::new();
    let (mut from, mut to, mut class) = (0, 0, None);
    for line in pdml.lines() {
        let line = line.trim_start();
        if line.starts_with("<packet") {
            (from, to, class) = (0, 0, None);
        }
        let Some(name) = attribute(line, "name") else { continue };
        let number = || attribute(line, "show").and_then(|show| show.parse::<u16>().ok()).context("no port");
        match name {
            "tcp.srcport" => from = number()?,
            "tcp.dstport" => to = number()?,
            "amqp.method.class" => class = Some(word(line)?),
            _ if name.starts_with("amqp.method.") && class.is_some() => {
                let Some(class) = class.take() else { continue };
                let method = format!("{class}.{}", word(line)?);
                if to == port {
                    found.entry(from).or_default().client.push(method);
                } else {
                    found.entry(to).or_default().server.push(method);
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

/// The name in `showname="Class: Connection (10)"`.
fn word(line: &str) -> Result<String> {
    let show = attribute(line, "showname").with_context(|| format!("no showname: {line}"))?;
    let word = show.split_once(": ").and_then(|(_, rest)| rest.rsplit_once(" ("));
    Ok(word.with_context(|| format!("no name with its number: {line}"))?.0.to_lowercase())
}

fn attribute<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(&format!(" {name}=\""))?;
    Some(rest.split_once('"')?.0)
}
