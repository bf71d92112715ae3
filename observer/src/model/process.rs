//! Processes: who started whom, what each ran, how it ended. Knows events; nothing of files, sockets or terminals.

use std::collections::HashMap;

use super::mark::Mark;
use crate::event::{Body, Event, Exec, Known, Origin, Pid, Sender};

/// Beyond this many processes new ones are only counted.
const MAX_PROCESSES: usize = 10_000;
/// Of the programs one process ran this many are kept.
const MAX_EXECS: usize = 16;
/// Of those it could not run, this many, the latest: one for each directory of a PATH.
const MAX_FAILED: usize = 64;
/// Of so many programs all they started with is kept; some ten kilobytes each, most of it the environment.
const MAX_DETAILS: usize = 500;

/// One process.
#[derive(Clone, Debug, PartialEq)]
pub struct Process {
    /// Its id.
    pub pid: Pid,
    /// Who started it, when that was seen.
    pub parent: Option<Pid>,
    /// When it was forked, when that was seen.
    pub forked_at_ns: Option<u64>,
    /// When it was first heard of.
    pub first_seen_ns: u64,
    /// `Proc` when it was already running when we came; else who saw it first.
    pub observed_from: Origin,
    /// The programs it ran, in order. Empty: it still runs its parent's.
    pub execs: Vec<Execution>,
    /// The programs it could not run.
    pub failed_execs: Vec<FailedExec>,
    /// Threads it started, its first not counted.
    pub threads_started: u64,
    /// Threads that ended while the process lived on.
    pub threads_ended: u64,
    /// The status it asked to end with (`exit_group`), and by which thread and when.
    pub exit_call: Option<(Mark, i32)>,
    /// How it ended; `None` while it lives.
    pub exit: Option<Exit>,
    /// Since when it has been stopped (`T`) or traced (`t`), while it is.
    pub stopped: Option<Mark>,
    /// Since when it was, when that is how it was killed.
    pub stopped_at_exit: Option<Mark>,
    /// How often it was stopped.
    pub stops: u64,
    /// When the kernel's out-of-memory killer chose it.
    pub oom_victim: Option<Mark>,
    /// The last signal queued for it of each number: by whom, when a process sent it.
    pub signalled_by: HashMap<i32, (Sender, Mark)>,
}

/// One program a process ran.
#[derive(Clone, Debug, PartialEq)]
pub struct Execution {
    /// When, and the event that proves it.
    pub mark: Mark,
    /// All it started with; `None` for those beyond the first five hundred.
    pub details: Option<Box<Exec>>,
    /// The arguments.
    pub argv: Known<Vec<String>>,
    /// The path of the file that ran.
    pub exe: Known<String>,
    /// The working directory.
    pub cwd: Known<String>,
}

/// One program that could not be run.
#[derive(Clone, Debug, PartialEq)]
pub struct FailedExec {
    /// When, and the event that proves it.
    pub mark: Mark,
    /// The path as given.
    pub path: Known<String>,
    /// The error number.
    pub errno: i32,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Exit {
    /// When, in nanoseconds on `CLOCK_MONOTONIC`; the latest it can have been, when nobody watched.
    pub at_ns: u64,
    /// The event that proves it.
    pub event: u64,
    /// Its status, when it was not killed. Neither this nor `signal`: it ended unseen.
    pub code: Option<i32>,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// Whether the kernel dumped core.
    pub core_dumped: bool,
    /// Who sent that signal, when a process did and it was seen.
    pub by: Option<Sender>,
    /// The sending, when it was seen.
    pub sent: Option<Mark>,
}

impl Process {
    fn new(pid: Pid, at_ns: u64, observed_from: Origin) -> Self {
        Self {
            pid,
            parent: None,
            forked_at_ns: None,
            first_seen_ns: at_ns,
            observed_from,
            execs: Vec::new(),
            failed_execs: Vec::new(),
            threads_started: 0,
            threads_ended: 0,
            exit_call: None,
            exit: None,
            stopped: None,
            stopped_at_exit: None,
            stops: 0,
            oom_victim: None,
            signalled_by: HashMap::new(),
        }
    }

    /// The program it runs now; `None` when it still runs what its parent ran at the fork.
    pub fn program(&self) -> Option<&Execution> {
        self.execs.last()
    }

    /// Whether it lived at the end of what was recorded.
    pub const fn alive(&self) -> bool {
        self.exit.is_none()
    }
}

/// All processes.
#[derive(Clone, Debug, Default)]
pub struct Processes {
    all: Vec<Process>,
    current: HashMap<Pid, usize>,
    /// Processes that were not kept because there were too many.
    pub left_out: u64,
    detailed: usize,
}

impl Processes {
    /// Every process, in the order they were first heard of.
    pub fn iter(&self) -> impl Iterator<Item = &Process> {
        self.all.iter()
    }

    /// How many processes are known.
    pub const fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether none is known.
    pub const fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The process that has, or had last, this id.
    pub fn get(&self, pid: Pid) -> Option<&Process> {
        self.current.get(&pid).and_then(|&index| self.all.get(index))
    }

    /// The processes nobody known started, in the order they were first heard of.
    pub fn roots(&self) -> impl Iterator<Item = &Process> {
        self.all.iter().filter(|process| process.parent.is_none_or(|parent| self.get(parent).is_none()))
    }

    /// The processes this one started, in order.
    pub fn children(&self, pid: Pid) -> impl Iterator<Item = &Process> {
        self.all.iter().filter(move |process| process.parent == Some(pid) && process.pid != pid)
    }

    pub(super) fn add(&mut self, id: u64, event: &Event) {
        let at_ns = event.at_ns;
        match &event.body {
            Body::Fork { child } => {
                if event.pid.0 != 0 {
                    self.entry(event.pid, event);
                }
                // The kernel may have given the id of a process that is gone to a new one.
                if self.get(*child).is_some_and(|process| !process.alive()) {
                    self.current.remove(child);
                }
                let parent = event.pid;
                if let Some(process) = self.entry(*child, event) {
                    process.parent = Some(parent).filter(|parent| parent.0 != 0);
                    if event.observed_from != Origin::Proc {
                        process.forked_at_ns = Some(at_ns);
                    }
                }
            }
            Body::Gap { gone, .. } => {
                for pid in gone {
                    if let Some(&index) = self.current.get(pid)
                        && let Some(process) = self.all.get_mut(index)
                    {
                        process.vanish(Mark::new(id, event));
                    }
                }
            }
            _ if event.pid.0 == 0 => {}
            body => {
                let with_details = self.detailed < MAX_DETAILS;
                if let Some(process) = self.entry(event.pid, event) {
                    process.add(Mark::new(id, event), body, with_details);
                    self.detailed += usize::from(with_details && matches!(body, Body::Exec(_)));
                }
            }
        }
    }

    fn entry(&mut self, pid: Pid, event: &Event) -> Option<&mut Process> {
        let index = match self.current.get(&pid) {
            Some(&index) => index,
            None if self.all.len() >= MAX_PROCESSES => {
                // One for each birth, not one for each event.
                self.left_out += u64::from(matches!(event.body, Body::Fork { .. }));
                return None;
            }
            None => {
                self.all.push(Process::new(pid, event.at_ns, event.observed_from));
                self.current.insert(pid, self.all.len() - 1);
                self.all.len() - 1
            }
        };
        self.all.get_mut(index)
    }
}

impl Process {
    fn add(&mut self, mark: Mark, body: &Body, with_details: bool) {
        match body {
            Body::Exec(exec) => self.exec(mark, exec, with_details),
            Body::ExecFailed { path, errno } => {
                if self.failed_execs.len() >= MAX_FAILED {
                    self.failed_execs.remove(0);
                }
                self.failed_execs.push(FailedExec { mark, path: path.clone(), errno: *errno });
            }
            Body::Thread { .. } => self.threads_started += 1,
            Body::ThreadExit { .. } if mark.tid.0 != 0 => self.threads_ended += 1,
            Body::ExitCall { code, group: true } => self.exit_call = Some((mark, *code)),
            Body::Exit { code, signal, core_dumped } => {
                let (by, sent) = signal.and_then(|signal| self.signalled_by.get(&signal).cloned()).unzip();
                let (at_ns, event) = (mark.at_ns, mark.event);
                let (code, signal, core_dumped) = (*code, *signal, *core_dumped);
                self.exit = Some(Exit { at_ns, event, code, signal, core_dumped, by, sent });
                self.stopped_at_exit = self.stopped.take();
            }
            Body::Signal { signal, sender, .. } => {
                if let Some(sender) = sender.get() {
                    self.signalled_by.insert(*signal, (sender.clone(), mark));
                }
            }
            Body::OomVictim => self.oom_victim = Some(mark),
            Body::State { state: 'T' | 't' } => {
                self.stops += u64::from(self.stopped.is_none());
                self.stopped.get_or_insert(mark);
            }
            Body::State { .. } => self.stopped = None,
            _ => {}
        }
    }

    /// It ended while nobody watched: at the latest now, and how is not known.
    fn vanish(&mut self, mark: Mark) {
        if self.exit.is_none() {
            let (at_ns, event) = (mark.at_ns, mark.event);
            self.exit = Some(Exit {
                at_ns,
                event,
                code: None,
                signal: None,
                core_dumped: false,
                by: None,
                sent: None,
            });
            self.stopped = None;
        }
    }

    fn exec(&mut self, mark: Mark, exec: &Exec, with_details: bool) {
        if self.parent.is_none() && exec.ppid.0 != 0 {
            self.parent = Some(exec.ppid);
        }
        if self.execs.len() >= MAX_EXECS {
            // The first says how it began, the last what it runs now.
            self.execs.pop();
        }
        self.execs.push(Execution {
            mark,
            details: with_details.then(|| Box::new(exec.clone())),
            argv: exec.argv.clone(),
            exe: exec.exe.get().map_or(Known::unknown(), |exe| exe.path.clone()),
            cwd: exec.cwd.clone(),
        });
    }
}
