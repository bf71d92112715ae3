//! What is found out of a program after it was started, because it takes time and the tracer has none: the other ends of its pipes by
//! whoever asks for events, and which interpreter it is by a thread of its own, so that nothing else has to wait for a look into a
//! large file.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{
        Arc,
        mpsc::{self, SyncSender},
    },
    thread::{self, JoinHandle},
};

use super::{loaded::Interpreters, queue::Queue};
use crate::{
    event::{Body, Event, Exec, FdKind, ImportSight, Known, Pid},
    python::{
        entrance::{self, Entrance},
        installed,
    },
    source::{
        interpreter::{self, Sight},
        proc::PipeHolders,
        step_back,
    },
};

/// Programs that wait to be looked at. Whoever brings more waits too.
const WAITING: usize = 256;

/// See the module.
pub(super) struct Started {
    pipes: PipeHolders,
    looker: Option<Looker>,
    interpreters: Arc<Interpreters>,
}

/// The thread, and where programs are brought to it.
struct Looker {
    programs: SyncSender<(Pid, Exec)>,
    thread: JoinHandle<()>,
}

impl Started {
    /// What is found out of interpreters is left in `interpreters` too.
    pub(super) fn new(interpreters: Arc<Interpreters>) -> Self {
        Self { pipes: PipeHolders::default(), looker: None, interpreters }
    }

    /// Adds to an event what can be added. What follows from it comes by the queue.
    pub(super) fn look(&mut self, event: &mut Event, queue: &Arc<Queue>) {
        let pid = event.pid;
        let Body::Exec(exec) = &mut event.body else { return };
        for target in exec.stdio.iter_mut().filter_map(Known::get_mut) {
            if target.what == FdKind::Pipe && target.other_end == Known::not_collected() {
                target.other_end = self.pipes.other_end(target.inode, pid.0);
            }
        }
        let path = exec.exe.get().and_then(|exe| exe.path.get());
        if !path.is_some_and(|path| installed::may_be_python(path)) {
            return;
        }
        if self.looker.is_none() {
            self.looker = Looker::start(Arc::clone(queue), Arc::clone(&self.interpreters));
        }
        if let Some(looker) = &self.looker {
            let _ = looker.programs.send((pid, Exec::clone(exec)));
        }
    }

    /// Waits until all that was brought has been looked at.
    pub(super) fn finish(&mut self) {
        if let Some(Looker { programs, thread }) = self.looker.take() {
            drop(programs);
            let _ = thread.join();
        }
    }
}

impl Looker {
    fn start(queue: Arc<Queue>, interpreters: Arc<Interpreters>) -> Option<Self> {
        let (programs, waiting) = mpsc::sync_channel::<(Pid, Exec)>(WAITING);
        let look = move || {
            step_back();
            let mut versions = Versions::default();
            for (pid, exec) in waiting {
                let found = interpreter::of_exec(pid, &exec, |executable, holder, root| Sight {
                    version: versions.of(executable, &installed::inside(root, holder), |found| {
                        let [executable, holder] =
                            [executable, holder].map(|file| installed::inside(root, file));
                        interpreters.learn(&executable, &holder, found);
                    }),
                    imports: ImportSight::Inferred,
                    why: Some("ptrace sees calls of the kernel, not of the interpreter".into()),
                });
                found.into_iter().for_each(|event| queue.push(event));
            }
        };
        Some(Self { programs, thread: thread::Builder::new().name("looker".into()).spawn(look).ok()? })
    }
}

/// What was found in the file that holds an interpreter, by its device and inode.
#[derive(Default)]
struct Versions(HashMap<(u64, u64), Option<Entrance>>);

impl Versions {
    fn of(&mut self, executable: &Path, file: &Path, found: impl FnOnce(&Entrance)) -> Option<String> {
        let minor_of =
            |path: &Path| path.file_name().and_then(|name| installed::minor_in(&name.to_string_lossy()));
        let minor = minor_of(file).or_else(|| minor_of(executable));
        let look = || entrance::find(file, minor).ok();
        let facts = fs::metadata(file).ok()?;
        let known = self.0.entry((facts.dev(), facts.ino())).or_insert_with(look);
        known.as_ref().inspect(|known| found(known));
        known
            .as_ref()
            .and_then(|known| known.version.clone())
            .or_else(|| minor.map(|minor| format!("3.{minor}")))
    }
}
