//! A program that was started: the record comes first, its arguments and environment in pieces after it. Knows the kernel's numbers for
//! devices, modes and limits.

use observer_ebpf as wire;
use observer_ebpf::flag;

use super::{Decoder, file::components, split};
use crate::{
    event::{Absence, Body, Event, Exec, Executable, FdKind, FdTarget, Known, Limit, Origin, Pid, Tid, User},
    source::call::{c_text, known, text},
};

/// A program whose arguments are not complete after this long will not get them any more.
const PATIENCE_NS: u64 = 500_000_000;
/// The kernel's own limit of arguments and environment (`fs/exec.c`): three quarters of 8 MiB.
const ARGS_LIMIT: u64 = 6 * 1024 * 1024 + 4096;

/// `include/linux/sched/coredump.h`
const SUID_DUMP_USER: u32 = 1;

/// A program started whose arguments and environment come in pieces.
pub(super) struct Waiting {
    event: Event,
    arg_len: usize,
    bytes: Vec<u8>,
    have: usize,
    /// How much of the beginning is there without a gap.
    unbroken: usize,
    faulted: bool,
}

/// Soft and hard limits by name, in the kernel's order (`include/uapi/asm-generic/resource.h`).
const LIMITS: [&str; wire::RLIMITS] = [
    "CPU",
    "FSIZE",
    "DATA",
    "STACK",
    "CORE",
    "RSS",
    "NPROC",
    "NOFILE",
    "MEMLOCK",
    "AS",
    "LOCKS",
    "SIGPENDING",
    "MSGQUEUE",
    "NICE",
    "RTPRIO",
    "RTTIME",
];

/// A device number as the kernel keeps it (`MAJOR`, `MINOR` of `linux/kdev_t.h`).
fn device(dev: u32) -> String {
    format!("{}:{}", dev >> 20, dev & 0xf_ffff)
}

const fn major(dev: u32) -> u32 {
    dev >> 20
}

/// Terminals: `/dev/tty*` and the two ranges of pseudo-terminals (Documentation/admin-guide/devices.txt).
const fn is_terminal(rdev: u32) -> bool {
    let major = major(rdev);
    major == 4 || major == 5 || (major >= 128 && major <= 143)
}

fn fd_kind(mode: u32, rdev: u32) -> FdKind {
    match mode & 0o170_000 {
        0o100_000 => FdKind::File,
        0o040_000 => FdKind::Directory,
        0o020_000 if is_terminal(rdev) => FdKind::Tty,
        0o020_000 => FdKind::Device,
        0o010_000 => FdKind::Pipe,
        0o140_000 => FdKind::Socket,
        _ => FdKind::Other,
    }
}

impl Decoder {
    pub(super) fn exec(&mut self, record: &[u8], out: &mut Vec<Event>) -> Option<()> {
        let (exec, tail) = split::<wire::Exec>(record)?;
        let whole = exec.header.flags & flag::CUT == 0;
        let mut rest = tail;
        let mut take = |len: u32| -> Option<&[u8]> {
            let (taken, left) = rest.split_at_checked(len as usize)?;
            rest = left;
            Some(taken)
        };
        let path = text(take(exec.name_len)?);
        let exe = components(take(exec.exe_len)?);
        let cwd = components(take(exec.cwd_len)?);
        let mut stdio = Vec::with_capacity(3);
        for facts in exec.stdio {
            let path = take(facts.path_len)?;
            if facts.mode == 0 {
                stdio.push(Known::none());
                continue;
            }
            let what = fd_kind(facts.mode, facts.rdev);
            let other_end = if what == FdKind::Pipe {
                self.pipes.other_end(facts.inode, exec.header.tgid)
            } else {
                Known::none()
            };
            let path = match what {
                FdKind::Pipe | FdKind::Socket | FdKind::Other => Known::none(),
                _ => known(components(path), whole),
            };
            stdio.push(Known::Is(FdTarget { what, path, inode: facts.inode, other_end }));
        }
        let cgroup = match exec.cgroup_len {
            wire::ABSENT => Known::unknown(),
            len => known(components(take(len)?), whole),
        };
        let limits = LIMITS.iter().zip(exec.limits.chunks_exact(2)).map(|(name, pair)| {
            let limit = |value: u64| (value != u64::MAX).then_some(value);
            Limit { name: (*name).to_owned(), soft: limit(pair[0]), hard: limit(pair[1]) }
        });
        let ngroups = exec.ngroups as usize;
        let groups = exec.groups[..ngroups.min(wire::GROUPS_MAX)].to_vec();
        let user = User {
            uid: exec.uid,
            euid: exec.euid,
            gid: exec.gid,
            egid: exec.egid,
            groups: known(groups, ngroups <= wire::GROUPS_MAX),
        };
        let tty = c_text(&exec.tty);
        let body = Exec {
            path: Known::Is(path),
            argv: Known::unknown(),
            env: Known::unknown(),
            cwd: known(cwd, whole),
            exe: Known::Is(Executable {
                path: known(exe, whole),
                device: device(exec.exe_dev),
                inode: exec.exe_inode,
            }),
            ppid: Pid(exec.ppid),
            caller: Tid(exec.old_tid),
            user: Known::Is(user),
            umask: Known::Is(exec.umask),
            limits: Known::Is(limits.collect()),
            tty: if tty.is_empty() { Known::none() } else { Known::Is(tty) },
            stdio,
            cgroup,
            rule: Some(exec.rule),
            dumpable: (exec.dumpable != wire::ABSENT).then_some(exec.dumpable == SUID_DUMP_USER),
        };
        let total = exec.arg_len.saturating_add(exec.env_len).min(ARGS_LIMIT) as usize;
        let event = Event {
            at_ns: exec.header.at_ns,
            pid: Pid(exec.header.tgid),
            tid: Tid(exec.header.tid),
            observed_from: Origin::Ebpf,
            body: Body::Exec(Box::new(body)),
            bytes: Vec::new(),
        };
        let arg_len = (exec.arg_len as usize).min(total);
        let waiting = Waiting { event, arg_len, bytes: vec![0; total], have: 0, unbroken: 0, faulted: false };
        if let Some(before) = self.waiting.insert(exec.header.tgid, waiting) {
            out.push(before.finish());
        }
        if total == 0 {
            self.complete(exec.header.tgid, out);
        }
        Some(())
    }

    pub(super) fn arguments(&mut self, record: &[u8], out: &mut Vec<Event>) -> Option<()> {
        let (args, tail) = split::<wire::Args>(record)?;
        let waiting = self.waiting.get_mut(&args.header.tgid)?;
        let start = args.offset as usize;
        let piece = tail.get(..args.len as usize)?;
        let place = waiting.bytes.get_mut(start..start.checked_add(piece.len())?)?;
        if args.header.flags & flag::FAULT == 0 {
            place.copy_from_slice(piece);
            if start == waiting.unbroken {
                waiting.unbroken += piece.len();
            }
        } else {
            waiting.faulted = true;
        }
        waiting.have += piece.len();
        if waiting.have >= waiting.bytes.len() {
            self.complete(args.header.tgid, out);
        }
        Some(())
    }

    fn complete(&mut self, tgid: u32, out: &mut Vec<Event>) {
        if let Some(waiting) = self.waiting.remove(&tgid) {
            out.push(waiting.finish());
        }
    }

    /// Import statements that said nothing new, since this was last asked.
    pub(in crate::source::ebpf) fn repeated_imports(&mut self) -> u64 {
        self.imports.take_repeats()
    }

    /// Gives up on arguments that did not come: the program is reported with what there is of them.
    pub(in crate::source::ebpf) fn give_up(&mut self, now_ns: u64, out: &mut Vec<Event>) {
        let late = |waiting: &Waiting| now_ns.saturating_sub(waiting.event.at_ns) > PATIENCE_NS;
        let tgids: Vec<u32> =
            self.waiting.iter().filter(|(_, waiting)| late(waiting)).map(|(tgid, _)| *tgid).collect();
        for tgid in tgids {
            self.complete(tgid, out);
        }
        self.imports.give_up(now_ns, out);
    }
}

impl Waiting {
    fn finish(mut self) -> Event {
        let missing = self.bytes.len().saturating_sub(self.have) as u64;
        // A missing piece is all NUL, and NUL never stands twice in a row in what execve built, empty strings aside: keep those
        // only where nothing is missing.
        let strings = |bytes: &[u8], whole: bool| -> Known<Vec<String>> {
            let mut strings: Vec<String> = bytes.split(|byte| *byte == 0).map(text).collect();
            strings.pop();
            if whole {
                return Known::Is(strings);
            }
            strings.retain(|string| !string.is_empty());
            if strings.is_empty() {
                Known::Absent { absent: if missing > 0 { Absence::Lost } else { Absence::Unknown } }
            } else {
                Known::Partial { partial: strings, missing_bytes: Some(missing) }
            }
        };
        let (args, env) = self.bytes.split_at(self.arg_len);
        if let Body::Exec(exec) = &mut self.event.body {
            exec.argv = strings(args, self.unbroken >= self.arg_len);
            exec.env = strings(env, self.unbroken >= self.bytes.len());
        }
        self.event
    }
}
