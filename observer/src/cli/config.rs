//! stub
use super::{Context, ExitStatus};
/// stub
#[derive(Clone, Debug, clap::Args)]
pub struct Args {}
/// stub
pub fn run(_: &Args, _: &Context) -> anyhow::Result<ExitStatus> { Ok(ExitStatus::SUCCESS) }
