//! What is specific to dramatiq: what its messages say of themselves, its queues' names, the parts its processes play. Nobody else
//! needs to know.

use super::{
    message::Identity,
    process::{Process, Processes},
};
use crate::{
    amqp::{dramatiq::DramatiqMessage, message::Message},
    event::{Body, Event, OutputStream, Pid},
    python,
};

/// What a worker writes when every module is imported and its threads are about to start (dramatiq 2.2, `cli.py`).
const READY: &[u8] = b"Worker process is ready for action.";

/// Something dramatiq says in its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remark {
    /// An actor's time limit expired (`middleware/time_limit.py`).
    TimeLimit,
    /// A message is older than its actor accepts (`middleware/age_limit.py`).
    AgeLimit,
    /// A message names an actor that is not there (`worker.py`).
    UndefinedActor,
    /// A message was tried as often as it may be (`middleware/retries.py`).
    RetriesExceeded,
    /// A body could not be decoded (`brokers/rabbitmq.py`).
    Undecodable,
}

/// The words, the same in dramatiq 1.17 and 2.2.
pub(super) const REMARKS: [(Remark, &[u8]); 5] = [
    (Remark::TimeLimit, b"Time limit exceeded. Raising exception"),
    (Remark::AgeLimit, b"has exceeded its age limit"),
    (Remark::UndefinedActor, b"Received message for undefined actor"),
    (Remark::RetriesExceeded, b"Retries exceeded for message"),
    (Remark::Undecodable, b"Failed to decode message"),
];

/// The part a process plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `python -m dramatiq`: parses arguments, starts and watches the workers.
    Master,
    /// Imports the modules and consumes.
    Worker,
    /// Runs a middleware's fork function.
    Fork,
    /// Anything else.
    Program,
}

impl Role {
    /// Its public name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::Worker => "worker",
            Self::Fork => "fork",
            Self::Program => "program",
        }
    }
}

/// What a queue is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueKind {
    /// Messages to run now.
    Plain,
    /// `.DQ`: messages to run later; a consumer holds them until then.
    Delayed,
    /// `.XQ`: messages given up on.
    Dead,
}

/// What a queue of this name is for.
pub fn queue_kind(name: &str) -> QueueKind {
    if name.ends_with(".DQ") {
        QueueKind::Delayed
    } else if name.ends_with(".XQ") {
        QueueKind::Dead
    } else {
        QueueKind::Plain
    }
}

/// Reads what a dramatiq message says of itself; of any other message, what AMQP's own properties do.
pub fn identify(message: &Message) -> Identity {
    let properties = message.properties.as_ref();
    let amqp_id = || properties.and_then(|properties| properties.message_id.clone());
    let Ok(body) = DramatiqMessage::decode(&message.body, message.is_whole()) else {
        return Identity { message_id: amqp_id(), ..Identity::default() };
    };
    Identity {
        message_id: body.message_id.or_else(amqp_id),
        actor: body.actor_name,
        is_canary: body.is_canary,
        retries: body.retries,
        eta_ms: body.eta_ms,
        failure: body.traceback.as_deref().and_then(exception),
        made_ms: body.message_timestamp_ms,
        max_age_ms: body.max_age_ms,
        time_limit_ms: body.time_limit_ms,
    }
}

/// The exception's type in the last line of a traceback; never its text, which may quote arguments.
fn exception(traceback: &str) -> Option<String> {
    let last = traceback.lines().rev().find(|line| !line.trim().is_empty() && !line.starts_with(' '))?;
    let name = last.split(':').next()?.trim();
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.');
    (!name.is_empty() && name.len() < 200 && name.chars().all(plain)).then(|| name.to_owned())
}

/// Whether a process runs dramatiq's command line.
fn is_master(process: &Process) -> bool {
    let Some(argv) = process.program().and_then(|program| program.argv.get()) else { return false };
    let module = matches!(python::module_of(argv), Some("dramatiq" | "dramatiq.__main__"));
    let script = |word: &String| matches!(word.rsplit('/').next(), Some("dramatiq" | "dramatiq-gevent"));
    // A shell, sudo or env that was told to run it is not it.
    let python = argv
        .first()
        .is_some_and(|word| word.rsplit('/').next().is_some_and(|name| name.starts_with("python")));
    (module && python) || argv.iter().take(if python { 2 } else { 1 }).any(script)
}

/// How many workers were asked for.
fn workers_wanted(master: &Process) -> Option<usize> {
    let argv = master.program()?.argv.get()?;
    let value = argv.iter().enumerate().find_map(|(index, word)| match word.as_str() {
        "-p" | "--processes" => argv.get(index + 1).map(String::as_str),
        word => word
            .strip_prefix("--processes=")
            .or_else(|| word.strip_prefix("-p").filter(|rest| !rest.is_empty())),
    })?;
    value.parse().ok()
}

/// Whether a process runs what its parent ran at the fork, or what `multiprocessing` starts for it (`spawn`, `forkserver`).
fn runs_for_parent(process: &Process) -> bool {
    match process.program().map(|program| program.argv.get()) {
        None => process.forked_at_ns.is_some() || process.parent.is_some(),
        Some(Some(argv)) => argv.iter().any(|word| word.contains("multiprocessing.spawn")),
        Some(None) => false,
    }
}

/// The part a process plays.
pub fn role(processes: &Processes, pid: Pid) -> Role {
    let Some(process) = processes.get(pid) else { return Role::Program };
    let parent = process.parent.filter(|parent| *parent != pid).and_then(|parent| processes.get(parent));
    // One found running has its command line from /proc: a forked worker shows its master's.
    let same = |parent: &Process| {
        process.program().and_then(|program| program.argv.get())
            == parent.program().and_then(|program| program.argv.get())
    };
    if let Some(parent) = parent.filter(|parent| is_master(parent))
        && (runs_for_parent(process) || same(parent))
    {
        // Workers are started first (dramatiq 2.2, `cli.py`), then what middleware asked for.
        // A master that executed itself anew, on HUP, starts them all again.
        let since_ns = parent.program().map_or(0, |program| program.mark.at_ns);
        let of_this_run = |child: &&Process| {
            child.forked_at_ns.is_some_and(|at_ns| at_ns >= since_ns)
                == process.forked_at_ns.is_some_and(|at_ns| at_ns >= since_ns)
        };
        let before = processes
            .children(parent.pid)
            .filter(|child| runs_for_parent(child) || same(child))
            .filter(of_this_run)
            .take_while(|child| child.pid != pid)
            .count();
        return if workers_wanted(parent).is_some_and(|wanted| before >= wanted) {
            Role::Fork
        } else {
            Role::Worker
        };
    }
    if is_master(process) { Role::Master } else { Role::Program }
}

/// Whether an event proves that a worker has imported its modules. The master writes the same line again, to its terminal.
pub fn proves_import(event: &Event) -> bool {
    matches!(event.body, Body::Output { stream: OutputStream::Pipe, errno: 0, .. })
        && memchr::memmem::find(&event.bytes, READY).is_some()
}
