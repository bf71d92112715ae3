"""Sends messages: python send.py MODULE:ACTOR COUNT [ARGUMENT...]"""

import importlib
import sys

module, actor = sys.argv[1].split(":")
actor = getattr(importlib.import_module(module), actor)
for _ in range(int(sys.argv[2])):
    actor.send(*sys.argv[3:])
actor.broker.close()
