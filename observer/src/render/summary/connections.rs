//! The section `connections`.

use std::collections::BTreeMap;

use super::Screen;
use crate::{
    event::{Address, Pid},
    model::connection::Connection,
    render::{
        style::{BAD, DIM, GOOD, Line, NAME, ODD, PLAIN},
        timeline,
    },
    words::{names, units},
};

/// Connections of one process to one address that came out the same way.
#[derive(Default)]
struct Group<'a> {
    members: Vec<&'a Connection>,
}

/// In order of what a person looks for first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Amqp,
    Failed,
    Inet,
    Unix,
    Datagram,
}

fn rank(connection: &Connection) -> Rank {
    match connection.peer.get() {
        _ if connection.is_amqp => Rank::Amqp,
        _ if connection.is_datagram => Rank::Datagram,
        Some(Address::Inet { .. }) if connection.result.is_some_and(|errno| errno != 0) => Rank::Failed,
        Some(Address::Inet { .. }) | None => Rank::Inet,
        Some(_) => Rank::Unix,
    }
}

impl Screen<'_> {
    pub(super) fn connections(&self) -> Vec<Line> {
        let connections = &self.model.connections;
        let mut groups: BTreeMap<_, Group<'_>> = BTreeMap::new();
        let mut own_loops: BTreeMap<Pid, u64> = BTreeMap::new();
        for connection in connections.iter() {
            if connections.is_own_loop(connection) {
                *own_loops.entry(connection.pid).or_default() += 1;
                continue;
            }
            // An accepted connection's peer has a port of its own each time: they are told apart by our end.
            let accepted = connection.accepted == Some(true);
            let end = if accepted { &connection.local } else { &connection.peer };
            let key = (
                rank(connection),
                connection.pid,
                accepted,
                timeline::address(end),
                connection.result,
                connection.end.map(|end| timeline::ending(end.how)),
                connection.closed && connection.end.is_none(),
            );
            groups.entry(key).or_default().members.push(connection);
        }
        let mut lines: Vec<Line> = groups
            .into_iter()
            .map(|((rank, pid, accepted, end, ..), group)| {
                self.group(rank, pid, accepted, &end, &group.members)
            })
            .collect();
        if !own_loops.is_empty() {
            let counts: Vec<String> =
                own_loops.iter().map(|(pid, count)| format!("{pid} ×{count}")).collect();
            let text = format!("loopback connections of a process with itself: {}", counts.join(", "));
            lines.push(Line::new().with(DIM, text));
        }
        if connections.left_out > 0 {
            let count = units::counted(connections.left_out, "older connection");
            lines.push(Line::new().with(ODD, format!("and {count} that are not kept")));
        }
        lines
    }

    fn group(&self, rank: Rank, pid: Pid, accepted: bool, end: &str, members: &[&Connection]) -> Line {
        let arrow = if accepted { "accepted at" } else { "→" };
        let mut line = Line::new().with(NAME, format!("{pid} ")).with(PLAIN, format!("{arrow} {end} "));
        let Some((first, last)) = members.first().zip(members.last()) else { return line };
        if rank == Rank::Amqp {
            line.push(PLAIN, "AMQP ");
        }
        match first.result {
            Some(0) if first.is_datagram => line.push(DIM, "datagram socket, pointed there"),
            Some(0) => line.push(GOOD, "established"),
            Some(errno) => line.push(BAD, names::errno(errno)),
            // An answer that nobody waited for, or one that never came.
            None if first.has_data => line.push(PLAIN, "was open"),
            None => line.push(ODD, "undecided"),
        };
        if members.len() > 1 {
            line.push(PLAIN, format!(" ×{}", members.len()));
            line.push(DIM, format!(" {} to {}", self.about(first.at_ns), self.about(last.at_ns)));
        } else {
            line.push(DIM, format!(" {}", self.about(first.at_ns)));
        }
        let longest = members.iter().filter_map(|member| member.established_after_ns).max();
        if let Some(longest_ns) = longest.filter(|&longest_ns| longest_ns > 0) {
            line.push(DIM, format!(" in {}", units::duration(longest_ns)));
        }
        if members.iter().any(|member| member.has_data) {
            let sent: u64 = members.iter().map(|member| member.sent_bytes).sum();
            let received: u64 = members.iter().map(|member| member.received_bytes).sum();
            line.push(PLAIN, format!(", {} out, {} in", units::size(sent), units::size(received)));
        }
        if !first.is_datagram && first.result.is_none_or(|errno| errno == 0) {
            match first.end {
                Some(end) => line.push(PLAIN, format!(", {}", timeline::ending(end.how))),
                None if first.closed => line.push(DIM, ", closed"),
                None => line.push(PLAIN, ", open"),
            };
        }
        if let Some(errno) = members.iter().rev().find_map(|member| member.io_failed.map(|(_, errno)| errno))
        {
            line.push(BAD, format!(", {}", names::errno(errno)));
        }
        line
    }
}
