//! Records a session. Knows the schema and events; what they mean, and where they come from, it does not know.
//!
//! Recording never fails once it has begun: when the disk is full, what is there is kept, what comes is counted, and
//! [`Recorder::trouble`] says so.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rusqlite::{Connection, OpenFlags, params};

use super::{
    APPLICATION_ID, Ending, Header, Redactor, SCHEMA_VERSION, SessionError, StateDir,
    mark::{self, Mark, RESERVE_BYTES},
    name,
    read::{origin_name, to_i64},
    resume::Bases,
    ring::{Accounts, ROW_BYTES, Ring, Row},
    tally::Tally,
    trust,
};
use crate::{
    amqp::mask::StreamMasker,
    event::{Body, Event, Hop, NoteLevel, Origin, Pid, Tid},
};

pub(super) const SCHEMA: &str = include_str!("schema.sql");

/// With the time a source takes to hand over, what may be lost when we are killed stays under 100 ms.
const COMMIT_EVERY: Duration = Duration::from_millis(40);

/// A transaction that holds so much is committed however young it is: when the disk gets full, what the open one holds is lost.
const COMMIT_BYTES: usize = 256 << 10;

/// Readers that are there when a session ends are waited for so long.
const WAIT_FOR_READERS: Duration = Duration::from_millis(500);

/// How many events pass between two looks at the clock.
const CLOCK_EVERY: usize = 256;

/// `synchronous=OFF`: the promise is that killing *us* loses nothing committed, and what was handed to the kernel outlives us without
/// `fsync`. An `fsync` would wait behind the target's own writes, and make the target wait behind ours, for as long as the disk likes;
/// meanwhile the kernel's ring overflows. A machine that loses power may leave a damaged session; `finish` syncs.
pub(super) const WHILE_RECORDING: &str =
    "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; PRAGMA cache_size=-2048;";

/// Two indexes cost five times the insertion: they are built when nothing is waiting any more.
pub(super) const INDEXES: &str =
    "CREATE INDEX events_by_time ON events (at_ns); CREATE INDEX events_by_kind ON events (kind, at_ns);";

/// How long a lock of somebody else is waited for.
pub(super) const WAIT_FOR_OTHERS: Duration = Duration::from_secs(1);

/// Where `meta` holds how much the ring keeps, when there is one.
pub(super) const RING: &str = "ring";

const INSERT: &str =
    "INSERT INTO events (at_ns, pid, tid, kind, origin, data, bytes) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

/// A session being recorded.
pub struct Recorder {
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
    /// As it is stored.
    pub(super) header: Header,
    pub(super) redactor: Redactor,
    masker: StreamMasker,
    pub(super) bases: Bases,
    pub(super) ring: Option<Accounts>,
    /// Reused for every event's JSON.
    json: Vec<u8>,
    /// When the open transaction began.
    began: Option<Instant>,
    /// In the open transaction, by kind: lost when it fails.
    pending: Tally,
    /// What the open transaction holds.
    pending_bytes: usize,
    /// Could not be stored, by kind, and is not yet told.
    unstored: Tally,
    pub(super) last_ns: u64,
    mark: Mark,
    trouble: Option<String>,
}

impl Recorder {
    /// Creates the session's file and writes its header.
    ///
    /// # Errors
    /// When the header's id or name cannot be used, or the file cannot be created.
    pub fn create(dir: &StateDir, mut header: Header, mut redactor: Redactor) -> Result<Self, SessionError> {
        name::check(&header.id)?;
        name::check(&header.name)?;
        redactor.redact_command(&mut header.command);
        let path = dir.path_of(&header.id);
        let io = |source| SessionError::Io {
            attempted: "create session",
            path: path.clone(),
            source,
            next: "make room or make the directory writable, or choose another one with --state-dir",
        };
        let (owner, mode) = (dir.owner(), dir.file_mode());
        let mark = Mark::create(&path, owner, mode).map_err(io)?;
        // SQLite would take what lies beside the file for its own.
        // Closed before SQLite opens it: to close any descriptor of the file drops the locks that this process holds on it, and the next who
        // closes the session would take themselves for the last, and remove the log that we go on writing to.
        let made = trust::check_absent(&path)
            .and_then(|()| mark::create_new(&path, owner, mode).map(drop).map_err(io));
        let begun = made.map_err(|error| (error, false));
        let begun = begun.and_then(|()| begin(&path, &header).map_err(|error| (error, true)));
        let connection = match begun {
            Ok(connection) => connection,
            Err((error, is_ours)) => {
                // Nothing was recorded: leave nothing, but what somebody else left. The error that counts is the first one.
                drop(mark.remove());
                if is_ours {
                    drop(std::fs::remove_file(&path));
                }
                return Err(error);
            }
        };
        Ok(Self::new(connection, path, header, redactor, mark))
    }

    pub(super) fn new(
        connection: Connection,
        path: PathBuf,
        header: Header,
        redactor: Redactor,
        mark: Mark,
    ) -> Self {
        Self {
            last_ns: header.started_ns,
            connection,
            path,
            header,
            redactor,
            masker: StreamMasker::new(),
            bases: Bases::default(),
            ring: None,
            json: Vec::with_capacity(1 << 16),
            began: None,
            pending: Tally::default(),
            pending_bytes: 0,
            unstored: Tally::default(),
            mark,
            trouble: None,
        }
    }

    /// Blanks recorded streams by `masker` rather than by one that leaves nothing secret readable.
    #[must_use]
    pub fn with_masker(mut self, masker: StreamMasker) -> Self {
        self.masker = masker;
        self
    }

    /// Keeps what comes first and what came last, and lets go of what is between: the file stays about as large as the ring says. For a
    /// session of which nothing is recorded yet; one that is gone on with has its ring already.
    #[must_use]
    pub fn with_ring(mut self, ring: Ring) -> Self {
        self.ring = Some(Accounts::new(ring));
        let put = "INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)";
        let json = serde_json::to_string(&ring).map_err(to_sql_error);
        if let Err(error) = json.and_then(|json| self.connection.execute(put, [RING, &json])) {
            self.fail(&error);
        }
        self
    }

    /// The session's header, as it is stored.
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The session's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Why the session is no longer written, when that is so. Events are still taken, and counted.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Redacts and stores events, and shows each, redacted, to `watch`. What cannot be stored is counted.
    pub fn append(&mut self, events: Vec<Event>, mut watch: Option<&mut dyn FnMut(&Event)>) {
        for (index, mut event) in events.into_iter().enumerate() {
            if index % CLOCK_EVERY == 0 {
                self.commit_if_due();
            }
            self.last_ns = self.last_ns.max(event.at_ns);
            if self.trouble.is_some() && watch.is_none() {
                self.unstored.add(event.body.kind(), 1);
                continue;
            }
            self.redactor.redact_event(&mut event);
            self.bases.shift(&mut event);
            self.mask(&mut event);
            if let Some(watch) = &mut watch {
                watch(&event);
            }
            if self.trouble.is_some() {
                self.unstored.add(event.body.kind(), 1);
                continue;
            }
            self.pending.add(event.body.kind(), 1);
            if let Err(error) = self.begin_if_needed().and_then(|()| self.insert(&event)) {
                self.fail(&error);
            } else if self.pending_bytes >= COMMIT_BYTES {
                self.commit();
            }
        }
        self.commit_if_due();
    }

    /// Commits when the open transaction is old enough. To be called also when nothing happens.
    pub fn commit_if_due(&mut self) {
        if self.began.is_some_and(|began| began.elapsed() >= COMMIT_EVERY) {
            self.commit();
        }
    }

    /// Commits: everything appended so far survives us.
    pub fn commit(&mut self) {
        if self.began.take().is_some() {
            match self.connection.execute_batch("COMMIT") {
                Ok(()) => self.pending.clear(),
                Err(error) => self.fail(&error),
            }
        }
    }

    /// Ends the session: one file, indexed, synced. Says what trouble there was; the session is readable even then.
    pub fn finish(mut self, ending: Ending) -> Option<String> {
        self.commit();
        if self.trouble.is_some() {
            drop(self.mark.shrink(0));
        }
        if let Err(error) = self.write_ending(&ending) {
            let trouble = format!("cannot write the end of session {}: {error}", self.path.display());
            self.trouble.get_or_insert(trouble);
        }
        if let Err(error) = self.close_file() {
            // A reader that is open now, or a full disk: SQLite's log stays beside the session, which is whole with it.
            tracing::debug!(session = %self.path.display(), %error, "session stays in two files");
        }
        let Self { connection, path, mark, trouble, .. } = self;
        drop(connection);
        if let Err(error) = std::fs::File::open(&path).and_then(|file| file.sync_all()) {
            tracing::debug!(session = %path.display(), %error, "cannot sync session");
        }
        if let Err(error) = mark.remove() {
            tracing::debug!(session = %path.display(), %error, "cannot remove the mark of a recording");
        }
        trouble
    }

    /// Stands for a full disk where there is no small one to fill.
    #[cfg(test)]
    pub(super) fn limit_pages(&self, pages: u32) {
        self.connection.pragma_update(None, "max_page_count", pages).unwrap();
    }

    fn write_ending(&mut self, ending: &Ending) -> rusqlite::Result<()> {
        let json = serde_json::to_string(ending).map_err(to_sql_error)?;
        self.transaction(|recorder| {
            recorder.tell_losses()?;
            recorder
                .connection
                .execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('ending', ?)", [json])
                .map(drop)
        })
    }

    fn close_file(&self) -> rusqlite::Result<()> {
        let indexed = if self.trouble.is_none() { self.connection.execute_batch(INDEXES) } else { Ok(()) };
        let began = Instant::now();
        loop {
            let one =
                self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE); PRAGMA journal_mode=DELETE;");
            match one {
                // Whoever follows a session reads for moments, and SQLite does not wait for its readers here.
                Err(error) if is_busy(&error) && began.elapsed() < WAIT_FOR_READERS => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                result => {
                    result?;
                    return indexed;
                }
            }
        }
    }

    fn mask(&mut self, event: &mut Event) {
        match &mut event.body {
            Body::Data { socket, direction, offset, len, redacted, .. } => {
                redacted.extend(self.masker.mask(*socket, *direction, *offset, *len, &mut event.bytes));
            }
            // After a disconnect there may still be bytes to read; only a new socket of this number makes the old one history.
            Body::Socket { socket, .. } | Body::Accept { socket, .. } => self.masker.forget(*socket),
            _ => {}
        }
    }

    fn begin_if_needed(&mut self) -> rusqlite::Result<()> {
        if self.began.is_none() {
            self.connection.execute_batch("BEGIN")?;
            self.began = Some(Instant::now());
            self.pending_bytes = 0;
        }
        Ok(())
    }

    fn insert(&mut self, event: &Event) -> rusqlite::Result<()> {
        let kind = event.body.kind();
        self.json.clear();
        serde_json::to_writer(&mut self.json, &event.body).map_err(to_sql_error)?;
        let data = fields_only(&mut self.json, kind)?;
        self.pending_bytes += data.len() + event.bytes.len();
        let bytes = (!event.bytes.is_empty()).then_some(event.bytes.as_slice());
        self.connection.prepare_cached(INSERT)?.execute(params![
            to_i64(event.at_ns),
            event.pid.0,
            event.tid.0,
            kind,
            origin_name(event.observed_from),
            data,
            bytes
        ])?;
        // The last words are not to wait for room.
        if let Some(ring) = self.ring.as_mut().filter(|_| self.trouble.is_none()) {
            ring.add(Row {
                id: self.connection.last_insert_rowid(),
                at_ns: event.at_ns,
                bytes: (data.len() + event.bytes.len()) as u64 + ROW_BYTES,
                essential: event.body.is_essential(),
            });
            ring.make_room(&self.connection)?;
        }
        Ok(())
    }

    /// From here on nothing is stored: says so in the session while there is room for it.
    fn fail(&mut self, error: &rusqlite::Error) {
        let text = format!(
            "cannot write session {}: {error}; what was recorded before is kept, what happens from here on is only counted; make room on the file system and record again",
            self.path.display()
        );
        self.began = None;
        // SQLite may have rolled back already: then there is nothing to roll back, and it says so.
        drop(self.connection.execute_batch("ROLLBACK"));
        self.unstored.take(&mut self.pending);
        // Half now, half for the ending: somebody else may take what is free meanwhile.
        drop(self.mark.shrink(RESERVE_BYTES / 2));
        let note = Body::Note { level: NoteLevel::Trouble, text: text.clone() };
        self.trouble = Some(text);
        let told = self.transaction(|recorder| {
            recorder.insert(&recorder.own(note))?;
            recorder.tell_losses()
        });
        if told.is_ok() {
            self.unstored.clear();
        }
    }

    fn tell_losses(&mut self) -> rusqlite::Result<()> {
        for (kind, count) in self.unstored.0.clone() {
            let lost = Body::Lost { hop: Hop::Store, what: kind.to_owned(), cpu: None, count };
            self.insert(&self.own(lost))?;
        }
        Ok(())
    }

    /// An event about ourselves, after all others.
    const fn own(&self, body: Body) -> Event {
        let (pid, tid) = (Pid(0), Tid(0));
        Event { at_ns: self.last_ns, pid, tid, observed_from: Origin::Observer, body, bytes: Vec::new() }
    }

    fn transaction(&mut self, write: impl FnOnce(&mut Self) -> rusqlite::Result<()>) -> rusqlite::Result<()> {
        self.connection.execute_batch("BEGIN")?;
        let written = write(self).and_then(|()| self.connection.execute_batch("COMMIT"));
        if written.is_err() {
            drop(self.connection.execute_batch("ROLLBACK"));
        }
        written
    }
}

/// Opens the empty file and makes it a session.
fn begin(path: &Path, header: &Header) -> Result<Connection, SessionError> {
    let sqlite = |source| SessionError::sqlite("create session", path, source);
    // Not following links: we may be root in a directory that somebody else can write.
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NOFOLLOW | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(sqlite)?;
    connection.busy_timeout(WAIT_FOR_OTHERS).map_err(sqlite)?;
    connection.execute_batch(WHILE_RECORDING).map_err(sqlite)?;
    let json = serde_json::to_string(header).map_err(|source| SessionError::Header {
        part: "header",
        path: path.to_owned(),
        source,
    })?;
    let write = || {
        connection.execute_batch("BEGIN")?;
        connection.execute_batch(SCHEMA)?;
        connection.pragma_update(None, "application_id", APPLICATION_ID)?;
        connection.pragma_update(None, "user_version", SCHEMA_VERSION)?;
        connection.execute("INSERT INTO meta (key, value) VALUES ('header', ?)", [json])?;
        connection.execute_batch("COMMIT")
    };
    write().map_err(sqlite)?;
    Ok(connection)
}

/// Cuts the tag off the JSON of a body: `{"kind":"open","path":…}` becomes `{"path":…}`. The tag has a column of its own.
pub(super) fn fields_only<'a>(json: &'a mut [u8], kind: &str) -> rusqlite::Result<&'a str> {
    const TAG: usize = "{\"kind\":\"\"".len();
    let fields = json.get_mut(TAG + kind.len()..).unwrap_or_default();
    match fields.first_mut() {
        Some(separator @ b',') => *separator = b'{',
        _ => return Ok("{}"),
    }
    std::str::from_utf8(fields).map_err(rusqlite::Error::from)
}

fn is_busy(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked};
    matches!(error.sqlite_error_code(), Some(DatabaseBusy | DatabaseLocked))
}

pub(super) fn to_sql_error(error: serde_json::Error) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(error))
}
