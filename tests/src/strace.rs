//! strace as a second witness: runs a command under it and takes its lines apart. It knows how strace writes with `-xx -X raw` (every
//! string in hexadecimal, every number undecoded), and no system call.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use tempfile::NamedTempFile;

/// What strace wrote about a run.
#[derive(Debug)]
pub struct Trace {
    log: NamedTempFile,
}

/// One line: a call that returned, or a process that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// A system call.
    Call(Call),
    /// `+++ exited with CODE +++`
    Exited(i32),
    /// `+++ killed by SIGNAL +++`
    Killed(String),
}

/// A system call as strace saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its name.
    pub name: String,
    /// Its arguments, as written.
    pub arguments: Vec<String>,
    /// What it returned; `None` when it does not return.
    pub result: Option<i64>,
    /// 0, or the error number.
    pub errno: i32,
}

impl Trace {
    /// A command line that runs `command` under strace, which records exactly `calls`, and where it will write.
    pub fn of<S: AsRef<OsStr>>(calls: &[&str], command: &[S]) -> Result<(Command, Self)> {
        let log = NamedTempFile::new().context("cannot create a file for strace")?;
        let mut strace = Command::new("strace");
        strace.args(["-f", "-o"]).arg(log.path());
        // `-xx`: a path is hexadecimal, so that no byte of it can be taken for syntax. `execve` with its environment; other structures
        // may be abbreviated, they are not looked at.
        strace.args([
            "-s",
            "65535",
            "-xx",
            "-X",
            "raw",
            "-a",
            "1",
            "--quiet=attach,personality",
            "--abbrev=!execve,execveat",
        ]);
        strace.arg(format!("--trace={}", calls.join(","))).arg("--").args(command).stdin(Stdio::null());
        Ok((strace, Self { log }))
    }

    /// Every line with the process it is about.
    pub fn lines(&self) -> Result<Vec<(u32, Line)>> {
        let text = std::fs::read_to_string(self.log.path()).context("cannot read what strace wrote")?;
        let errnos = errnos();
        whole(&text).iter().filter_map(|line| parse(line, &errnos).transpose()).collect()
    }
}

/// Joins what strace tears apart when two processes are in calls at once: such a line stands where its call returned. One that never
/// does, because its process was killed in it, is left out.
fn whole(text: &str) -> Vec<String> {
    let mut begun = HashMap::new();
    let mut lines = Vec::new();
    for line in text.lines() {
        let (pid, rest) = line.split_once(' ').unwrap_or((line, ""));
        if let Some(first) = line.strip_suffix("<unfinished ...>") {
            begun.insert(pid, first.trim_end());
            continue;
        }
        let resumed = rest.trim_start().strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>"));
        match resumed.and_then(|(_, rest)| Some((begun.remove(pid)?, rest))) {
            Some((first, rest)) if first.ends_with(',') => {
                lines.push(format!("{first} {}", rest.trim_start()))
            }
            Some((first, rest)) => lines.push(format!("{first}{rest}")),
            None => lines.push(line.to_owned()),
        }
    }
    lines
}

fn parse(line: &str, errnos: &HashMap<String, i32>) -> Result<Option<(u32, Line)>> {
    let broken = || format!("cannot read strace's line: {line}");
    let (pid, rest) = line.split_once(' ').with_context(broken)?;
    let pid = pid.parse().with_context(broken)?;
    let rest = rest.trim_start();
    if rest.starts_with("--- ") {
        return Ok(None);
    }
    if let Some(end) = rest.strip_prefix("+++ ").and_then(|rest| rest.strip_suffix(" +++")) {
        let line = if let Some(code) = end.strip_prefix("exited with ") {
            Line::Exited(code.parse().with_context(broken)?)
        } else if let Some(signal) = end.strip_prefix("killed by ") {
            Line::Killed(signal.to_owned())
        } else {
            bail!(broken());
        };
        return Ok(Some((pid, line)));
    }
    let (name, rest) = rest.split_once('(').with_context(broken)?;
    // From the right: an argument may contain `) = ` in a comment, the result cannot.
    let (arguments, result) = rest.rsplit_once(") = ").with_context(broken)?;
    let mut words = result.split(' ');
    let value = words.next().with_context(broken)?;
    let (result, errno) = match value {
        "?" => (None, 0),
        "-1" => {
            let name = words.next().with_context(broken)?;
            (Some(-1), *errnos.get(name).with_context(broken)?)
        }
        value => (Some(number(value).with_context(broken)?), 0),
    };
    let call = Call { name: name.to_owned(), arguments: split(arguments), result, errno };
    Ok(Some((pid, Line::Call(call))))
}

/// Error numbers by name.
fn errnos() -> HashMap<String, i32> {
    (1..=133).map(|number| (format!("{:?}", Errno::from_raw(number)), number)).collect()
}

/// The parts between the commas that stand in no bracket.
pub fn split(text: &str) -> Vec<String> {
    let mut depth = 0;
    let mut parts = vec![String::new()];
    for c in text.chars() {
        match c {
            '[' | '{' | '(' => depth += 1,
            ']' | '}' | ')' => depth -= 1,
            _ => {}
        }
        match parts.last_mut() {
            Some(_) if c == ',' && depth == 0 => parts.push(String::new()),
            Some(part) => part.push(c),
            None => {}
        }
    }
    parts.into_iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

/// The bytes of a string as `-xx` writes it; `None` for anything that is not one whole string, such as an address.
pub fn string(text: &str) -> Option<Vec<u8>> {
    let hexadecimal = text.strip_prefix('"')?.strip_suffix('"')?;
    hexadecimal.split("\\x").skip(1).map(|digits| u8::from_str_radix(digits, 16).ok()).collect()
}

/// The strings of a list.
pub fn strings(text: &str) -> Option<Vec<Vec<u8>>> {
    split(text.strip_prefix('[')?.strip_suffix(']')?).iter().map(|part| string(part)).collect()
}

/// A number as `-X raw` writes it; flags may stand in parts, of which the first may be missing (`|0x100` of statx).
pub fn number(text: &str) -> Option<i64> {
    if text.contains('|') {
        let parts = text.split('|').filter(|part| !part.is_empty());
        return parts.map(number).try_fold(0, |all, part| Some(all | part?));
    }
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok().map(u64::cast_signed),
        None if text.len() > 1 && text.starts_with('0') => i64::from_str_radix(text, 8).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> Line {
        parse(line, &errnos()).unwrap().unwrap().1
    }

    #[test]
    fn calls_are_taken_apart() {
        let Line::Call(call) = one(r#"12  openat(-100, "\x2f\x28\x2c", 0x80000) = -1 ENOENT (No such file)"#)
        else {
            panic!("no call")
        };
        assert_eq!((call.name.as_str(), call.result, call.errno), ("openat", Some(-1), 2));
        assert_eq!(string(&call.arguments[1]).unwrap(), b"/(,");
        assert_eq!((number(&call.arguments[0]), number(&call.arguments[2])), (Some(-100), Some(0x80000)));
        let Line::Call(call) = one(r#"1 execve("\x61", ["\x61", "\x62"], []) = 0"#) else {
            panic!("no call")
        };
        assert_eq!(strings(&call.arguments[1]).unwrap(), [b"a", b"b"]);
        assert_eq!(strings(&call.arguments[2]).unwrap().len(), 0);
    }

    #[test]
    fn what_was_torn_apart_is_joined() {
        let torn = "7  read(0,  <unfinished ...>\n8  newfstatat(6, \"\",  <unfinished ...>\n9  getpid() = 9\n\
                    7  <... read resumed>\"\\x61\", 1) = 1\n8  +++ killed by SIGKILL +++";
        let joined = ["9  getpid() = 9", "7  read(0, \"\\x61\", 1) = 1", "8  +++ killed by SIGKILL +++"];
        assert_eq!(whole(torn), joined);
    }

    #[test]
    fn ends_are_told_apart() {
        assert_eq!(one("7 +++ exited with 5 +++"), Line::Exited(5));
        assert_eq!(one("7 +++ killed by SIGKILL +++"), Line::Killed("SIGKILL".into()));
        assert!(parse("7 read(0,  <unfinished ...>", &errnos()).is_err());
    }
}
