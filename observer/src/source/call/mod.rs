//! What a system call means, whoever saw it: its name, its error, the file or address it names. Shared by the sources that watch calls;
//! it knows neither the records of the one nor the stops of the other.

mod address;
mod dns;
mod file;

use std::collections::HashSet;

use syscalls::Sysno;

pub(super) use address::sockaddr;
pub(super) use file::{Base, Named, file, too_long};

use super::proc;
use crate::event::{Address, Body, Event, Known, SocketId};

/// The port a broker listens on unless told otherwise.
pub(super) const AMQP_PORT: u16 = 5672;
/// The port a name server listens on.
pub(super) const NAME_SERVER_PORT: u16 = 53;
/// Sockets to name servers, at one time.
const MOST_NAME_SERVERS: usize = 10_000;

/// What no source that watches calls can see.
pub(super) const UNSEEN: [&str; 5] = [
    "what goes through io_uring, shared memory or memory-mapped files",
    "what system calls do that are not about processes, files by name, sockets, pipes and output",
    "system calls of 32-bit programs",
    "addresses of sockets closed by dup2, dup3 or close_range (their TCP state is seen)",
    "content of encrypted connections",
];

/// Bytes as text, with a replacement for what is none.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Bytes up to the first NUL.
pub(super) fn c_text(bytes: &[u8]) -> String {
    text(bytes.split(|byte| *byte == 0).next().unwrap_or_default())
}

/// The name of a call of this processor.
pub(super) fn name(nr: u32) -> String {
    Sysno::new(nr as usize).map_or_else(|| format!("syscall {nr}"), |sysno| sysno.name().to_owned())
}

/// A value that is whole, or only its beginning.
pub(super) fn known<T>(value: T, whole: bool) -> Known<T> {
    if whole { Known::Is(value) } else { Known::Partial { partial: value, missing_bytes: None } }
}

/// A wait status as `wait(2)` has it: exit code, or signal and whether core was dumped.
pub(super) fn status(code: u32) -> (Option<i32>, Option<i32>, bool) {
    let signal = (code & 0x7f) as i32;
    if signal == 0 {
        (Some(((code >> 8) & 0xff) as i32), None, false)
    } else {
        (None, Some(signal), code & 0x80 != 0)
    }
}

/// The error number in a call's result, 0 for none.
pub(super) fn errno(ret: i64) -> i32 {
    if ret < 0 { (-ret) as i32 } else { 0 }
}

/// What a call waits on, where its first argument is a descriptor.
pub(super) fn waits_on(tid: u32, nr: u32, args: &[u64; 6]) -> Known<String> {
    use Sysno as S;
    let on_fd = [
        S::read,
        S::write,
        S::readv,
        S::writev,
        S::pread64,
        S::pwrite64,
        S::recvfrom,
        S::recvmsg,
        S::sendto,
        S::sendmsg,
        S::connect,
        S::accept,
        S::accept4,
        S::epoll_wait,
        S::epoll_pwait,
        S::flock,
        S::fsync,
        S::fdatasync,
        S::fcntl,
        S::ioctl,
        S::getdents64,
    ];
    match Sysno::new(nr as usize) {
        Some(call) if on_fd.contains(&call) => match proc::fd_link(tid, args[0] as i32) {
            Some(link) => Known::Is(link),
            None => Known::unknown(),
        },
        _ => Known::none(),
    }
}

/// Which sockets lead to a name server.
#[derive(Default)]
pub(super) struct NameServers(HashSet<SocketId>);

impl NameServers {
    /// Keeps in mind what a socket's life says of it.
    pub(super) fn see(&mut self, body: &Body) {
        match body {
            Body::Connect { socket, peer, .. } => match peer.get() {
                Some(Address::Inet { port: NAME_SERVER_PORT, .. }) if self.0.len() < MOST_NAME_SERVERS => {
                    self.0.insert(*socket);
                }
                // glibc asks the next server with the same socket; any other address is another purpose.
                _ => drop(self.0.remove(socket)),
            },
            Body::Socket { socket, .. } | Body::Close { socket, .. } => drop(self.0.remove(socket)),
            _ => {}
        }
    }

    /// What went to or came from a name server is told as what was looked up, or not at all: it is no stream. Other events stay.
    pub(super) fn lookup(&self, mut event: Event) -> Option<Event> {
        match event.body {
            Body::Data { socket, .. } if self.0.contains(&socket) => {
                let body = dns::lookup(socket, &std::mem::take(&mut event.bytes))?;
                Some(Event { body, ..event })
            }
            _ => Some(event),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_status_is_read_as_wait_does() {
        assert_eq!(status(0x0200), (Some(2), None, false));
        assert_eq!(status(9), (None, Some(9), false));
        assert_eq!(status(0x8b), (None, Some(11), true));
    }
}
