//! `cargo xtask demo`: one command from a fresh Debian machine to a worker that is observed, and one that fails. It decides nothing
//! about either: every word on the worker is the observer's.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use tests::rabbit::{self, Broker};
use tests::target;
use tests::venv::Venv;

use crate::machine;
use crate::run::run;

const WORKER: &str = "python -m dramatiq -p 1 -t 2 minimal_worker";

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
    let venv = Venv::ensure()?;
    let observer = machine::observer()?;
    eprintln!("start a private RabbitMQ on a free port of 127.0.0.1");
    let broker = Broker::start(&[])?;
    let demo = Demo { observer: &observer, venv: &venv, state_dir: args.state_dir.as_deref() };

    eprintln!("send three messages");
    run(Command::new(venv.python())
        .args(["send.py", "minimal_worker:count_words", "3", "to be or not to be"])
        .current_dir(target::folder())
        .env("BROKER_URL", broker.url()))?;

    heading("A worker that works");
    demo.attach("demo-working", "10s", &broker.url())?;

    heading("The same worker, with a broker URL that is wrong by its port");
    let nobody = TcpListener::bind("127.0.0.1:0").context("cannot bind on 127.0.0.1")?.local_addr()?;
    demo.attach("demo-failing", "10s", &format!("amqp://guest:guest@{nobody}"))?;

    heading("What was recorded");
    run(demo.command().arg("ls"))?;

    heading("Next");
    let state = args.state_dir.as_ref().map(|dir| format!(" --state-dir {dir}")).unwrap_or_default();
    let observer = observer.display();
    println!("    {observer} show demo-failing{state}");
    println!(
        "    {observer} attach{state} --cmd 'python -m dramatiq YOUR_MODULE'     # in your project's folder"
    );
    println!("    {observer} --help");
    Ok(())
}

struct Demo<'a> {
    observer: &'a Path,
    venv: &'a Venv,
    state_dir: Option<&'a str>,
}

impl Demo<'_> {
    fn command(&self) -> Command {
        let mut command = Command::new(self.observer);
        if let Some(dir) = self.state_dir {
            command.args(["--state-dir", dir]);
        }
        command
    }

    fn attach(&self, name: &str, span: &str, url: &str) -> Result<()> {
        println!("$ cd tests/targets && observer attach --name {name} --for {span} --cmd '{WORKER}'");
        let mut command = self.command();
        command
            .args(["attach", "--name", name, "--for", span, "--cmd", WORKER])
            .current_dir(target::folder())
            .env("PATH", self.venv.path())
            .env("BROKER_URL", url);
        // Either worker is stopped by `--for`, and dramatiq leaves with 0 when it is.
        run(&mut command)
    }
}

fn heading(text: &str) {
    println!("\n== {text}\n");
}
