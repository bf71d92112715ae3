# Runs inside the machine: takes a request a line from a virtio port, runs its script, answers with a line. It knows no test.
import json
import os
import subprocess

port = os.open("/dev/virtio-ports/agent", os.O_RDWR)


def say(answer):
    data = (json.dumps(answer) + "\n").encode()
    while data:
        data = data[os.write(port, data):]


def text(output):
    return (output or b"").decode("utf-8", "replace")


say({"ready": True})
for line in os.fdopen(os.dup(port), "rb"):
    request = json.loads(line)
    if request["user"] == "root":
        words = ["/bin/sh", "-c", request["script"]]
    else:
        words = ["runuser", "-l", request["user"], "-c", request["script"]]
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=request["limit_s"])
        say({"status": done.returncode, "out": text(done.stdout), "err": text(done.stderr)})
    except subprocess.TimeoutExpired as late:
        say({"status": 124, "out": text(late.stdout), "err": text(late.stderr) + "\nit takes too long"})
