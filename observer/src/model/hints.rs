//! What processes print about their connections, wherever in their output it stands: support for what system calls and bytes show, never
//! more. Knows a few texts of the C library, CPython and OpenSSL; draws no conclusions.

use std::collections::BTreeMap;

use memchr::memmem;

use super::mark::Mark;
use crate::event::{Body, Event, Pid};

/// Beyond so many processes new ones are not kept.
const MAX_PROCESSES: usize = 10_000;

/// What a text speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hint {
    /// A name did not resolve (`getaddrinfo`: glibc's `gai_strerror`, CPython's `socket.gaierror`).
    Name,
    /// A TLS handshake failed (CPython's `ssl.SSLError` and its kin, OpenSSL's reasons).
    Tls,
    /// A certificate was not accepted (OpenSSL's reason).
    Certificate,
    /// No descriptor is left (`strerror` of EMFILE).
    Descriptors,
}

const TEXTS: [(Hint, &[u8]); 11] = [
    (Hint::Name, b"gaierror"),
    (Hint::Name, b"Name or service not known"),
    (Hint::Name, b"Temporary failure in name resolution"),
    (Hint::Name, b"No address associated with hostname"),
    (Hint::Tls, b"SSLError"),
    (Hint::Tls, b"SSLEOFError"),
    (Hint::Tls, b"WRONG_VERSION_NUMBER"),
    (Hint::Tls, b"[SSL"),
    (Hint::Certificate, b"CERTIFICATE_VERIFY_FAILED"),
    (Hint::Descriptors, b"Too many open files"),
    (Hint::Descriptors, b"EMFILE"),
];

/// The first such output of each process.
#[derive(Clone, Debug, Default)]
pub struct Hints {
    first: BTreeMap<(Pid, Hint), Mark>,
}

impl Hints {
    /// Where a process first printed of it.
    pub fn get(&self, pid: Pid, hint: Hint) -> Option<Mark> {
        self.first.get(&(pid, hint)).copied()
    }

    pub(super) fn add(&mut self, id: u64, event: &Event) {
        if !matches!(event.body, Body::Output { errno: 0, .. }) || self.first.len() >= 4 * MAX_PROCESSES {
            return;
        }
        for (hint, text) in TEXTS {
            let key = (event.pid, hint);
            if !self.first.contains_key(&key) && memmem::find(&event.bytes, text).is_some() {
                self.first.insert(key, Mark::new(id, event));
            }
        }
    }
}
