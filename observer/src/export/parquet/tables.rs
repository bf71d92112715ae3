//! The tables of a Parquet export: their columns, where each comes from, and what it means. Writes nothing, and is there without the
//! feature too: the schema is made of it.

use Kind::{Bytes, Clock, Flag, Float, Int, Json, Known, Text, Words};

/// The schema's name and version. Within one version tables and columns are only added.
pub const SCHEMA: &str = "observer.parquet/1";

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number.
    Int,
    /// A number between two.
    Float,
    /// True or false.
    Flag,
    /// Two columns: NAME_ns on `CLOCK_MONOTONIC`, and NAME_time, the same moment on the wall clock.
    Clock,
    /// Text.
    Text,
    /// Any bytes.
    Bytes,
    /// Words in order.
    Words,
    /// A value as JSON.
    Json,
    /// How a value of the session is known.
    Known,
}

/// A column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Where it is among the fields of what the row is made of: the first of these that is there. Empty: it is the event's own, or has
    /// this name.
    pub from: &'static [&'static str],
    /// What it means.
    pub about: &'static str,
}

/// Which rows a table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// A row an event of these kinds; of every kind, when there is none.
    Events(&'static [&'static str]),
    /// A row a variable of an exec.
    Environment,
    /// A row a file of a Python module that was opened.
    Imports,
    /// The session's own table of this name.
    Derived(crate::session::DerivedTable),
    /// Made of the session as a whole.
    Made,
}

/// A table.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// Its name, and its folder's.
    pub name: &'static str,
    /// What a row is.
    pub about: &'static str,
    /// Which rows it has.
    pub rows: Rows,
    /// Its columns.
    pub columns: &'static [Column],
}

const fn own(name: &'static str, kind: Kind, about: &'static str) -> Column {
    Column { name, kind, from: &[], about }
}

const fn at(name: &'static str, kind: Kind, from: &'static [&'static str], about: &'static str) -> Column {
    Column { name, kind, from, about }
}

const EVENT: Column = own("event", Int, "its number in the session; evidence refers to it");
const AT: Column = own("at", Clock, "when; a system call: when it returned");
const PID: Column = own("pid", Int, "process, 0 for none");
const TID: Column = own("tid", Int, "thread, 0 for none");
const KIND: Column = own("kind", Text, "the kind of event");
const ORIGIN: Column = own("origin", Text, "ebpf, ptrace, proc (it was so when we looked), broker, observer");
const ERRNO: Column = at("errno", Int, &["errno"], "0, or why it failed");
const DURATION: Column = at("duration_ns", Int, &["duration_ns"], "how long the call took");
const VHOST: Column = at("vhost", Text, &["vhost"], "");
const QUEUE: Column = at("queue", Text, &["queue"], "");
const HOW: Column = at("how", Text, &["how"], "who told");
const OURS: Column = at("ours", Flag, &["ours"], "observer's own, to be left out of every count");

const PEER: &[&str] = &["peer", "address"];

/// All tables, in the order they are written. What concludes comes last: where a session stands in `sessions`, the rest is there.
pub const TABLES: &[Table] = &[
    Table {
        name: "events",
        about: "everything that happened",
        rows: Rows::Events(&[]),
        columns: &[
            own("id", Int, "its number in the session, in order of arrival; `event` in the other tables"),
            AT,
            PID,
            TID,
            KIND,
            ORIGIN,
            own("data", Json, "the fields of its kind, as in the session; observer export --schema jsonl"),
            own(
                "bytes",
                Bytes,
                "what was carried, for data and output; may be shorter than the call's own length",
            ),
        ],
    },
    Table {
        name: "execs",
        about: "programs that were started; origin proc: it was running already when observer came",
        rows: Rows::Events(&["exec"]),
        columns: &[
            EVENT,
            AT,
            PID,
            ORIGIN,
            at("ppid", Int, &["ppid"], "its parent"),
            at("path", Text, &["path"], "as given to execve"),
            at("path_known", Known, &["path"], ""),
            at("argv", Words, &["argv"], "the arguments"),
            at("argv_known", Known, &["argv"], ""),
            at("cwd", Text, &["cwd"], "the directory it was started in"),
            at("cwd_known", Known, &["cwd"], ""),
            at("exe", Text, &["exe/path"], "the file that runs"),
            at("exe_known", Known, &["exe/path"], ""),
            at("env_known", Known, &["env"], "of the table environment"),
            at("uid", Int, &["user/uid"], ""),
            at("euid", Int, &["user/euid"], ""),
            at("gid", Int, &["user/gid"], ""),
            at("egid", Int, &["user/egid"], ""),
            at("user_known", Known, &["user"], "of the four before"),
            at("umask", Int, &["umask"], "as a decimal number"),
            at("umask_known", Known, &["umask"], ""),
            at("limits", Json, &["limits"], "list of {name, soft, hard}; null is unlimited"),
            at("limits_known", Known, &["limits"], ""),
            at("tty", Text, &["tty"], "the controlling terminal"),
            at("tty_known", Known, &["tty"], ""),
            at("stdio", Json, &["stdio"], "where descriptors 0, 1 and 2 lead"),
        ],
    },
    Table {
        name: "environment",
        about: "the variables of every exec",
        rows: Rows::Environment,
        columns: &[
            EVENT,
            AT,
            PID,
            own("name", Text, ""),
            own(
                "value",
                Text,
                "null: the entry has no `=`; secrets are «redacted:HASH», the same for the same secret",
            ),
        ],
    },
    Table {
        name: "exits",
        about: "processes that ended",
        rows: Rows::Events(&["exit"]),
        columns: &[
            EVENT,
            AT,
            PID,
            ORIGIN,
            at("code", Int, &["code"], "null: it was killed"),
            at("signal", Int, &["signal"], "that killed it"),
            at("core_dumped", Flag, &["core_dumped"], ""),
        ],
    },
    Table {
        name: "files",
        about: "calls that name a file",
        rows: Rows::Events(&["open", "stat", "access", "readlink", "scan", "chdir"]),
        columns: &[
            EVENT,
            AT,
            PID,
            TID,
            KIND,
            at("syscall", Text, &["syscall"], ""),
            at("path", Text, &["path"], "as given"),
            at("path_known", Known, &["path"], ""),
            at("resolved", Text, &["resolved"], "absolute; symbolic links are not followed"),
            at("resolved_known", Known, &["resolved"], ""),
            at("flags", Int, &["flags"], "O_* or AT_*"),
            at("result", Int, &["result"], "descriptor or length; null: it failed"),
            ERRNO,
            DURATION,
        ],
    },
    Table {
        name: "imports",
        about: "Python module files that were opened: sources, byte code and extension modules",
        rows: Rows::Imports,
        columns: &[EVENT, AT, PID, TID, at("file", Text, &["resolved"], "its path")],
    },
    Table {
        name: "sockets",
        about: "what was done with sockets",
        rows: Rows::Events(&[
            "socket",
            "socket-failed",
            "connect",
            "connected",
            "bind",
            "listen",
            "accept",
            "close",
            "disconnect",
        ]),
        columns: &[
            EVENT,
            AT,
            PID,
            TID,
            KIND,
            at("socket", Int, &["socket"], "the sockfs inode that ss -e shows"),
            at("fd", Int, &["fd"], "its descriptor"),
            at(
                "address",
                Text,
                &["peer/ip", "address/ip", "peer/path", "address/path"],
                "of the peer, or bound",
            ),
            at("port", Int, &["peer/port", "address/port"], ""),
            at("address_known", Known, PEER, "of the two before"),
            at("local_address", Text, &["local/ip", "local/path"], ""),
            at("local_port", Int, &["local/port"], ""),
            at("local_known", Known, &["local"], "of the two before"),
            at("how", Text, &["how"], "disconnect: by-us, by-peer, reset-by-peer, …"),
            ERRNO,
            DURATION,
        ],
    },
    Table {
        name: "outputs",
        about: "what processes wrote to standard output, standard error and to pipes",
        rows: Rows::Events(&["output"]),
        columns: &[
            EVENT,
            AT,
            PID,
            TID,
            at("stream", Text, &["stream"], "stdout, stderr, pipe"),
            at("len_bytes", Int, &["len"], "true length of the call"),
            ERRNO,
            own("text", Text, "as UTF-8, � for what is none; control characters are the program's own"),
        ],
    },
    Table {
        name: "amqp_methods",
        about: "what was said to the broker and by it, without heartbeats",
        rows: Rows::Derived(crate::session::DerivedTable::AmqpMethods),
        columns: &[
            EVENT,
            AT,
            PID,
            TID,
            own("connection", Int, "its number in the session, from 1"),
            own("channel", Int, "0 is the connection itself"),
            own("side", Text, "who said it: client or server"),
            own("method", Text, "queue.declare, basic.deliver, …; protocol-header, not-amqp, unseen"),
            own("message_id", Text, "of the message it carries, where that has one"),
            own("arguments", Json, "without message bodies"),
        ],
    },
    Table {
        name: "messages",
        about: "the ways of messages through queues; a retry or a redelivery is another",
        rows: Rows::Derived(crate::session::DerivedTable::Messages),
        columns: &[
            own("message", Int, "number of the message in the session, from 1"),
            own("passage", Int, "which of its ways, from 1"),
            own("message_id", Text, "dramatiq's, else AMQP's own"),
            own("actor", Text, "what is to be run"),
            own("vhost", Text, ""),
            own(
                "queue",
                Text,
                "null: published to another exchange than the default one, and not seen delivered",
            ),
            own("published_event", Int, "null: not by an observed process, or before the recording"),
            own("published", Clock, ""),
            own("published_pid", Int, ""),
            own("delivered_event", Int, "null: not to an observed process"),
            own("delivered", Clock, ""),
            own("delivered_pid", Int, ""),
            own("delivered_tid", Int, ""),
            own("redelivered", Flag, "the broker had delivered it before"),
            own("settled_event", Int, "null: not settled when the recording ended"),
            own("settled", Clock, ""),
            own("settled", Text, "acked, nacked, rejected, requeued, returned, automatic"),
            own("retries", Int, "which retry it is"),
            own("failure", Text, "type of the exception that made it a retry"),
            own(
                "state",
                Text,
                "of the message in the end: published, unroutable, refused, delivered, or how it was settled",
            ),
        ],
    },
    Table {
        name: "queue_samples",
        about: "what queues held, as the broker says",
        rows: Rows::Events(&["queue-sample"]),
        columns: &[
            EVENT,
            AT,
            VHOST,
            QUEUE,
            at("ready", Int, &["ready"], "messages; null: not told"),
            at("unacked", Int, &["unacked"], "delivered and not settled; null: not told"),
            at("consumers", Int, &["consumers"], "null: not told"),
            at(
                "state",
                Text,
                &["state"],
                "running, idle, …; absent: no such queue; exclusive: another connection's alone",
            ),
            HOW,
            OURS,
        ],
    },
    Table {
        name: "broker_events",
        about: "everything else a broker said",
        rows: Rows::Events(&[
            "broker-connection",
            "broker-consumer",
            "broker-event",
            "broker-message",
            "broker-alarm",
            "broker-access",
        ]),
        columns: &[
            EVENT,
            AT,
            KIND,
            at("name", Text, &["consumer_tag", "passage", "resource", "way", "name"], "of what it says it"),
            VHOST,
            QUEUE,
            at("connection", Text, &["connection"], "its name; of broker-connection it is in `name`"),
            at("present", Flag, &["present", "set", "available"], "false: gone, cleared or closed"),
            at("detail", Text, &["detail"], "of broker-access: why"),
            HOW,
            OURS,
            own("data", Json, "the fields of its kind"),
        ],
    },
    Table {
        name: "losses",
        about: "events that were lost, at the place in time where it was noticed",
        rows: Rows::Events(&["lost"]),
        columns: &[
            EVENT,
            AT,
            at("hop", Text, &["hop"], "ring, kernel-table, decode, channel, store"),
            at("what", Text, &["what"], "the kind of record"),
            at("cpu", Int, &["cpu"], ""),
            at("count", Int, &["count"], "since the last such row"),
        ],
    },
    Table {
        name: "notes",
        about: "what observer has to say about the recording itself",
        rows: Rows::Events(&["note"]),
        columns: &[
            EVENT,
            AT,
            at("level", Text, &["level"], "info, warning, trouble"),
            at("text", Text, &["text"], ""),
        ],
    },
    Table {
        name: "capabilities",
        about: "what the machine allowed",
        rows: Rows::Made,
        columns: &[
            own("name", Text, ""),
            own("state", Text, "works, limited or missing"),
            own("found", Text, ""),
            own("lost", Text, "what is not seen without it"),
            own("remedy", Text, "how to get it"),
        ],
    },
    Table {
        name: "processes",
        about: "processes: where each came from, what it runs last, how it ended",
        rows: Rows::Made,
        columns: &[
            PID,
            own("ppid", Int, "its parent; null: not seen"),
            own("role", Text, "worker, master, fork, program, …"),
            own("forked", Clock, "null: not seen, it was there already or was started by observer"),
            own("execs", Int, "0: it runs its parent's program"),
            at("argv", Words, &["ran/argv"], "of the last exec"),
            at("cwd", Text, &["ran/cwd"], "of the last exec"),
            at("exited", Clock, &["exit/exited"], "null: alive when the session ended"),
            at("code", Int, &["exit/code"], "null: it was killed, or lives"),
            at("signal", Int, &["exit/signal"], "that killed it"),
        ],
    },
    Table {
        name: "findings",
        about: "what was concluded, what counts most first",
        rows: Rows::Made,
        columns: &[
            own("rank", Int, "from 1; where there is a finding, the first is the verdict"),
            own("code", Text, "observer explain --list"),
            own("cause", Text, "its refinement; null: there is none, or it cannot be told"),
            own("severity", Text, "ok, warning, failure"),
            own("confidence", Float, "from 0 to 1"),
            own("title", Text, "in one line"),
            own("summary", Text, "in a sentence or three"),
            at("pid", Int, &["process/pid"], "the process; null: it is about none"),
            at("role", Text, &["process/role"], "its part: worker, master, fork, program"),
            own("also", Json, "the other processes with the same finding: list of {pid, role}"),
            own("rung", Text, "the rung of the ladder that broke"),
            own("evidence", Json, "list of {event, at_ns, text}"),
            own("remedy", Text, "what to do next"),
        ],
    },
    Table {
        name: "sessions",
        about: "the session: one row, and written last",
        rows: Rows::Made,
        columns: &[
            at("id", Text, &["header/id"], "unique, and sorts by time"),
            at("name", Text, &["header/name"], "that people use"),
            at("command", Words, &["header/command"], "that was started, or of the process attached to"),
            at("attached_pid", Int, &["header/attached"], "null: the command was started by observer"),
            at("backend", Text, &["header/backend"], "ebpf or ptrace"),
            at("hostname", Text, &["header/host"], "as it is; the partition's is percent-encoded"),
            at("kernel", Text, &["header/kernel"], ""),
            at("observer_version", Text, &["header/observer_version"], "that recorded"),
            own("session_schema", Int, "version of the session file"),
            at("snaplen_bytes", Int, &["header/snaplen"], "bytes kept of one call"),
            own("state", Text, "done, recording, cut-short"),
            at("started", Clock, &["header/started_ns"], "ties the two clocks together"),
            at("ended", Clock, &["ending/ended_ns"], "null: cut short, or still being recorded"),
            own("duration_ns", Int, "to the end, or to the last event"),
            at("exit_code", Int, &["ending/code"], "of the command"),
            at("exit_signal", Int, &["ending/signal"], "that killed the command"),
            at("reason", Text, &["ending/reason"], "why it ended: exited, time-limit, interrupted, let-go"),
            at("verdict", Text, &["verdict/code"], "the code of what is concluded"),
            at("cause", Text, &["verdict/cause"], "its refinement"),
            at("severity", Text, &["verdict/severity"], "ok, warning, failure"),
            at("confidence", Float, &["verdict/confidence"], "from 0 to 1"),
            at("title", Text, &["verdict/title"], "in one line"),
            at("summary", Text, &["verdict/summary"], "in a sentence or three"),
            at("rung", Text, &["verdict/rung"], "the rung of the ladder it is about"),
            at("remedy", Text, &["verdict/remedy"], "what to do next"),
            own("events", Int, "rows of the table events"),
            own("lost", Int, "events lost, all kinds together; the table losses says where"),
            own("unseen", Words, "what could not be seen, whatever happened"),
        ],
    },
];
