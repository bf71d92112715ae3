//! Who on this machine holds an end of a TCP connection, by its addresses: a look into `/proc`, for as long as the connection is there. It
//! knows no protocol and no source.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, SocketAddr},
    os::unix::fs::MetadataExt,
};

use super::proc;

/// An end of a connection: its own address, and the port at the other end where that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) ip: IpAddr,
    pub(super) port: u16,
    pub(super) other_port: Option<u16>,
}

impl End {
    fn is(&self, own: SocketAddr, other: SocketAddr) -> bool {
        own.ip().to_canonical() == self.ip.to_canonical()
            && own.port() == self.port
            && self.other_port.is_none_or(|port| port == other.port())
    }
}

/// The process that holds each of these ends, `None` where there is none here or it cannot be told which. It walks over every descriptor
/// of the machine when at least one of them is here: not to be called from where something waits.
pub(super) fn holders(ends: &[End]) -> Vec<Option<u32>> {
    let inodes = inodes(ends);
    let wanted: BTreeMap<String, u64> =
        inodes.iter().flatten().map(|inode| (format!("socket:[{inode}]"), *inode)).collect();
    let mut pids: BTreeMap<u64, u32> = BTreeMap::new();
    for pid in if wanted.is_empty() { Vec::new() } else { proc::all_pids() } {
        for fd in proc::numbers(&format!("/proc/{pid}/fd")) {
            // One that several hold was handed down: it is the first one's.
            if let Some(inode) = proc::fd_link(pid, fd as i32).and_then(|link| wanted.get(&link)) {
                pids.entry(*inode).and_modify(|first| *first = pid.min(*first)).or_insert(pid);
            }
        }
    }
    inodes.into_iter().map(|inode| pids.get(&inode?).copied()).collect()
}

/// The socket of each end, from the tables of every network namespace that a process is in.
fn inodes(ends: &[End]) -> Vec<Option<u64>> {
    let mut found: Vec<BTreeSet<u64>> = vec![BTreeSet::new(); ends.len()];
    let mut namespaces = BTreeSet::new();
    for pid in proc::all_pids() {
        let Ok(facts) = fs::metadata(format!("/proc/{pid}/ns/net")) else { continue };
        if !namespaces.insert(facts.ino()) {
            continue;
        }
        for (inode, (own, other, state)) in proc::tcp_sockets(pid) {
            if state != proc::ESTABLISHED {
                continue;
            }
            for (end, inodes) in ends.iter().zip(&mut found) {
                if end.is(own, other) {
                    inodes.insert(inode);
                }
            }
        }
    }
    // The same addresses in two namespaces: one of them is the wrong one.
    found.into_iter().map(|inodes| if inodes.len() == 1 { inodes.first().copied() } else { None }).collect()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_end_of_a_connection_is_its_process_and_others_are_nobodys() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (own, server) = (client.local_addr().unwrap(), client.peer_addr().unwrap().port());
        let end = End { ip: own.ip(), port: own.port(), other_port: Some(server) };
        let mapped = End { ip: "::ffff:127.0.0.1".parse().unwrap(), ..end };
        let elsewhere = End { ip: "192.0.2.1".parse().unwrap(), ..end };
        let other = End { other_port: Some(1), ..end };
        let us = Some(std::process::id());
        assert_eq!(holders(&[end, mapped, elsewhere, other]), [us, us, None, None]);
    }
}
