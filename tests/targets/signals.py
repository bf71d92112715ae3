"""Takes signals one by one and writes each one's number as a line to a file, after the line "ready": python signals.py FILE [ANY...]

TERM and USR2 end it when it was sent with the word as an argument: "until-term", "until-usr2"; otherwise only KILL does.
"""

import os
import signal
import sys

taken = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}
signal.pthread_sigmask(signal.SIG_BLOCK, taken)
file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
os.write(file, b"ready %d\n" % os.getpid())
last = {"until-term": signal.SIGTERM, "until-usr2": signal.SIGUSR2}
last = {last[word] for word in sys.argv[2:] if word in last}
while True:
    number = signal.sigwait(taken)
    os.write(file, b"%d\n" % number)
    if number in last:
        sys.exit(0)
