//! Reads a recorded session: finished, cut short, or still being written. Knows the schema and events, and changes nothing.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, types::Value};

use super::{APPLICATION_ID, Ending, Header, SCHEMA_VERSION, SessionError, State, mark, trust};
use crate::event::{Body, Event, Origin, Pid, Tid};

/// A session is read by one thread at a time: SQLite's own locks would cost a fifth of the time.
const FLAGS: OpenFlags = OpenFlags::SQLITE_OPEN_READ_ONLY
    .union(OpenFlags::SQLITE_OPEN_NO_MUTEX)
    .union(OpenFlags::SQLITE_OPEN_NOFOLLOW);
/// KiB of pages kept: events are read in the order of time, which is nearly that of the file.
const CACHE_KIB: i64 = 16 * 1024;

/// Which events are wanted. The default is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only those with these ids, at most 30,000; empty: all.
    pub ids: Vec<u64>,
    /// Only these kinds ([`Body::kind`]); empty: all.
    pub kinds: Vec<String>,
    /// Only of these processes; empty: all.
    pub pids: Vec<Pid>,
    /// Only events that name a file whose path (as given, resolved or executed) contains this.
    pub path_contains: Option<String>,
    /// Not before, in nanoseconds since the session began.
    pub from_ns: Option<u64>,
    /// Not after, in nanoseconds since the session began.
    pub to_ns: Option<u64>,
    /// Only events that arrived after the one with this id: what is new since a session was last read.
    pub after_id: Option<u64>,
    /// Only events that arrived no later than the one with this id.
    pub up_to_id: Option<u64>,
    /// At most so many.
    pub limit: Option<u64>,
}

impl Filter {
    /// Whether it wants this event of a session that began at `started_ns`. The limit is not asked: it is about all of them.
    pub fn wants(&self, id: u64, event: &Event, started_ns: u64) -> bool {
        let at_ns = |relative: u64| started_ns.saturating_add(relative);
        (self.kinds.is_empty() || self.kinds.iter().any(|kind| kind == event.body.kind()))
            && (self.pids.is_empty() || self.pids.contains(&event.pid))
            && self.from_ns.is_none_or(|from| event.at_ns >= at_ns(from))
            && self.to_ns.is_none_or(|to| event.at_ns <= at_ns(to))
            && self.after_id.is_none_or(|after| id > after)
            && self.up_to_id.is_none_or(|up_to| id <= up_to)
            && self.path_contains.as_ref().is_none_or(|part| names_path(&event.body, part))
    }
}

/// Whether an event names a file whose path contains this.
fn names_path(body: &Body, part: &str) -> bool {
    let Ok(json) = serde_json::to_value(body) else { return false };
    ["/path", "/resolved", "/exe/path"].iter().any(|field| match json.pointer(field) {
        Some(serde_json::Value::String(path)) => path.contains(part),
        Some(other) => other.to_string().contains(part),
        None => false,
    })
}

/// A session open for reading.
#[derive(Debug)]
pub struct Session {
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
    header: Header,
}

impl Session {
    /// Opens a session file.
    ///
    /// # Errors
    /// When there is no such file or it is a link, when it is damaged, when it is not one of ours, or when a newer observer recorded it.
    pub fn open(path: &Path) -> Result<Self, SessionError> {
        Self::open_of(path, None)
    }

    /// The same, of a session that is to be this user's: what somebody else put there is refused.
    pub(super) fn open_of(path: &Path, owner: Option<u32>) -> Result<Self, SessionError> {
        // Links on the way there are the caller's own; of what is there none is followed.
        let whole = path.parent().and_then(|parent| {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            Some(parent.canonicalize().ok()?.join(path.file_name()?))
        });
        let path = whole.as_deref().unwrap_or(path);
        trust::check(path, owner)?;
        let sqlite = |source| SessionError::sqlite("open session", path, source);
        let connection = Connection::open_with_flags(path, FLAGS).map_err(sqlite)?;
        trust::distrust(&connection).map_err(sqlite)?;
        connection.busy_timeout(Duration::from_secs(2)).map_err(sqlite)?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB).map_err(sqlite)?;
        let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        if pragma("application_id").map_err(sqlite)? != APPLICATION_ID {
            return Err(SessionError::NotOurs { path: path.to_owned() });
        }
        let found = pragma("user_version").map_err(sqlite)?;
        if found > SCHEMA_VERSION {
            return Err(SessionError::Newer { path: path.to_owned(), found, supported: SCHEMA_VERSION });
        }
        let Some(header) = meta(&connection, path, "header")? else {
            return Err(SessionError::Damaged {
                path: path.to_owned(),
                answer: "it has no header".to_owned(),
            });
        };
        Ok(Self { connection, path: path.to_owned(), header })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was known when the session began.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// How it ended; `None` while it is being recorded, and when it was cut short.
    pub fn ending(&self) -> Option<Ending> {
        meta(&self.connection, &self.path, "ending").ok().flatten()
    }

    /// How far it has come. Asked anew at every call: a recording may end meanwhile.
    pub fn state(&self) -> State {
        // The lock first: between the two, a recording can end but not begin.
        let held = mark::is_held(&self.path);
        match self.ending() {
            Some(_) => State::Done,
            None if held => State::Recording,
            None => State::CutShort,
        }
    }

    /// Whether its recording is over and the recorder is about to make one file of it, for which nobody may have it open.
    pub fn is_being_closed(&self) -> bool {
        mark::is_held(&self.path) && self.ending().is_some()
    }

    /// Hands the events that `filter` wants to `each`, with their ids, in order of time (of arrival, at the same instant), until it
    /// breaks. Returns how many were left out because this program does not know their kind (a newer observer recorded them).
    ///
    /// # Errors
    /// When the file cannot be read on; what was handed out before is valid.
    pub fn events(
        &self,
        filter: &Filter,
        mut each: impl FnMut(u64, Event) -> ControlFlow<()>,
    ) -> Result<u64, SessionError> {
        let sqlite = |source| SessionError::sqlite("read events of session", &self.path, source);
        let (sql, values) = self.select(filter);
        let mut statement = self.connection.prepare(&sql).map_err(sqlite)?;
        let mut rows = statement.query(rusqlite::params_from_iter(values)).map_err(sqlite)?;
        let mut json = String::new();
        let mut not_understood = 0;
        while let Some(row) = rows.next().map_err(sqlite)? {
            match event(row, &mut json).map_err(sqlite)? {
                Some((id, event)) => {
                    if each(id, event).is_break() {
                        break;
                    }
                }
                None => not_understood += 1,
            }
        }
        Ok(not_understood)
    }

    /// The highest id that an event has, which is about how many there are; 0 when there is none or it cannot be told.
    pub fn newest_id(&self) -> u64 {
        let newest = self.connection.query_row("SELECT max(id) FROM events", [], |row| row.get(0));
        newest.ok().flatten().map_or(0, i64::unsigned_abs)
    }

    fn select(&self, filter: &Filter) -> (String, Vec<Value>) {
        let mut sql =
            "SELECT id, at_ns, pid, tid, kind, origin, data, bytes FROM events WHERE true".to_owned();
        let mut values = Vec::new();
        let mut one_of = |column: &str, wanted: Vec<Value>| {
            if !wanted.is_empty() {
                let marks = vec!["?"; wanted.len()].join(",");
                sql.push_str(&format!(" AND {column} IN ({marks})"));
                values.extend(wanted);
            }
        };
        one_of("id", filter.ids.iter().copied().map(to_i64).map(Value::Integer).collect());
        one_of("kind", filter.kinds.iter().cloned().map(Value::Text).collect());
        one_of("pid", filter.pids.iter().map(|pid| Value::Integer(pid.0.into())).collect());
        let absolute = |relative: u64| to_i64(self.header.started_ns.saturating_add(relative));
        for (operator, bound) in [(">=", filter.from_ns), ("<=", filter.to_ns)] {
            if let Some(bound) = bound {
                sql.push_str(&format!(" AND at_ns {operator} ?"));
                values.push(Value::Integer(absolute(bound)));
            }
        }
        for (operator, bound) in [(">", filter.after_id), ("<=", filter.up_to_id)] {
            if let Some(id) = bound {
                sql.push_str(&format!(" AND id {operator} ?"));
                values.push(Value::Integer(to_i64(id)));
            }
        }
        if let Some(part) = &filter.path_contains {
            let contains = ["$.path", "$.resolved", "$.exe.path"]
                .map(|field| format!("instr(json_extract(data, '{field}'), ?) > 0"));
            sql.push_str(&format!(" AND ({})", contains.join(" OR ")));
            values.extend(vec![Value::Text(part.clone()); contains.len()]);
        }
        sql.push_str(" ORDER BY at_ns, id");
        if let Some(limit) = filter.limit {
            sql.push_str(" LIMIT ?");
            values.push(Value::Integer(to_i64(limit)));
        }
        (sql, values)
    }
}

/// SQLite's integers are signed; no clock reaches the difference.
pub(super) fn to_i64(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn meta<T: serde::de::DeserializeOwned>(
    connection: &Connection,
    path: &Path,
    part: &'static str,
) -> Result<Option<T>, SessionError> {
    let text: Option<String> = connection
        .query_row("SELECT value FROM meta WHERE key = ?", [part], |row| row.get(0))
        .optional()
        .map_err(|source| SessionError::sqlite("read session", path, source))?;
    text.map(|text| serde_json::from_str(&text)).transpose().map_err(|source| SessionError::Header {
        part,
        path: path.to_owned(),
        source,
    })
}

/// The event in a row; `None` when this program does not understand it.
fn event(row: &Row<'_>, json: &mut String) -> rusqlite::Result<Option<(u64, Event)>> {
    let (kind, origin, data) = (row.get_ref(4)?, row.get_ref(5)?, row.get_ref(6)?);
    let (kind, origin, data) = (kind.as_str()?, origin.as_str()?, data.as_str()?);
    let (Some(body), Some(observed_from)) = (body(kind, data, json), origin_of(origin)) else {
        return Ok(None);
    };
    let bytes = row.get_ref(7)?.as_blob_or_null()?.unwrap_or_default().to_vec();
    let (id, at_ns): (i64, i64) = (row.get(0)?, row.get(1)?);
    let (pid, tid) = (Pid(row.get(2)?), Tid(row.get(3)?));
    Ok(Some((id.unsigned_abs(), Event { at_ns: at_ns.unsigned_abs(), pid, tid, observed_from, body, bytes })))
}

/// What the columns `kind` and `data` say.
pub(super) fn body(kind: &str, data: &str, json: &mut String) -> Option<Body> {
    // Most events of a session name a file. Read by themselves they are not copied first, as what has its tag among its fields is.
    if let Some(body) = Body::of_file_call(kind) {
        return serde_json::from_str(data).ok().map(body);
    }
    // The column `kind` is the tag; `data` holds the other fields.
    json.clear();
    json.push_str("{\"kind\":\"");
    json.push_str(kind);
    json.push('"');
    if data != "{}" {
        json.push(',');
    }
    json.push_str(data.get(1..).unwrap_or_default());
    serde_json::from_str(json).ok()
}

/// The name of an origin in the column `origin`, equal to its JSON.
pub(super) const fn origin_name(origin: Origin) -> &'static str {
    match origin {
        Origin::Ebpf => "ebpf",
        Origin::Ptrace => "ptrace",
        Origin::Proc => "proc",
        Origin::Broker => "broker",
        Origin::Observer => "observer",
    }
}

fn origin_of(name: &str) -> Option<Origin> {
    [Origin::Ebpf, Origin::Ptrace, Origin::Proc, Origin::Broker, Origin::Observer]
        .into_iter()
        .find(|origin| origin_name(*origin) == name)
}
