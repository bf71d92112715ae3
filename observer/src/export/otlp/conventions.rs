//! The names that others read our spans and logs by: OpenTelemetry's semantic conventions, of one version, and our own beside them. Knows
//! names and nothing else; no other file spells one.

/// Where the version of the conventions is written down: 1.42.0.
pub(super) const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.42.0";

pub(super) const SERVICE_NAME: &str = "service.name";
pub(super) const SERVICE_INSTANCE_ID: &str = "service.instance.id";
pub(super) const HOST_NAME: &str = "host.name";
pub(super) const OS_TYPE: &str = "os.type";
pub(super) const OS_VERSION: &str = "os.version";

pub(super) const PROCESS_PID: &str = "process.pid";
pub(super) const PROCESS_PARENT_PID: &str = "process.parent_pid";
pub(super) const PROCESS_COMMAND_ARGS: &str = "process.command_args";
pub(super) const PROCESS_EXECUTABLE_NAME: &str = "process.executable.name";
pub(super) const PROCESS_EXECUTABLE_PATH: &str = "process.executable.path";
pub(super) const PROCESS_WORKING_DIRECTORY: &str = "process.working_directory";
pub(super) const PROCESS_CREATION_TIME: &str = "process.creation.time";
pub(super) const PROCESS_EXIT_TIME: &str = "process.exit.time";
pub(super) const PROCESS_EXIT_CODE: &str = "process.exit.code";
pub(super) const PROCESS_USER_ID: &str = "process.user.id";
pub(super) const PROCESS_REAL_USER_ID: &str = "process.real_user.id";
pub(super) const PROCESS_RUNTIME_NAME: &str = "process.runtime.name";
pub(super) const PROCESS_RUNTIME_VERSION: &str = "process.runtime.version";
pub(super) const THREAD_ID: &str = "thread.id";

pub(super) const NETWORK_PEER_ADDRESS: &str = "network.peer.address";
pub(super) const NETWORK_PEER_PORT: &str = "network.peer.port";

pub(super) const ERROR_TYPE: &str = "error.type";
/// The name of a span's event that is an exception.
pub(super) const EXCEPTION: &str = "exception";
pub(super) const EXCEPTION_TYPE: &str = "exception.type";
pub(super) const LOG_IOSTREAM: &str = "log.iostream";

pub(super) const MESSAGING_SYSTEM: &str = "messaging.system";
pub(super) const RABBITMQ: &str = "rabbitmq";
pub(super) const MESSAGING_OPERATION_NAME: &str = "messaging.operation.name";
pub(super) const MESSAGING_OPERATION_TYPE: &str = "messaging.operation.type";
pub(super) const MESSAGING_DESTINATION_NAME: &str = "messaging.destination.name";
pub(super) const MESSAGING_MESSAGE_ID: &str = "messaging.message.id";
pub(super) const MESSAGING_ROUTING_KEY: &str = "messaging.rabbitmq.destination.routing_key";
/// Types of operations.
pub(super) const SEND: &str = "send";
pub(super) const PROCESS: &str = "process";
pub(super) const SETTLE: &str = "settle";

/// Ours begin so: no convention's do.
pub(super) mod ours {
    pub(in super::super) const SCHEMA: &str = "observer.schema";
    pub(in super::super) const SESSION_ID: &str = "observer.session.id";
    pub(in super::super) const SESSION_NAME: &str = "observer.session.name";
    pub(in super::super) const BACKEND: &str = "observer.backend";
    pub(in super::super) const UNSEEN: &str = "observer.unseen";
    pub(in super::super) const STATE: &str = "observer.session.state";
    pub(in super::super) const REASON: &str = "observer.session.end";
    pub(in super::super) const LOST: &str = "observer.lost";
    pub(in super::super) const LOST_WHAT: &str = "observer.lost.what";
    pub(in super::super) const NOT_UNDERSTOOD: &str = "observer.not_understood";
    pub(in super::super) const PROCESSES_LEFT_OUT: &str = "observer.processes.left_out";
    pub(in super::super) const MESSAGES_CUT_SHORT: &str = "observer.messages.cut_short";

    /// The event's number in the session.
    pub(in super::super) const EVENT: &str = "observer.event";
    /// True: it had not ended when the recording did, or its end was not seen; the span's end is only the last that is known.
    pub(in super::super) const UNFINISHED: &str = "observer.unfinished";
    /// True: it was there before the recording; the span's beginning is only when it was first seen.
    pub(in super::super) const BEGUN_UNSEEN: &str = "observer.begun_unseen";
    /// What a link is for.
    pub(in super::super) const LINK: &str = "observer.link";

    pub(in super::super) const ROLE: &str = "observer.process.role";
    pub(in super::super) const SIGNAL: &str = "observer.process.signal";
    pub(in super::super) const CORE_DUMPED: &str = "observer.process.core_dumped";
    pub(in super::super) const COMMAND: &str = "observer.command";
    pub(in super::super) const SENDER: &str = "observer.signal.sender";
    pub(in super::super) const DURATION_NS: &str = "observer.duration_ns";
    pub(in super::super) const SYSCALL: &str = "observer.syscall";
    pub(in super::super) const PATH: &str = "observer.path";
    pub(in super::super) const HOW: &str = "observer.how";
    pub(in super::super) const IMPORTS: &str = "observer.imports";
    pub(in super::super) const IMPORTS_LEFT_OUT: &str = "observer.imports.left_out";

    pub(in super::super) const MODULE: &str = "observer.import.module";
    pub(in super::super) const IMPORTER: &str = "observer.import.importer";
    pub(in super::super) const FUNCTION: &str = "observer.import.function";

    pub(in super::super) const MESSAGE: &str = "observer.message.number";
    pub(in super::super) const PASSAGE: &str = "observer.message.passage";
    pub(in super::super) const PASSAGES_LEFT_OUT: &str = "observer.message.passages_left_out";
    pub(in super::super) const MESSAGE_STATE: &str = "observer.message.state";
    pub(in super::super) const ACTOR: &str = "observer.message.actor";
    pub(in super::super) const VHOST: &str = "observer.message.vhost";
    pub(in super::super) const CANARY: &str = "observer.message.canary";
    pub(in super::super) const RETRIES: &str = "observer.message.retries";
    pub(in super::super) const REDELIVERED: &str = "observer.message.redelivered";
    pub(in super::super) const SETTLED: &str = "observer.message.settled";
    pub(in super::super) const CONFIRMED: &str = "observer.message.confirmed";

    pub(in super::super) const STREAM: &str = "observer.output.stream";
    pub(in super::super) const MISSING_BYTES: &str = "observer.output.missing_bytes";

    pub(in super::super) const CODE: &str = "observer.finding.code";
    pub(in super::super) const CAUSE: &str = "observer.finding.cause";
    pub(in super::super) const CONFIDENCE: &str = "observer.finding.confidence";
    pub(in super::super) const SUMMARY: &str = "observer.finding.summary";
    pub(in super::super) const REMEDY: &str = "observer.finding.remedy";
    pub(in super::super) const EVIDENCE: &str = "observer.finding.evidence";
    pub(in super::super) const EVIDENCE_LEFT_OUT: &str = "observer.finding.evidence_left_out";
    pub(in super::super) const TITLE: &str = "observer.finding.title";

    /// Names of events, of spans and of logs.
    pub(in super::super) const FINDING: &str = "observer.finding";
    pub(in super::super) const VERDICT: &str = "observer.verdict";
    pub(in super::super) const NOTE: &str = "observer.note";
}

/// What a publish is sent to: `EXCHANGE:KEY`; what is empty is left out, and of the default exchange without a key only its own name remains.
pub(super) fn sent_to(exchange: &str, key: &str) -> String {
    let parts: Vec<&str> = [exchange, key].into_iter().filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { "amq.default".to_owned() } else { parts.join(":") }
}

/// What a delivery comes from: `EXCHANGE:KEY:QUEUE`; what is empty is left out, and a key that is the queue's name is not said twice.
pub(super) fn delivered_from(exchange: &str, key: &str, queue: &str) -> String {
    let key = if key == queue { "" } else { key };
    let parts: Vec<&str> = [exchange, key, queue].into_iter().filter(|part| !part.is_empty()).collect();
    parts.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_named_by_exchange_key_and_queue() {
        assert_eq!(sent_to("", "default"), "default");
        assert_eq!(sent_to("jobs", "a.b"), "jobs:a.b");
        assert_eq!(sent_to("", ""), "amq.default");
        assert_eq!(delivered_from("", "default", "default"), "default");
        assert_eq!(delivered_from("jobs", "a.b", "work"), "jobs:a.b:work");
        assert_eq!(delivered_from("jobs", "work", "work"), "jobs:work");
    }
}
