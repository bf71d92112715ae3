//! The two rings as one stream in order of time. Knows records' headers, not what they mean.

use aya::maps::{MapData, RingBuf};
use observer_ebpf::Header;
use zerocopy::FromBytes;

/// A program takes its time stamp, then works, then sends: what is older than this when a drain begins has been sent.
const SETTLE_NS: u64 = 2_000_000;
/// Bytes copied from a ring in one go: bounds memory, and a vital record waits no longer than one such go of bulk.
const GO_BYTES: usize = 2 * 1024 * 1024;

/// Records copied out of the rings, waiting to be put in order.
#[derive(Default)]
pub(super) struct Pending {
    bytes: Vec<u8>,
    /// Time, start, length.
    records: Vec<(u64, usize, usize)>,
}

impl Pending {
    /// Copies what stands in `ring`, up to `most` records; `true` when something was left there.
    pub(super) fn drain(&mut self, ring: &mut RingBuf<MapData>, most: usize) -> bool {
        let start = self.bytes.len();
        let mut taken = 0;
        while taken < most && self.bytes.len() - start < GO_BYTES {
            let Some(record) = ring.next() else { return false };
            self.push(&record);
            taken += 1;
        }
        true
    }

    fn push(&mut self, record: &[u8]) {
        let at_ns = Header::read_from_prefix(record).map_or(0, |(header, _)| header.at_ns);
        self.records.push((at_ns, self.bytes.len(), record.len()));
        self.bytes.extend_from_slice(record);
    }

    /// How many records wait.
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Hands out, in order of time, everything that happened before `until_ns`; younger records stay for the next round, so that
    /// two rings and several processors cannot put a child before its parent.
    pub(super) fn take(&mut self, until_ns: u64, mut each: impl FnMut(&[u8])) {
        let until_ns = until_ns.saturating_sub(SETTLE_NS);
        // Stable: pieces of one program's arguments bear one time stamp.
        self.records.sort_by_key(|(at_ns, ..)| *at_ns);
        let ready = self.records.partition_point(|(at_ns, ..)| *at_ns < until_ns);
        for (_, start, len) in &self.records[..ready] {
            each(&self.bytes[*start..*start + *len]);
        }
        if ready == self.records.len() {
            self.bytes.clear();
            self.records.clear();
            return;
        }
        let mut rest = Vec::new();
        self.records.drain(..ready);
        for (_, start, len) in &mut self.records {
            let from = std::mem::replace(start, rest.len());
            rest.extend_from_slice(&self.bytes[from..from + *len]);
        }
        self.bytes = rest;
    }
}

#[cfg(test)]
mod tests {
    use observer_ebpf::kind;
    use zerocopy::IntoBytes;

    use super::*;

    fn record(at_ns: u64, tid: u32) -> Vec<u8> {
        let header = Header { kind: kind::OOM, flags: 0, nr: 0, at_ns, enter_ns: 0, tgid: 1, tid };
        header.as_bytes().to_vec()
    }

    fn taken(pending: &mut Pending, until_ns: u64) -> Vec<(u64, u32)> {
        let mut out = Vec::new();
        pending.take(until_ns, |bytes| {
            let (header, _) = Header::read_from_prefix(bytes).unwrap();
            out.push((header.at_ns, header.tid));
        });
        out
    }

    #[test]
    fn two_rings_come_out_as_one_stream_in_order_of_time() {
        let mut pending = Pending::default();
        // The vital ring is drained first: its child's exit must still come after the bulk ring's open.
        for at in [30, 10, 20] {
            pending.push(&record(at * SETTLE_NS, at as u32));
        }
        assert_eq!(taken(&mut pending, 25 * SETTLE_NS), [(10 * SETTLE_NS, 10), (20 * SETTLE_NS, 20)]);
        pending.push(&record(26 * SETTLE_NS, 26));
        assert_eq!(taken(&mut pending, u64::MAX), [(26 * SETTLE_NS, 26), (30 * SETTLE_NS, 30)]);
        assert_eq!(pending.len(), 0);
    }

    #[test]
    fn what_is_too_young_waits_for_its_elders() {
        let mut pending = Pending::default();
        pending.push(&record(SETTLE_NS * 10 - 1, 1));
        assert_eq!(taken(&mut pending, SETTLE_NS * 10), []);
        assert_eq!(taken(&mut pending, SETTLE_NS * 11), [(SETTLE_NS * 10 - 1, 1)]);
    }

    #[test]
    fn pieces_with_one_time_stamp_keep_their_order() {
        let mut pending = Pending::default();
        for tid in 0..50 {
            pending.push(&record(7, tid));
        }
        let order: Vec<u32> = taken(&mut pending, u64::MAX).into_iter().map(|(_, tid)| tid).collect();
        assert_eq!(order, (0..50).collect::<Vec<_>>());
    }
}
