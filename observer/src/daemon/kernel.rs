//! What the service asks of the one source in the kernel. A trait, so that what is done with its events can be tried without a kernel.

use std::{collections::HashSet, time::Duration};

use nix::unistd::User;

use super::settings::Rule;
use crate::{
    capability::Description,
    event::{Event, Exec, Pid},
    source::{
        Source, SourceError,
        ebpf::{Ebpf, ExecRule, ProgramFacts},
    },
};

/// The source of all events.
pub(super) trait Kernel: Send {
    /// What it is and what it cannot see.
    fn describe(&self) -> Description;
    /// Replaces the rules by which a program that is executed is followed from then on. The first is known as `first`, which is not 0, the
    /// next by the number after that; what the kernel has told already may still name rules before.
    fn watch(&mut self, rules: &[Rule], first: u32) -> Result<(), SourceError>;
    /// Follows a process of `owner` that is about to execute its command, and all it will start.
    fn follow(&mut self, pid: Pid, owner: u32) -> Result<(), SourceError>;
    /// Takes a running process of `owner` and its descendants; what they are is told as events, but for those in `known`.
    fn adopt(&mut self, pid: Pid, owner: u32, known: &HashSet<Pid>) -> Result<Vec<Pid>, SourceError>;
    /// Lets go of processes: at a time, since it takes as long for one as for many.
    fn forget(&mut self, pids: &[Pid]);
    /// Waits for events and appends them.
    fn poll(&mut self, wait: Duration, room: usize, out: &mut Vec<Event>) -> Result<(), SourceError>;
    /// What the kernel holds of the programs.
    fn facts(&self) -> Vec<ProgramFacts>;
    /// Nothing is followed, and nothing is to be paid for.
    fn rest(&mut self);
}

impl Kernel for Ebpf {
    fn describe(&self) -> Description {
        Source::describe(self)
    }

    fn watch(&mut self, rules: &[Rule], first: u32) -> Result<(), SourceError> {
        let rules: Result<Vec<ExecRule>, SourceError> =
            rules.iter().zip(first..).map(|(rule, id)| exec_rule(rule, id)).collect();
        Self::watch(self, &rules?)
    }

    fn follow(&mut self, pid: Pid, owner: u32) -> Result<(), SourceError> {
        Self::follow(self, pid, owner)
    }

    fn adopt(&mut self, pid: Pid, owner: u32, known: &HashSet<Pid>) -> Result<Vec<Pid>, SourceError> {
        Self::adopt(self, pid, owner, known)
    }

    fn forget(&mut self, pids: &[Pid]) {
        Self::forget(self, pids);
    }

    fn poll(&mut self, wait: Duration, room: usize, out: &mut Vec<Event>) -> Result<(), SourceError> {
        Source::poll(self, wait, room, out).map(drop)
    }

    fn facts(&self) -> Vec<ProgramFacts> {
        Self::facts(self)
    }

    fn rest(&mut self) {
        Self::rest(self);
    }
}

fn exec_rule(rule: &Rule, id: u32) -> Result<ExecRule, SourceError> {
    let user = rule.user.as_deref();
    let uid = user.map(|user| {
        user.parse().ok().or_else(|| Some(User::from_name(user).ok()??.uid.as_raw())).ok_or_else(|| {
            SourceError {
                attempted: format!("cannot watch for what rule {} says", rule.name),
                answer: format!("there is no user {user}"),
                next: "see `getent passwd`".into(),
            }
        })
    });
    Ok(ExecRule {
        id,
        exe: rule.exe.clone(),
        args: rule.args.clone(),
        uid: uid.transpose()?,
        unit: rule.unit.clone(),
        cgroup: rule.cgroup.clone(),
    })
}

/// The rule by which a program that was executed came to be followed; `None` when it is a child of one that was.
pub(super) fn rule_of(exec: &Exec) -> Option<u32> {
    exec.rule.filter(|rule| *rule != 0)
}

/// Whether the kernel lets its own user look into the program. What cannot be told is not.
pub(super) fn is_dumpable(exec: &Exec) -> bool {
    exec.dumpable == Some(true)
}

/// The systemd unit that a program runs in: the last component of its cgroup's path that is named like one.
pub(super) fn unit_of(exec: &Exec) -> Option<String> {
    const KINDS: [&str; 3] = [".service", ".scope", ".socket"];
    let path = exec.cgroup.get()?;
    path.rsplit('/').find(|part| KINDS.iter().any(|kind| part.ends_with(kind))).map(str::to_owned)
}
