//! A session as large as one likes: a recorded one, over and over, each time with processes and connections of its own. It judges nothing.

use std::path::Path;

use anyhow::{Context, Result};
use rusqlite::{Connection, params};

use crate::scenario::fixture;

/// What is repeated: a worker of dramatiq that consumes, from its start to its end.
const REPEATED: &str = "field/actor-renamed";

/// Whom a copy's processes and connections are told from those of the one before by.
const SHIFT: &str = "
    DROP INDEX IF EXISTS events_by_time; DROP INDEX IF EXISTS events_by_kind;
    CREATE TEMP TABLE once AS SELECT * FROM events ORDER BY id;
    CREATE TEMP TABLE methods_once AS SELECT * FROM amqp_methods;
";
const AGAIN: &str = "
    INSERT INTO events (at_ns, pid, tid, kind, origin, data, bytes)
    SELECT at_ns + ?1 * ?2, pid + iif(pid = 0, 0, ?1 * 100000), tid + iif(tid = 0, 0, ?1 * 100000), kind, origin,
        json_replace(data, '$.socket', data ->> '$.socket' + ?1 * 100000000, '$.child', data ->> '$.child' + ?1 * 100000,
            '$.ppid', data ->> '$.ppid' + ?1 * 100000), bytes
    FROM once";
const METHODS_AGAIN: &str = "
    INSERT INTO amqp_methods
    SELECT event + ?1 * ?3, at_ns + ?1 * ?2, pid + ?1 * 100000, tid + ?1 * 100000, connection + ?1 * 1000, channel, side, method,
        message_id, arguments
    FROM methods_once";
const INDEXED: &str =
    "CREATE INDEX events_by_time ON events (at_ns); CREATE INDEX events_by_kind ON events (kind, at_ns);";

/// Writes a finished session of at least so many events.
pub fn session(path: &Path, events: u64) -> Result<()> {
    let (fixtures, _) = fixture::all(&fixture::folder())?;
    let repeated = fixtures.iter().find(|fixture| fixture.scenario.name == REPEATED);
    repeated.with_context(|| format!("there is no session kept of {REPEATED}"))?.unpack(path)?;
    let mut database = Connection::open(path)?;
    database.execute_batch("PRAGMA synchronous = OFF; PRAGMA journal_mode = MEMORY;")?;
    let transaction = database.transaction()?;
    transaction.execute_batch(SHIFT)?;
    let measured = "SELECT count(*), max(at_ns) - min(at_ns) + 1, max(id) FROM events";
    let (count, span, last): (i64, i64, i64) =
        transaction.query_row(measured, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let copies = i64::try_from(events)? / count.max(1);
    for copy in 1..=copies {
        transaction.prepare_cached(AGAIN)?.execute(params![copy, span])?;
        transaction.prepare_cached(METHODS_AGAIN)?.execute(params![copy, span, last])?;
    }
    transaction.execute_batch(INDEXED)?;
    transaction.commit()?;
    Ok(())
}
