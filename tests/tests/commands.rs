//! What the verbs answer when something is not as it should be, and that nothing they print can be mistaken or do harm.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail like the test")]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tests::scene::Scene;
use tests::{deadline, target};

const LIMIT: Duration = Duration::from_secs(60);
const PYTHON: &str = "/usr/bin/python3";

fn run(command: &mut Command) -> Output {
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// That attach itself failed, printed nothing on standard output, and said all of this.
fn assert_refuses(output: &Output, wanted: &[&str]) {
    let said = said(output);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    for part in wanted {
        assert!(said.contains(part), "{part:?} is not said: {said}");
    }
}

/// A scene with one finished session of this name.
fn recorded(name: &str, words: &[&str]) -> Scene {
    let scene = Scene::new().unwrap();
    let output = run(scene.attach(name).unwrap().args(["--quiet", "--"]).args(words));
    assert!(output.status.success(), "{}", said(&output));
    scene
}

fn the_only_session(scene: &Scene) -> std::path::PathBuf {
    let files = fs::read_dir(scene.state_dir()).unwrap().map(|entry| entry.unwrap().path());
    let mut sessions: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|end| end == "sqlite")).collect();
    assert_eq!(sessions.len(), 1);
    sessions.remove(0)
}

#[test]
fn a_command_line_that_is_none_is_refused_before_anything_is_recorded() {
    let scene = Scene::new().unwrap();
    let attach = |words: &[&str]| run(scene.observer().unwrap().arg("attach").args(words));
    assert_refuses(
        &attach(&["--cmd", "python -m 'dramatiq"]),
        &["cannot split --cmd", "a quote is not closed", "after --"],
    );
    for nothing in [&[][..], &["--cmd", ""], &["--cmd", "  "], &["--", ""]] {
        assert_refuses(&attach(nothing), &["nothing to observe", "--cmd", "--pid"]);
    }
    assert!(!scene.state_dir().exists());
}

#[test]
fn a_wrong_option_of_attach_cannot_be_taken_for_the_commands_status() {
    let scene = Scene::new().unwrap();
    let marker = scene.path("marker");
    let with = |words: &[&str]| run(scene.observer().unwrap().args(words).args(["--", "touch"]).arg(&marker));
    assert_refuses(&with(&["attach", "--nmae", "x"]), &["--nmae"]);
    assert_refuses(&with(&["attach", "--for", "soon"]), &["soon"]);
    assert_refuses(&with(&["attach", "--cmd", "true"]), &["--cmd"]);
    assert_eq!(with(&["show", "--attach"]).status.code(), Some(2));
    assert_eq!(run(scene.observer().unwrap().args(["attach", "--help"])).status.code(), Some(0));
    assert!(!marker.exists());
}

#[test]
fn cmd_is_split_as_a_shell_splits_and_no_shell_is_run() {
    let scene = Scene::new().unwrap();
    let line = r#"echo 'one two' "three $HOME" four\ five; `six` * > seven"#;
    let output = run(scene.attach("split").unwrap().args(["--quiet", "--cmd", line]));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "one two three $HOME four five; `six` * > seven\n");
    let session = scene.session("split").unwrap();
    let exec = session.kind("exec").next().unwrap();
    assert_eq!(
        exec["argv"],
        serde_json::json!(["echo", "one two", "three $HOME", "four five;", "`six`", "*", ">", "seven"])
    );
}

#[test]
fn a_command_that_does_not_exist_is_127_and_the_attempts_are_recorded() {
    let scene = Scene::new().unwrap();
    let path = format!("{}:/usr/sbin:/usr/bin", scene.path("empty").display());
    let output =
        run(scene.attach("typo").unwrap().args(["--", "pyhton", "-m", "dramatiq"]).env("PATH", &path));
    assert_eq!(output.status.code(), Some(127));
    let said = said(&output);
    assert!(said.contains("cannot run pyhton") && said.contains(&path), "{said}");
    assert!(said.contains("observer show typo --kind exec-failed"), "{said}");
    let session = scene.session("typo").unwrap();
    let tried: Vec<&Value> = session.kind("exec-failed").collect();
    let paths: Vec<String> = path.split(':').map(|dir| format!("{dir}/pyhton")).collect();
    assert_eq!(tried.iter().map(|event| event["path"].as_str().unwrap()).collect::<Vec<_>>(), paths);
    assert!(tried.iter().all(|event| event["errno"] == nix::libc::ENOENT));
    assert_eq!(session.header["ending"]["code"], 127);
    assert_eq!(session.kind("exec").count(), 0);
}

#[test]
fn a_command_that_cannot_be_executed_is_126() {
    let scene = Scene::new().unwrap();
    let file = scene.path("notes.txt");
    fs::write(&file, "not a program").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let output = run(scene.attach("refused").unwrap().arg("--").arg(&file));
    assert_eq!(output.status.code(), Some(126));
    assert!(said(&output).contains(&format!("cannot run {}: EACCES", file.display())), "{}", said(&output));
    let session = scene.session("refused").unwrap();
    assert_eq!(
        session.kind("exec-failed").map(|event| &event["errno"]).collect::<Vec<_>>(),
        [nix::libc::EACCES]
    );

    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    let output = run(scene.attach("no-format").unwrap().arg("--").arg(&file));
    assert_eq!(output.status.code(), Some(126));
    assert!(said(&output).contains("ENOEXEC"), "{}", said(&output));
}

#[test]
fn a_state_directory_that_cannot_be_written_is_said_before_anything_starts() {
    let scene = Scene::new().unwrap();
    let marker = scene.path("marker");
    fs::write(scene.path("file"), "").unwrap();
    for dir in [scene.path("file"), scene.path("file/below"), "/proc/observer".into()] {
        let mut observed = Command::new(target::observer().unwrap());
        observed.arg("--state-dir").arg(&dir).args(["attach", "--", "touch"]).arg(&marker);
        assert_refuses(&run(&mut observed), &["state directory", dir.to_str().unwrap(), "--state-dir"]);
    }
    assert!(!marker.exists());
}

#[test]
fn an_unknown_session_name_suggests_those_that_are_near() {
    let scene = recorded("minimal_worker", &["true"]);
    for verb in [&["show"][..], &["rm"]] {
        let output = run(scene.observer().unwrap().args(verb).arg("minimal_wroker"));
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains("did you mean `minimal_worker`?"), "{}", said(&output));
    }
    let output = run(scene.observer().unwrap().args(["show", "zzz"]));
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("observer ls"), "{}", said(&output));
}

#[test]
fn a_name_can_be_used_once() {
    let scene = recorded("once", &["true"]);
    let marker = scene.path("marker");
    let output = run(scene.attach("once").unwrap().args(["--", "touch"]).arg(&marker));
    assert_refuses(&output, &["`once`", "already", "observer rm once"]);
    assert!(!marker.exists());
    let output = run(scene.attach("a/b").unwrap().args(["--", "touch"]).arg(&marker));
    assert_refuses(&output, &["`a/b` cannot name a session"]);
    assert!(!marker.exists());
}

#[test]
fn a_truncated_session_is_said_to_be_damaged_and_does_not_hide_the_others() {
    let scene = recorded("cut", &["true"]);
    let path = the_only_session(&scene);
    let whole = fs::read(&path).unwrap();
    run(scene.attach("whole").unwrap().args(["--quiet", "--", "true"]));
    for len in [0, 1, 100, whole.len() / 2] {
        fs::write(&path, &whole[..len]).unwrap();
        let output = run(scene.observer().unwrap().arg("show").arg(&path));
        assert_eq!(output.status.code(), Some(1), "{len}");
        assert!(said(&output).contains("cannot read"), "{len}: {}", said(&output));
        assert!(!said(&output).contains("panicked"), "{}", said(&output));
        let list = run(scene.observer().unwrap().args(["ls", "--format", "json"]));
        let list: Value = serde_json::from_slice(&list.stdout).unwrap();
        let names: Vec<&str> = list["sessions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|session| session["name"].as_str().unwrap())
            .collect();
        assert!(names.contains(&"whole"), "{names:?}");
    }
}

#[test]
fn a_session_of_a_newer_observer_is_refused_with_what_to_do() {
    let scene = recorded("newer", &["true"]);
    let path = the_only_session(&scene);
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let output = run(scene.observer().unwrap().arg("show").arg(&path));
    assert_eq!(output.status.code(), Some(1));
    for part in ["newer observer", "schema 99", "upgrade"] {
        assert!(said(&output).contains(part), "{}", said(&output));
    }
}

/// A copy of the observer that every user may run, in a scene of which everything may be.
fn for_everybody(scene: &Scene) -> std::path::PathBuf {
    let copy = scene.path("observer");
    fs::copy(target::observer().unwrap(), &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    copy
}

fn as_nobody(program: &Path, extra: &[&str]) -> Command {
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
fn without_privilege_it_says_what_for_and_both_ways_to_get_it_and_starts_nothing() {
    let scene = Scene::new().unwrap();
    let observer = for_everybody(&scene);
    let marker = scene.path("marker");
    for extra in [&["--inh-caps=-all", "--bounding-set=-all"][..], &["--inh-caps=-all"]] {
        let mut command = as_nobody(&observer, extra);
        command.arg("--state-dir").arg(scene.state_dir()).args(["attach", "--", "touch"]).arg(&marker);
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
    assert_eq!(report.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    assert_eq!(report["works"], false);
    let cap =
        report["capabilities"].as_array().unwrap().iter().find(|found| found["name"] == "cap-bpf").unwrap();
    assert_eq!(cap["state"], "missing");
}

/// What must be recorded by any observer that works, whoever runs it.
fn assert_records(scene: &Scene, name: &str, observer: &mut Command) {
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
    assert_eq!(exec["observed_from"], "ebpf");
    // nobody's own.
    assert_eq!(exec["user"]["uid"], 65534);
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
    let scene = Scene::new().unwrap();
    let observer = for_everybody(&scene);
    let caps = "+bpf,+perfmon,+sys_ptrace";
    let extra =
        ["--inh-caps", caps, "--ambient-caps", caps, "--bounding-set", "-all,+bpf,+perfmon,+sys_ptrace"];
    assert_records(&scene, "ambient", as_nobody(&observer, &extra).current_dir("/"));
}

#[test]
fn the_setcap_line_it_prints_works() {
    let scene = Scene::new().unwrap();
    let observer = for_everybody(&scene);
    let mut command = as_nobody(&observer, &["--inh-caps=-all"]);
    let refused = said(&run(command.args(["attach", "--", "true"])));
    let line = refused.rsplit("sudo setcap ").next().unwrap().trim();
    let set = Command::new("sh")
        .args(["-c", &format!("setcap {line}")])
        .env("PATH", format!("{}:{}", scene.path("").display(), std::env::var("PATH").unwrap()))
        .output()
        .unwrap();
    assert!(set.status.success(), "setcap {line}: {}", String::from_utf8_lossy(&set.stderr));
    assert_records(&scene, "setcap", as_nobody(&observer, &["--inh-caps=-all"]).current_dir("/"));
}

#[test]
fn a_full_disk_harms_the_recording_only_and_is_said() {
    let scene = Scene::new().unwrap();
    let done = scene.path("done");
    let copy = scene.path("copy");
    let script = format!(
        "import os, sys\nfor i in range(60000): os.stat('/etc/hostname'); os.write(1, b'x' * 100)\nopen({:?}, 'w').write('done')\nsys.exit(7)",
        done.to_str().unwrap()
    );
    fs::create_dir(scene.state_dir()).unwrap();
    fs::create_dir(&copy).unwrap();
    // The file system lives in a mount namespace of the test's own, and goes with it: what was recorded is copied out.
    let shell = "mount -t tmpfs -o size=3m tmpfs \"$1\" || exit 99; state=$1 copy=$2; shift 2; \
                 \"$@\"; status=$?; cp \"$state\"/* \"$copy\"; exit $status";
    let mut command = Command::new("unshare");
    command
        .args(["-m", "--propagation", "private", "sh", "-c", shell, "sh"])
        .arg(scene.state_dir())
        .arg(&copy);
    command.args(scene.attach_words("full").unwrap()).args(["--", PYTHON, "-c", &script]);
    let output = run(command.stdin(Stdio::null()));
    let said = said(&output);
    assert_eq!(output.status.code(), Some(7), "{said}");
    assert_eq!(output.stdout.len(), 6_000_000);
    assert_eq!(fs::read_to_string(done).unwrap(), "done");
    assert!(said.contains("full"), "{said}");
    let show = || {
        let mut show = Command::new(target::observer().unwrap());
        show.arg("--state-dir").arg(&copy);
        show
    };
    let session = tests::scene::Session::of(show().args(["show", "full"])).unwrap();
    assert_eq!(session.kind("exec").count(), 1);
    assert!(session.kind("stat").count() > 100);
    assert_eq!(session.header["ending"]["code"], 7);
    let lost: u64 = session
        .kind("lost")
        .filter(|event| event["hop"] == "store")
        .map(|event| event["count"].as_u64().unwrap())
        .sum();
    assert!(lost > 0);
}

#[test]
fn tracefs_is_not_needed_and_no_mount_is_left_behind() {
    let scene = Scene::new().unwrap();
    let shell = "umount -l /sys/kernel/tracing 2>/dev/null; umount -l /sys/kernel/debug 2>/dev/null; \
                 ! ls -d /sys/kernel/tracing/events 2>/dev/null || exit 99; sort /proc/self/mounts >\"$1/before\"; scene=$1; shift; \
                 \"$@\"; status=$?; sort /proc/self/mounts >\"$scene/after\"; exit $status";
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-c", shell, "sh"]).arg(scene.path(""));
    command.args(scene.attach_words("without").unwrap()).args(["--", "true"]);
    let output = run(command.stdin(Stdio::null()));
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(
        fs::read_to_string(scene.path("before")).unwrap(),
        fs::read_to_string(scene.path("after")).unwrap()
    );
    assert_eq!(scene.session("without").unwrap().kind("exec").count(), 1);
}

#[test]
fn json_is_one_document_with_its_schema_for_every_verb_that_prints_facts() {
    let scene = recorded("facts", &["true"]);
    let json = |words: &[&str]| -> Value {
        serde_json::from_slice(&run(scene.observer().unwrap().args(words).args(["--format", "json"])).stdout)
            .unwrap()
    };
    let list = json(&["ls"]);
    assert_eq!(list["schema"], "observer.ls/1");
    let session = &list["sessions"][0];
    assert_eq!((session["name"].as_str(), session["state"].as_str()), (Some("facts"), Some("done")));
    assert_eq!((session["exit"]["code"].as_i64(), session["reason"].as_str()), (Some(0), Some("exited")));
    assert!(session["duration_ns"].as_u64().unwrap() > 0 && session["size_bytes"].as_u64().unwrap() > 0);
    let shown = json(&["show", "facts"]);
    assert_eq!(shown["schema"], "observer.show/1");
    assert_eq!(shown["session"]["id"], session["id"]);
    let ids: Vec<u64> =
        shown["events"].as_array().unwrap().iter().map(|event| event["id"].as_u64().unwrap()).collect();
    assert!(!ids.is_empty());
    let report = json(&["doctor"]);
    assert_eq!(report["schema"], "observer.doctor/1");
    assert_eq!(report["works"], true);
    for found in report["capabilities"].as_array().unwrap() {
        assert!(["works", "limited", "missing"].contains(&found["state"].as_str().unwrap()), "{found}");
    }
}

/// Whether a terminal would obey anything in this; a line's end is wanted.
fn steers(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    text.chars().any(|c| {
        (c.is_control() && c != '\n') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    })
}

#[test]
fn into_a_pipe_or_with_no_color_nothing_is_coloured() {
    let scene = recorded("plain", &["true"]);
    let verbs: [&[&str]; 5] =
        [&["ls"], &["show", "@"], &["show", "@", "--summary"], &["show", "@", "--all", "--env"], &["doctor"]];
    for words in verbs {
        let output = run(scene.observer().unwrap().args(words));
        assert!(!output.stdout.is_empty() && !steers(&output.stdout), "{words:?}");
        let coloured = run(scene.observer().unwrap().args(words).arg("--color=always"));
        assert!(words[0] == "ls" || coloured.stdout.contains(&0x1b), "{words:?}");
        let on_terminal = |variables: &[(&str, &str)]| {
            let mut command = Command::new(PYTHON);
            command
                .arg(target::folder().join("terminal.py"))
                .arg(target::observer().unwrap())
                .arg("--state-dir");
            command
                .arg(scene.state_dir())
                .args(words)
                .env("TERM", "xterm")
                .env_remove("NO_COLOR")
                .envs(variables.iter().copied());
            run(command.stdin(Stdio::null())).stdout
        };
        assert!(!on_terminal(&[("NO_COLOR", "1")]).contains(&0x1b), "{words:?}");
        assert!(!on_terminal(&[("TERM", "dumb")]).contains(&0x1b), "{words:?}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let script = "import os\nfor i in range(3000): os.stat('/etc/hostname')";
    let scene = recorded("long", &[PYTHON, "-c", script]);
    for words in [&["show", "@", "--all"][..], &["show", "@", "--format", "json"]] {
        let mut show = scene.observer().unwrap();
        let mut show = show.args(words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = [0; 10];
        show.stdout.take().unwrap().read_exact(&mut first).unwrap();
        let output = show.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{words:?}: {}", said(&output));
        assert_eq!(said(&output), "", "{words:?}");
    }
}

#[test]
fn what_the_target_says_never_steers_the_terminal() {
    let scene = Scene::new().unwrap();
    let hostile = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m\u{202e}\r\u{8}";
    let script = "import os, sys; h = sys.argv[1]; os.write(2, h.encode() + b'\\xff\\x1b[31m\\n'); os.chdir(h); os.environ['X' + h] = h\n\
                  try: open(h + '/missing')\nexcept OSError: pass\n\
                  os.execv(h + '/' + 'tool', [h, h])";
    let dir = scene.path(hostile);
    fs::create_dir_all(dir.join(hostile)).unwrap();
    fs::copy("/bin/true", dir.join(hostile).join("tool")).unwrap();
    let absolute = dir.join(hostile);
    let mut command = scene.attach("hostile").unwrap();
    command
        .args(["--follow", "--", PYTHON, "-c", script])
        .arg(&absolute)
        .env("H\u{1b}[1m", hostile)
        .env("HOSTILE", hostile);
    let output = run(command.stderr(Stdio::piped()));
    assert!(output.status.success(), "{}", said(&output));
    // Standard error is the command's as well: what it wrote itself, and only that, is there raw.
    let raw = [absolute.to_str().unwrap().as_bytes(), b"\xff\x1b[31m\n"].concat();
    let position =
        output.stderr.windows(raw.len()).position(|bytes| bytes == raw).expect("the command's own words");
    let ours = [&output.stderr[..position], &output.stderr[position + raw.len()..]].concat();
    assert!(!steers(&ours), "{}", String::from_utf8_lossy(&ours).escape_debug());
    let session = scene.session("hostile").unwrap();
    assert!(session.kind("exec").any(|exec| exec["argv"][0] == absolute.to_str().unwrap()));
    let verbs: [&[&str]; 6] = [
        &["ls"],
        &["ls", "--format", "json"],
        &["show", "@", "--all", "--env"],
        &["show", "@", "--summary"],
        &["show", "@", "--format", "json"],
        &["show", "no\u{1b}[31m\u{9b}1m"],
    ];
    for words in verbs {
        let output = run(scene.observer().unwrap().args(words));
        for stream in [&output.stdout, &output.stderr] {
            assert!(!steers(stream), "{words:?}: {}", String::from_utf8_lossy(stream).escape_debug());
        }
    }
    let output = run(scene.attach("gone").unwrap().arg("--").arg(hostile));
    assert_eq!(output.status.code(), Some(127));
    assert!(!steers(&output.stderr), "{}", said(&output).escape_debug());
    let output = run(scene.observer().unwrap().args(["attach", "--cmd"]).arg(format!("'{hostile}")));
    assert!(!steers(&output.stderr), "{}", said(&output).escape_debug());
}

#[test]
fn tab_completion_is_a_script_that_a_shell_takes() {
    let output = run(Command::new(target::observer().unwrap()).env("COMPLETE", "bash"));
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("complete "));
    let mut shell =
        Command::new("bash").arg("-n").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    shell.stdin.take().unwrap().write_all(&output.stdout).unwrap();
    assert!(shell.wait_with_output().unwrap().status.success());
}

#[test]
fn a_session_can_be_read_while_it_is_recorded() {
    let scene = Scene::new().unwrap();
    let mut observed = scene.attach("now").unwrap();
    let mut observed =
        observed.args(["--quiet", "--", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    deadline::until("the session shows the command", LIMIT, || {
        scene.session("now").ok().filter(|session| session.kind("exec").count() == 1)
    });
    let list = run(scene.observer().unwrap().args(["ls", "--format", "json"]));
    let list: Value = serde_json::from_slice(&list.stdout).unwrap();
    assert_eq!(list["sessions"][0]["state"], "recording");
    let refused = run(scene.observer().unwrap().args(["rm", "now"]));
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    drop(observed.stdin.take());
    assert!(observed.wait().unwrap().success());
    assert!(run(scene.observer().unwrap().args(["rm", "now"])).status.success());
}
