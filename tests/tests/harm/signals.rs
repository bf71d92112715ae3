//! Signals to the observer, to the group, from the terminal, and at the end of the time.

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tests::deadline;
use tests::scene::Scene;

use super::{LIMIT, PYTHON, lines, script};

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
