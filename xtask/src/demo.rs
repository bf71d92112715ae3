//! `cargo xtask demo`: one command from a fresh Debian machine to a worker that fails under tox, and the proof of why. It decides
//! nothing about any of it: every word on the worker is the observer's.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::rabbit::{self, Broker};
use tests::venv::{self, Venv};
use tests::{cache, target};

use crate::machine;
use crate::run::run;

const TOX: &str = "tox==4.32.0\n";
/// `128 + SIGTERM`.
const TERMINATED: i32 = 143;
const DIRECT: &str = "demo-direct";
const FAILING: &str = "demo-tox";
const WORKING: &str = "demo-program";

/// Flags of `cargo xtask demo`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where the sessions go (default: the observer's own)
    #[arg(long, value_name = "DIR")]
    state_dir: Option<String>,
}

/// Shows the observer at work.
pub(crate) fn main(args: &Args) -> Result<()> {
    machine::can_observe("demo")?;
    rabbit::install()?;
    let sender = Venv::ensure()?;
    let tox = Venv::ensure_with(&venv::interpreter(), TOX)?;
    let observer = machine::observer()?;
    eprintln!("start a private RabbitMQ on a free port of 127.0.0.1");
    let broker = Broker::start(&["rabbitmq_management", "rabbitmq_event_exchange"])?;
    let demo = Demo {
        observer: &observer,
        path: tox.path(),
        tox_dir: cache::dir().join("demo-tox"),
        state_dir: args.state_dir.as_deref(),
        management: format!("http://127.0.0.1:{}", broker.management_port()),
        url: broker.url(),
    };
    eprintln!("make the environment that tox.ini describes, as the first tox would");
    run(demo
        .at_home(&mut Command::new(tox.root().join("bin/tox")))
        .args(["run", "-q", "-e", "py3", "--notest"]))?;
    // Of an earlier demo, if there was one: what it answers when there was none is of no interest.
    for name in [DIRECT, FAILING, WORKING] {
        let _ = demo.command().args(["rm", name]).output();
    }

    heading("The actor called as a function, under tox: it works");
    demo.attach(DIRECT, "tox exec -q -e py3 -- python run_directly.py")?;

    heading("The worker, under the same tox: it says that it is ready, and consumes nothing");
    eprintln!("send three messages");
    run(Command::new(sender.python())
        .args(["send.py", "minimal_worker:count_words", "3", "to be or not to be"])
        .current_dir(target::folder())
        .env("BROKER_URL", &demo.url))?;
    demo.attach(FAILING, "tox exec -q -e py3 -- python -m dramatiq -p 1 -t 2 minimal_worker")?;
    // tox dies of its TERM without a word to what it runs.
    demo.end_orphans()?;

    heading("The worker started by a program of its own, with the Python of that environment: it works");
    let python = demo.tox_dir.join("py3/bin/python");
    demo.attach(WORKING, &format!("{} start_worker.py", python.display()))?;
    demo.show(&["show", WORKING, "--messages"])?;

    heading("What differs between the two, the likeliest cause first");
    demo.show(&["diff", WORKING, FAILING])?;

    heading("The proof: run again and again, with differences toggled");
    demo.show(&["bisect", WORKING, FAILING, "--for", "3s"])?;

    heading("What was recorded");
    demo.show(&["ls"])?;

    heading("Next");
    let state = args.state_dir.as_ref().map(|dir| format!(" --state-dir {dir}")).unwrap_or_default();
    let observer = observer.display();
    println!("    {observer} show {FAILING} --summary{state}     # processes, imports, connections, exits");
    println!("    {observer} show {WORKING} --amqp{state}    # what it said to the broker");
    println!(
        "    {observer} attach{state} --cmd 'python -m dramatiq YOUR_MODULE'     # in your project's folder"
    );
    println!("    {observer} --help");
    Ok(())
}

struct Demo<'a> {
    observer: &'a Path,
    /// Where `tox` is found.
    path: String,
    /// tox's own folder.
    tox_dir: PathBuf,
    state_dir: Option<&'a str>,
    /// The management API's address.
    management: String,
    /// The broker's, with a password.
    url: String,
}

impl Demo<'_> {
    /// In the project's folder, as its developer.
    fn at_home<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command
            .current_dir(target::folder().join("tox"))
            .env("PATH", &self.path)
            .env("DEMO_TOX_DIR", &self.tox_dir)
            .env("BROKER_URL", &self.url)
    }

    /// Ends what still runs on the Python of the demo's own environment.
    fn end_orphans(&self) -> Result<()> {
        let python = self.tox_dir.join("py3/bin/python");
        for entry in fs::read_dir("/proc").context("cannot read /proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if words.split(|byte| *byte == 0).next() == Some(python.as_os_str().as_bytes()) {
                // It may have ended meanwhile.
                let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            }
        }
        Ok(())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.observer);
        if let Some(dir) = self.state_dir {
            command.args(["--state-dir", dir]);
        }
        command
    }

    fn show(&self, words: &[&str]) -> Result<()> {
        println!("\n$ observer {}", words.join(" "));
        run(self.at_home(&mut self.command()).args(words))
    }

    fn attach(&self, name: &str, command: &str) -> Result<()> {
        let management = &self.management;
        println!(
            "$ cd tests/targets/tox && observer attach --name {name} --for 8s --broker worker --management {management} --cmd '{command}'"
        );
        let status = self
            .at_home(&mut self.command())
            .args(["attach", "--name", name, "--for", "8s"])
            .args(["--broker", "worker", "--management", management, "--cmd", command])
            .stdin(Stdio::null())
            .status()
            .context("cannot run observer")?;
        // The command's own: what is stopped by `--for` leaves with 0, or dies of its TERM as tox does.
        if !matches!(status.code(), Some(0 | TERMINATED)) {
            bail!("observer attach: {status}");
        }
        Ok(())
    }
}

fn heading(text: &str) {
    println!("\n== {text}\n");
}
