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
pub(super) struct Locals(BTreeMap<Key, Option<(Pid, Vec<String>)>>);

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
                found.map(|pid| pid.map(|pid| (Pid(pid), proc::cmdline(pid)))).collect::<Vec<_>>()
            };
            // A panic there leaves them without a process, as if none was found.
            let found = tokio::task::spawn_blocking(look).await.unwrap_or_default();
            known.extend(keys.into_iter().zip(found));
        }
        for one in connections.iter_mut() {
            if let Some(Some((pid, command))) = known.get(&key(one)) {
                one.local_pid = Some(*pid);
                one.local_command = (!command.is_empty()).then(|| command.clone());
            }
        }
        self.0 = known;
    }
}
