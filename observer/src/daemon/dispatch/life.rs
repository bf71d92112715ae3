//! How a recording is gone on with, and how it is over. Knows who lives; nothing of what events say.

use std::collections::HashSet;

use super::{Dispatcher, Run};
use crate::{
    daemon::{
        kernel::Kernel,
        plan::{Plan, Word},
        store, target,
    },
    event::Pid,
    session::Ending,
    source::proc,
};

/// What a root leaves running is recorded so much longer.
const LINGER_NS: u64 = 1_000_000_000;
/// How often it is looked whether what should run still does: an end may have been lost.
const LOOK_EVERY_NS: u64 = 5_000_000_000;
/// How long after the last recording interpreters stay probed.
const REST_AFTER_NS: u64 = 60_000_000_000;
/// When a process was created is known to a tick of the kernel: the slowest have a hundred in a second.
const TICK_NS: u64 = 10_000_000;

impl<K: Kernel> Dispatcher<K> {
    /// Goes on with what was under way when we were ended.
    pub(in crate::daemon) fn resume(&mut self, plan: Plan, reopened: store::Reopened) {
        let last_ns = reopened.resumed.last_ns;
        let before = reopened.resumed.alive.iter().map(|before| before.pid);
        // A number may have passed to another process meanwhile, of another user even.
        let is_same = |pid: &Pid| {
            target::of_user(pid.0, plan.uid).is_ok()
                && proc::started_ns(pid.0).is_some_and(|started_ns| started_ns <= last_ns + TICK_NS)
        };
        let known: HashSet<Pid> = before.filter(is_same).collect();
        let root_lives =
            target::of_user(plan.root.0, plan.uid).is_ok_and(|found| found.ticks == plan.root_ticks);
        let mut members = HashSet::new();
        // The root may have come so shortly before that the session does not know it yet.
        let unknown = Some(&plan.root).filter(|root| !known.contains(root));
        for pid in known.iter().chain(unknown).filter(|_| root_lives) {
            match self.kernel.adopt(*pid, plan.uid, &known) {
                Ok(found) => members.extend(found),
                Err(error) => tracing::warn!(pid = pid.0, "cannot go on with a process: {error}"),
            }
        }
        let alive = if root_lives { known } else { HashSet::new() };
        let (id, root) = (plan.id.clone(), plan.root);
        if let Err(why) = self.begin(plan, Some((reopened, alive)), Box::new(|_| {})) {
            tracing::warn!(session = id, "cannot go on with the recording: {why}");
            self.leaving.extend(members);
            return;
        }
        if let Some(run) = self.runs.get_mut(&id) {
            run.members = members;
            if !root_lives {
                self.members.remove(&root);
                run.ended = Some((proc::monotonic_ns(), None, None));
            }
            self.members.extend(run.members.iter().map(|pid| (*pid, id.clone())));
        }
    }

    pub(super) fn end_what_is_over(&mut self, now_ns: u64) {
        if now_ns.saturating_sub(self.looked_ns) >= LOOK_EVERY_NS {
            self.looked_ns = now_ns;
            self.look_over(now_ns);
        }
        let is_over = |run: &Run| match run.ended {
            Some((at_ns, ..)) => run.members.is_empty() || now_ns.saturating_sub(at_ns) > LINGER_NS,
            None => {
                let limit = run.plan.limit.map_or(u64::MAX, |limit| limit.0);
                run.members.is_empty() || now_ns.saturating_sub(run.plan.began_ns) > limit
            }
        };
        let over: Vec<String> =
            self.runs.iter().filter(|(_, run)| is_over(run)).map(|(id, _)| id.clone()).collect();
        for id in over {
            let limit = self.runs.get(&id).is_some_and(|run| run.ended.is_none() && !run.members.is_empty());
            self.end(&id, if limit { "time-limit" } else { "exited" });
        }
    }

    pub(super) fn end(&mut self, id: &str, reason: &str) {
        let Some(run) = self.runs.remove(id) else { return };
        for pid in &run.members {
            self.members.remove(pid);
        }
        self.leaving.extend(&run.members);
        let (ended_ns, code, signal) = run.ended.unwrap_or_else(|| (proc::monotonic_ns(), None, None));
        // First: it may be concluded at once.
        self.spool.ends(id, run.plan.uid, run.waiting);
        if run.words.send(Word::Over(Ending { ended_ns, code, signal, reason: reason.into() })).is_err() {
            // It could not be recorded, and that has been told.
            self.spool.done(id);
        }
    }

    /// Probes in interpreters cost every program that runs one: they are let go of when nothing was recorded for a while.
    pub(super) fn rest_when_idle(&mut self, now_ns: u64) {
        if !self.runs.is_empty() {
            self.busy_ns = now_ns;
            self.rests = false;
        } else if !self.rests && now_ns.saturating_sub(self.busy_ns) > REST_AFTER_NS {
            self.rests = true;
            self.kernel.rest();
        }
    }

    /// Ends may have been lost, processes may have left that are not followed any more, and a recording may have failed.
    fn look_over(&mut self, now_ns: u64) {
        // What the kernel told of an end may be on its way: who is gone has left when that did not come by the next look.
        let gone: HashSet<Pid> = self.members.keys().copied().filter(|pid| !proc::is_alive(pid.0)).collect();
        let before = std::mem::replace(&mut self.gone, gone);
        for run in self.runs.values_mut() {
            let left =
                run.members.iter().copied().filter(|pid| before.contains(pid) && self.gone.contains(pid));
            for pid in left.collect::<Vec<_>>() {
                run.members.remove(&pid);
                self.members.remove(&pid);
                if pid == run.plan.root && run.ended.is_none() {
                    run.ended = Some((now_ns, None, None));
                }
            }
        }
        let broken: Vec<String> =
            self.runs.iter().filter(|(_, run)| run.inlet.is_closed()).map(|(id, _)| id.clone()).collect();
        broken.iter().for_each(|id| self.end(id, "broken"));
    }
}
