//! Loading the programs and connecting them: which runs at which tracepoint, which at which system call. Knows aya and the object;
//! nothing of what the records mean.

use std::{collections::BTreeMap, path::Path};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap as BpfHashMap, MapData, PerCpuArray, ProgramArray, RingBuf},
    programs::{
        Program, ProgramFd, RawTracePoint, UProbe,
        uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLinkId, UProbeScope},
    },
};
use observer_ebpf::{
    ABSENT, KERNEL_FIELDS, Kernel, Processor, Python, Settings, Thread, WATCHED_WORDS, kind, rule::Rules,
};
use syscalls::Sysno;
use zerocopy::{FromBytes, IntoBytes};

use super::{btf::Btf, imports};
use crate::{python::entrance::Entrance, source::SourceError};

/// The object `cargo xtask ebpf` builds from `observer-ebpf`.
#[repr(align(8))]
struct Aligned<T: ?Sized>(T);
static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!("../../../bpf/observer.bpf.o"));

/// Programs at tracepoints of their own; each has the name of its tracepoint.
const TRACEPOINTS: &[&str] = &[
    "sched_process_fork",
    "sched_process_exec",
    "sched_process_exit",
    "signal_generate",
    "signal_deliver",
    "mark_victim",
    "inet_sock_set_state",
    // Last, so that no call is seen to return whose consequences would be missed.
    "sys_exit",
    "sys_enter",
];

/// Programs that run when a system call is entered. A call this processor does not have is passed over.
const ON_ENTER: &[(&str, &[&str])] =
    &[("exit_call", &["exit", "exit_group"]), ("connect_enter", &["connect"]), ("close", &["close"])];

/// Programs that run when a system call returns.
const ON_EXIT: &[(&str, &[&str])] = &[
    ("file_path", &["open", "creat", "stat", "lstat", "access", "readlink", "chdir"]),
    ("file_at_path", &["openat", "newfstatat", "statx", "faccessat", "faccessat2", "readlinkat"]),
    ("file_openat2", &["openat2"]),
    ("file_fd", &["fchdir", "getdents", "getdents64"]),
    ("execve_failed", &["execve"]),
    ("execveat_failed", &["execveat"]),
    ("socket", &["socket"]),
    ("socketpair", &["socketpair"]),
    ("socket_address", &["connect", "bind"]),
    ("listen", &["listen"]),
    ("accept", &["accept", "accept4"]),
    ("write", &["write", "sendto"]),
    ("read_call", &["read"]),
    ("recvfrom", &["recvfrom"]),
    // At offset −1 the newer two work on sockets too.
    ("writev", &["writev", "pwritev2"]),
    ("readv", &["readv", "preadv2"]),
    ("sendmsg", &["sendmsg"]),
    ("recvmsg", &["recvmsg"]),
    ("sendmmsg", &["sendmmsg"]),
    ("recvmmsg", &["recvmmsg"]),
    ("sendfile", &["sendfile"]),
    ("splice", &["splice"]),
];

/// Probes in interpreters.
const IMPORT_CALL: &str = "import_call";
const IMPORT_START: &str = "import_start";
const IMPORT_END: &str = "import_end";

/// aya asks for a promise that any bytes are a value.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Plain<T>(pub(super) T);
// SAFETY: the ABI's types are `repr(C)`, integers only, without padding (`zerocopy::FromBytes` and `IntoBytes` are derived for them).
unsafe impl<T: FromBytes + IntoBytes + Copy + 'static> aya::Pod for Plain<T> {}

/// What the machine has under a program's name, for `doctor`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ProgramFacts {
    /// Its name.
    pub name: String,
    /// Instructions the verifier walked through.
    pub verified_instructions: u32,
    /// Times it ran, when the kernel counts (`kernel.bpf_stats_enabled`).
    pub run_count: u64,
    /// Nanoseconds it ran, likewise.
    pub run_time_ns: u64,
}

/// The loaded object. Dropping it detaches everything.
pub(super) struct Programs {
    ebpf: Ebpf,
    /// Keep the tail-call tables alive: they empty when the last reference goes.
    _tables: [ProgramArray<MapData>; 2],
    pub(super) processes: BpfHashMap<MapData, u32, u32>,
    pub(super) threads: BpfHashMap<MapData, u32, Plain<Thread>>,
    pub(super) ports: BpfHashMap<MapData, u16, u8>,
    pythons: Array<MapData, Plain<Python>>,
    /// What the kernel half compares programs with, and which of the two entries holds.
    pub(super) rules: Array<MapData, Plain<Rules>>,
    pub(super) state: Array<MapData, u64>,
    /// Whether the kernel's cgroups are known.
    pub(super) cgroups: bool,
    /// The probes in interpreters, by the program that runs there.
    probes: Vec<(&'static str, UProbeLinkId)>,
    pub(super) lost: PerCpuArray<MapData, [u64; kind::SLOTS]>,
    pub(super) vital: RingBuf<MapData>,
    pub(super) bulk: RingBuf<MapData>,
}

fn error(attempted: impl Into<String>, answer: impl std::fmt::Display, next: &str) -> SourceError {
    SourceError { attempted: attempted.into(), answer: answer.to_string(), next: next.into() }
}

/// aya's errors hide the verifier's words in their sources.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

/// Offsets of the kernel fields, from the running kernel's BTF.
fn kernel() -> Result<Kernel, SourceError> {
    const PATH: &str = "/sys/kernel/btf/vmlinux";
    let next = "the eBPF source needs a kernel built with CONFIG_DEBUG_INFO_BTF (`observer doctor`)";
    let data = std::fs::read(PATH).map_err(|answer| error(format!("cannot read {PATH}"), answer, next))?;
    let btf = Btf::parse(&data, KERNEL_FIELDS)
        .ok_or_else(|| error(format!("cannot use {PATH}"), "not BTF of this machine's byte order", next))?;
    let mut offsets = Vec::with_capacity(KERNEL_FIELDS.len());
    for (owner, member) in KERNEL_FIELDS {
        let offset = btf.first_offset(owner, member).ok_or_else(|| {
            error(
                format!("cannot find {owner}.{member} in {PATH}"),
                "no such member",
                "this kernel is unknown to this version",
            )
        })?;
        offsets.push(offset);
    }
    Kernel::read_from_bytes(offsets.as_bytes())
        .map_err(|answer| error("cannot lay out kernel offsets", answer, ""))
}

/// `struct pt_regs` of x86-64 (`arch/x86/include/asm/ptrace.h`): rdi, rsi, rdx, r10, r8, r9, orig_rax.
const REGISTERS: ([u32; 6], u32) = ([112, 104, 96, 56, 72, 64], 120);

fn number(name: &str) -> Option<u32> {
    name.parse::<Sysno>().ok().map(|sysno| sysno.id() as u32)
}

/// A bit for each call in the two tables.
fn watched() -> [u64; WATCHED_WORDS] {
    let mut words = [0; WATCHED_WORDS];
    for call in ON_ENTER.iter().chain(ON_EXIT).flat_map(|(_, calls)| *calls) {
        let Some(nr) = number(call) else { continue };
        if let Some(word) = words.get_mut((nr / u64::BITS) as usize) {
            *word |= 1 << (nr % u64::BITS);
        }
    }
    words
}

impl Programs {
    /// Loads and attaches everything. Nothing is recorded until a process is entered in `processes`.
    pub(super) fn load(snaplen: u64) -> Result<Self, SourceError> {
        let kernel = Plain(kernel()?);
        let Kernel { task_cgroups, css_set_cgroup, cgroup_node, node_name, node_parent, .. } = kernel.0;
        let cgroups = ![task_cgroups, css_set_cgroup, cgroup_node, node_name, node_parent].contains(&ABSENT);
        let processor = Plain(Processor {
            args: REGISTERS.0,
            nr: REGISTERS.1,
            execve: number("execve").unwrap_or(u32::MAX),
            execveat: number("execveat").unwrap_or(u32::MAX),
            pad: 0,
            watched: watched(),
        });
        let settings =
            Plain(Settings { snaplen, vital_size: super::VITAL_SIZE, bulk_size: super::BULK_SIZE });
        let next = "see `observer doctor`";
        let mut ebpf = EbpfLoader::new()
            // Offsets come from our own scan: a full parse of the kernel's types costs more than all the rest of the start.
            .btf(None)
            .override_global("KERNEL", &kernel, true)
            .override_global("PROCESSOR", &processor, true)
            .override_global("SETTINGS", &settings, true)
            .map_max_entries("VITAL", super::VITAL_SIZE)
            .map_max_entries("BULK", super::BULK_SIZE)
            .load(&OBJECT.0)
            .map_err(|answer| error("cannot load the eBPF object", chain(&answer), next))?;

        for (name, program) in ebpf.programs_mut() {
            // What cannot be loaded of the probes in interpreters costs the imports by name, nothing else: attaching says so.
            if let Program::UProbe(probe) = program {
                if let Err(answer) = probe.load() {
                    tracing::debug!(name, answer = chain(&answer), "cannot load");
                }
                continue;
            }
            let program: &mut RawTracePoint = program
                .try_into()
                .map_err(|answer| error(format!("cannot load eBPF program {name}"), chain(&answer), next))?;
            program
                .load()
                .map_err(|answer| error(format!("cannot load eBPF program {name}"), chain(&answer), next))?;
        }
        let enter = Self::table(&mut ebpf, "ENTER", ON_ENTER)?;
        let exit = Self::table(&mut ebpf, "EXIT", ON_EXIT)?;
        for name in TRACEPOINTS {
            let program: &mut RawTracePoint = ebpf
                .program_mut(name)
                .ok_or_else(|| error(format!("cannot find eBPF program {name}"), "not in the object", next))?
                .try_into()
                .map_err(|answer| {
                    error(format!("cannot attach eBPF program {name}"), chain(&answer), next)
                })?;
            program.attach(name).map_err(|answer| {
                error(format!("cannot attach to tracepoint {name}"), chain(&answer), next)
            })?;
        }
        macro_rules! map {
            ($name:literal) => {
                ebpf.take_map($name)
                    .ok_or_else(|| error(concat!("cannot find map ", $name), "not in the object", next))?
                    .try_into()
                    .map_err(|answer| error(concat!("cannot open map ", $name), chain(&answer), next))?
            };
        }
        Ok(Self {
            processes: map!("PROCESSES"),
            threads: map!("THREADS"),
            ports: map!("PORTS"),
            pythons: map!("PYTHONS"),
            rules: map!("RULES"),
            state: map!("STATE"),
            cgroups,
            probes: Vec::new(),
            lost: map!("LOST"),
            vital: map!("VITAL"),
            bulk: map!("BULK"),
            _tables: [enter, exit],
            ebpf,
        })
    }

    fn table(
        ebpf: &mut Ebpf,
        name: &'static str,
        rows: &[(&str, &[&str])],
    ) -> Result<ProgramArray<MapData>, SourceError> {
        let next = "see `observer doctor`";
        let missing = |what: &str| error(format!("cannot find {what}"), "not in the eBPF object", next);
        let mut table: ProgramArray<MapData> =
            ebpf.take_map(name)
                .ok_or_else(|| missing(name))?
                .try_into()
                .map_err(|answer| error(format!("cannot open map {name}"), chain(&answer), next))?;
        for (program, calls) in rows {
            let fd: ProgramFd = match ebpf.program(program) {
                Some(Program::RawTracePoint(found)) => {
                    found.fd().and_then(|fd| Ok(fd.try_clone()?)).map_err(|answer| {
                        error(format!("cannot use eBPF program {program}"), chain(&answer), next)
                    })?
                }
                _ => return Err(missing(program)),
            };
            for nr in calls.iter().filter_map(|call| number(call)) {
                table.set(nr, &fd, 0).map_err(|answer| {
                    error(format!("cannot connect {program} to a call"), chain(&answer), next)
                })?;
            }
        }
        Ok(table)
    }

    /// Probes the imports of an interpreter, whoever runs it; `slot` is a number of its own. Says why it cannot.
    pub(super) fn probe_imports(
        &mut self,
        slot: u32,
        file: &Path,
        entrance: &Entrance,
    ) -> Result<(), String> {
        let refused = |answer: &dyn std::error::Error| {
            format!("cannot attach to the imports of {}: {}", file.display(), chain(answer))
        };
        self.pythons.set(slot, Plain(imports::wire(entrance)), 0).map_err(|answer| refused(&answer))?;
        // The ends first: a beginning without an end would look as if it went on.
        let ends = entrance.ends.iter().map(|end| (IMPORT_END, *end));
        for (name, offset) in ends.chain([(IMPORT_START, entrance.start), (IMPORT_CALL, entrance.call)]) {
            let program = self.ebpf.program_mut(name).ok_or("the eBPF object has no probe for imports")?;
            let program: &mut UProbe = program.try_into().map_err(|answer| refused(&answer))?;
            let location = UProbeAttachLocation::AbsoluteOffset(offset);
            let point = UProbeAttachPoint { location, cookie: Some(slot.into()) };
            let link =
                program.attach(point, file, UProbeScope::AllProcesses).map_err(|answer| refused(&answer))?;
            self.probes.push((name, link));
        }
        Ok(())
    }

    /// Lets go of the probes at import statements. Whether there were any.
    pub(super) fn forget_calls(&mut self) -> bool {
        self.let_go(|name| name == IMPORT_CALL)
    }

    /// Lets go of all probes in interpreters. Whether there were any.
    pub(super) fn forget_imports(&mut self) -> bool {
        self.let_go(|_| true)
    }

    fn let_go(&mut self, of: impl Fn(&str) -> bool) -> bool {
        let links: Vec<_> = self.probes.extract_if(.., |(name, _)| of(name)).collect();
        let any = !links.is_empty();
        for (name, link) in links {
            let program = self.ebpf.program_mut(name).and_then(|program| program.try_into().ok());
            let Some(program): Option<&mut UProbe> = program else { continue };
            let _ = program.detach(link);
        }
        any
    }

    /// Facts of every loaded program, by name.
    pub(super) fn facts(&self) -> Vec<ProgramFacts> {
        let mut facts = BTreeMap::new();
        for (name, program) in self.ebpf.programs() {
            let info = match program {
                Program::RawTracePoint(program) => program.info(),
                Program::UProbe(program) => program.info(),
                _ => continue,
            };
            if let Ok(info) = info {
                let facts_of = ProgramFacts {
                    name: name.to_owned(),
                    verified_instructions: info.verified_instruction_count().unwrap_or(0),
                    run_count: info.run_count(),
                    run_time_ns: info.run_time().as_nanos() as u64,
                };
                facts.insert(name.to_owned(), facts_of);
            }
        }
        facts.into_values().collect()
    }
}
