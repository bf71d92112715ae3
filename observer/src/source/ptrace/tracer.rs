//! The tracer's loop: one stop of one thread at a time, and what that thread does next. Knows which threads there are and where each
//! stands; what a call means it leaves to others.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::{Pid as UnixPid, getpid},
};

use super::{
    Root, RootEnd, STUCK_NS,
    calls::{Before, Call, Kind, Recorder},
    refused,
    sitting::Sitting,
    stop::{self, Next, Phase, Stop, Until},
};
use crate::{
    event::{Body, Event, Known, NoteLevel, Origin, Pid, Tid},
    source::{
        SourceError,
        call::{self, status, waits_on},
        proc::{self, PipeHolders},
    },
};

/// How often threads are looked over for calls that do not return.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Within this most calls are over that carry bytes.
const SOON: Duration = Duration::from_micros(40);
/// How long what a filtered command leaves running has after `SIGTERM`.
const GRACE: Duration = Duration::from_secs(10);

/// A thread that is traced.
struct Tracee {
    pid: u32,
    /// The call it is in.
    call: Option<Call>,
}

/// A process that is traced.
#[derive(Default)]
struct Process {
    threads: HashSet<u32>,
    /// Until its first `execve` succeeds only the failures are recorded.
    armed: bool,
    /// Its first thread has ended, others have not.
    leaderless: bool,
    stopped: bool,
}

/// See the module. When its thread ends, in whatever way, the kernel lets go of every tracee: it goes on as if it had never been traced,
/// and one that is stopped by a signal stays so (ptrace(2), "Death under ptrace").
pub(super) struct Tracer {
    recorder: Recorder,
    tracees: HashMap<u32, Tracee>,
    processes: HashMap<u32, Process>,
    root: Option<u32>,
    end: RootEnd,
    /// Its filter stops it, at recorded calls only.
    filtered: bool,
    sitting: Sitting,
    /// Whether the thread that was stopped last is in a call now.
    in_call: bool,
    looked: Instant,
}

impl Drop for Tracer {
    fn drop(&mut self) {
        self.end.let_go();
        self.recorder.queue.close();
    }
}

impl Tracer {
    pub(super) fn new(recorder: Recorder, end: RootEnd, filtered: bool) -> Self {
        let (tracees, processes) = (HashMap::new(), HashMap::new());
        let sitting = Sitting::default();
        Self {
            recorder,
            tracees,
            processes,
            root: None,
            end,
            filtered,
            sitting,
            in_call: false,
            looked: Instant::now(),
        }
    }

    /// Seizes a process that is about to `execve`, and comes back when its calls are heard of.
    pub(super) fn follow(&mut self, pid: u32) -> Result<(), SourceError> {
        let refused = |errno| refused::why(pid, errno);
        stop::seize(pid).map_err(refused)?;
        self.root = Some(pid);
        self.enter_thread(pid, pid);
        self.processes.entry(pid).or_default().armed = true;
        stop::interrupt(pid).map_err(refused)?;
        loop {
            match stop::wait() {
                Ok((tid, stop)) => {
                    self.handle(tid, stop);
                    if stop == Stop::Trap {
                        return Ok(());
                    }
                }
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(refused(errno)),
            }
        }
    }

    /// Seizes a running process and its descendants. What they already are is read from `/proc`.
    ///
    /// All threads of a process are seized before its children are listed: what they make later is traced by the kernel, what they made
    /// before is in the list. A thread that waits in one of the few calls that never restart (`epoll_wait`, signal(7)) sees `EINTR` once.
    pub(super) fn attach(&mut self, root: u32) -> Result<(), SourceError> {
        let mut pipes = PipeHolders::default();
        let mut queue = vec![(root, None)];
        while let Some((pid, parent)) = queue.pop() {
            if self.processes.contains_key(&pid) {
                continue;
            }
            match self.seize_all(pid) {
                Ok(()) => {}
                Err(errno) if pid == root => return Err(refused::why(pid, errno)),
                Err(errno) => {
                    self.miss(pid, errno);
                    continue;
                }
            }
            if let Some(parent) = parent {
                let (pid, tid, body) = (Pid(parent), Tid(parent), Body::Fork { child: Pid(pid) });
                let (at_ns, bytes) = (proc::monotonic_ns(), Vec::new());
                self.recorder.queue.push(Event { at_ns, pid, tid, observed_from: Origin::Proc, body, bytes });
            }
            for event in proc::past(pid, &mut pipes) {
                self.recorder.queue.push(event);
            }
            queue.extend(proc::children(pid).into_iter().map(|child| (child, Some(pid))));
        }
        Ok(())
    }

    fn seize_all(&mut self, pid: u32) -> Result<(), Errno> {
        let mut seen = HashSet::new();
        loop {
            let new: Vec<u32> = proc::threads(pid).into_iter().filter(|tid| seen.insert(*tid)).collect();
            if new.is_empty() {
                break;
            }
            for tid in new {
                // One that a seized thread has made is traced already.
                if self.tracees.contains_key(&tid) || proc::tracer(tid) == Some(getpid().as_raw() as u32) {
                    continue;
                }
                match stop::seize(tid).and_then(|()| stop::interrupt(tid)) {
                    Ok(()) => self.enter_thread(pid, tid),
                    Err(Errno::ESRCH) => {}
                    Err(errno) => return Err(errno),
                }
            }
        }
        if self.processes.contains_key(&pid) { Ok(()) } else { Err(Errno::ESRCH) }
    }

    /// A descendant that cannot be traced is said, not passed over.
    fn miss(&self, pid: u32, errno: Errno) {
        if errno != Errno::ESRCH {
            let text = format!("{}; what it does is not recorded", refused::why(pid, errno));
            let level = NoteLevel::Warning;
            self.recorder.tell(proc::monotonic_ns(), 0, 0, Body::Note { level, text });
        }
    }

    /// Handles stops until nothing is traced any more or `stopping` says so.
    pub(super) fn run(&mut self, stopping: impl Fn() -> bool) {
        let mut last_words = None;
        while !(stopping() && self.may_leave(&mut last_words)) {
            // A recorded call is over soon: to sleep and be woken would take longer.
            if self.filtered
                && self.in_call
                && let Some((tid, stop)) = stop::wait_briefly(SOON)
            {
                self.handle(tid, stop);
                continue;
            }
            match stop::wait() {
                Ok((tid, stop)) => self.handle(tid, stop),
                Err(Errno::EINTR) => self.look_over(),
                Err(_) => return,
            }
        }
    }

    /// Whether what is traced can go on without us. What is filtered cannot: it is asked to end, and then made to.
    fn may_leave(&self, asked: &mut Option<Instant>) -> bool {
        if !self.filtered {
            return true;
        }
        let signal = match asked {
            None => Signal::SIGTERM,
            Some(since) if since.elapsed() >= GRACE => Signal::SIGKILL,
            Some(_) => return false,
        };
        *asked = Some(Instant::now());
        for pid in self.processes.keys() {
            self.end.signal(Pid(*pid), signal as i32);
            let _ = kill(UnixPid::from_raw(pid.cast_signed()), signal);
        }
        false
    }

    fn enter_thread(&mut self, pid: u32, tid: u32) {
        self.tracees.insert(tid, Tracee { pid, call: None });
        self.processes.entry(pid).or_default().threads.insert(tid);
        self.recorder.tracked.insert(pid);
    }

    /// The one place where a stop is answered.
    fn handle(&mut self, tid: u32, stop: Stop) {
        if !self.tracees.contains_key(&tid) {
            self.born(tid, None);
        }
        let next = match stop {
            Stop::Call => self.call(tid),
            Stop::Signal(signal) => self.signal(tid, signal),
            Stop::Group(_) => self.stopped(tid, true),
            Stop::Trap => self.stopped(tid, false),
            Stop::Child => self.child(tid),
            Stop::Exec => self.exec(tid),
            Stop::Exiting => self.exiting(tid),
            Stop::Other => Next::Go,
            Stop::Ended(status) => self.ended(tid, status),
        };
        let in_call = self.tracees.get(&tid).is_some_and(|tracee| tracee.call.is_some());
        self.in_call = in_call;
        stop::resume(tid, next, if self.filtered && !in_call { Until::Filter } else { Until::Call });
    }

    fn child(&mut self, tid: u32) -> Next {
        if let Some(child) = stop::message(tid).filter(|child| !self.tracees.contains_key(child)) {
            self.born(child, Some(tid));
        }
        Next::Go
    }

    /// A thread is there that was not. Its own first stop may be heard of before its maker's, and then nobody has said who that is.
    fn born(&mut self, tid: u32, maker: Option<u32>) {
        let Some(pid) = proc::process_of(tid) else { return };
        let parent = match maker.and_then(|maker| self.tracees.get(&maker)) {
            Some(maker) => Some(maker.pid),
            None if pid == tid => proc::parent(pid),
            None => Some(pid),
        };
        let makes = |tracee: &Tracee| {
            Some(tracee.pid) == parent && tracee.call.as_ref().is_some_and(|call| call.kind == Kind::Clone)
        };
        let maker =
            maker.or_else(|| self.tracees.iter().find(|(_, tracee)| makes(tracee)).map(|(tid, _)| *tid));
        self.enter_thread(pid, tid);
        let Some(parent) = parent.filter(|parent| self.processes.contains_key(parent)) else { return };
        let body = if pid == tid { Body::Fork { child: Pid(pid) } } else { Body::Thread { child: Tid(tid) } };
        self.recorder.tell(proc::monotonic_ns(), parent, maker.unwrap_or(parent), body);
    }

    fn armed(&self, pid: u32) -> bool {
        self.processes.get(&pid).is_some_and(|process| process.armed)
    }

    fn call(&mut self, tid: u32) -> Next {
        let Some(pid) = self.tracees.get(&tid).map(|tracee| tracee.pid) else { return Next::Go };
        let armed = self.armed(pid);
        let Some(tracee) = self.tracees.get_mut(&tid) else { return Next::Go };
        match stop::phase(tid) {
            Some(Phase::Enter { nr, args, native: true }) => {
                let mut call = Call::new(pid, tid, nr, args);
                if !armed || call.is_exec() {
                    self.recorder.enter(&mut call);
                }
                tracee.call = Some(call);
            }
            Some(Phase::Leave { ret }) => {
                if let Some(mut call) = tracee.call.take()
                    && (!armed || call.is_exec())
                {
                    call.at_ns = proc::monotonic_ns();
                    if call.duration_ns() > STUCK_NS && !armed {
                        let syscall = call::name(call.nr);
                        let body = Body::Unstuck { syscall, since_ns: call.enter_ns, result: Known::Is(ret) };
                        self.recorder.say(&call, body);
                    }
                    self.recorder.leave(&call, ret);
                }
            }
            Some(Phase::Enter { native: false, .. }) | None => tracee.call = None,
        }
        Next::Go
    }

    fn signal(&self, tid: u32, signal: i32) -> Next {
        if let Some(tracee) = self.tracees.get(&tid) {
            self.recorder.signal(tracee.pid, tid, signal);
        }
        Next::Deliver(signal)
    }

    /// Its process is stopped, or is no more. Heard of from every thread, told once.
    fn stopped(&mut self, tid: u32, stopped: bool) -> Next {
        if let Some(pid) = self.tracees.get(&tid).map(|tracee| tracee.pid)
            && let Some(process) = self.processes.get_mut(&pid)
            && process.stopped != stopped
        {
            process.stopped = stopped;
            let state = if stopped { 'T' } else { 'R' };
            self.recorder.tell(proc::monotonic_ns(), pid, tid, Body::State { state });
        }
        if stopped { Next::Listen } else { Next::Go }
    }

    /// Another program runs. Its thread is the leader now, whichever it was, and the only one.
    fn exec(&mut self, tid: u32) -> Next {
        let at_ns = proc::monotonic_ns();
        let caller = stop::message(tid).unwrap_or(tid);
        let call = self.tracees.get_mut(&caller).and_then(|tracee| tracee.call.take());
        let path = call.map_or_else(Known::unknown, |call| call.program());
        self.tracees.retain(|other, tracee| tracee.pid != tid || *other == tid);
        self.processes.insert(tid, Process::default());
        self.enter_thread(tid, tid);
        let mut exec = proc::exec(tid, None);
        exec.path = path;
        exec.caller = Tid(caller);
        self.recorder.tell(at_ns, tid, tid, Body::Exec(Box::new(exec)));
        Next::Go
    }

    /// A leader that ends before its threads is heard of once more, when all are gone: this is when it does.
    fn exiting(&mut self, tid: u32) -> Next {
        let Some(tracee) = self.tracees.get(&tid).filter(|tracee| tracee.pid == tid) else { return Next::Go };
        let alone = tracee.call.as_ref().is_some_and(|call| call::name(call.nr) == "exit");
        if let Some(process) = self.processes.get_mut(&tid)
            && alone
            && process.threads.len() > 1
        {
            process.leaderless = true;
            let (code, signal, _) = status(stop::message(tid).unwrap_or(0));
            self.recorder.tell(proc::monotonic_ns(), tid, tid, Body::ThreadExit { code, signal });
        } else if let Some(loaded) = self.recorder.interpreters.loaded(tid) {
            self.recorder.tell(proc::monotonic_ns(), tid, tid, Body::LoadedModules(loaded));
        }
        Next::Go
    }

    fn ended(&mut self, tid: u32, wait_status: u32) -> Next {
        let at_ns = proc::monotonic_ns();
        let Some(pid) = self.tracees.get(&tid).map(|tracee| tracee.pid) else { return Next::Gone };
        let (code, signal, core_dumped) = status(wait_status);
        if tid == pid {
            self.tell_killer(pid);
            self.recorder.tracked.remove(&pid);
            self.recorder.tell(at_ns, pid, tid, Body::Exit { code, signal, core_dumped });
            // The kernel closes what it held afterwards (kernel/exit.c, do_exit).
            self.recorder.process_over(at_ns, pid);
            self.processes.remove(&pid);
            self.tracees.retain(|_, tracee| tracee.pid != pid);
            if self.root == Some(pid) {
                self.end.set(Root::Ended { code, signal });
                // Whoever waits for the command hears of its end from us: it was ours to reap.
                let _ = kill(getpid(), Signal::SIGCHLD);
            }
            return Next::Gone;
        }
        // What it was doing may tell who killed its process.
        if self
            .tracees
            .get(&tid)
            .and_then(|tracee| tracee.call.as_ref())
            .is_none_or(|call| !matches!(call.before, Before::Kills(..)))
        {
            self.tracees.remove(&tid);
        }
        let process = self.processes.entry(pid).or_default();
        process.threads.remove(&tid);
        // The last one of a process without a leader is the process's end.
        if !(process.leaderless && process.threads.len() <= 1) {
            self.recorder.tell(at_ns, pid, tid, Body::ThreadExit { code, signal });
        }
        Next::Gone
    }

    /// A process is dead, and one that killed it may still be in the call.
    fn tell_killer(&mut self, victim: u32) {
        for tracee in self.tracees.values_mut() {
            if let Some(call) = &mut tracee.call
                && let Before::Kills(victims, sender) = &mut call.before
                && let Some(place) = victims.iter().position(|pid| *pid == victim)
            {
                victims.remove(place);
                self.recorder.told_of(call.enter_ns, victim, sender.clone());
            }
        }
    }

    /// Threads that sit in a call.
    fn look_over(&mut self) {
        if self.looked.elapsed() < LOOK_EVERY {
            return;
        }
        self.looked = Instant::now();
        let now = proc::monotonic_ns();
        self.recorder.look_at_connections(now);
        if self.filtered {
            let idle = self.tracees.iter().filter(|(_, tracee)| tracee.call.is_none());
            let idle: Vec<(u32, u32)> = idle.map(|(tid, tracee)| (*tid, tracee.pid)).collect();
            self.sitting.look(now, &idle, &self.recorder);
        }
        for (tid, tracee) in &mut self.tracees {
            let armed = self.processes.get(&tracee.pid).is_some_and(|process| process.armed);
            let Some(call) = &mut tracee.call else { continue };
            if call.told || armed || now.saturating_sub(call.enter_ns) < STUCK_NS {
                continue;
            }
            call.told = true;
            let body = Body::Stuck {
                syscall: call::name(call.nr),
                since_ns: call.enter_ns,
                on: waits_on(*tid, call.nr, &call.args),
                args: call.args,
            };
            self.recorder.tell(now, call.pid, *tid, body);
        }
    }
}
