//! The sections `processes` and `imports`.

use super::Screen;
use crate::{
    event::{Origin, Pid},
    model::{files::Imports, process::Process},
    render::style::{BAD, DIM, GOOD, Line, NAME, ODD, PLAIN},
    words::{self, names, units},
};

/// A tree is drawn this deep; what is deeper is drawn at this depth.
const MAX_DEPTH: usize = 8;
/// Lines for processes.
pub(super) const MAX_LINES: usize = 10;
/// Installed packages named for a process.
const MAX_PACKAGES: usize = 12;

impl Screen<'_> {
    pub(super) fn processes(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        // A stack of its own: how deep the target forks is not for our stack to bear.
        let mut pending: Vec<(&Process, usize)> =
            self.model.processes.roots().map(|root| (root, 0)).collect();
        pending.reverse();
        let mut drawn = std::collections::HashSet::new();
        while let Some((process, depth)) = pending.pop() {
            if !drawn.insert(std::ptr::from_ref(process)) {
                continue;
            }
            let notable = depth == 0
                || process.stopped.is_some()
                || !process.failed_execs.is_empty()
                || process.exit.as_ref().is_some_and(|exit| exit.code != Some(0));
            lines.push((notable, self.process(process, depth)));
            lines.extend(self.failed_execs(process, depth).map(|line| (true, line)));
            let mut children: Vec<_> =
                self.model.processes.children(process.pid).map(|child| (child, depth + 1)).collect();
            children.reverse();
            pending.append(&mut children);
        }
        let mut lines = keep_notable(lines);
        if self.model.processes.left_out > 0 {
            let count = units::counted(self.model.processes.left_out, "process");
            lines.push(Line::new().with(ODD, format!("and {count} more than are followed")));
        }
        lines
    }

    fn process(&self, process: &Process, depth: usize) -> Line {
        let branch =
            if depth == 0 { String::new() } else { format!("{}└ ", "  ".repeat(depth.min(MAX_DEPTH) - 1)) };
        let mut line = Line::new().with(DIM, branch).with(NAME, format!("{} ", process.pid));
        let status = self.status(process);
        let what = match process.program() {
            Some(program) => program.argv.get().map_or_else(
                || program.exe.get().map_or("(command unknown)", String::as_str).to_owned(),
                |argv| words::command(argv),
            ),
            None if process.forked_at_ns.is_some() => "(forked)".to_owned(),
            None => "(was there before)".to_owned(),
        };
        let room = self.columns.saturating_sub(status.width()).max(line.width() + 12);
        line.push_fit(PLAIN, what, room);
        line.append(status);
        line
    }

    /// Everything after the command: when it began, threads, how it ended.
    fn status(&self, process: &Process) -> Line {
        let mut line = Line::new();
        if let Some(at_ns) = process.forked_at_ns.filter(|&at_ns| at_ns > self.model.started_ns) {
            line.push(DIM, format!("  {}", self.about(at_ns)));
        }
        if process.observed_from == Origin::Proc {
            line.push(DIM, "  was running");
        }
        if process.threads_started > 0 {
            line.push(DIM, format!("  {}", units::counted(process.threads_started + 1, "thread")));
        }
        match &process.exit {
            None => {
                line.push(PLAIN, "  still running");
                if process.stopped.is_some() {
                    line.push(BAD, ", stopped");
                }
            }
            Some(exit) => {
                match (exit.code, exit.signal) {
                    (_, Some(signal)) => line.push(BAD, format!("  killed by {}", names::signal(signal))),
                    (Some(0), None) => line.push(GOOD, "  exit 0"),
                    (Some(code), None) => line.push(BAD, format!("  exit {code}")),
                    (None, None) => line.push(ODD, "  gone"),
                };
                if exit.core_dumped {
                    line.push(BAD, ", core dumped");
                }
                if let Some(sender) = &exit.by {
                    line.push(PLAIN, format!(" from {}", sender.pid));
                }
                line.push(DIM, format!(" {}", self.about(exit.at_ns)));
            }
        }
        line
    }

    fn failed_execs(&self, process: &Process, depth: usize) -> Option<Line> {
        // A search along PATH fails once for each directory: of those that came to nothing, the last says enough.
        let last = process.failed_execs.last().filter(|_| process.execs.is_empty())?;
        let indent = "  ".repeat(depth.min(MAX_DEPTH));
        let path = last.path.get().map_or("(path unknown)", String::as_str);
        let tried = match process.failed_execs.len() {
            1 => String::new(),
            count => format!(" (and {} before)", count - 1),
        };
        Some(
            Line::new()
                .with(BAD, format!("{indent}  could not run {path}: {}{tried}", names::errno(last.errno))),
        )
    }

    pub(super) fn imports(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        for (pid, imports) in &self.model.files.imports {
            lines.extend(self.imports_of(*pid, imports));
        }
        let missing = &self.model.files.missing;
        if !missing.is_empty() {
            let counts = missing.iter().map(|(pid, count)| format!("{pid} ×{count}"));
            let lead = Line::new().with(DIM, "names looked up that do not exist: ");
            lines.push(self.listed(lead, counts, missing.len() as u64));
        }
        lines
    }

    fn imports_of(&self, pid: Pid, imports: &Imports) -> Vec<Line> {
        let prefix = || Line::new().with(NAME, format!("{pid} "));
        let mut lines = Vec::new();
        let mut own: Vec<(&String, u64)> =
            imports.own.iter().map(|(path, mark)| (path, mark.at_ns)).collect();
        own.sort_by_key(|(_, at_ns)| *at_ns);
        let total = own.len() as u64 + imports.own_left_out;
        if total > 0 {
            let names = own.iter().map(|(path, _)| (*path).clone());
            lines.push(self.listed(prefix(), names, total));
        }
        let mut packages: Vec<_> = imports.packages.iter().collect();
        packages.sort_by(|a, b| b.1.cmp(a.1).then_with(|| a.0.cmp(b.0)));
        let left_out = packages.len().saturating_sub(MAX_PACKAGES);
        let mut counts: Vec<String> =
            packages.iter().take(MAX_PACKAGES).map(|(name, count)| format!("{name} {count}")).collect();
        if imports.stdlib > 0 {
            counts.insert(0, format!("standard library {}", imports.stdlib));
        }
        if !counts.is_empty() {
            let total = (counts.len() + left_out) as u64;
            let lead = if lines.is_empty() {
                prefix()
            } else {
                Line::new().with(PLAIN, " ".repeat(prefix().width()))
            };
            lines.push(self.listed(lead.with(DIM, "files of: "), counts.into_iter(), total));
        }
        lines
    }

    /// As many of the names as fit on the line, then how many more there are.
    fn listed(&self, mut line: Line, names: impl Iterator<Item = String>, total: u64) -> Line {
        const MORE_COLUMNS: usize = 14;
        let mut shown = 0;
        for name in names {
            let text = if shown == 0 { name } else { format!(", {name}") };
            let room = self.columns.saturating_sub(if shown + 1 == total { 0 } else { MORE_COLUMNS });
            let piece = Line::new().with(PLAIN, &text);
            if shown == 0 {
                line.push_fit(PLAIN, text, room);
            } else if line.width() + piece.width() <= room {
                line.append(piece);
            } else {
                break;
            }
            shown += 1;
        }
        if shown < total {
            line.push(DIM, format!(", {} more", total - shown));
        }
        line
    }
}

/// Cuts a large tree down to its share of the screen: of what is alike, the first; what ended badly stays.
fn keep_notable(lines: Vec<(bool, Line)>) -> Vec<Line> {
    let left_out = lines.len().saturating_sub(MAX_LINES);
    if left_out == 0 {
        return lines.into_iter().map(|(_, line)| line).collect();
    }
    let notable = lines.iter().filter(|(notable, _)| *notable).count().min(MAX_LINES - 1);
    let (mut notable_room, mut other_room) = (notable, MAX_LINES - 1 - notable);
    let mut kept: Vec<Line> = lines
        .into_iter()
        .filter_map(|(notable, line)| {
            let room = if notable { &mut notable_room } else { &mut other_room };
            let fits = *room > 0;
            *room = room.saturating_sub(1);
            fits.then_some(line)
        })
        .collect();
    kept.push(Line::new().with(DIM, format!("… and {} more", left_out + 1)));
    kept
}
