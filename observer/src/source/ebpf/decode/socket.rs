//! Sockets: their addresses, their calls, and what TCP's states mean for them.

use std::net::IpAddr;

use observer_ebpf as wire;

use super::duration;
use crate::{
    event::{Address, Body, Disconnect, Fd, Known, SocketId},
    source::call::{errno, name, sockaddr},
};

fn ip(family: u16, bytes: [u8; 16]) -> Option<IpAddr> {
    match family {
        2 => Some(IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]])),
        10 => Some(IpAddr::from(bytes)),
        _ => None,
    }
}

/// Local and peer address; an end without a port is not there yet.
fn ends(ends: &wire::Ends) -> (Known<Address>, Known<Address>) {
    let end = |bytes, port| match ip(ends.family, bytes) {
        Some(ip) if port != 0 => Known::Is(Address::Inet { ip, port }),
        Some(_) => Known::none(),
        None => Known::unknown(),
    };
    (end(ends.local, ends.local_port), end(ends.peer, ends.peer_port))
}

pub(super) fn socket(call: &wire::SocketCall) -> Option<Body> {
    let (id, fd) = (SocketId(call.inode), Fd(call.fd));
    let address = call.address.get(..call.address_len as usize)?;
    let (local, peer) = ends(&call.ends);
    let failed = errno(call.ret);
    Some(match name(call.header.nr).as_str() {
        "socket" | "socketpair" if failed != 0 => Body::SocketFailed { family: call.family, errno: failed },
        "socket" | "socketpair" => Body::Socket {
            socket: id,
            fd,
            family: call.family,
            // The low bits: SOCK_NONBLOCK and SOCK_CLOEXEC stand above.
            socket_type: call.socket_type & 0xf,
            protocol: call.protocol,
        },
        "connect" => Body::Connect {
            socket: id,
            fd,
            peer: sockaddr(address),
            local: if failed == 0 { local } else { Known::none() },
            errno: failed,
            duration_ns: duration(&call.header),
        },
        "bind" => Body::Bind { socket: id, fd, address: sockaddr(address), errno: failed },
        "listen" => Body::Listen { socket: id, fd, address: local, errno: failed },
        "accept" | "accept4" => Body::Accept { socket: id, fd, peer, local },
        "close" => Body::Close { socket: id, fd },
        _ => return None,
    })
}

/// States of `include/net/tcp_states.h`.
mod tcp {
    pub(super) const ESTABLISHED: u32 = 1;
    pub(super) const SYN_SENT: u32 = 2;
    pub(super) const FIN_WAIT1: u32 = 4;
    pub(super) const CLOSE: u32 = 7;
    pub(super) const CLOSE_WAIT: u32 = 8;
    pub(super) const LAST_ACK: u32 = 9;
}

pub(super) fn socket_state(state: &wire::SocketState) -> Option<Body> {
    const ECONNRESET: i32 = 104;
    const EPIPE: i32 = 32;
    const ECANCELED: i32 = 125;
    let socket = SocketId(state.inode);
    let (local, peer) = ends(&state.ends);
    let error = state.error as i32;
    if state.old == tcp::SYN_SENT {
        if state.new != tcp::ESTABLISHED && state.new != tcp::CLOSE {
            return None;
        }
        // Closed by its own process before anybody answered: that leaves no error, and yet it was not established.
        let errno = match (state.new, error) {
            (tcp::ESTABLISHED, _) => 0,
            (_, 0) => ECANCELED,
            (_, error) => error,
        };
        return Some(Body::Connected { socket, peer, local, errno, duration_ns: duration(&state.header) });
    }
    let how = match (state.old, state.new, error) {
        (_, tcp::FIN_WAIT1, _) => Disconnect::ByUs,
        (_, tcp::CLOSE_WAIT, _) => Disconnect::ByPeer,
        (_, tcp::LAST_ACK, _) => Disconnect::Closed,
        (_, tcp::CLOSE, ECONNRESET | EPIPE) => Disconnect::ResetByPeer,
        (_, tcp::CLOSE, 0) => Disconnect::ResetByUs,
        (_, tcp::CLOSE, _) => Disconnect::Failed,
        _ => return None,
    };
    Some(Body::Disconnect { socket, how, errno: error, peer, local })
}
