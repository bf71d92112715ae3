//! Where one scenario takes place: its folders and files, its virtual host and ports, and the words that stand for them. It runs
//! nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, socket};
use serde_json::json;
use tempfile::TempDir;

use super::file::{Node, Scenario};
use super::management::Management;
use crate::rabbit::{self, Broker};
use crate::venv::Venv;

const HELPER: &str = include_str!("lab.py");

/// The name of a scenario's session: it tells nothing of what is expected.
const SESSION: &str = "run";

/// The password of the scenario's own user.
const PASSWORD: &str = "sesame-7213";

/// A scenario's own place. Gone when dropped, unless it was kept.
#[derive(Debug)]
pub(super) struct Place {
    folder: Option<TempDir>,
    /// What may be written as `{name}`, or as `@name@` in a file.
    pub(super) values: BTreeMap<String, String>,
    /// The name of the session that is being recorded.
    pub(super) name: &'static str,
    /// Files of sessions that are over.
    earlier: BTreeSet<PathBuf>,
    management: Management,
    // Bound, and not listening: nobody else can come to listen there meanwhile.
    _closed_port: OwnedFd,
}

impl Place {
    /// Makes the folders, the files and the virtual host.
    pub(super) fn make(scenario: &Scenario, broker: &Broker, venv: &Venv) -> Result<Self> {
        // Names that say neither "test" nor what is wrong: a diagnosis must not be able to read the answer off a path.
        let folder =
            tempfile::Builder::new().prefix("srv-").tempdir().context("cannot create a temporary folder")?;
        let at = folder.path().to_owned();
        for name in ["app", "home", "log", "lab"] {
            fs::create_dir(at.join(name))?;
        }
        // The command may be run by somebody else.
        for folder in [&at, &at.join("app"), &at.join("home"), &at.join("log")] {
            fs::set_permissions(folder, Permissions::from_mode(0o777))?;
        }
        fs::write(at.join("lab/lab.py"), HELPER)?;
        let vhost = vhost();
        let (closed, closed_port) = closed_port()?;
        let ports = rabbit::free_ports()?;
        let management = Management { port: broker.management_port() };
        let mut values: BTreeMap<String, String> = [
            ("amqp_url", format!("amqp://{vhost}:{PASSWORD}@127.0.0.1:{}/{vhost}", broker.port())),
            ("admin_url", format!("{}/{vhost}", broker.url())),
            ("user", vhost.clone()),
            ("password", PASSWORD.into()),
            ("host", "127.0.0.1".into()),
            ("port", broker.port().to_string()),
            ("management_port", management.port.to_string()),
            ("management_url", format!("http://127.0.0.1:{}", management.port)),
            ("vhost", vhost.clone()),
            ("scene", at.join("app").display().to_string()),
            ("closed_port", closed_port.to_string()),
            ("venv", venv.root().display().to_string()),
            ("path", search_path(venv)),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        values.extend(
            ["port_a", "port_b", "port_c", "port_d"]
                .iter()
                .zip(ports)
                .map(|(name, port)| ((*name).into(), port.to_string())),
        );
        // On a node of its own it may see all, alarms too; on the shared one scenarios run beside each other.
        let tag = if scenario.node == Node::Own { "administrator" } else { "management" };
        management.open_vhost(&vhost, PASSWORD, tag)?;
        let place = Self {
            folder: Some(folder),
            values,
            name: SESSION,
            earlier: BTreeSet::new(),
            management,
            _closed_port: closed,
        };
        place.furnish(scenario)?;
        Ok(place)
    }

    /// Writes a scenario's files.
    pub(super) fn furnish(&self, scenario: &Scenario) -> Result<()> {
        for (name, text) in &scenario.files {
            self.write(name, text)?;
        }
        fs::create_dir_all(self.cwd(scenario))?;
        Ok(())
    }

    /// Makes another virtual environment the one that is meant by `{venv}` and `{path}`.
    pub(super) fn use_venv(&mut self, venv: &Venv) {
        let root = venv.root().display().to_string();
        self.values.insert("path".to_owned(), search_path(venv));
        self.values.insert("venv".to_owned(), root);
    }

    /// Makes it the place of another session, beside those recorded so far.
    pub(super) fn next_session(&mut self, name: &'static str) {
        self.earlier = self.sessions().collect();
        self.name = name;
    }

    /// The folder of all.
    pub(super) fn folder(&self) -> &Path {
        self.folder.as_ref().map_or(Path::new(""), TempDir::path)
    }

    /// A file or folder in it.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// Where the files of the scenario are.
    pub(super) fn scene(&self) -> PathBuf {
        self.path("app")
    }

    /// Where the command is started.
    pub(super) fn cwd(&self, scenario: &Scenario) -> PathBuf {
        self.scene().join(&scenario.cwd)
    }

    /// The session's file, once there is one.
    pub(super) fn session(&self) -> Option<PathBuf> {
        self.sessions().find(|path| !self.earlier.contains(path))
    }

    fn sessions(&self) -> impl Iterator<Item = PathBuf> {
        let files = fs::read_dir(self.path("state")).into_iter().flatten();
        files
            .filter_map(|file| Some(file.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "sqlite"))
    }

    /// A text with the values put in: `{name}`. Other braces stay.
    pub(super) fn filled(&self, text: &str) -> String {
        filled(&self.values, text)
    }

    /// What `lab.py` is told, in a file whose name goes to the snippets.
    pub(super) fn tell_helper(&self, broker: &Broker, observer: Option<u32>) -> Result<PathBuf> {
        let (tools, environment) = broker.tools();
        let environment: BTreeMap<_, _> = environment.into_iter().collect();
        let told = json!({
            "values": self.values,
            "session": self.session(),
            "observer": observer,
            "broker_pid": broker.pid().ok(),
            "tools": { "folder": tools, "environment": environment },
        });
        let path = self.path("lab/told.json");
        fs::write(&path, told.to_string())?;
        Ok(path)
    }

    /// Leaves the folder where it is, and says where.
    pub(super) fn keep(&mut self) -> PathBuf {
        self.folder.take().map(TempDir::keep).unwrap_or_default()
    }

    /// Removes the virtual host and its users. A broker that has been stopped has none.
    pub(super) fn close_vhost(&self) {
        if let Some(vhost) = self.values.get("vhost")
            && let Err(error) = self.management.close_vhost(vhost)
        {
            eprintln!("cannot remove virtual host {vhost}: {error:#}");
        }
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.scene().join(name);
        if !path.starts_with(self.scene()) || name.split('/').any(|part| part == "..") {
            bail!("file {name} would lie outside of the scene");
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        // Python has braces of its own.
        let text = self
            .values
            .iter()
            .fold(text.to_owned(), |text, (name, value)| text.replace(&format!("@{name}@"), value));
        fs::write(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
        if text.starts_with("#!") {
            fs::set_permissions(&path, Permissions::from_mode(0o755))?;
        }
        Ok(())
    }
}

fn search_path(venv: &Venv) -> String {
    format!("{}/bin:/usr/local/bin:/usr/bin:/bin", venv.root().display())
}

/// A text with values put in.
pub(super) fn filled(values: &BTreeMap<String, String>, text: &str) -> String {
    values.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
}

fn vhost() -> String {
    static NTH: AtomicU32 = AtomicU32::new(0);
    format!("v{}x{}", std::process::id(), NTH.fetch_add(1, Ordering::Relaxed))
}

/// A socket that has a port and does not listen on it.
fn closed_port() -> Result<(OwnedFd, u16)> {
    // Below the range the kernel hands out, which pika's wake-up sockets draw from.
    let [port, ..] = rabbit::free_ports()?;
    let held = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let SocketAddr::V4(at) = at else { bail!("127.0.0.1 is an address of version 4") };
    use std::os::fd::AsRawFd;
    bind(held.as_raw_fd(), &SockaddrIn::from(at)).context("cannot bind on 127.0.0.1")?;
    let bound: SockaddrIn = getsockname(held.as_raw_fd())?;
    debug_assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, bound.port())).is_err());
    Ok((held, bound.port()))
}
