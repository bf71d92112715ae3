//! Addresses, directions and ends of connections. Part of the domain event.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A socket address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "family", rename_all = "kebab-case")]
pub enum Address {
    /// IPv4 or IPv6.
    Inet {
        /// The address.
        ip: std::net::IpAddr,
        /// The port.
        port: u16,
    },
    /// A Unix socket; an abstract name starts with `@`, an unnamed one is empty.
    Unix {
        /// The path.
        path: String,
    },
    /// Any other family, by its number.
    Other {
        /// `AF_*`.
        number: u32,
    },
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Inet { ip, port } => std::net::SocketAddr::new(*ip, *port).fmt(f),
            Self::Unix { path } if path.is_empty() => f.write_str("unix (unnamed)"),
            Self::Unix { path } => write!(f, "unix {path}"),
            Self::Other { number } => write!(f, "address family {number}"),
        }
    }
}

/// Which way bytes went, seen from the observed process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// It wrote them.
    Sent,
    /// It read them.
    Received,
}

/// How a TCP connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Disconnect {
    /// This side closed or shut down.
    ByUs,
    /// The other side closed.
    ByPeer,
    /// The other side reset it.
    ResetByPeer,
    /// This side reset it (closed with unread data, or lingered for none).
    ResetByUs,
    /// The kernel gave up on it (time-out, unreachable).
    Failed,
    /// Both sides are done.
    Closed,
}
