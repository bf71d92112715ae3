//! Standing: user, descriptors, terminal, limits, signals, exit status, input.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::scene::{Scene, written};
use tests::target;

use super::{PYTHON, script};

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
    let [mut alone, mut observed] = standings;
    // That it is traced is what a tracer cannot hide, and the only thing.
    if target::backend() == "ptrace" {
        for standing in [&mut alone, &mut observed] {
            standing["status"].as_object_mut().unwrap().remove("TracerPid").unwrap();
        }
    }
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
        // Whoever runs the tests in the background ignores some already.
        (&["env", "--default-signal", "nohup"], "SigIgn", bit(Signal::SIGHUP)),
        (
            &["env", "--default-signal", "--ignore-signal=INT,QUIT,CHLD"],
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
