//! The memory of a tracee, by `process_vm_readv`: one call a need. What cannot be read is not there; nothing is guessed.

use std::io::IoSliceMut;

use nix::{
    sys::uio::{RemoteIoVec, process_vm_readv},
    unistd::Pid as UnixPid,
};

/// Longest path, as the kernel limits it, with its NUL.
const PATH_MAX: usize = 4096;
const PAGE: usize = 4096;
/// As many buffers as one call of the target, and one of ours, can have (`UIO_MAXIOV`, include/uapi/linux/uio.h).
const IOV_MAX: usize = 1024;

/// A buffer of the target: address and length.
pub(super) type Range = (u64, u64);

/// The beginning of these ranges together, at most `limit` bytes of it, as far as it can be read.
pub(super) fn ranges(tid: u32, ranges: &[Range], limit: u64) -> Vec<u8> {
    let mut left = limit as usize;
    let mut remote = Vec::with_capacity(ranges.len().min(IOV_MAX));
    for (base, len) in ranges.iter().take(IOV_MAX) {
        let len = left.min(*len as usize);
        if len > 0 {
            remote.push(RemoteIoVec { base: *base as usize, len });
            left -= len;
        }
    }
    let mut bytes = vec![0; limit as usize - left];
    let read = if bytes.is_empty() { 0 } else { into(tid, &mut bytes, &remote) };
    bytes.truncate(read);
    bytes
}

fn into(tid: u32, bytes: &mut [u8], remote: &[RemoteIoVec]) -> usize {
    let pid = UnixPid::from_raw(tid as i32);
    process_vm_readv(pid, &mut [IoSliceMut::new(bytes)], remote).unwrap_or(0)
}

/// A value of `N` bytes.
pub(super) fn value<const N: usize>(tid: u32, address: u64) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let remote = RemoteIoVec { base: address as usize, len: N };
    (into(tid, &mut bytes, &[remote]) == N).then_some(bytes)
}

/// A string up to its NUL, or as much as a path can have; `None` when not even its first byte can be read.
pub(super) fn string(tid: u32, address: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; PATH_MAX];
    let address = address as usize;
    // It may end before a page that is not there.
    let first = PAGE - address % PAGE;
    let remote = [
        RemoteIoVec { base: address, len: first },
        RemoteIoVec { base: address.wrapping_add(first), len: PATH_MAX - first },
    ];
    let used = if first == PATH_MAX { &remote[..1] } else { &remote[..] };
    let read = into(tid, &mut bytes, used);
    let end = bytes[..read].iter().position(|byte| *byte == 0);
    // Not ended, and not for want of room: the rest of it cannot be read, and the kernel could not either.
    if end.is_none() && read < PATH_MAX {
        return None;
    }
    bytes.truncate(end.unwrap_or(PATH_MAX - 1));
    Some(bytes)
}

/// The buffers of a `struct iovec` array.
pub(super) fn vector(tid: u32, address: u64, count: u64) -> Vec<Range> {
    const SIZE: u64 = 16;
    let bytes = ranges(tid, &[(address, count.min(IOV_MAX as u64) * SIZE)], u64::MAX >> 1);
    let number = |bytes: &[u8]| bytes.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
    bytes.chunks_exact(SIZE as usize).map(|iov| (number(iov), number(&iov[8..]))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us() -> u32 {
        std::process::id()
    }

    #[test]
    fn our_own_memory_is_what_we_know_of_it() {
        let text = c"minimal_worker.py";
        assert_eq!(string(us(), text.as_ptr() as u64).as_deref(), Some(text.to_bytes()));
        assert_eq!(string(us(), 8), None);
        let long = vec![b'x'; 3 * PATH_MAX];
        assert_eq!(string(us(), long.as_ptr() as u64).map(|path| path.len()), Some(PATH_MAX - 1));
        assert_eq!(value(us(), text.as_ptr() as u64), Some(*b"mini"));
        assert_eq!(value::<4>(us(), 8), None);
    }

    #[test]
    fn buffers_are_joined_up_to_the_limit() {
        let (first, second) = (*b"AMQP", *b"\0\0\x09\x01");
        let both = [(first.as_ptr() as u64, 4), (second.as_ptr() as u64, 4)];
        assert_eq!(ranges(us(), &both, 100), b"AMQP\0\0\x09\x01");
        assert_eq!(ranges(us(), &both, 6), b"AMQP\0\0");
        assert_eq!(ranges(us(), &[both[0], (8, 4)], 100), b"AMQP");
        let array: [u64; 4] = [both[0].0, 4, both[1].0, 4];
        assert_eq!(vector(us(), array.as_ptr() as u64, 2), both);
    }
}
