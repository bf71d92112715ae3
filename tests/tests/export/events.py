"""Counts what is in a file of events with pandas, and prints that as JSON."""

import json
import sys

import pandas

lines = pandas.read_json(sys.argv[1], lines=True)
head, events, tail = lines.iloc[0], lines.iloc[1:-1], lines.iloc[-1]
assert (head["kind"], head["schema"], tail["kind"]) == ("header", "observer.events/1", "summary"), lines
assert events["id"].is_unique and events["at_ns"].is_monotonic_increasing
kinds = events["kind"].value_counts()
print(json.dumps({
    "kinds": {kind: int(count) for kind, count in kinds.items()},
    "said": int(tail["events"]),
    "lost": tail["lost"],
    "unseen": head["unseen"],
}))
