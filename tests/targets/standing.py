"""Writes everything a process can know of its own standing to a file: python -I standing.py FILE [ANY...]"""

import json
import os
import stat
import sys

file = sys.argv[1]


def read(name):
    with open("/proc/self/" + name, "rb") as stream:
        return stream.read()


def leads_to(fd):
    facts = os.fstat(fd)
    return [os.readlink(f"/proc/self/fd/{fd}"), stat.filemode(facts.st_mode), facts.st_ino, os.get_inheritable(fd)]


# Before anything is opened here: the descriptors we were given.
fds = {}
for fd in range(1024):
    try:
        fds[fd] = leads_to(fd)
    except OSError:
        pass

status = dict(line.split(":\t", 1) for line in read("status").decode().splitlines())
fields = read("stat").decode().rsplit(")", 1)[1].split()
# Numbered as in proc(5), from field 3.
fields = dict(enumerate(fields, 3))
wanted = (
    "Umask Uid Gid Groups Threads SigPnd ShdPnd SigBlk SigIgn SigCgt CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs Seccomp"
    " THP_enabled Cpus_allowed Mems_allowed TracerPid"
).split()
result = {
    "argv": read("cmdline").hex(),
    "environment": read("environ").hex(),
    "exe": os.readlink("/proc/self/exe"),
    "cwd": os.readlink("/proc/self/cwd"),
    "root": os.readlink("/proc/self/root"),
    "status": {name: status[name].strip() for name in wanted if name in status},
    "limits": read("limits").decode().splitlines(),
    "fds": fds,
    "process group": fields[5],
    "session": fields[6],
    "terminal": fields[7],
    "foreground group": fields[8],
    "nice": fields[19],
    "realtime priority": fields[40],
    "policy": fields[41],
    "oom_score_adj": read("oom_score_adj").decode(),
    "coredump_filter": read("coredump_filter").decode(),
    "timerslack_ns": read("timerslack_ns").decode(),
    "personality": read("personality").decode(),
    "cgroup": read("cgroup").decode(),
    "namespaces": {name: os.readlink("/proc/self/ns/" + name) for name in sorted(os.listdir("/proc/self/ns"))},
}
with open(file + ".new", "w") as stream:
    json.dump(result, stream)
os.rename(file + ".new", file)
