//! The source with all it has told, and those it is to tell of. It judges nothing.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use observer::event::{Body, Event, Exec, Origin};
use observer::source::Source as _;
use observer::source::ebpf::{Ebpf, ExecRule, SNAPLEN_MAX};
use tempfile::TempDir;
use tests::deadline;

pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// The source, and all it has told.
pub(crate) struct Watch {
    pub(crate) ebpf: Ebpf,
    pub(crate) events: Vec<Event>,
}

impl Watch {
    pub(crate) fn new(rules: &[ExecRule]) -> Self {
        let mut ebpf = Ebpf::load(SNAPLEN_MAX, &[]).unwrap();
        ebpf.watch(rules).unwrap();
        Self { ebpf, events: Vec::new() }
    }

    pub(crate) fn poll(&mut self) {
        self.ebpf.poll(Duration::ZERO, usize::MAX, &mut self.events).unwrap();
    }

    /// Until something was told.
    pub(crate) fn until(&mut self, what: &str, is: impl Fn(&Event) -> bool) {
        deadline::until(what, LIMIT, || {
            self.poll();
            self.events.iter().any(&is).then_some(())
        });
    }

    pub(crate) fn until_gone(&mut self, pid: u32) {
        self.until("the end of a process", |event| {
            event.pid.0 == pid && matches!(event.body, Body::Exit { .. })
        });
    }

    /// Until all that happened before this call was told, or would have been: something that happens after it was.
    pub(crate) fn settle(&mut self, dir: &Place) {
        self.ebpf.watch(&[rule(99, None, &[&dir.token("settled")])]).unwrap();
        let pid = run(Command::new("/bin/true").arg(dir.token("settled")));
        self.until_gone(pid);
    }

    pub(crate) fn of(&self, pid: u32) -> Vec<&Event> {
        self.events.iter().filter(|event| event.pid.0 == pid).collect()
    }

    /// The exec of a process that was tracked by a rule: it is the first that is told of it.
    pub(crate) fn first(&self, pid: u32) -> &Exec {
        let first = self.of(pid).into_iter().next().expect("something was told of it");
        let Body::Exec(exec) = &first.body else { panic!("the first is its exec: {first:?}") };
        assert_eq!(first.observed_from, Origin::Ebpf);
        exec
    }
}

/// A folder, and words nobody else on the machine uses.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("observer-rules-").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self(dir)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn token(&self, word: &str) -> String {
        format!("{}-{word}", self.path().file_name().unwrap().to_str().unwrap())
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}

/// Runs a command to its end; its number.
pub(crate) fn run(command: &mut Command) -> u32 {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    assert!(child.wait().unwrap().success(), "{command:?}");
    child.id()
}

pub(crate) fn rule(id: u32, exe: Option<&str>, args: &[&str]) -> ExecRule {
    let args = args.iter().map(|&word| word.to_owned()).collect();
    ExecRule { id, exe: exe.map(str::to_owned), args, ..ExecRule::default() }
}

/// Someone who waits for a line, twice, and is gone with the test.
pub(crate) struct Waiting(pub(crate) Child);

impl Waiting {
    pub(crate) fn new(place: &Place, script: &str) -> Self {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script, &place.token("waiting")]).stdin(Stdio::piped()).stdout(Stdio::null());
        Self(command.spawn().unwrap())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn line(&mut self) {
        self.0.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
