"""Does what a tracer is easily confused by: python misbehaves.py WAY; see the functions below."""

import ctypes
import os
import pty
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
    # PR_SET_CHILD_SUBREAPER: the daemon becomes our child, and the observation does not end before it does.
    libc.prctl(36, 1, 0, 0, 0)
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
    os.wait()
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


def zombies():
    """Children that have ended and stay in the process table until all have."""
    children = []
    for code in range(20):
        child = os.fork()
        if child == 0:
            os._exit(code)
        children.append(child)
    for child in children:
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    for code, child in enumerate(children):
        assert open(f"/proc/{child}/stat").read().rsplit(")")[1].split()[0] == "Z"
        # The last one is left to whoever inherits it.
        if child != children[-1]:
            assert os.waitpid(child, 0)[1] == code << 8
    os._exit(20)


def killed_while_stopped():
    """A child of five threads stops itself and is killed as it stands."""
    child = os.fork()
    if child == 0:
        for _ in range(4):
            threading.Thread(target=threading.Event().wait, daemon=True).start()
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    _, status = os.waitpid(child, os.WUNTRACED)
    assert os.WIFSTOPPED(status) and os.WSTOPSIG(status) == signal.SIGSTOP, status
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    os._exit(21)


def vfork():
    """A parent stands still until its child runs another program, or could not; another thread goes on meanwhile."""
    # Both are clone with CLONE_VFORK: CPython's own since 3.10, glibc's posix_spawn.
    assert subprocess._USE_VFORK
    over = threading.Event()

    def go_on():
        while not over.is_set():
            os.stat("/")

    other = threading.Thread(target=go_on)
    other.start()
    for code in range(20):
        assert subprocess.call(["/bin/sh", "-c", f"exit {code}"]) == code
        try:
            subprocess.call(["/no/such/program"])
            raise AssertionError("there is such a program")
        except FileNotFoundError:
            pass
        assert os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)[1] == 0
    over.set()
    other.join()
    os._exit(22)


def job_control():
    """A job that reads its terminal from the background is stopped, goes on in the foreground, is stopped by Ctrl-Z, ends by Ctrl-C."""
    keys, typed = os.pipe()
    leader, terminal = pty.fork()
    if leader == 0:
        os._exit(shell(typed))
    os.close(typed)
    while key := os.read(keys, 1):
        os.write(terminal, key)
    _, status = os.waitpid(leader, 0)
    os._exit(os.waitstatus_to_exitcode(status))


def shell(typed):
    """What a shell does with one job."""
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    told, tell = os.pipe()
    job = os.fork()
    if job == 0:
        os.close(typed)
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.write(tell, os.read(0, 1))
        while True:
            signal.pause()

    def job_is(what, with_signal, how):
        _, status = os.waitpid(job, os.WUNTRACED | os.WCONTINUED)
        assert what(status), (how, status)
        if with_signal is not None:
            assert how(status) == with_signal, status

    job_is(os.WIFSTOPPED, signal.SIGTTIN, os.WSTOPSIG)
    os.tcsetpgrp(0, job)
    os.kill(-job, signal.SIGCONT)
    job_is(os.WIFCONTINUED, None, None)
    os.write(typed, b"a")
    os.write(typed, b"\n")
    assert os.read(told, 1) == b"a"
    os.write(typed, b"\x1a")
    job_is(os.WIFSTOPPED, signal.SIGTSTP, os.WSTOPSIG)
    os.kill(-job, signal.SIGCONT)
    job_is(os.WIFCONTINUED, None, None)
    os.write(typed, b"\x03")
    job_is(os.WIFSIGNALED, signal.SIGINT, os.WTERMSIG)
    os.tcsetpgrp(0, os.getpgrp())
    return 23


globals()[sys.argv[1]]()
