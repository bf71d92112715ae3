"""Ends, waits or is stopped in the way asked for: python ends.py WAY [ARGUMENT]; see the functions below."""

import ctypes
import fcntl
import os
import signal
import socket
import sys
import threading


def os_exit(status):
    os._exit(int(status))


def exit_in_a_thread(status):
    # os._exit is exit_group: whichever thread calls it ends all.
    threading.Thread(target=os._exit, args=[int(status)], name="killer").start()
    threading.Event().wait()


def thread_exits(_):
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
    # Joined it may still be on its way out, and then our own end could come before its: until the kernel knows it no more (tgkill, x86-64).
    while ctypes.CDLL(None).syscall(234, os.getpid(), thread.native_id, 0) == 0:
        pass


def wait_for_signal(file):
    with open(file + ".new", "w") as ready:
        ready.write(str(os.getpid()))
    os.rename(file + ".new", file)
    while True:
        signal.pause()


def dump(_):
    """A child ends by SIGSEGV; whether its core was dumped is what its parent is told."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2)
    child = os.fork()
    if child == 0:
        ctypes.string_at(0)
    _, status = os.waitpid(child, 0)
    print(child, os.WTERMSIG(status), int(os.WCOREDUMP(status)))


def eat(_):
    hoard = []
    while True:
        hoard.append(bytearray(os.urandom(1 << 20)))


def read_pipe(_):
    """Reads a pipe to which a word comes when standard input does."""
    reader, writer = os.pipe()
    print(os.fstat(reader).st_ino, flush=True)
    thread = threading.Thread(target=os.read, args=[reader, 10])
    thread.start()
    os.read(0, 10)
    os.write(writer, b"word")
    thread.join()


def receive(_):
    ours, theirs = socket.socketpair()
    print(os.fstat(ours.fileno()).st_ino, flush=True)
    thread = threading.Thread(target=ours.recv, args=[10])
    thread.start()
    os.read(0, 10)
    theirs.send(b"word")
    thread.join()


def flock(file):
    holder = open(file, "w")
    fcntl.flock(holder, fcntl.LOCK_EX)
    second = open(file)
    print(file, flush=True)
    thread = threading.Thread(target=fcntl.flock, args=[second, fcntl.LOCK_EX])
    thread.start()
    os.read(0, 10)
    fcntl.flock(holder, fcntl.LOCK_UN)
    thread.join()


globals()[sys.argv[1]](sys.argv[2] if len(sys.argv) > 2 else None)
