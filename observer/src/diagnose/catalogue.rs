//! The catalogue of what `explain` may conclude: the one table from which codes, titles, rungs, severities, remedies, the reference page
//! and `observer explain --list` come. Knows no session and no rule.
//!
//! One code is one cause that a person can act on; `causes` refine it. Codes are public names: they appear in JSON, in exports and in
//! people's scripts.

use serde::{Serialize, Serializer};

use crate::model::ladder::Rung;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Worth a look; messages are consumed all the same, or it cannot be told.
    Warning,
    /// Messages are not consumed, or not as they should be.
    Failure,
}

impl Severity {
    /// Its public name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failure => "failure",
        }
    }
}

/// When a conclusion comes before another. What is further up explains what is further down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// The process is gone, and this is why.
    Fatal,
    /// A rung of the ladder broke: the lowest one first.
    Broken,
    /// Messages arrive and are not settled well.
    Settle,
    /// It ended or goes on as it should.
    Well,
    /// Nothing can be concluded.
    Unknown,
}

/// What is to be known of a code.
#[derive(Debug)]
pub struct Entry {
    /// The public name.
    pub name: &'static str,
    /// What comes first.
    pub class: Class,
    /// The rung of the ladder that it breaks, or that it stands on.
    pub rung: Rung,
    /// How bad it is, unless the finding says otherwise.
    pub severity: Severity,
    /// The cause in a few words.
    pub title: &'static str,
    /// How it looks from outside: what has to be seen.
    pub seen: &'static str,
    /// One thing a person can do next, where the finding knows no better.
    pub remedy: &'static str,
    /// Names and meanings of its refinements; empty when there are none.
    pub causes: &'static [(&'static str, &'static str)],
}

macro_rules! catalogue {
    ($($code:ident = $name:literal, $class:ident, $rung:ident, $severity:ident {
        $title:literal, $seen:literal, $remedy:literal $(, [$($cause:literal: $meaning:literal),+])?
    })+) => {
        /// A code of the catalogue.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $(#[doc = $seen] $code,)+
        }

        impl Code {
            /// All, in the order of the catalogue.
            pub const ALL: &'static [Self] = &[$(Self::$code),+];

            /// What is to be known of it.
            pub const fn entry(self) -> &'static Entry {
                match self {
                    $(Self::$code => &Entry {
                        name: $name,
                        class: Class::$class,
                        rung: Rung::$rung,
                        severity: Severity::$severity,
                        title: $title,
                        seen: $seen,
                        remedy: $remedy,
                        causes: &[$($(($cause, $meaning)),+)?],
                    },)+
                }
            }
        }
    };
}

impl Code {
    /// Its public name.
    pub const fn name(self) -> &'static str {
        self.entry().name
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

catalogue! {
    Healthy = "healthy", Well, Settle, Ok {
        "messages arrive and are acknowledged",
        "Deliveries arrived and were acknowledged.",
        "nothing to do"
    }
    Idle = "idle", Well, Consume, Ok {
        "consuming, and there is nothing to consume",
        "It consumes every queue it declared, and the broker says that those queues are empty.",
        "send a message to one of its queues: observer send QUEUE ACTOR"
    }
    Stopped = "stopped", Well, Consume, Ok {
        "it was asked to stop",
        "It consumed or was ready, then ended because somebody asked: TERM, INT or HUP, or the observer's own --for.",
        "start it again when it should go on"
    }
    Undetermined = "undetermined", Unknown, Exec, Warning {
        "nothing conclusive was observed",
        "Nothing that was seen proves a cause.",
        "record again, longer (--for 60s) and with --broker worker"
    }

    ExecFailed = "exec-failed", Fatal, Exec, Failure {
        "the command could not be started",
        "execve of the command returned an error.",
        "correct the command, or put its directory on PATH"
    }
    UsageError = "usage-error", Fatal, Boot, Failure {
        "dramatiq did not accept its arguments",
        "argparse's message and exit status 2, with no fork and no import of the module; or arguments swallowed by an option that takes many.",
        "correct the arguments: python -m dramatiq --help",
        ["swallowed-arguments": "an option that takes many values (-Q, --path, --watch…) took the module's name as one of them"]
    }
    PidfileConflict = "pidfile-conflict", Fatal, Boot, Failure {
        "the PID file says that it runs already",
        "Exit status 4 after the PID file was read.",
        "stop the running one, or remove the stale PID file"
    }
    MissingExtra = "missing-extra", Fatal, Boot, Failure {
        "--watch needs a package that is not installed",
        "--watch was given and watchdog could not be imported: exit status 2.",
        "pip install 'dramatiq[watch]'"
    }
    NoWorkerProcesses = "no-worker-processes", Fatal, Boot, Failure {
        "no worker process was asked for",
        "-p 0: exit status 0 without any fork.",
        "give --processes 1 or more"
    }
    SettingInvalid = "setting-invalid", Fatal, Boot, Failure {
        "a setting of dramatiq cannot be used",
        "ValueError of a dramatiq_… environment variable or option, before or during boot.",
        "correct or unset the variable"
    }

    ModuleNotFound = "module-not-found", Broken, Import, Failure {
        "a module could not be found",
        "Every directory of sys.path was searched for the module and none has it.",
        "make the module importable",
        [
            "wrong-cwd": "the module to run exists, but not in or below a directory of sys.path: it was started in another directory",
            "pythonpath-missing": "an own module exists in a directory that is not on sys.path",
            "dependency-missing": "a distribution that is not installed in this environment",
            "file-argument": "a file was given (worker.py, app/worker.py) where a module is wanted (worker, app.worker)"
        ]
    }
    ModuleShadowed = "module-shadowed", Broken, Import, Failure {
        "a local file took the place of another module",
        "A file of the working directory or PYTHONPATH was loaded under the name of a standard library or installed module.",
        "rename the file"
    }
    BrokerAttributeMissing = "broker-attribute-missing", Broken, Import, Failure {
        "the module has no such broker",
        "MODULE:ATTRIBUTE was given and the module has no such attribute: exit status 2.",
        "correct the attribute after the colon"
    }
    ImportException = "import-exception", Broken, Import, Failure {
        "importing the module raised an exception",
        "A traceback that leads through the import of a module, then exit.",
        "mend the line that raised"
    }
    ExitDuringImport = "exit-during-import", Broken, Import, Failure {
        "the module ended the process while it was imported",
        "sys.exit(n) or os._exit(n) while the module was being imported.",
        "move the call out of the module's top level"
    }
    ImportBlocked = "import-blocked", Broken, Import, Failure {
        "the import of a module never ends",
        "The importing thread has sat in one call, or gone round in it, and the worker never became ready.",
        "move what waits out of the module's top level"
    }

    StubBroker = "stub-broker", Broken, Connect, Failure {
        "the stub broker is in use: it talks to nobody",
        "dramatiq.brokers.stub was loaded, the worker's threads run, and no connection is ever tried.",
        "set a real broker with dramatiq.set_broker(RabbitmqBroker(url=…)) before the actors are declared",
        ["selected-by-environment": "an environment variable selects it"]
    }
    NothingToConsume = "nothing-to-consume", Broken, Connect, Failure {
        "the worker has no queue to consume",
        "The worker is ready, has no consumer thread, and no connection is ever tried.",
        "import the modules with the actors, and set the broker before them",
        [
            "no-actors-imported": "no module with an actor was imported",
            "broker-set-after-actors": "actors were declared on the broker that was there before set_broker",
            "actor-on-other-broker": "the actors belong to another broker object than the one that runs"
        ]
    }
    QueueFilterMismatch = "queue-filter-mismatch", Broken, Connect, Failure {
        "--queues names no queue that was declared",
        "-Q/--queues was given, and the worker consumes none.",
        "name a declared queue after --queues, or leave it out"
    }
    NoWorkerThreads = "no-worker-threads", Broken, Process, Failure {
        "the worker has no worker threads",
        "-t 0: prefetch 0, everything is delivered and stays unacknowledged.",
        "give --threads 1 or more"
    }

    DnsFailure = "dns-failure", Broken, Connect, Failure {
        "the broker's name does not resolve",
        "The name was looked up and no address came back; no connection was tried.",
        "correct the host in the broker's URL, or the resolver"
    }
    ConnectionRefused = "connection-refused", Broken, Connect, Failure {
        "nobody listens at the broker's address",
        "connect: ECONNREFUSED, again and again.",
        "start the broker there, or correct host and port"
    }
    ConnectionTimeout = "connection-timeout", Broken, Connect, Failure {
        "the broker's address does not answer",
        "SYN without an answer.",
        "check host, port and firewall"
    }
    NotAnAmqpBroker = "not-an-amqp-broker", Broken, Connect, Failure {
        "what answers there does not speak AMQP",
        "TCP was accepted, the AMQP header sent, and the answer is not connection.start.",
        "use the AMQP port, 5672 by default"
    }
    TlsMismatch = "tls-mismatch", Broken, Connect, Failure {
        "one side speaks TLS and the other does not",
        "A ClientHello answered by AMQP bytes or a reset, or an AMQP header on a TLS port.",
        "amqps:// goes with port 5671, amqp:// with 5672"
    }
    FdLimitReached = "fd-limit-reached", Broken, Connect, Failure {
        "no file descriptors are left",
        "EMFILE on socket, pipe, open or accept.",
        "raise the limit: ulimit -n 65536, or LimitNOFILE= in the unit"
    }
    AuthRefused = "auth-refused", Broken, Handshake, Failure {
        "the broker refused the credentials",
        "connection.close 403, or the end of the stream, after start-ok.",
        "correct user and password"
    }
    VhostNotFound = "vhost-not-found", Broken, Open, Failure {
        "the virtual host does not exist",
        "connection.close 530: the vhost is not found.",
        "rabbitmqctl add_vhost NAME, or correct the URL"
    }
    VhostAccessRefused = "vhost-access-refused", Broken, Open, Failure {
        "the user may not use the virtual host",
        "connection.close 530: access to the vhost refused for the user.",
        "rabbitmqctl set_permissions -p VHOST USER '.*' '.*' '.*'"
    }
    ConnectionLimitReached = "connection-limit-reached", Broken, Open, Failure {
        "a limit of connections is reached",
        "connection.close 530: the limit of the vhost or user is reached.",
        "close connections or raise the limit"
    }

    QueuePreconditionFailed = "queue-precondition-failed", Broken, Declare, Failure {
        "a queue exists with other arguments",
        "channel.close 406 to queue.declare.",
        "delete the queue when it is empty, or declare it as it is"
    }
    PermissionRefused = "permission-refused", Broken, Declare, Failure {
        "the user lacks a permission",
        "channel.close 403: access refused to a resource.",
        "rabbitmqctl set_permissions -p VHOST USER '.*' '.*' '.*'"
    }
    QueueInExclusiveUse = "queue-in-exclusive-use", Broken, Consume, Failure {
        "somebody else has the queue for themselves",
        "channel.close 403 \"in exclusive use\", or 405.",
        "stop the exclusive consumer"
    }
    QueueDeleted = "queue-deleted", Broken, Consume, Failure {
        "the queue was deleted while it was consumed",
        "basic.cancel from the server.",
        "restart the worker, and find who deletes the queue"
    }

    QueueMismatch = "queue-mismatch", Broken, Deliver, Failure {
        "messages wait in a queue that this worker does not consume",
        "Messages are ready in a queue or vhost that nothing in this tree consumes.",
        "send to the queue that is consumed, or consume the one that is sent to"
    }
    CompetingConsumer = "competing-consumer", Broken, Deliver, Failure {
        "somebody else consumes the same queue",
        "Messages of a queue of ours went to another connection.",
        "stop the other consumer, or give it a queue or vhost of its own",
        ["orphaned-worker": "a dramatiq worker whose parent has died"]
    }
    MessageDelayed = "message-delayed", Broken, Deliver, Warning {
        "messages are held until they are due",
        "Messages in .DQ whose eta has not come.",
        "wait, or send without delay"
    }
    BrokerAlarm = "broker-alarm", Broken, Deliver, Failure {
        "the broker blocks publishers",
        "connection.blocked, or publishers in state blocked: an alarm of memory or disk.",
        "free memory or disk at the broker: rabbitmqctl status"
    }

    ActorsBlocked = "actors-blocked", Broken, Process, Failure {
        "every worker thread is busy with a message that does not end",
        "Messages were delivered, none is settled, and the worker threads wait.",
        "find what the actors wait for; give it a timeout",
        ["time-limit-ineffective": "the actor's time limit expired while its thread was inside a system call, where it cannot be interrupted"]
    }
    ProcessStopped = "process-stopped", Broken, Process, Failure {
        "the process is stopped",
        "Scheduler state T.",
        "kill -CONT PID"
    }
    OutputPipeFull = "output-pipe-full", Broken, Process, Failure {
        "it waits to write to a pipe that nobody reads",
        "A thread sits in write to a pipe whose reader does not read.",
        "read the pipe, or send the output to a file"
    }
    OutputLost = "output-lost", Broken, Process, Failure {
        "nobody receives its output any more",
        "EPIPE on its output, or the log relay died.",
        "keep the reader alive, or log to a file"
    }
    HeartbeatTimeout = "heartbeat-timeout", Broken, Process, Failure {
        "the broker missed heartbeats and closed the connection",
        "No frame from us for two heartbeats, then the broker's end, with deliveries outstanding.",
        "do not block the connection's thread, or raise the heartbeat"
    }
    ConsumerTimeout = "consumer-timeout", Broken, Process, Failure {
        "a message was held longer than the broker allows",
        "channel.close 406: delivery acknowledgement timed out.",
        "make the actor shorter, or raise consumer_timeout"
    }
    ConnectionLost = "connection-lost", Broken, Consume, Failure {
        "the connection to the broker was lost",
        "A reset, the end of the stream or connection.close 320 from a broker that had accepted us.",
        "look at the broker: its log says why"
    }

    ActorNotFound = "actor-not-found", Settle, Settle, Failure {
        "a message names an actor that this worker does not have",
        "nack without requeue of a message for an actor that no import declared.",
        "import the module with that actor, or correct the sender"
    }
    MessageUndecodable = "message-undecodable", Settle, Settle, Failure {
        "a message is not one of dramatiq's",
        "nack without requeue of a body that is not a dramatiq message.",
        "find who sends it to this queue"
    }
    MessageTooOld = "message-too-old", Settle, Settle, Failure {
        "messages are older than their actor accepts",
        "nack without requeue after max_age.",
        "consume sooner, or raise max_age"
    }
    RetriesExhausted = "retries-exhausted", Settle, Settle, Failure {
        "an actor failed until its retries were used up",
        "nack without requeue after the last retry.",
        "mend the actor; the message is in the dead-letter queue .XQ"
    }
    ActorFailing = "actor-failing", Settle, Settle, Failure {
        "an actor raises, and its messages are tried again",
        "ack, and the same message published to .DQ with a retry count and a traceback.",
        "mend the actor"
    }

    OomKilled = "oom-killed", Fatal, Process, Failure {
        "the kernel killed it for want of memory",
        "Signal 9 and the kernel's own choice of the victim.",
        "give it more memory, or let it use less"
    }
    KilledBySignal = "killed-by-signal", Fatal, Process, Failure {
        "it was killed by a signal",
        "The wait status says which signal; the sender was seen or not.",
        "find out why the sender killed it"
    }
    Crashed = "crashed", Fatal, Process, Failure {
        "it crashed",
        "SIGSEGV, SIGBUS, SIGABRT, SIGILL or SIGFPE from its own doing.",
        "run with PYTHONFAULTHANDLER=1 to see the Python stack"
    }
    ExitedSilently = "exited-silently", Fatal, Process, Failure {
        "it ended without a word",
        "It ended at run time, and no output explains it.",
        "search the actors and their libraries for os._exit and C exit"
    }
    MasterDied = "master-died", Fatal, Process, Failure {
        "the parent died; its workers live on as orphans",
        "The master ended and workers of it did not.",
        "stop the orphans, then start again"
    }
    ReexecFailed = "reexec-failed", Fatal, Process, Failure {
        "HUP made it execute itself anew, and that failed",
        "After HUP another interpreter was executed, or none.",
        "start it with the interpreter's whole path"
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_kebab_case() {
        let names: BTreeSet<&str> = Code::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(names.len(), Code::ALL.len());
        let causes = Code::ALL.iter().flat_map(|code| code.entry().causes).map(|(name, _)| *name);
        for name in names.iter().copied().chain(causes) {
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{name}");
        }
    }
}
