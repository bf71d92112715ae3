//! Workers that live and never try to connect: no queue, another broker, a filter; and workers without threads. Knows threads, loaded
//! modules and what their sources declare; rests on the absence of connections, so only where those could have been seen.

use std::collections::BTreeSet;

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

/// Words in the names of variables that choose what is used, and of those that turn tests on.
const CHOICES: [&str; 16] = [
    "env",
    "environment",
    "mode",
    "stage",
    "settings",
    "config",
    "profile",
    "broker",
    "dramatiq",
    "queue",
    "backend",
    "deployment",
    "flavor",
    "flavour",
    "kind",
    "app",
];
const SWITCHES: [&str; 7] = ["test", "tests", "testing", "unittest", "unittests", "fake", "mock"];

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
    let opened = |path: &str| case.model.files.imports.get(&pid)?.own.get(path).map(|mark: &Mark| mark.event);
    let (cause, text, remedy) = cause(&command, &looks, &actors, &opened);
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
    opened: &dyn Fn(&str) -> Option<u64>,
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
    let setters = || looks.iter().map(|(_, look)| look).filter(|look| !look.set_broker.is_empty());
    let by_attribute = command.attribute().is_some();
    let late = setters().find_map(|setter| {
        let of = |actor: &&&SourceLook| set_after(setter, actor, by_attribute, opened, looks).is_some();
        let actor = actors.iter().find(of)?;
        Some((setter, *actor, set_after(setter, actor, by_attribute, opened, looks)?))
    });
    if let Some((setter, actor, line)) = late {
        return (
            Some("broker-set-after-actors"),
            format!(
                "the broker is set in {}, line {line}, after the actors of {} were declared on another",
                setter.path, actor.path
            ),
            format!(
                "set the broker before the actors are declared: move line {line} of {} above them and above the imports of their modules",
                setter.path
            ),
        );
    }
    if by_attribute {
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

/// The line that sets the broker when the actors of a module have been declared already. In one file, lines tell; what a function does
/// that the command names after the colon, comes after all of its file. Between two files it is the one that imports the other, and where.
fn set_after(
    setter: &SourceLook,
    actor: &SourceLook,
    by_attribute: bool,
    opened: &dyn Fn(&str) -> Option<u64>,
    all: &[&(Mark, SourceLook)],
) -> Option<u32> {
    let first = *actor.actors.first()?;
    let last = *setter.set_broker.last()?;
    let later = setter.set_broker_later.last().copied().filter(|_| by_attribute);
    if setter.path == actor.path {
        return later.or_else(|| setter.set_broker.iter().copied().find(|line| *line > first));
    }
    if let Some(line) = import_line(setter, &actor.path, all) {
        // Imported by the setter, before or after it sets the broker.
        return later.or((line < last).then_some(last));
    }
    match import_line(actor, &setter.path, all) {
        Some(line) => (line > first).then_some(last),
        // Neither imports the other: whichever began first was done first.
        None => (opened(&actor.path)? < opened(&setter.path)?).then_some(last),
    }
}

/// The first line in which a module imports the one in this file, itself or by way of others.
fn import_line(look: &SourceLook, path: &str, all: &[&(Mark, SourceLook)]) -> Option<u32> {
    look.imports.iter().find(|(_, module)| leads_to(module, path, all)).map(|(line, _)| *line)
}

fn leads_to(module: &str, path: &str, all: &[&(Mark, SourceLook)]) -> bool {
    let last = |module: &str| module.rsplit('.').next().unwrap_or_default().to_owned();
    let mut seen = BTreeSet::from([last(module)]);
    let mut next = vec![last(module)];
    while let Some(name) = next.pop() {
        if is_module(path, &name) {
            return true;
        }
        for (_, look) in all.iter().filter(|(_, look)| is_module(&look.path, &name)) {
            let imports = look.imports.iter().map(|(_, module)| last(module));
            next.extend(imports.filter(|name| seen.insert(name.clone())));
        }
    }
    false
}

/// Whether a file is the module of this name, whatever package it is in.
fn is_module(path: &str, name: &str) -> bool {
    let stem = path.strip_suffix("/__init__.py").or_else(|| path.strip_suffix(".py"));
    !name.is_empty() && stem.and_then(|stem| stem.rsplit('/').next()) == Some(name)
}

/// A variable of the environment that selects a broker for tests, as far as its name and value tell.
fn selecting_variable(case: &Case<'_>, worker: &Process) -> Option<String> {
    let environment = case.environment(worker.pid)?;
    let ranked = environment.iter().filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        Some((selects(name, value)?, format!("{name}={value}")))
    });
    ranked.min_by_key(|(rank, _)| *rank).map(|(_, pair)| pair)
}

/// How well a variable fits, 0 best. Whole words only: a LATEST is no TEST.
fn selects(name: &str, value: &str) -> Option<u8> {
    let words = |text: &str| -> Vec<String> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        words.map(str::to_ascii_lowercase).collect()
    };
    let (named, valued) = (words(name), words(value));
    let has = |words: &[String], of: &[&str]| words.iter().any(|word| of.contains(&word.as_str()));
    // Paths, and who somebody is, select nothing.
    if value.contains('/')
        || has(&named, &["path", "pwd", "oldpwd", "home", "user", "username", "logname", "hostname", "host"])
    {
        return None;
    }
    if has(&valued, &["stub", "stubbroker"]) {
        return Some(0);
    }
    let on = !matches!(value.to_ascii_lowercase().as_str(), "" | "0" | "false" | "no" | "off" | "n" | "f");
    if on && has(&named, &["stub"]) {
        return Some(0);
    }
    if has(&valued, &TEST_VALUES) && has(&named, &CHOICES) {
        return Some(1);
    }
    (on && has(&named, &SWITCHES)).then_some(2)
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
