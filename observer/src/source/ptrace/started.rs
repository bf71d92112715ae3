//! What is found out of a program after it was started: by whoever asks for events, because it takes time and the tracer has none.

use std::{collections::HashMap, fs, os::unix::fs::MetadataExt as _, path::Path};

use crate::{
    event::{Body, Event, Exec, FdKind, ImportSight, Known},
    python::{entrance, installed},
    source::{
        interpreter::{self, Sight},
        proc::PipeHolders,
    },
};

/// See the module.
#[derive(Default)]
pub(super) struct Started {
    pipes: PipeHolders,
    /// Versions by device and inode of the file that holds an interpreter.
    versions: HashMap<(u64, u64), Option<String>>,
}

impl Started {
    /// Adds to an event what can be added, and gives the event that follows from it.
    pub(super) fn look(&mut self, event: &mut Event) -> Option<Event> {
        let pid = event.pid;
        let Body::Exec(exec) = &mut event.body else { return None };
        for target in exec.stdio.iter_mut().filter_map(Known::get_mut) {
            if target.what == FdKind::Pipe && target.other_end == Known::not_collected() {
                target.other_end = self.pipes.other_end(target.inode, pid.0);
            }
        }
        let exec: &Exec = exec;
        interpreter::of_exec(pid, exec, |executable, holder, root| Sight {
            version: self.version(executable, &installed::inside(root, holder)),
            imports: ImportSight::Inferred,
            why: Some("ptrace sees calls of the kernel, not of the interpreter".into()),
        })
    }

    fn version(&mut self, executable: &Path, file: &Path) -> Option<String> {
        let minor_of =
            |path: &Path| path.file_name().and_then(|name| installed::minor_in(&name.to_string_lossy()));
        let minor = minor_of(file).or_else(|| minor_of(executable));
        let exact = || entrance::find(file, minor).ok().and_then(|entrance| entrance.version);
        let facts = fs::metadata(file).ok()?;
        let known = self.versions.entry((facts.dev(), facts.ino())).or_insert_with(exact);
        known.clone().or_else(|| minor.map(|minor| format!("3.{minor}")))
    }
}
