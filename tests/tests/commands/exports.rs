//! Where exports go: to whom they belong, and what a terminal is spared.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Stdio};

use nix::unistd::{getgid, getuid};
use tests::privilege::lacking;
use tests::target;

use super::{PYTHON, recorded, run, said};

const NOBODY: u32 = 65_534;

#[test]
fn an_export_is_private_to_whoever_asked_also_under_sudo_and_takes_the_place_of_what_was_there() {
    let scene = recorded("whose", &["true"]);
    let path = scene.path("out.jsonl");
    fs::write(&path, "before").unwrap();
    let export = |format: &str| {
        let mut command = scene.observer().unwrap();
        command.args(["export", "whose", "--format", format, "-o"]).arg(&path);
        run(command.env("SUDO_UID", NOBODY.to_string()).env("SUDO_GID", NOBODY.to_string()))
    };
    let output = export("jsonl");
    assert!(output.status.success(), "{}", said(&output));
    let metadata = path.metadata().unwrap();
    // Who is not root gives nothing away, whatever SUDO_UID says.
    let owner = match lacking("to hand a file to another user") {
        true => (getuid().as_raw(), getgid().as_raw()),
        false => (NOBODY, NOBODY),
    };
    assert_eq!((metadata.uid(), metadata.gid()), owner);
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with(r#"{"kind":"header","schema":"observer.events/1","#), "{text}");
    let piped = run(scene.observer().unwrap().args(["export", "whose", "--format", "jsonl", "-o", "-"]));
    assert_eq!(String::from_utf8(piped.stdout).unwrap(), text);
    // What cannot be finished changes nothing.
    let failed =
        run(scene.observer().unwrap().args(["export", "nobody", "--format", "jsonl", "-o"]).arg(&path));
    assert_eq!(failed.status.code(), Some(1));
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    let parts = fs::read_dir(scene.path(""))
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".part"));
    assert_eq!(parts.count(), 0);
}

#[test]
fn a_folder_of_tables_is_private_to_whoever_asked_also_under_sudo() {
    let scene = recorded("whose", &["true"]);
    let path = scene.path("fleet");
    let mut command = scene.observer().unwrap();
    command.args(["export", "whose", "--format", "parquet", "-o"]).arg(&path);
    let output = run(command.env("SUDO_UID", NOBODY.to_string()).env("SUDO_GID", NOBODY.to_string()));
    assert!(output.status.success(), "{}", said(&output));
    let owner = match lacking("to hand a folder to another user") {
        true => (getuid().as_raw(), getgid().as_raw()),
        false => (NOBODY, NOBODY),
    };
    let (mut seen, mut left) = (0, vec![path]);
    while let Some(path) = left.pop() {
        let metadata = path.symlink_metadata().unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), owner, "{}", path.display());
        let mode = if metadata.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(metadata.permissions().mode() & 0o777, mode, "{}", path.display());
        if metadata.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            seen += 1;
        }
    }
    assert_eq!(seen, 18, "a file a table");
}

#[test]
fn a_terminal_is_given_no_binary_and_told_what_to_do() {
    let scene = recorded("shown", &["true"]);
    for (format, refused) in [("pcapng", true), ("perfetto", true), ("markdown", false)] {
        let mut command = Command::new(PYTHON);
        command.arg(target::folder().join("terminal.py")).arg(target::observer().unwrap());
        command.arg("--state-dir").arg(scene.state_dir()).args(["export", "shown", "--format", format]);
        let shown = run(command.stdin(Stdio::null())).stdout;
        let shown = String::from_utf8_lossy(&shown);
        let wanted = "to a terminal: it is not text; name a file with -o";
        assert_eq!(shown.contains(wanted), refused, "{format}: {shown}");
        assert_eq!(shown.contains("observer.markdown/1"), !refused, "{format}: {shown}");
    }
}

#[test]
fn each_format_says_what_is_in_it() {
    for format in ["html", "jsonl", "markdown", "pcapng", "perfetto", "parquet", "otlp"] {
        let output = run(Command::new(target::observer().unwrap()).args(["export", "--schema", format]));
        let schema = String::from_utf8(output.stdout).unwrap();
        let name = if format == "jsonl" { "events" } else { format };
        assert!(schema.contains(&format!("observer.{name}/1")), "{schema}");
    }
    let refused = run(Command::new(target::observer().unwrap()).args(["export", "@", "--format", "json"]));
    assert_eq!(refused.status.code(), Some(2));
    assert!(said(&refused).contains("html, jsonl, markdown, pcapng, perfetto"), "{}", said(&refused));
}
