//! Connections whose process does nothing: that the other side has closed or reset one is looked for once a second, for the process may never come
//! to learn of it.

use super::{
    borrow::{Borrowed, tcp},
    calls::Recorder,
    sockets::Phase,
};
use crate::event::Disconnect;

const ECONNRESET: i32 = 104;

impl Recorder {
    /// Looks at the connections that are recorded.
    pub(super) fn look_at_connections(&mut self, now_ns: u64) {
        let open = self.sockets.iter().filter(|(_, socket)| socket.stream && socket.phase == Phase::Open);
        let ended: Vec<(u64, u32, bool)> = open
            .filter_map(|(inode, socket)| {
                // The descriptor may be another's by now.
                let borrowed = Borrowed::of(socket.pid, socket.fd).filter(|found| found.inode() == *inode)?;
                let reset = borrowed.was_reset();
                (reset || borrowed.state() == Some(tcp::CLOSE_WAIT)).then_some((*inode, socket.pid, reset))
            })
            .collect();
        for (inode, pid, reset) in ended {
            if reset {
                self.disconnect(now_ns, pid, inode, Disconnect::ResetByPeer, ECONNRESET, Phase::Over);
            } else {
                self.disconnect(now_ns, pid, inode, Disconnect::ByPeer, 0, Phase::HalfClosed);
            }
        }
    }
}
