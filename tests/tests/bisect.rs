//! Bisect as a person meets it: the plan, a proof, and Ctrl-C in the middle of a run.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail like the test")]

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tests::deadline::until;
use tests::observe::{State, said};

const LIMIT: Duration = Duration::from_secs(60);
/// Says how it was run and who it is; works until it is ended, or fails at once.
const PROGRAM: &str = r#"echo $$ >pid; echo "$MODE" >>modes; [ "$MODE" = good ] && exec sleep 600; exit 3"#;
/// Whether the last run was to work.
const TEST: &str = r#"[ "$(tail -n 1 modes)" = good ]"#;

/// A run of each kind, in a folder of their own.
struct Pair {
    state: State,
    folder: tempfile::TempDir,
}

impl Pair {
    fn new() -> Self {
        let pair = Self { state: State::new().unwrap(), folder: tempfile::tempdir().unwrap() };
        for (name, mode, noise) in [("works", "good", "1"), ("fails", "bad", "2")] {
            let options = ["--name", name, "--for", "300ms"];
            let mut attach = pair.state.attach(&options, &["/bin/sh", "-c", PROGRAM]).unwrap();
            attach.env("MODE", mode).env("NOISE", noise).current_dir(pair.folder.path());
            let output = attach.output().unwrap();
            assert_eq!(pair.modes().last().map(String::as_str), Some(mode), "{}", said(&output));
        }
        pair
    }

    fn bisect(&self, options: &[&str]) -> Command {
        let mut bisect = self.state.verb(&["bisect", "works", "fails", "--test", TEST]).unwrap();
        bisect.args(options).current_dir(self.folder.path());
        bisect
    }

    /// How it was run, each time.
    fn modes(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.path().join("modes")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn sessions(&self) -> usize {
        let output = self.state.verb(&["--format", "json", "ls"]).unwrap().output().unwrap();
        let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
        listed["sessions"].as_array().unwrap().len()
    }
}

fn last_pid(folder: &Path) -> Pid {
    Pid::from_raw(fs::read_to_string(folder.join("pid")).unwrap().trim().parse().unwrap())
}

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let pair = Pair::new();
    let output = pair.bisect(&["--dry-run"]).output().unwrap();
    let plan = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success(), "{}", said(&output));
    for line in ["  env MODE: good | bad", "  env NOISE: 1 | 2", "at least 8 runs of 10"] {
        assert!(plan.contains(line), "{line:?} is not in the plan:\n{plan}");
    }
    assert_eq!(pair.modes(), ["good", "bad"], "nothing is run");
    assert_eq!(pair.sessions(), 2);
}

#[test]
fn what_decides_is_proved_and_each_run_is_a_session() {
    let pair = Pair::new();
    let output = pair.bisect(&["--for", "300ms", "--format", "json"]).output().unwrap();
    let said = said(&output);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{told:#}");
    assert_eq!(told["proved"], true, "{told:#}");
    let minimal = json!([{"kind": "env", "key": "MODE", "working": "good", "failing": "bad"}]);
    assert_eq!(told["minimal"], minimal);
    let runs = told["runs"].as_array().unwrap().len();
    assert_eq!(runs, 8);
    assert_eq!(pair.sessions(), 2 + runs);
    // No terminal: a line a run, and no bar.
    assert_eq!(said.lines().filter(|line| line.starts_with("observer: run ")).count(), runs, "{said}");
    assert!(!said.contains('\u{1b}') && !said.contains('\r'), "{said:?}");
}

#[test]
fn an_interrupt_ends_the_run_under_way_and_keeps_what_is_known() {
    let pair = Pair::new();
    let mut bisect = pair.bisect(&["--for", "600s"]);
    let child = bisect.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let group = Pid::from_raw(child.id().cast_signed());
    // The failing one, again, and the working one, which goes on.
    until("the second run begins", LIMIT, || (pair.modes().len() == 4).then_some(()));
    let running = last_pid(pair.folder.path());
    killpg(group, Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}{}", said(&output));
    assert!(text.starts_with("not proved: it was interrupted\n"), "{text}");
    assert!(text.contains("1 run: 0 worked, 1 failed"), "{text}");
    until("the run's command is gone", LIMIT, || (kill(running, None) == Err(Errno::ESRCH)).then_some(()));
}
