//! The ptrace source: what happens in a process tree, told by stopping each thread at each of its system calls. It needs no privilege and
//! no kernel of a certain make, and it is slow: two stops a call.
//!
//! A seccomp filter that stops only the calls that are recorded makes it several times faster, and is put in place only when it is asked for.
//! Measured on Linux 6.18: a call that a filter sends to its tracer (`SECCOMP_RET_TRACE`) fails with `ENOSYS` once the tracer is gone
//! (seccomp(2) says so too), and a filter cannot be taken away. A worker whose observer was killed could open no file any more. Nor could
//! it start a setuid program with its rights, for an unprivileged filter wants `no_new_privs`. Plain stops leave nothing behind.
//!
//! What cannot be helped: `TracerPid` in the target's `/proc/PID/status` names us, and while we are stopped it stands still at its next call.

mod borrow;
mod calls;
mod files;
mod filter;
mod loaded;
mod memory;
mod queue;
mod refused;
mod signals;
mod sitting;
mod sockets;
mod start;
mod started;
mod stop;
mod streams;
mod tracer;
mod watch;

use std::{
    collections::{HashMap, HashSet},
    os::unix::thread::JoinHandleExt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use calls::Recorder;
use loaded::Interpreters;
use nix::sys::pthread::pthread_kill;
use queue::Queue;
pub(super) use refused::yama_scope;
use started::Started;
use tracer::Tracer;

use super::{
    Flow, Source, SourceError,
    call::{self, AMQP_PORT, NAME_SERVER_PORT, NameServers},
    launch::Filter,
    proc,
};
use crate::{
    capability::Description,
    event::{Body, Event, Origin, Pid, Tid},
};

/// Names of the system calls that it records something of.
pub fn recorded() -> Vec<String> {
    calls::recorded().map(call::name).collect()
}

/// A call that lasts longer is told of.
const STUCK_NS: u64 = 1_000_000_000;
/// How often the tracer is asked to look over what does not move.
const NUDGE_EVERY: Duration = Duration::from_secs(1);
/// How long to wait before asking it again to end: it may have been about to wait when it was asked.
const INSIST_EVERY: Duration = Duration::from_millis(5);

/// How it stands with the command that was started. Whoever traces a process is told of its end, and nobody else in the same program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// It is traced: wait for this to change, not for the process.
    Traced,
    /// It has ended and is reaped.
    Ended {
        /// Its exit status.
        code: Option<i32>,
        /// The signal that killed it.
        signal: Option<i32>,
    },
    /// It is traced no more: it is its parent's to wait for.
    LetGo,
}

/// The command that was started, for whoever decides when it is over. `SIGCHLD` is sent to this program when its [`Root`] changes.
#[derive(Clone)]
pub struct RootEnd {
    root: Arc<Mutex<Root>>,
    queue: Arc<Queue>,
}

impl RootEnd {
    /// As it stands now.
    pub fn get(&self) -> Root {
        *self.root.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of a signal that we are about to send it: nobody else could.
    pub fn signal(&self, pid: Pid, signal: i32) {
        let sender = signals::sender(std::process::id());
        let body = Body::Signal { signal, code: nix::libc::SI_USER, sender, group: true, queued: true };
        let (at_ns, tid, bytes) = (proc::monotonic_ns(), Tid(pid.0), Vec::new());
        self.queue.push(Event { at_ns, pid, tid, observed_from: Origin::Ptrace, body, bytes });
    }

    fn set(&self, root: Root) {
        *self.root.lock().unwrap_or_else(PoisonError::into_inner) = root;
    }

    fn let_go(&self) {
        if self.get() == Root::Traced {
            self.set(Root::LetGo);
        }
    }
}

#[derive(Clone, Copy)]
enum Target {
    AboutToExec(u32),
    Running(u32),
}

/// Records a process tree from a thread of its own. Dropping it lets go of everything.
pub struct Ptrace {
    snaplen: u64,
    ports: HashSet<u16>,
    queue: Arc<Queue>,
    stopping: Arc<AtomicBool>,
    tracer: Option<JoinHandle<()>>,
    end: RootEnd,
    filtered: bool,
    nudged: Instant,
    interpreters: Arc<Interpreters>,
    started: Started,
}

impl Ptrace {
    /// Nothing is traced until [`Ptrace::follow`] or [`Ptrace::attach`].
    ///
    /// `ports` are those of known brokers: their connections are recorded whatever they speak. 5672 always is one.
    /// `filtered`: the command will have our [`Ptrace::filter`].
    pub fn new(snaplen: u64, ports: &[u16], filtered: bool) -> Self {
        let queue = Arc::<Queue>::default();
        let interpreters = Arc::<Interpreters>::default();
        Self {
            snaplen,
            ports: ports.iter().copied().chain([AMQP_PORT, NAME_SERVER_PORT]).collect(),
            end: RootEnd { root: Arc::new(Mutex::new(Root::Traced)), queue: Arc::clone(&queue) },
            queue,
            stopping: Arc::default(),
            tracer: None,
            filtered,
            nudged: Instant::now(),
            started: Started::new(Arc::clone(&interpreters)),
            interpreters,
        }
    }

    /// What the command is to be started with, so that it stops at recorded calls only.
    pub fn filter(&self) -> Option<Filter> {
        self.filtered.then(filter::filter)
    }

    /// Where the end of the command stands, because nobody else can wait for it.
    pub fn root_end(&self) -> RootEnd {
        self.end.clone()
    }

    /// Traces a process that is about to `execve` and all it will start. Until that call succeeds only its failures are recorded.
    ///
    /// # Errors
    /// When it cannot be traced; the text says why.
    pub fn follow(&mut self, pid: Pid) -> Result<(), SourceError> {
        self.start(Target::AboutToExec(pid.0))
    }

    /// Takes a running process and its descendants. What they already are is read from `/proc`.
    ///
    /// # Errors
    /// When it cannot be traced: it is gone, another traces it, or we lack the right; the text says which.
    pub fn attach(&mut self, root: Pid) -> Result<(), SourceError> {
        self.start(Target::Running(root.0))
    }

    fn start(&mut self, target: Target) -> Result<(), SourceError> {
        let failed = |attempted: &str, answer: String| SourceError {
            attempted: attempted.into(),
            answer,
            next: String::new(),
        };
        start::handle_signals().map_err(|errno| failed("cannot prepare signals", errno.to_string()))?;
        let recorder = self.recorder();
        let (end, stopping, filtered) = (self.end.clone(), Arc::clone(&self.stopping), self.filtered);
        let (ready, begun) = mpsc::sync_channel(1);
        // Only the thread that seized can wait and resume.
        let trace = move || {
            let mut tracer = Tracer::new(recorder, end, filtered);
            start::hear_nudges();
            let outcome = match target {
                Target::AboutToExec(pid) => tracer.follow(pid),
                Target::Running(pid) => tracer.attach(pid),
            };
            let going = outcome.is_ok();
            let _ = ready.send(outcome);
            if going {
                tracer.run(|| stopping.load(Ordering::Acquire));
            }
        };
        let thread = thread::Builder::new().name("tracer".into()).spawn(trace);
        self.tracer =
            Some(thread.map_err(|error| failed("cannot start the tracer's thread", error.to_string()))?);
        begun.recv().unwrap_or_else(|_| Err(failed("cannot trace", "the tracer ended unexpectedly".into())))
    }

    fn recorder(&self) -> Recorder {
        Recorder {
            queue: Arc::clone(&self.queue),
            snaplen: self.snaplen,
            ports: self.ports.clone(),
            tracked: HashSet::new(),
            sockets: HashMap::new(),
            name_servers: NameServers::default(),
            interpreters: Arc::clone(&self.interpreters),
        }
    }

    fn nudge(&self) {
        if let Some(tracer) = self.tracer.as_ref().filter(|tracer| !tracer.is_finished()) {
            let _ = pthread_kill(tracer.as_pthread_t(), start::NUDGE);
        }
    }

    /// Appends what has come. Whether more can.
    fn hand_out(&mut self, wait: Duration, room: usize, out: &mut Vec<Event>) -> bool {
        let before = out.len();
        let more = self.queue.take(wait, room, out);
        for event in out.iter_mut().skip(before) {
            self.started.look(event, &self.queue);
        }
        more
    }

    /// Appends what is left when the tracer has ended.
    fn hand_out_last(&mut self, out: &mut Vec<Event>) {
        self.hand_out(Duration::ZERO, usize::MAX, out);
        self.started.finish();
        self.hand_out(Duration::ZERO, usize::MAX, out);
    }

    /// Ends the tracer's thread, and with it all tracing.
    fn release(&mut self) {
        self.stopping.store(true, Ordering::Release);
        while self.tracer.as_ref().is_some_and(|tracer| !tracer.is_finished()) {
            self.nudge();
            self.queue.wait_closed(INSIST_EVERY);
        }
        if let Some(tracer) = self.tracer.take() {
            let _ = tracer.join();
        }
    }
}

impl Drop for Ptrace {
    fn drop(&mut self) {
        self.release();
    }
}

impl Source for Ptrace {
    fn describe(&self) -> Description {
        const OWN: [&str; 5] = [
            "imports as the interpreter makes them (they are inferred from the files opened, and from its memory where it ends without putting them away)",
            "the out-of-memory killer, and who sends SIGKILL from outside the process tree",
            "signals before they reach the program, and those it never takes",
            "what TCP does between two calls: a connection is seen to be made, refused or ended when the program learns of it, or a second later",
            "the duration of calls without the tracer's own stops in it",
        ];
        const FILTERED: &str =
            "when a thread entered a call that is not recorded, by up to a second, and what that returned";
        let filtered = self.filtered.then_some(FILTERED);
        let unseen = call::UNSEEN.into_iter().chain(OWN).chain(filtered).map(String::from).collect();
        Description { name: "ptrace".into(), unseen }
    }

    fn poll(&mut self, wait: Duration, room: usize, out: &mut Vec<Event>) -> Result<Flow, SourceError> {
        if self.nudged.elapsed() >= NUDGE_EVERY {
            self.nudged = Instant::now();
            self.nudge();
        }
        if self.hand_out(wait, room, out) {
            return Ok(Flow::More);
        }
        self.hand_out_last(out);
        match self.tracer.take().map(JoinHandle::join) {
            Some(Err(_)) => Err(SourceError {
                attempted: "cannot trace any further".into(),
                answer: "the tracer's thread ended unexpectedly".into(),
                next: "what was traced goes on, and is not recorded any more".into(),
            }),
            _ => Ok(Flow::End),
        }
    }

    fn finish(&mut self, out: &mut Vec<Event>) {
        self.release();
        self.hand_out_last(out);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn a_tracer_that_panics_lets_go_and_says_so() {
        let piped = || Stdio::piped();
        let mut target = Command::new("cat").stdin(piped()).stdout(piped()).spawn().unwrap();
        let pid = target.id();
        let mut source = Ptrace::new(0, &[], false);
        let (recorder, end) = (source.recorder(), source.root_end());
        let tracer = thread::spawn(move || {
            let mut tracer = Tracer::new(recorder, end, false);
            tracer.attach(pid).unwrap();
            assert_eq!(proc::tracer(pid), Some(std::process::id()));
            panic!("on purpose, with a stop that nobody has answered");
        });
        while !tracer.is_finished() {
            thread::yield_now();
        }
        source.tracer = Some(tracer);
        let mut events = Vec::new();
        let flow = source.poll(Duration::ZERO, usize::MAX, &mut events);
        assert!(matches!(flow, Err(error) if error.next.contains("goes on")), "{events:?}");
        assert!(matches!(events[0].body, Body::Exec(_)));
        assert_eq!(source.root_end().get(), Root::LetGo);

        assert_eq!(proc::tracer(pid), None);
        target.stdin.take().unwrap().write_all(b"it goes on").unwrap();
        let mut said = String::new();
        target.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(said, "it goes on");
        assert!(target.wait().unwrap().success());
    }
}
