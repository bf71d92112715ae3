//! Sockets from `socket` to `close`. What TCP makes of them between two calls no tracer sees: it is looked at when the target itself
//! learns of it.

use std::{collections::HashMap, fs, os::unix::fs::MetadataExt};

use super::{
    borrow::{Borrowed, Ends, tcp},
    calls::{Call, Recorder},
    memory,
};
use crate::{
    event::{Address, Body, Disconnect, Fd, Known, SocketId},
    source::{
        call::{errno, sockaddr},
        proc,
    },
};

/// Sockets remembered. Beyond that the ones that were closed last are not forgotten; new ones are not remembered.
const MOST: usize = 16_384;
/// The largest `sockaddr` there is is `sockaddr_un`'s.
const SOCKADDR_MAX: u64 = 112;
const ECONNREFUSED: i32 = 111;
const ETIMEDOUT: i32 = 110;
const ECONNRESET: i32 = 104;
const EHOSTUNREACH: i32 = 113;
const EISCONN: i32 = 106;
const ECANCELED: i32 = 125;

/// How far a TCP connection has come, as far as its process knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    #[default]
    New,
    Connecting,
    Open,
    /// The other side is done.
    HalfClosed,
    Over,
}

/// What is remembered of a socket.
#[derive(Debug, Default)]
pub(super) struct Socket {
    pub(super) sent: u64,
    pub(super) received: u64,
    /// Its bytes are recorded.
    pub(super) stream: bool,
    pub(super) since_attach: bool,
    /// Its first bytes were looked at.
    pub(super) looked: bool,
    pub(super) tcp: bool,
    pub(super) phase: Phase,
    /// The process that made it or took it, and its descriptor there when it was used last.
    pub(super) pid: u32,
    pub(super) fd: i32,
    connect_ns: u64,
    /// Where it was to be connected to: the kernel forgets that when it fails.
    asked: Option<Known<Address>>,
    ends: Option<Ends>,
}

/// By inode.
pub(super) type Sockets = HashMap<u64, Socket>;

/// Where a descriptor leads: the kind bits of its mode, and its inode. `None` when it is closed.
pub(super) fn facts(tid: u32, fd: i32) -> Option<(u32, u64)> {
    let facts = fs::metadata(format!("/proc/{tid}/fd/{fd}")).ok()?;
    Some((facts.mode() & nix::libc::S_IFMT, facts.ino()))
}

/// The inode, when it is a socket.
fn inode(tid: u32, fd: i32) -> Option<u64> {
    facts(tid, fd).filter(|(kind, _)| *kind == nix::libc::S_IFSOCK).map(|(_, inode)| inode)
}

fn port(address: &Known<Address>) -> Option<u16> {
    match address.get() {
        Some(Address::Inet { port, .. }) => Some(*port),
        _ => None,
    }
}

impl Recorder {
    fn remember(&mut self, inode: u64, socket: Socket) {
        if self.sockets.len() < MOST || self.sockets.contains_key(&inode) {
            self.sockets.insert(inode, socket);
        }
    }

    pub(super) fn is_broker(&self, (local, peer): &Ends) -> bool {
        [local, peer].into_iter().filter_map(port).any(|port| self.ports.contains(&port))
    }

    /// The entry of a socket, made now if it was open before we looked.
    pub(super) fn known(&mut self, pid: u32, fd: i32, inode: u64) -> Option<&mut Socket> {
        if !self.sockets.contains_key(&inode) {
            let borrowed = Borrowed::of(pid, fd);
            let ends = borrowed.as_ref().map(Borrowed::ends);
            let tcp = borrowed.as_ref().is_some_and(Borrowed::is_tcp);
            let phase = match borrowed.as_ref().and_then(Borrowed::state) {
                Some(tcp::ESTABLISHED) => Phase::Open,
                Some(tcp::CLOSE_WAIT) => Phase::HalfClosed,
                _ => Phase::New,
            };
            let stream = ends.as_ref().is_some_and(|ends| self.is_broker(ends));
            self.remember(
                inode,
                Socket { stream, since_attach: true, tcp, phase, pid, ends, ..Socket::default() },
            );
        }
        self.sockets.get_mut(&inode)
    }

    fn say_socket(&mut self, call: &Call, body: Body) {
        self.name_servers.see(&body);
        self.say(call, body);
    }

    fn made(&mut self, call: &Call, fd: i32) {
        let [family, socket_type, protocol, ..] = call.args.map(|argument| argument as u32);
        let socket_type = socket_type & 0xf;
        let Some(inode) = inode(call.tid, fd) else { return };
        let tcp = matches!(family, 2 | 10) && socket_type == 1 && matches!(protocol, 0 | 6);
        self.remember(inode, Socket { tcp, pid: call.pid, fd, ..Socket::default() });
        let body = Body::Socket { socket: SocketId(inode), fd: Fd(fd), family, socket_type, protocol };
        self.say_socket(call, body);
    }

    pub(super) fn socket(&mut self, call: &Call, ret: i64) {
        if ret < 0 {
            self.say(call, Body::SocketFailed { family: call.args[0] as u32, errno: errno(ret) });
        } else {
            self.made(call, ret as i32);
        }
    }

    pub(super) fn socketpair(&mut self, call: &Call, ret: i64) {
        if ret < 0 {
            return self.socket(call, ret);
        }
        let Some(pair) = memory::value::<8>(call.tid, call.args[3]) else { return };
        for fd in pair.chunks_exact(4) {
            self.made(call, fd.first_chunk().map_or(-1, |fd| i32::from_ne_bytes(*fd)));
        }
    }

    fn given_address(call: &Call) -> Known<Address> {
        let len = u64::from(call.args[2] as u32).min(SOCKADDR_MAX);
        sockaddr(&memory::ranges(call.tid, &[(call.args[1], len)], len))
    }

    /// A second call while the first is under way keeps the first one's time.
    pub(super) fn connect_entered(&mut self, call: &Call) {
        let fd = call.args[0] as i32;
        let Some(inode) = inode(call.tid, fd) else { return };
        let asked = Self::given_address(call);
        let broker = port(&asked).is_some_and(|port| self.ports.contains(&port));
        let tcp = || Borrowed::of(call.pid, fd).is_some_and(|borrowed| borrowed.is_tcp());
        if !self.sockets.contains_key(&inode) {
            self.remember(inode, Socket { tcp: tcp(), pid: call.pid, fd, ..Socket::default() });
        }
        if let Some(socket) = self.sockets.get_mut(&inode) {
            socket.stream |= broker;
            if socket.phase != Phase::Connecting {
                socket.connect_ns = call.enter_ns;
                socket.asked = Some(asked);
            }
        }
    }

    pub(super) fn connect(&mut self, call: &Call, ret: i64) {
        let fd = call.args[0] as i32;
        let inode = inode(call.tid, fd).unwrap_or(0);
        let failed = errno(ret);
        match failed {
            0 | EISCONN => self.connected(call, fd, inode, 0),
            // What says so had asked somebody; a route that is missing is known before.
            ECONNREFUSED | ETIMEDOUT | ECONNRESET | EHOSTUNREACH => self.connected(call, fd, inode, failed),
            nix::libc::EINPROGRESS => {
                if let Some(socket) = self.sockets.get_mut(&inode).filter(|socket| socket.tcp) {
                    socket.phase = Phase::Connecting;
                }
            }
            _ => {}
        }
        let local = match failed {
            0 => Borrowed::of(call.pid, fd).map_or_else(Known::unknown, |borrowed| borrowed.ends().0),
            _ => Known::none(),
        };
        let peer = Self::given_address(call);
        let (socket, duration_ns) = (SocketId(inode), call.duration_ns());
        self.say_socket(call, Body::Connect { socket, fd: Fd(fd), peer, local, errno: failed, duration_ns });
    }

    /// A TCP connection that was tried is there, or failed.
    pub(super) fn connected(&mut self, call: &Call, fd: i32, inode: u64, failed: i32) {
        let Some(socket) = self.sockets.get_mut(&inode).filter(|socket| socket.tcp) else { return };
        if !matches!(socket.phase, Phase::New | Phase::Connecting | Phase::Over) {
            return;
        }
        let (local, peer) = Borrowed::of(call.pid, fd)
            .map_or_else(|| (Known::unknown(), Known::unknown()), |borrowed| borrowed.ends());
        let peer = match &socket.asked {
            Some(asked) if failed != 0 && peer.get().is_none() => asked.clone(),
            _ => peer,
        };
        socket.phase = if failed == 0 { Phase::Open } else { Phase::New };
        socket.ends = Some((local.clone(), peer.clone()));
        let duration_ns = call.at_ns.saturating_sub(socket.connect_ns);
        let socket = SocketId(inode);
        self.say(call, Body::Connected { socket, peer, local, errno: failed, duration_ns });
    }

    /// `SO_ERROR` is how a program learns what came of a connection it did not wait for.
    pub(super) fn getsockopt(&mut self, call: &Call, ret: i64) {
        let [fd, level, name, value, ..] = call.args;
        if ret != 0 || level as i32 != nix::libc::SOL_SOCKET || name as i32 != nix::libc::SO_ERROR {
            return;
        }
        let Some(inode) = inode(call.tid, fd as i32) else { return };
        if self.sockets.get(&inode).is_some_and(|socket| socket.phase == Phase::Connecting) {
            match memory::value(call.tid, value).map(i32::from_ne_bytes) {
                Some(0) => self.settle(call, fd as i32, inode),
                Some(error) => self.connected(call, fd as i32, inode, error),
                None => {}
            }
        }
    }

    /// A connection under way is there, if it is.
    pub(super) fn settle(&mut self, call: &Call, fd: i32, inode: u64) {
        let state = Borrowed::of(call.pid, fd).and_then(|borrowed| borrowed.state());
        if matches!(state, Some(tcp::ESTABLISHED | tcp::CLOSE_WAIT)) {
            self.connected(call, fd, inode, 0);
        }
    }

    pub(super) fn bind(&mut self, call: &Call, ret: i64) {
        let fd = call.args[0] as i32;
        let socket = SocketId(inode(call.tid, fd).unwrap_or(0));
        let address = Self::given_address(call);
        self.say_socket(call, Body::Bind { socket, fd: Fd(fd), address, errno: errno(ret) });
    }

    pub(super) fn listen(&mut self, call: &Call, ret: i64) {
        let fd = call.args[0] as i32;
        let Some(inode) = inode(call.tid, fd) else { return };
        let address = Borrowed::of(call.pid, fd).map_or_else(Known::unknown, |borrowed| borrowed.ends().0);
        let socket = SocketId(inode);
        self.say_socket(call, Body::Listen { socket, fd: Fd(fd), address, errno: errno(ret) });
    }

    pub(super) fn accept(&mut self, call: &Call, ret: i64) {
        let fd = ret as i32;
        if ret < 0 {
            return;
        }
        let Some(inode) = inode(call.tid, fd) else { return };
        let borrowed = Borrowed::of(call.pid, fd);
        let ends = borrowed.as_ref().map_or_else(|| (Known::unknown(), Known::unknown()), Borrowed::ends);
        self.remember(
            inode,
            Socket {
                stream: self.is_broker(&ends),
                tcp: borrowed.is_some_and(|borrowed| borrowed.is_tcp()),
                phase: Phase::Open,
                pid: call.pid,
                fd,
                ends: Some(ends.clone()),
                ..Socket::default()
            },
        );
        let (local, peer) = ends;
        self.say_socket(call, Body::Accept { socket: SocketId(inode), fd: Fd(fd), peer, local });
    }

    pub(super) fn shutdown(&mut self, call: &Call, ret: i64) {
        const SHUT_RD: u64 = 0;
        let Some(inode) = inode(call.tid, call.args[0] as i32).filter(|_| ret == 0) else { return };
        match self.sockets.get(&inode).map(|socket| socket.phase) {
            Some(Phase::Open) if call.args[1] != SHUT_RD => {
                self.disconnect(call.at_ns, call.tid, inode, Disconnect::ByUs, 0, Phase::Over);
            }
            Some(Phase::HalfClosed) if call.args[1] != SHUT_RD => {
                self.disconnect(call.at_ns, call.tid, inode, Disconnect::Closed, 0, Phase::Over);
            }
            _ => {}
        }
    }

    /// A TCP connection ended, or one side of it.
    pub(super) fn disconnect(
        &mut self,
        at_ns: u64,
        tid: u32,
        inode: u64,
        how: Disconnect,
        errno: i32,
        phase: Phase,
    ) {
        let Some(socket) = self.sockets.get_mut(&inode).filter(|socket| socket.tcp) else { return };
        socket.phase = phase;
        let pid = socket.pid;
        let (local, peer) = socket.ends.clone().unwrap_or_else(|| (Known::unknown(), Known::unknown()));
        self.tell(at_ns, pid, tid, Body::Disconnect { socket: SocketId(inode), how, errno, peer, local });
    }

    /// A descriptor is about to be closed: afterwards it leads nowhere.
    pub(super) fn close(&mut self, call: &Call) {
        let fd = call.args[0] as i32;
        let Some(inode) = inode(call.tid, fd) else { return };
        self.say_socket(call, Body::Close { socket: SocketId(inode), fd: Fd(fd) });
        let Some(socket) = self.sockets.get(&inode) else { return };
        if socket.tcp && socket.phase != Phase::New && self.held_elsewhere(inode, Some((call.pid, fd))) {
            return;
        }
        if socket.tcp
            && let Some(borrowed) = Borrowed::of(call.pid, fd)
        {
            self.last_close(call, fd, inode, &borrowed);
        }
        self.sockets.remove(&inode);
    }

    /// The last descriptor of a connection goes: what its process had not noticed is told now.
    fn last_close(&mut self, call: &Call, fd: i32, inode: u64, borrowed: &Borrowed) {
        let phase = |sockets: &Sockets| sockets.get(&inode).map(|socket| socket.phase);
        let state = borrowed.state().unwrap_or(0);
        if phase(&self.sockets) == Some(Phase::Connecting) {
            match state {
                tcp::SYN_SENT => self.connected(call, fd, inode, ECANCELED),
                tcp::CLOSE => match borrowed.take_error() {
                    0 => {}
                    error => self.connected(call, fd, inode, error),
                },
                _ => self.connected(call, fd, inode, 0),
            }
        }
        let open = matches!(phase(&self.sockets), Some(Phase::Open | Phase::HalfClosed));
        match state {
            _ if !open => {}
            tcp::ESTABLISHED | tcp::CLOSE_WAIT => {
                if state == tcp::CLOSE_WAIT && phase(&self.sockets) == Some(Phase::Open) {
                    self.disconnect(call.at_ns, call.tid, inode, Disconnect::ByPeer, 0, Phase::HalfClosed);
                }
                let how = match state {
                    // What was not read is answered with a reset (RFC 2525, 2.17; net/ipv4/tcp.c, __tcp_close).
                    _ if borrowed.unread() > 0 => Disconnect::ResetByUs,
                    tcp::ESTABLISHED => Disconnect::ByUs,
                    _ => Disconnect::Closed,
                };
                self.disconnect(call.at_ns, call.tid, inode, how, 0, Phase::Over);
            }
            tcp::CLOSE => match borrowed.take_error() {
                0 => {}
                error => {
                    let reset = matches!(error, ECONNRESET | nix::libc::EPIPE);
                    let how = if reset { Disconnect::ResetByPeer } else { Disconnect::Failed };
                    self.disconnect(call.at_ns, call.tid, inode, how, error, Phase::Over);
                }
            },
            _ => {}
        }
    }

    /// Whether another descriptor of any traced process leads to a socket.
    fn held_elsewhere(&self, inode: u64, but: Option<(u32, i32)>) -> bool {
        let wanted = format!("socket:[{inode}]");
        self.tracked.iter().any(|pid| {
            let fds = proc::numbers(&format!("/proc/{pid}/fd")).into_iter().map(|fd| fd as i32);
            fds.filter(|fd| Some((*pid, *fd)) != but)
                .any(|fd| proc::fd_link(*pid, fd).as_deref() == Some(&wanted))
        })
    }

    /// A process has ended, and its connections with it.
    pub(super) fn process_over(&mut self, at_ns: u64, pid: u32) {
        let open = |socket: &Socket| matches!(socket.phase, Phase::Open | Phase::HalfClosed);
        let left: Vec<(u64, Phase)> = self
            .sockets
            .iter()
            .filter(|(_, socket)| socket.pid == pid && socket.tcp && open(socket))
            .map(|(inode, socket)| (*inode, socket.phase))
            .collect();
        for (inode, phase) in left {
            if !self.held_elsewhere(inode, None) {
                let how = if phase == Phase::Open { Disconnect::ByUs } else { Disconnect::Closed };
                self.disconnect(at_ns, pid, inode, how, 0, Phase::Over);
                self.sockets.remove(&inode);
            }
        }
    }
}
