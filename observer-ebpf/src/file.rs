//! Calls that name a file. A relative path is sent with the directory it starts from, as the kernel has it, so user space keeps no
//! table of working directories or descriptors.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use observer_ebpf::{FileCall, flag, kind};

use crate::{
    emit::{bulk, call_header, vital},
    kernel::{
        argument, at_most, call, current, file_of, offset, read, read_user, scratch, user_string, walk,
    },
    tables::SCRATCH_LEN,
};

const AT_FDCWD: i32 = -100;
const TAIL: u64 = size_of::<FileCall>() as u64;

/// Puts the record together: `path` is the address of the path, 0 for a call on the descriptor itself.
#[inline(always)]
fn record(ctx: &RawTracePointContext, kind: u16, path: u64, dirfd: i32, third: Option<u64>) {
    let (Some(space), Some(call)) = (scratch(), call()) else { return };
    let path_len = if path == 0 { 0 } else { user_string(TAIL, path) };
    let mut end = TAIL + path_len;
    let absolute = path_len > 0 && unsafe { *space.add(TAIL as usize) } == b'/';
    if !absolute {
        let base = if dirfd == AT_FDCWD {
            let fs: u64 = read(current(), offset!(task_fs));
            fs + u64::from(offset!(fs_pwd))
        } else {
            match file_of(dirfd) {
                0 => 0,
                file => file + u64::from(offset!(file_path)),
            }
        };
        if base != 0 {
            end = walk(end, base);
        } else {
            call.flags |= u32::from(flag::FAULT);
        }
    }
    let end = at_most(end, SCRATCH_LEN as u64);
    let record = space.cast::<FileCall>();
    let third = match third {
        Some(third) => third,
        None => argument(ctx, 2),
    };
    unsafe {
        (*record).header = call_header(kind);
        (*record).header.flags = call.flags as u16;
        (*record).ret = ctx.arg(1);
        (*record).args = [argument(ctx, 0), argument(ctx, 1), third, argument(ctx, 3)];
        (*record).path_len = path_len as u32;
        (*record).base_len = (end - TAIL - path_len) as u32;
        (*record).has_base = u32::from(!absolute);
        (*record).pad = 0;
        let record = core::slice::from_raw_parts(space, end as usize);
        if kind == kind::EXEC_FAILED {
            vital(kind, record);
        } else {
            bulk(kind, record);
        }
    }
}

/// `open`, `creat`, `stat`, `lstat`, `access`, `readlink`, `chdir`: the path comes first.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn file_path(ctx: RawTracePointContext) -> i32 {
    record(&ctx, kind::FILE, argument(&ctx, 0), AT_FDCWD, None);
    0
}

/// `openat`, `newfstatat`, `statx`, `faccessat`, `faccessat2`, `readlinkat`: a directory, then the path.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn file_at_path(ctx: RawTracePointContext) -> i32 {
    record(&ctx, kind::FILE, argument(&ctx, 1), argument(&ctx, 0) as i32, None);
    0
}

/// `openat2`: the flags stand in a structure.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn file_openat2(ctx: RawTracePointContext) -> i32 {
    let flags: u64 = read_user(argument(&ctx, 2));
    record(&ctx, kind::FILE, argument(&ctx, 1), argument(&ctx, 0) as i32, Some(flags));
    0
}

/// `fchdir`, `getdents`, `getdents64`: a descriptor only.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn file_fd(ctx: RawTracePointContext) -> i32 {
    record(&ctx, kind::FILE, 0, argument(&ctx, 0) as i32, None);
    0
}

/// `execve` that failed; one that succeeded is [`crate::process`]'s.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn execve_failed(ctx: RawTracePointContext) -> i32 {
    if ctx.arg::<i64>(1) < 0 {
        record(&ctx, kind::EXEC_FAILED, argument(&ctx, 0), AT_FDCWD, None);
    }
    0
}

/// `execveat` that failed.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn execveat_failed(ctx: RawTracePointContext) -> i32 {
    if ctx.arg::<i64>(1) < 0 {
        record(&ctx, kind::EXEC_FAILED, argument(&ctx, 1), argument(&ctx, 0) as i32, None);
    }
    0
}
