"""Does what a tracer is easily confused by: python misbehaves.py WAY; see the functions below."""

import ctypes
import os
import signal
import subprocess
import sys
import threading

libc = ctypes.CDLL(None, use_errno=True)


def exec_in_a_thread():
    """The thread takes the leader's place, and the leader is gone without a word."""
    threading.Thread(target=os.execv, args=["/bin/sh", ["sh", "-c", "exit 11"]]).start()
    threading.Event().wait()


def leader_first():
    """The leader ends alone (SYS_exit, not exit_group); a thread lives on and ends the process."""
    leader = threading.get_native_id()

    def outlive():
        while open(f"/proc/self/task/{leader}/stat").read().rsplit(")")[1].split()[0] != "Z":
            pass
        os.open("/etc/hostname", os.O_RDONLY)
        os._exit(12)

    threading.Thread(target=outlive).start()
    libc.syscall(60, 0)


def stops_itself():
    """Stands until its child lets it go on, and says how its stop was told to its parent."""
    child = os.fork()
    if child == 0:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    for _ in range(2):
        _, status = os.waitpid(child, os.WUNTRACED)
        assert os.WIFSTOPPED(status) and os.WSTOPSIG(status) == signal.SIGSTOP, status
        os.kill(child, signal.SIGCONT)
    _, status = os.waitpid(child, 0)
    assert status == 0, status
    os._exit(13)


def many_threads():
    """64 threads open a file of their own and end at once."""
    gate = threading.Barrier(64)

    def one(number):
        gate.wait()
        try:
            os.open(f"/etc/no-{number}", os.O_RDONLY)
        except OSError:
            pass

    threads = [threading.Thread(target=one, args=[number]) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os._exit(14)


def killed_while_busy():
    """A child that does nothing but system calls is killed in the middle of one, twenty times."""
    for _ in range(20):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writer, b"x")
            while True:
                os.stat("/etc")
        os.read(reader, 1)
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        os.close(reader)
        os.close(writer)
    os._exit(15)


def daemon():
    """Forks twice and leaves its session; the first parent ends before the daemon does anything."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.read(reader, 1)
            os.open("/etc/hostname", os.O_RDONLY)
            os._exit(0)
        os._exit(0)
    os.wait()
    os.write(writer, b"x")
    os._exit(16)


def empty_argv():
    """A program without arguments gets an empty one from the kernel since 5.18."""
    argv = (ctypes.c_char_p * 1)(None)
    libc.execve(b"/bin/true", argv, argv)


def large_environment():
    """A program with an environment of a megabyte."""
    environment = {f"LARGE_{number}": "x" * 100_000 for number in range(10)}
    status = subprocess.call(["/bin/sh", "-c", "exit 18"], env=environment)
    os._exit(status)


def interrupted_read():
    """A handler runs in the middle of a call that starts again afterwards: it may not fail for that."""
    main = threading.get_ident()
    signal.signal(signal.SIGALRM, lambda number, frame: None)
    signal.siginterrupt(signal.SIGALRM, False)
    reader, writer = os.pipe()

    def interrupt():
        for _ in range(20):
            signal.pthread_kill(main, signal.SIGALRM)
        os.write(writer, b"x")

    threading.Thread(target=interrupt).start()
    buffer = ctypes.create_string_buffer(1)
    # Not os.read, which tries again by itself.
    assert libc.read(reader, buffer, 1) == 1, ctypes.get_errno()
    os._exit(19)


globals()[sys.argv[1]]()
