//! Who is tracked: from its own start by a rule, from its next program on, or as it runs. Knows the kernel half's tables and `/proc`;
//! nothing of what is recorded of them.
#![expect(unsafe_code, reason = "no crate of ours has membarrier(2)")]

use std::collections::HashSet;

use nix::libc;
use observer_ebpf::{Thread, rule::state};

use super::{Ebpf, ExecRule, full, own_event, programs::Plain, rules};
use crate::{
    event::{Body, Pid, Tid},
    source::{SourceError, proc},
};

/// Processes that a user has adopted at a time.
const MOST_ADOPTED: usize = 1_000;

/// Why a process cannot be tracked that is not there, or not who it is to be for: the words are the same.
fn gone(pid: u32) -> SourceError {
    SourceError {
        attempted: format!("cannot attach to process {pid}"),
        answer: "no such process".into(),
        next: "find it with `pgrep -af dramatiq`".into(),
    }
}

/// Returns when every program of ours that was running has ended. They run where the kernel's RCU waits for them, and so does this call
/// (kernel/sched/membarrier.c, MEMBARRIER_CMD_GLOBAL). Where it is refused (nohz_full) they are done in a millisecond all the same.
fn wait_for_programs() {
    const GLOBAL: libc::c_int = 1;
    // SAFETY: the call takes three integers and touches no memory of ours.
    if unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) } != 0 {
        tracing::debug!(answer = %std::io::Error::last_os_error(), "cannot wait for the kernel's programs");
    }
}

impl Ebpf {
    /// Follows a process that is about to `execve` and all it will start. Until that call succeeds only its failures are recorded. With an
    /// `owner` other than root it is followed for that user: as soon as one of them executes what that user may not look into (`sudo`), the
    /// kernel half lets go of it, and nothing it does from then on is told.
    ///
    /// # Errors
    /// When it is not that user's, or the kernel's table is full.
    pub fn follow(&mut self, pid: Pid, owner: u32) -> Result<(), SourceError> {
        self.track(pid.0, owner)?;
        self.track_thread(pid.0, 1)?;
        // After: what it executes from now on the kernel half looks at, but it may have executed something else before.
        if owner != 0 && !proc::is_of(pid.0, owner) {
            self.forget(&[pid]);
            return Err(gone(pid.0));
        }
        Ok(())
    }

    /// Takes a running process and its descendants. What they already are is read from `/proc`.
    ///
    /// A process is entered in the kernel's table before its children are listed: whatever it forks later is followed by the
    /// kernel, whatever it forked before is in the list. So none is missed.
    ///
    /// # Errors
    /// When the process is gone, or the kernel's table is full.
    pub fn attach(&mut self, root: Pid) -> Result<Vec<Pid>, SourceError> {
        self.adopt(root, 0, &HashSet::new())
    }

    /// Takes a running process and its descendants as [`Ebpf::attach`] does, all of which are returned, but tells nothing of what those in
    /// `known` already are: for whoever has recorded them before. With an `owner` other than root, as [`Ebpf::follow`]: what of them is not
    /// that user's is passed over, and there may be no more than 1,000: to read what they are takes time, which is everybody's.
    ///
    /// # Errors
    /// As [`Ebpf::attach`], and when `root` is not that user's, or they are too many.
    pub fn adopt(&mut self, root: Pid, owner: u32, known: &HashSet<Pid>) -> Result<Vec<Pid>, SourceError> {
        let mut found = Vec::new();
        let mut seen = HashSet::new();
        // Each with the process it is a child of: by the time its own turn comes, that one may have ended.
        let mut queue = vec![(root.0, None)];
        while let Some((pid, parent)) = queue.pop() {
            if !seen.insert(pid) {
                continue;
            }
            // First: what it executes from now on the kernel half looks at, what it has executed is looked at below.
            self.track(pid, owner)?;
            let mut tids = HashSet::new();
            loop {
                let new: Vec<u32> = proc::threads(pid).into_iter().filter(|tid| tids.insert(*tid)).collect();
                if new.is_empty() {
                    break;
                }
                for tid in new {
                    self.track_thread(tid, 0)?;
                }
            }
            if tids.is_empty() {
                let _ = self.programs.processes.remove(&pid);
                if pid == root.0 {
                    return Err(gone(pid));
                }
                continue;
            }
            let past = if known.contains(&Pid(pid)) { Vec::new() } else { proc::past(pid, &mut self.pipes) };
            // Last, too: it may have become another user's while it was read.
            if owner != 0 && !proc::is_of(pid, owner) {
                self.forget(&[Pid(pid)]);
                if pid == root.0 {
                    return Err(gone(pid));
                }
                continue;
            }
            if owner != 0 && found.len() >= MOST_ADOPTED {
                found.push(Pid(pid));
                self.forget(&found);
                return Err(SourceError {
                    attempted: format!("cannot attach to process {}", root.0),
                    answer: format!("it has more than {MOST_ADOPTED} descendants"),
                    next: "attach to one of them".into(),
                });
            }
            queue.extend(proc::children(pid).into_iter().map(|child| (child, Some(pid))));
            found.push(Pid(pid));
            if known.contains(&Pid(pid)) {
                continue;
            }
            if let Some(parent) = parent {
                let body = Body::Fork { child: Pid(pid) };
                self.own.push(own_event(proc::monotonic_ns(), Pid(parent), Tid(parent), body));
            }
            self.own.extend(past);
        }
        Ok(found)
    }

    /// Tracks the programs that fit one of `rules` from their `execve` on, with all they start; [`crate::event::Exec::rule`] says which it
    /// was, the first that fits. Takes the place of the rules before: a program that is started meanwhile is compared with either the
    /// old or the new ones, and when this returns with the new. Who is tracked already stays so.
    ///
    /// # Errors
    /// When there are more than 32, or one is none, which the text names; the rules before go on to hold.
    pub fn watch(&mut self, rules: &[ExecRule]) -> Result<(), SourceError> {
        let compiled = rules::compile(rules, self.programs.cgroups)?;
        let refused = |answer: &dyn std::error::Error| SourceError {
            attempted: "cannot hand the rules to the kernel".to_owned(),
            answer: answer.to_string(),
            next: "see `observer doctor`".to_owned(),
        };
        let holds = self.programs.state.get(&state::HOLDS, 0).map_err(|answer| refused(&answer))?;
        let next = if holds == 0 { 1 } else { 0 };
        if !rules.is_empty() {
            self.programs.rules.set(next, Plain(*compiled), 0).map_err(|answer| refused(&answer))?;
        }
        let next = if rules.is_empty() { state::NONE } else { u64::from(next) };
        self.programs.state.set(state::HOLDS, next, 0).map_err(|answer| refused(&answer))?;
        // A program that is compared with the old ones just now must be done before their place is written to again.
        wait_for_programs();
        Ok(())
    }

    /// Takes processes out of the kernel's tables with their threads: nothing more of them is recorded. Their children stay tracked, what they
    /// start from here on is not, unless by a rule; and what the kernel has told already comes yet. Takes the kernel some hundredths of a
    /// second, however many they are.
    pub fn forget(&mut self, pids: &[Pid]) {
        for pid in pids {
            let _ = self.programs.processes.remove(&pid.0);
        }
        // A thread that is made just now is entered yet; after this no other will be.
        wait_for_programs();
        for pid in pids {
            let mut gone = HashSet::new();
            loop {
                let new: Vec<u32> =
                    proc::threads(pid.0).into_iter().filter(|tid| gone.insert(*tid)).collect();
                if new.is_empty() {
                    break;
                }
                for tid in new {
                    let _ = self.programs.threads.remove(&tid);
                }
            }
            self.states.remove(&pid.0);
        }
    }

    /// The processes in the kernel's table, in no order.
    pub fn tracked(&self) -> Vec<Pid> {
        self.programs.processes.keys().flatten().map(Pid).collect()
    }

    /// Lets go of all probes in interpreters, which cost every process that runs one: for when nothing is tracked. An interpreter is probed
    /// again when it is next executed by who is tracked, or expected. Takes the kernel about a tenth of a second for each.
    pub fn rest(&mut self) {
        self.programs.forget_imports();
        self.interpreters.rest();
    }

    /// Lets the kernel half know that nothing is tracked, if so: system calls cost less then.
    pub(super) fn look_for_idleness(&mut self) {
        // In this order: whoever comes by a rule after the first look changes what was seen in it.
        let Ok(entered) = self.programs.state.get(&state::ENTERED, 0) else { return };
        if self.programs.processes.keys().next().is_none() && self.programs.threads.keys().next().is_none() {
            let _ = self.programs.state.set(state::IDLE_AT, entered, 0);
        }
    }

    fn track(&mut self, pid: u32, owner: u32) -> Result<(), SourceError> {
        // Never the time of anything.
        self.programs.state.set(state::IDLE_AT, u64::MAX, 0).map_err(|answer| full(pid, &answer))?;
        self.programs.processes.insert(pid, owner, 0).map_err(|answer| full(pid, &answer))
    }

    fn track_thread(&mut self, tid: u32, armed: u32) -> Result<(), SourceError> {
        // −2: it may be in a call already, and what that call returns is ours to record.
        let thread = Thread { enter_ns: proc::monotonic_ns(), enter_ticks: 0, nr: -2, armed, python: 0 };
        self.programs.threads.insert(tid, Plain(thread), 0).map_err(|answer| full(tid, &answer))
    }
}
