//! Sockets: their addresses, their calls, and what TCP's states mean for them.

use std::net::IpAddr;

use observer_ebpf as wire;

use super::{c_text, duration, errno, syscall, text};
use crate::event::{Address, Body, Disconnect, Fd, Known, SocketId};

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

/// A `sockaddr` as the program gave it.
fn sockaddr(bytes: &[u8]) -> Known<Address> {
    let Some((family, rest)) = bytes.split_first_chunk::<2>() else { return Known::unknown() };
    let family = u16::from_ne_bytes(*family);
    let port = || rest.first_chunk::<2>().map(|port| u16::from_be_bytes(*port));
    match family {
        1 => {
            let path = match rest.split_first() {
                Some((0, name)) => format!("@{}", text(name)),
                _ => c_text(rest),
            };
            Known::Is(Address::Unix { path })
        }
        2 => match (port(), rest.get(2..6).and_then(|ip| <[u8; 4]>::try_from(ip).ok())) {
            (Some(port), Some(ip)) => Known::Is(Address::Inet { ip: ip.into(), port }),
            _ => Known::unknown(),
        },
        10 => match (port(), rest.get(6..22).and_then(|ip| <[u8; 16]>::try_from(ip).ok())) {
            (Some(port), Some(ip)) => Known::Is(Address::Inet { ip: ip.into(), port }),
            _ => Known::unknown(),
        },
        number => Known::Is(Address::Other { number: number.into() }),
    }
}

pub(super) fn socket(call: &wire::SocketCall) -> Option<Body> {
    let (id, fd) = (SocketId(call.inode), Fd(call.fd));
    let address = call.address.get(..call.address_len as usize)?;
    let (local, peer) = ends(&call.ends);
    let failed = errno(call.ret);
    Some(match syscall(call.header.nr).as_str() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let mut v4 = vec![2, 0, 0x16, 0x28, 127, 0, 0, 1];
        v4.extend([0; 8]);
        assert_eq!(sockaddr(&v4), Known::Is(Address::Inet { ip: [127, 0, 0, 1].into(), port: 5672 }));
        assert_eq!(sockaddr(b"\x01\0/run/x\0junk"), Known::Is(Address::Unix { path: "/run/x".into() }));
        assert_eq!(sockaddr(b"\x01\0\0abstract"), Known::Is(Address::Unix { path: "@abstract".into() }));
        assert_eq!(sockaddr(b"\x02"), Known::unknown());
    }
}
