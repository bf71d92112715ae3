//! Threads that sit in a call which no stop tells of: looked for from outside, once a second. A thread that has not run in between is in the
//! same call as before.

use std::collections::HashMap;

use super::{STUCK_NS, calls::Recorder};
use crate::{
    event::{Body, Known},
    source::{
        call::{self, waits_on},
        proc,
    },
};

struct Sat {
    /// How long it had run.
    run_ns: u64,
    /// When it was first found so: it entered its call since the look before, at most.
    since_ns: u64,
    /// The call, once it was told.
    told: Option<String>,
}

/// See the module. By thread.
#[derive(Default)]
pub(super) struct Sitting(HashMap<u32, Sat>);

impl Sitting {
    /// Looks at these threads, each with its process.
    pub(super) fn look(&mut self, now_ns: u64, threads: &[(u32, u32)], recorder: &Recorder) {
        let mut sat = std::mem::take(&mut self.0);
        for (tid, pid) in threads {
            let Some(run_ns) = proc::run_ns(*tid) else { continue };
            match sat.remove(tid) {
                Some(mut still) if still.run_ns == run_ns => {
                    if still.told.is_none()
                        && now_ns.saturating_sub(still.since_ns) >= STUCK_NS
                        && let Some((nr, args)) = proc::current_call(*tid)
                    {
                        let (syscall, since_ns) = (call::name(nr), still.since_ns);
                        still.told = Some(syscall.clone());
                        let on = waits_on(*tid, nr, &args);
                        recorder.tell(now_ns, *pid, *tid, Body::Stuck { syscall, since_ns, on, args });
                    }
                    self.0.insert(*tid, still);
                }
                moved => {
                    if let Some(Sat { since_ns, told: Some(syscall), .. }) = moved {
                        let body = Body::Unstuck { syscall, since_ns, result: Known::not_collected() };
                        recorder.tell(now_ns, *pid, *tid, body);
                    }
                    self.0.insert(*tid, Sat { run_ns, since_ns: now_ns, told: None });
                }
            }
        }
    }
}
