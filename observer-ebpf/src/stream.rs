//! Bytes in and out: connections that speak AMQP, in both directions, and what processes write to their outputs.

use aya_ebpf::{
    helpers::generated::bpf_probe_read_user, macros::raw_tracepoint, programs::RawTracePointContext,
};
use observer_ebpf::{CHUNK, DATA_CHUNKS, Data, IOV_MAX, Socket, flag, kind, socket_flag};

use crate::{
    emit::{bulk, call_header, lost},
    kernel::{
        AF_INET, AF_INET6, AGAIN, S_IFIFO, S_IFMT, S_IFSOCK, STOP, argument, at_most, call, file_of, ids,
        mode_and_inode, offset, read, read_user, rounds, scratch, settings_snaplen, sock_of,
    },
    socket::broker_port,
    tables::{Batch, Carry, SOCKETS},
};

const MSG_PEEK: u64 = 2;
const EAGAIN: i64 = -11;
const EINTR: i64 = -4;
/// Of the restart codes a signal leaves, the last the tracepoint can show (`ERESTART_RESTARTBLOCK`).
const RESTART_LAST: i64 = -516;
const RESTART_FIRST: i64 = -512;
/// Most messages of one `sendmmsg` or `recvmmsg` that are looked at.
const MESSAGES_MAX: usize = 64;

/// `struct iovec`
#[repr(C)]
#[derive(Clone, Copy)]
struct Iovec {
    base: u64,
    len: u64,
}

/// The part of `struct user_msghdr` that says where the bytes are.
#[repr(C)]
#[derive(Clone, Copy)]
struct Message {
    iov: u64,
    iov_count: u64,
}
const MESSAGE_OFFSET: u64 = 16;
const MMSG_SIZE: u64 = 64;
const MMSG_LEN_OFFSET: u64 = 56;

const EMPTY: Carry = Carry {
    inode: 0,
    offset: 0,
    total: 0,
    limit: 0,
    done: 0,
    base: 0,
    left: 0,
    iov: 0,
    iov_count: 0,
    next: 0,
    fd: 0,
    mode: 0,
    kind: 0,
    flags: 0,
};

/// Where the bytes of a call stand in user memory.
enum Source {
    Buffer(u64),
    Vector {
        iov: u64,
        count: u64,
    },
    /// In no buffer: they went from descriptor to descriptor.
    Nowhere,
}

/// Sends one piece: `len` bytes of the stream, the first `captured` of which stand at `address`.
#[inline(always)]
fn piece(carry: &Carry, offset: u64, len: u64, address: u64, captured: u64) {
    let Some(space) = scratch() else { return };
    let captured = at_most(captured, CHUNK as u64);
    let mut flags = carry.flags as u16;
    let mut kept = captured;
    if captured > 0 {
        let tail = unsafe { space.add(size_of::<Data>()) };
        if unsafe { bpf_probe_read_user(tail.cast(), captured as u32, address as *const _) } != 0 {
            flags |= flag::FAULT;
            kept = 0;
        }
    }
    let record = unsafe { &mut *space.cast::<Data>() };
    record.header = call_header(carry.kind as u16);
    record.header.flags = flags;
    record.inode = carry.inode;
    record.offset = offset;
    record.len = len;
    record.errno = 0;
    record.captured = kept as u32;
    record.fd = carry.fd;
    record.mode = carry.mode;
    record.spare = 0;
    let kept = at_most(kept, CHUNK as u64);
    bulk(carry.kind as u16, unsafe { core::slice::from_raw_parts(space, size_of::<Data>() + kept as usize) });
}

/// Sends all pieces of what [`Carry`] describes; what is beyond `--snaplen` or the limits above becomes one piece without bytes.
#[inline(always)]
fn copy_out() {
    let Some(call) = call() else { return };
    let carry = &mut call.carry;
    carry.limit = at_most(settings_snaplen(), carry.total);
    // Each buffer takes a round to fetch and ends in a piece that may be short.
    rounds(DATA_CHUNKS + 2 * IOV_MAX, copy_piece);
    if carry.done < carry.total {
        piece(carry, carry.offset + carry.done, carry.total - carry.done, 0, 0);
    }
}

/// One piece, or the next buffer of the vector.
extern "C" fn copy_piece(_round: u64, _: u64) -> i64 {
    let Some(call) = call() else { return STOP };
    let carry = &mut call.carry;
    let wanted = carry.limit - carry.done;
    if wanted == 0 {
        return STOP;
    }
    if carry.left == 0 {
        if carry.next >= carry.iov_count || carry.next >= IOV_MAX as u64 {
            return STOP;
        }
        let iov: Iovec = read_user(carry.iov + carry.next * 16);
        carry.next += 1;
        carry.base = iov.base;
        carry.left = at_most(iov.len, wanted);
        return AGAIN;
    }
    let n = at_most(carry.left, CHUNK as u64);
    piece(carry, carry.offset + carry.done, n, carry.base, n);
    carry.base += n;
    carry.left -= n;
    carry.done += n;
    AGAIN
}

#[inline(always)]
fn carry_out(source: Source, carry: Carry) {
    let Some(call) = call() else { return };
    call.carry = carry;
    match source {
        Source::Buffer(base) => {
            call.carry.base = base;
            call.carry.left = at_most(settings_snaplen(), carry.total);
        }
        Source::Vector { iov, count } => {
            call.carry.iov = iov;
            call.carry.iov_count = count;
        }
        Source::Nowhere => call.carry.flags |= u32::from(flag::NO_BUFFER),
    }
    copy_out();
}

/// A failed call on a stream or an output.
#[inline(always)]
fn failed(carry: &Carry, errno: u32) {
    let Some(space) = scratch() else { return };
    let record = unsafe { &mut *space.cast::<Data>() };
    record.header = call_header(carry.kind as u16);
    record.header.flags = carry.flags as u16;
    record.inode = carry.inode;
    record.offset = carry.offset;
    record.len = 0;
    record.errno = errno;
    record.captured = 0;
    record.fd = carry.fd;
    record.mode = carry.mode;
    record.spare = 0;
    bulk(carry.kind as u16, unsafe { core::slice::from_raw_parts(space, size_of::<Data>()) });
}

/// The table's entry of a socket, made now if it was open before we looked.
#[inline(always)]
fn known(file: u64, inode: u64) -> Option<*mut Socket> {
    if let Some(entry) = SOCKETS.get_ptr_mut(inode) {
        return Some(entry);
    }
    let sock = sock_of(file);
    let family: u16 = read(sock, offset!(skc_family));
    let internet = family == AF_INET || family == AF_INET6;
    let (local, peer): (u16, u16) = (read(sock, offset!(skc_num)), read(sock, offset!(skc_dport)));
    let stream = internet && broker_port(local, u16::from_be(peer));
    let (tgid, tid) = ids();
    let mut flags = socket_flag::SINCE_ATTACH;
    if stream {
        flags |= socket_flag::STREAM;
    }
    let entry = Socket { sent: 0, received: 0, connect_ns: 0, tgid, tid, flags, pad: 0 };
    if SOCKETS.insert(inode, entry, 0).is_err() {
        lost(kind::TABLE);
    }
    SOCKETS.get_ptr_mut(inode)
}

/// One call on a socket that returned `ret`.
#[inline(always)]
fn on_socket(file: u64, inode: u64, mode: u32, fd: i32, sent: bool, ret: i64, source: Source) {
    let Some(entry) = known(file, inode) else { return };
    let entry = unsafe { &mut *entry };
    let offset = if sent { entry.sent } else { entry.received };
    if entry.flags & (socket_flag::STREAM | socket_flag::LOOKED) == 0 && ret > 0 {
        entry.flags |= socket_flag::LOOKED;
        let address = match source {
            Source::Buffer(base) => base,
            Source::Vector { iov, .. } => read_user::<Iovec>(iov).base,
            Source::Nowhere => 0,
        };
        if read_user::<[u8; 4]>(address) == *b"AMQP" {
            entry.flags |= socket_flag::STREAM;
        }
    }
    if ret > 0 {
        if sent {
            entry.sent += ret as u64;
        } else {
            entry.received += ret as u64;
        }
    }
    if entry.flags & socket_flag::STREAM == 0 {
        return;
    }
    let mut flags = if sent { flag::SENT } else { 0 };
    if entry.flags & socket_flag::SINCE_ATTACH != 0 {
        flags |= flag::SINCE_ATTACH;
    }
    let carry = Carry {
        inode,
        offset,
        total: if ret > 0 { ret as u64 } else { 0 },
        fd,
        mode,
        kind: u32::from(kind::DATA),
        flags: u32::from(flags),
        ..EMPTY
    };
    if ret > 0 {
        carry_out(source, carry);
    } else if ret == 0 {
        // The other side's end of stream.
        if !sent {
            failed(&carry, 0);
        }
    } else if passing(ret) {
    } else {
        failed(&carry, -ret as u32);
    }
}

/// Not a failure: try again.
#[inline(always)]
fn passing(ret: i64) -> bool {
    ret == EAGAIN || ret == EINTR || (RESTART_LAST..=RESTART_FIRST).contains(&ret)
}

/// One write that may be output.
#[inline(always)]
fn on_output(inode: u64, mode: u32, fd: i32, ret: i64, source: Source) {
    let carry = Carry {
        inode,
        total: if ret > 0 { ret as u64 } else { 0 },
        fd,
        mode,
        kind: u32::from(kind::OUTPUT),
        flags: u32::from(flag::SENT),
        ..EMPTY
    };
    if ret > 0 {
        carry_out(source, carry);
    } else if ret < 0 && !passing(ret) {
        failed(&carry, -ret as u32);
    }
}

/// What a call carried over `fd`, and how much of it.
#[inline(always)]
fn carried(fd: i32, sent: bool, ret: i64, source: Source) {
    let file = file_of(fd);
    if file == 0 {
        return;
    }
    let (mode, inode) = mode_and_inode(file);
    let what = mode & S_IFMT;
    if sent && (fd == 1 || fd == 2 || what == S_IFIFO) {
        on_output(inode, mode, fd, ret, source);
    } else if what == S_IFSOCK {
        on_socket(file, inode, mode, fd, sent, ret, source);
    }
}

/// `write` and `sendto`, on return: descriptor, buffer.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn write(ctx: RawTracePointContext) -> i32 {
    carried(argument(&ctx, 0) as i32, true, ctx.arg(1), Source::Buffer(argument(&ctx, 1)));
    0
}

/// `read`, on return.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn read_call(ctx: RawTracePointContext) -> i32 {
    carried(argument(&ctx, 0) as i32, false, ctx.arg(1), Source::Buffer(argument(&ctx, 1)));
    0
}

/// `recvfrom`, on return.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn recvfrom(ctx: RawTracePointContext) -> i32 {
    if argument(&ctx, 3) & MSG_PEEK == 0 {
        carried(argument(&ctx, 0) as i32, false, ctx.arg(1), Source::Buffer(argument(&ctx, 1)));
    }
    0
}

/// `writev`, on return: descriptor, vector, count.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn writev(ctx: RawTracePointContext) -> i32 {
    let source = Source::Vector { iov: argument(&ctx, 1), count: argument(&ctx, 2) };
    carried(argument(&ctx, 0) as i32, true, ctx.arg(1), source);
    0
}

/// `readv`, on return.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn readv(ctx: RawTracePointContext) -> i32 {
    let source = Source::Vector { iov: argument(&ctx, 1), count: argument(&ctx, 2) };
    carried(argument(&ctx, 0) as i32, false, ctx.arg(1), source);
    0
}

/// `sendmsg`, on return: descriptor, message.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn sendmsg(ctx: RawTracePointContext) -> i32 {
    let message: Message = read_user(argument(&ctx, 1) + MESSAGE_OFFSET);
    let source = Source::Vector { iov: message.iov, count: message.iov_count };
    carried(argument(&ctx, 0) as i32, true, ctx.arg(1), source);
    0
}

/// `recvmsg`, on return.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn recvmsg(ctx: RawTracePointContext) -> i32 {
    if argument(&ctx, 2) & MSG_PEEK == 0 {
        let message: Message = read_user(argument(&ctx, 1) + MESSAGE_OFFSET);
        let source = Source::Vector { iov: message.iov, count: message.iov_count };
        carried(argument(&ctx, 0) as i32, false, ctx.arg(1), source);
    }
    0
}

/// The messages of one `sendmmsg` or `recvmmsg`; the call returned their number.
#[inline(always)]
fn messages(ctx: &RawTracePointContext, sent: bool) {
    let count: i64 = ctx.arg(1);
    let Some(call) = call() else { return };
    if count <= 0 {
        return;
    }
    call.batch = Batch {
        at: argument(ctx, 1),
        left: count as u64,
        fd: argument(ctx, 0) as i32,
        sent: u32::from(sent),
    };
    rounds(MESSAGES_MAX, message);
}

/// One of them.
extern "C" fn message(_round: u64, _: u64) -> i64 {
    let Some(call) = call() else { return STOP };
    let Batch { at, left, fd, sent } = call.batch;
    if left == 0 {
        return STOP;
    }
    call.batch.at = at + MMSG_SIZE;
    call.batch.left = left - 1;
    let message: Message = read_user(at + MESSAGE_OFFSET);
    let len: u32 = read_user(at + MMSG_LEN_OFFSET);
    let source = Source::Vector { iov: message.iov, count: message.iov_count };
    carried(fd, sent != 0, i64::from(len), source);
    AGAIN
}

/// `sendmmsg`, on return.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn sendmmsg(ctx: RawTracePointContext) -> i32 {
    messages(&ctx, true);
    0
}

/// `recvmmsg`, on return.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn recvmmsg(ctx: RawTracePointContext) -> i32 {
    if argument(&ctx, 3) & MSG_PEEK == 0 {
        messages(&ctx, false);
    }
    0
}

/// `sendfile`, on return: to, from.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn sendfile(ctx: RawTracePointContext) -> i32 {
    carried(argument(&ctx, 0) as i32, true, ctx.arg(1), Source::Nowhere);
    0
}

/// `splice`, on return: from, its offset, to. What failed is told of the side it was to go to: the kernel does not say which it was.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn splice(ctx: RawTracePointContext) -> i32 {
    let ret: i64 = ctx.arg(1);
    if ret >= 0 {
        carried(argument(&ctx, 0) as i32, false, ret, Source::Nowhere);
    }
    carried(argument(&ctx, 2) as i32, true, ret, Source::Nowhere);
    0
}
