"""Runs a command on a terminal of its own: python terminal.py COMMAND...; its input is typed, its screen goes to standard output."""

import os
import pty
import select
import sys

pid, master = pty.fork()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
watched = [master, 0]
while True:
    ready, _, _ = select.select(watched, [], [])
    if 0 in ready:
        typed = os.read(0, 4096)
        if typed:
            os.write(master, typed)
        else:
            watched.remove(0)
    if master in ready:
        try:
            screen = os.read(master, 65536)
        except OSError:
            # EIO: the last holder of the terminal is gone.
            break
        os.write(1, screen)
_, status = os.waitpid(pid, 0)
sys.exit(os.waitstatus_to_exitcode(status) % 256)
