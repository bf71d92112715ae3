//! How the service begins a session, and what it says of itself in the header. Knows the session's own room; nothing of why something is
//! recorded.

use std::path::PathBuf;

use super::{plan::Plan, settings::Flight};
use crate::{
    amqp::mask::StreamMasker,
    capability::{Capability, Description},
    event::Pid,
    session::{Ending, Header, Recorder, Redactor, SessionError, StateDir},
    source::{ebpf::SNAPLEN_MAX, probe, proc},
};

/// Bytes kept of one read or write, as `attach` does by itself.
pub(super) const SNAPLEN: u64 = 65_536;
const _: () = assert!(SNAPLEN <= SNAPLEN_MAX);

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

/// Begins a session. What runs by a rule is kept in a ring, what a user asked for is kept whole.
///
/// # Errors
/// When its file cannot be created.
pub(super) fn begin(dir: &StateDir, plan: &Plan, header: Header, flight: &Flight) -> Result<Recorder, SessionError> {
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

fn ringed(recorder: Recorder, _plan: &Plan, _flight: &Flight) -> Recorder {
    recorder
}

/// A finished copy of a session that goes on, under an id of its own.
///
/// # Errors
/// When it cannot be written.
pub(super) fn copy(_recorder: &mut Recorder, _id: &str, _name: &str, _ending: &Ending) -> Result<PathBuf, SessionError> {
    todo!()
}

/// A session whose recorder was ended, opened to be gone on with.
pub(super) struct Resumed {
    recorder: Recorder,
    /// The processes that were alive in it.
    pub(super) alive: Vec<Pid>,
    /// When its last event was, in nanoseconds on `CLOCK_MONOTONIC`.
    last_ns: u64,
}

/// Opens a session whose recorder was ended. Takes the calling thread's rights to files for what they are.
///
/// # Errors
/// When it is not there, is damaged, or somebody else records it.
pub(super) fn reopen(_dir: &StateDir, _plan: &Plan) -> Result<Resumed, SessionError> {
    todo!()
}

/// Goes on with a session; what was not seen in between is said in it.
pub(super) fn go_on(resumed: Resumed, plan: &Plan, flight: &Flight) -> Recorder {
    ringed(resumed.recorder.with_masker(masker(plan)), plan, flight)
}
