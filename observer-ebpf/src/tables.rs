//! The maps: what is tracked, what is known of sockets, the two rings, and the space records are put together in.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, ProgramArray, RingBuf},
};
use observer_ebpf::{
    PYTHONS_MAX, Python, Socket, Thread,
    glob::Glob,
    kind,
    rule::{Rules, state},
};

/// Tracked processes by thread group id, and for whom: the user whose processes may be told of, 0 for those of all.
#[map]
pub static PROCESSES: HashMap<u32, u32> = HashMap::with_max_entries(16_384, 0);

/// Tracked threads by thread id.
#[map]
pub static THREADS: HashMap<u32, Thread> = HashMap::with_max_entries(65_536, 0);

/// Sockets of tracked processes by inode. Least recently used go first: a closed socket leaves no trace to remove it by.
#[map]
pub static SOCKETS: LruHashMap<u64, Socket> = LruHashMap::with_max_entries(16_384, 0);

/// Ports of known brokers, host order: connections to or from them are recorded from the first byte.
#[map]
pub static PORTS: HashMap<u16, u8> = HashMap::with_max_entries(64, 0);

/// Where things stand in the builds of CPython that are probed, by the probe's cookie.
#[map]
pub static PYTHONS: Array<Python> = Array::with_max_entries(PYTHONS_MAX, 0);

/// The rules that hold, and those that held before or will hold next.
#[map]
pub static RULES: Array<Rules> = Array::with_max_entries(2, 0);

/// What is counted or switched, at the places of [`state`].
#[map]
pub static STATE: Array<u64> = Array::with_max_entries(state::COUNT, 0);

/// Exec, exit, fork, connect: what a flood of the rest must not evict.
#[map]
pub static VITAL: RingBuf = RingBuf::with_byte_size(2 * 1024 * 1024, 0);

/// Files, payload, output.
#[map]
pub static BULK: RingBuf = RingBuf::with_byte_size(8 * 1024 * 1024, 0);

/// Failed reserves by kind.
#[map]
pub static LOST: PerCpuArray<[u64; kind::SLOTS]> = PerCpuArray::with_max_entries(1, 0);

/// Bytes of [`SCRATCH`]: the most a per-CPU value may have.
pub const SCRATCH_LEN: usize = 32 * 1024;

/// Where a record is put together before it is copied to a ring.
#[map]
pub static SCRATCH: PerCpuArray<[u8; SCRATCH_LEN]> = PerCpuArray::with_max_entries(1, 0);

/// The system call being handled on this CPU.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Call {
    pub now: u64,
    pub enter_ns: u64,
    pub nr: u32,
    pub flags: u32,
    /// State of [`crate::kernel::walk`].
    pub walk: Walk,
    /// Parameters of [`crate::stream`]'s piecewise copy, too many for a BPF call.
    pub carry: Carry,
    pub batch: Batch,
    /// State of [`crate::rules`].
    pub search: Search,
}

/// The messages of one call that are still to be looked at.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Batch {
    pub at: u64,
    pub left: u64,
    pub fd: i32,
    pub sent: u32,
}

/// Where a walk up a path stands.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Walk {
    pub pos: u64,
    pub mount: u64,
    pub dentry: u64,
    pub root_mount: u64,
    pub root_dentry: u64,
    pub whole: u64,
}

/// What [`crate::stream`] copies, and [`crate::process`] for arguments.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Carry {
    pub inode: u64,
    pub offset: u64,
    pub total: u64,
    pub limit: u64,
    pub done: u64,
    pub base: u64,
    pub left: u64,
    pub iov: u64,
    pub iov_count: u64,
    pub next: u64,
    pub fd: i32,
    pub mode: u32,
    pub kind: u32,
    pub flags: u32,
}

/// Part of the scratch space, from its first byte to behind its last.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Span {
    pub start: u32,
    pub end: u32,
}

/// Where the search for a rule stands.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Search {
    pub bprm: u64,
    pub glob: Glob,
    /// Which entry of `RULES` holds.
    pub holds: u32,
    /// The rule that is looked at, by its place.
    pub rule: u32,
    /// The id of the one that fits; 0: none so far.
    pub found: u32,
    pub uid: u32,
    /// Steps that are left.
    pub steps: u32,
    /// 1 when something could not be decided.
    pub undecided: u32,
    /// Where the scratch space is free.
    pub free: u32,
    /// The texts made so far; empty before.
    pub name: Span,
    pub exe: Span,
    pub args: Span,
    pub cgroup: Span,
    /// Of the file name, what is not yet taken apart.
    pub left: u32,
    /// Where the component ends that is being looked at.
    pub component_end: u32,
    /// 1 when the file's name is enough, without its folders.
    pub leaf_only: u32,
    pub pad: u32,
}

#[map]
pub static CALL: PerCpuArray<Call> = PerCpuArray::with_max_entries(1, 0);

/// What runs when a system call is entered, by number.
#[map]
pub static ENTER: ProgramArray = ProgramArray::with_max_entries(512, 0);

/// What runs when a system call returns, by number.
#[map]
pub static EXIT: ProgramArray = ProgramArray::with_max_entries(512, 0);
