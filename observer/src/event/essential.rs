//! Which events a flight recorder keeps longer than others, and what it says of those it let go. Knows kinds, and nothing of rings.

use super::Body;

/// [`Body::Lost`]'s `what` at [`Hop::Evicted`]: events of ordinary kinds.
pub const EVICTED: &str = "flight-recorder";
/// The same: events of the kinds that the ring keeps longer ([`Body::is_essential`]).
pub const EVICTED_ESSENTIAL: &str = "flight-recorder-essentials";
/// So much of a stream's beginning is essential.
const STREAM_BEGINNING_BYTES: u64 = 8 << 10;

impl Body {
    /// Whether the flight recorder keeps it for its own sake when what was around it makes room: what came of processes and connections
    /// cannot be understood without it. Of a stream, its beginning: who shakes hands, declares and consumes does it there.
    pub const fn is_essential(&self) -> bool {
        match self {
            Self::Exec(_)
            | Self::ExecFailed { .. }
            | Self::Fork { .. }
            | Self::ExitCall { .. }
            | Self::Exit { .. }
            | Self::Signal { .. }
            | Self::OomVictim
            | Self::Interpreter(_)
            | Self::Socket { .. }
            | Self::SocketFailed { .. }
            | Self::Connect { .. }
            | Self::Connected { .. }
            | Self::Accept { .. }
            | Self::Disconnect { .. }
            | Self::Lookup { .. }
            | Self::Gap { .. }
            | Self::Lost { .. }
            | Self::Note { .. } => true,
            Self::Data { offset, .. } => *offset < STREAM_BEGINNING_BYTES,
            _ => false,
        }
    }
}
