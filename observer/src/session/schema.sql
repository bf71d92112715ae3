-- A session of observer. Every time is in nanoseconds on CLOCK_MONOTONIC (`at_ns`); the view `session` ties it to the wall clock.
-- A value that is an object {"absent": WHY} was not to be had (unknown, none, lost, not-collected); {"partial": V, "missing_bytes": N}
-- is the beginning of one. Secrets are «redacted:HASH», the same hash for the same secret within one state directory.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,  -- header: what was known when the session began; ending: how it ended, missing when it was cut short; ring: how much a flight recorder keeps
    value TEXT NOT NULL      -- JSON
) WITHOUT ROWID;

CREATE TABLE events (
    id     INTEGER PRIMARY KEY,  -- order of arrival; evidence in findings refers to it
    at_ns  INTEGER NOT NULL,     -- when, nanoseconds on CLOCK_MONOTONIC; a system call: when it returned
    pid    INTEGER NOT NULL,     -- process (thread group id in the initial PID namespace), 0 for none
    tid    INTEGER NOT NULL,     -- thread, 0 for none
    kind   TEXT NOT NULL,        -- fork, exec, open, connect, data, output, lost, …
    origin TEXT NOT NULL,        -- ebpf, ptrace, proc (it was so when we looked), broker, observer
    data   TEXT NOT NULL,        -- JSON object, the fields of this kind
    bytes  BLOB                  -- what was carried, for data and output; may be shorter than the call's own length
);

CREATE VIEW session AS  -- one row: what was recorded, when, by what, and how it ended
SELECT
    json_extract(h.value, '$.id')               AS id,
    json_extract(h.value, '$.name')             AS name,
    json_extract(h.value, '$.command')          AS command,           -- JSON array of words
    json_extract(h.value, '$.attached')         AS attached_pid,      -- NULL: the command was started by observer
    json_extract(h.value, '$.backend')          AS backend,           -- ebpf or ptrace
    json_extract(h.value, '$.started_at')       AS started_at,        -- wall clock, RFC 3339
    json_extract(h.value, '$.started_ns')       AS started_ns,        -- the same moment on CLOCK_MONOTONIC
    json_extract(h.value, '$.observer_version') AS observer_version,
    json_extract(h.value, '$.host')             AS host,
    json_extract(h.value, '$.kernel')           AS kernel,
    json_extract(h.value, '$.snaplen')          AS snaplen_bytes,     -- bytes kept of one call
    json_extract(h.value, '$.sources')          AS sources,           -- JSON: the sources and what each cannot see
    json_extract(e.value, '$.ended_ns')         AS ended_ns,          -- NULL: cut short, or still being recorded
    json_extract(e.value, '$.ended_ns') - json_extract(h.value, '$.started_ns') AS duration_ns,
    json_extract(e.value, '$.code')             AS exit_code,         -- of the command
    json_extract(e.value, '$.signal')           AS exit_signal,       -- that killed the command
    json_extract(e.value, '$.reason')           AS reason             -- exited, time-limit, interrupted, let-go
FROM meta h LEFT JOIN meta e ON e.key = 'ending' WHERE h.key = 'header';

CREATE VIEW capabilities AS  -- what the machine allowed
SELECT
    json_extract(c.value, '$.name')   AS name,
    json_extract(c.value, '$.state')  AS state,   -- works, limited or missing
    json_extract(c.value, '$.found')  AS found,
    json_extract(c.value, '$.lost')   AS lost,    -- what is not seen without it
    json_extract(c.value, '$.remedy') AS remedy   -- how to get it
FROM meta h, json_each(h.value, '$.capabilities') c WHERE h.key = 'header';

CREATE VIEW execs AS  -- programs that were started; origin proc: it was running already when observer came
SELECT
    id AS event, at_ns, pid, origin,
    json_extract(data, '$.ppid')   AS ppid,
    json_extract(data, '$.path')   AS path,      -- as given to execve
    json_extract(data, '$.argv')   AS argv,      -- JSON array
    json_extract(data, '$.cwd')    AS cwd,
    json_extract(data, '$.exe.path') AS exe,     -- the file that runs
    json_extract(data, '$.user.uid') AS uid,
    json_extract(data, '$.user.euid') AS euid,
    json_extract(data, '$.umask')  AS umask,     -- as a decimal number
    json_extract(data, '$.limits') AS limits,    -- JSON array of {name, soft, hard}; null is unlimited
    json_extract(data, '$.tty')    AS tty,
    json_extract(data, '$.stdio')  AS stdio      -- JSON array: where descriptors 0, 1 and 2 lead
FROM events WHERE kind = 'exec';

CREATE VIEW environment AS  -- one row per variable per exec
SELECT
    x.id AS event, x.at_ns, x.pid,
    CASE instr(v.value, '=') WHEN 0 THEN v.value ELSE substr(v.value, 1, instr(v.value, '=') - 1) END AS name,
    CASE instr(v.value, '=') WHEN 0 THEN NULL ELSE substr(v.value, instr(v.value, '=') + 1) END AS value
FROM events x,
    json_each(x.data, CASE json_type(x.data, '$.env') WHEN 'array' THEN '$.env' ELSE '$.env.partial' END) v
WHERE x.kind = 'exec';

CREATE VIEW exits AS  -- processes that ended
SELECT
    id AS event, at_ns, pid, origin,
    json_extract(data, '$.code')        AS code,        -- NULL when killed
    json_extract(data, '$.signal')      AS signal,      -- the signal that killed it
    json_extract(data, '$.core_dumped') AS core_dumped  -- 1 or 0
FROM events WHERE kind = 'exit';

CREATE VIEW processes AS  -- one row per process: where it came from, what it runs last, how it ended
WITH
    forked AS (SELECT json_extract(data, '$.child') AS pid, pid AS ppid, min(at_ns) AS at_ns
               FROM events WHERE kind = 'fork' GROUP BY 1),
    ran AS (SELECT pid, count(*) AS execs, max(id) AS last_exec FROM events WHERE kind = 'exec' GROUP BY pid),
    seen AS (SELECT pid FROM forked UNION SELECT pid FROM ran UNION SELECT pid FROM exits)
SELECT
    seen.pid,
    coalesce(forked.ppid, json_extract(e.data, '$.ppid')) AS ppid,
    forked.at_ns                    AS forked_ns,   -- NULL: not seen, it was there already or was started by observer
    coalesce(ran.execs, 0)          AS execs,       -- 0: it runs its parent's program
    json_extract(e.data, '$.argv')  AS argv,        -- JSON array, of the last exec
    json_extract(e.data, '$.cwd')   AS cwd,
    x.at_ns                         AS exited_ns,   -- NULL: alive when the session ended
    x.code, x.signal
FROM seen
LEFT JOIN forked ON forked.pid = seen.pid
LEFT JOIN ran ON ran.pid = seen.pid
LEFT JOIN events e ON e.id = ran.last_exec
LEFT JOIN exits x ON x.pid = seen.pid;

CREATE VIEW files AS  -- calls that name a file
SELECT
    id AS event, at_ns, pid, tid, kind,                                 -- open, stat, access, readlink, scan, chdir
    json_extract(data, '$.syscall') AS syscall,
    CASE json_type(data, '$.path') WHEN 'text' THEN json_extract(data, '$.path')
        ELSE json_extract(data, '$.path.partial') END AS path,          -- as given
    CASE json_type(data, '$.resolved') WHEN 'text' THEN json_extract(data, '$.resolved')
        ELSE json_extract(data, '$.resolved.partial') END AS resolved,  -- absolute; symbolic links are not followed
    json_extract(data, '$.flags')       AS flags,                       -- O_* or AT_*
    json_extract(data, '$.result')      AS result,                      -- descriptor or length, NULL when it failed
    json_extract(data, '$.errno')       AS errno,                       -- 0, or why it failed (2 is ENOENT)
    json_extract(data, '$.duration_ns') AS duration_ns
FROM events WHERE kind IN ('open', 'stat', 'access', 'readlink', 'scan', 'chdir');

CREATE VIEW imports AS  -- Python module files that were opened: sources, byte code and extension modules
SELECT event, at_ns, pid, tid, resolved AS file
FROM files
WHERE kind = 'open' AND errno = 0
    AND (resolved GLOB '*.py' OR resolved GLOB '*.pyc' OR resolved GLOB '*.so');

CREATE VIEW sockets AS  -- what was done with sockets; `socket` is the sockfs inode that ss -e shows
SELECT
    id AS event, at_ns, pid, tid, kind,
    json_extract(data, '$.socket') AS socket,
    json_extract(data, '$.fd')     AS fd,
    coalesce(json_extract(data, '$.peer.ip'), json_extract(data, '$.address.ip'),
        json_extract(data, '$.peer.path'), json_extract(data, '$.address.path')) AS address,  -- peer, or the address bound
    coalesce(json_extract(data, '$.peer.port'), json_extract(data, '$.address.port')) AS port,
    json_extract(data, '$.local.ip')    AS local_address,
    json_extract(data, '$.local.port')  AS local_port,
    json_extract(data, '$.how')         AS how,          -- disconnect: by-us, by-peer, reset-by-peer, …
    json_extract(data, '$.errno')       AS errno,        -- 0, or why it failed (111 is ECONNREFUSED)
    json_extract(data, '$.duration_ns') AS duration_ns
FROM events
WHERE kind IN ('socket', 'socket-failed', 'connect', 'connected', 'bind', 'listen', 'accept', 'close', 'disconnect');

CREATE VIEW outputs AS  -- what processes wrote to standard output, standard error and to pipes
SELECT
    id AS event, at_ns, pid, tid,
    json_extract(data, '$.stream') AS stream,     -- stdout, stderr, pipe
    json_extract(data, '$.len')    AS len_bytes,  -- true length of the call
    json_extract(data, '$.errno')  AS errno,      -- 0, or why it failed (32 is EPIPE)
    CAST(bytes AS TEXT)            AS text        -- may hold control characters: the program's own
FROM events WHERE kind = 'output';

CREATE VIEW losses AS  -- events that were lost, at the place in time where it was noticed
SELECT
    id AS event, at_ns,
    json_extract(data, '$.hop')   AS hop,    -- ring, kernel-table, decode, channel, store; evicted: made room in the flight recorder's ring
    json_extract(data, '$.what')  AS what,
    json_extract(data, '$.cpu')   AS cpu,
    json_extract(data, '$.count') AS count   -- since the last such row
FROM events WHERE kind = 'lost';

CREATE VIEW notes AS  -- what observer has to say about the recording itself
SELECT
    id AS event, at_ns,
    json_extract(data, '$.level') AS level,  -- info, warning, trouble
    json_extract(data, '$.text')  AS text
FROM events WHERE kind = 'note';

-- The two tables below are derived from the events of kind data when a recording ends: empty while it lasts, and after one that was
-- cut short (`observer show --amqp` and `--messages` need neither).

CREATE TABLE amqp_methods (  -- what was said to the broker and by it; heartbeats are left out
    event      INTEGER NOT NULL,  -- the event that completed it
    at_ns      INTEGER NOT NULL,
    pid        INTEGER NOT NULL,
    tid        INTEGER NOT NULL,
    connection INTEGER NOT NULL,  -- number of the connection in this session, from 1
    channel    INTEGER NOT NULL,  -- 0 is the connection itself
    side       TEXT NOT NULL,     -- who said it: client or server
    method     TEXT NOT NULL,     -- queue.declare, basic.deliver, …; protocol-header, not-amqp, unseen
    message_id TEXT,              -- of the message it carries, where that has one
    arguments  TEXT NOT NULL      -- JSON, without message bodies
);

CREATE TABLE messages (  -- one row a way of a message through a queue; one number, and one message_id, a message
    message         INTEGER NOT NULL,  -- number of the message in this session, from 1
    passage         INTEGER NOT NULL,  -- which of its ways through a queue, from 1; a retry or a redelivery is another
    message_id      TEXT,              -- dramatiq's, else AMQP's own property; NULL: its publish and its delivery cannot be told to be one
    actor           TEXT,              -- what is to be run
    vhost           TEXT,
    queue           TEXT,              -- NULL: published to another exchange than the default one, and not seen delivered
    published_event INTEGER,           -- NULL: not by an observed process, or before the recording
    published_ns    INTEGER,
    published_pid   INTEGER,
    delivered_event INTEGER,           -- NULL: not to an observed process
    delivered_ns    INTEGER,
    delivered_pid   INTEGER,
    delivered_tid   INTEGER,
    redelivered     INTEGER NOT NULL,  -- 1: the broker had delivered it before
    settled_event   INTEGER,           -- NULL: not settled when the recording ended
    settled_ns      INTEGER,
    settled         TEXT,              -- acked, nacked, rejected, requeued, returned (its channel ended), automatic (no acknowledgements)
    retries         INTEGER,           -- which retry it is
    failure         TEXT,              -- type of the exception that made it a retry
    state           TEXT NOT NULL      -- of the message in the end: published, unroutable, refused, delivered, or how it was settled last
);
CREATE VIEW queue_samples AS  -- what queues held, as the broker says
SELECT
    id AS event, at_ns,
    json_extract(data, '$.vhost')     AS vhost,
    json_extract(data, '$.queue')     AS queue,
    json_extract(data, '$.ready')     AS ready,      -- messages; NULL: not told
    json_extract(data, '$.unacked')   AS unacked,    -- delivered and not settled; NULL: not told (a passive declare never does)
    json_extract(data, '$.consumers') AS consumers,  -- NULL: not told
    json_extract(data, '$.state')     AS state,      -- running, idle, …; absent: no such queue; exclusive: another connection's alone
    json_extract(data, '$.how')       AS how,        -- passive-declare (every second), management (when it differs)
    json_extract(data, '$.ours')      AS ours        -- 1: observer's own, to be left out of every count
FROM events WHERE kind = 'queue-sample';

CREATE VIEW broker_events AS  -- everything else a broker said; the fields of each kind are in `data`
SELECT
    id AS event, at_ns, kind,                        -- broker-connection, -consumer, -event, -message, -alarm, -access
    CASE kind
        WHEN 'broker-consumer' THEN json_extract(data, '$.consumer_tag')
        WHEN 'broker-message'  THEN json_extract(data, '$.passage')   -- published, delivered
        WHEN 'broker-alarm'    THEN json_extract(data, '$.resource')  -- memory, disk
        WHEN 'broker-access'   THEN json_extract(data, '$.way')       -- amqp, passive-declare, events, firehose, management
        ELSE json_extract(data, '$.name') END AS name,
    json_extract(data, '$.vhost')     AS vhost,
    json_extract(data, '$.queue')     AS queue,
    coalesce(json_extract(data, '$.connection'),
        CASE kind WHEN 'broker-connection' THEN json_extract(data, '$.name') END) AS connection,
    coalesce(json_extract(data, '$.present'), json_extract(data, '$.set'),
        json_extract(data, '$.available')) AS present,                -- 0: gone, cleared or closed
    json_extract(data, '$.detail')    AS detail,                      -- of broker-access: why
    json_extract(data, '$.how')       AS how,                         -- who told
    coalesce(json_extract(data, '$.ours'), 0) AS ours,                -- 1: observer's own, to be left out of every count
    data
FROM events
WHERE kind IN ('broker-connection', 'broker-consumer', 'broker-event', 'broker-message', 'broker-alarm', 'broker-access');
