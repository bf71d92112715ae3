//! Workers that live and never try to connect: no queue, another broker, a filter; and workers without threads. Knows threads, loaded
//! modules and what their sources declare; rests on the absence of connections, so only where those could have been seen.

use super::{
    Rule,
    case::{Case, Kind},
    catalogue::Code,
    finding::{Evidence, Finding},
    import, peers, process,
};
use crate::{
    event::{Origin, SourceLook},
    model::{dramatiq::Role, ladder::Rung, mark::Mark, process::Process},
    python::command::Command,
};

/// The rules of this family.
pub(super) const RULES: &[Rule] = &[no_connection, no_worker_threads];

/// A worker that is ready connects within milliseconds; one that has not in this time does not mean to.
const SETTLED_NS: u64 = 2_000_000_000;
/// Values that select a broker for tests.
const TEST_VALUES: [&str; 10] =
    ["stub", "test", "testing", "tests", "unit", "unittest", "unittests", "fake", "dummy", "memory"];

/// A worker is ready, has lived on for a while, and no connection and no look-up of a name was ever tried. The stub broker is in use
/// (`brokers/stub.py` was loaded, and threads consume); or there is no queue to consume: with `--queues`, none of those named
/// (2.2, `worker.py`, `Worker.__init__`), else because no actor was declared, or on another broker than the one that runs.
fn no_connection(case: &Case<'_>, findings: &mut Vec<Finding>) {
    for worker in case.workers() {
        if let Some(ready) = is_ready_and_alone(case, worker) {
            findings.extend(why(case, worker, ready));
        }
    }
}

/// When a worker became ready, if it then never tried to connect.
fn is_ready_and_alone(case: &Case<'_>, worker: &Process) -> Option<u64> {
    let until_ns = process::until_ns(case, worker);
    let step = case.step(worker.pid, Rung::Import)?;
    let ready = step.at_ns.filter(|_| step.reached == Some(true)).or_else(|| {
        // It says nothing, and has started its threads.
        let threads = process::threads(case, worker.pid)?;
        (worker.threads_started > threads).then_some(worker.forked_at_ns?)
    })?;
    let tried = peers::attempts(case, worker.pid).next().is_some() || case.links(worker.pid).next().is_some();
    let looked_up = case.model.imports.of(worker.pid).is_some_and(|trail| trail.resolved.is_some());
    let seen_from_start = worker.observed_from != Origin::Proc;
    (seen_from_start && !tried && !looked_up && until_ns.saturating_sub(ready) >= SETTLED_NS).then_some(ready)
}

fn why(case: &Case<'_>, worker: &Process, ready: u64) -> Option<Finding> {
    let pid = worker.pid;
    let command = import::command(case, pid).unwrap_or_default();
    let loaded = |inside: &str| {
        let by = |pid| case.model.imports.of(pid).and_then(|trail| trail.dramatiq.get(inside).copied());
        by(pid).or_else(|| worker.parent.and_then(by))
    };
    let threads = process::threads(case, pid).unwrap_or(0);
    // One for delayed settlements beside the workers; two more for each queue (2.2, `worker.py`).
    let consumers = worker.threads_started.saturating_sub(threads + 1);
    let mark = Mark {
        event: case.step(pid, Rung::Import).and_then(|step| step.event)?,
        at_ns: ready,
        pid,
        tid: crate::event::Tid(pid.0),
    };
    let idle = "It is ready and lives on, and no connection was ever tried.";
    let confidence = |base| case.confidence(base, &[Kind::Streams, Kind::Files]);
    let ready = Evidence::new(mark, "the worker is ready");
    if let Some(stub) = loaded("brokers/stub.py")
        && consumers >= 2
    {
        let variable = selecting_variable(case, worker);
        let (by, remedy) = match &variable {
            Some(pair) => (
                format!(" The environment has {pair}."),
                format!("unset it, or set it for production: {pair} selects the stub broker"),
            ),
            None => (String::new(), Code::StubBroker.entry().remedy.to_owned()),
        };
        return Some(
            Finding::new(
                Code::StubBroker,
                confidence(0.94),
                format!(
                    "dramatiq's stub broker was loaded, which keeps messages in its own memory. {idle}{by}"
                ),
            )
            .cause(variable.map(|_| "selected-by-environment"))
            .about(case.subject(pid))
            .evidence([Evidence::new(stub, "opens dramatiq/brokers/stub.py"), ready])
            .remedy(remedy),
        );
    }
    let looks = looks(case, worker);
    let actors: Vec<&SourceLook> =
        looks.iter().map(|(_, look)| look).filter(|look| !look.actors.is_empty()).collect();
    if let Some(queues) = command.queues.as_ref().filter(|queues| !queues.is_empty() && !actors.is_empty()) {
        let queues = queues.join(", ");
        return Some(
            Finding::new(Code::QueueFilterMismatch, confidence(0.9), format!("--queues names {queues}, and no actor of the worker's modules uses one of them: it consumes nothing. {idle}"))
                .title(format!("--queues {queues} names no queue of this worker"))
                .about(case.subject(pid))
                .evidence([ready])
                .evidence(actor_evidence(&looks))
                .remedy("name the actors' queue after --queues, or leave it out"),
        );
    }
    let (cause, text, remedy) = cause(&command, &looks, &actors);
    let confidence = confidence(if cause.is_some() { 0.9 } else { 0.7 });
    Some(
        Finding::new(
            Code::NothingToConsume,
            confidence,
            format!("The worker has no queue to consume: {text}. {idle}"),
        )
        .cause(cause)
        .title(format!("no queue to consume: {text}"))
        .about(case.subject(pid))
        .evidence([ready])
        .evidence(actor_evidence(&looks))
        .remedy(remedy),
    )
}

/// What the disk said of the own modules that a worker, or its master, loaded.
fn looks<'a>(case: &'a Case<'_>, worker: &Process) -> Vec<&'a (Mark, SourceLook)> {
    let files = case.model.files.imports.get(&worker.pid);
    let is_own = |path: &String| files.is_some_and(|files| files.own.contains_key(path));
    case.model.imports.looks().iter().filter(|(_, look)| is_own(&look.path)).collect()
}

fn actor_evidence(looks: &[&(Mark, SourceLook)]) -> Vec<Evidence> {
    let declares = |(mark, look): &&&(Mark, SourceLook)| {
        let line = look.actors.first()?;
        Some(Evidence::new(*mark, format!("{}, line {line} declares an actor", look.path)))
    };
    looks.iter().filter_map(|look| declares(&look)).take(3).collect()
}

fn cause(
    command: &Command,
    looks: &[&(Mark, SourceLook)],
    actors: &[&SourceLook],
) -> (Option<&'static str>, String, String) {
    let Some(first) = actors.first() else {
        let modules: Vec<&str> = command.imports().collect();
        let modules = modules.join(", ");
        let text = if looks.is_empty() {
            format!("no actor is known of what {modules} imports")
        } else {
            format!("no module that was imported declares an actor ({modules})")
        };
        let cause = (!looks.is_empty()).then_some("no-actors-imported");
        return (
            cause,
            text,
            format!("name the modules with the actors too: python -m dramatiq {modules} MODULE"),
        );
    };
    if let Some(look) = actors.iter().find(|look| !look.with_broker.is_empty()) {
        let line = look.with_broker.first().copied().unwrap_or_default();
        return (
            Some("actor-on-other-broker"),
            format!("the actor in {}, line {line} names a broker of its own", look.path),
            format!(
                "run that broker (python -m dramatiq MODULE:BROKER), or leave broker= out in {}, line {line}",
                look.path
            ),
        );
    }
    let setter = looks.iter().map(|(_, look)| look).find(|look| !look.set_broker.is_empty());
    if let Some(setter) = setter {
        let line = setter.set_broker.first().copied().unwrap_or_default();
        return (
            Some("broker-set-after-actors"),
            format!(
                "the broker is set in {}, line {line}, after the actors of {} were declared on another",
                setter.path, first.path
            ),
            format!(
                "set the broker before the actors are declared: move line {line} of {} above them and above the imports of their modules",
                setter.path
            ),
        );
    }
    if command.attribute().is_some() {
        let broker = command.broker.as_deref().unwrap_or_default();
        return (
            Some("actor-on-other-broker"),
            format!("the actors of {} are not declared on {broker}", first.path),
            format!("declare the actors on {broker}, or leave the part after the colon out"),
        );
    }
    (
        None,
        format!("the actors of {} are on no broker that runs", first.path),
        "set the broker before the actors are declared".to_owned(),
    )
}

/// A variable of the environment that selects a broker for tests, as far as its name and value tell.
fn selecting_variable(case: &Case<'_>, worker: &Process) -> Option<String> {
    let environment = case.environment(worker.pid)?;
    environment.iter().find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let (upper, lower) = (name.to_ascii_uppercase(), value.to_ascii_lowercase());
        if matches!(upper.as_str(), "PATH" | "PWD" | "OLDPWD" | "HOME" | "_" | "PYTHONPATH" | "VIRTUAL_ENV") {
            return None;
        }
        let by_value = TEST_VALUES.contains(&lower.as_str()) || lower.contains("stub");
        let is_switch = ["STUB", "TEST", "FAKE", "MOCK"].iter().any(|word| upper.contains(word));
        let on = !matches!(lower.as_str(), "" | "0" | "false" | "no" | "off");
        (by_value || (is_switch && on)).then(|| format!("{name}={value}"))
    })
}

/// `--threads 0`: the worker consumes with prefetch 0, is given everything, and has no thread to run it (2.2, `cli.py` does not refuse it).
fn no_worker_threads(case: &Case<'_>, findings: &mut Vec<Finding>) {
    for worker in case.with_role(Role::Worker) {
        let threads = import::command(case, worker.pid).and_then(|command| command.threads);
        if threads.is_none_or(|threads| threads > 0) {
            continue;
        }
        let Some(consumer) = case
            .model
            .amqp
            .consumers
            .iter()
            .find(|consumer| consumer.asked.pid == worker.pid && consumer.confirmed.is_some())
        else {
            continue;
        };
        let delivered = case.model.amqp.lives.outcomes.of(worker.pid).map_or(0, |work| work.delivered);
        let held = if delivered == 0 {
            String::new()
        } else {
            format!(" {delivered} deliveries stay unacknowledged.")
        };
        findings.push(
            Finding::new(
                Code::NoWorkerThreads,
                0.97,
                format!("The worker was started with no worker threads (--threads 0): it consumes and runs nothing.{held}"),
            )
            .about(case.subject(worker.pid))
            .evidence(consumer.confirmed.map(|mark| Evidence::new(mark, format!("consumes {} with prefetch {}", consumer.queue, consumer.prefetch.unwrap_or(0))))),
        );
    }
}
