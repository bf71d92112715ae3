//! The flight recorder's ring: which stored events make room for later ones, and the row that stands for them. Knows rows, their sizes
//! and which of them are essential; what they say it does not know.

use std::collections::VecDeque;

use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use super::{
    read::{origin_name, to_i64},
    write::{fields_only, to_sql_error},
};
use crate::event::{Body, EVICTED, EVICTED_ESSENTIAL, Hop, Origin};

/// How much a flight recorder keeps. What an event takes is counted as what its columns `data` and `bytes` hold, and 40 bytes for its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ring {
    /// Bytes of the first events, which stay for good; and as many of later essential ones, which stay when what was around them goes.
    pub head_bytes: u64,
    /// Bytes of the latest events.
    pub latest_bytes: u64,
}

/// What a row takes beside its `data` and `bytes`.
pub(super) const ROW_BYTES: u64 = 40;
/// So many times room is made while the ring is filled once: each time at the cost of one look-up, and so much less is kept.
const CHUNKS: u64 = 16;

const DELETE: &str = "DELETE FROM events WHERE id BETWEEN ?1 AND ?2 AND id NOT IN (?3, ?4)";
const TELL: &str = "INSERT OR REPLACE INTO events (id, at_ns, pid, tid, kind, origin, data) VALUES (?1, ?2, 0, 0, ?3, ?4, ?5)";

/// A row as far as its room matters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) id: i64,
    pub(super) at_ns: u64,
    pub(super) bytes: u64,
    pub(super) essential: bool,
}

/// Rows that go together.
#[derive(Clone, Debug, Default)]
struct Chunk {
    first: i64,
    last: i64,
    bytes: u64,
    /// The latest of its ordinary rows.
    newest_ns: u64,
    /// The essential ones among them.
    essential: Vec<i64>,
    essential_bytes: u64,
    essential_newest_ns: u64,
}

impl Chunk {
    fn add(&mut self, row: Row) {
        if self.bytes == 0 {
            self.first = row.id;
        }
        self.last = row.id;
        self.bytes += row.bytes;
        if row.essential {
            self.essential.push(row.id);
            self.essential_bytes += row.bytes;
            self.essential_newest_ns = self.essential_newest_ns.max(row.at_ns);
        } else {
            self.newest_ns = self.newest_ns.max(row.at_ns);
        }
    }
}

/// Essential rows that stayed when the rest of their chunks went.
#[derive(Clone, Copy, Debug)]
struct Stayed {
    first: i64,
    last: i64,
    bytes: u64,
    newest_ns: u64,
}

/// The row that stands for deleted ones. It has the number of the first of them, so that nobody who reads along takes it for news.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Gone {
    pub(super) id: i64,
    pub(super) at_ns: u64,
    pub(super) count: u64,
}

/// What a ring holds.
#[derive(Clone, Debug)]
pub(super) struct Accounts {
    ring: Ring,
    head_bytes: u64,
    full: VecDeque<Chunk>,
    open: Chunk,
    latest_bytes: u64,
    stayed: VecDeque<Stayed>,
    stayed_bytes: u64,
    /// Stands for ordinary rows, and for essential ones.
    pub(super) gone: [Option<Gone>; 2],
}

const WHAT: [&str; 2] = [EVICTED, EVICTED_ESSENTIAL];

impl Accounts {
    pub(super) fn new(ring: Ring) -> Self {
        Self {
            ring,
            head_bytes: 0,
            full: VecDeque::new(),
            open: Chunk::default(),
            latest_bytes: 0,
            stayed: VecDeque::new(),
            stayed_bytes: 0,
            gone: [None; 2],
        }
    }

    /// Takes in a row that was stored, in order of their numbers.
    pub(super) fn add(&mut self, row: Row) {
        if self.head_bytes < self.ring.head_bytes {
            self.head_bytes += row.bytes;
            return;
        }
        self.open.add(row);
        self.latest_bytes += row.bytes;
        if self.open.bytes >= self.ring.latest_bytes / CHUNKS {
            self.full.push_back(std::mem::take(&mut self.open));
        }
    }

    /// Takes in a row that stands for deleted ones, found in a session that is gone on with.
    pub(super) fn found(&mut self, what: &str, gone: Gone) {
        if let Some(index) = WHAT.iter().position(|known| *known == what) {
            self.gone[index] = Some(gone);
        }
    }

    /// Makes room when the ring is full: in the transaction that is open.
    pub(super) fn make_room(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        while self.latest_bytes > self.ring.latest_bytes
            && let Some(chunk) = self.full.pop_front()
        {
            self.latest_bytes -= chunk.bytes;
            self.evict(connection, chunk)?;
        }
        while self.stayed_bytes > self.ring.head_bytes
            && let Some(oldest) = self.stayed.pop_front()
        {
            self.stayed_bytes -= oldest.bytes;
            let deleted = self.delete(connection, oldest.first, oldest.last)?;
            self.tell(connection, 1, Gone { id: oldest.first, at_ns: oldest.newest_ns, count: deleted })?;
        }
        Ok(())
    }

    fn evict(&mut self, connection: &Connection, chunk: Chunk) -> rusqlite::Result<()> {
        let mut gone = Gone { id: 0, at_ns: chunk.newest_ns, count: 0 };
        let mut from = chunk.first;
        for id in chunk.essential.iter().copied().chain([chunk.last + 1]) {
            if from < id {
                let deleted = self.delete(connection, from, id - 1)?;
                if gone.count == 0 && deleted > 0 {
                    gone.id = from;
                }
                gone.count += deleted;
            }
            from = id + 1;
        }
        self.tell(connection, 0, gone)?;
        if let (Some(&first), Some(&last)) = (chunk.essential.first(), chunk.essential.last()) {
            let (bytes, newest_ns) = (chunk.essential_bytes, chunk.essential_newest_ns);
            self.stayed_bytes += bytes;
            match self.stayed.back_mut() {
                // Few large ones rather than many small: their number is bounded too.
                Some(before) if before.bytes < self.ring.head_bytes / CHUNKS => {
                    before.last = last;
                    before.bytes += bytes;
                    before.newest_ns = before.newest_ns.max(newest_ns);
                }
                _ => self.stayed.push_back(Stayed { first, last, bytes, newest_ns }),
            }
        }
        Ok(())
    }

    fn delete(&self, connection: &Connection, first: i64, last: i64) -> rusqlite::Result<u64> {
        let [ordinary, essential] = self.gone.map(|gone| gone.map_or(0, |gone| gone.id));
        let deleted =
            connection.prepare_cached(DELETE)?.execute(params![first, last, ordinary, essential])?;
        Ok(deleted as u64)
    }

    fn tell(&mut self, connection: &Connection, index: usize, news: Gone) -> rusqlite::Result<()> {
        if news.count == 0 {
            return Ok(());
        }
        let gone = match self.gone[index] {
            Some(known) => {
                Gone { id: known.id, at_ns: known.at_ns.max(news.at_ns), count: known.count + news.count }
            }
            None => news,
        };
        let body =
            Body::Lost { hop: Hop::Evicted, what: WHAT[index].to_owned(), cpu: None, count: gone.count };
        let mut json = serde_json::to_vec(&body).map_err(to_sql_error)?;
        let data = fields_only(&mut json, body.kind())?;
        let (id, at_ns, origin) = (gone.id, to_i64(gone.at_ns), origin_name(Origin::Observer));
        connection.prepare_cached(TELL)?.execute(params![id, at_ns, body.kind(), origin, data])?;
        self.gone[index] = Some(gone);
        Ok(())
    }
}
