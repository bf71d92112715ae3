//! A trace being written: tracks, and what happens on them. Knows Perfetto's format; nothing of sessions.

use std::{
    collections::BTreeSet,
    io::{self, Write},
};

use prost::Message;

use super::proto::{
    COUNTER, Clock, ClockSnapshot, CounterDescriptor, DebugAnnotation, INCREMENTAL_STATE_CLEARED, INSTANT,
    MONOTONIC, ProcessDescriptor, REALTIME, SLICE_BEGIN, SLICE_END, ThreadDescriptor, TracePacket,
    TrackDescriptor, TrackEvent, UNIT_COUNT,
};
use crate::words::escape::escape;

/// The field `packet` of the message `Trace`, whose value has a length (protobuf's wire type 2).
const PACKET: u8 = 1 << 3 | 2;
/// There is one writer, and so one sequence.
const SEQUENCE: u32 = 1;

/// A track's identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Track(u64);

/// Something that happens: a slice or an instant.
#[derive(Debug)]
pub(super) struct Mark {
    event: TrackEvent,
}

impl Mark {
    /// Of this name and category.
    pub(super) fn new(category: &str, name: impl AsRef<str>) -> Self {
        let categories = vec![category.to_owned()];
        Self { event: TrackEvent { name: Some(escape(name.as_ref())), categories, ..TrackEvent::default() } }
    }

    fn annotate(mut self, annotation: DebugAnnotation) -> Self {
        self.event.debug_annotations.push(annotation);
        self
    }

    /// With a text, when there is one.
    pub(super) fn text(self, name: &str, value: Option<impl AsRef<str>>) -> Self {
        let Some(value) = value else { return self };
        let (name, value) = (Some(name.to_owned()), Some(escape(value.as_ref())));
        self.annotate(DebugAnnotation { name, string_value: value, ..DebugAnnotation::default() })
    }

    /// With a number that is not negative.
    pub(super) fn count(self, name: &str, value: u64) -> Self {
        let (name, value) = (Some(name.to_owned()), Some(value));
        self.annotate(DebugAnnotation { name, uint_value: value, ..DebugAnnotation::default() })
    }

    /// With a number, when there is one.
    pub(super) fn number(self, name: &str, value: Option<i64>) -> Self {
        if value.is_none() {
            return self;
        }
        let name = Some(name.to_owned());
        self.annotate(DebugAnnotation { name, int_value: value, ..DebugAnnotation::default() })
    }

    /// With whether something is so.
    pub(super) fn whether(self, name: &str, value: bool) -> Self {
        let (name, value) = (Some(name.to_owned()), Some(value));
        self.annotate(DebugAnnotation { name, bool_value: value, ..DebugAnnotation::default() })
    }

    /// As a step of a flow.
    pub(super) fn flow(mut self, id: u64) -> Self {
        self.event.flow_ids.push(id);
        self
    }

    /// As the last step of a flow.
    pub(super) fn flow_end(mut self, id: u64) -> Self {
        self.event.terminating_flow_ids.push(id);
        self
    }
}

/// The trace. What fails stops it: nothing more is written, and [`Trace::finish`] says why.
#[derive(Debug)]
pub(super) struct Trace<W> {
    out: W,
    buffer: Vec<u8>,
    tracks: u64,
    result: io::Result<()>,
}

impl<W: Write> Trace<W> {
    /// A trace on the monotonic clock; `monotonic_ns` and `wall_ns` are the same moment.
    pub(super) fn begin(out: W, monotonic_ns: u64, wall_ns: u64) -> Self {
        let mut trace = Self { out, buffer: Vec::new(), tracks: 0, result: Ok(()) };
        let clock = |clock_id, at_ns| Clock { clock_id: Some(clock_id), timestamp: Some(at_ns) };
        let snapshot = ClockSnapshot {
            clocks: vec![clock(MONOTONIC, monotonic_ns), clock(REALTIME, wall_ns)],
            primary_trace_clock: Some(MONOTONIC),
        };
        trace.packet(&TracePacket {
            clock_snapshot: Some(snapshot),
            sequence_flags: Some(INCREMENTAL_STATE_CLEARED),
            ..TracePacket::default()
        });
        trace
    }

    /// Whether it was stopped.
    pub(super) const fn failed(&self) -> bool {
        self.result.is_err()
    }

    /// What stopped it.
    pub(super) fn finish(self) -> io::Result<()> {
        self.result
    }

    fn packet(&mut self, packet: &TracePacket) {
        if self.result.is_err() {
            return;
        }
        self.buffer.clear();
        self.buffer.push(PACKET);
        self.result = packet.encode_length_delimited(&mut self.buffer).map_err(io::Error::other);
        if self.result.is_ok() {
            self.result = self.out.write_all(&self.buffer);
        }
    }

    fn describe(&mut self, descriptor: TrackDescriptor) {
        self.packet(&TracePacket {
            track_descriptor: Some(descriptor),
            trusted_packet_sequence_id: Some(SEQUENCE),
            ..TracePacket::default()
        });
    }

    fn new_track(&mut self) -> Track {
        self.tracks += 1;
        Track(self.tracks)
    }

    /// A track of this name, below another.
    pub(super) fn track(&mut self, parent: Option<Track>, name: &str) -> Track {
        let track = self.new_track();
        let (uuid, parent_uuid) = (Some(track.0), parent.map(|parent| parent.0));
        self.describe(TrackDescriptor { uuid, parent_uuid, name: Some(escape(name)), ..Default::default() });
        track
    }

    /// A track of numbers, below another.
    pub(super) fn counter(&mut self, parent: Track, name: &str) -> Track {
        let track = self.new_track();
        self.describe(TrackDescriptor {
            uuid: Some(track.0),
            parent_uuid: Some(parent.0),
            name: Some(escape(name)),
            counter: Some(CounterDescriptor { unit: Some(UNIT_COUNT) }),
            ..Default::default()
        });
        track
    }

    /// A process's track; `track` is the one it has, to tell its name anew.
    pub(super) fn process(&mut self, track: Option<Track>, pid: u32, name: &str, argv: &[String]) -> Track {
        let track = track.unwrap_or_else(|| self.new_track());
        let process = ProcessDescriptor {
            pid: Some(pid.cast_signed()),
            cmdline: argv.iter().map(|word| escape(word)).collect(),
            process_name: Some(escape(name)),
        };
        self.describe(TrackDescriptor { uuid: Some(track.0), process: Some(process), ..Default::default() });
        track
    }

    /// A thread's track.
    pub(super) fn thread(&mut self, process: Track, pid: u32, tid: u32) -> Track {
        let track = self.new_track();
        let thread = ThreadDescriptor {
            pid: Some(pid.cast_signed()),
            tid: Some(tid.cast_signed()),
            thread_name: (pid == tid).then(|| "main".to_owned()),
        };
        self.describe(TrackDescriptor {
            uuid: Some(track.0),
            parent_uuid: Some(process.0),
            thread: Some(thread),
            ..Default::default()
        });
        track
    }

    fn event(&mut self, at_ns: u64, track: Track, kind: u32, event: TrackEvent) {
        self.packet(&TracePacket {
            timestamp: Some(at_ns),
            timestamp_clock_id: Some(MONOTONIC),
            trusted_packet_sequence_id: Some(SEQUENCE),
            track_event: Some(TrackEvent { r#type: Some(kind), track_uuid: Some(track.0), ..event }),
            ..TracePacket::default()
        });
    }

    /// A slice begins.
    pub(super) fn begin_slice(&mut self, at_ns: u64, track: Track, mark: Mark) {
        self.event(at_ns, track, SLICE_BEGIN, mark.event);
    }

    /// The innermost slice of a track ends.
    pub(super) fn end_slice(&mut self, at_ns: u64, track: Track) {
        self.event(at_ns, track, SLICE_END, TrackEvent::default());
    }

    /// Something has no duration.
    pub(super) fn instant(&mut self, at_ns: u64, track: Track, mark: Mark) {
        self.event(at_ns, track, INSTANT, mark.event);
    }

    /// A counter has this value from now on.
    pub(super) fn count(&mut self, at_ns: u64, track: Track, value: u64) {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        self.event(at_ns, track, COUNTER, TrackEvent { counter_value: Some(value), ..Default::default() });
    }
}

/// Tracks of one name for slices that overlap and do not nest: each slice goes where nothing is any more.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    /// When each becomes free.
    free_at: BTreeSet<(u64, Track)>,
}

impl Lanes {
    /// Puts a slice on one of them, below `parent`.
    pub(super) fn slice<W: Write>(
        &mut self,
        trace: &mut Trace<W>,
        parent: Track,
        name: &str,
        (from_ns, to_ns): (u64, u64),
        mark: Mark,
    ) {
        let free = self.free_at.range(..=(from_ns, Track(u64::MAX))).next_back().copied();
        let track = match free {
            Some(free) => {
                self.free_at.remove(&free);
                free.1
            }
            None => trace.track(Some(parent), name),
        };
        let to_ns = to_ns.max(from_ns);
        self.free_at.insert((to_ns, track));
        trace.begin_slice(from_ns, track, mark);
        trace.end_slice(to_ns, track);
    }
}
