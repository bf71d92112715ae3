//! Sending a record, or counting that it could not be sent. Readers poll; they are woken only when a ring is half full.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::generated::{bpf_jiffies64, bpf_ktime_get_ns},
    maps::RingBuf,
};
use observer_ebpf::{Header, kind};

use crate::{
    kernel::{call, ids, ring_sizes},
    tables::{BULK, LOST, VITAL},
};

#[inline(always)]
pub fn now() -> u64 {
    unsafe { bpf_ktime_get_ns() }
}

/// Ticks of the kernel since its start: nothing is cheaper to ask for.
#[inline(always)]
pub fn ticks() -> u64 {
    unsafe { bpf_jiffies64() }
}

/// A header for something that happens to the current task now.
#[inline(always)]
pub fn header(kind: u16) -> Header {
    let (tgid, tid) = ids();
    Header { kind, flags: 0, nr: 0, at_ns: now(), enter_ns: 0, tgid, tid }
}

/// A header for the system call this CPU handles.
#[inline(always)]
pub fn call_header(kind: u16) -> Header {
    let (tgid, tid) = ids();
    let (at_ns, enter_ns, nr) = match call() {
        Some(call) => (call.now, call.enter_ns, call.nr),
        None => (now(), 0, 0),
    };
    Header { kind, flags: 0, nr, at_ns, enter_ns, tgid, tid }
}

/// Counts one lost record of `kind` on this CPU.
#[inline(always)]
pub fn lost(kind: u16) {
    if let Some(counts) = LOST.get_ptr_mut(0) {
        unsafe { (*counts)[kind as usize & (kind::SLOTS - 1)] += 1 };
    }
}

/// Whether to wake the reader of a ring of this size.
#[inline(always)]
fn wake(ring: &RingBuf, size: u32) -> u64 {
    u64::from(if ring.query(u64::from(BPF_RB_AVAIL_DATA)) > u64::from(size / 2) {
        BPF_RB_FORCE_WAKEUP
    } else {
        BPF_RB_NO_WAKEUP
    })
}

#[inline(always)]
fn send(ring: &RingBuf, size: u32, kind: u16, record: &[u8]) -> bool {
    let sent = ring.output::<[u8]>(record, wake(ring, size)).is_ok();
    if !sent {
        lost(kind);
    }
    sent
}

/// Whether the vital ring is less than half full. What is long goes elsewhere when it is not, or a few programs with large
/// environments would take the room of many that exit.
#[inline(always)]
pub fn vital_has_room() -> bool {
    VITAL.query(u64::from(BPF_RB_AVAIL_DATA)) < u64::from(ring_sizes().0 / 2)
}

/// Whether the bulk ring is less than half full. What may come without end and says least goes nowhere when it is not.
#[inline(always)]
pub fn bulk_has_room() -> bool {
    BULK.query(u64::from(BPF_RB_AVAIL_DATA)) < u64::from(ring_sizes().1 / 2)
}

/// Sends what must not be lost.
#[inline(always)]
pub fn vital(kind: u16, record: &[u8]) -> bool {
    send(&VITAL, ring_sizes().0, kind, record)
}

/// Sends the rest.
#[inline(always)]
pub fn bulk(kind: u16, record: &[u8]) -> bool {
    send(&BULK, ring_sizes().1, kind, record)
}

/// Lets `fill` put a record together in the bulk ring itself: for programs that may be preempted, to which per-CPU space is not safe.
#[inline(always)]
pub fn bulk_in_place<T: 'static>(kind: u16, fill: impl FnOnce(*mut T)) {
    match BULK.reserve::<T>(0) {
        Some(mut entry) => {
            fill(entry.as_mut_ptr());
            entry.submit(wake(&BULK, ring_sizes().1));
        }
        None => lost(kind),
    }
}

/// A fixed-size record as bytes.
#[inline(always)]
pub fn bytes<T>(record: &T) -> &[u8] {
    unsafe { core::slice::from_raw_parts(core::ptr::from_ref(record).cast(), size_of::<T>()) }
}
