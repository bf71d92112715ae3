//! `observer pin`: asks the service never to remove a session to make room. Knows the service and the names of sessions.

use super::{Context, ExitStatus, print, printable, service::Service};
use crate::daemon::protocol::Request;

/// Keep a session of the service for good, whatever has to go to make room; with --off, let it go with the others again.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:\n  observer pin minimal_worker\n  observer pin --off minimal_worker")]
pub struct Args {
    /// The session: its name, its id or the beginning of one, or `@`
    #[arg(value_name = "SESSION")]
    pub session: String,
    /// It may be removed again
    #[arg(long)]
    pub off: bool,
}

/// Pins, and says so.
///
/// # Errors
/// When there is no such session, the service does not run, or it is none of the service's.
pub fn run(args: &Args, context: &Context) -> anyhow::Result<ExitStatus> {
    let session = context.open_state_dir()?.find_listed(&args.session)?;
    Service::connect()?.ask(&Request::Pin { id: session.id.clone(), on: !args.off })?;
    let what = if args.off { "no longer pinned" } else { "pinned" };
    print(&format!("{what}: {} ({})\n", printable(session.name()), printable(&session.id)))?;
    Ok(ExitStatus::SUCCESS)
}
