//! What a worker's own AMQP connection tells about its broker: address and credentials, and the queues it declares. It looks at events as
//! they come from the source, before secrets are removed; what it finds stays in memory.

use std::collections::{BTreeMap, BTreeSet};

use amq_protocol::{
    frame::{AMQPFrame, parsing::parse_frame},
    protocol::{AMQPClass, connection, queue},
};

use super::{BrokerHandle, BrokerUrl};
use crate::event::{Address, Body, Direction, Event, SocketId};

const PROTOCOL_HEADER: &[u8] = b"AMQP\x00\x00\x09\x01";
const FRAME_OVERHEAD: usize = 8;
/// A frame that is longer is none of those looked for.
const MOST_FRAME: usize = 128 << 10;
/// Connections looked at at one time.
const MOST_CONNECTIONS: usize = 256;
/// Of one connection, this much is looked at: a worker declares before it publishes.
const MOST_LOOKED_AT: u64 = 4 << 20;
const MOST_QUEUES: usize = 10_000;

/// Looks at a recording as it comes, and tells a [`super::BrokerSource`] what it finds.
pub struct FromWorker {
    tell: BrokerHandle,
    /// Whether the address and credentials are wanted.
    broker: bool,
    peers: BTreeMap<SocketId, (String, u16)>,
    streams: BTreeMap<SocketId, Stream>,
    queues: BTreeSet<(String, String)>,
}

/// What a client said on one connection.
#[derive(Default)]
struct Stream {
    /// Begun and not whole.
    rest: Vec<u8>,
    next_offset: u64,
    begun: bool,
    login: Option<(String, String)>,
    vhost: Option<String>,
}

/// Something found in a stream.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Opened,
    Declared(String),
}

impl FromWorker {
    /// Tells through this handle: queues, and the broker when that is wanted.
    pub fn new(tell: BrokerHandle, broker: bool) -> Self {
        Self { tell, broker, peers: BTreeMap::new(), streams: BTreeMap::new(), queues: BTreeSet::new() }
    }

    /// Looks at one event.
    pub fn look(&mut self, event: &Event) {
        match &event.body {
            Body::Connect { socket, peer, .. } | Body::Connected { socket, peer, .. } => {
                if let Some(Address::Inet { ip, port }) = peer.get()
                    && (self.peers.len() < MOST_CONNECTIONS || self.peers.contains_key(socket))
                {
                    self.peers.insert(*socket, (ip.to_canonical().to_string(), *port));
                }
            }
            Body::Socket { socket, .. } | Body::Disconnect { socket, .. } | Body::Accept { socket, .. } => {
                self.peers.remove(socket);
                self.streams.remove(socket);
            }
            Body::Data {
                socket,
                direction: Direction::Sent,
                offset,
                len,
                since_attach: false,
                errno: 0,
                ..
            } => {
                self.data(*socket, *offset, *len, &event.bytes);
            }
            _ => {}
        }
    }

    fn data(&mut self, socket: SocketId, offset: u64, len: u64, bytes: &[u8]) {
        let Some((host, port)) = self.peers.get(&socket) else { return };
        if offset == 0 && self.streams.len() < MOST_CONNECTIONS {
            self.streams.insert(socket, Stream::default());
        }
        let Some(stream) = self.streams.get_mut(&socket) else { return };
        let Some(found) = stream.take(offset, len, bytes) else {
            self.streams.remove(&socket);
            return;
        };
        let vhost = stream.vhost.clone().unwrap_or_default();
        for found in found {
            match found {
                Found::Opened if self.broker => {
                    if let Some((user, password)) = stream.login.take() {
                        // Told again by the worker's next connection should there be no room now.
                        self.broker =
                            !self.tell.broker(BrokerUrl::from_parts(host, *port, &user, &password, &vhost));
                    }
                }
                Found::Opened => stream.login = None,
                Found::Declared(queue) => {
                    let name = (vhost.clone(), queue);
                    if self.queues.len() < MOST_QUEUES
                        && !self.queues.contains(&name)
                        && self.tell.queue(&name.0, &name.1)
                    {
                        self.queues.insert(name);
                    }
                }
            }
        }
    }
}

impl Stream {
    /// Takes the next bytes. `None`: it is not AMQP, or a part of it is missing, or it was looked at long enough.
    fn take(&mut self, offset: u64, len: u64, bytes: &[u8]) -> Option<Vec<Found>> {
        if offset != self.next_offset || len != bytes.len() as u64 || offset > MOST_LOOKED_AT {
            return None;
        }
        self.next_offset += len;
        self.rest.extend_from_slice(bytes);
        let mut found = Vec::new();
        let mut done = 0;
        if !self.begun {
            if self.rest.len() < PROTOCOL_HEADER.len() {
                return PROTOCOL_HEADER.starts_with(&self.rest).then_some(found);
            }
            if !self.rest.starts_with(PROTOCOL_HEADER) {
                return None;
            }
            self.begun = true;
            done = PROTOCOL_HEADER.len();
        }
        while let Some(header) = self.rest.get(done..done + 7) {
            let size = u32::from_be_bytes(header.get(3..7)?.try_into().ok()?) as usize;
            if size > MOST_FRAME {
                return None;
            }
            let Some(frame) = self.rest.get(done..done + size + FRAME_OVERHEAD) else { break };
            // Only methods are parsed: a body may be large, and is nobody's business here.
            if frame.first() == Some(&1)
                && let Ok((_, AMQPFrame::Method(_, method))) = parse_frame(frame)
            {
                found.extend(self.method(method));
            }
            done += size + FRAME_OVERHEAD;
        }
        self.rest.drain(..done);
        Some(found)
    }

    fn method(&mut self, method: AMQPClass) -> Option<Found> {
        match method {
            AMQPClass::Connection(connection::AMQPMethod::StartOk(start))
                if start.mechanism.as_str() == "PLAIN" =>
            {
                // RFC 4616: authorisation id, user and password, each ended by NUL but the last.
                let mut parts = start.response.as_bytes().splitn(3, |byte| *byte == 0).skip(1);
                let mut text = || Some(String::from_utf8_lossy(parts.next()?).into_owned());
                self.login = text().zip(text());
                None
            }
            AMQPClass::Connection(connection::AMQPMethod::Open(open)) => {
                self.vhost = Some(open.virtual_host.as_str().to_owned());
                Some(Found::Opened)
            }
            AMQPClass::Queue(queue::AMQPMethod::Declare(declare)) if !declare.queue.as_str().is_empty() => {
                Some(Found::Declared(declare.queue.as_str().to_owned()))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
