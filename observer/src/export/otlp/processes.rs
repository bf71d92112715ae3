//! Processes as spans, each below the one that started it, with what happened to it as the span's events; the session is the root. Knows
//! events and the model; nothing of messages.

use std::collections::HashMap;

use opentelemetry_proto::tonic::trace::v1::{
    Span, Status,
    span::{Event as SpanEvent, SpanKind},
    status::StatusCode,
};

use super::{
    attributes::{Attributes, harmless},
    conventions::{self as names, ours},
    frame::{Frame, key},
    imports::Count,
};
use crate::{
    event::{Address, Body, Event, Known, Origin, Pid},
    export::{argv, process_name},
    model::{
        dramatiq::{self, Role},
        process::{Process, Processes},
    },
    words,
};

/// Events kept of one process, and of all together; more are only counted.
pub(super) const MOST_OF_ONE: usize = 128;
const MOST_OF_ALL: usize = 50_000;

/// What happened to processes, until they are told.
#[derive(Debug, Default)]
pub(super) struct Happened {
    of: HashMap<(Pid, u64), Events>,
    kept: usize,
}

#[derive(Debug, Default)]
struct Events {
    kept: Vec<SpanEvent>,
    dropped: u32,
    python: Option<Option<String>>,
}

impl Happened {
    /// Takes in the next event, which `known` has taken in already.
    pub(super) fn take(&mut self, frame: &Frame, known: &Processes, id: u64, event: &Event) {
        let Some(process) = known.get(event.pid) else { return };
        if let Body::Interpreter(interpreter) = &event.body {
            let of = self.of.entry(key(process)).or_default();
            of.python = Some(interpreter.version.clone());
            return;
        }
        let Some((name, attributes)) = described(&event.body) else { return };
        let of = self.of.entry(key(process)).or_default();
        if of.kept.len() >= MOST_OF_ONE || self.kept >= MOST_OF_ALL {
            of.dropped += 1;
            return;
        }
        self.kept += 1;
        of.kept.push(SpanEvent {
            time_unix_nano: frame.unix_ns(event.at_ns),
            name,
            attributes: attributes.number(ours::EVENT, Some(id)).all,
            ..SpanEvent::default()
        });
    }

    /// The span of a process, whose events are told with it. `findings` are further events.
    pub(super) fn span(
        &mut self,
        frame: &Frame,
        known: &Processes,
        process: &Process,
        imports: Count,
        findings: Vec<SpanEvent>,
        last_ns: u64,
    ) -> Span {
        let Events { kept: mut events, dropped, python } = self.of.remove(&key(process)).unwrap_or_default();
        self.kept -= events.len();
        events.extend(findings);
        events.sort_by_key(|event| event.time_unix_nano);
        let begun = begun(process);
        let end_ns = process.exit.as_ref().map_or(last_ns, |exit| exit.at_ns);
        let parent = process.parent.and_then(|parent| known.get(parent));
        let parent = parent.filter(|parent| parent.pid != process.pid && parent.first_seen_ns <= begun.0);
        let (role, argv) = (role(known, process), argv(known, Some(process)));
        let failed = failed(process);
        Span {
            trace_id: frame.trace(),
            span_id: frame.process(process),
            parent_span_id: parent.map_or_else(|| frame.session(), |parent| frame.process(parent)),
            name: harmless(&process_name(role, argv)),
            kind: SpanKind::Internal.into(),
            start_time_unix_nano: frame.unix_ns(begun.0),
            end_time_unix_nano: frame.unix_ns(end_ns.max(begun.0)),
            attributes: about(frame, process, (role, argv), imports, python).all,
            events,
            dropped_events_count: dropped,
            status: failed.map(|message| Status { message, code: StatusCode::Error.into() }),
            ..Span::default()
        }
    }
}

/// The part it plays; of one whose number was given again it cannot be told any more.
fn role(known: &Processes, process: &Process) -> Role {
    let is_this = known.get(process.pid).is_some_and(|known| key(known) == key(process));
    if is_this { dramatiq::role(known, process.pid) } else { Role::Program }
}

/// When a process began, and whether that was seen.
fn begun(process: &Process) -> (u64, bool) {
    match process.forked_at_ns {
        Some(forked_ns) => (forked_ns, true),
        // We started it, or it was there.
        None => (process.first_seen_ns, process.observed_from != Origin::Proc),
    }
}

fn failed(process: &Process) -> Option<String> {
    let exit = process.exit.as_ref()?;
    match (exit.code, exit.signal) {
        (_, Some(signal)) => Some(format!("killed by {}", words::names::signal(signal))),
        (Some(code), None) if code != 0 => Some(format!("exit {code}")),
        _ => None,
    }
}

fn about(
    frame: &Frame,
    process: &Process,
    (role, argv): (Role, &[String]),
    imports: Count,
    python: Option<Option<String>>,
) -> Attributes {
    let begun = begun(process);
    let exit = process.exit.as_ref();
    let program = process.program();
    let exe = program.and_then(|program| program.exe.get());
    let user = program.and_then(|program| program.details.as_ref()?.user.get());
    Attributes::new()
        .number(names::PROCESS_PID, Some(process.pid.0.into()))
        .number(names::PROCESS_PARENT_PID, process.parent.map(|parent| parent.0.into()))
        .text(ours::ROLE, Some(role.name()))
        .texts(names::PROCESS_COMMAND_ARGS, argv)
        .text(names::PROCESS_EXECUTABLE_PATH, exe)
        .text(names::PROCESS_EXECUTABLE_NAME, exe.and_then(|exe| exe.rsplit('/').next()))
        .text(names::PROCESS_WORKING_DIRECTORY, program.and_then(|program| program.cwd.get()))
        .number(names::PROCESS_USER_ID, user.map(|user| user.euid.into()))
        .number(names::PROCESS_REAL_USER_ID, user.map(|user| user.uid.into()))
        .text(names::PROCESS_CREATION_TIME, begun.1.then(|| moment(frame.unix_ns(begun.0))).flatten())
        .flag(ours::BEGUN_UNSEEN, !begun.1)
        .text(names::PROCESS_EXIT_TIME, exit.and_then(|exit| moment(frame.unix_ns(exit.at_ns))))
        .signed(names::PROCESS_EXIT_CODE, exit.and_then(|exit| exit.code).map(i64::from))
        .text(ours::SIGNAL, exit.and_then(|exit| exit.signal).map(words::names::signal))
        .flag(ours::CORE_DUMPED, exit.is_some_and(|exit| exit.core_dumped))
        .flag(ours::UNFINISHED, process.alive())
        .text(names::PROCESS_RUNTIME_NAME, python.is_some().then_some("cpython"))
        .text(names::PROCESS_RUNTIME_VERSION, python.flatten())
        .number(ours::IMPORTS, (imports.told > 0).then_some(imports.told))
        .number(ours::IMPORTS_LEFT_OUT, (imports.left_out > 0).then_some(imports.left_out))
}

/// A time as ISO 8601 has it.
fn moment(unix_ns: u64) -> Option<String> {
    Some(jiff::Timestamp::from_nanosecond(unix_ns.into()).ok()?.to_string())
}

/// What is told of an event on the span of its process.
fn described(body: &Body) -> Option<(String, Attributes)> {
    let attributes = Attributes::new();
    let error = |errno: i32| (errno != 0).then(|| words::names::errno(errno));
    Some(match body {
        Body::Exec(exec) => {
            let command = exec.argv.get().map(|argv| words::command(argv));
            ("exec".to_owned(), attributes.text(ours::COMMAND, command))
        }
        Body::ExecFailed { path, errno } => {
            let attributes = attributes.text(ours::PATH, path.get());
            ("exec failed".to_owned(), attributes.text(names::ERROR_TYPE, error(*errno)))
        }
        Body::Connect { peer, errno, duration_ns, .. } => {
            let attributes = peered(attributes, peer).number(ours::DURATION_NS, Some(*duration_ns));
            ("connect".to_owned(), attributes.text(names::ERROR_TYPE, error(*errno)))
        }
        Body::Connected { peer, errno, duration_ns, .. } => {
            let attributes = peered(attributes, peer).number(ours::DURATION_NS, Some(*duration_ns));
            ("TCP handshake".to_owned(), attributes.text(names::ERROR_TYPE, error(*errno)))
        }
        Body::Disconnect { how, errno, peer, .. } => {
            let how = serde_json::to_value(how).ok();
            let how = how.as_ref().and_then(|how| how.as_str());
            let attributes = peered(attributes, peer).text(ours::HOW, how);
            ("disconnect".to_owned(), attributes.text(names::ERROR_TYPE, error(*errno)))
        }
        Body::Signal { signal, sender, .. } => {
            let sender = sender.get().map(|sender| format!("{} ({})", sender.pid, sender.name));
            (words::names::signal(*signal), attributes.text(ours::SENDER, sender))
        }
        Body::OomVictim => ("chosen by the out-of-memory killer".to_owned(), attributes),
        Body::Stuck { syscall, on, .. } => {
            let attributes = attributes.text(ours::SYSCALL, Some(syscall)).text(ours::PATH, on.get());
            ("sits in a system call".to_owned(), attributes)
        }
        Body::Exit { code, signal, core_dumped } => {
            let name = match (code, signal) {
                (_, Some(signal)) => format!("killed by {}", words::names::signal(*signal)),
                (Some(code), None) => format!("exit {code}"),
                (None, None) => "exit".to_owned(),
            };
            (name, attributes.flag(ours::CORE_DUMPED, *core_dumped))
        }
        _ => return None,
    })
}

fn peered(attributes: Attributes, peer: &Known<Address>) -> Attributes {
    match peer.get() {
        Some(Address::Inet { ip, port }) => attributes
            .text(names::NETWORK_PEER_ADDRESS, Some(ip.to_string()))
            .number(names::NETWORK_PEER_PORT, Some((*port).into())),
        other => attributes.text(names::NETWORK_PEER_ADDRESS, other.map(Address::to_string)),
    }
}
