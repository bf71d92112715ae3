//! What the two runs then did: modules, the broker, how they ended. Mostly follows from what they were given. Knows the model.

use std::collections::{BTreeMap, BTreeSet};

use super::{Difference, Kind, difference, given, run::Run, touched};
use crate::{
    event::{Address, Known},
    model::{ladder::ladders, queue::Declared},
    python::{self, Owner},
    words::names,
};

pub(super) fn differences(working: &Run, failing: &Run, out: &mut Vec<Difference>) {
    modules(working, failing, out);
    sys_path(working, failing, out);
    files(working, failing, out);
    broker(working, failing, out);
    exits(working, failing, out);
}

/// The owner of a module file and the folder it came through.
fn is_own(path: &str) -> bool {
    python::module_file(path).is_some_and(|module| module.owner == Owner::Own)
}

/// Whether two own modules are two files, each in a place of its own, that are not known to be the same.
fn from_elsewhere(working: &Run, failing: &Run, a: &str, b: &str) -> bool {
    let (one, other) = (working.touched.looks.get(a), failing.touched.looks.get(b));
    let same = one.is_some() && other.is_some() && !touched::differ(one, other);
    is_own(a) && is_own(b) && working.normal.path(a) != failing.normal.path(b) && !same
}

fn modules(working: &Run, failing: &Run, out: &mut Vec<Difference>) {
    // A whole package that is there or not is one difference.
    let top = |name: &str| name.split('.').next().unwrap_or(name).to_owned();
    let mut missing: BTreeMap<(String, bool), (usize, String)> = BTreeMap::new();
    let both = |name: &String| (working.modules.get(name), failing.modules.get(name));
    let all: BTreeSet<&String> = working.modules.keys().chain(failing.modules.keys()).collect();
    let mut moved: BTreeSet<String> = BTreeSet::new();
    for name in all {
        match both(name) {
            (Some(a), Some(b)) if a != b && (is_own(a) != is_own(b)) && moved.insert(top(name)) => {
                let why = "the same name was loaded from another place: one file shadows the other";
                let values = (Some(a.clone()), Some(b.clone()));
                out.push(difference(Kind::Module, name.clone(), values, 118, why));
            }
            (Some(a), Some(b)) if from_elsewhere(working, failing, a, b) && moved.insert(top(name)) => {
                let why = "another file of the same name was loaded, and says something else";
                let values = (Some(a.clone()), Some(b.clone()));
                out.push(difference(Kind::Module, name.clone(), values, 100, why));
            }
            (Some(path), None) | (None, Some(path)) => {
                let in_working = working.modules.contains_key(name);
                let entry = missing.entry((top(name), in_working)).or_insert((0, path.clone()));
                entry.0 += 1;
            }
            _ => {}
        }
    }
    for ((name, in_working), (count, path)) in missing {
        let text = if count > 1 { format!("{count} modules, {path}") } else { path.clone() };
        let values = if in_working { (Some(text), None) } else { (None, Some(text)) };
        let weight = if is_own(&path) { 38 } else { 28 };
        out.push(difference(Kind::Module, name, values, weight, "loaded in one run only"));
    }
}

fn sys_path(working: &Run, failing: &Run, out: &mut Vec<Difference>) {
    let shown = |run: &Run| Some(run.folders.join(":"));
    if working.folders != failing.folders {
        let why = "modules were found in other directories, or in another order";
        out.push(difference(Kind::SysPath, "order of use", (shown(working), shown(failing)), 35, why));
    }
}

fn files(working: &Run, failing: &Run, out: &mut Vec<Difference>) {
    for (path, errno) in failing.model.files.refused.keys() {
        if !given::is_refused(working, path) {
            let why = "could not be opened in the run that fails";
            let values = (None, Some(names::errno(*errno)));
            out.push(difference(Kind::File, path.clone(), values, 60, why));
        }
    }
}

/// What was agreed with the broker, by name; of a run that agreed on nothing, whom it tried.
pub(super) fn facts(run: &Run) -> BTreeMap<String, String> {
    let mut facts: BTreeMap<String, String> = BTreeMap::new();
    for link in run.model.amqp.links().filter(|link| !link.accepted) {
        if let Some(Address::Inet { ip, port }) = link.peer.get() {
            facts.entry("address".to_owned()).or_insert_with(|| format!("{ip}:{port}"));
        }
        let said = link.facts();
        let known = [("user", &said.user), ("vhost", &said.vhost), ("mechanism", &said.mechanism)];
        for (name, value) in known {
            if let Some(value) = value {
                facts.entry(name.to_owned()).or_insert_with(|| value.clone());
            }
        }
        if let Some(closed) = &said.closed {
            facts.entry("closed".to_owned()).or_insert_with(|| format!("{} {}", closed.code, closed.text));
        }
    }
    if facts.is_empty() {
        let tried =
            run.model.connections.iter().filter(|connection| {
                !connection.is_datagram && !run.model.connections.is_own_loop(connection)
            });
        for connection in tried {
            if let Known::Is(Address::Inet { ip, port }) = &connection.peer {
                facts.entry("address".to_owned()).or_insert_with(|| format!("{ip}:{port}"));
            }
        }
    }
    for ((_, name), queue) in run.model.amqp.queues.iter() {
        if let Some(Declared { arguments, durable, .. }) = &queue.declared {
            let durable = if *durable { "durable" } else { "not durable" };
            let arguments = serde_json::to_string(arguments).unwrap_or_default();
            facts.insert(format!("queue {name}"), format!("{durable}, {arguments}"));
        }
    }
    for consumer in run.model.amqp.consumers.iter() {
        let prefetch = consumer.prefetch.map_or_else(|| "?".to_owned(), |prefetch| prefetch.to_string());
        facts.insert(format!("consumer of {}", consumer.queue), format!("prefetch {prefetch}"));
    }
    facts
}

/// What was agreed with the broker: address, user, virtual host, queues and their arguments.
fn broker(working: &Run, failing: &Run, out: &mut Vec<Difference>) {
    let (a, b) = (facts(working), facts(failing));
    let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    for name in names {
        if a.get(name) != b.get(name) {
            let weight = match name.as_str() {
                // One that never got so far has another reason for that.
                _ if a.is_empty() || b.is_empty() => 18,
                "address" | "vhost" | "user" => 68,
                _ => 32,
            };
            let values = (a.get(name).cloned(), b.get(name).cloned());
            out.push(difference(
                Kind::Broker,
                name.clone(),
                values,
                weight,
                "what was agreed with the broker",
            ));
        }
    }
    let highest = |run: &Run| {
        let ladders = ladders(&run.model);
        let rungs = ladders.iter().flat_map(|ladder| &ladder.rungs);
        rungs.filter(|step| step.reached == Some(true)).map(|step| step.rung).max()
    };
    let (a, b) = (highest(working), highest(failing));
    if a != b {
        let values = (a.map(|rung| rung.name().to_owned()), b.map(|rung| rung.name().to_owned()));
        out.push(difference(Kind::Broker, "highest rung", values, 14, "how far it came"));
    }
}

fn exits(working: &Run, failing: &Run, out: &mut Vec<Difference>) {
    let exit = |run: &Run| {
        let process = run.model.processes.get(run.program_pid?)?;
        let exit = process.exit.as_ref()?;
        Some(match (exit.code, exit.signal) {
            (_, Some(signal)) => format!("killed by {}", names::signal(signal)),
            (code, None) => format!("status {}", code.unwrap_or_default()),
        })
    };
    if exit(working) != exit(failing) {
        out.push(difference(Kind::Exit, "exit", (exit(working), exit(failing)), 16, "how it ended"));
    }
}
