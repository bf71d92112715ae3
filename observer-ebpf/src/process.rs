//! Processes and threads: how they come, what they become, how they go.

use aya_ebpf::{
    helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_kernel_str, bpf_probe_read_user},
    macros::raw_tracepoint,
    programs::RawTracePointContext,
};
use observer_ebpf::{
    ABSENT, ARGS_CHUNKS, Args, CHUNK, Exec, Exit, ExitCall, Fork, GROUPS_MAX, Header, RLIMITS, Thread,
    VITAL_ARGS, flag, kind,
};

use crate::{
    dispatch::NONE,
    emit::{bulk, bytes, call_header, header, lost, vital, vital_has_room},
    kernel::{
        AGAIN, STOP, argument, at_most, call, current, describe_fd, ids, kernel_string, offset, read, rounds,
        scratch, walk, walk_cgroup,
    },
    rules::{self, entered, idle},
    tables::{PROCESSES, SCRATCH_LEN, THREADS},
};

const SIGNAL_GROUP_EXIT: u32 = 4;
/// `MMF_DUMPABLE_MASK` (`include/linux/sched/coredump.h`, since 6.18 `include/linux/mm_types.h`).
const DUMPABLE: u32 = 3;
/// `SUID_DUMP_USER`, there too.
const SUID_DUMP_USER: u32 = 1;

/// `sched_process_fork(struct task_struct *parent, struct task_struct *child)`
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn sched_process_fork(ctx: RawTracePointContext) -> i32 {
    let (tgid, tid) = ids();
    if idle() {
        return 0;
    }
    let Some(owner) = PROCESSES.get_ptr(tgid) else { return 0 };
    let owner = unsafe { *owner };
    let child: u64 = ctx.arg(1);
    let child_tgid: u32 = read(child, offset!(task_tgid));
    let child_tid: u32 = read(child, offset!(task_pid));
    // A child goes on in its parent's image, a thread has a state of its own.
    let python = match THREADS.get_ptr(tid) {
        Some(parent) if child_tgid != tgid => unsafe { (*parent).python },
        _ => 0,
    };
    let thread = Thread { enter_ns: 0, enter_ticks: 0, nr: NONE, armed: 0, python };
    if THREADS.insert(child_tid, thread, 0).is_err()
        || (child_tgid != tgid && PROCESSES.insert(child_tgid, owner, 0).is_err())
    {
        lost(kind::TABLE);
    }
    let mut record = Fork { header: header(kind::FORK), child_tgid, child_tid };
    if child_tgid == tgid {
        record.header.flags = flag::THREAD;
    }
    vital(kind::FORK, bytes(&record));
    0
}

/// `sched_process_exec(struct task_struct *task, pid_t old_pid, struct linux_binprm *bprm)`
///
/// Runs in the new image before its first instruction: what it was given stands on its stack, untouched.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn sched_process_exec(ctx: RawTracePointContext) -> i32 {
    let (tgid, tid) = ids();
    let tracked = if idle() { None } else { PROCESSES.get_ptr(tgid).map(|owner| unsafe { *owner }) };
    let mut rule = 0;
    let mut owner = tracked.unwrap_or(0);
    if tracked.is_none() {
        rule = rules::fitting(ctx.arg(2));
        if rule == 0 {
            return 0;
        }
        entered();
        owner = own_user();
        if PROCESSES.insert(tgid, owner, 0).is_err() {
            lost(kind::TABLE);
            return 0;
        }
    }
    let old_tid: u32 = ctx.arg(1);
    // A thread that is not the leader takes the leader's id.
    if old_tid != tid {
        let _ = THREADS.remove(old_tid);
    }
    if THREADS.insert(tid, Thread { enter_ns: 0, enter_ticks: 0, nr: NONE, armed: 0, python: 0 }, 0).is_err()
    {
        lost(kind::TABLE);
    }
    let (Some(space), Some(call)) = (scratch(), call()) else { return 0 };
    call.flags = 0;
    let bprm: u64 = ctx.arg(2);
    let task = current();
    let exec = space.cast::<Exec>();
    let exec = unsafe { &mut *exec };
    exec.header = header(kind::EXEC);
    exec.old_tid = old_tid;
    exec.rule = rule;
    exec.pad = 0;
    let parent: u64 = read(task, offset!(task_real_parent));
    exec.ppid = read(parent, offset!(task_tgid));
    exec.argc = read(bprm, offset!(bprm_argc));
    exec.envc = read(bprm, offset!(bprm_envc));

    let mm: u64 = read(task, offset!(task_mm));
    let start: u64 = read(mm, offset!(mm_arg_start));
    let arg_end: u64 = read(mm, offset!(mm_arg_end));
    let env_end: u64 = read(mm, offset!(mm_env_end));
    exec.arg_len = arg_end - start;
    exec.env_len = env_end - arg_end;
    exec.dumpable = match offset!(mm_flags) {
        ABSENT => ABSENT,
        flags => read::<u32>(mm, flags) & DUMPABLE,
    };

    let cred: u64 = read(task, offset!(task_cred));
    exec.uid = read(cred, offset!(cred_uid));
    exec.gid = read(cred, offset!(cred_gid));
    exec.euid = read(cred, offset!(cred_euid));
    exec.egid = read(cred, offset!(cred_egid));
    let groups: u64 = read(cred, offset!(cred_group_info));
    exec.ngroups = read(groups, offset!(group_info_ngroups));
    let group_bytes = at_most(u64::from(exec.ngroups) * 4, (GROUPS_MAX * 4) as u64);
    let fs: u64 = read(task, offset!(task_fs));
    exec.umask = read(fs, offset!(fs_umask));
    let signal: u64 = read(task, offset!(task_signal));
    let tty: u64 = read(signal, offset!(signal_tty));
    let group_ids = groups + u64::from(offset!(group_info_gid));
    let limits = signal + u64::from(offset!(signal_rlim));
    let tty_name = tty + u64::from(offset!(tty_name));
    exec.tty[0] = 0;
    unsafe {
        bpf_probe_read_kernel(exec.groups.as_mut_ptr().cast(), group_bytes as u32, group_ids as *const _);
        bpf_probe_read_kernel(exec.limits.as_mut_ptr().cast(), (RLIMITS * 16) as u32, limits as *const _);
        if tty != 0 {
            bpf_probe_read_kernel_str(exec.tty.as_mut_ptr().cast(), 64, tty_name as *const _);
        }
    }

    let mut pos = size_of::<Exec>() as u64;
    let name_len = kernel_string(pos, read(bprm, offset!(bprm_filename)));
    exec.name_len = name_len as u32;
    pos += name_len;
    let file: u64 = read(mm, offset!(mm_exe_file));
    let inode: u64 = read(file, offset!(file_inode));
    exec.exe_inode = read(inode, offset!(inode_ino));
    exec.exe_dev = read(read::<u64>(inode, offset!(inode_sb)), offset!(sb_dev));
    let end = walk(pos, file + u64::from(offset!(file_path)));
    exec.exe_len = (end - pos) as u32;
    pos = end;
    let end = walk(pos, fs + u64::from(offset!(fs_pwd)));
    exec.cwd_len = (end - pos) as u32;
    pos = end;
    pos = describe_fd(0, &mut exec.stdio[0], pos);
    pos = describe_fd(1, &mut exec.stdio[1], pos);
    pos = describe_fd(2, &mut exec.stdio[2], pos);
    exec.cgroup_len = match walk_cgroup(pos) {
        Some(end) => {
            let len = (end - pos) as u32;
            pos = end;
            len
        }
        None => ABSENT,
    };
    exec.header.flags = call.flags as u16;
    let at_ns = exec.header.at_ns;
    let len = at_most(pos, SCRATCH_LEN as u64);
    vital(kind::EXEC, unsafe { core::slice::from_raw_parts(space, len as usize) });

    arguments(at_ns, start, env_end - start);
    if owner != 0 && own_user() != owner {
        // What it does as somebody else is not for its old user to know. What it was given was theirs to give.
        let _ = THREADS.remove(tid);
        let _ = PROCESSES.remove(tgid);
    }
    0
}

/// The user whose program the current task runs, if the kernel lets them look into it; else 0, as for root. `ptrace(2)`, "Ptrace access mode
/// checking": all ids are one, and the program is dumpable, which one that gives rights by its file is not (fs/exec.c, begin_new_exec).
#[inline(always)]
fn own_user() -> u32 {
    let task = current();
    let cred: u64 = read(task, offset!(task_cred));
    let uid: u32 = read(cred, offset!(cred_uid));
    let gid: u32 = read(cred, offset!(cred_gid));
    let same = uid == read::<u32>(cred, offset!(cred_euid)) && gid == read::<u32>(cred, offset!(cred_egid));
    let dumpable = match offset!(mm_flags) {
        ABSENT => false,
        flags => read::<u32>(read(task, offset!(task_mm)), flags) & DUMPABLE == SUID_DUMP_USER,
    };
    if same && dumpable { uid } else { 0 }
}

/// Sends the range that holds arguments and environment, piece by piece.
#[inline(always)]
fn arguments(at_ns: u64, start: u64, total: u64) {
    let Some(call) = call() else { return };
    call.now = at_ns;
    call.carry.base = start;
    call.carry.left = total;
    call.carry.done = 0;
    rounds(ARGS_CHUNKS, argument_piece);
}

extern "C" fn argument_piece(_round: u64, _: u64) -> i64 {
    let (Some(space), Some(call)) = (scratch(), call()) else { return STOP };
    let range = &mut call.carry;
    if range.left == 0 {
        return STOP;
    }
    let len = at_most(range.left, CHUNK as u64);
    let tail = unsafe { space.add(size_of::<Args>()) };
    let failed = unsafe { bpf_probe_read_user(tail.cast(), len as u32, range.base as *const _) } != 0;
    let (tgid, tid) = ids();
    let record = unsafe { &mut *space.cast::<Args>() };
    record.header = Header { kind: kind::ARGS, flags: 0, nr: 0, at_ns: call.now, enter_ns: 0, tgid, tid };
    if failed {
        record.header.flags = flag::FAULT;
    }
    record.offset = range.done;
    record.len = len as u32;
    record.pad = 0;
    let record = unsafe { core::slice::from_raw_parts(space, size_of::<Args>() + len as usize) };
    // The first piece holds the arguments, and for most programs the environment too.
    if range.done == 0 || (range.done < VITAL_ARGS && vital_has_room()) {
        vital(kind::ARGS, record);
    } else {
        bulk(kind::ARGS, record);
    }
    range.base += len;
    range.left -= len;
    range.done += len;
    AGAIN
}

/// `sched_process_exit(struct task_struct *task)`
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn sched_process_exit(_ctx: RawTracePointContext) -> i32 {
    let (tgid, tid) = ids();
    if idle() || THREADS.remove(tid).is_err() {
        return 0;
    }
    let task = current();
    let signal: u64 = read(task, offset!(task_signal));
    let live: i32 = read(signal, offset!(signal_live));
    let mut record = Exit {
        header: header(kind::EXIT),
        code: read(task, offset!(task_exit_code)),
        group_code: 0,
        last: 0,
        pad: 0,
    };
    // Two last threads can both see none alive; whoever removes the process speaks for it.
    if live == 0 && PROCESSES.remove(tgid).is_ok() {
        record.last = 1;
        record.group_code = if read::<u32>(signal, offset!(signal_flags)) & SIGNAL_GROUP_EXIT != 0 {
            read(signal, offset!(signal_group_exit_code))
        } else {
            let leader: u64 = read(task, offset!(task_group_leader));
            read(leader, offset!(task_exit_code))
        };
    }
    vital(kind::EXIT, bytes(&record));
    0
}

/// `exit` and `exit_group`, on entry: they do not return.
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn exit_call(ctx: RawTracePointContext) -> i32 {
    let record = ExitCall { header: call_header(kind::EXIT_CALL), code: argument(&ctx, 0) as u32, pad: 0 };
    vital(kind::EXIT_CALL, bytes(&record));
    0
}
