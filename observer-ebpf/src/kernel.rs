//! Reading the kernel: fields at offsets user space found in BTF, a descriptor's file, the components of a path. Every read can
//! fail and then gives zero, which no caller may take for an address.

use core::mem::MaybeUninit;

use aya_ebpf::{
    helpers::generated::{
        bpf_get_current_task, bpf_loop, bpf_probe_read_kernel, bpf_probe_read_kernel_str,
        bpf_probe_read_user, bpf_probe_read_user_str,
    },
    programs::RawTracePointContext,
};
use observer_ebpf::{ABSENT, Ends, FdFacts, Kernel, Processor, Settings, WALK_MAX, WATCHED_WORDS, flag};

use crate::tables::{CALL, Call, SCRATCH, SCRATCH_LEN, Walk};

#[unsafe(no_mangle)]
pub static KERNEL: Kernel = unsafe { MaybeUninit::zeroed().assume_init() };
#[unsafe(no_mangle)]
static PROCESSOR: Processor = unsafe { MaybeUninit::zeroed().assume_init() };
#[unsafe(no_mangle)]
static SETTINGS: Settings = unsafe { MaybeUninit::zeroed().assume_init() };

/// An offset from the tables user space filled. Volatile: the compiler sees only the zeros of this file.
macro_rules! offset {
    ($field:ident) => {
        unsafe { core::ptr::read_volatile(&raw const $crate::kernel::KERNEL.$field) }
    };
}
pub(crate) use offset;

/// What a round of [`rounds`] answers.
pub const AGAIN: i64 = 0;
/// See [`AGAIN`].
pub const STOP: i64 = 1;

/// Runs `round` up to `most` times. `bpf_loop`: the verifier walks one round, however many there are. State lives in [`CALL`].
/// Returns how many there were.
#[inline(always)]
pub fn rounds(most: usize, round: extern "C" fn(u64, u64) -> i64) -> u64 {
    let done = unsafe { bpf_loop(most as u32, round as *mut core::ffi::c_void, core::ptr::null_mut(), 0) };
    if done < 0 { 0 } else { done as u64 }
}

pub const S_IFMT: u32 = 0o170_000;
pub const S_IFSOCK: u32 = 0o140_000;
pub const S_IFIFO: u32 = 0o010_000;
pub const S_IFREG: u32 = 0o100_000;
pub const S_IFCHR: u32 = 0o020_000;
pub const S_IFDIR: u32 = 0o040_000;
pub const S_IFBLK: u32 = 0o060_000;
pub const AF_INET: u16 = 2;
pub const AF_INET6: u16 = 10;

/// `n`, at most `max`, in a form the verifier follows. Opaque to the compiler: it would keep `n` itself on the stack and compare a copy of
/// it, and the verifier of 6.1 learns nothing of the one from the other (seen on Debian's 6.1.0-56: "R3 min value is negative"); 6.18 does.
#[inline(always)]
pub fn at_most(n: u64, max: u64) -> u64 {
    core::hint::black_box(if n > max { max } else { n })
}

#[inline(always)]
pub fn settings_snaplen() -> u64 {
    unsafe { core::ptr::read_volatile(&raw const SETTINGS.snaplen) }
}

#[inline(always)]
pub fn ring_sizes() -> (u32, u32) {
    unsafe {
        (
            core::ptr::read_volatile(&raw const SETTINGS.vital_size),
            core::ptr::read_volatile(&raw const SETTINGS.bulk_size),
        )
    }
}

/// The kernel value at `base + offset`, zero when it cannot be read: the helper itself zeroes what it fails to fill.
#[inline(always)]
pub fn read<T: Copy>(base: u64, offset: u32) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    unsafe {
        bpf_probe_read_kernel(
            value.as_mut_ptr().cast(),
            size_of::<T>() as u32,
            (base + u64::from(offset)) as *const _,
        );
        value.assume_init()
    }
}

/// The user value at `address`, zero when it cannot be read.
#[inline(always)]
pub fn read_user<T: Copy>(address: u64) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    unsafe {
        bpf_probe_read_user(value.as_mut_ptr().cast(), size_of::<T>() as u32, address as *const _);
        value.assume_init()
    }
}

#[inline(always)]
pub fn current() -> u64 {
    unsafe { bpf_get_current_task() }
}

/// Thread group and thread of the current task.
#[inline(always)]
pub fn ids() -> (u32, u32) {
    let both = aya_ebpf::helpers::bpf_get_current_pid_tgid();
    ((both >> 32) as u32, both as u32)
}

/// The call this CPU handles.
#[inline(always)]
pub fn call() -> Option<&'static mut Call> {
    CALL.get_ptr_mut(0).map(|call| unsafe { &mut *call })
}

/// The `n`th argument of the system call whose registers a `sys_enter` or `sys_exit` context carries. The kernel keeps them as they
/// were on entry.
#[inline(always)]
pub fn argument(ctx: &RawTracePointContext, n: usize) -> u64 {
    let offset = unsafe { core::ptr::read_volatile(&raw const PROCESSOR.args[n]) };
    read(ctx.arg(0), offset)
}

/// The number of the system call in the registers.
#[inline(always)]
pub fn number(ctx: &RawTracePointContext) -> u32 {
    read::<u64>(ctx.arg(0), unsafe { core::ptr::read_volatile(&raw const PROCESSOR.nr) }) as u32
}

/// Whether a system call has a program of its own.
#[inline(always)]
pub fn is_watched(nr: u32) -> bool {
    let word = (nr / u64::BITS) as usize & (WATCHED_WORDS - 1);
    let bits = unsafe { core::ptr::read_volatile((&raw const PROCESSOR.watched).cast::<u64>().add(word)) };
    bits >> (nr % u64::BITS) & 1 != 0
}

#[inline(always)]
pub fn is_exec(nr: u32) -> bool {
    let (execve, execveat) = unsafe {
        (
            core::ptr::read_volatile(&raw const PROCESSOR.execve),
            core::ptr::read_volatile(&raw const PROCESSOR.execveat),
        )
    };
    nr == execve || nr == execveat
}

/// Whether the current task is in a 32-bit system call, whose numbers mean other calls (`TS_COMPAT`, arch/x86/include/asm/thread_info.h).
#[inline(always)]
pub fn is_compat() -> bool {
    const TS_COMPAT: u32 = 2;
    read::<u32>(current(), offset!(task_status)) & TS_COMPAT != 0
}

/// The file behind a descriptor of the current task; 0 when it is closed.
#[inline(always)]
pub fn file_of(fd: i32) -> u64 {
    let files: u64 = read(current(), offset!(task_files));
    let table: u64 = read(files, offset!(files_fdt));
    let max: u32 = read(table, offset!(fdt_max_fds));
    if fd < 0 || fd as u32 >= max {
        return 0;
    }
    let array: u64 = read(table, offset!(fdt_fd));
    read(array + u64::from(fd as u32) * 8, 0)
}

/// Mode and inode number of a file.
#[inline(always)]
pub fn mode_and_inode(file: u64) -> (u32, u64) {
    let inode: u64 = read(file, offset!(file_inode));
    (u32::from(read::<u16>(inode, offset!(inode_mode))), read(inode, offset!(inode_ino)))
}

/// Kernel socket (`sock`) of a file that is a socket.
#[inline(always)]
pub fn sock_of(file: u64) -> u64 {
    let socket: u64 = read(file, offset!(file_private_data));
    read(socket, offset!(socket_sk))
}

/// Inode number of a `sock`, 0 when no descriptor leads to it any more.
#[inline(always)]
pub fn inode_of_sock(sock: u64) -> u64 {
    let socket: u64 = read(sock, offset!(sock_socket));
    if socket == 0 {
        return 0;
    }
    let file: u64 = read(socket, offset!(socket_file));
    if file == 0 {
        return 0;
    }
    mode_and_inode(file).1
}

/// Both ends of an internet socket.
#[inline(always)]
pub fn ends_of(sock: u64, ends: &mut Ends) {
    let family: u16 = read(sock, offset!(skc_family));
    ends.family = family;
    ends.pad = 0;
    ends.local_port = read(sock, offset!(skc_num));
    ends.peer_port = u16::from_be(read(sock, offset!(skc_dport)));
    ends.local = [0; 16];
    ends.peer = [0; 16];
    if family == AF_INET {
        let local: [u8; 4] = read(sock, offset!(skc_rcv_saddr));
        let peer: [u8; 4] = read(sock, offset!(skc_daddr));
        ends.local[..4].copy_from_slice(&local);
        ends.peer[..4].copy_from_slice(&peer);
    } else if family == AF_INET6 {
        ends.local = read(sock, offset!(skc_v6_rcv_saddr));
        ends.peer = read(sock, offset!(skc_v6_daddr));
    } else {
        ends.family = 0;
    }
}

/// Start of the scratch space.
#[inline(always)]
pub fn scratch() -> Option<*mut u8> {
    SCRATCH.get_ptr_mut(0).map(|space| space.cast())
}

/// Copies a string from user memory to `pos` in the scratch space and returns its length without NUL; `PATH_MAX` at most.
#[inline(always)]
pub fn user_string(pos: u64, address: u64) -> u64 {
    let (Some(space), Some(call)) = (scratch(), call()) else { return 0 };
    if pos > (SCRATCH_LEN - 4096) as u64 {
        return 0;
    }
    let n = unsafe { bpf_probe_read_user_str(space.add(pos as usize).cast(), 4096, address as *const _) };
    if n <= 0 {
        call.flags |= u32::from(flag::FAULT);
        return 0;
    }
    at_most(n as u64 - 1, 4095)
}

/// Copies a kernel string likewise.
#[inline(always)]
pub fn kernel_string(pos: u64, address: u64) -> u64 {
    let Some(space) = scratch() else { return 0 };
    if pos > (SCRATCH_LEN - 4096) as u64 {
        return 0;
    }
    let n = unsafe { bpf_probe_read_kernel_str(space.add(pos as usize).cast(), 4096, address as *const _) };
    if n <= 0 {
        return 0;
    }
    at_most(n as u64 - 1, 4095)
}

/// Writes the components of a directory or file, leaf first, each ended by NUL, to `pos` in the scratch space; returns where it
/// stopped. `path` is the address of a `struct path`. As `d_path` does, it stops at the root of the current task.
#[inline(always)]
pub fn walk(pos: u64, path: u64) -> u64 {
    let Some(call) = call() else { return pos };
    let fs: u64 = read(current(), offset!(task_fs));
    call.walk = Walk {
        pos,
        mount: read(path, offset!(path_mnt)),
        dentry: read(path, offset!(path_dentry)),
        root_mount: read(fs + u64::from(offset!(fs_root)), offset!(path_mnt)),
        root_dentry: read(fs + u64::from(offset!(fs_root)), offset!(path_dentry)),
        whole: 0,
    };
    rounds(WALK_MAX, step);
    if call.walk.whole == 0 {
        call.flags |= u32::from(flag::CUT);
    }
    call.walk.pos
}

/// One component, or one mount point crossed.
extern "C" fn step(_round: u64, _: u64) -> i64 {
    let (Some(space), Some(call)) = (scratch(), call()) else { return STOP };
    let walk = &mut call.walk;
    if walk.dentry == 0 || (walk.dentry == walk.root_dentry && walk.mount == walk.root_mount) {
        walk.whole = 1;
        return STOP;
    }
    let parent: u64 = read(walk.dentry, offset!(dentry_parent));
    let top: u64 = read(walk.mount, offset!(vfsmount_root));
    if walk.dentry == top || walk.dentry == parent {
        let here = walk.mount - u64::from(offset!(mount_mnt));
        let above: u64 = read(here, offset!(mount_parent));
        if above == here || above == 0 {
            walk.whole = 1;
            return STOP;
        }
        walk.dentry = read(here, offset!(mount_mountpoint));
        walk.mount = above + u64::from(offset!(mount_mnt));
        return AGAIN;
    }
    let pos = walk.pos;
    if pos > (SCRATCH_LEN - 256) as u64 {
        return STOP;
    }
    let name: u64 = read(walk.dentry, offset!(dentry_name));
    let n = unsafe { bpf_probe_read_kernel_str(space.add(pos as usize).cast(), 256, name as *const _) };
    if n <= 0 {
        return STOP;
    }
    walk.pos = pos + n as u64;
    walk.dentry = parent;
    AGAIN
}

/// Writes the components of the current task's cgroup (version 2) likewise. `None` when this kernel's cgroups are unknown.
#[inline(always)]
pub fn walk_cgroup(pos: u64) -> Option<u64> {
    let (cgroups, cgroup, node) = (offset!(task_cgroups), offset!(css_set_cgroup), offset!(cgroup_node));
    let (name, parent) = (offset!(node_name), offset!(node_parent));
    if cgroups == ABSENT || cgroup == ABSENT || node == ABSENT || name == ABSENT || parent == ABSENT {
        return None;
    }
    let call = call()?;
    let set: u64 = read(current(), cgroups);
    let first: u64 = read(read::<u64>(set, cgroup), node);
    call.walk = Walk { pos, mount: 0, dentry: first, root_mount: 0, root_dentry: 0, whole: 0 };
    rounds(WALK_MAX, step_cgroup);
    if call.walk.whole == 0 {
        call.flags |= u32::from(flag::CUT);
    }
    Some(call.walk.pos)
}

/// One component.
extern "C" fn step_cgroup(_round: u64, _: u64) -> i64 {
    let (Some(space), Some(call)) = (scratch(), call()) else { return STOP };
    let walk = &mut call.walk;
    if walk.dentry == 0 {
        return STOP;
    }
    let parent: u64 = read(walk.dentry, offset!(node_parent));
    if parent == 0 {
        // The root, which has no name.
        walk.whole = 1;
        return STOP;
    }
    let pos = walk.pos;
    if pos > (SCRATCH_LEN - 256) as u64 {
        return STOP;
    }
    let name: u64 = read(walk.dentry, offset!(node_name));
    let n = unsafe { bpf_probe_read_kernel_str(space.add(pos as usize).cast(), 256, name as *const _) };
    if n <= 0 {
        return STOP;
    }
    walk.pos = pos + n as u64;
    walk.dentry = parent;
    AGAIN
}

/// What a descriptor leads to; its path goes to `pos` in the scratch space when it has one worth walking. Returns where that ended.
#[inline(always)]
pub fn describe_fd(fd: i32, facts: &mut FdFacts, pos: u64) -> u64 {
    *facts = FdFacts { inode: 0, rdev: 0, mode: 0, path_len: 0, pad: 0 };
    let file = file_of(fd);
    if file == 0 {
        return pos;
    }
    let inode: u64 = read(file, offset!(file_inode));
    facts.mode = u32::from(read::<u16>(inode, offset!(inode_mode)));
    facts.inode = read(inode, offset!(inode_ino));
    facts.rdev = read(inode, offset!(inode_rdev));
    let kind = facts.mode & S_IFMT;
    if kind != S_IFREG && kind != S_IFCHR && kind != S_IFDIR && kind != S_IFBLK {
        return pos;
    }
    let end = walk(pos, file + u64::from(offset!(file_path)));
    facts.path_len = (end - pos) as u32;
    end
}
