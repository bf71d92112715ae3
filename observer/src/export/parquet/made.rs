//! Tables that are made of a session as a whole: what it is, its processes, what was concluded. Knows the case; hands out documents, and
//! nothing of Parquet.

use std::{collections::BTreeMap, ops::ControlFlow};

use serde::Serialize;
use serde_json::{Value, json};

use super::rows;
use crate::{
    diagnose::{Explanation, case::Case},
    event::Pid,
    export::{ExportError, unseen},
    session::{SCHEMA_VERSION, Session},
};

/// The rows of such a table, as documents. `events` is how many the table of events has.
///
/// # Errors
/// When the session cannot be read.
pub(super) fn table(
    name: &str,
    session: &Session,
    case: &Case<'_>,
    explanation: &Explanation,
    events: u64,
) -> Result<Vec<Value>, ExportError> {
    Ok(match name {
        "capabilities" => documents(&case.header.capabilities),
        "processes" => processes(session, case)?,
        "findings" => {
            let mut findings = documents(&explanation.findings);
            for (rank, finding) in (1..).zip(&mut findings) {
                finding["rank"] = Value::from(rank);
            }
            findings
        }
        "sessions" => vec![about(session, case, explanation, events)],
        _ => Vec::new(),
    })
}

fn documents<T: Serialize>(all: &[T]) -> Vec<Value> {
    all.iter().map(document).collect()
}

/// Nothing of these can fail to be JSON: they have no keys but text.
fn document(of: &impl Serialize) -> Value {
    serde_json::to_value(of).unwrap_or_default()
}

fn about(session: &Session, case: &Case<'_>, explanation: &Explanation, events: u64) -> Value {
    json!({
        "header": document(case.header),
        "ending": document(&case.ending),
        "verdict": document(&explanation.verdict),
        "state": document(&session.state()),
        "session_schema": SCHEMA_VERSION,
        "duration_ns": case.ended_ns().saturating_sub(case.header.started_ns),
        "events": events,
        "lost": case.model.troubles.lost(),
        "unseen": unseen(case.header).collect::<Vec<_>>(),
    })
}

/// A process, by what was seen of it; of one whose number was used again, all.
#[derive(Default)]
struct Process {
    forked: Option<(i64, i64)>,
    execs: u64,
    /// The last one: its event, and what it said.
    ran: Option<(i64, Value)>,
    exits: Vec<Value>,
}

fn processes(session: &Session, case: &Case<'_>) -> Result<Vec<Value>, ExportError> {
    let mut processes: BTreeMap<i64, Process> = BTreeMap::new();
    session.stored(&["fork", "exec", "exit"], |event| {
        let fields = rows::fields(event);
        match &*event.kind {
            "fork" => {
                if let Some(child) = fields["child"].as_i64() {
                    let forked = &mut processes.entry(child).or_default().forked;
                    *forked = Some(
                        forked.map_or((event.at_ns, event.pid), |first| first.min((event.at_ns, event.pid))),
                    );
                }
            }
            "exec" => {
                let process = processes.entry(event.pid).or_default();
                process.execs += 1;
                if process.ran.as_ref().is_none_or(|(last, _)| *last < event.id) {
                    let kept = ["ppid", "argv", "cwd"].map(|key| (key.to_owned(), fields[key].clone()));
                    process.ran = Some((event.id, Value::Object(kept.into_iter().collect())));
                }
            }
            _ => {
                let exit = json!({"exited": event.at_ns, "code": fields["code"], "signal": fields["signal"]});
                processes.entry(event.pid).or_default().exits.push(exit);
            }
        }
        ControlFlow::Continue(())
    })?;
    let row = |pid: i64, process: &Process, exit: Option<&Value>| {
        let ran = process.ran.as_ref().map(|(_, ran)| ran);
        let role = u32::try_from(pid).ok().map(|pid| case.role(Pid(pid)).name());
        json!({
            "pid": pid,
            "ppid": process.forked.map(|(_, parent)| parent).or_else(|| ran?["ppid"].as_i64()),
            "role": role,
            "forked": process.forked.map(|(at_ns, _)| at_ns),
            "execs": process.execs,
            "ran": ran,
            "exit": exit,
        })
    };
    let rows = processes.iter().flat_map(|(pid, process)| {
        let alive = process.exits.is_empty().then_some(None);
        let ended = process.exits.iter().map(Some);
        alive.into_iter().chain(ended).map(move |exit| row(*pid, process, exit))
    });
    Ok(rows.collect())
}
