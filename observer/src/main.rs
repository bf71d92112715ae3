//! Parse, dispatch, exit status; nothing else.
#![no_main]
#![expect(
    unsafe_code,
    reason = "an unmangled main is what keeps Rust's runtime from ignoring SIGPIPE before we can see it"
)]

use std::{
    ffi::c_int,
    fs::File,
    io::{IsTerminal, Write},
    os::fd::AsRawFd,
    path::PathBuf,
};

use anstream::ColorChoice;
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::CompleteEnv;
use nix::sys::signal::{SigSet, Signal};
use observer::cli::{
    Context, ExitStatus, Format, attach, bisect, config, daemon, diff, doctor, explain, export, ls, manual,
    pin, printable_lines, rm, send, show, status,
};

/// Says from outside why a dramatiq worker does not consume its messages.
///
/// observer watches a process tree from the kernel: programs started with their whole environment, files looked for and opened,
/// connections, AMQP traffic, output, signals and silent exits. Nothing is changed in what is observed.
#[derive(Parser)]
#[command(
    version,
    propagate_version = true,
    after_help = "Start here:\n  sudo observer attach --cmd \"python -m dramatiq minimal_worker\"\n  observer explain @\n  observer show @\n\nTab completion: source <(COMPLETE=bash observer)   (also zsh, fish)"
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
    /// Where sessions are kept [default: $XDG_STATE_HOME/observer, else ~/.local/state/observer]
    #[arg(long, global = true, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// How to print facts
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    format: String,
    /// When to use colours
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", value_parser = ["auto", "always", "never"])]
    color: String,
    /// Say more of what observer itself does (-vv: everything)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Subcommand)]
enum Verb {
    Attach(attach::Args),
    Ls(ls::Args),
    Show(show::Args),
    Explain(explain::Args),
    Diff(diff::Args),
    Bisect(bisect::Args),
    Export(export::Args),
    Rm(rm::Args),
    Send(send::Args),
    Doctor(doctor::Args),
    Daemon(daemon::Args),
    Status(status::Args),
    Config(config::Args),
    Pin(pin::Args),
    #[command(hide = true)]
    Manual(manual::Args),
}

/// The C entry point. Rust's own would ignore SIGPIPE and open what is closed of descriptors 0 to 2, and the command we start would
/// inherit both.
#[unsafe(no_mangle)]
extern "C" fn main(_argc: c_int, _argv: *const *const u8) -> c_int {
    occupy_standard_descriptors();
    CompleteEnv::with_factory(Cli::command).complete();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            // Whatever else `attach` exits with is taken for its command's status.
            let asked = Cli::command().ignore_errors(true).try_get_matches();
            let attaching = asked.is_ok_and(|asked| asked.subcommand_name() == Some("attach"));
            return if attaching && error.use_stderr() { 125 } else { error.exit_code() };
        }
    };
    // What lapin complains of is told by the broker's source, as events.
    let levels = ["warn,lapin=off", "observer=info", "observer=debug"];
    let level = levels[usize::from(cli.verbose).min(levels.len() - 1)];
    // The service writes to the journal, when it is there.
    if !matches!(cli.verb, Verb::Daemon(_)) {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::new(level))
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .init();
    }
    let choice = match cli.color.as_str() {
        "always" => ColorChoice::AlwaysAnsi,
        "never" => ColorChoice::Never,
        // Left to itself `Auto` trusts a CI's terminal whatever it says of itself.
        _ if std::env::var_os("TERM").is_some_and(|term| term == "dumb") => ColorChoice::Never,
        _ => ColorChoice::Auto,
    };
    let color = match choice {
        // Asks NO_COLOR, CLICOLOR and TERM as well as the terminal.
        ColorChoice::Auto => anstream::AutoStream::choice(&std::io::stdout()) != ColorChoice::Never,
        choice => choice != ColorChoice::Never,
    };
    // `export` has formats of its own, by the same option.
    let format = if cli.format == "json" { Format::Json } else { Format::Text };
    let (state_dir, verbose) = (cli.state_dir, cli.verbose);
    let context = Context { state_dir, format, color, verbose, choice };
    let attaching = matches!(cli.verb, Verb::Attach(_));
    if !attaching {
        // A reader that has seen enough is then an error we know how to take. `attach` blocks it when its command cannot inherit that.
        let _ = SigSet::from(Signal::SIGPIPE).thread_block();
    }
    let result = match &cli.verb {
        Verb::Attach(args) => attach::run(args, &context),
        Verb::Ls(args) => ls::run(args, &context),
        Verb::Show(args) => show::run(args, &context),
        Verb::Explain(args) => explain::run(args, &context),
        Verb::Diff(args) => diff::run(args, &context),
        Verb::Bisect(args) => bisect::run(args, &context),
        Verb::Export(args) => export::run(args, &context),
        Verb::Rm(args) => rm::run(args, &context),
        Verb::Send(args) => send::run(args, &context),
        Verb::Doctor(args) => doctor::run(args, &context),
        Verb::Daemon(args) => daemon::run(args, &context),
        Verb::Status(args) => status::run(args, &context),
        Verb::Config(args) => config::run(args, &context),
        Verb::Pin(args) => pin::run(args, &context),
        Verb::Manual(args) => manual::run(args, Cli::command()),
    };
    let status = result.unwrap_or_else(|error| {
        let _ = writeln!(std::io::stderr(), "observer: {}", printable_lines(&format!("{error:#}")));
        ExitStatus(if attaching { 125 } else { 1 })
    });
    c_int::from(status.0)
}

/// What is closed of descriptors 0 to 2 must not become a file of ours: messages would be written into it. All are closed again for the
/// command, as `File` opens with `O_CLOEXEC`.
fn occupy_standard_descriptors() {
    while let Ok(null) = File::options().read(true).write(true).open("/dev/null")
        && null.as_raw_fd() <= 2
    {
        std::mem::forget(null);
    }
}
