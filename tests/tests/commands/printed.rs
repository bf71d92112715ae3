//! What is printed: JSON, colours, pipes, hostile text, completion.

use std::fs;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

use serde_json::Value;
use tests::scene::Scene;
use tests::target;

use super::{PYTHON, recorded, run, said};

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
    let verbs: [&[&str]; 3] =
        [&["show", "@", "--all"], &["show", "@", "--format", "json"], &["export", "@", "--format", "jsonl"]];
    for words in verbs {
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
    let verbs: [&[&str]; 8] = [
        &["ls"],
        &["ls", "--format", "json"],
        &["show", "@", "--all", "--env"],
        &["show", "@", "--summary"],
        &["show", "@", "--format", "json"],
        &["show", "no\u{1b}[31m\u{9b}1m"],
        &["export", "@", "--format", "jsonl"],
        &["export", "@", "--format", "markdown"],
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
fn what_the_command_leaves_running_is_named() {
    let scene = Scene::new().unwrap();
    let left = "exec >pid 2>&1; sleep 600 & echo $!";
    let mut attach = scene.attach("left").unwrap();
    let output =
        run(attach.args(["--", "/bin/sh", "-c", left]).current_dir(scene.path("")).stderr(Stdio::piped()));
    let pid = fs::read_to_string(scene.path("pid")).unwrap();
    let pid = pid.trim();
    let text = said(&output);
    // Nobody else ends it.
    assert!(Command::new("kill").arg(pid).status().unwrap().success(), "it is not running any more: {text}");
    let line = format!("the command left 1 process running, no longer observed; to end them: kill {pid}\n");
    assert!(text.contains(&line), "{text}");
}
