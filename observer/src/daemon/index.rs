//! The service's own account of finished sessions: what keeping them depends on, so that no file of a user has to be opened for it. Knows
//! one database that is root's, and the names of files; nothing of what a session holds.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, params};

use crate::session::{
    SessionError,
    retain::{self, Entry, Limits},
    service,
};

/// Its file, in the service's directory.
const FILE: &str = "index.sqlite";
/// `obsi`: tells it from other programs' databases.
const APPLICATION_ID: i64 = 0x6f62_7369;
const VERSION: i64 = 1;

/// Every change is on the disk when it is told of: that a session is pinned must not be forgotten.
const SCHEMA: &str = "
CREATE TABLE sessions (  -- finished sessions that the service keeps
    id       TEXT PRIMARY KEY,
    owner    INTEGER NOT NULL,  -- user id
    began_ns INTEGER NOT NULL,  -- nanoseconds since 1970
    bytes    INTEGER NOT NULL,
    healthy  INTEGER NOT NULL,  -- 1: nothing was wrong
    pinned   INTEGER NOT NULL   -- 1: stays whatever the limits say
) WITHOUT ROWID;";

const COLUMNS: &str = "id, owner, began_ns, bytes, healthy, pinned";

/// The index, open.
#[derive(Debug)]
pub(super) struct Index {
    connection: Connection,
    base: PathBuf,
}

/// How the index was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// As it was left.
    Whole,
    /// It was made from the sessions that are there, because there was none or it could not be read: nothing is known of what was concluded,
    /// so all count as unhealthy, and none is pinned.
    Rebuilt {
        /// How many sessions were found.
        sessions: u64,
        /// Why it could not be read; `None`: there was none.
        why: Option<String>,
    },
}

impl Index {
    /// Opens the index of the service that keeps its sessions at `base`, or makes it anew. Sessions that it names and that are not there
    /// any more are forgotten; those that are there and are not named, as after a kill between the two, are taken in as unhealthy.
    /// `is_over` tells, by its file, whether a session is finished: what is being recorded is not to be removed.
    ///
    /// # Errors
    /// When it can be neither read nor made.
    pub(super) fn open(base: &Path, is_over: &dyn Fn(&Path) -> bool) -> Result<(Self, Opened), SessionError> {
        let path = base.join(FILE);
        let existed = path.symlink_metadata().is_ok();
        match Self::connect(base, &path) {
            Ok(mut index) => {
                let taken_in = index.reconcile(is_over)?;
                let opened =
                    if existed { Opened::Whole } else { Opened::Rebuilt { sessions: taken_in, why: None } };
                Ok((index, opened))
            }
            Err(error) => {
                let why = Some(error.to_string());
                for suffix in ["", "-journal", "-wal", "-shm"] {
                    let path = base.join(format!("{FILE}{suffix}"));
                    match std::fs::remove_file(&path) {
                        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                            let next = "remove it; the index is made anew from the sessions";
                            return Err(SessionError::Io {
                                attempted: "replace damaged index",
                                path,
                                source,
                                next,
                            });
                        }
                        _ => {}
                    }
                }
                let mut index = Self::connect(base, &path)?;
                let sessions = index.reconcile(is_over)?;
                Ok((index, Opened::Rebuilt { sessions, why }))
            }
        }
    }

    fn connect(base: &Path, path: &Path) -> Result<Self, SessionError> {
        use std::os::unix::fs::OpenOptionsExt;
        let io =
            |source| SessionError::Io { attempted: "open index", path: path.to_owned(), source, next: "" };
        // Made here and not by SQLite, so that it is never anybody else's to read.
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600).custom_flags(nix::libc::O_NOFOLLOW);
        let base = base.canonicalize().map_err(io)?;
        let path = base.join(FILE);
        let file = options.open(&path).map_err(io)?;
        if !file.metadata().map_err(io)?.is_file() {
            return Err(io(std::io::Error::other("it is no regular file")));
        }
        drop(file);
        let sqlite = |source| SessionError::sqlite("open index", &path, source);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_NOFOLLOW
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&path, flags).map_err(sqlite)?;
        let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let found = (pragma("application_id").map_err(sqlite)?, pragma("user_version").map_err(sqlite)?);
        match found {
            (APPLICATION_ID, VERSION) => {
                let sound: String =
                    connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(sqlite)?;
                if sound != "ok" {
                    return Err(SessionError::Damaged { path, answer: sound });
                }
            }
            (0, 0) => {
                let make = || {
                    connection.execute_batch("BEGIN")?;
                    connection.execute_batch(SCHEMA)?;
                    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
                    connection.pragma_update(None, "user_version", VERSION)?;
                    connection.execute_batch("COMMIT")
                };
                make().map_err(sqlite)?;
            }
            _ => return Err(SessionError::NotOurs { path }),
        }
        Ok(Self { connection, base })
    }

    /// Makes it say what is there; gives back how many sessions were taken in.
    fn reconcile(&mut self, is_over: &dyn Fn(&Path) -> bool) -> Result<u64, SessionError> {
        let found = service::sessions(&self.base)?;
        let known = self.list(None)?;
        let sqlite = |source| SessionError::sqlite("write index", &self.base.join(FILE), source);
        let transaction = self.connection.unchecked_transaction().map_err(sqlite)?;
        for entry in known.iter().filter(|entry| !found.iter().any(|one| one.path == entry.path)) {
            self.forget(&entry.id)?;
        }
        let mut taken_in = 0;
        for one in found {
            if known.iter().any(|entry| entry.id == one.id) || !is_over(&one.path) {
                continue;
            }
            self.add(&Entry {
                id: one.id,
                owner: one.owner,
                path: one.path,
                // Nobody's word is taken for when it began.
                began_ns: one.modified_ns,
                bytes: one.bytes,
                healthy: false,
                pinned: false,
            })?;
            taken_in += 1;
        }
        transaction.commit().map_err(sqlite)?;
        Ok(taken_in)
    }

    /// Takes in a finished session. One of the same id is replaced.
    ///
    /// # Errors
    /// When the index cannot be written.
    pub(super) fn add(&self, entry: &Entry) -> Result<(), SessionError> {
        let values = params![
            entry.id,
            entry.owner,
            i64::try_from(entry.began_ns).unwrap_or(i64::MAX),
            i64::try_from(entry.bytes).unwrap_or(i64::MAX),
            entry.healthy,
            entry.pinned
        ];
        let sql = format!("INSERT OR REPLACE INTO sessions ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6)");
        self.connection.execute(&sql, values).map(drop).map_err(|source| self.error("write index", source))
    }

    /// Pins a session, or lets it go; whether there is one of this id.
    ///
    /// # Errors
    /// When the index cannot be written.
    pub(super) fn pin(&self, id: &str, on: bool) -> Result<bool, SessionError> {
        let sql = "UPDATE sessions SET pinned = ?2 WHERE id = ?1";
        let changed = self.connection.execute(sql, params![id, on]);
        changed.map(|count| count > 0).map_err(|source| self.error("write index", source))
    }

    /// A session by its id.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub(super) fn get(&self, id: &str) -> Result<Option<Entry>, SessionError> {
        let sql = format!("SELECT {COLUMNS} FROM sessions WHERE id = ?1");
        let found = self.connection.query_row(&sql, [id], |row| self.entry(row)).optional();
        found.map_err(|source| self.error("read index", source))
    }

    /// The sessions of a user, or of all, the newest first.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub(super) fn list(&self, owner: Option<u32>) -> Result<Vec<Entry>, SessionError> {
        let sql = format!(
            "SELECT {COLUMNS} FROM sessions WHERE ?1 IS NULL OR owner = ?1 ORDER BY began_ns DESC, id DESC"
        );
        let read = || {
            let mut statement = self.connection.prepare(&sql)?;
            let rows = statement.query_map([owner], |row| self.entry(row))?;
            rows.collect::<rusqlite::Result<Vec<Entry>>>()
        };
        read().map_err(|source| self.error("read index", source))
    }

    /// Forgets a session, whose files are left where they are.
    ///
    /// # Errors
    /// When the index cannot be written.
    pub(super) fn forget(&self, id: &str) -> Result<(), SessionError> {
        let deleted = self.connection.execute("DELETE FROM sessions WHERE id = ?1", [id]);
        deleted.map(drop).map_err(|source| self.error("write index", source))
    }

    /// Removes a session: its files first, then what is known of it.
    ///
    /// # Errors
    /// When the system refuses; it is still known then.
    pub(super) fn remove(&self, entry: &Entry) -> Result<(), SessionError> {
        service::remove(&self.base, entry.owner, &entry.id)?;
        self.forget(&entry.id)
    }

    /// Removes what the limits do not leave room for, and gives it back. `now_ns` is nanoseconds since 1970, `free_bytes` what is free on
    /// the file system. One that cannot be removed does not keep the others: the first such error comes with the rest.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub(super) fn retain(
        &self,
        limits: &Limits,
        now_ns: i128,
        free_bytes: u64,
    ) -> Result<(Vec<Entry>, Option<SessionError>), SessionError> {
        let all = self.list(None)?;
        let (mut removed, mut trouble) = (Vec::new(), None);
        for entry in retain::to_remove(&all, limits, now_ns, free_bytes) {
            match self.remove(entry) {
                Ok(()) => removed.push(entry.clone()),
                Err(error) => drop(trouble.get_or_insert(error)),
            }
        }
        Ok((removed, trouble))
    }

    fn entry(&self, row: &Row<'_>) -> rusqlite::Result<Entry> {
        let (id, owner): (String, u32) = (row.get(0)?, row.get(1)?);
        let (began_ns, bytes): (i64, i64) = (row.get(2)?, row.get(3)?);
        let path = service::path_of(&self.base, owner, &id);
        let (healthy, pinned) = (row.get(4)?, row.get(5)?);
        Ok(Entry { id, owner, path, began_ns: began_ns.into(), bytes: bytes.unsigned_abs(), healthy, pinned })
    }

    fn error(&self, attempted: &'static str, source: rusqlite::Error) -> SessionError {
        SessionError::sqlite(attempted, &self.base.join(FILE), source)
    }
}

#[cfg(test)]
mod tests;
