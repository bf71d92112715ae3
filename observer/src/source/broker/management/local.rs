//! Names the processes of this machine at the client's end of connections, while they are there to be found. It knows no HTTP.

use std::collections::BTreeMap;

use crate::{
    event::{Pid, broker::BrokerConnection},
    source::{
        peer::{self, End},
        proc,
    },
};

/// A name is used again once its connection is gone: the moment tells the two apart.
type Key = (String, Option<u64>);

/// What was found of each connection that is listed. Each is looked for once: what a program is called must not change under way.
#[derive(Default)]
pub(super) struct Locals(BTreeMap<Key, Option<Local>>);

/// A process of this machine at a client's end.
#[derive(Clone, Debug)]
struct Local {
    pid: Pid,
    command: Vec<String>,
    /// Its parent's command line.
    parent: Vec<String>,
}

impl Local {
    fn of(pid: u32) -> Self {
        let parent = proc::parent(pid).map_or_else(Vec::new, proc::cmdline);
        Self { pid: Pid(pid), command: proc::cmdline(pid), parent }
    }
}

impl Locals {
    /// Adds the process to each connection that has one here.
    pub(super) async fn name(&mut self, connections: &mut [BrokerConnection]) {
        let key = |one: &BrokerConnection| (one.name.clone(), one.connected_at_ms);
        let mut known = BTreeMap::new();
        let mut news: Vec<(Key, End)> = Vec::new();
        for one in connections.iter().filter(|one| !one.ours) {
            let key = key(one);
            if let Some(found) = self.0.remove(&key) {
                known.insert(key, found);
            } else if let Some((ip, port)) = one.peer_host.as_ref().zip(one.peer_port)
                && let Ok(ip) = ip.parse()
            {
                news.push((key, End { ip, port, other_port: one.port }));
            }
        }
        if !news.is_empty() {
            let (keys, ends): (Vec<Key>, Vec<End>) = news.into_iter().unzip();
            let look = move || {
                let found = peer::holders(&ends).into_iter();
                found.map(|pid| pid.map(Local::of)).collect::<Vec<_>>()
            };
            // A panic there leaves them without a process, as if none was found.
            let found = tokio::task::spawn_blocking(look).await.unwrap_or_default();
            known.extend(keys.into_iter().zip(found));
        }
        for one in connections.iter_mut() {
            if let Some(Some(local)) = known.get(&key(one)) {
                one.local_pid = Some(local.pid);
                one.local_command = Some(local.command.clone()).filter(|command| !command.is_empty());
                one.local_parent_command = Some(local.parent.clone()).filter(|command| !command.is_empty());
            }
        }
        self.0 = known;
    }
}
