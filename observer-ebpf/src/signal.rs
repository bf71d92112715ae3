//! Signals, and who sent them. `signal_generate` may run in an interrupt that came in the middle of another program: it uses neither
//! the scratch space nor the call.

use aya_ebpf::{
    helpers::{bpf_get_current_comm, generated::bpf_probe_read_user},
    macros::raw_tracepoint,
    programs::RawTracePointContext,
};
use observer_ebpf::{CMDLINE_MAX, Deliver, Header, Oom, Signal, kind};

use crate::{
    emit::{bytes, header, lost, now, vital},
    kernel::{at_most, current, ids, offset, read},
    tables::{PROCESSES, THREADS, VITAL},
};

/// `SEND_SIG_PRIV`: the kernel itself.
const KERNEL: u64 = 1;

/// `signal_generate(int sig, struct kernel_siginfo *info, struct task_struct *task, int group, int result)`
#[raw_tracepoint(tracepoint = "signal_generate")]
pub fn signal_generate(ctx: RawTracePointContext) -> i32 {
    let task: u64 = ctx.arg(2);
    let tgid: u32 = read(task, offset!(task_tgid));
    if PROCESSES.get_ptr(tgid).is_none() {
        return 0;
    }
    let info: u64 = ctx.arg(1);
    let code: i32 = match info {
        0 => 0,
        KERNEL => 0x80,
        info => read(info, offset!(si_code)),
    };
    let Some(mut entry) = VITAL.reserve::<Signal>(0) else {
        lost(kind::SIGNAL);
        return 0;
    };
    let record = unsafe { &mut *entry.as_mut_ptr() };
    record.header = Header {
        kind: kind::SIGNAL,
        flags: 0,
        nr: 0,
        at_ns: now(),
        enter_ns: 0,
        tgid,
        tid: read(task, offset!(task_pid)),
    };
    record.signal = ctx.arg(0);
    record.code = code;
    record.group = u32::from(ctx.arg::<i32>(3) != 0);
    record.result = ctx.arg(4);
    record.cmdline_len = 0;
    record.sender = 0;
    record.comm = [0; 16];
    record.pad = [0; 2];
    // A positive code means the kernel: whoever runs is not the sender.
    if code <= 0 {
        record.sender = ids().0;
        record.comm = bpf_get_current_comm().unwrap_or([0; 16]);
        let mm: u64 = read(current(), offset!(task_mm));
        let start: u64 = read(mm, offset!(mm_arg_start));
        let end: u64 = read(mm, offset!(mm_arg_end));
        let len = at_most(end - start, CMDLINE_MAX as u64);
        let failed =
            unsafe { bpf_probe_read_user(record.cmdline.as_mut_ptr().cast(), len as u32, start as *const _) }
                != 0;
        record.cmdline_len = if failed { 0 } else { len as u32 };
    }
    entry.submit(0);
    0
}

/// `signal_deliver(int sig, struct kernel_siginfo *info, struct k_sigaction *ka)`
#[raw_tracepoint(tracepoint = "signal_deliver")]
pub fn signal_deliver(ctx: RawTracePointContext) -> i32 {
    if THREADS.get_ptr(ids().1).is_none() {
        return 0;
    }
    // `sa_handler` comes first; 0 and 1 are SIG_DFL and SIG_IGN.
    let handler: u64 = read(ctx.arg(2), 0);
    let record =
        Deliver { header: header(kind::DELIVER), signal: ctx.arg(0), handled: u32::from(handler > 1) };
    vital(kind::DELIVER, bytes(&record));
    0
}

/// `mark_victim(struct task_struct *task, uid_t uid)`, before 6.8 `mark_victim(int pid)`
#[raw_tracepoint(tracepoint = "mark_victim")]
pub fn mark_victim(ctx: RawTracePointContext) -> i32 {
    let subject: u64 = ctx.arg(0);
    let tid: u32 =
        if subject > u64::from(u32::MAX) { read(subject, offset!(task_pid)) } else { subject as u32 };
    if PROCESSES.get_ptr(tid).is_none() && THREADS.get_ptr(tid).is_none() {
        return 0;
    }
    let tgid = if subject > u64::from(u32::MAX) { read(subject, offset!(task_tgid)) } else { tid };
    let record =
        Oom { header: Header { kind: kind::OOM, flags: 0, nr: 0, at_ns: now(), enter_ns: 0, tgid, tid } };
    vital(kind::OOM, bytes(&record));
    0
}
