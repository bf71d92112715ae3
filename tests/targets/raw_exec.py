"""Starts a command with an environment that no shell would make, after our own: python raw_exec.py COMMAND..."""

import ctypes
import os
import shutil
import sys

ODD = [b"no equals sign", b"=", b"TWICE=1", b"TWICE=2", b"", b"BYTES=\xff\xfe"]

argv = [os.fsencode(word) for word in sys.argv[1:]]
env = [name + b"=" + value for name, value in os.environb.items()] + ODD
libc = ctypes.CDLL(None, use_errno=True)
libc.execve(
    os.fsencode(shutil.which(argv[0])),
    (ctypes.c_char_p * (len(argv) + 1))(*argv, None),
    (ctypes.c_char_p * (len(env) + 1))(*env, None),
)
raise OSError(ctypes.get_errno(), "execve")
