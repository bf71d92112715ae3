"""Holds a file of events against its JSON Schema, counts what is in it with pandas, and prints that as JSON: FILE SCHEMA"""

import json
import sys

import jsonschema
import pandas

with open(sys.argv[2]) as file:
    schema = json.load(file)
jsonschema.Draft202012Validator.check_schema(schema)
validator = jsonschema.Draft202012Validator(schema)
checked = set()
with open(sys.argv[1]) as file:
    for line in map(json.loads, file):
        # One of each kind: it takes its time.
        if line["kind"] not in checked:
            validator.validate(line)
            assert not validator.is_valid(line | {"kind": "no such kind"}), line
            checked.add(line["kind"])

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
