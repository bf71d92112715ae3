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
    let broker = Broker::start(&["rabbitmq_management", "rabbitmq_event_exchange"])?;
    let management = broker.management_port();
    let demo = Demo {
        observer: &observer,
        venv: &venv,
        state_dir: args.state_dir.as_deref(),
        management: format!("http://127.0.0.1:{management}"),
    };
    // Of an earlier demo, if there was one: what it answers when there was none is of no interest.
    let _ = demo.command().args(["rm", WORKING, FAILING]).output();

    eprintln!("send three messages");
    run(Command::new(venv.python())
        .args(["send.py", "minimal_worker:count_words", "3", "to be or not to be"])
        .current_dir(target::folder())
        .env("BROKER_URL", broker.url()))?;

    heading("A worker that works");
    demo.attach(WORKING, "10s", &broker.url())?;

    heading("What it did: processes, imports by file, connections, exits");
    demo.show(&["show", WORKING, "--summary"])?;

    heading("What became of each message, and who consumes what");
    demo.show(&["show", WORKING, "--messages"])?;
    demo.show(&["show", WORKING, "--queues"])?;

    heading("The same worker, with a broker URL that is wrong by its port");
    let nobody = TcpListener::bind("127.0.0.1:0").context("cannot bind on 127.0.0.1")?.local_addr()?;
    demo.attach(FAILING, "10s", &format!("amqp://guest:guest@{nobody}"))?;

    heading("What differs between the two, the likeliest cause first");
    demo.show(&["diff", WORKING, FAILING])?;

    heading("What was recorded");
    demo.show(&["ls"])?;

    heading("Next");
    let state = args.state_dir.as_ref().map(|dir| format!(" --state-dir {dir}")).unwrap_or_default();
    let observer = observer.display();
    println!("    {observer} show {FAILING}{state}            # its timeline");
    println!("    {observer} show {WORKING} --amqp{state}     # what it said to the broker");
    println!(
        "    {observer} attach{state} --cmd 'python -m dramatiq YOUR_MODULE'     # in your project's folder"
    );
    println!("    {observer} --help");
    Ok(())
}

const WORKING: &str = "demo-working";
const FAILING: &str = "demo-failing";

struct Demo<'a> {
    observer: &'a Path,
    venv: &'a Venv,
    state_dir: Option<&'a str>,
    /// The management API's address.
    management: String,
}

impl Demo<'_> {
    fn command(&self) -> Command {
        let mut command = Command::new(self.observer);
        if let Some(dir) = self.state_dir {
            command.args(["--state-dir", dir]);
        }
        command
    }

    fn show(&self, words: &[&str]) -> Result<()> {
        println!("\n$ observer {}", words.join(" "));
        run(self.command().args(words))
    }

    fn attach(&self, name: &str, span: &str, url: &str) -> Result<()> {
        let management = &self.management;
        println!(
            "$ cd tests/targets && observer attach --name {name} --for {span} --broker worker --management {management} --cmd '{WORKER}'"
        );
        let mut command = self.command();
        command
            .args(["attach", "--name", name, "--for", span])
            .args(["--broker", "worker", "--management", management, "--cmd", WORKER])
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
