"""Speaks to the service's control socket as no client of ours would, and prints what became of it, as JSON: python -I knocks.py SOCKET HOW

lines          sends each line of standard input on a connection of its own; prints the first line of each answer, or null
pieces         the same for a JSON list of {"hex": what, "times": how often, "silent": whether to stay}: [seconds until hung up, answers]
hoard COUNT    tries to hold so many connections, says how many were open at the end, and holds them until standard input ends
mute           asks for the status again and again and reads nothing: seconds until that is hung up on
fuzz SEED N    sends so many random requests: how often which kind of answer came
"""

import json
import random
import select
import socket
import sys
import time

PATIENCE = 60
path, how = sys.argv[1:3]


def connect():
    peer = socket.socket(socket.AF_UNIX)
    # Waits where too many are in line, which a connect with a time limit would not.
    peer.connect(path)
    peer.settimeout(PATIENCE)
    return peer


def send(peer, data):
    try:
        peer.sendall(data)
    except OSError:
        pass  # Hung up on in the middle of it.


def answers(peer):
    """All lines until the other end hangs up."""
    data = b""
    while True:
        try:
            more = peer.recv(65536)
        except ConnectionError:
            break
        if not more:
            break
        data += more
    return [json.loads(line) for line in data.splitlines()]


def once(data, silent=False):
    peer = connect()
    begun = time.monotonic()
    send(peer, data)
    if not silent:
        try:
            peer.shutdown(socket.SHUT_WR)
        except OSError:
            pass
    said = answers(peer)
    return [time.monotonic() - begun, said]


def hoard(count):
    peers = []
    for _ in range(count):
        try:
            peers.append(connect())
        except OSError:
            pass
    # Who waits in line is neither served nor hung up on yet.
    until = time.monotonic() + 5
    while time.monotonic() < until and peers:
        gone = [peer for peer in select.select(peers, [], [], 0.5)[0]]
        peers = [peer for peer in peers if peer not in gone]
    still = len(peers)
    print(json.dumps(still), flush=True)
    sys.stdin.read()


def mute():
    peer = connect()
    begun = time.monotonic()
    try:
        while True:
            peer.sendall(b'{"op":"status"}\n' * 100)
    except OSError as error:
        return [time.monotonic() - begun, isinstance(error, TimeoutError)]


NAMES = ["op", "pid", "held", "command", "name", "broker", "management", "firehose", "bodies", "id", "on", "reply", "", "\0", "__proto__"]
WORDS = ["status", "record", "let-go", "wait", "pin", "stop", "../../etc/passwd", "/", "..", "a\nb", "\x1b[31m", "\0", "x" * 5000, "worker",
         "amqp://a:b@127.0.0.1:1/", "amqp://[::1", "-", ".", "é\u202e", "20260101-000000-00000000", "' OR 1=1 --", "%s%n", ""]
NUMBERS = [0, 1, -1, 2, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63, 2**64, 1e308, -0.0, 1.5]


def value(rng, depth=0):
    kind = rng.randrange(8 if depth < 4 else 6)
    if kind == 0:
        return rng.choice([None, True, False])
    if kind < 3:
        return rng.choice(NUMBERS)
    if kind < 6:
        return rng.choice(WORDS)
    if kind == 6:
        return [value(rng, depth + 1) for _ in range(rng.randrange(6))]
    return {rng.choice(NAMES): value(rng, depth + 1) for _ in range(rng.randrange(6))}


def request(rng):
    document = {rng.choice(NAMES): value(rng) for _ in range(rng.randrange(8))}
    if rng.random() < 0.8:
        document["op"] = rng.choice(WORDS[:5])
    if rng.random() < 0.5:
        document["pid"] = rng.choice([0, 1, 2, 2**31, 2**32 - 1])
    if rng.random() < 0.5:
        document["id"] = rng.choice(WORDS)
    line = bytearray(json.dumps(document).encode())
    if rng.random() < 0.3:
        for _ in range(rng.randrange(1, 6)):
            line[rng.randrange(len(line))] = rng.randrange(256)
    return bytes(line).replace(b"\n", b" ") + b"\n"


def fuzz(seed, count):
    rng = random.Random(seed)
    counts, peer, stream = {}, None, None
    for _ in range(count):
        if peer is None:
            peer = connect()
            stream = peer.makefile("rb")
        send(peer, request(rng))
        try:
            line = stream.readline()
        except ConnectionError:
            line = b""
        kind = json.loads(line)["reply"] if line else "hung up"
        counts[kind] = counts.get(kind, 0) + 1
        if not line:
            peer.close()
            peer = None
    return counts


if how == "lines":
    for line in sys.stdin.buffer:
        said = once(line)[1]
        print(json.dumps(said[0] if said else None), flush=True)
elif how == "pieces":
    print(json.dumps([once(bytes.fromhex(one["hex"]) * one.get("times", 1), one.get("silent")) for one in json.load(sys.stdin)]))
elif how == "hoard":
    hoard(int(sys.argv[3]))
elif how == "mute":
    print(json.dumps(mute()))
else:
    print(json.dumps(fuzz(int(sys.argv[3]), int(sys.argv[4]))))
