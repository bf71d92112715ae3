//! Which programs are tracked from their start: a program that nobody tracks is compared with the rules that hold, and the first that
//! fits counts. How a rule is written is user space's business; here it is numbers and patterns.
//!
//! The cheap comes first: most programs fall through by user and file name, and what else a rule asks for is put together only then.

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_kernel_str, bpf_probe_read_user};
use observer_ebpf::{
    PATH_MAX,
    glob::{Glob, answer},
    kind,
    rule::{RULE_ARGS_MAX, RULE_BYTES, RULE_STEPS, RULES_MAX, Rules, flag, state},
};

use crate::{
    emit::{lost, now},
    kernel::{
        AGAIN, STOP, at_most, call, current, kernel_string, offset, read, rounds, scratch, walk, walk_cgroup,
    },
    tables::{RULES, SCRATCH_LEN, STATE, Search, Span},
};

const EMPTY: Span = Span { start: 0, end: 0 };

/// Whether nothing is tracked. Cheaper than to look a thread up in a table that is empty.
#[inline(always)]
pub fn idle() -> bool {
    let (Some(entered), Some(idle_at)) = (STATE.get_ptr(state::ENTERED), STATE.get_ptr(state::IDLE_AT))
    else {
        return false;
    };
    unsafe { core::ptr::read_volatile(entered) == core::ptr::read_volatile(idle_at) }
}

/// Says that a program is about to be tracked from its start: nobody is idle from here on. Before it is entered in the tables. Two that
/// write at once may overwrite each other; either is something user space has not seen.
#[inline(always)]
pub fn entered() {
    if let Some(entered) = STATE.get_ptr_mut(state::ENTERED) {
        unsafe { core::ptr::write_volatile(entered, now()) };
    }
}

/// The id of the first rule that fits the program being started; 0 when none does. It uses all of the scratch space.
#[inline(always)]
pub fn fitting(bprm: u64) -> u32 {
    let Some(holds) = STATE.get_ptr(state::HOLDS) else { return 0 };
    let holds = unsafe { core::ptr::read_volatile(holds) };
    if holds >= state::NONE {
        return 0;
    }
    let (Some(call), Some(rules)) = (call(), rules(holds as u32)) else { return 0 };
    let cred: u64 = read(current(), offset!(task_cred));
    call.search = Search {
        bprm,
        glob: Glob::new((0, 0), (0, 0)),
        holds: holds as u32,
        rule: 0,
        found: 0,
        uid: read(cred, offset!(cred_uid)),
        steps: RULE_STEPS,
        undecided: 0,
        free: PATH_MAX as u32,
        name: EMPTY,
        exe: EMPTY,
        args: EMPTY,
        cgroup: EMPTY,
        left: 0,
        component_end: 0,
        leaf_only: u32::from(rules.paths == 0),
        pad: 0,
    };
    rounds(RULES_MAX, look);
    if call.search.found == 0 && call.search.undecided != 0 {
        lost(kind::RULE);
    }
    call.search.found
}

#[inline(always)]
fn rules(holds: u32) -> Option<&'static Rules> {
    RULES.get_ptr(holds).map(|rules| unsafe { &*rules })
}

/// One rule.
extern "C" fn look(at: u64, _: u64) -> i64 {
    let Some(call) = call() else { return STOP };
    let search = &mut call.search;
    let Some(rules) = rules(search.holds) else { return STOP };
    if at >= u64::from(rules.len) {
        return STOP;
    }
    search.rule = at as u32;
    let rule = &rules.rules[at as usize & (RULES_MAX - 1)];
    if rule.flags & flag::UID != 0 && rule.uid != search.uid {
        return AGAIN;
    }
    let [exe, args, unit, cgroup] = rule.ends;
    if exe > 0 {
        if search.name.end == 0 {
            name();
        }
        if !fits((0, exe), search.name) {
            if search.exe.end == 0 {
                executable();
            }
            if !fits((0, exe), search.exe) {
                return AGAIN;
            }
        }
    }
    if args > exe {
        if search.args.end == 0 {
            arguments();
        }
        if !fits((exe, args), search.args) {
            return AGAIN;
        }
    }
    if cgroup > args {
        if search.cgroup.end == 0 {
            own_cgroup();
        }
        if (unit > args && !fits((args, unit), search.cgroup))
            || (cgroup > unit && !fits((unit, cgroup), search.cgroup))
        {
            return AGAIN;
        }
    }
    search.found = rule.id;
    STOP
}

/// Whether a pattern of the rule that is looked at fits a text.
#[inline(always)]
fn fits(pattern: (u32, u32), text: Span) -> bool {
    let Some(call) = call() else { return false };
    let search = &mut call.search;
    search.glob = Glob::new(pattern, (text.start, text.end));
    let done = rounds(at_most(u64::from(search.steps), u64::from(RULE_STEPS)) as usize, compare);
    search.steps -= done as u32;
    if search.glob.answer == answer::OPEN {
        search.undecided = 1;
    }
    search.glob.answer == answer::YES
}

/// One step of it.
extern "C" fn compare(_round: u64, _: u64) -> i64 {
    let (Some(space), Some(call)) = (scratch(), call()) else { return STOP };
    let search = &mut call.search;
    let Some(rules) = rules(search.holds) else { return STOP };
    let rule = &rules.rules[search.rule as usize & (RULES_MAX - 1)];
    search.glob.step(
        |at| rule.bytes[at as usize & (RULE_BYTES - 1)],
        |at| unsafe { *space.add(at as usize & (SCRATCH_LEN - 1)) },
    );
    if search.glob.answer == answer::OPEN { AGAIN } else { STOP }
}

/// Begins a text: a NUL where the scratch space is free, if there is room for it and `most` bytes more. Returns where it goes on.
#[inline(always)]
fn begin(search: &mut Search, most: usize) -> Option<u64> {
    let space = scratch()?;
    let start = search.free as usize;
    if start >= SCRATCH_LEN - 1 - most {
        search.undecided = 1;
        return None;
    }
    unsafe { *space.add(start) = 0 };
    Some(start as u64 + 1)
}

/// Ends it. A text that is not whole would fit what it is not: it is left empty, and fits nothing.
#[inline(always)]
fn end(search: &mut Search, end: u64, whole: bool) -> Span {
    let start = search.free;
    if !whole {
        search.undecided = 1;
        return Span { start, end: start };
    }
    search.free = end as u32;
    Span { start, end: end as u32 }
}

/// The file that was given to `execve`: for a script, that. What is relative goes on with the working directory.
#[inline(always)]
fn name() {
    let (Some(space), Some(call)) = (scratch(), call()) else { return };
    let len = kernel_string(0, read(call.search.bprm, offset!(bprm_filename)));
    let Some(pos) = begin(&mut call.search, PATH_MAX) else { return };
    call.search.left = len as u32;
    call.search.component_end = len as u32;
    call.walk.pos = pos;
    rounds(PATH_MAX, take_apart);
    let (mut pos, mut whole) = (call.walk.pos, true);
    let absolute = unsafe { *space } == b'/';
    if call.search.leaf_only == 0 && !absolute {
        let fs: u64 = read(current(), offset!(task_fs));
        pos = walk(pos, fs + u64::from(offset!(fs_pwd)));
        whole = call.walk.whole != 0;
    }
    call.search.name = end(&mut call.search, pos, whole);
}

/// Looks at one more byte of the file name, from its end; a component that is whole is copied. `.` and nothing are no components.
extern "C" fn take_apart(_round: u64, _: u64) -> i64 {
    let (Some(space), Some(call)) = (scratch(), call()) else { return STOP };
    let search = &mut call.search;
    let left = search.left as usize & (PATH_MAX - 1);
    // Hidden from the compiler, which would leave the mask out: before 6.4 the verifier does not learn from `left > 0` that there is one.
    let before = core::hint::black_box(left.wrapping_sub(1)) & (PATH_MAX - 1);
    if left > 0 && unsafe { *space.add(before) } != b'/' {
        search.left = left as u32 - 1;
        return AGAIN;
    }
    let len = (search.component_end as usize - left) & (PATH_MAX - 1);
    let component = unsafe { space.add(left) };
    if len > 1 || (len == 1 && unsafe { *component } != b'.') {
        let pos = call.walk.pos as usize;
        if pos > SCRATCH_LEN - PATH_MAX - 1 {
            return STOP;
        }
        unsafe {
            bpf_probe_read_kernel(space.add(pos).cast(), len as u32, component.cast());
            *space.add(pos + len) = 0;
        }
        call.walk.pos = (pos + len) as u64 + 1;
        if search.leaf_only != 0 {
            return STOP;
        }
    }
    if left == 0 {
        return STOP;
    }
    search.left = left as u32 - 1;
    search.component_end = search.left;
    AGAIN
}

/// The executable; of a script, its interpreter.
#[inline(always)]
fn executable() {
    let (Some(space), Some(call)) = (scratch(), call()) else { return };
    let Some(pos) = begin(&mut call.search, 256) else { return };
    let mm: u64 = read(current(), offset!(task_mm));
    let file: u64 = read(mm, offset!(mm_exe_file));
    let path = file + u64::from(offset!(file_path));
    let (stop, whole) = if call.search.leaf_only == 0 {
        (walk(pos, path), call.walk.whole != 0)
    } else {
        let name: u64 = read(read::<u64>(path, offset!(path_dentry)), offset!(dentry_name));
        let n = unsafe { bpf_probe_read_kernel_str(space.add(pos as usize).cast(), 256, name as *const _) };
        (pos + at_most(n as u64, 256), n > 0)
    };
    call.search.exe = end(&mut call.search, stop, whole);
}

/// The command line, as much as is looked at.
#[inline(always)]
fn arguments() {
    let (Some(space), Some(call)) = (scratch(), call()) else { return };
    let Some(pos) = begin(&mut call.search, RULE_ARGS_MAX) else { return };
    let mm: u64 = read(current(), offset!(task_mm));
    let start: u64 = read(mm, offset!(mm_arg_start));
    let len = at_most(read::<u64>(mm, offset!(mm_arg_end)) - start, RULE_ARGS_MAX as u64);
    let read =
        unsafe { bpf_probe_read_user(space.add(pos as usize).cast(), len as u32, start as *const _) } == 0;
    call.search.args = end(&mut call.search, pos + len, read);
}

/// The cgroup.
#[inline(always)]
fn own_cgroup() {
    let Some(call) = call() else { return };
    let Some(pos) = begin(&mut call.search, 256) else { return };
    let stop = walk_cgroup(pos).unwrap_or(pos);
    let whole = call.walk.whole != 0;
    call.search.cgroup = end(&mut call.search, stop, whole);
}
