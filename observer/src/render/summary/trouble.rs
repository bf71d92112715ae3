//! The sections `trouble` and `waiting`.

use std::collections::BTreeMap;

use super::Screen;
use crate::{
    event::{Known, Pid},
    model::trouble::{Signals, StuckThread},
    render::{
        style::{BAD, DIM, Line, NAME, ODD, PLAIN},
        timeline,
    },
    words::{names, units},
};

/// Signals that every program gets and nobody sends on purpose.
const HOUSEKEEPING: [&str; 3] = ["SIGCHLD", "SIGWINCH", "SIGURG"];

impl Screen<'_> {
    pub(super) fn trouble(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        for process in self.model.processes.iter() {
            let name = || Line::new().with(NAME, format!("{} ", process.pid));
            if let Some(at_ns) = process.oom_victim.map(|mark| mark.at_ns) {
                let text = format!("chosen by the kernel's out-of-memory killer {}", self.about(at_ns));
                lines.push(name().with(BAD, text));
            }
            if let Some(since_ns) = process.stopped.map(|mark| mark.at_ns) {
                lines.push(name().with(BAD, format!("stopped (state T) since {}", self.about(since_ns))));
            }
        }
        lines.extend(self.model.troubles.signals().iter().filter_map(|signals| self.signals(signals)));
        for ((path, errno), refused) in &self.model.files.refused {
            let times = if refused.count > 1 { format!(" ×{}", refused.count) } else { String::new() };
            let line = Line::new()
                .with(NAME, format!("{} ", refused.pid))
                .with(ODD, format!("open: {}", names::errno(*errno)))
                .with(PLAIN, format!("{times} {path} {}", self.about(refused.first_ns)));
            lines.push(line);
        }
        lines
    }

    fn signals(&self, signals: &Signals) -> Option<Line> {
        let name = names::signal(signals.signal);
        if HOUSEKEEPING.contains(&name.as_str()) {
            return None;
        }
        let times = if signals.count > 1 { format!(" ×{}", signals.count) } else { String::new() };
        let sender = signals.sender.clone().map_or(Known::unknown(), Known::Is);
        // A positive code stands for the kernel: without a sender it can only have been that, or unknown.
        let from = match sender {
            Known::Is(_) => format!(" from {}", timeline::sender_text(&sender, 0)),
            _ => String::new(),
        };
        Some(
            Line::new()
                .with(NAME, format!("{} ", signals.to))
                .with(ODD, format!("{name}{times}"))
                .with(PLAIN, format!(" {}{from}", self.about(signals.first_ns))),
        )
    }

    pub(super) fn waiting(&self) -> Vec<Line> {
        let mut by_process: BTreeMap<Pid, BTreeMap<&str, Vec<&StuckThread>>> = BTreeMap::new();
        for thread in self.model.troubles.stuck() {
            by_process.entry(thread.pid).or_default().entry(&thread.syscall).or_default().push(thread);
        }
        let mut lines: Vec<Line> = by_process
            .into_iter()
            .map(|(pid, calls)| {
                let mut line = Line::new().with(NAME, format!("{pid} "));
                for (index, (call, threads)) in calls.iter().enumerate() {
                    let separator = if index == 0 { "" } else { "; " };
                    line.push(
                        PLAIN,
                        format!("{separator}{} in {call}", units::counted(threads.len() as u64, "thread")),
                    );
                    if let Some(longest) = threads.first() {
                        let on = longest.on.as_ref().map_or(String::new(), |on| format!(" on {on}"));
                        line.push(DIM, format!("{on} since {}", self.about(longest.since_ns)));
                    }
                }
                line
            })
            .collect();
        let mut waits: Vec<_> = self.model.troubles.waits.iter().collect();
        waits.sort_by_key(|(_, waits)| std::cmp::Reverse(waits.longest_ns));
        lines.extend(waits.into_iter().map(|((pid, call), waits)| {
            let longest = units::duration(waits.longest_ns);
            Line::new()
                .with(NAME, format!("{pid} "))
                .with(DIM, format!("waited in {call} ×{}, longest {longest}", waits.count))
        }));
        lines
    }
}
