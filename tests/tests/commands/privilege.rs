//! Without privilege, and with just enough of it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::unistd::geteuid;
use serde_json::Value;
use tests::privilege::lacking;
use tests::scene::Scene;
use tests::target;

use super::{PYTHON, assert_refuses, run, said};

/// A copy of the observer that every user may run, in a scene of which everything may be.
fn for_everybody(scene: &Scene) -> std::path::PathBuf {
    let copy = scene.path("observer");
    // By another process: a descriptor of ours that is open for writing, in a child that is just being forked, would keep it from running.
    let copied = Command::new("cp").arg(target::observer().unwrap()).arg(&copy).status().unwrap();
    assert!(copied.success());
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    copy
}

/// A program run by somebody without privilege: by us, if that is what we are.
fn as_nobody(program: &Path, extra: &[&str]) -> Command {
    if !geteuid().is_root() {
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
        return command;
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", "nobody", "--regid", "nogroup", "--clear-groups"])
        .args(extra)
        .arg("--")
        .arg(program);
    command.stdin(Stdio::null());
    command
}

#[test]
fn without_privilege_ebpf_says_what_for_and_both_ways_to_get_it_and_starts_nothing() {
    let scene = Scene::new().unwrap();
    let observer = for_everybody(&scene);
    let marker = scene.path("marker");
    for extra in [&["--inh-caps=-all", "--bounding-set=-all"][..], &["--inh-caps=-all"]] {
        let mut command = as_nobody(&observer, extra);
        command
            .arg("--state-dir")
            .arg(scene.state_dir())
            .args(["attach", "--backend", "ebpf", "--", "touch"])
            .arg(&marker);
        let wanted = [
            "CAP_BPF is not held",
            "load eBPF programs",
            "CAP_PERFMON is not held",
            "read kernel and process memory",
            "sudo",
            "setcap cap_bpf,cap_perfmon,cap_sys_ptrace+ep",
            "nothing was started",
        ];
        assert_refuses(&run(&mut command), &wanted);
    }
    assert!(!marker.exists());
    assert!(!scene.state_dir().exists());

    let report = run(as_nobody(&observer, &["--inh-caps=-all"]).args(["doctor", "--format", "json"]));
    // Recording works all the same, by other means.
    assert_eq!(report.status.code(), Some(0));
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    assert_eq!(report["works"], true);
    let state = |name: &str| {
        let all = report["capabilities"].as_array().unwrap();
        all.iter().find(|found| found["name"] == name).unwrap()["state"].clone()
    };
    assert_eq!((state("cap-bpf"), state("ptrace")), ("missing".into(), "limited".into()));
    let report = run(as_nobody(&observer, &["--inh-caps=-all"]).arg("doctor"));
    let report = String::from_utf8(report.stdout).unwrap();
    let [reason] =
        report.lines().filter(|line| line.starts_with("with ptrace, because")).collect::<Vec<_>>()[..]
    else {
        panic!("{report}")
    };
    assert!(reason.contains("CAP_BPF is not held") && reason.contains("; lost: speed"), "{reason}");
}

#[test]
fn without_privilege_it_records_with_ptrace_and_says_why_and_what_is_lost() {
    let scene = Scene::new().unwrap();
    let observer = for_everybody(&scene);
    let mut command = as_nobody(&observer, &["--inh-caps=-all", "--bounding-set=-all"]);
    command.current_dir("/").arg("--state-dir").arg(scene.path("own"));
    let said = said(&run(command.args(["attach", "--", "true"])));
    let reasons: Vec<&str> = said.lines().filter(|line| line.contains("ptrace, because")).collect();
    let [reason] = reasons[..] else { panic!("{said}") };
    for word in ["CAP_BPF is not held", "CAP_PERFMON is not held", "lost: ", "setuid"] {
        assert!(reason.contains(word), "{word}: {reason}");
    }
    let unprivileged = &["--inh-caps=-all", "--bounding-set=-all"];
    assert_records(&scene, "unprivileged", as_nobody(&observer, unprivileged).current_dir("/"), "ptrace");
}

/// What must be recorded by any observer that works, whoever runs it.
fn assert_records(scene: &Scene, name: &str, observer: &mut Command, backend: &str) {
    let script = "import socket; s = socket.create_server(('127.0.0.1', 0)); c = socket.create_connection(s.getsockname()); \
                  open('/etc/hostname').read(); print('hello')";
    let output = run(observer
        .arg("--state-dir")
        .arg(scene.state_dir())
        .args(["attach", "--name", name, "--", PYTHON, "-c", script]));
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(output.stdout, b"hello\n");
    let session = scene.session(name).unwrap();
    let pid = session.process_with(script).unwrap();
    let exec = session.of_process(pid, "exec").next().unwrap();
    assert_eq!(exec["observed_from"], backend);
    let nobody = if geteuid().is_root() { 65534 } else { geteuid().as_raw() };
    assert_eq!(exec["user"]["uid"], nobody);
    assert!(exec["env"].as_array().is_some_and(|env| !env.is_empty()), "{exec}");
    assert_eq!(exec["limits"].as_array().map(Vec::len), Some(16), "{exec}");
    assert!(exec["cwd"].is_string() && exec["umask"].is_number(), "{exec}");
    assert!(exec["stdio"][1]["what"].is_string(), "{exec}");
    assert!(session.of_process(pid, "open").any(|open| open["resolved"] == "/etc/hostname"));
    assert_eq!(session.of_process(pid, "connected").count(), 1);
    assert_eq!(session.output_of(pid), "hello\n");
    assert_eq!(session.of_process(pid, "exit").next().unwrap()["code"], 0);
}

#[test]
fn the_capabilities_it_names_are_enough() {
    if lacking("capabilities to give away") {
        return;
    }
    let scene = Scene::new().unwrap();
    let observer = for_everybody(&scene);
    let caps = "+bpf,+perfmon,+sys_ptrace";
    let extra =
        ["--inh-caps", caps, "--ambient-caps", caps, "--bounding-set", "-all,+bpf,+perfmon,+sys_ptrace"];
    assert_records(&scene, "ambient", as_nobody(&observer, &extra).current_dir("/"), "ebpf");
}

#[test]
fn the_setcap_line_it_prints_works() {
    if lacking("setcap") {
        return;
    }
    let scene = Scene::new().unwrap();
    let observer = for_everybody(&scene);
    let mut command = as_nobody(&observer, &["--inh-caps=-all"]);
    let refused = said(&run(command.args(["attach", "--backend", "ebpf", "--", "true"])));
    let line = refused.rsplit("sudo setcap ").next().unwrap().trim();
    let set = Command::new("sh")
        .args(["-c", &format!("setcap {line}")])
        .env("PATH", format!("{}:{}", scene.path("").display(), std::env::var("PATH").unwrap()))
        .output()
        .unwrap();
    assert!(set.status.success(), "setcap {line}: {}", String::from_utf8_lossy(&set.stderr));
    assert_records(&scene, "setcap", as_nobody(&observer, &["--inh-caps=-all"]).current_dir("/"), "ebpf");
}
