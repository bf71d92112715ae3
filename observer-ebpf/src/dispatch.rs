//! Entry and return of every system call: is the thread ours, when did it enter, and on to the program for that call.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use observer_ebpf::{SLOW_NS, Slow, Thread, kind};

use crate::{
    emit::{bulk, bytes, call_header, now, ticks},
    kernel::{call, ids, is_compat, is_exec, is_watched, number},
    rules::idle,
    tables::{ENTER, EXIT, THREADS},
};

/// Ticks below which no call can have lasted [`SLOW_NS`]: the slowest kernels tick a hundred times a second.
const QUICK_TICKS: u64 = 90;

/// In no call.
pub const NONE: i32 = -1;
/// In a call since before we looked.
pub const SINCE_ATTACH: i32 = -2;

/// `sys_enter(struct pt_regs *regs, long id)`
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn sys_enter(ctx: RawTracePointContext) -> i32 {
    if idle() {
        return 0;
    }
    let Some(thread) = THREADS.get_ptr_mut(ids().1) else { return 0 };
    if is_compat() {
        unsafe { (*thread).nr = NONE };
        return 0;
    }
    let nr: i64 = ctx.arg(1);
    let time = now();
    unsafe {
        (*thread).nr = nr as i32;
        (*thread).enter_ns = time;
        (*thread).enter_ticks = ticks();
        if (*thread).armed != 0 || !is_watched(nr as u32) {
            return 0;
        }
    }
    let Some(call) = call() else { return 0 };
    call.now = time;
    call.enter_ns = time;
    call.nr = nr as u32;
    call.flags = 0;
    unsafe { ENTER.tail_call(&ctx, nr as u32) };
    0
}

/// `sys_exit(struct pt_regs *regs, long ret)`
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn sys_exit(ctx: RawTracePointContext) -> i32 {
    if idle() {
        return 0;
    }
    let Some(thread) = THREADS.get_ptr_mut(ids().1) else { return 0 };
    let Thread { enter_ns, enter_ticks, nr, armed, .. } = unsafe { *thread };
    unsafe { (*thread).nr = NONE };
    if nr == NONE {
        return 0;
    }
    let nr = if nr == SINCE_ATTACH { number(&ctx) } else { nr as u32 };
    if armed != 0 && !is_exec(nr) {
        return 0;
    }
    // Most calls are none that anything is recorded of, and over at once: they are not worth the exact time.
    if !is_watched(nr) && ticks() - enter_ticks < QUICK_TICKS {
        return 0;
    }
    let Some(call) = call() else { return 0 };
    let time = now();
    call.now = time;
    call.enter_ns = enter_ns;
    call.nr = nr;
    call.flags = 0;
    if time - enter_ns > SLOW_NS && armed == 0 {
        let record = Slow { header: call_header(kind::SLOW), ret: ctx.arg(1) };
        bulk(kind::SLOW, bytes(&record));
    }
    unsafe { EXIT.tail_call(&ctx, nr) };
    0
}
