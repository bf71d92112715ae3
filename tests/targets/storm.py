"""Opens one file as fast as it can, while a child starts others: storm.py OPENS CHILDREN PORT RESULT [stop]; see
children.py. With `stop` its parent, the observer, stands still meanwhile.
"""

import os
import signal
import sys

opens, children, port, result = int(sys.argv[1]), *sys.argv[2:5]
stop = sys.argv[5:] == ["stop"]
here = os.path.abspath(__file__)
# Whatever else is done is the same in every run, however many opens there are.
pid = os.spawnv(
    os.P_NOWAIT, sys.executable, [sys.executable, os.path.join(os.path.dirname(here), "children.py"), children, port, result]
)
if stop:
    os.kill(os.getppid(), signal.SIGSTOP)
for _ in range(opens):
    os.close(os.open(here, os.O_RDONLY))
if stop:
    os.kill(os.getppid(), signal.SIGCONT)
_, status = os.waitpid(pid, 0)
sys.exit(os.waitstatus_to_exitcode(status))
