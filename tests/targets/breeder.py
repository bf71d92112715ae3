"""Forks without end, children from children: python breeder.py FILE; every process appends "PID PARENT" when it begins and then forks
the next generation. Ends when FILE.stop exists.
"""

import os
import sys

record = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
stop = sys.argv[1] + ".stop"
root = os.getpid()
while not os.path.exists(stop):
    if os.fork() == 0:
        os.write(record, b"%d %d\n" % (os.getpid(), os.getppid()))
        grandchild = os.fork()
        if grandchild == 0:
            os.write(record, b"%d %d\n" % (os.getpid(), os.getppid()))
            os._exit(0)
        os.waitpid(grandchild, 0)
        os._exit(0)
    os.wait()
