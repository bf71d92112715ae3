//! What this machine allows: looked at once, by trying where that is cheap. Knows the kernel's interfaces; records nothing.

use std::{fs, io::Read, net::TcpStream, time::Duration};

use crate::{
    capability::{Capability, State},
    source::{SourceError, ptrace},
};

/// Capabilities the eBPF source needs, their bits (`linux/capability.h`) and what each is for.
const NEEDED: [(&str, u32, &str); 3] = [
    ("CAP_BPF", 39, "load eBPF programs"),
    ("CAP_PERFMON", 38, "read kernel and process memory from them"),
    ("CAP_SYS_PTRACE", CAP_SYS_PTRACE, "read /proc of the observed processes"),
];
const CAP_SYS_PTRACE: u32 = 19;
const CAP_SYS_ADMIN: u32 = 21;

/// How to get the capabilities.
pub const GRANT: &str =
    "run it with sudo, or once: sudo setcap cap_bpf,cap_perfmon,cap_sys_ptrace+ep \"$(command -v observer)\"";

fn line_of(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// The host's name.
pub fn host() -> String {
    line_of("/proc/sys/kernel/hostname").unwrap_or_default()
}

/// The kernel's release.
pub fn kernel_release() -> String {
    line_of("/proc/sys/kernel/osrelease").unwrap_or_default()
}

fn status_field(name: &str) -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    Some(status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?.trim().to_owned())
}

/// Seconds of processor time this process has used.
pub fn own_cpu_seconds() -> f64 {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF);
    usage.map_or(0.0, |usage| {
        let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        seconds(usage.user_time()) + seconds(usage.system_time())
    })
}

/// Most memory this process has had, in bytes.
pub fn own_peak_rss_bytes() -> u64 {
    let field = status_field("VmHWM");
    field.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn works(name: &str, found: impl Into<String>) -> Capability {
    Capability {
        name: name.into(),
        state: State::Works,
        found: found.into(),
        lost: String::new(),
        remedy: String::new(),
    }
}

fn lacks(name: &str, state: State, found: impl Into<String>, lost: &str, remedy: &str) -> Capability {
    Capability { name: name.into(), state, found: found.into(), lost: lost.into(), remedy: remedy.into() }
}

/// Looks at what recording by eBPF rests on.
pub fn machine() -> Vec<Capability> {
    let mut report = vec![kernel(), pid_namespace(), btf(), lockdown(), tracefs()];
    report.extend(privileges());
    report
}

/// The programs speak of processes by the ids of the first PID namespace; in another one ours mean something else.
fn pid_namespace() -> Capability {
    /// `PROC_PID_INIT_INO` (include/linux/proc_ns.h).
    const FIRST: &str = "pid:[4026531836]";
    match fs::read_link("/proc/self/ns/pid") {
        Ok(link) if link.as_os_str() != FIRST => lacks(
            "pid-namespace",
            State::Missing,
            format!("{}, not the machine's own", link.display()),
            "eBPF recording: process ids in a container are not the kernel's",
            "run observer on the host, and attach to the container's process with --pid",
        ),
        _ => works("pid-namespace", "the machine's own"),
    }
}

/// Programs use `bpf_loop`, of 5.17, and know the registers of x86-64.
fn kernel() -> Capability {
    let release = kernel_release();
    if !cfg!(target_arch = "x86_64") {
        let found = format!("Linux {release} on {}", std::env::consts::ARCH);
        return lacks("kernel", State::Missing, found, "eBPF recording", "an x86-64 machine");
    }
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if version >= (5, 17) {
        works("kernel", format!("Linux {release}"))
    } else {
        lacks(
            "kernel",
            State::Missing,
            format!("Linux {release}"),
            "eBPF recording",
            "a kernel of 5.17 or later",
        )
    }
}

fn btf() -> Capability {
    match fs::metadata("/sys/kernel/btf/vmlinux") {
        Ok(facts) => works("btf", format!("/sys/kernel/btf/vmlinux, {} KiB", facts.len() / 1024)),
        Err(error) => lacks(
            "btf",
            State::Missing,
            format!("/sys/kernel/btf/vmlinux: {error}"),
            "eBPF recording: the programs cannot find the kernel's fields",
            "a kernel built with CONFIG_DEBUG_INFO_BTF (every current distribution's)",
        ),
    }
}

fn lockdown() -> Capability {
    let text = line_of("/sys/kernel/security/lockdown");
    let mode = text.as_deref().and_then(|text| text.split('[').nth(1)?.split(']').next());
    match mode {
        Some("confidentiality") => lacks(
            "lockdown",
            State::Missing,
            "confidentiality",
            "eBPF recording: the kernel lets no program read memory",
            "boot without lockdown=confidentiality",
        ),
        Some(mode) => works("lockdown", format!("{mode}; no obstacle")),
        None => works("lockdown", "not stated (securityfs is not mounted); the programs load or they do not"),
    }
}

fn tracefs() -> Capability {
    let mounted = ["/sys/kernel/tracing/events", "/sys/kernel/debug/tracing/events"];
    let found = mounted.iter().find(|path| fs::metadata(path).is_ok());
    works(
        "tracefs",
        match found {
            Some(path) => format!("{path}; not needed (raw tracepoints attach without it)"),
            None => "not mounted; not needed (raw tracepoints attach without it)".into(),
        },
    )
}

/// Whether we hold a capability.
fn has_capability(bit: u32) -> bool {
    let effective = status_field("CapEff").and_then(|text| u64::from_str_radix(&text, 16).ok()).unwrap_or(0);
    effective & (1 << bit) != 0
}

fn privileges() -> Vec<Capability> {
    NEEDED
        .iter()
        .map(|(name, bit, purpose)| {
            let short = name.to_lowercase().replace('_', "-");
            // Before 5.8 CAP_SYS_ADMIN stood for both, and it still does.
            if has_capability(*bit) || (*name != "CAP_SYS_PTRACE" && has_capability(CAP_SYS_ADMIN)) {
                works(&short, "held")
            } else {
                let state = if *name == "CAP_SYS_PTRACE" { State::Limited } else { State::Missing };
                lacks(&short, state, "not held", &format!("it is what it takes to {purpose}"), GRANT)
            }
        })
        .collect()
}

/// Says what is missing when eBPF cannot be used.
///
/// # Errors
/// When something recording is impossible without is missing.
pub fn require_ebpf(report: &[Capability]) -> Result<(), SourceError> {
    let missing: Vec<&Capability> = report.iter().filter(|found| found.state == State::Missing).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let describe = |found: &&Capability| {
        let name = if found.name.starts_with("cap-") {
            found.name.to_uppercase().replace('-', "_")
        } else {
            found.name.clone()
        };
        format!("{name} is {} ({})", found.found, found.lost)
    };
    let mut remedies: Vec<&str> = missing.iter().map(|found| found.remedy.as_str()).collect();
    remedies.dedup();
    Err(SourceError {
        attempted: "cannot record with eBPF, and nothing was started".into(),
        answer: missing.iter().map(describe).collect::<Vec<_>>().join(", "),
        next: remedies.join("; "),
    })
}

/// What recording with ptrace lacks beside eBPF, in a few words; all of it is in the source's description.
pub const LOST_BY_PTRACE: &str = "speed (two stops a call), imports as the interpreter makes them, who sends SIGKILL, the out-of-memory killer";

/// Why it is ptrace, where eBPF is not to be had for this reason, and what is lost by that: one line.
pub fn why_ptrace(no_ebpf: &str) -> String {
    let reason = no_ebpf.lines().next().unwrap_or_default();
    format!("with ptrace, because there is no eBPF: {reason}; lost: {LOST_BY_PTRACE}")
}

/// Looks at what recording with ptrace rests on.
pub fn ptrace() -> Capability {
    const NAME: &str = "ptrace";
    let privileged = has_capability(CAP_SYS_PTRACE);
    match (ptrace::yama_scope(), privileged) {
        (3, _) => lacks(
            NAME,
            State::Missing,
            "kernel.yama.ptrace_scope is 3: nobody may trace",
            "recording with ptrace",
            "start the machine without that setting",
        ),
        (2, false) => lacks(
            NAME,
            State::Missing,
            "kernel.yama.ptrace_scope is 2: only root may trace",
            "recording with ptrace",
            "run observer with sudo",
        ),
        (_, true) => works(NAME, "may trace every process"),
        (scope, false) => lacks(
            NAME,
            State::Limited,
            if scope == 1 {
                "may trace what observer starts, no running process"
            } else {
                "may trace your own processes"
            },
            "what a setuid program (sudo, su) may do: while it is traced without privilege it runs without its owner's rights",
            "run observer with sudo",
        ),
    }
}

/// How long a broker may take to answer.
const BROKER_PATIENCE: Duration = Duration::from_secs(2);

/// Whether something that speaks AMQP 0-9-1 listens at `address` (`host:port`).
pub fn broker(address: &str) -> Capability {
    use std::{io::Write, net::ToSocketAddrs};
    let attempt = || -> std::io::Result<String> {
        let resolved = address.to_socket_addrs()?.next().ok_or(std::io::ErrorKind::NotFound)?;
        let mut stream = TcpStream::connect_timeout(&resolved, BROKER_PATIENCE)?;
        stream.set_read_timeout(Some(BROKER_PATIENCE))?;
        stream.write_all(b"AMQP\0\0\x09\x01")?;
        let mut answer = [0; 11];
        stream.read_exact(&mut answer)?;
        // A method frame on channel 0 that begins with connection.start (10, 10).
        let is_start = answer[0] == 1 && answer[7..11] == [0, 10, 0, 10];
        Ok(if is_start { "speaks AMQP 0-9-1".into() } else { "answers, but not with AMQP 0-9-1".into() })
    };
    match attempt() {
        Ok(answer) if answer.starts_with("speaks") => works("broker", format!("{address} {answer}")),
        Ok(answer) => lacks(
            "broker",
            State::Limited,
            format!("{address} {answer}"),
            "the broker's own account",
            "--broker HOST:PORT of the AMQP port",
        ),
        Err(error) => lacks(
            "broker",
            State::Limited,
            format!("{address}: {error}"),
            "the broker's own account",
            "start it, or name it: --broker HOST:PORT",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_with_both_ways_to_get_it() {
        let report =
            [works("btf", "there"), lacks("cap-bpf", State::Missing, "not held", "no programs", GRANT)];
        let text = require_ebpf(&report).unwrap_err().to_string();
        assert!(
            text.contains("CAP_BPF is not held") && text.contains("sudo") && text.contains("setcap"),
            "{text}"
        );
        assert!(!text.contains("btf"));
    }

    #[test]
    fn a_port_that_answers_something_else_is_no_broker() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = std::thread::spawn(move || {
            use std::io::Write;
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        });
        let found = broker(&address);
        server.join().unwrap();
        assert_eq!(found.state, State::Limited);
        assert!(found.found.contains("not with AMQP"), "{}", found.found);
    }
}
