//! `observer export --format otlp`: a session to a receiver of OTLP. Knows the options and the environment; what is sent is `export`'s, and
//! how it travels is `send`'s.

mod answer;
mod endpoint;
mod retry;
mod send;

use std::time::Duration;

use anyhow::bail;

use self::{
    endpoint::{Endpoint, Protocol},
    send::Sender,
};
use crate::{
    cli::{ExitStatus, print, progress},
    export::{
        Progress,
        otlp::{self, Told},
    },
    session::Session,
    words::{escape::escape, units},
};

/// Where to send a session, and how.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub struct Args {
    /// With otlp: the receiver [default: $OTEL_EXPORTER_OTLP_ENDPOINT, else http://localhost:4317]
    #[arg(long, value_name = "URL", conflicts_with = "schema")]
    pub endpoint: Option<String>,
    /// With otlp: how it is spoken to [default: $OTEL_EXPORTER_OTLP_PROTOCOL, else http/protobuf at port 4318, else grpc]
    #[arg(long, value_name = "PROTOCOL", value_parser = Protocol::NAMES, conflicts_with = "schema")]
    pub protocol: Option<String>,
    /// With otlp: how long all of it may take [default: 10m]
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration_ns, conflicts_with = "schema")]
    pub time_limit: Option<u64>,
}

const TIME_LIMIT: Duration = Duration::from_secs(600);

impl Args {
    /// The first of these options that was given.
    pub(super) const fn given(&self) -> Option<&'static str> {
        match self {
            Self { endpoint: Some(_), .. } => Some("--endpoint"),
            Self { protocol: Some(_), .. } => Some("--protocol"),
            Self { time_limit: Some(_), .. } => Some("--time-limit"),
            _ => None,
        }
    }
}

/// Sends a session, and prints what was sent.
///
/// # Errors
/// When it is not known where to, when the session cannot be read, when the receiver cannot be reached or does not take it.
pub(super) fn run(args: &Args, session: &Session) -> anyhow::Result<ExitStatus> {
    let variable = |name: &str| std::env::var(name).ok();
    let endpoint = Endpoint::new(args.endpoint.as_deref(), args.protocol.as_deref(), variable)?;
    let time_limit = args.time_limit.map_or(TIME_LIMIT, Duration::from_nanos);
    if time_limit.is_zero() {
        bail!("nothing can be sent within --time-limit 0; name a longer one, such as 10m");
    }
    let mut sender = Sender::new(endpoint, time_limit)?;
    let progress = Progress::default();
    let told = progress::while_counted("sending", session.newest_id(), progress.counter(), || {
        otlp::write(session, &progress, &mut |batch| sender.send(batch))
    })?;
    print(&summary(session, &told, &sender))?;
    for warning in &sender.warnings {
        tracing::warn!("{} {warning}", sender.endpoint());
    }
    if sender.rejected > 0 {
        let rejected = units::counted(sender.rejected, "span or log record");
        tracing::warn!("{} did not take {rejected}", sender.endpoint());
        return Ok(ExitStatus::FAILURE);
    }
    Ok(ExitStatus::SUCCESS)
}

fn summary(session: &Session, told: &Told, sender: &Sender) -> String {
    let Told { spans, logs, messages, processes, imports, findings } = *told;
    let counted = units::counted;
    format!(
        "sent {} to {}: {} ({}, {}, {}), {} ({})\n",
        escape(&session.header().name),
        sender.endpoint(),
        counted(spans, "span"),
        counted(messages, "message"),
        counted(processes, "process"),
        counted(imports, "import"),
        counted(logs, "log record"),
        counted(findings, "finding"),
    )
}

#[cfg(test)]
mod tests {
    use clap::Args as _;

    #[test]
    fn the_options_of_an_export_fit_together() {
        crate::cli::export::Args::augment_args(clap::Command::new("export")).debug_assert();
    }
}
