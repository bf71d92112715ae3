"""One thread, no chance: does the same in every run, for two witnesses to be compared.

witness.py FOLDER INET_OPEN INET_SHUT INET6_OPEN INET6_SHUT: works in FOLDER, where `package/`, `data.txt`, `link`, `plain`, `script`,
`nonsense`, `open.sock` and `shut.sock` are, and leaves it as it was; connects to ports of 127.0.0.1 and ::1; exits with 5.
"""

import ctypes
import errno
import os
import select
import signal
import socket
import subprocess
import sys

folder = sys.argv[1]
inet_open, inet_shut, inet6_open, inet6_shut = map(int, sys.argv[2:])


def attempt(call, *arguments, **keywords):
    try:
        return call(*arguments, **keywords)
    except OSError:
        return None


# Imports: found, not found, shadowed by nothing.
sys.path.insert(0, folder)
import package.inner  # noqa: E402
import wsgiref.util  # noqa: E402, F401

for missing in ("no_such_module", "package.no_such_module", "xml.no_such_module"):
    try:
        __import__(missing)
    except ImportError:
        pass

# Paths: absolute, relative, through links, from directory descriptors, strange and impossible ones.
os.chdir(folder)
os.chdir("package")
for path in (
    "inner.py",
    "../data.txt",
    ".././package//../data.txt",
    "../link",
    "missing",
    "../data.txt/below",
    "../loop",
    "",
    b"caf\xe9",
    "a" * 255,
    "b" * 256,
    "/".join(["."] * 2048),
    "c/" * 3000,
):
    fd = attempt(os.open, path, os.O_RDONLY)
    if fd is not None:
        os.close(fd)
    attempt(os.stat, path)
    attempt(os.lstat, path)
    attempt(os.access, path, os.R_OK)
    attempt(os.readlink, path)
os.close(os.open("../new", os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
attempt(os.open, "../new", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
os.unlink("../new")
libc = ctypes.CDLL(None, use_errno=True)
# An address nothing is at.
libc.open(ctypes.c_void_p(8), os.O_RDONLY)
libc.access(ctypes.c_void_p(8), os.R_OK)

directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
for path in ("data.txt", "package/inner.py", "link", "missing", "../etc"):
    fd = attempt(os.open, path, os.O_RDONLY, dir_fd=directory)
    if fd is not None:
        os.fstat(fd)
        os.close(fd)
    attempt(os.stat, path, dir_fd=directory)
    attempt(os.stat, path, dir_fd=directory, follow_symlinks=False)
    attempt(os.readlink, path, dir_fd=directory)
    attempt(os.access, path, os.R_OK, dir_fd=directory)
    attempt(os.access, path, os.X_OK, dir_fd=directory, effective_ids=True)
attempt(os.open, "data.txt", os.O_RDONLY, dir_fd=999)
os.fchdir(directory)
attempt(os.fchdir, 999)
attempt(os.chdir, "nowhere")
with os.scandir(".") as entries:
    for entry in entries:
        attempt(entry.is_file)
        attempt(entry.stat)
os.listdir(directory)
os.listdir("/proc/self/fdinfo")
libc.syscall(217, 999, None, 0)  # getdents64 of a descriptor that is not open

# statx, openat2 and creat, which Python does not call by itself.
buffer = ctypes.create_string_buffer(256)
libc.syscall(332, directory, b"data.txt", 0x100, 0xFFF, buffer)
how = (ctypes.c_uint64 * 3)(os.O_RDONLY | os.O_CLOEXEC, 0, 0)
fd = libc.syscall(437, directory, b"data.txt", ctypes.byref(how), 24)
os.close(fd)
libc.syscall(437, directory, b"missing", ctypes.byref(how), 24)
libc.creat(b"/no/such/folder", 0o600)
for number in (2, 4, 6, 21, 89):  # open, stat, lstat, access, readlink as they were before *at
    libc.syscall(number, b"data.txt", buffer if number in (4, 6, 89) else 0, 0)

# Other programs.
environment = {"PATH": "/no/such:/etc:" + folder + "/package:/usr/bin:/bin", "LC_ALL": "C", "ONE": "1"}
pid = os.posix_spawn("/bin/true", ["true", "x y", "", "caf\u00e9\n\""], environment)
os.waitpid(pid, 0)
os.waitpid(os.posix_spawnp("true", ["true"], environment), 0)
attempt(os.posix_spawn, "/no/such/true", ["true"], environment)
attempt(os.posix_spawnp, "no-such-true", ["true"], environment)
subprocess.run(["/bin/echo", "-n"], env=environment, stdout=subprocess.DEVNULL)
subprocess.run(["true", "searched"], env=environment)
subprocess.run(["true"], env=environment, close_fds=False, cwd="/usr")
attempt(subprocess.run, ["no-such-program"], env=environment)
attempt(subprocess.run, [folder + "/plain"], env=environment)  # EACCES
attempt(subprocess.run, [folder + "/nonsense"], env=environment)  # ENOEXEC
attempt(subprocess.run, [folder + "/data.txt/below"], env=environment)  # ENOTDIR
subprocess.run([folder + "/script", "an argument"], env=environment)
subprocess.run("exit 9", shell=True, env=environment)
attempt(os.execve, "/bin/true", ["true", "x" * 200_000], environment)  # E2BIG


def forked(child):
    pid = os.fork()
    if pid == 0:
        try:
            child()
        finally:
            os._exit(99)
    os.waitpid(pid, 0)


forked(lambda: os._exit(7))
forked(lambda: os._exit(256 + 3))
forked(lambda: os._exit(-1))
forked(lambda: os.kill(os.getpid(), signal.SIGKILL))
forked(lambda: os.kill(os.getpid(), signal.SIGTERM))
true = os.open("/bin/true", os.O_RDONLY)
forked(lambda: os.execve(true, ["by descriptor"], environment))
os.close(true)
# execveat relative to a directory; and of what is not there
bin_directory = os.open("/bin", os.O_RDONLY | os.O_DIRECTORY)
argv = (ctypes.c_char_p * 3)(b"at", b"directory", None)
envp = (ctypes.c_char_p * 2)(b"A=1", None)
forked(lambda: libc.syscall(322, bin_directory, b"true", argv, envp, 0))
libc.syscall(322, bin_directory, b"no-such-program", argv, envp, 0)

# Connections.
for family, address in (
    (socket.AF_INET, ("127.0.0.1", inet_open)),
    (socket.AF_INET, ("127.0.0.1", inet_shut)),
    (socket.AF_INET6, ("::1", inet6_open)),
    (socket.AF_INET6, ("::1", inet6_shut)),
    (socket.AF_INET6, ("::ffff:127.0.0.1", inet_open)),
    (socket.AF_UNIX, folder + "/open.sock"),
    (socket.AF_UNIX, "open.sock"),
    (socket.AF_UNIX, folder + "/shut.sock"),
    (socket.AF_UNIX, folder + "/no.sock"),
    (socket.AF_UNIX, folder + "/data.txt"),
    (socket.AF_UNIX, "\0observer witness"),
):
    with socket.socket(family) as client:
        client.connect_ex(address)
with socket.socket() as client:
    client.setblocking(False)
    assert client.connect_ex(("127.0.0.1", inet_open)) == errno.EINPROGRESS
    select.select([], [client], [])
    client.connect_ex(("127.0.0.1", inet_open))
    client.connect_ex(("127.0.0.1", inet_open))  # EISCONN
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
    client.connect(("127.0.0.1", inet_shut))
libc.connect(999, b"\0" * 16, 16)
libc.connect(0, b"\2\0" + b"\0" * 14, 16)  # no socket

sys.exit(5)
