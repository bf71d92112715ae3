"""Reads a trace with Perfetto's own messages, checks what must hold of every trace, and prints what is in it as JSON."""

import json
import sys
from collections import Counter, defaultdict

from google.protobuf.unknown_fields import UnknownFieldSet
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb

BEGIN, END, INSTANT, COUNTER = (
    pb.TrackEvent.TYPE_SLICE_BEGIN,
    pb.TrackEvent.TYPE_SLICE_END,
    pb.TrackEvent.TYPE_INSTANT,
    pb.TrackEvent.TYPE_COUNTER,
)


def known(message):
    """Fields that Perfetto does not know are fields that we misspelt."""
    assert len(UnknownFieldSet(message)) == 0, message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for one in value if hasattr(value, "append") or hasattr(value, "add") else [value]:
                known(one)


def notes(event):
    found = defaultdict(list)
    for note in event.debug_annotations:
        found[note.name].append(getattr(note, note.WhichOneof("value")))
    return found


trace = pb.Trace()
with open(sys.argv[1], "rb") as file:
    trace.ParseFromString(file.read())

snapshot = trace.packet[0].clock_snapshot
clocks = {clock.clock_id: clock.timestamp for clock in snapshot.clocks}
tracks, events = {}, defaultdict(list)
for packet in trace.packet:
    known(packet)
    if packet.HasField("track_descriptor"):
        one = packet.track_descriptor
        kind = next((kind for kind in ("process", "thread", "counter") if one.HasField(kind)), "plain")
        if one.uuid in tracks:
            before = tracks[one.uuid]
            assert kind == "process" and before["kind"] == kind and before["pid"] == one.process.pid, one
        assert not one.parent_uuid or one.parent_uuid in tracks, one
        pid = {"process": one.process.pid, "thread": one.thread.pid}.get(kind)
        name = one.process.process_name if kind == "process" else one.name
        tracks[one.uuid] = {"kind": kind, "pid": pid, "tid": one.thread.tid, "name": name, "parent": one.parent_uuid}
    if packet.HasField("track_event"):
        event = packet.track_event
        assert packet.timestamp_clock_id == pb.BUILTIN_CLOCK_MONOTONIC and packet.trusted_packet_sequence_id, packet
        assert event.track_uuid in tracks, f"no track: {event}"
        assert (tracks[event.track_uuid]["kind"] == "counter") == (event.type == COUNTER), event
        events[event.track_uuid].append((packet.timestamp, event))
assert clocks.keys() == {pb.BUILTIN_CLOCK_MONOTONIC, pb.BUILTIN_CLOCK_REALTIME}, clocks
assert snapshot.primary_trace_clock == pb.BUILTIN_CLOCK_MONOTONIC

flows, slices, instants, counters = defaultdict(list), [], [], defaultdict(list)
for uuid, happened in events.items():
    # Perfetto sorts by time, and leaves what is of the same time as it comes.
    happened.sort(key=lambda pair: pair[0])
    stack = []
    for at_ns, event in happened:
        for id in event.flow_ids:
            flows[id].append((at_ns, False, event.name))
        for id in event.terminating_flow_ids:
            flows[id].append((at_ns, True, event.name))
        place = tracks[uuid]
        if event.type == COUNTER:
            counters[place["name"]].append([at_ns, event.counter_value])
        elif event.type == END:
            assert stack, f"nothing to end on {place}"
            begun_ns, begun = stack.pop()
            slices.append({
                "category": begun.categories[0], "name": begun.name, "depth": len(stack), "from_ns": begun_ns,
                "to_ns": at_ns, "track": place, "parent": stack[-1][1].name if stack else None, "notes": notes(begun),
            })
        elif event.type == BEGIN:
            assert event.name, event
            stack.append((at_ns, event))
        elif event.type == INSTANT:
            assert event.name, event
            instants.append({"category": event.categories[0], "name": event.name, "at_ns": at_ns, "track": place, "notes": notes(event)})
        else:
            raise AssertionError(event)
    assert not stack, f"never ended: {[event.name for _, event in stack]} on {place}"
for steps in flows.values():
    steps.sort(key=lambda step: step[0])
    assert sum(last for _, last, _ in steps) <= 1 and not any(last for _, last, _ in steps[:-1]), steps

print(json.dumps({
    "clocks": {"monotonic_ns": clocks[3], "wall_ns": clocks[1]},
    "kinds": Counter(track["kind"] for track in tracks.values()),
    "slices": slices,
    "instants": instants,
    "counters": counters,
    "flows": [[name for _, _, name in steps] for steps in flows.values()],
    "ended_flows": sum(steps[-1][1] for steps in flows.values()),
}))
