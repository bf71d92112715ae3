//! Imports of CPython: where every import statement enters (`PyImport_ImportModuleLevelObject`), and at two places inside
//! `import_find_and_load` (Python/import.c) that user space found: where it audits the import, and where
//! `importlib._bootstrap._find_and_load` has returned. What is in `sys.modules` already never gets to those.
//!
//! A uprobe's program can be preempted by another on the same processor: it uses no per-CPU space.

use aya_ebpf::{
    helpers::generated::{bpf_get_attach_cookie, bpf_probe_read_user, bpf_probe_read_user_str},
    macros::uprobe,
    programs::ProbeContext,
};
use observer_ebpf::{
    EXCEPTION_MAX, FUNCTION_MAX, IMPORTER_MAX, ImportEnd, ImportStart, MODULE_MAX, Python, Text, flag, kind,
};

use crate::{
    emit::{bulk, bulk_has_room, bulk_in_place, bytes, header, lost},
    kernel::{at_most, ids, read_user},
    tables::{PYTHONS, THREADS},
};

/// In `PyASCIIObject` since 3.3 (Include/cpython/unicodeobject.h): length, and the bits that tell how characters are stored.
const LENGTH: u64 = 16;
const STATE: u64 = 32;

const ABSENT: Text = Text { len: 0, width: 0 };

/// Copies the characters of a `str` to `to`.
#[inline(always)]
fn text(python: &Python, object: u64, to: *mut u8, most: u64, flags: &mut u16) -> Text {
    if object == 0 {
        return ABSENT;
    }
    let length: u64 = read_user(object + LENGTH);
    let state: u32 = read_user(object + STATE);
    // Behind `interned`: kind:3, compact:1, ascii:1. What is left of the word is not initialised.
    let state = state >> (python.interned_bits & 31);
    let width = state & 7;
    let (compact, ascii) = (state >> 3 & 1 != 0, state >> 4 & 1 != 0);
    if !compact || length > 1 << 20 || !(width == 1 || width == 2 || width == 4) {
        *flags |= flag::FAULT;
        return ABSENT;
    }
    let data = object + u64::from(if ascii { python.ascii } else { python.compact });
    let whole = length * u64::from(width);
    let len = at_most(whole, most);
    if len < whole {
        *flags |= flag::CUT;
    }
    if unsafe { bpf_probe_read_user(to.cast(), len as u32, data as *const _) } != 0 {
        *flags |= flag::FAULT;
        return ABSENT;
    }
    Text { len: len as u32, width }
}

/// The code object the thread runs; 0 when it runs none, or it cannot be known.
#[inline(always)]
fn running_code(python: &Python, thread_state: u64) -> u64 {
    if python.filename == 0 {
        return 0;
    }
    let mut frame: u64 = read_user(thread_state + u64::from(python.frame));
    if python.has_inner != 0 && frame != 0 {
        frame = read_user(frame + u64::from(python.inner));
    }
    if frame == 0 {
        return 0;
    }
    // From 3.14 on the lowest bits of a reference are a tag.
    read_user::<u64>(frame + u64::from(python.code)) & !3
}

/// Sends what is asked for, and whose code asks. `thread_state`: 0 when it is not known, and then neither is that.
#[inline(always)]
fn asked(ctx: &ProbeContext, kind: u16, thread_state: u64, name: u64, level: u64) {
    let slot = unsafe { bpf_get_attach_cookie(ctx.regs.cast()) } as u32;
    let Some(python) = PYTHONS.get(slot) else { return };
    let stack = unsafe { (*ctx.regs).rsp };
    bulk_in_place::<ImportStart>(kind, |record| {
        let mut flags = 0;
        let record = unsafe { &mut *record };
        record.header = header(kind);
        record.stack = stack;
        record.level = level;
        record.module = text(python, name, record.module_text.as_mut_ptr(), MODULE_MAX as u64, &mut flags);
        record.header.flags = flags;
        // Of these a cut shows in their length.
        let code = if thread_state == 0 { 0 } else { running_code(python, thread_state) };
        let (mut file, mut function) = (0, 0);
        if code != 0 {
            file = read_user(code + u64::from(python.filename));
            function = read_user(code + u64::from(python.name));
        }
        record.importer =
            text(python, file, record.importer_text.as_mut_ptr(), IMPORTER_MAX as u64, &mut flags);
        record.function =
            text(python, function, record.function_text.as_mut_ptr(), FUNCTION_MAX as u64, &mut flags);
    });
}

/// `PyImport_ImportModuleLevelObject(name, globals, locals, fromlist, int level)`
#[uprobe]
pub fn import_call(ctx: ProbeContext) -> u32 {
    let Some(thread) = THREADS.get_ptr(ids().1) else { return 0 };
    let (Some(name), Some(level)) = (ctx.arg::<u64>(0), ctx.arg::<u64>(4)) else { return 0 };
    if !bulk_has_room() {
        lost(kind::IMPORT_CALL);
        return 0;
    }
    asked(&ctx, kind::IMPORT_CALL, unsafe { (*thread).python }, name, u64::from(level as u32));
    0
}

/// At the call of `_PySys_Audit(tstate, "import", "OOOOO", abs_name, …)`.
#[uprobe]
pub fn import_start(ctx: ProbeContext) -> u32 {
    let Some(thread) = THREADS.get_ptr_mut(ids().1) else { return 0 };
    let (Some(thread_state), Some(name)) = (ctx.arg::<u64>(0), ctx.arg::<u64>(3)) else { return 0 };
    unsafe { (*thread).python = thread_state };
    asked(&ctx, kind::IMPORT_START, thread_state, name, 0);
    0
}

/// Behind the call of `PyObject_CallMethodObjArgs(importlib, "_find_and_load", abs_name, import_func, NULL)`.
#[uprobe]
pub fn import_end(ctx: ProbeContext) -> u32 {
    let Some(thread) = THREADS.get_ptr(ids().1) else { return 0 };
    let (stack, module) = unsafe { ((*ctx.regs).rsp, (*ctx.regs).rax) };
    let mut record =
        ImportEnd { header: header(kind::IMPORT_END), stack, module, exception: [0; EXCEPTION_MAX] };
    if module == 0 {
        let slot = unsafe { bpf_get_attach_cookie(ctx.regs.cast()) } as u32;
        if let Some(python) = PYTHONS.get(slot) {
            raised(python, unsafe { (*thread).python }, &mut record.exception);
        }
    }
    bulk(kind::IMPORT_END, bytes(&record));
    0
}

/// In `PyObject` and `PyTypeObject` since Python 3.0, with a GIL (Include/object.h, Include/cpython/object.h).
const TYPE: u64 = 8;
const TYPE_NAME: u64 = 24;

/// The name of the type of the exception that a thread is raising.
#[inline(always)]
fn raised(python: &Python, thread_state: u64, name: &mut [u8; EXCEPTION_MAX]) {
    if python.exception == 0 || thread_state == 0 {
        return;
    }
    let exception: u64 = read_user(thread_state + u64::from(python.exception));
    let kind = if python.exception_is_type != 0 { exception } else { read_user(exception + TYPE) };
    let text: u64 = read_user(kind + TYPE_NAME);
    if exception != 0 && kind != 0 && text != 0 {
        unsafe {
            bpf_probe_read_user_str(name.as_mut_ptr().cast(), EXCEPTION_MAX as u32, text as *const _);
        }
    }
}
