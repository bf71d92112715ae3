"""Goes on for ever: python lives_on.py FOLDER

Four threads count in FOLDER/counts, a child in FOLDER/child; another child, whose id is in FOLDER/stopped, has stopped itself and makes
FOLDER/continued when it is let go on.
"""

import os
import signal
import sys
import threading

folder = sys.argv[1]


def write(name, *numbers):
    text = "".join(f"{number:020}\n" for number in numbers)
    fd = os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT, 0o666)
    os.pwrite(fd, text.encode(), 0)
    os.close(fd)


if os.fork() == 0:
    number = 0
    while True:
        number += 1
        write("child", number)

stopped = os.fork()
if stopped == 0:
    os.kill(os.getpid(), signal.SIGSTOP)
    write("continued")
    while True:
        signal.pause()
os.waitpid(stopped, os.WUNTRACED)
write("stopped", stopped)

counts = [0] * 4


def count(place):
    while True:
        os.stat("/")
        counts[place] += 1


for place in range(len(counts)):
    threading.Thread(target=count, args=[place], daemon=True).start()
while True:
    write("counts", *counts)
