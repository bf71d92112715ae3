//! `observer daemon`: the service. It says where; what is done there is the daemon's.

use super::{Context, ExitStatus, config::Given, service};
use crate::daemon::{self, Place, config, journal};

/// Watch for workers all the time, keep what goes wrong, and record for users who have no right of their own. Runs under systemd.
///
/// The rules in /etc/observer/config.toml say which commands are recorded (without one: `python -m dramatiq` and `dramatiq`, of every user).
/// They are matched in the kernel when a program is executed, so nothing a worker does is missed. While all is well only the beginning and
/// the latest past of a worker are kept; when it dies, stalls, or does not get to consume, that becomes a session of its owner, with its
/// verdict, and the journal says so. `observer config` prints what is set, `observer status` how it goes.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  systemctl enable --now observer\n  observer status\n  journalctl -u observer\n  systemctl reload observer       after a change of /etc/observer/config.toml\n\nSignals: HUP reads the settings anew, TERM and INT end it; what is being recorded is gone on with at the next start."
)]
pub struct Args {
    /// What is set, and where it is read from.
    #[command(flatten)]
    pub given: Given,
}

/// Where sessions are kept when nothing else is said.
const STATE: &str = "/var/lib/observer";

/// Runs the service until it is told to end.
///
/// # Errors
/// When it cannot start, or what it rests on fails.
pub fn run(args: &Args, context: &Context) -> anyhow::Result<ExitStatus> {
    let sources = args.given.sources();
    let load = || Ok(config::load(&sources)?.settings);
    let base = context.state_dir.clone().unwrap_or_else(|| STATE.into());
    let place = Place { base, socket: service::socket() };
    let journal = journal::init(if context.verbose > 0 {
        "warn,lapin=off,observer=debug"
    } else {
        "warn,lapin=off,observer=info"
    })?;
    daemon::run(&place, load()?, &load, journal)?;
    Ok(ExitStatus::SUCCESS)
}
