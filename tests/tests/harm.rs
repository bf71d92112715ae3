//! Nothing is changed in what is observed: whatever a command can find out about itself is the same with and without us.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test's helpers fail like the test")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde_json::Value;
use tests::rabbit::Broker;
use tests::scene::{Scene, written};
use tests::venv::Venv;
use tests::{deadline, target};

const LIMIT: Duration = Duration::from_secs(60);
/// An interpreter that every user may run.
const PYTHON: &str = "/usr/bin/python3";

fn script(name: &str) -> String {
    target::folder().join(name).to_str().unwrap().to_owned()
}

/// Runs `prelude; exec COMMAND` in a shell, COMMAND once by itself and once under the observer, and returns what the two wrote of
/// themselves.
fn standings(scene: &Scene, prelude: &str, wrap: &[&str]) -> [Value; 2] {
    let file = scene.path("standing.json");
    let target = [PYTHON, "-I", &script("standing.py"), file.to_str().unwrap(), "two words", "", "ä\u{1b}"]
        .map(str::to_owned);
    let mut observed = scene.attach_words("standing").unwrap();
    observed.extend(["--quiet".to_owned(), "--".to_owned()]);
    observed.extend(target.clone());
    [target.to_vec(), observed].map(|words| {
        let status = Command::new(wrap.first().unwrap_or(&"sh"))
            .args(wrap.get(1..).unwrap_or_default())
            .args((!wrap.is_empty()).then_some("sh"))
            .args(["-c", &format!("{prelude}\nexec \"$@\""), "sh"])
            .args(&words)
            .env("OBSERVER_TEST_A", "=b=\nc\u{1b}[31m")
            .env("OBSERVER_TEST_EMPTY", "")
            .env("_LAST", "ü")
            .current_dir("/usr/share")
            .stdin(Stdio::null())
            .stdout(fs::File::options().append(true).create(true).open(scene.path("stdout")).unwrap())
            .stderr(fs::File::options().append(true).create(true).open(scene.path("stderr")).unwrap())
            .status()
            .unwrap();
        let said = fs::read_to_string(scene.path("stderr")).unwrap();
        assert!(status.success(), "{words:?}: {status}: {said}");
        let standing = written(&file).unwrap_or_else(|error| panic!("{error:#}: {said}"));
        fs::remove_file(&file).unwrap();
        standing
    })
}

/// Compared field by field, so that a failure names what differs.
fn assert_same(standings: [Value; 2]) {
    let [alone, observed] = standings;
    for (name, value) in alone.as_object().unwrap() {
        assert_eq!(value, &observed[name], "{name}: on the left alone, on the right observed");
    }
}

#[test]
fn a_command_finds_itself_as_if_nobody_watched() {
    let scene = Scene::new().unwrap();
    assert_same(standings(&scene, "", &[]));
}

#[test]
fn unusual_circumstances_are_passed_on() {
    let scene = Scene::new().unwrap();
    let prelude = "umask 0137; ulimit -n 333; ulimit -c 4096; ulimit -S -s 4096; echo 123 >/proc/$$/oom_score_adj; \
                   trap '' HUP USR1; exec 7</etc/hostname 8<>/dev/null 9>&1";
    let both = standings(&scene, prelude, &["nice", "-n", "19", "env", "--block-signal=USR2,TERM,RTMIN"]);
    // The circumstances are what they were meant to be: else the comparison would be of nothing.
    assert_eq!(both[0]["nice"], "19");
    assert_eq!(both[0]["status"]["Umask"], "0137");
    assert_eq!(both[0]["oom_score_adj"], "123\n");
    assert_eq!(both[0]["fds"]["7"][0], "/etc/hostname");
    assert_same(both);
}

#[test]
fn bytes_that_are_no_text_and_an_odd_environment_are_passed_on() {
    let scene = Scene::new().unwrap();
    let raw = script("raw_exec.py");
    // The last to touch them before the command: shells put an environment in order.
    let both = standings(&scene, &format!("set -- {PYTHON} {raw} \"$@\" \"$(printf 'a\\377b')\""), &[]);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let environment = both[0]["environment"].as_str().unwrap();
    assert!(
        environment.ends_with(&hex(b"no equals sign\0=\0TWICE=1\0TWICE=2\0\0BYTES=\xff\xfe\0")),
        "{}",
        &environment[environment.len() - 80..]
    );
    assert!(both[0]["argv"].as_str().unwrap().ends_with(&hex(b"a\xffb\0")));
    assert_same(both);
}

#[test]
fn descriptors_closed_at_the_start_stay_closed() {
    for closed in ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"] {
        let scene = Scene::new().unwrap();
        let both = standings(&scene, &format!("exec {closed}"), &[]);
        for fd in closed.split(' ').map(|word| &word[..1]) {
            assert!(both[0]["fds"][fd].is_null(), "{fd} is open: {closed}");
        }
        assert_same(both);
        // What we say has nowhere to go then, and must not end up in the recording.
        let session = scene.session("standing").unwrap();
        assert_eq!(session.header["ending"]["code"], 0);
    }
}

#[test]
fn what_a_terminal_means_is_the_same() {
    let scene = Scene::new().unwrap();
    // Each run has a terminal of its own: its number and those of its session and group differ, what they have to do with each other not.
    let relations = standings(&scene, "exec </dev/tty >/dev/tty 2>&1", &[PYTHON, &script("terminal.py")])
        .map(|mut standing| {
            let terminal = standing["fds"]["0"][0].as_str().unwrap().to_owned();
            assert_eq!(terminal, "/dev/tty");
            assert_ne!(standing["terminal"], "0");
            assert_eq!(standing["foreground group"], standing["process group"]);
            assert_eq!(standing["session"], standing["process group"]);
            for name in ["terminal", "session", "process group", "foreground group"] {
                standing[name] = Value::Null;
            }
            standing
        });
    assert_same(relations);
}

/// What `grep`, which touches no signal itself, finds of its signals.
fn signals(wrap: &[&str]) -> [String; 2] {
    let scene = Scene::new().unwrap();
    let target = ["grep", "-E", "^(Sig(Blk|Ign|Cgt)|...Pnd):", "/proc/self/status"].map(str::to_owned);
    let mut observed = scene.attach_words("signals").unwrap();
    observed.push("--".into());
    observed.extend(target.clone());
    [target.to_vec(), observed].map(|words| {
        let words: Vec<&str> = wrap.iter().copied().chain(words.iter().map(String::as_str)).collect();
        let output = Command::new(words[0]).args(&words[1..]).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    })
}

#[test]
fn signals_ignored_or_blocked_on_entry_are_so_for_the_command_and_no_others() {
    let field = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        // Those up to 31: the others are without names, and whoever runs the tests may have ignored them.
        u64::from_str_radix(line.trim_start_matches([':', '\t']), 16).unwrap() & 0x7fff_ffff
    };
    let bit = |signal: Signal| 1_u64 << (signal as i32 - 1);
    let cases: [(&[&str], &str, u64); 5] = [
        (&["env", "--default-signal"], "SigIgn", 0),
        (&["env", "--default-signal", "--ignore-signal=PIPE"], "SigIgn", bit(Signal::SIGPIPE)),
        (&["nohup", "env"], "SigIgn", bit(Signal::SIGHUP)),
        (
            &["env", "--ignore-signal=INT,QUIT,CHLD"],
            "SigIgn",
            bit(Signal::SIGINT) | bit(Signal::SIGQUIT) | bit(Signal::SIGCHLD),
        ),
        (
            &["env", "--block-signal=PIPE,TERM,CHLD"],
            "SigBlk",
            bit(Signal::SIGPIPE) | bit(Signal::SIGTERM) | bit(Signal::SIGCHLD),
        ),
    ];
    for (wrap, name, expected) in cases {
        let [alone, observed] = signals(wrap);
        assert_eq!(field(&alone, name), expected, "{wrap:?}");
        assert_eq!(alone, observed, "{wrap:?}");
    }
}

#[test]
fn the_exit_status_is_the_commands_own() {
    let scene = Scene::new().unwrap();
    let ends = [
        ("exit 0", 0, Some(0), None),
        ("exit 3", 3, Some(3), None),
        ("exit 255", 255, Some(255), None),
        ("kill -TERM $$", 143, None, Some(15)),
        ("kill -KILL $$", 137, None, Some(9)),
        ("kill -SEGV $$", 139, None, Some(11)),
    ];
    for (index, (line, status, code, signal)) in ends.into_iter().enumerate() {
        let name = format!("end-{index}");
        let observed =
            scene.attach(&name).unwrap().args(["--quiet", "--", "sh", "-c", line]).output().unwrap();
        assert_eq!(observed.status.code(), Some(status), "{line}");
        assert_eq!(String::from_utf8_lossy(&observed.stderr), "", "--quiet says nothing: {line}");
        let ending = &scene.session(&name).unwrap().header["ending"];
        assert_eq!(ending["code"].as_i64(), code, "{line}");
        assert_eq!(ending["signal"].as_i64(), signal, "{line}");
        assert_eq!(ending["reason"], "exited", "{line}");
    }
}

#[test]
fn input_goes_through_and_standard_output_is_the_commands_alone() {
    let scene = Scene::new().unwrap();
    let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let mut observed = scene
        .attach("cat")
        .unwrap()
        .args(["--", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = observed.stdin.take().unwrap();
    let writer = std::thread::spawn({
        let bytes = bytes.clone();
        move || input.write_all(&bytes).unwrap()
    });
    let output = observed.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.stdout == bytes, "{} bytes came back", output.stdout.len());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("observer: recording cat as session cat"), "{said}");
}

/// The lines `signals.py` has written, once there are `count`; the first one names its process.
fn lines(file: &Path, count: usize) -> Vec<String> {
    deadline::until(&format!("{count} lines of {}", file.display()), LIMIT, || {
        let text = fs::read_to_string(file).unwrap_or_default();
        let lines: Vec<String> = text
            .split_inclusive('\n')
            .filter_map(|line| line.strip_suffix('\n'))
            .map(str::to_owned)
            .collect();
        (lines.len() >= count).then_some(lines)
    })
}

fn ready(file: &Path) -> Pid {
    Pid::from_raw(lines(file, 1)[0].strip_prefix("ready ").unwrap().parse().unwrap())
}

#[test]
fn a_signal_to_the_observer_reaches_the_command_once() {
    let scene = Scene::new().unwrap();
    let file = scene.path("signals");
    let mut observed = scene.attach("passed-on").unwrap();
    observed.args(["--", PYTHON, &script("signals.py")]).arg(&file).arg("until-term");
    let mut observed = observed.stderr(Stdio::null()).spawn().unwrap();
    ready(&file);
    let us = Pid::from_raw(observed.id() as i32);
    // Signals are passed on in turn, so each one is the proof that the one before is done with.
    let sent =
        [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGTERM];
    for (index, signal) in sent.into_iter().enumerate() {
        kill(us, signal).unwrap();
        lines(&file, index + 2);
    }
    assert_eq!(observed.wait().unwrap().code(), Some(0));
    let expected: Vec<String> = sent.iter().map(|signal| (*signal as i32).to_string()).collect();
    assert_eq!(lines(&file, 1)[1..], expected);
    let session = scene.session("passed-on").unwrap();
    let target = session.process_with("until-term").unwrap();
    assert_eq!(session.of_process(target, "signal").count(), sent.len());
}

#[test]
fn a_signal_to_the_whole_group_reaches_the_command_once() {
    let scene = Scene::new().unwrap();
    let file = scene.path("signals");
    let mut observed = scene.attach("group").unwrap();
    observed.args(["--", PYTHON, &script("signals.py")]).arg(&file).arg("until-term");
    let mut observed = observed.stderr(Stdio::null()).process_group(0).spawn().unwrap();
    ready(&file);
    let us = Pid::from_raw(observed.id() as i32);
    for (index, signal) in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGUSR1].into_iter().enumerate() {
        killpg(us, signal).unwrap();
        lines(&file, index + 2);
    }
    // The highest number of those that are passed on: read after what is pending, so whatever those would cause has been caused.
    kill(us, Signal::SIGTERM).unwrap();
    assert_eq!(observed.wait().unwrap().code(), Some(0));
    assert_eq!(lines(&file, 1)[1..], ["1", "2", "10", "15"]);
    let session = scene.session("group").unwrap();
    assert_eq!(session.of_process(session.process_with("until-term").unwrap(), "signal").count(), 4);
}

#[test]
fn ctrl_c_reaches_the_command_once() {
    let scene = Scene::new().unwrap();
    let file = scene.path("signals");
    let words = scene.attach_words("ctrl-c").unwrap();
    let mut terminal = Command::new(PYTHON)
        .arg(script("terminal.py"))
        .args(&words)
        .args(["--", PYTHON, &script("signals.py")])
        .arg(&file)
        .arg("until-term")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let target = ready(&file);
    let mut keyboard = terminal.stdin.take().unwrap();
    for count in 1..=2 {
        keyboard.write_all(b"\x03").unwrap();
        lines(&file, count + 1);
    }
    let observer = parent(target);
    kill(observer, Signal::SIGTERM).unwrap();
    assert!(terminal.wait().unwrap().success());
    assert_eq!(lines(&file, 1)[1..], ["2", "2", "15"]);
}

#[test]
fn a_terminal_that_goes_away_is_told_to_the_command_once() {
    let scene = Scene::new().unwrap();
    // Alone, the command leads the terminal's session; observed, we do, and the kernel tells leaders only.
    let observed = scene.attach_words("hangup").unwrap();
    for (name, words) in [("alone", vec![]), ("observed", [observed, vec!["--".to_owned()]].concat())] {
        let file = scene.path(name);
        let mut terminal = Command::new(PYTHON)
            .arg(script("terminal.py"))
            .args(&words)
            .args([PYTHON, &script("signals.py")])
            .arg(&file)
            .arg("until-term")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let command = ready(&file);
        terminal.kill().unwrap();
        terminal.wait().unwrap();
        lines(&file, 2);
        // To whoever is there to pass it on: when it arrives, a second HUP would have.
        kill(if words.is_empty() { command } else { parent(command) }, Signal::SIGTERM).unwrap();
        deadline::until("it ends", LIMIT, || {
            (!Path::new(&format!("/proc/{command}")).exists()).then_some(())
        });
        assert_eq!(lines(&file, 1)[1..], ["1", "15"], "{name}");
    }
}

fn parent(pid: Pid) -> Pid {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    Pid::from_raw(status.lines().find_map(|line| line.strip_prefix("PPid:\t")).unwrap().parse().unwrap())
}

#[test]
fn a_time_limit_ends_the_command_with_term() {
    let scene = Scene::new().unwrap();
    let file = scene.path("signals");
    let mut observed = scene.attach("limited").unwrap();
    observed.args(["--for", "1s", "--", PYTHON, &script("signals.py")]).arg(&file).arg("until-term");
    assert_eq!(observed.stderr(Stdio::null()).status().unwrap().code(), Some(0));
    assert_eq!(lines(&file, 1)[1..], ["15"]);
    let ending = &scene.session("limited").unwrap().header["ending"];
    assert_eq!((ending["code"].as_i64(), ending["reason"].as_str()), (Some(0), Some("time-limit")));

    let status =
        scene.attach("by-term").unwrap().args(["--quiet", "--for", "500ms", "--", "sleep", "60"]).status();
    assert_eq!(status.unwrap().code(), Some(143));
}

#[test]
fn a_command_that_ignores_term_is_killed_ten_seconds_later() {
    let scene = Scene::new().unwrap();
    let file = scene.path("signals");
    let begun = Instant::now();
    let mut observed = scene.attach("stubborn").unwrap();
    observed.args(["--for", "1s", "--", PYTHON, &script("signals.py")]).arg(&file);
    assert_eq!(observed.stderr(Stdio::null()).status().unwrap().code(), Some(137));
    assert!(begun.elapsed() >= Duration::from_secs(11), "{:?}", begun.elapsed());
    assert_eq!(lines(&file, 1)[1..], ["15"]);
    let ending = &scene.session("stubborn").unwrap().header["ending"];
    assert_eq!((ending["signal"].as_i64(), ending["reason"].as_str()), (Some(9), Some("time-limit")));
}

/// A user of the test's own, with a group besides the primary one. Gone when dropped.
struct Person {
    name: String,
    uid: u32,
    gid: u32,
}

impl Person {
    fn new(scene: &Scene, name: &str) -> Self {
        let home = scene.path("home");
        let name = format!("{name}{}", std::process::id());
        let added = Command::new("useradd")
            .args(["--create-home", "--groups", "games", "--home-dir"])
            .arg(&home)
            .arg(&name)
            .output();
        let added = added.unwrap();
        assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
        let facts = fs::metadata(&home).unwrap();
        Self { name, uid: facts.uid(), gid: facts.gid() }
    }

    fn ids(&self) -> String {
        let output = Command::new("id").args(["-G", &self.name]).output().unwrap();
        let mut groups: Vec<u32> = String::from_utf8(output.stdout)
            .unwrap()
            .split_whitespace()
            .map(|id| id.parse().unwrap())
            .collect();
        groups.sort_unstable();
        format!("{groups:?}")
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        let removed = Command::new("userdel").arg(&self.name).output();
        assert!(removed.is_ok_and(|output| output.status.success()) || std::thread::panicking());
    }
}

fn assert_runs_as(standing: &Value, person: &Person, home: &Path) {
    let four = |id: u32| [id.to_string(), id.to_string(), id.to_string(), id.to_string()].join("\t");
    assert_eq!(standing["status"]["Uid"], four(person.uid));
    assert_eq!(standing["status"]["Gid"], four(person.gid));
    let mut groups: Vec<u32> = standing["status"]["Groups"]
        .as_str()
        .unwrap()
        .split_whitespace()
        .map(|id| id.parse().unwrap())
        .collect();
    groups.sort_unstable();
    assert_eq!(format!("{groups:?}"), person.ids());
    assert_eq!(standing["status"]["CapEff"], "0000000000000000");
    let hex = standing["environment"].as_str().unwrap();
    let bytes: Vec<u8> =
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    let environment = String::from_utf8(bytes).unwrap();
    let variables: Vec<&str> = environment.split('\0').collect();
    for wanted in [
        format!("HOME={}", home.display()),
        format!("USER={}", person.name),
        format!("LOGNAME={}", person.name),
    ] {
        assert_eq!(
            variables.iter().filter(|variable| **variable == wanted).count(),
            1,
            "{wanted}: {variables:?}"
        );
    }
}

#[test]
fn under_sudo_the_command_runs_as_who_called_it_and_the_session_is_theirs() {
    let scene = Scene::new().unwrap();
    let person = Person::new(&scene, "obssudo");
    let home = scene.path("home");
    let file = scene.path("standing.json");
    let observed = Command::new(target::observer().unwrap())
        .args(["attach", "--name", "mine", "--quiet", "--", PYTHON, "-I", &script("standing.py")])
        .arg(&file)
        .envs([("SUDO_UID", person.uid.to_string()), ("SUDO_GID", person.gid.to_string())])
        .env("HOME", "/root")
        .env_remove("XDG_STATE_HOME")
        .current_dir(&home)
        .output()
        .unwrap();
    assert!(observed.status.success(), "{}", String::from_utf8_lossy(&observed.stderr));
    assert_runs_as(&written(&file).unwrap(), &person, &home);
    let state = home.join(".local/state/observer");
    let files: Vec<_> = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap()).collect();
    assert!(files.iter().any(|file| file.file_name().to_str().unwrap().ends_with(".sqlite")));
    for file in files {
        let facts = file.metadata().unwrap();
        assert_eq!((facts.uid(), facts.gid()), (person.uid, person.gid), "{:?}", file.file_name());
        assert_eq!(facts.permissions().mode() & 0o7777, 0o600, "{:?}", file.file_name());
    }
    for dir in [".local", ".local/state", ".local/state/observer"] {
        assert_eq!(fs::metadata(home.join(dir)).unwrap().uid(), person.uid, "{dir}");
    }
}

#[test]
fn a_command_can_be_run_as_another_user() {
    let scene = Scene::new().unwrap();
    let person = Person::new(&scene, "obsuser");
    let file = scene.path("standing.json");
    let run = |wanted: &str, name: &str| {
        let mut observed = scene.attach(name).unwrap();
        observed.args(["--quiet", "--user", wanted, "--", PYTHON, "-I", &script("standing.py")]).arg(&file);
        observed.current_dir("/").output().unwrap()
    };
    for (name, wanted) in [("by-name", person.name.clone()), ("by-id", person.uid.to_string())] {
        let observed = run(&wanted, name);
        assert!(observed.status.success(), "{}", String::from_utf8_lossy(&observed.stderr));
        assert_runs_as(&written(&file).unwrap(), &person, &scene.path("home"));
        fs::remove_file(&file).unwrap();
    }
    let unknown = run("no-such-user-here", "unknown");
    assert_eq!(unknown.status.code(), Some(125));
    let said = String::from_utf8(unknown.stderr).unwrap();
    assert!(said.contains("no such user: no-such-user-here"), "{said}");
    assert!(!file.exists());
}

#[test]
fn killing_the_observer_leaves_the_worker_consuming_and_the_session_readable() {
    let broker = Broker::start(&[]).unwrap();
    let venv = Venv::ensure().unwrap();
    let scene = Scene::new().unwrap();
    let log = scene.path("log");
    let send = || {
        let sent = Command::new(venv.python())
            .args(["send.py", "minimal_worker:count_words", "1", "to be or not to be"])
            .current_dir(target::folder())
            .env("BROKER_URL", broker.url())
            .status();
        assert!(sent.unwrap().success());
    };
    let counted = |count: usize| {
        deadline::until(&format!("{count} messages are processed"), LIMIT, || {
            let log = fs::read_to_string(&log).unwrap_or_default();
            (log.matches("counted 6 words").count() >= count).then_some(())
        });
    };
    let mut observed = scene
        .attach("killed")
        .unwrap()
        .args(["--quiet", "--", "python", "-m", "dramatiq", "-p", "1", "-t", "1", "minimal_worker"])
        .current_dir(target::folder())
        .env("PATH", venv.path())
        .env("BROKER_URL", broker.url())
        .stdout(fs::File::options().append(true).create(true).open(&log).unwrap())
        .stderr(fs::File::options().append(true).create(true).open(&log).unwrap())
        .spawn()
        .unwrap();
    let observer = observed.id();
    let master = deadline::until("the command runs", LIMIT, || {
        let children = fs::read_to_string(format!("/proc/{observer}/task/{observer}/children")).ok()?;
        children.split_whitespace().next()?.parse::<i32>().ok()
    });
    send();
    counted(1);
    // Something that happens all the time, so that what is missing shows as a gap before the kill.
    let mut ticking = Ticking::start(Pid::from_raw(master));
    ticking.for_a_second();
    let killed_ns = monotonic_ns();
    observed.kill().unwrap();
    ticking.stop();
    assert_eq!(observed.wait().unwrap().signal(), Some(9));

    send();
    counted(2);
    let list = scene.observer().unwrap().args(["ls", "--format", "json"]).output().unwrap();
    let list: Value = serde_json::from_slice(&list.stdout).unwrap();
    assert_eq!(list["sessions"][0]["state"], "cut-short");
    let screen = scene.observer().unwrap().arg("ls").output().unwrap();
    assert!(String::from_utf8(screen.stdout).unwrap().contains("cut short"));
    let session = scene.session("killed").unwrap();
    assert!(session.header["ending"].is_null());
    assert!(
        session.events.iter().any(|event| event["bytes"]["text"]
            .as_str()
            .is_some_and(|text| text.contains("counted 6 words")))
    );
    let recorded: Vec<u64> = session
        .of_process(master as u64, "signal")
        .filter(|event| event["signal"] == Signal::SIGWINCH as i32)
        .map(|event| event["at_ns"].as_u64().unwrap())
        .collect();
    let sent = ticking.sent_before(killed_ns - 200_000_000);
    assert!(sent > 10, "{sent} signals were sent in time");
    assert!(recorded.len() >= sent, "{} of {sent} signals older than 200 ms are recorded", recorded.len());

    kill(Pid::from_raw(master), Signal::SIGTERM).unwrap();
    deadline::until("the worker ends", LIMIT, || {
        (!Path::new(&format!("/proc/{master}")).exists()).then_some(())
    });
}

fn monotonic_ns() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

/// Sends a process WINCH, which nobody minds, over and over, and keeps when.
struct Ticking {
    stop: std::sync::mpsc::Sender<()>,
    thread: Option<std::thread::JoinHandle<()>>,
    sent: std::sync::Arc<std::sync::Mutex<Vec<u64>>>,
}

impl Ticking {
    fn start(pid: Pid) -> Self {
        let (stop, stopped) = std::sync::mpsc::channel();
        let sent = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let thread = std::thread::spawn({
            let sent = sent.clone();
            move || {
                while stopped.recv_timeout(Duration::from_millis(10))
                    == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
                {
                    kill(pid, Signal::SIGWINCH).unwrap();
                    sent.lock().unwrap().push(monotonic_ns());
                }
            }
        });
        Self { stop, thread: Some(thread), sent }
    }

    fn for_a_second(&self) {
        deadline::until("signals have been sent for a second", LIMIT, || {
            let sent = self.sent.lock().unwrap();
            (sent.last()? - sent.first()? > 1_000_000_000).then_some(())
        });
    }

    fn sent_before(&self, at_ns: u64) -> usize {
        self.sent.lock().unwrap().iter().filter(|sent| **sent < at_ns).count()
    }

    fn stop(&mut self) {
        self.stop.send(()).unwrap();
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Leave for one person to use sudo without a password; withdrawn when dropped.
struct Sudoer(PathBuf);

impl Sudoer {
    fn new(person: &Person) -> Self {
        let file = Path::new("/etc/sudoers.d").join(&person.name);
        fs::write(&file, format!("{} ALL=(ALL) NOPASSWD: SETENV: ALL\n", person.name)).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o440)).unwrap();
        Self(file)
    }
}

impl Drop for Sudoer {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn under_a_real_sudo_the_command_runs_in_its_callers_environment() {
    let scene = Scene::new().unwrap();
    let person = Person::new(&scene, "sudoer");
    let _leave = Sudoer::new(&person);
    // What sudo resets (a virtual environment's PATH above all) is the caller's again; what was given to sudo itself counts.
    let output = Command::new("runuser")
        .args(["-u", &person.name, "--", "env", "-i"])
        .args(["PATH=/opt/venv/bin:/usr/bin:/bin", "HOME=/elsewhere", "VIRTUAL_ENV=/opt/venv", "LEVEL=1"])
        .args(["sudo", "-n", "LEVEL=2"])
        .arg(target::observer().unwrap())
        .arg("--state-dir")
        .arg(scene.state_dir())
        .args(["attach", "--quiet", "--", "env"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<&str> = printed.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        ["HOME=/elsewhere", "LEVEL=2", "PATH=/opt/venv/bin:/usr/bin:/bin", "VIRTUAL_ENV=/opt/venv"]
    );
}
