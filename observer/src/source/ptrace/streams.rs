//! Bytes in and out: connections that speak AMQP, in both directions, and what processes write to their outputs. By the same rules as the
//! eBPF source: a broker's port, or the protocol's header.

use super::{
    borrow::{Borrowed, tcp},
    calls::{Call, Recorder},
    memory::{self, Range},
    sockets::{self, Phase},
};
use crate::{
    event::{Body, Direction, Disconnect, Event, Fd, Origin, OutputStream, Pid, SocketId, Tid},
    source::{
        call::{self, errno},
        proc,
    },
};

const ECONNRESET: i32 = 104;
const EPIPE: i32 = 32;
/// Most messages of one `sendmmsg` or `recvmmsg` that are looked at.
const MESSAGES_MAX: u64 = 64;
/// `struct mmsghdr` of 64-bit programs: a `msghdr`, and how much it carried.
const MMSG_BYTES: u64 = 64;
const MMSG_LEN: u64 = 56;
/// In a `msghdr`: the vector's address and count.
const MESSAGE_VECTOR: u64 = 16;

/// Where the bytes of a call stand in the target's memory.
pub(super) enum Buffers {
    In(Vec<Range>),
    /// They went from descriptor to descriptor.
    None,
}

impl Buffers {
    fn read(&self, tid: u32, limit: u64) -> Vec<u8> {
        match self {
            Self::In(ranges) => memory::ranges(tid, ranges, limit),
            Self::None => Vec::new(),
        }
    }
}

/// Not a failure: try again. Of the restart codes a signal leaves, the last is `ERESTART_RESTARTBLOCK`.
fn passing(ret: i64) -> bool {
    matches!(errno(ret), nix::libc::EAGAIN | nix::libc::EINTR | 512..=516)
}

fn buffers(tid: u32, message: u64) -> Buffers {
    let Some(vector) = memory::value::<16>(tid, message + MESSAGE_VECTOR) else {
        return Buffers::In(Vec::new());
    };
    let (base, count) = vector.split_at(8);
    let number = |bytes: &[u8]| bytes.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
    Buffers::In(memory::vector(tid, number(base), number(count)))
}

impl Recorder {
    /// `sendmsg` and `recvmsg`.
    pub(super) fn message(&mut self, call: &Call, sent: bool, ret: i64) {
        self.carried(call, call.args[0] as i32, sent, ret, &buffers(call.tid, call.args[1]));
    }

    /// The messages of one `sendmmsg` or `recvmmsg`; the call returned their number.
    pub(super) fn messages(&mut self, call: &Call, sent: bool, ret: i64) {
        for number in 0..MESSAGES_MAX.min(ret.max(0) as u64) {
            let at = call.args[1] + number * MMSG_BYTES;
            let len = memory::value(call.tid, at + MMSG_LEN).map_or(0, u32::from_ne_bytes);
            self.carried(call, call.args[0] as i32, sent, i64::from(len), &buffers(call.tid, at));
        }
    }

    /// What a call carried over `fd`, and how much of it.
    pub(super) fn carried(&mut self, call: &Call, fd: i32, sent: bool, ret: i64, buffers: &Buffers) {
        // Nothing was carried, and nothing failed.
        if passing(ret) {
            return;
        }
        let Some((kind, inode)) = sockets::facts(call.tid, fd) else { return };
        if sent && (matches!(fd, 1 | 2) || kind == nix::libc::S_IFIFO) {
            self.output(call, fd, inode, ret, buffers);
        } else if kind == nix::libc::S_IFSOCK {
            self.on_socket(call, fd, inode, sent, ret, buffers);
        } else if kind == 0
            && !sent
            && proc::fd_link(call.tid, fd).as_deref() == Some("anon_inode:[signalfd]")
        {
            self.read_signals(call, &buffers.read(call.tid, ret.max(0) as u64));
        }
    }

    fn output(&self, call: &Call, fd: i32, inode: u64, ret: i64, buffers: &Buffers) {
        if ret == 0 {
            return;
        }
        let stream = match fd {
            1 => OutputStream::Stdout,
            2 => OutputStream::Stderr,
            _ => OutputStream::Pipe,
        };
        let len = ret.max(0) as u64;
        let bytes = buffers.read(call.tid, len.min(self.snaplen));
        let errno = errno(ret);
        let body = Body::Output { stream, fd: Fd(fd), inode, len, piece_offset: 0, errno };
        self.tell_bytes(call.at_ns, call.pid, call.tid, body, bytes);
    }

    fn on_socket(&mut self, call: &Call, fd: i32, inode: u64, sent: bool, ret: i64, buffers: &Buffers) {
        let Some(socket) = self.known(call.pid, fd, inode) else { return };
        if socket.phase == Phase::Connecting {
            match errno(ret) {
                0 => self.settle(call, fd, inode),
                failed => self.connected(call, fd, inode, failed),
            }
        }
        let Some(socket) = self.sockets.get_mut(&inode) else { return };
        let offset = if sent { socket.sent } else { socket.received };
        if !socket.stream && !socket.looked && ret > 0 {
            socket.looked = true;
            socket.stream = buffers.read(call.tid, 4.min(ret as u64)) == b"AMQP";
        }
        let counter = if sent { &mut socket.sent } else { &mut socket.received };
        *counter += ret.max(0) as u64;
        // A received nothing is the other side's end of stream.
        if socket.stream && (ret != 0 || !sent) {
            let len = ret.max(0) as u64;
            let body = Body::Data {
                socket: SocketId(inode),
                fd: Fd(fd),
                direction: if sent { Direction::Sent } else { Direction::Received },
                offset,
                len,
                syscall: call::name(call.nr),
                errno: errno(ret),
                since_attach: socket.since_attach,
                redacted: Vec::new(),
            };
            let event = Event {
                at_ns: call.at_ns,
                pid: Pid(call.pid),
                tid: Tid(call.tid),
                observed_from: Origin::Ptrace,
                body,
                bytes: buffers.read(call.tid, len.min(self.snaplen)),
            };
            if let Some(event) = self.name_servers.lookup(event) {
                self.queue.push(event);
            }
        }
        self.ended(call, fd, inode, sent, ret);
    }

    /// What a read or write says of the connection's end.
    fn ended(&mut self, call: &Call, fd: i32, inode: u64, sent: bool, ret: i64) {
        let phase = self.sockets.get(&inode).filter(|socket| socket.tcp).map(|socket| socket.phase);
        let Some(phase @ (Phase::Open | Phase::HalfClosed)) = phase else { return };
        if ret > 0 || (ret == 0 && (sent || phase == Phase::HalfClosed)) {
            return;
        }
        let state = Borrowed::of(call.pid, fd).and_then(|borrowed| borrowed.state());
        let (how, phase) = match (state, errno(ret)) {
            (Some(tcp::CLOSE_WAIT), 0) => (Disconnect::ByPeer, Phase::HalfClosed),
            (Some(tcp::CLOSE), ECONNRESET | EPIPE) => (Disconnect::ResetByPeer, Phase::Over),
            (Some(tcp::CLOSE), failed) if failed != 0 => (Disconnect::Failed, Phase::Over),
            _ => return,
        };
        self.disconnect(call.at_ns, call.tid, inode, how, errno(ret), phase);
    }
}
