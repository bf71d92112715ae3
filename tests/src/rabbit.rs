//! A RabbitMQ node of the lab's own: own name, ports, port mapper, cookie and folders, on loopback only. It knows nothing of what
//! speaks to it, and touches no broker that is already on the machine.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::apt::{self, Package};
use crate::deadline;

/// What a broker needs to be installed.
pub const PACKAGES: &[Package] = &[Package::new(
    "rabbitmq-server",
    "a private broker is started from it; its own service is left disabled",
)];

const BOOT_LIMIT: Duration = Duration::from_secs(120);

/// Leader of the node's process group. It ends the group when its standard input does: on purpose, or because whoever started the
/// broker is gone, be it by SIGKILL. (PR_SET_PDEATHSIG would follow the *thread* that started it, and a test's thread ends early.)
/// It never waits, so the two process ids stay its own.
const KEEPER: &str = r#"
epmd -port "$ERL_EPMD_PORT" -address 127.0.0.1 &
epmd=$!
"$SERVER" >>"$FOLDER/boot.log" 2>&1 &
server=$!
echo "$server" >"$FOLDER/server.pid.new"
mv "$FOLDER/server.pid.new" "$FOLDER/server.pid"
read -r order
kill -KILL "$server" "$epmd" 2>/dev/null
[ "$order" = keep ] || rm -rf "$FOLDER"
kill -KILL 0
"#;

/// Installs the broker's package when it is missing, and keeps the service that comes with it from starting now or at the next boot.
pub fn install() -> Result<()> {
    if apt::missing(PACKAGES)?.is_empty() {
        return Ok(());
    }
    apt::ensure(PACKAGES)?;
    if Path::new("/run/systemd/system").exists() {
        let disabled = Command::new("systemctl").args(["disable", "--quiet", "rabbitmq-server"]).status();
        if !disabled.is_ok_and(|status| status.success()) {
            eprintln!(
                "cannot disable rabbitmq-server.service: it will start at the next boot; run: systemctl disable rabbitmq-server"
            );
        }
    }
    Ok(())
}

/// A running node. Dropping it ends every process of it and removes its folders.
#[derive(Debug)]
pub struct Broker {
    keeper: Option<Child>,
    scripts: PathBuf,
    folder: TempDir,
    name: String,
    port: u16,
    management_port: u16,
    dist_port: u16,
    epmd_port: u16,
    management: bool,
}

impl Broker {
    /// Starts a node with these plugins (`rabbitmq_management`, `rabbitmq_event_exchange`; none starts fastest) and returns when it
    /// answers an AMQP handshake.
    pub fn start(plugins: &[&str]) -> Result<Self> {
        Self::start_with(plugins, "")
    }

    /// As [`Self::start`], with lines of `rabbitmq.conf` of one's own, such as `consumer_timeout = 1000`.
    pub fn start_with(plugins: &[&str], config: &str) -> Result<Self> {
        let scripts = scripts()?;
        let folder = tempfile::Builder::new()
            .prefix("observer-rabbit-")
            .tempdir()
            .context("cannot create a temporary folder")?;
        let [port, management_port, dist_port, epmd_port] = free_ports()?;
        let at = folder.path();
        fs::write(
            at.join("rabbitmq.conf"),
            format!(
                "listeners.tcp.1 = 127.0.0.1:{port}\nmanagement.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {management_port}\n{config}\n"
            ),
        )?;
        // The plugin's settings are refused when it is not enabled.
        let management = plugins.contains(&"rabbitmq_management");
        if !management {
            fs::write(at.join("rabbitmq.conf"), format!("listeners.tcp.1 = 127.0.0.1:{port}\n{config}\n"))?;
        }
        fs::write(at.join("enabled_plugins"), format!("[{}].\n", plugins.join(",")))?;
        let name = format!("observer-{}-{port}@localhost", std::process::id());
        let mut broker = Self {
            keeper: None,
            scripts,
            folder,
            name,
            port,
            management_port,
            dist_port,
            epmd_port,
            management,
        };
        broker.boot()?;
        Ok(broker)
    }

    /// Where a client connects, as the default user, without a trailing slash: append `/vhost`.
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}", self.port)
    }

    /// The AMQP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The HTTP port on 127.0.0.1; nothing listens there unless `rabbitmq_management` was asked for.
    pub fn management_port(&self) -> u16 {
        self.management_port
    }

    /// The node's process id while it runs.
    pub fn pid(&self) -> Result<u32> {
        let path = self.folder.path().join("server.pid");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        text.trim().parse().with_context(|| format!("{} holds no process id", path.display()))
    }

    /// Runs `rabbitmqctl` on the node and returns what it printed (with `--quiet`). Takes about a second.
    pub fn ctl<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<String> {
        let mut command = self.command("rabbitmqctl");
        command.arg("--quiet").args(arguments);
        let output = command.output().context("cannot run rabbitmqctl")?;
        if !output.status.success() {
            let words: Vec<_> =
                arguments.iter().map(|word| word.as_ref().to_string_lossy().into_owned()).collect();
            let answer = String::from_utf8_lossy(&output.stderr).into_owned();
            bail!("rabbitmqctl {}: {}: {}", words.join(" "), output.status, answer.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Ends the node by SIGKILL, as a crash would. What was on its disk stays for [`Self::restart`].
    pub fn kill(&mut self) {
        self.end(b"keep\n");
    }

    /// Starts the node again on the same ports and folders; one that still runs is asked to stop first.
    pub fn restart(&mut self) -> Result<()> {
        if self.keeper.is_some() {
            let pid = self.pid()?;
            let pid = Pid::from_raw(i32::try_from(pid)?);
            kill(pid, Signal::SIGTERM).with_context(|| format!("cannot signal the broker, process {pid}"))?;
            deadline::poll("the broker stops after SIGTERM", BOOT_LIMIT, || ended(pid).then_some(()))?;
        }
        self.kill();
        self.boot()
    }

    fn boot(&mut self) -> Result<()> {
        // Left by the run before: waiting below must not take it for this one's.
        let _ = fs::remove_file(self.folder.path().join("server.pid"));
        let keeper = Command::new("sh")
            .args(["-c", KEEPER])
            .envs(self.environment())
            .env("SERVER", self.scripts.join("rabbitmq-server"))
            .env("FOLDER", self.folder.path())
            .current_dir(self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot start a shell for the broker")?;
        self.keeper = Some(keeper);
        let ready = deadline::poll("the broker answers a handshake", BOOT_LIMIT, || {
            if self.pid().is_ok_and(|pid| ended(Pid::from_raw(pid as i32))) {
                return Some(Err(anyhow!("the broker ended while it started")));
            }
            (greets(self.port) && (!self.management || serves(self.management_port))).then_some(Ok(()))
        });
        ready.and_then(|ready| ready).with_context(|| {
            let log = fs::read_to_string(self.folder.path().join("boot.log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(20).collect();
            format!(
                "RabbitMQ did not start; the end of its log:\n{}",
                tail.into_iter().rev().collect::<Vec<_>>().join("\n")
            )
        })
    }

    fn end(&mut self, order: &[u8]) {
        let Some(mut keeper) = self.keeper.take() else { return };
        let server = self.pid().ok().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
        if let Some(mut input) = keeper.stdin.take() {
            // A keeper that is gone has ended its group already.
            let _ = input.write_all(order);
        }
        let _ = keeper.wait();
        // SIGKILL has been sent; the node's threads and sockets go a moment later.
        let gone = deadline::poll("the broker's processes and sockets are gone", BOOT_LIMIT, || {
            (server.is_none_or(ended) && !serves(self.port)).then_some(())
        });
        if let Err(error) = gone {
            eprintln!("{error}");
        }
    }

    /// What it takes to run the node's tools, such as `rabbitmqctl`, without us: their folder, and the environment they want.
    pub fn tools(&self) -> (&Path, Vec<(&'static str, String)>) {
        (&self.scripts, self.environment())
    }

    fn command(&self, script: &str) -> Command {
        let mut command = Command::new(self.scripts.join(script));
        command.envs(self.environment()).current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let at = self.folder.path().display();
        vec![
            ("HOME", at.to_string()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".into()),
            ("ERL_EPMD_PORT", self.epmd_port.to_string()),
            ("ERL_CRASH_DUMP", "/dev/null".into()),
            ("RABBITMQ_NODENAME", self.name.clone()),
            ("RABBITMQ_DIST_PORT", self.dist_port.to_string()),
            ("RABBITMQ_CONF_ENV_FILE", "/dev/null".into()),
            ("RABBITMQ_CONFIG_FILE", format!("{at}/rabbitmq.conf")),
            ("RABBITMQ_ADVANCED_CONFIG_FILE", format!("{at}/advanced.config")),
            ("RABBITMQ_GENERATED_CONFIG_DIR", format!("{at}/generated")),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", format!("{at}/enabled_plugins")),
            ("RABBITMQ_MNESIA_BASE", format!("{at}/mnesia")),
            ("RABBITMQ_LOG_BASE", format!("{at}/log")),
            ("RABBITMQ_LOGS", "-".into()),
            ("RABBITMQ_PID_FILE", format!("{at}/rabbit.pid")),
            // As little as a machine of few cores can share with what is being tested.
            (
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "+S 2:2 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}".into(),
            ),
            ("RABBITMQ_CTL_ERL_ARGS", "+S 1:1 +sbwt none".into()),
            // The script then becomes the node instead of staying its parent.
            ("RUNNING_UNDER_SYSTEMD", "1".into()),
            ("LC_ALL", "C.UTF-8".into()),
        ]
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.end(b"");
    }
}

/// Where RabbitMQ's own scripts are: those in /usr/sbin are wrappers that change user and read /etc.
fn scripts() -> Result<PathBuf> {
    let lib = Path::new("/usr/lib/rabbitmq/lib");
    let versions = fs::read_dir(lib).with_context(|| {
        format!(
            "no RabbitMQ in {}; as root, run: cargo xtask test, or: apt-get install rabbitmq-server",
            lib.display()
        )
    })?;
    versions
        .filter_map(|entry| Some(entry.ok()?.path().join("sbin")))
        .filter(|sbin| sbin.join("rabbitmq-server").exists())
        .max()
        .with_context(|| format!("no sbin/rabbitmq-server under {}", lib.display()))
}

/// Four ports that are free now and below the range the kernel hands out, which pika's wake-up sockets draw from all the time.
pub(crate) fn free_ports() -> Result<[u16; 4]> {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_micros());
    let start = now ^ std::process::id().wrapping_mul(2_654_435_761);
    let mut found = Vec::new();
    for _ in 0..1000 {
        let nth = start.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        let port = 20_000 + (nth % 12_000) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            found.push(port);
        }
        if let Ok(ports) = <[u16; 4]>::try_from(found.as_slice()) {
            return Ok(ports);
        }
    }
    bail!("no four free TCP ports between 20000 and 31999 on 127.0.0.1")
}

/// Whether the port answers an AMQP 0-9-1 protocol header with a method frame on channel 0 (Connection.Start).
fn greets(port: u16) -> bool {
    let greeted = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"AMQP\x00\x00\x09\x01")?;
        let mut start = [0; 11];
        stream.read_exact(&mut start)?;
        Ok(start[0] == 1 && start[7..] == [0, 10, 0, 10])
    };
    greeted().unwrap_or(false)
}

fn serves(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Whether a process has ended: gone, or a zombie its parent has yet to notice.
fn ended(pid: Pid) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X'])),
        Err(_) => true,
    }
}
