//! A TCP proxy that keeps every byte it passes on: what really went over the wire, to hold against what was observed. It knows no protocol.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use nix::sys::socket::{setsockopt, sockopt};

/// One connection that came through, as it stands.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The client's end; its port tells connections of one client apart.
    pub client: SocketAddr,
    /// Every byte the client sent, in order.
    pub to_server: Vec<u8>,
    /// Every byte the server sent, in order.
    pub to_client: Vec<u8>,
    /// Both directions have ended.
    pub closed: bool,
}

/// A running proxy; ends with its connections when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    stopping: AtomicBool,
    records: Mutex<Vec<Recorded>>,
    pairs: Mutex<Vec<Arc<Pair>>>,
}

#[derive(Debug)]
struct Pair {
    client: TcpStream,
    server: TcpStream,
    /// Set before both ends are reset: the end of stream a pump then reads is our own doing, and must not be passed on as a half-close.
    resetting: AtomicBool,
}

impl Pair {
    fn reset(&self) {
        self.resetting.store(true, Ordering::Release);
        reset(&self.client);
        reset(&self.server);
    }
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1 and passes connections on to `upstream`.
    pub fn start(upstream: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen on 127.0.0.1")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let acceptor = thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, upstream, &shared)
        });
        Ok(Self { address, shared, acceptor: Some(acceptor) })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What has come through so far, in the order of connecting.
    pub fn recorded(&self) -> Vec<Recorded> {
        lock(&self.shared.records).clone()
    }

    /// Resets every connection that is open now, as a firewall would; new ones are still accepted.
    pub fn reset_all(&self) {
        for pair in lock(&self.shared.pairs).drain(..) {
            pair.reset();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        // Wakes the acceptor.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        self.reset_all();
    }
}

fn accept(listener: &TcpListener, upstream: SocketAddr, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.stopping.load(Ordering::Acquire) {
            return;
        }
        let Ok(client) = client else { continue };
        let Ok(from) = client.peer_addr() else { continue };
        let Ok(server) = TcpStream::connect(upstream) else {
            // A proxy cannot refuse what its kernel has accepted; a reset is the nearest there is.
            reset(&client);
            continue;
        };
        let _ = client.set_nodelay(true);
        let _ = server.set_nodelay(true);
        let pair = Arc::new(Pair { client, server, resetting: AtomicBool::new(false) });
        lock(&shared.pairs).push(Arc::clone(&pair));
        let index = {
            let mut records = lock(&shared.records);
            records.push(Recorded {
                client: from,
                to_server: Vec::new(),
                to_client: Vec::new(),
                closed: false,
            });
            records.len() - 1
        };
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            thread::scope(|scope| {
                let (client, server) = (&pair.client, &pair.server);
                scope.spawn(|| {
                    pump(&pair, client, server, |bytes| keep(&shared, index, |r| &mut r.to_server, bytes))
                });
                scope.spawn(|| {
                    pump(&pair, server, client, |bytes| keep(&shared, index, |r| &mut r.to_client, bytes))
                });
            });
            // The last holders go here: only the close of a descriptor sends the reset that `reset` prepares.
            lock(&shared.pairs).retain(|other| !Arc::ptr_eq(other, &pair));
            drop(pair);
            if let Some(record) = lock(&shared.records).get_mut(index) {
                record.closed = true;
            }
        });
    }
}

/// Passes bytes on until the end of the stream, then passes on the kind of end: a half-close for a half-close, a reset for a reset.
fn pump(pair: &Pair, mut from: &TcpStream, mut to: &TcpStream, mut keep: impl FnMut(&[u8])) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) if pair.resetting.load(Ordering::Acquire) => return,
            Ok(0) => {
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            Ok(len) => {
                keep(&buffer[..len]);
                if to.write_all(&buffer[..len]).is_err() {
                    pair.reset();
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => {
                pair.reset();
                return;
            }
        }
    }
}

/// Makes the close that follows a reset, and wakes whoever reads the socket.
fn reset(stream: &TcpStream) {
    let now = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    let _ = setsockopt(stream, sockopt::Linger, &now);
    let _ = stream.shutdown(Shutdown::Read);
}

fn keep(shared: &Shared, index: usize, side: impl FnOnce(&mut Recorded) -> &mut Vec<u8>, bytes: &[u8]) {
    if let Some(record) = lock(&shared.records).get_mut(index) {
        side(record).extend_from_slice(bytes);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::deadline;

    const LIMIT: Duration = Duration::from_secs(10);

    /// A client and the server it reached through a proxy.
    fn connected() -> (Proxy, TcpStream, TcpStream) {
        let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy::start(upstream.local_addr().unwrap()).unwrap();
        let client = TcpStream::connect(proxy.address()).unwrap();
        let (server, _) = upstream.accept().unwrap();
        client.set_read_timeout(Some(LIMIT)).unwrap();
        server.set_read_timeout(Some(LIMIT)).unwrap();
        deadline::until("the connection is recorded", LIMIT, || (proxy.recorded().len() == 1).then_some(()));
        (proxy, client, server)
    }

    #[test]
    fn both_directions_are_kept_and_a_half_close_stays_one() {
        let (proxy, mut client, mut server) = connected();
        client.write_all(b"ping").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut got = Vec::new();
        server.read_to_end(&mut got).unwrap();
        assert_eq!(got, b"ping");
        server.write_all(b"pong").unwrap();
        drop(server);
        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        assert_eq!(got, b"pong");
        let record = deadline::until("the connection is closed", LIMIT, || {
            proxy.recorded().into_iter().next().filter(|record| record.closed)
        });
        assert_eq!(record.client, client.local_addr().unwrap());
        assert_eq!((record.to_server.as_slice(), record.to_client.as_slice()), (&b"ping"[..], &b"pong"[..]));
    }

    #[test]
    fn a_reset_stays_a_reset() {
        let (_proxy, mut client, server) = connected();
        reset(&server);
        drop(server);
        let error = client.read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn connections_are_reset_on_request() {
        let (proxy, mut client, mut server) = connected();
        proxy.reset_all();
        assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(server.read(&mut [0; 1]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}
