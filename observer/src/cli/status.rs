//! `observer status`: how the service is. Knows what it says of itself.

use std::{fmt::Write as _, time::Duration};

use super::{Context, ExitStatus, Format, print, printable, service::Service};
use crate::{
    daemon::{
        protocol::{Reply, Request},
        status::{Recorded, Status},
    },
    render::json,
    source::ebpf,
    words::{self, units},
};

/// Show how the service is: what it records, what it lost, what it costs.
///
/// Everybody sees what is recorded of their own processes; root and members of group `observer` see all. What the programs in the kernel
/// cost is measured for a second when root asks, and not at other times: to count costs something too.
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  observer status\n  sudo observer status -v          with every program in the kernel\n  observer status --format json | jq '.recordings[] | select(.consumes | not)'\n\nExit status: 0 when the service runs and records, 1 otherwise."
)]
pub struct Args {}

/// How long runs of the programs are counted.
const COUNT_FOR: Duration = Duration::from_secs(1);

/// Prints it.
///
/// # Errors
/// When the service does not run.
pub fn run(_args: &Args, context: &Context) -> anyhow::Result<ExitStatus> {
    let mut service = Service::connect()?;
    let counting = ebpf::count_runs().ok();
    if counting.is_some() {
        std::thread::sleep(COUNT_FOR);
    }
    let Reply::Status(status) = service.ask(&Request::Status)? else {
        anyhow::bail!("the service is of another version: it said something unknown");
    };
    drop(counting);
    print(&match context.format {
        Format::Json => json::pretty(&status)?,
        Format::Text => text(&status, context.verbose > 0),
    })?;
    Ok(if status.stopped.is_none() { ExitStatus::SUCCESS } else { ExitStatus::FAILURE })
}

fn text(status: &Status, whole: bool) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "observer {} (pid {}), for {}; {} of memory, {:.1} s of processor time",
        status.version,
        status.pid,
        units::duration(status.uptime_ns),
        units::size(status.rss_bytes),
        status.cpu_s
    );
    if let Some(why) = &status.stopped {
        let _ = writeln!(out, "NOT recording anything new: {}", printable(why));
    }
    let rules: Vec<String> = status.rules.iter().map(|rule| printable(rule)).collect();
    let rules = if rules.is_empty() { "none".into() } else { rules.join(", ") };
    let _ = writeln!(out, "rules      {rules}");
    let _ = writeln!(
        out,
        "recorded   {} begun, {} kept because something was wrong",
        status.begun, status.promoted
    );
    let _ = writeln!(out, "events     {}, now {:.0}/s", status.events, status.events_per_s);
    let lost: Vec<String> =
        status.lost.iter().map(|(what, count)| format!("{count} {}", printable(what))).collect();
    let _ = writeln!(out, "lost       {}", if lost.is_empty() { "nothing".into() } else { lost.join(", ") });
    let _ = writeln!(
        out,
        "sessions   {}, {}; {} free on that file system",
        status.sessions,
        units::size(status.sessions_bytes),
        units::size(status.free_bytes)
    );
    programs(&mut out, status, whole);
    if status.recordings.is_empty() {
        let _ = writeln!(out, "now        nothing is recorded");
    }
    for recorded in &status.recordings {
        let _ = writeln!(out, "now        {}", line(recorded));
    }
    out
}

fn programs(out: &mut String, status: &Status, whole: bool) {
    let ran: Vec<_> = status.programs.iter().filter(|program| program.run_count > 0).collect();
    let (count, time_ns) = ran
        .iter()
        .fold((0, 0), |(count, time), program| (count + program.run_count, time + program.run_time_ns));
    match time_ns.checked_div(count) {
        Some(each) => {
            let _ = writeln!(
                out,
                "probes     {} in the kernel, {each} ns a hit, as far as hits were counted",
                status.programs.len()
            );
        }
        None => {
            let _ = writeln!(
                out,
                "probes     {} in the kernel; for what a hit costs: sudo observer status",
                status.programs.len()
            );
        }
    }
    for program in ran.iter().filter(|_| whole) {
        let each = program.run_time_ns / program.run_count;
        let _ = writeln!(out, "  {:<22} {:>12} hits {each:>7} ns each", program.name, program.run_count);
    }
}

fn line(recorded: &Recorded) -> String {
    let how = if recorded.consumes { "consumes" } else { "does not consume (yet)" };
    let by = recorded
        .rule
        .as_ref()
        .map_or_else(|| "asked for".to_owned(), |rule| format!("rule {}", printable(rule)));
    let unit = recorded.unit.as_ref().map(|unit| format!(", {}", printable(unit))).unwrap_or_default();
    format!(
        "{} (pid {}, user {}{unit}): {how}; {by}, for {}, {} events: {}",
        printable(&recorded.name),
        recorded.pid,
        recorded.uid,
        units::duration(recorded.for_ns),
        recorded.events,
        printable(&words::command(&recorded.command)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::ebpf::ProgramFacts;

    #[test]
    fn a_page_a_person_can_read() {
        let program = |name: &str, run_count| ProgramFacts {
            name: name.into(),
            verified_instructions: 100,
            run_count,
            run_time_ns: run_count * 40,
        };
        let status = Status {
            version: "0.1.0".into(),
            pid: 7,
            uptime_ns: 90_000_000_000,
            rules: vec!["python-m-dramatiq".into()],
            recordings: vec![Recorded {
                id: "1".into(),
                name: "shop\u{1b}[31m".into(),
                pid: 10,
                uid: 1000,
                unit: Some("shop.service".into()),
                rule: Some("python-m-dramatiq".into()),
                command: vec!["python".into(), "-m".into(), "dramatiq".into(), "shop".into()],
                for_ns: 5_000_000_000,
                consumes: true,
                events: 1234,
                promoted: 0,
            }],
            begun: 3,
            promoted: 1,
            events: 4321,
            events_per_s: 12.3,
            lost: [("ring/file".to_owned(), 2)].into(),
            programs: vec![program("sys_enter", 10), program("close", 0)],
            rss_bytes: 30 << 20,
            cpu_s: 1.5,
            sessions: 2,
            sessions_bytes: 5 << 20,
            free_bytes: 1 << 30,
            ..Status::default()
        };
        insta::assert_snapshot!(text(&status, true), @r"
        observer 0.1.0 (pid 7), for 1 min 30 s; 30.0 MiB of memory, 1.5 s of processor time
        rules      python-m-dramatiq
        recorded   3 begun, 1 kept because something was wrong
        events     4321, now 12/s
        lost       2 ring/file
        sessions   2, 5.0 MiB; 1.0 GiB free on that file system
        probes     2 in the kernel, 40 ns a hit, as far as hits were counted
          sys_enter                        10 hits      40 ns each
        now        shop\x1b[31m (pid 10, user 1000, shop.service): consumes; rule python-m-dramatiq, for 5.00 s, 1234 events: python -m dramatiq shop
        ");
    }
}
