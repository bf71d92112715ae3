//! What `--broker` asks for. It decides which broker is asked; how is the source's business.

use anyhow::Context as _;

use super::Args;
use crate::source::broker::{BrokerConfig, BrokerSource, BrokerUrl, ManagementUrl, from_worker::FromWorker};

/// Whom to ask for the broker's own account.
pub(super) enum Asked {
    Nobody,
    /// The one the worker logs in to.
    Workers,
    This(BrokerUrl),
}

impl Asked {
    pub(super) fn from_args(args: &Args) -> anyhow::Result<Self> {
        let asked = match args.broker.as_deref() {
            None | Some("") => Self::Nobody,
            Some("worker") => Self::Workers,
            // The error never quotes what was given: part of it may be a password.
            Some(url) => Self::This(BrokerUrl::parse(url).context("--broker")?),
        };
        if let Some(management) = &args.management {
            let broker = match &asked {
                Self::This(url) => url.clone(),
                _ => BrokerUrl::from_parts("", 0, "", "", ""),
            };
            ManagementUrl::parse(management, &broker).context("--management")?;
        }
        Ok(asked)
    }

    /// Ports whose connections are recorded even if they do not speak AMQP.
    pub(super) fn ports(&self) -> Vec<u16> {
        match self {
            Self::This(url) => vec![url.port()],
            Self::Nobody | Self::Workers => Vec::new(),
        }
    }

    /// The source, and what looks at what the worker says to its broker.
    pub(super) fn source(self, args: &Args) -> Option<(BrokerSource, FromWorker)> {
        let (url, workers) = match self {
            Self::Nobody => return None,
            Self::Workers => (None, true),
            Self::This(url) => (Some(url), false),
        };
        let (management, firehose) = (args.management.clone(), args.firehose);
        let config = BrokerConfig { url, management, firehose, ..BrokerConfig::default() };
        let (source, handle) = BrokerSource::new(config);
        Some((source, FromWorker::new(handle, workers)))
    }
}
