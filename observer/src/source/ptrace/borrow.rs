//! A socket of the target, for a moment ours too (`pidfd_getfd`): only the kernel knows its ends and its state. Nothing is done to it
//! that its owner could notice.
#![expect(unsafe_code, reason = "pidfd_open, pidfd_getfd and TCP_INFO have no safe wrapper")]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::{
    libc,
    sys::socket::{
        AddressFamily, GetSockOpt, SockType, SockaddrLike, SockaddrStorage, getpeername, getsockname, sockopt,
    },
};

use crate::event::{Address, Known};

/// States of TCP (include/net/tcp_states.h).
pub(super) mod tcp {
    pub(in crate::source::ptrace) const ESTABLISHED: u8 = 1;
    pub(in crate::source::ptrace) const SYN_SENT: u8 = 2;
    pub(in crate::source::ptrace) const CLOSE: u8 = 7;
    pub(in crate::source::ptrace) const CLOSE_WAIT: u8 = 8;
}

/// See the module. Closed again when dropped.
pub(super) struct Borrowed(OwnedFd);

/// Both ends of an internet socket; an end without a port is not there yet.
pub(super) type Ends = (Known<Address>, Known<Address>);

fn owned(number: libc::c_long) -> Option<OwnedFd> {
    // SAFETY: the kernel has just given us this descriptor, and nobody else knows of it.
    (number >= 0).then(|| unsafe { OwnedFd::from_raw_fd(number as i32) })
}

impl Borrowed {
    /// `None` when the process or the descriptor is gone, or the kernel is older than 5.6.
    pub(super) fn of(pid: u32, fd: i32) -> Option<Self> {
        // SAFETY: both calls take numbers only.
        let process = owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) })?;
        // SAFETY: as above.
        owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), fd, 0) }).map(Self)
    }

    /// Local and peer address.
    pub(super) fn ends(&self) -> Ends {
        let fd = self.0.as_raw_fd();
        let local = getsockname::<SockaddrStorage>(fd).ok();
        let internet = local
            .as_ref()
            .and_then(SockaddrStorage::family)
            .is_some_and(|family| matches!(family, AddressFamily::Inet | AddressFamily::Inet6));
        if !internet {
            return (Known::unknown(), Known::unknown());
        }
        (end(local), end(getpeername::<SockaddrStorage>(fd).ok()))
    }

    /// Its inode number; 0 when it cannot be had.
    pub(super) fn inode(&self) -> u64 {
        nix::sys::stat::fstat(&self.0).map_or(0, |facts| facts.st_ino)
    }

    /// Whether it is a TCP socket.
    pub(super) fn is_tcp(&self) -> bool {
        let stream = sockopt::SockType.get(&self.0).is_ok_and(|found| found == SockType::Stream);
        stream && self.state().is_some()
    }

    /// Its state; `None` when it is no TCP socket.
    pub(super) fn state(&self) -> Option<u8> {
        // `tcpi_state` comes first (include/uapi/linux/tcp.h).
        self.info().map(|info| info[0])
    }

    /// Whether the other side's reset ended it. What ends a connection otherwise, while its process does nothing, is that nobody answers
    /// what is sent again (`tcpi_retransmits`) or asked (`tcpi_probes`). To ask for the error would take it from its process.
    pub(super) fn was_reset(&self) -> bool {
        self.info().is_some_and(|[state, _, retransmits, probes, ..]| {
            state == tcp::CLOSE && retransmits == 0 && probes == 0
        })
    }

    fn info(&self) -> Option<[u8; 8]> {
        let mut info = [0_u8; 8];
        let mut len = size_of_val(&info) as libc::socklen_t;
        // SAFETY: both pointers are to locals, and the length is theirs.
        let answer = unsafe {
            let (at, len) = (info.as_mut_ptr().cast(), &raw mut len);
            libc::getsockopt(self.0.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, at, len)
        };
        (answer == 0).then_some(info)
    }

    /// Bytes that came and were not read.
    pub(super) fn unread(&self) -> i32 {
        let mut count = 0;
        // SAFETY: the pointer is to a local of the type FIONREAD fills.
        let answer = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::FIONREAD, &raw mut count) };
        if answer == 0 { count } else { 0 }
    }

    /// Its error. To ask for it takes it away: only for a socket that its last owner is closing.
    pub(super) fn take_error(&self) -> i32 {
        sockopt::SocketError.get(&self.0).unwrap_or(0)
    }
}

fn end(address: Option<SockaddrStorage>) -> Known<Address> {
    let Some(address) = address else { return Known::none() };
    let (ip, port) = if let Some(v4) = address.as_sockaddr_in() {
        (v4.ip().into(), v4.port())
    } else if let Some(v6) = address.as_sockaddr_in6() {
        (v6.ip().into(), v6.port())
    } else {
        return Known::unknown();
    };
    if port == 0 { Known::none() } else { Known::Is(Address::Inet { ip, port }) }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[test]
    fn the_ends_and_the_state_of_a_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let address = |end: std::net::SocketAddr| Known::Is(Address::Inet { ip: end.ip(), port: end.port() });
        let ours = Borrowed::of(std::process::id(), client.as_raw_fd()).unwrap();
        let (local, peer) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        assert_eq!(ours.ends(), (address(local), address(peer)));
        assert!(ours.is_tcp());
        assert_eq!((ours.state(), ours.unread()), (Some(tcp::ESTABLISHED), 0));
        server.write_all(b"AMQP").unwrap();
        drop(server);
        // On the loopback all of it has arrived when the call returns.
        assert_eq!((ours.state(), ours.unread()), (Some(tcp::CLOSE_WAIT), 4));
        let listening = Borrowed::of(std::process::id(), listener.as_raw_fd()).unwrap();
        assert_eq!(listening.ends(), (address(peer), Known::none()));
        // One that is closed with bytes unread is reset (RFC 2525, 2.17).
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        client.write_all(b"AMQP").unwrap();
        let ours = Borrowed::of(std::process::id(), client.as_raw_fd()).unwrap();
        assert!(!ours.was_reset());
        drop(server);
        assert!(ours.was_reset());
        let (left, _right) = std::os::unix::net::UnixStream::pair().unwrap();
        let unix = Borrowed::of(std::process::id(), left.as_raw_fd()).unwrap();
        assert!(!unix.is_tcp());
        assert_eq!(unix.ends(), (Known::unknown(), Known::unknown()));
    }
}
