//! Goes on with a session whose recorder was killed. Knows the schema and events; why it was killed, and who ended meanwhile, is for
//! whoever asks.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{Connection, OpenFlags};

use super::{
    Header, Recorder, Redactor, SCHEMA_VERSION, Session, SessionError, StateDir,
    mark::Mark,
    name,
    read::{self, body},
    ring::{Accounts, Gone, ROW_BYTES, Ring, Row},
    trust,
    write::{RING, SCHEMA, WAIT_FOR_OTHERS, WHILE_RECORDING},
};
use crate::event::{Body, Direction, Event, Hop, Origin, Pid, SocketId};

/// What was known when the recorder was killed.
#[derive(Clone, Debug, PartialEq)]
pub struct Resumed {
    /// The session's header.
    pub header: Header,
    /// When the last event was, in nanoseconds on `CLOCK_MONOTONIC`: since then nobody watched.
    pub last_ns: u64,
    /// The processes that had not ended, in order of their numbers.
    pub alive: Vec<Alive>,
    /// How far each recorded stream had come.
    pub streams: Vec<StreamEnd>,
}

/// A process that had not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alive {
    /// Its number.
    pub pid: Pid,
    /// When it was forked, in nanoseconds on `CLOCK_MONOTONIC`; `None`: that was not seen.
    pub started_ns: Option<u64>,
}

/// How far one direction of a recorded stream had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamEnd {
    /// The socket.
    pub socket: SocketId,
    /// Which way.
    pub direction: Direction,
    /// Where the byte after the last one stands.
    pub end: u64,
}

/// What is added to the offsets of streams that went on while nobody watched, and that are counted from 0 again.
#[derive(Debug, Default)]
pub(super) struct Bases(HashMap<SocketId, [u64; 2]>);

const fn way(direction: Direction) -> usize {
    match direction {
        Direction::Sent => 0,
        Direction::Received => 1,
    }
}

impl Bases {
    /// Of a stream that ended there at least one byte was not seen: what follows never seems to follow on.
    fn learn(&mut self, end: StreamEnd) {
        let bases = self.0.entry(end.socket).or_insert([1; 2]);
        bases[way(end.direction)] = end.end.saturating_add(1);
    }

    /// Puts an event's offset where it stands in the whole stream.
    pub(super) fn shift(&mut self, event: &mut Event) {
        match &mut event.body {
            Body::Data { socket, direction, offset, since_attach: true, .. } => {
                if let Some(bases) = self.0.get(socket) {
                    *offset = offset.saturating_add(bases[way(*direction)]);
                }
            }
            // Seen from its first byte, or made anew: another connection that has the number of an old one.
            Body::Data { socket, .. } | Body::Socket { socket, .. } | Body::Accept { socket, .. } => {
                self.0.remove(socket);
            }
            _ => {}
        }
    }
}

impl Recorder {
    /// Goes on with a session whose recorder was killed. Its ring, if it had one, goes on too. The caller appends a [`Body::Gap`] first;
    /// and, before anything that could hold one, the programs of the processes that live on, as `/proc` tells of them: a redactor knows
    /// only secrets that it was shown, and what the killed one knew is not written anywhere. Streams that go on are blanked until a whole
    /// frame is seen. Bytes of sockets in `Resumed::streams` that say `since_attach` are taken to be counted from 0, and are put one byte
    /// or more beyond what was seen.
    ///
    /// # Errors
    /// When there is no such session, somebody records it, it was ended, it is damaged, somebody put something else in its place, or its
    /// tables are not exactly those that this program makes.
    pub fn reopen(dir: &StateDir, id: &str, redactor: Redactor) -> Result<(Self, Resumed), SessionError> {
        name::check(id)?;
        let path = dir.path_of(id);
        trust::check(&path, Some(dir.owner().0))?;
        let io = |source: std::io::Error| SessionError::Io {
            attempted: "go on with session",
            path: path.clone(),
            source,
            next: "",
        };
        let Some(mark) = Mark::retake(&path, dir.owner(), dir.file_mode()).map_err(io)? else {
            return Err(SessionError::Recording { name: id.to_owned() });
        };
        // Closed before it is opened for writing: of two that are open, one would drop the other's locks.
        let header = {
            let session = Session::open(&path)?;
            if session.ending().is_some() {
                drop(mark.remove());
                return Err(SessionError::Ended { path });
            }
            session.header().clone()
        };
        let sqlite = |source| SessionError::sqlite("go on with session", &path, source);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_NOFOLLOW
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&path, flags).map_err(sqlite)?;
        trust::distrust(&connection).map_err(sqlite)?;
        connection.busy_timeout(WAIT_FOR_OTHERS).map_err(sqlite)?;
        if !is_as_made(&connection).map_err(sqlite)? {
            let answer = "its tables are not those that this observer makes".to_owned();
            return Err(SessionError::Damaged { path, answer });
        }
        connection.execute_batch(WHILE_RECORDING).map_err(sqlite)?;
        let ring: Option<Ring> = read::meta(&connection, &path, RING)?;
        let mut past = Past::new(header.started_ns, ring.map(Accounts::new));
        past.read(&connection).map_err(sqlite)?;
        let mut recorder = Self::new(connection, path, header.clone(), redactor, mark);
        recorder.last_ns = past.last_ns;
        recorder.ring = past.ring;
        let end = |((socket, way), end): (&(SocketId, bool), &u64)| StreamEnd {
            socket: *socket,
            direction: if *way { Direction::Received } else { Direction::Sent },
            end: *end,
        };
        let streams: Vec<StreamEnd> = past.streams.iter().map(end).collect();
        streams.iter().for_each(|end| recorder.bases.learn(*end));
        let alive = past.alive.into_iter().map(|(pid, started_ns)| Alive { pid, started_ns }).collect();
        Ok((recorder, Resumed { header, last_ns: past.last_ns, alive, streams }))
    }
}

impl Recorder {
    /// Learns the secrets of these events, which are not stored: of what went before, when a session is gone on with.
    pub fn learn(&mut self, events: impl IntoIterator<Item = Event>) {
        for mut event in events {
            self.redactor.redact_event(&mut event);
        }
    }
}

/// Whether the file holds our tables, views and nothing else: what a trigger or another table would do, nobody knows.
fn is_as_made(connection: &Connection) -> rusqlite::Result<bool> {
    const OBJECTS: &str = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name";
    type Object = (String, String, String, Option<String>);
    let objects = |connection: &Connection| -> rusqlite::Result<Vec<Object>> {
        let mut statement = connection.prepare(OBJECTS)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
        rows.collect()
    };
    let ours = Connection::open_in_memory()?;
    ours.execute_batch(SCHEMA)?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    Ok(version == SCHEMA_VERSION && objects(connection)? == objects(&ours)?)
}

/// What the stored events tell.
struct Past {
    last_ns: u64,
    ring: Option<Accounts>,
    alive: BTreeMap<Pid, Option<u64>>,
    /// By socket, and whether it is what was received.
    streams: BTreeMap<(SocketId, bool), u64>,
}

impl Past {
    const fn new(started_ns: u64, ring: Option<Accounts>) -> Self {
        Self { last_ns: started_ns, ring, alive: BTreeMap::new(), streams: BTreeMap::new() }
    }

    fn read(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let mut statement = connection.prepare(
            "SELECT id, at_ns, pid, kind, origin, data, coalesce(length(bytes), 0) FROM events ORDER BY id",
        )?;
        let mut rows = statement.query([])?;
        let mut json = String::new();
        while let Some(row) = rows.next()? {
            let (kind, data) = (row.get_ref(3)?.as_str()?, row.get_ref(5)?.as_str()?);
            let (id, at_ns, bytes): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(6)?);
            let at_ns = at_ns.unsigned_abs();
            self.last_ns = self.last_ns.max(at_ns);
            // Most events name a file: what they say is of no importance here.
            let body = if Body::of_file_call(kind).is_none() { body(kind, data, &mut json) } else { None };
            if let Some(Body::Lost { hop: Hop::Evicted, what, count, .. }) = &body {
                if let Some(ring) = &mut self.ring {
                    ring.found(what, Gone { id, at_ns, count: *count });
                }
                continue;
            }
            if let Some(ring) = &mut self.ring {
                let bytes = data.len() as u64 + bytes.unsigned_abs() + ROW_BYTES;
                let essential = body.as_ref().is_some_and(Body::is_essential);
                ring.add(Row { id, at_ns, bytes, essential });
            }
            if let Some(body) = &body {
                let seen = row.get_ref(4)?.as_str()? != read::origin_name(Origin::Proc);
                self.hear(body, Pid(row.get(2)?), seen.then_some(at_ns));
            }
        }
        Ok(())
    }

    fn hear(&mut self, body: &Body, pid: Pid, at_ns: Option<u64>) {
        match body {
            Body::Fork { child } => {
                self.alive.insert(*child, at_ns);
            }
            Body::Exec(_) => {
                self.alive.entry(pid).or_insert(None);
            }
            Body::Exit { .. } => {
                self.alive.remove(&pid);
            }
            Body::Gap { gone, .. } => self.alive.retain(|pid, _| !gone.contains(pid)),
            Body::Socket { socket, .. } | Body::Accept { socket, .. } => {
                self.streams.remove(&(*socket, false));
                self.streams.remove(&(*socket, true));
            }
            Body::Data { socket, direction, offset, len, .. } => {
                let end = self.streams.entry((*socket, *direction == Direction::Received)).or_default();
                // Not the highest that was ever there: a connection that took an old one's number begins at 0.
                *end = offset.saturating_add(*len);
            }
            _ => {}
        }
    }
}
