//! The tables that are derived from a session's events: AMQP methods and messages. Knows rows and the schema; who makes the rows, and
//! what they mean, it does not know.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, params};

use super::{Session, SessionError, read::to_i64, trust, write::SCHEMA};

const DERIVED: [&str; 2] = ["amqp_methods", "messages"];

/// A row of `amqp_methods`.
#[derive(Clone, Debug)]
pub struct MethodRow {
    /// The event that completed it.
    pub event: u64,
    /// When, in nanoseconds on `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// In which process.
    pub pid: u32,
    /// In which thread.
    pub tid: u32,
    /// The connection's number in the session.
    pub connection: u64,
    /// The channel.
    pub channel: u16,
    /// `client` or `server`.
    pub side: &'static str,
    /// The method's name.
    pub method: String,
    /// The message's own identifier, for methods that carry one.
    pub message_id: Option<String>,
    /// JSON: what was said.
    pub arguments: String,
}

/// A row of `messages`: one way of a message through a queue.
#[derive(Clone, Debug, Default)]
pub struct MessageRow {
    /// The message's number in the session.
    pub message: u64,
    /// Which of its ways through a queue, from 1.
    pub passage: u64,
    /// Its identifier.
    pub message_id: Option<String>,
    /// What is to be run.
    pub actor: Option<String>,
    /// The virtual host.
    pub vhost: Option<String>,
    /// The queue.
    pub queue: Option<String>,
    /// The publish: event, time, process.
    pub published: Option<(u64, u64, u32)>,
    /// The delivery: event, time, process, thread.
    pub delivered: Option<(u64, u64, u32, u32)>,
    /// The broker had delivered it before.
    pub redelivered: bool,
    /// The settlement: event, time, how.
    pub settled: Option<(u64, u64, &'static str)>,
    /// Which retry it is.
    pub retries: Option<u64>,
    /// The type of the exception that made it a retry.
    pub failure: Option<String>,
    /// How the message stands in the end.
    pub state: &'static str,
}

impl Session {
    /// Opens a finished session to write its derived tables.
    ///
    /// # Errors
    /// As [`Session::open`], and when it cannot be written.
    pub fn open_to_derive(path: &Path) -> Result<Self, SessionError> {
        let mut session = Self::open(path)?;
        let sqlite = |source| SessionError::sqlite("write derived tables of session", path, source);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let connection = Connection::open_with_flags(&session.path, flags).map_err(sqlite)?;
        trust::distrust(&connection).map_err(sqlite)?;
        connection.busy_timeout(std::time::Duration::from_secs(1)).map_err(sqlite)?;
        session.connection = connection;
        Ok(session)
    }

    /// Opens a session whose derived tables are to be made aside, where the session is not changed: of one that is still being recorded,
    /// or was cut short. What is made goes with what this returns.
    ///
    /// # Errors
    /// As [`Session::open`], and when there is no room for temporary files.
    pub fn open_to_derive_aside(path: &Path) -> Result<Self, SessionError> {
        let session = Self::open(path)?;
        // Of two tables of one name, SQLite takes the temporary one.
        let tables =
            SCHEMA.split_inclusive(";\n").filter_map(|part| part.find("CREATE TABLE ").map(|at| &part[at..]));
        let derived = tables
            .filter(|table| DERIVED.iter().any(|name| table.starts_with(&format!("CREATE TABLE {name} "))));
        let sql: String =
            derived.map(|table| table.replacen("CREATE TABLE", "CREATE TEMP TABLE", 1)).collect();
        let made = session.connection.execute_batch(&sql);
        made.map_err(|source| SessionError::sqlite("make derived tables of session", path, source))?;
        Ok(session)
    }

    /// Begins to write the derived tables anew; what is written counts when [`Derived::finish`] succeeds.
    ///
    /// # Errors
    /// When the session cannot be written.
    pub fn derive(&self) -> Result<Derived<'_>, SessionError> {
        let derived = Derived { session: self, finished: false };
        derived.run("BEGIN; DELETE FROM amqp_methods; DELETE FROM messages;")?;
        Ok(derived)
    }
}

/// The derived tables, being written.
#[derive(Debug)]
pub struct Derived<'a> {
    session: &'a Session,
    finished: bool,
}

impl Derived<'_> {
    /// Adds a method.
    ///
    /// # Errors
    /// When the session cannot be written.
    pub fn method(&self, row: &MethodRow) -> Result<(), SessionError> {
        self.insert(
            "INSERT INTO amqp_methods VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            params![
                to_i64(row.event),
                to_i64(row.at_ns),
                row.pid,
                row.tid,
                to_i64(row.connection),
                row.channel,
                row.side,
                row.method,
                row.message_id,
                row.arguments
            ],
        )
    }

    /// Adds a passage of a message.
    ///
    /// # Errors
    /// When the session cannot be written.
    pub fn message(&self, row: &MessageRow) -> Result<(), SessionError> {
        let (published, delivered, settled) = (row.published, row.delivered, row.settled);
        self.insert(
            "INSERT INTO messages VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)",
            params![
                to_i64(row.message),
                to_i64(row.passage),
                row.message_id,
                row.actor,
                row.vhost,
                row.queue,
                published.map(|(event, ..)| to_i64(event)),
                published.map(|(_, at_ns, _)| to_i64(at_ns)),
                published.map(|(.., pid)| pid),
                delivered.map(|(event, ..)| to_i64(event)),
                delivered.map(|(_, at_ns, ..)| to_i64(at_ns)),
                delivered.map(|(.., pid, _)| pid),
                delivered.map(|(.., tid)| tid),
                row.redelivered,
                settled.map(|(event, ..)| to_i64(event)),
                settled.map(|(_, at_ns, _)| to_i64(at_ns)),
                settled.map(|(.., how)| how),
                row.retries.map(to_i64),
                row.failure,
                row.state
            ],
        )
    }

    /// Keeps what was written.
    ///
    /// # Errors
    /// When the session cannot be written; it is then as it was before.
    pub fn finish(mut self) -> Result<(), SessionError> {
        self.run("COMMIT")?;
        self.finished = true;
        Ok(())
    }

    fn run(&self, sql: &str) -> Result<(), SessionError> {
        self.session.connection.execute_batch(sql).map_err(|source| self.error(source))
    }

    fn insert(&self, sql: &str, values: impl rusqlite::Params) -> Result<(), SessionError> {
        let connection = &self.session.connection;
        let inserted = connection.prepare_cached(sql).and_then(|mut insert| insert.execute(values));
        inserted.map(drop).map_err(|source| self.error(source))
    }

    fn error(&self, source: rusqlite::Error) -> SessionError {
        SessionError::sqlite("write derived tables of session", &self.session.path, source)
    }
}

impl Drop for Derived<'_> {
    fn drop(&mut self) {
        if !self.finished {
            // Nothing was changed then; a transaction that SQLite ended itself is no matter.
            drop(self.session.connection.execute_batch("ROLLBACK"));
        }
    }
}
