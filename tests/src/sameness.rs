//! What two recordings of one thing must have in common, whichever source made them. It records nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::scene::Session;

/// Processes by their place in the order of birth: their ids differ between two runs.
fn places(session: &Session) -> BTreeMap<u64, usize> {
    let mut places = BTreeMap::new();
    for event in session.events.iter().filter(|event| event["pid"] != 0) {
        let child = if event["kind"] == "fork" { event["child"].as_u64() } else { None };
        for pid in event["pid"].as_u64().into_iter().chain(child) {
            let next = places.len();
            places.entry(pid).or_insert(next);
        }
    }
    places
}

/// What must be the same of every process: a line a fact. `same` may leave out or change what a run does by chance.
pub fn facts(session: &Session, same: impl Fn(&Value) -> Option<Value>) -> BTreeSet<String> {
    let places = places(session);
    let mut facts = BTreeSet::new();
    for event in &session.events {
        let place =
            |pid: &Value| pid.as_u64().and_then(|pid| places.get(&pid)).map_or(-1, |place| *place as i64);
        let of = |fields: &[&str]| -> BTreeMap<String, Value> {
            fields.iter().map(|field| ((*field).to_owned(), event[*field].clone())).collect()
        };
        let fact = match event["kind"].as_str().unwrap_or_default() {
            "exec" => {
                let mut exec = of(&["path", "argv", "env", "cwd", "exe", "user", "umask", "limits", "tty"]);
                exec.insert("ppid".to_owned(), json!(place(&event["ppid"])));
                let stdio = event["stdio"].as_array().into_iter().flatten();
                exec.insert("stdio".to_owned(), stdio.map(|target| target["what"].clone()).collect());
                json!(exec)
            }
            "fork" => json!(place(&event["child"])),
            "exec-failed" => json!(of(&["path", "errno"])),
            "open" => json!(of(&["syscall", "path", "resolved", "dirfd", "flags", "errno"])),
            "connect" => json!(of(&["peer", "errno"])),
            "connected" => json!(of(&["peer", "errno"])),
            "disconnect" => json!(of(&["how", "errno"])),
            "exit" => json!(of(&["code", "signal", "core_dumped"])),
            // A thread that has been joined may or may not come to say so before its process ends.
            "exit-call" if event["group"] == true => json!(of(&["code"])),
            "output" => json!(of(&["stream", "bytes"])),
            _ => continue,
        };
        if fact["path"].as_str().is_some_and(|path| path.starts_with("/proc/")) {
            continue;
        }
        if let Some(fact) = same(&json!([event["kind"], fact])) {
            facts.insert(format!("process {}: {fact}", place(&event["pid"])));
        }
    }
    facts
}

/// What only one of them saw.
pub fn differences(ebpf: &BTreeSet<String>, ptrace: &BTreeSet<String>) -> Vec<String> {
    [only("eBPF", ebpf, ptrace), only("ptrace", ptrace, ebpf)].concat()
}

/// What one source saw in both of its runs and the other in neither: what a run does by chance is in one of them only.
pub fn steady_differences(ebpf: [&BTreeSet<String>; 2], ptrace: [&BTreeSet<String>; 2]) -> Vec<String> {
    let always = |[one, other]: [&BTreeSet<String>; 2]| one & other;
    let ever = |[one, other]: [&BTreeSet<String>; 2]| one | other;
    [only("eBPF", &always(ebpf), &ever(ptrace)), only("ptrace", &always(ptrace), &ever(ebpf))].concat()
}

fn only(who: &str, left: &BTreeSet<String>, right: &BTreeSet<String>) -> Vec<String> {
    left.difference(right).map(|fact| format!("only {who}: {fact:.600}")).collect()
}

/// What was said on every connection that speaks AMQP: the methods of either side, in order. `show` is `observer show NAME`.
pub fn conversations(show: &mut Command) -> Result<BTreeSet<String>> {
    let output = show.args(["--amqp", "--format", "json"]).output().context("cannot run observer show")?;
    let shown: Value = serde_json::from_slice(&output.stdout).context("observer show printed no JSON")?;
    let mut said: BTreeMap<(u64, &str), Vec<&str>> = BTreeMap::new();
    for line in shown["said"].as_array().context("`said` is no array")? {
        let text = |field: &str| line[field].as_str().unwrap_or_default();
        // A heartbeat comes when it is time.
        if text("name") != "heartbeat" {
            let connection = line["connection"].as_u64().context("a connection has a number")?;
            said.entry((connection, text("side"))).or_default().push(text("name"));
        }
    }
    Ok(said.into_iter().map(|((_, side), names)| format!("{side}: {}", names.join(", "))).collect())
}
