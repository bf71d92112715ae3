//! Recorded pieces of byte streams, put together again. It knows no protocol.

use std::collections::BTreeMap;
use std::ops::Range;

use anyhow::{Result, bail};

use crate::observe::Event;

/// One direction of one socket.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    /// As many bytes as went through; where they were not kept, zeros.
    pub bytes: Vec<u8>,
    /// Where bytes were not kept.
    pub missing: Vec<Range<usize>>,
    /// Where a secret was blanked.
    pub redacted: Vec<Range<usize>>,
    /// The calls that carried it, in order, and how many bytes each.
    pub calls: Vec<(String, usize)>,
}

impl Stream {
    /// Checks every byte that was kept and not blanked against what really went through.
    pub fn differs_from(&self, truth: &[u8]) -> Option<String> {
        if self.bytes.len() != truth.len() {
            return Some(format!("{} bytes were recorded, {} went through", self.bytes.len(), truth.len()));
        }
        let mut expected = truth.to_vec();
        let mut seen = self.bytes.clone();
        for hole in self.missing.iter().chain(&self.redacted) {
            expected[hole.clone()].fill(0);
            seen[hole.clone()].fill(0);
        }
        let at = expected.iter().zip(&seen).position(|(expected, seen)| expected != seen)?;
        Some(format!(
            "byte {at} of {} was {:#04x}, recorded as {:#04x}",
            truth.len(),
            truth[at],
            self.bytes[at]
        ))
    }
}

/// The streams of all sockets, by socket and direction (`sent`, `received`), from the `data` events of a session. Pieces must follow
/// one another without a gap or an overlap.
pub fn assemble(events: &[Event]) -> Result<BTreeMap<(i64, String), Stream>> {
    let mut streams: BTreeMap<(i64, String), Stream> = BTreeMap::new();
    let mut last_call = BTreeMap::new();
    for event in events.iter().filter(|event| event.kind == "data" && event.int("errno") == Some(0)) {
        let (Some(socket), Some(direction), Some(syscall), Some(offset), Some(len)) = (
            event.int("socket"),
            event.text("direction"),
            event.text("syscall"),
            event.int("offset"),
            event.int("len"),
        ) else {
            bail!("not an event of a stream: {event:?}");
        };
        let key = (socket, direction.to_owned());
        let stream = streams.entry(key.clone()).or_default();
        let (offset, len) = (usize::try_from(offset)?, usize::try_from(len)?);
        if offset != stream.bytes.len() {
            bail!("socket {socket}, {direction}: a piece at {offset} follows {} bytes", stream.bytes.len());
        }
        if event.bytes.len() > len {
            bail!("socket {socket}, {direction}: {} bytes kept of {len}", event.bytes.len());
        }
        stream.bytes.extend(&event.bytes);
        stream.bytes.resize(offset + len, 0);
        if event.bytes.len() < len {
            stream.missing.push(offset + event.bytes.len()..offset + len);
        }
        let ranges = event.data["redacted"].as_array().cloned().unwrap_or_default();
        for range in &ranges {
            match (range[0].as_u64(), range[1].as_u64()) {
                (Some(start), Some(end)) => stream.redacted.push(start as usize..end as usize),
                _ => bail!("not a range: {range}"),
            }
        }
        // Pieces of one call bear one time.
        match stream.calls.last_mut() {
            Some((_, total)) if last_call.get(&key) == Some(&event.at_ns) => *total += len,
            _ if len > 0 => stream.calls.push((syscall.to_owned(), len)),
            _ => {}
        }
        last_call.insert(key, event.at_ns);
    }
    Ok(streams)
}
