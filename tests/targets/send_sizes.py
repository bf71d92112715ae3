"""Sends messages of growing size: python send_sizes.py MODULE:ACTOR COUNT LARGEST; from 1 byte to LARGEST, no two alike."""

import importlib
import sys

module, actor = sys.argv[1].split(":")
actor = getattr(importlib.import_module(module), actor)
count, largest = int(sys.argv[2]), int(sys.argv[3])
for number in range(count):
    size = round(largest ** (number / (count - 1)))
    actor.send("".join(f"{number:x}.{at:x}/" for at in range(size // 4 + 1))[:size])
actor.broker.close()
