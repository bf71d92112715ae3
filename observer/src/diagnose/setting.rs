//! Settings of dramatiq that cannot be used: environment variables that are to be numbers and are none.

use super::{
    Rule,
    case::{Case, Kind},
    catalogue::Code,
    ends::{self, End},
    exits::exit_evidence,
    finding::{Evidence, Finding},
};
use crate::model::{dramatiq::Role, ladder::Rung, process::Process};

/// The rules of this family.
pub(super) const RULES: &[Rule] = &[setting_invalid];

/// Variables that dramatiq reads as whole numbers while its modules are imported (2.2 and 1.17: `worker.py`, `brokers/rabbitmq.py`,
/// `brokers/redis.py`, `middleware/prometheus.py`, `middleware/group_callbacks.py`), and the module of dramatiq that does. Those of
/// `worker` and what it imports are read by every process; the others only by who imports them.
const NUMBERS: &[(&str, &str)] = &[
    ("dramatiq_restart_delay", "worker"),
    ("dramatiq_queue_prefetch", "worker"),
    ("dramatiq_delay_queue_prefetch", "worker"),
    ("dramatiq_worker_timeout", "worker"),
    ("dramatiq_dead_message_ttl", "rabbitmq"),
    ("dramatiq_lua_max_stack", "redis"),
    ("dramatiq_prom_port", "prometheus"),
    ("dramatiq_group_callback_barrier_ttl", "group_callbacks"),
];

/// A `dramatiq_…` variable that is to be a whole number and is none, and a process that ended with status 1 before it was ready, with a
/// traceback that leads to where dramatiq reads that variable. Where the output was not seen, only the variables that every process reads
/// count, of a master that never started a worker. Alike: any other exception of an import, with such a variable set and never read.
fn setting_invalid(case: &Case<'_>, findings: &mut Vec<Finding>) {
    let candidates = case.masters().chain(case.workers());
    for process in candidates {
        if !matches!(ends::end(case, process), Some(End::Own(1)))
            || case.reached(process.pid, Rung::Import) == Some(true)
        {
            continue;
        }
        let is_master = case.role(process.pid) == Role::Master;
        if is_master && case.workers_of(process.pid).next().is_some() {
            continue;
        }
        for (name, value) in invalid(case, process) {
            let Some((confidence, evidence)) = proof(case, process, name) else { continue };
            let when = if is_master { "before it started a worker" } else { "while a worker started" };
            findings.push(
                Finding::new(
                    Code::SettingInvalid,
                    confidence,
                    format!(
                        "The environment variable {name} is {}, which is no whole number: dramatiq raised ValueError {when}.",
                        shown(value)
                    ),
                )
                .title(format!("{name}={value} is no whole number"))
                .about(case.subject(process.pid))
                .evidence(evidence)
                .evidence(exit_evidence(process))
                .remedy(format!("unset {name}, or set it to a whole number")),
            );
        }
    }
}

/// Variables of dramatiq with values that Python's `int` does not take.
fn invalid<'a>(case: &Case<'a>, process: &Process) -> Vec<(&'a str, &'a str)> {
    let environment = case.environment(process.pid).unwrap_or_default();
    let pairs = environment.iter().filter_map(|pair| pair.split_once('='));
    pairs.filter(|(name, value)| name.starts_with("dramatiq_") && !is_python_int(value)).collect()
}

/// What proves that this variable is what ended the process.
fn proof(case: &Case<'_>, process: &Process, name: &str) -> Option<(f64, Option<Evidence>)> {
    let known = NUMBERS.iter().find(|(known, _)| *known == name);
    let raised = case.model.tracebacks.of(process.pid).rev().find(|raised| {
        raised.traceback.chain().any(|one| {
            let Some(frame) = one.innermost().filter(|frame| frame.file.contains("/dramatiq/")) else {
                return false;
            };
            let names_it = |text: &str| text.contains(name);
            one.name() == "ValueError"
                && (names_it(&one.message)
                    || one.frames.iter().any(|frame| frame.source.as_deref().is_some_and(names_it))
                    || (frame.source.is_none()
                        && known.is_some_and(|(_, module)| frame.file.ends_with(&format!("/{module}.py")))))
        })
    });
    if let Some(raised) = raised {
        let place = raised
            .traceback
            .innermost()
            .map_or(String::new(), |frame| format!(" at {}:{}", frame.file, frame.line));
        let text = format!("{}: {}{place}", raised.traceback.kind, raised.traceback.message);
        return Some((0.97, Some(Evidence::new(raised.last, text))));
    }
    let said_nothing = case.model.tracebacks.of(process.pid).next().is_none();
    let read_by_all = known.is_some_and(|(_, module)| *module == "worker");
    let loaded = case
        .model
        .files
        .imports
        .get(&process.pid)
        .is_some_and(|imports| imports.packages.contains_key("dramatiq"));
    (said_nothing && read_by_all && loaded && case.role(process.pid) == Role::Master)
        .then(|| (case.confidence(0.7, &[Kind::Output]), None))
}

fn shown(value: &str) -> String {
    if value.is_empty() { "empty".to_owned() } else { format!("`{value}`") }
}

/// Whether `int(text)` takes it: white space around, a sign, digits with single underscores between (CPython 3.12,
/// `Objects/longobject.c`, `PyLong_FromString`).
fn is_python_int(text: &str) -> bool {
    let text = text.trim();
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    digits.split('_').all(|part| !part.is_empty() && part.chars().all(char::is_numeric))
}

#[cfg(test)]
mod tests {
    use super::is_python_int;

    #[test]
    fn whole_numbers_are_those_of_python() {
        for text in ["0", " 12\n", "-3", "+4", "1_000"] {
            assert!(is_python_int(text), "{text:?}");
        }
        for text in ["", " ", "1.5", "ten", "1__0", "_1", "1_", "0x10", "5s"] {
            assert!(!is_python_int(text), "{text:?}");
        }
    }
}
