//! How the service begins a session, and what it says of itself in the header. Knows the session's own room; nothing of why something is
//! recorded.

use std::{collections::HashSet, path::PathBuf};

use super::{plan::Plan, settings::Flight};
use crate::{
    amqp::mask::StreamMasker,
    capability::{Capability, Description},
    event::{Body, Event, Origin, Pid, Tid},
    session::{Ending, Header, Recorder, Redactor, Resumed, Ring, SessionError, StateDir},
    source::{ebpf::SNAPLEN_MAX, probe, proc},
};

/// Bytes kept of one read or write, as `attach` does by itself.
pub(super) const SNAPLEN: u64 = 65_536;
const _: () = assert!(SNAPLEN <= SNAPLEN_MAX);
/// How many times as large a ring is for what a user asked for: half a gigabyte, with the settings built in.
const RINGS_ASKED_FOR: u64 = 16;

/// The header of a session that begins now.
pub(super) fn header(plan: &Plan, sources: Vec<Description>, capabilities: Vec<Capability>) -> Header {
    Header {
        id: plan.id.clone(),
        name: plan.name.clone(),
        command: plan.command.clone(),
        attached: plan.attached.then_some(Pid(plan.root.0)),
        backend: "ebpf".into(),
        started_at: jiff::Timestamp::now().to_string(),
        started_ns: plan.began_ns.min(proc::monotonic_ns()),
        observer_version: env!("CARGO_PKG_VERSION").into(),
        host: probe::host(),
        kernel: probe::kernel_release(),
        snaplen: SNAPLEN,
        sources,
        capabilities,
    }
}

/// Begins a session. What runs by a rule is kept in a ring; what a user asked for is kept whole, but they may not fill the disk with it.
///
/// # Errors
/// When its file cannot be created.
pub(super) fn begin(
    dir: &StateDir,
    plan: &Plan,
    header: Header,
    flight: &Flight,
) -> Result<Recorder, SessionError> {
    let recorder = Recorder::create(dir, header, Redactor::open(dir)?)?.with_masker(masker(plan));
    Ok(ringed(recorder, plan, flight))
}

/// A command line without its secrets.
///
/// # Errors
/// When the key that replaces them cannot be had.
pub(super) fn redacted(dir: &StateDir, command: &[String]) -> Result<Vec<String>, SessionError> {
    let mut command = command.to_vec();
    Redactor::open(dir)?.redact_command(&mut command);
    Ok(command)
}

fn masker(plan: &Plan) -> StreamMasker {
    let masker = StreamMasker::new().keeping_user_name();
    if plan.bodies { masker.keeping_bodies() } else { masker }
}

fn ringed(recorder: Recorder, plan: &Plan, flight: &Flight) -> Recorder {
    let times = if plan.rule.is_none() { RINGS_ASKED_FOR } else { 1 };
    let latest_bytes = flight.ring.0.saturating_mul(times);
    recorder.with_ring(Ring { head_bytes: flight.head.0, latest_bytes })
}

/// A finished copy of a session that goes on, under an id of its own. Where it is.
///
/// # Errors
/// When it cannot be written.
pub(super) fn copy(
    recorder: &mut Recorder,
    dir: &StateDir,
    header: Header,
    ending: &Ending,
) -> Result<PathBuf, SessionError> {
    let path = dir.path_of(&header.id);
    recorder.snapshot(&path, &header, ending)?;
    Ok(path)
}

/// The file of a plan's session.
pub(super) fn path_of(dir: &StateDir, plan: &Plan) -> PathBuf {
    dir.path_of(&plan.id)
}

/// A session whose recorder was ended, opened to be gone on with.
pub(super) struct Reopened {
    recorder: Recorder,
    /// What was known then.
    pub(super) resumed: Resumed,
}

/// Opens a session whose recorder was ended. Takes the calling thread's rights to files for what they are.
///
/// # Errors
/// When it is not there, is damaged, or somebody else records it.
pub(super) fn reopen(dir: &StateDir, plan: &Plan) -> Result<Reopened, SessionError> {
    let (recorder, resumed) = Recorder::reopen(dir, &plan.id, Redactor::open(dir)?)?;
    Ok(Reopened { recorder, resumed })
}

/// Goes on with a session in which `alive` live on: their `programs` are told to the redactor first, which has to see what they were given
/// before anything that could hold a secret of it; then that nobody watched in between.
pub(super) fn go_on(reopened: Reopened, plan: &Plan, alive: &HashSet<Pid>, programs: Vec<Event>) -> Recorder {
    let Reopened { recorder, resumed } = reopened;
    let mut recorder = recorder.with_masker(masker(plan));
    recorder.learn(programs);
    let mut gone: Vec<Pid> =
        resumed.alive.iter().map(|before| before.pid).filter(|pid| !alive.contains(pid)).collect();
    // So young that the session does not know it.
    if !proc::is_alive(plan.root.0) && !gone.contains(&plan.root) {
        gone.push(plan.root);
    }
    let body = Body::Gap { since_ns: resumed.last_ns, gone, why: "the service was not running".into() };
    let (pid, tid, bytes) = (Pid(0), Tid(0), Vec::new());
    let gap = Event { at_ns: proc::monotonic_ns(), pid, tid, observed_from: Origin::Observer, body, bytes };
    recorder.append(vec![gap], None);
    recorder
}
