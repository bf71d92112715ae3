"""Opens one file as fast as it can, while a child starts others: storm.py OPENS CHILDREN PORT RESULT; see children.py."""

import os
import sys

opens, children, port, result = int(sys.argv[1]), *sys.argv[2:]
here = os.path.abspath(__file__)
# Whatever else is done is the same in every run, however many opens there are.
pid = os.spawnv(
    os.P_NOWAIT, sys.executable, [sys.executable, os.path.join(os.path.dirname(here), "children.py"), children, port, result]
)
for _ in range(opens):
    os.close(os.open(here, os.O_RDONLY))
_, status = os.waitpid(pid, 0)
sys.exit(os.waitstatus_to_exitcode(status))
