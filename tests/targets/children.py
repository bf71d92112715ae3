"""Starts short processes and writes what became of each: children.py COUNT PORT RESULT. A line each: [pid, parent, program, code].

Every seventh program does not exist; every fifth process is the grandchild of a shell that does not become it. Each process of ours
connects to 127.0.0.1:PORT before it executes.
"""

import json
import os
import socket
import sys

count, port, result = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
lines = []
for number in range(count):
    reader, writer = os.pipe()
    parent = os.getpid()
    if number % 5 == 0:
        program, code = "/bin/sh", 4
        argv = ["sh", "-c", "/bin/true & echo $! $$ >&3; wait; exit 4", f"number {number}"]
    elif number % 7 == 0:
        program, code, argv = f"/no/such/program-{number}", 127, ["none"]
    else:
        program, code, argv = "/bin/true", 0, ["true", f"number {number}"]
    pid = os.fork()
    if pid == 0:
        with socket.socket() as client:
            client.connect(("127.0.0.1", port))
        if writer != 3:
            os.dup2(writer, 3)
        os.set_inheritable(3, True)
        try:
            os.execv(program, argv)
        except OSError:
            os._exit(127)
    os.close(writer)
    with open(reader) as pipe:
        said = pipe.read().split()
    os.waitpid(pid, 0)
    lines.append([pid, parent, program, code])
    if said:
        grandchild, shell = map(int, said)
        assert shell == pid
        lines.append([grandchild, shell, "/bin/true", 0])
with open(result, "w") as file:
    json.dump(lines, file)
