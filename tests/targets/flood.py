"""Opens one file by its absolute path again and again: python flood.py COUNT; prints opens per second."""

import os
import sys
import time

count = int(sys.argv[1])
path = os.path.abspath(__file__)
start_ns = time.monotonic_ns()
for _ in range(count):
    os.close(os.open(path, os.O_RDONLY))
print(count * 1e9 / (time.monotonic_ns() - start_ns))
