//! Sockets from `socket` to `close`, and what TCP makes of them in between.

use aya_ebpf::{
    helpers::generated::bpf_probe_read_user, macros::raw_tracepoint, programs::RawTracePointContext,
};
use observer_ebpf::{Ends, Header, SOCKADDR_MAX, Socket, SocketCall, SocketState, kind, socket_flag};

use crate::{
    emit::{bytes, call_header, lost, now, vital},
    kernel::{
        S_IFMT, S_IFSOCK, argument, at_most, ends_of, file_of, ids, inode_of_sock, mode_and_inode, offset,
        read, read_user, scratch, sock_of,
    },
    tables::{PORTS, SOCKETS},
};

const IPPROTO_TCP: u16 = 6;
const ESTABLISHED: u32 = 1;
const SYN_SENT: u32 = 2;
const CLOSE_WAIT: u32 = 8;
const AF_INET6: u16 = 10;

/// A `sockaddr`'s family and port: they stand in the same place for both internet families.
#[repr(C)]
#[derive(Clone, Copy)]
struct Sockaddr {
    family: u16,
    port: u16,
}

/// Enters a socket in the table, or renews its entry.
#[inline(always)]
pub fn remember(inode: u64, connect_ns: u64, flags: u32) {
    let (tgid, tid) = ids();
    let entry = Socket { sent: 0, received: 0, connect_ns, tgid, tid, flags, pad: 0 };
    if SOCKETS.insert(inode, entry, 0).is_err() {
        lost(kind::TABLE);
    }
}

/// Whether one of the ports belongs to a known broker.
#[inline(always)]
pub fn broker_port(first: u16, second: u16) -> bool {
    PORTS.get_ptr(first).is_some() || PORTS.get_ptr(second).is_some()
}

/// Sends a record about `fd`, with the `address_len` bytes of address at `address`.
#[inline(always)]
fn send(ctx: &RawTracePointContext, fd: i32, file: u64, inode: u64, address: u64, address_len: u64) {
    let Some(space) = scratch() else { return };
    let record = unsafe { &mut *space.cast::<SocketCall>() };
    record.header = call_header(kind::SOCKET);
    record.ret = ctx.arg(1);
    record.inode = inode;
    record.fd = fd;
    record.family = argument(ctx, 0) as u32;
    record.socket_type = argument(ctx, 1) as u32;
    record.protocol = argument(ctx, 2) as u32;
    record.address_len = 0;
    record.pad = 0;
    ends_of(sock_of(file), &mut record.ends);
    if address != 0 {
        let len = at_most(address_len, SOCKADDR_MAX as u64);
        let failed = unsafe {
            bpf_probe_read_user(record.address.as_mut_ptr().cast(), len as u32, address as *const _)
        } != 0;
        record.address_len = if failed { 0 } else { len as u32 };
    }
    vital(kind::SOCKET, bytes(record));
}

/// `socket`, on return.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn socket(ctx: RawTracePointContext) -> i32 {
    let fd: i64 = ctx.arg(1);
    let file = file_of(fd as i32);
    let (_, inode) = mode_and_inode(file);
    if fd >= 0 {
        remember(inode, 0, 0);
    }
    send(&ctx, fd as i32, file, inode, 0, 0);
    0
}

/// `socketpair`, on return: one record for each end.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn socketpair(ctx: RawTracePointContext) -> i32 {
    if ctx.arg::<i64>(1) < 0 {
        send(&ctx, -1, 0, 0, 0, 0);
        return 0;
    }
    let pair: [i32; 2] = read_user(argument(&ctx, 3));
    for fd in pair {
        let file = file_of(fd);
        let (_, inode) = mode_and_inode(file);
        remember(inode, 0, 0);
        send(&ctx, fd, file, inode, 0, 0);
    }
    0
}

/// `connect`, on entry: the state of a TCP socket changes before the call returns.
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn connect_enter(ctx: RawTracePointContext) -> i32 {
    let file = file_of(argument(&ctx, 0) as i32);
    let (mode, inode) = mode_and_inode(file);
    if mode & S_IFMT != S_IFSOCK {
        return 0;
    }
    let address: Sockaddr = read_user(argument(&ctx, 1));
    let internet = address.family == 2 || address.family == AF_INET6;
    let stream = internet && broker_port(u16::from_be(address.port), 0);
    // A second call while the first is under way keeps the first one's time.
    if let Some(entry) = SOCKETS.get_ptr_mut(inode) {
        unsafe {
            if (*entry).connect_ns == 0 {
                (*entry).connect_ns = now();
            }
            if stream {
                (*entry).flags |= socket_flag::STREAM;
            }
        }
    } else {
        remember(inode, now(), if stream { socket_flag::STREAM } else { 0 });
    }
    0
}

/// `connect` and `bind`, on return: descriptor, address, length.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn socket_address(ctx: RawTracePointContext) -> i32 {
    let fd = argument(&ctx, 0) as i32;
    let file = file_of(fd);
    let (mode, inode) = mode_and_inode(file);
    if mode & S_IFMT == S_IFSOCK {
        send(&ctx, fd, file, inode, argument(&ctx, 1), u64::from(argument(&ctx, 2) as u32));
    } else {
        send(&ctx, fd, 0, 0, argument(&ctx, 1), u64::from(argument(&ctx, 2) as u32));
    }
    0
}

/// `listen`, on return.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn listen(ctx: RawTracePointContext) -> i32 {
    let fd = argument(&ctx, 0) as i32;
    let file = file_of(fd);
    let (mode, inode) = mode_and_inode(file);
    if mode & S_IFMT == S_IFSOCK {
        send(&ctx, fd, file, inode, 0, 0);
    }
    0
}

/// `accept` and `accept4`, on return.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn accept(ctx: RawTracePointContext) -> i32 {
    let fd: i64 = ctx.arg(1);
    if fd < 0 {
        return 0;
    }
    let file = file_of(fd as i32);
    let (_, inode) = mode_and_inode(file);
    let sock = sock_of(file);
    let (local, peer): (u16, u16) = (read(sock, offset!(skc_num)), read(sock, offset!(skc_dport)));
    let family: u16 = read(sock, offset!(skc_family));
    let stream = (family == 2 || family == AF_INET6) && broker_port(local, u16::from_be(peer));
    remember(inode, 0, if stream { socket_flag::STREAM } else { 0 });
    send(&ctx, fd as i32, file, inode, 0, 0);
    0
}

/// `close`, on entry: afterwards the descriptor leads nowhere.
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn close(ctx: RawTracePointContext) -> i32 {
    let fd = argument(&ctx, 0) as i32;
    let file = file_of(fd);
    if file == 0 {
        return 0;
    }
    let (mode, inode) = mode_and_inode(file);
    if mode & S_IFMT == S_IFSOCK {
        send(&ctx, fd, 0, inode, 0, 0);
    }
    0
}

/// `inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)`
///
/// Runs in whatever context the change happens, an interrupt too: it uses neither the scratch space nor the call.
#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn inet_sock_set_state(ctx: RawTracePointContext) -> i32 {
    let old: u32 = ctx.arg(1);
    if old != SYN_SENT && old != ESTABLISHED && old != CLOSE_WAIT {
        return 0;
    }
    let sock: u64 = ctx.arg(0);
    if read::<u16>(sock, offset!(sock_protocol)) != IPPROTO_TCP {
        return 0;
    }
    let inode = inode_of_sock(sock);
    if inode == 0 {
        return 0;
    }
    let Some(entry) = SOCKETS.get_ptr_mut(inode) else { return 0 };
    let (tgid, tid, connect_ns) = unsafe { ((*entry).tgid, (*entry).tid, (*entry).connect_ns) };
    let mut record = SocketState {
        header: Header {
            kind: kind::SOCKET_STATE,
            flags: 0,
            nr: 0,
            at_ns: now(),
            enter_ns: connect_ns,
            tgid,
            tid,
        },
        inode,
        old,
        new: ctx.arg(2),
        error: read(sock, offset!(sock_err)),
        pad: 0,
        ends: Ends { family: 0, local_port: 0, peer_port: 0, pad: 0, local: [0; 16], peer: [0; 16] },
        spare: 0,
    };
    ends_of(sock, &mut record.ends);
    if old == SYN_SENT {
        unsafe { (*entry).connect_ns = 0 };
    }
    vital(kind::SOCKET_STATE, bytes(&record));
    0
}
