//! Connections whose process does nothing: that the other side has closed one is looked for once a second, for the process may never come
//! to learn of it.

use super::{
    borrow::{Borrowed, tcp},
    calls::Recorder,
    sockets::Phase,
};
use crate::event::Disconnect;

impl Recorder {
    /// Looks at the connections that are recorded.
    pub(super) fn look_at_connections(&mut self, now_ns: u64) {
        let open = self.sockets.iter().filter(|(_, socket)| socket.stream && socket.phase == Phase::Open);
        let closed: Vec<(u64, u32)> = open
            .filter(|(inode, socket)| {
                // The descriptor may be another's by now.
                let borrowed = Borrowed::of(socket.pid, socket.fd).filter(|found| found.inode() == **inode);
                borrowed.and_then(|borrowed| borrowed.state()) == Some(tcp::CLOSE_WAIT)
            })
            .map(|(inode, socket)| (*inode, socket.pid))
            .collect();
        for (inode, pid) in closed {
            self.disconnect(now_ns, pid, inode, Disconnect::ByPeer, 0, Phase::HalfClosed);
        }
    }
}
