//! Connections: whom each process reached or not, what went over, how it ended. Knows sockets and byte counts; nothing of protocols
//! beyond the eight bytes by which AMQP opens.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::mark::Mark;
use crate::event::{Address, Body, Direction, Disconnect, Event, Known, Pid, SocketId, Tid};

/// Beyond this many connections the oldest that are over are only counted.
const MAX_CONNECTIONS: usize = 10_000;
/// Loopback ports remembered, listening and dialled each, to tell connections of a process with itself.
const MAX_PORTS: usize = 10_000;
/// Datagram sockets remembered, until their number is used again.
const MAX_DATAGRAM: usize = 10_000;
const SOCK_DGRAM: u32 = 2;
/// Answers of `connect` that settle nothing: still trying (first or again), and already connected.
const EINPROGRESS: i32 = 115;
const EALREADY: i32 = 114;
const EISCONN: i32 = 106;

/// One connection, made or tried.
#[derive(Clone, Debug, PartialEq)]
pub struct Connection {
    /// Its socket.
    pub socket: SocketId,
    /// The process that made it or accepted it.
    pub pid: Pid,
    /// The other end.
    pub peer: Known<Address>,
    /// Our end.
    pub local: Known<Address>,
    /// Whether it was accepted; otherwise this process tried to connect. `None`: it was there before us.
    pub accepted: Option<bool>,
    /// Whether it is a datagram socket: its `connect` reaches nobody. `getaddrinfo` makes such ones to sort addresses (RFC 6724).
    pub is_datagram: bool,
    /// When it was tried, accepted or first seen.
    pub at_ns: u64,
    /// The event that says so.
    pub event: u64,
    /// In which thread.
    pub tid: Tid,
    /// What came of it: 0 when established, else the error number; `None` while not decided.
    pub result: Option<i32>,
    /// From the call of `connect` to its result.
    pub established_after_ns: Option<u64>,
    /// The event that says what came of it.
    pub settled_event: Option<u64>,
    settled_at_ns: u64,
    /// Bytes the process wrote, as far as its data were recorded.
    pub sent_bytes: u64,
    /// Bytes the process read, as far as its data were recorded.
    pub received_bytes: u64,
    /// Whether data of it were recorded.
    pub has_data: bool,
    /// Whether it speaks AMQP: it began with the protocol header, or was recorded although it was open when we came.
    pub is_amqp: bool,
    /// The last failed read or write: when, and the error number.
    pub io_failed: Option<(Mark, i32)>,
    /// How it ended; `None` while it lasts.
    pub end: Option<End>,
    /// How its end began: by whom. Of a connection that both sides close `end` only says that both are done.
    pub first_end: Option<End>,
    /// Whether the process closed its descriptor.
    pub closed: bool,
    /// When it did, the first time.
    pub closed_at: Option<Mark>,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// When.
    pub at_ns: u64,
    /// Who ended it and how.
    pub how: Disconnect,
    /// The socket's error, 0 for none.
    pub errno: i32,
    /// The event that says so.
    pub event: u64,
}

impl Connection {
    /// Whether nothing more can come of it.
    pub fn is_over(&self) -> bool {
        self.end.is_some() || self.closed || self.result.is_some_and(|errno| errno != 0)
    }
}

/// All connections.
#[derive(Clone, Debug, Default)]
pub struct Connections {
    all: BTreeMap<u64, Connection>,
    current: HashMap<SocketId, u64>,
    /// Those that a socket's number has had, in order of time.
    by_socket: HashMap<SocketId, Vec<u64>>,
    listening: HashSet<(Pid, u16)>,
    dialled: HashSet<(Pid, Address)>,
    datagram: HashSet<SocketId>,
    next: u64,
    /// Connections that were not kept because there were too many.
    pub left_out: u64,
}

impl Connections {
    /// Every connection, in order of time.
    pub fn iter(&self) -> impl Iterator<Item = &Connection> {
        self.all.values()
    }

    /// Whether both ends of a connection are in one process, as in the loopback pairs by which pika wakes its own event loop.
    pub fn is_own_loop(&self, connection: &Connection) -> bool {
        let listens = |end: &Known<Address>| match end.get() {
            Some(Address::Inet { ip, port }) => {
                ip.is_loopback() && self.listening.contains(&(connection.pid, *port))
            }
            _ => false,
        };
        match connection.accepted {
            Some(true) => {
                let dialled = |end: &Address| self.dialled.contains(&(connection.pid, end.clone()));
                listens(&connection.local) && connection.local.get().is_some_and(dialled)
            }
            _ => listens(&connection.peer),
        }
    }

    pub(super) fn add(&mut self, id: u64, event: &Event) {
        match &event.body {
            Body::Connect { socket, peer, local, errno, duration_ns, .. } => {
                if let Some(end @ Address::Inet { ip, .. }) = peer.get()
                    && ip.is_loopback()
                    && self.dialled.len() < MAX_PORTS
                {
                    self.dialled.insert((event.pid, end.clone()));
                }
                let is_datagram = self.datagram.contains(socket);
                let connection = self.attempt(*socket, id, event, *duration_ns);
                connection.is_datagram = is_datagram;
                // What was heard first may have been the kernel's timer or an interrupt, in any process.
                connection.pid = event.pid;
                connection.accepted = Some(false);
                learn(&mut connection.peer, peer);
                learn(&mut connection.local, local);
                if !matches!(*errno, EINPROGRESS | EALREADY | EISCONN) {
                    connection.settle(Mark::new(id, event), *errno, *duration_ns);
                }
            }
            Body::Connected { socket, peer, local, errno, duration_ns } => {
                let connection = self.entry(*socket, id, event);
                learn(&mut connection.peer, peer);
                learn(&mut connection.local, local);
                connection.settle(Mark::new(id, event), *errno, *duration_ns);
            }
            Body::Accept { socket, peer, local, .. } => {
                self.current.remove(socket);
                let connection = self.entry(*socket, id, event);
                connection.accepted = Some(true);
                connection.result = Some(0);
                learn(&mut connection.peer, peer);
                learn(&mut connection.local, local);
            }
            Body::Listen { address, errno: 0, .. } | Body::Bind { address, errno: 0, .. } => {
                if let Some(Address::Inet { port, .. }) = address.get()
                    && *port != 0
                    && self.listening.len() < MAX_PORTS
                {
                    self.listening.insert((event.pid, *port));
                }
            }
            // A socket just made is no connection yet, and its number may have been another's before.
            Body::Socket { socket, socket_type, .. } => {
                self.current.remove(socket);
                self.datagram.remove(socket);
                if *socket_type == SOCK_DGRAM && self.datagram.len() < MAX_DATAGRAM {
                    self.datagram.insert(*socket);
                }
            }
            Body::Close { socket, .. } => {
                // Other processes may hold the same socket since a fork: only its own process's closing ends it.
                if let Some(connection) = self.known(*socket)
                    && connection.pid == event.pid
                {
                    connection.closed = true;
                    connection.closed_at.get_or_insert(Mark::new(id, event));
                }
            }
            Body::Disconnect { socket, how, errno, peer, local } => {
                let connection = self.entry(*socket, id, event);
                learn(&mut connection.peer, peer);
                learn(&mut connection.local, local);
                connection.end = Some(End { at_ns: event.at_ns, how: *how, errno: *errno, event: id });
                connection.first_end = connection.first_end.or(connection.end);
            }
            Body::Data { socket, .. } => self.entry(*socket, id, event).data(id, event),
            _ => {}
        }
    }

    /// The connection whose first bytes passed at that moment.
    pub fn at(&self, socket: SocketId, at_ns: u64) -> Option<&Connection> {
        let keys = self.by_socket.get(&socket)?.iter().rev();
        keys.filter_map(|key| self.all.get(key)).find(|connection| connection.at_ns <= at_ns)
    }

    /// The connection a socket has now, or had last.
    pub(super) fn current(&self, socket: SocketId) -> Option<&Connection> {
        self.all.get(self.current.get(&socket)?)
    }

    fn known(&mut self, socket: SocketId) -> Option<&mut Connection> {
        let key = self.current.get(&socket)?;
        self.all.get_mut(key)
    }

    /// The connection that a call of `connect`, returning now, belongs to: a new one when the last one on this socket was settled
    /// before the call. On the loopback it is settled within the call, and heard of first.
    fn attempt(&mut self, socket: SocketId, id: u64, event: &Event, duration_ns: u64) -> &mut Connection {
        let Body::Connect { errno, .. } = event.body else { return self.entry(socket, id, event) };
        let called_ns = event.at_ns.saturating_sub(duration_ns);
        let settled_before = |last: &mut Connection| {
            last.result.is_some() && last.settled_at_ns < called_ns && errno != EISCONN
        };
        if self.known(socket).is_some_and(settled_before) {
            self.current.remove(&socket);
        }
        self.entry(socket, id, event)
    }

    fn entry(&mut self, socket: SocketId, id: u64, event: &Event) -> &mut Connection {
        let key = *self.current.entry(socket).or_insert_with(|| {
            self.next += 1;
            self.next
        });
        if !self.all.contains_key(&key) && self.all.len() >= MAX_CONNECTIONS {
            let oldest =
                self.all.iter().find(|(_, connection)| connection.is_over()).or(self.all.iter().next());
            if let Some((&oldest, evicted)) = oldest {
                if self.current.get(&evicted.socket) == Some(&oldest) {
                    self.current.remove(&evicted.socket);
                }
                if let Some(keys) = self.by_socket.get_mut(&evicted.socket) {
                    keys.retain(|key| *key != oldest);
                    if keys.is_empty() {
                        self.by_socket.remove(&evicted.socket);
                    }
                }
                self.all.remove(&oldest);
                self.left_out += 1;
            }
        }
        if !self.all.contains_key(&key) {
            self.by_socket.entry(socket).or_default().push(key);
        }
        self.all.entry(key).or_insert_with(|| Connection {
            socket,
            pid: event.pid,
            peer: Known::unknown(),
            local: Known::unknown(),
            accepted: None,
            at_ns: event.at_ns,
            event: id,
            tid: event.tid,
            is_datagram: false,
            result: None,
            established_after_ns: None,
            settled_event: None,
            settled_at_ns: 0,
            sent_bytes: 0,
            received_bytes: 0,
            has_data: false,
            is_amqp: false,
            io_failed: None,
            end: None,
            first_end: None,
            closed: false,
            closed_at: None,
        })
    }
}

impl Connection {
    fn settle(&mut self, mark: Mark, errno: i32, duration_ns: u64) {
        self.settled_at_ns = mark.at_ns;
        self.settled_event = Some(mark.event);
        self.result = Some(errno);
        self.established_after_ns = Some(duration_ns);
    }

    fn data(&mut self, id: u64, event: &Event) {
        let Body::Data { direction, offset, len, errno, since_attach, .. } = &event.body else { return };
        if *errno != 0 {
            self.io_failed = Some((Mark::new(id, event), *errno));
            return;
        }
        self.has_data = true;
        self.is_amqp |= *since_attach || (*offset == 0 && event.bytes.starts_with(b"AMQP"));
        match direction {
            Direction::Sent => self.sent_bytes += len,
            Direction::Received => self.received_bytes += len,
        }
    }
}

/// A later event may know an address better, never worse.
fn learn(known: &mut Known<Address>, news: &Known<Address>) {
    if news.get().is_some() {
        *known = news.clone();
    }
}
