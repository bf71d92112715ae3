//! One connection as TCP packets: its ends, its sequence numbers, how it began and ended. Knows what was recorded of it; nothing of files.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::{
    cutter::{Cutter, Piece},
    packet::{ACK, FIN, PSH, RST, SYN, Segment},
};
use crate::{
    event::{Address, Direction, Disconnect, Known},
    model::link::Link,
    words::units,
};

/// AMQP's port (IANA), where the real one is not known.
const AMQP_PORT: u16 = 5672;
/// The first of the ports that clients get (RFC 6335), where the real one is not known.
const FIRST_CLIENT_PORT: u16 = 49_152;

/// A packet to be written, and what is to be said of it.
pub(super) type Each<'a> = dyn FnMut(Segment<'_>, Option<String>) + 'a;

/// One connection.
#[derive(Debug)]
pub(super) struct Flow {
    local: SocketAddr,
    peer: SocketAddr,
    /// Whether the observed process is the server.
    accepted: bool,
    /// What cannot be told by the addresses.
    remark: Option<String>,
    sent: Cutter,
    received: Cutter,
    /// How it ended, when that was seen, and when.
    pub(super) end: Option<(Disconnect, u64, u64)>,
    /// Whether its process closed it.
    pub(super) closed: bool,
    /// When the last chunk of it was read or written.
    pub(super) last_ns: u64,
}

impl Flow {
    /// A connection of which nothing was written yet.
    pub(super) fn new(link: &Link) -> Self {
        let (peer, local) = (inet(&link.peer), inet(&link.local));
        let number = u16::try_from(link.id.0 % 16_000).unwrap_or(0);
        let (local_port, peer_port) = if link.accepted {
            (AMQP_PORT, FIRST_CLIENT_PORT + number)
        } else {
            (FIRST_CLIENT_PORT + number, AMQP_PORT)
        };
        let like = |other: Option<SocketAddr>| match other {
            Some(SocketAddr::V6(_)) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
            _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        };
        let mut remarks = Vec::new();
        if peer.is_none() {
            let is = link.peer.get().map_or_else(|| "not known".to_owned(), Address::to_string);
            remarks.push(format!("the other end is {is}: its address and port here are made up"));
        }
        if local.is_none() {
            remarks.push("this end's address was not seen: what stands here is made up".to_owned());
        }
        if link.since_attach {
            remarks.push(
                "the connection was open before the recording: sequence numbers count from there".to_owned(),
            );
        }
        Self {
            local: local.unwrap_or_else(|| SocketAddr::new(like(peer), local_port)),
            peer: peer.unwrap_or_else(|| SocketAddr::new(like(local), peer_port)),
            accepted: link.accepted,
            remark: (!remarks.is_empty()).then(|| remarks.join("\n")),
            sent: Cutter::default(),
            received: Cutter::default(),
            end: None,
            closed: false,
            last_ns: 0,
        }
    }

    /// The server's port.
    pub(super) const fn port(&self) -> u16 {
        if self.accepted { self.local.port() } else { self.peer.port() }
    }

    /// That it was made: the three packets of TCP's handshake.
    pub(super) fn make(&mut self, each: &mut Each<'_>) {
        let (client, server) = if self.accepted { (self.peer, self.local) } else { (self.local, self.peer) };
        let segment = |from, to, seq, ack, flags| Segment { from, to, seq, ack, flags, payload: &[] };
        let said = "the connection was made; this packet was not seen but put here";
        let remark = self.remark.take().map_or_else(|| said.to_owned(), |remark| format!("{said}\n{remark}"));
        each(segment(client, server, 0, 0, SYN), Some(remark));
        each(segment(server, client, 0, 1, SYN | ACK), None);
        each(segment(client, server, 1, 1, ACK), None);
    }

    /// Takes one recorded chunk.
    pub(super) fn feed(
        &mut self,
        direction: Direction,
        offset: u64,
        captured: &[u8],
        len: u64,
        each: &mut Each<'_>,
    ) {
        let Self { sent, received, local, peer, remark, .. } = self;
        let (cutter, other, from, to) = match direction {
            Direction::Sent => (&mut *sent, &mut *received, *local, *peer),
            Direction::Received => (&mut *received, &mut *sent, *peer, *local),
        };
        let mut pieces = pieces(cutter.done(), other.done(), from, to, remark, each);
        let frame_max = cutter.feed(offset, captured, len, &mut pieces);
        if let Some(frame_max) = frame_max {
            cutter.set_frame_max(frame_max);
            other.set_frame_max(frame_max);
        }
    }

    /// Ends it: what is incomplete, and how it ended.
    pub(super) fn finish(&mut self, each: &mut Each<'_>) {
        let Self { sent, received, local, peer, remark, .. } = self;
        sent.finish(&mut pieces(sent.done(), received.done(), *local, *peer, remark, each));
        received.finish(&mut pieces(received.done(), sent.done(), *peer, *local, remark, each));
        let Some((how, _, event)) = self.end else { return };
        let (by_us, flags, words) = match how {
            Disconnect::ByUs | Disconnect::Closed => (true, FIN | ACK, "closed by this side"),
            Disconnect::ByPeer => (false, FIN | ACK, "closed by the other side"),
            Disconnect::ResetByPeer => (false, RST | ACK, "reset by the other side"),
            Disconnect::ResetByUs => (true, RST | ACK, "reset by this side"),
            // Nobody sent anything.
            Disconnect::Failed => return,
        };
        let (from, to, done, acked) = if by_us {
            (*local, *peer, sent.done(), received.done())
        } else {
            (*peer, *local, received.done(), sent.done())
        };
        let segment = Segment { from, to, seq: number(done), ack: number(acked), flags, payload: &[] };
        each(segment, Some(format!("{words} (event {event}); this packet was not seen but put here")));
    }
}

/// Makes packets of the pieces of one direction, which stands at `done`.
fn pieces(
    mut done: u64,
    acked: u64,
    from: SocketAddr,
    to: SocketAddr,
    remark: &mut Option<String>,
    each: &mut Each<'_>,
) -> impl FnMut(Piece<'_>) {
    move |piece| {
        let ack = number(acked);
        let remark = remark.take();
        match piece {
            Piece::Bytes(payload) => {
                let segment = Segment { from, to, seq: number(done), ack, flags: PSH | ACK, payload };
                each(segment, remark);
                done += payload.len() as u64;
            }
            Piece::Gap(len) => {
                done += len;
                let gap = format!(
                    "{} of this direction were not recorded, or cannot be placed, before this point",
                    units::counted(len, "byte")
                );
                let said = remark.map_or_else(|| gap.clone(), |remark| format!("{gap}\n{remark}"));
                let segment = Segment { from, to, seq: number(done), ack, flags: ACK, payload: &[] };
                each(segment, Some(said));
            }
        }
    }
}

/// The sequence number of an offset: the first byte has number 1, after the handshake's 0. They wrap around.
const fn number(offset: u64) -> u32 {
    offset.wrapping_add(1) as u32
}

fn inet(address: &Known<Address>) -> Option<SocketAddr> {
    match address.get() {
        Some(Address::Inet { ip, port }) => Some(SocketAddr::new(*ip, *port)),
        _ => None,
    }
}
