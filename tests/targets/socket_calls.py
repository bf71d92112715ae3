"""Sends and receives by every call there is, on one connection: socket_calls.py PORT. What is sent is one AMQP frame for each call.

The other side answers each frame's arrival with nothing until `go` is reached; then it sends all it has and ends its direction.
"""

import os
import socket
import sys
import tempfile

client = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
fd = client.fileno()


def frame(text, size=0):
    payload = text + b"." * (size - len(text))
    return b"\x03\x00\x01" + len(payload).to_bytes(4, "big") + payload + b"\xce"


def split(data):
    """Four buffers, one of them empty."""
    return [data[:3], b"", data[3:9], data[9:]]


client.send(b"AMQP\0\0\x09\x01")
client.send(frame(b"send"))
client.sendto(frame(b"sendto"), ("127.0.0.1", int(sys.argv[1])))
client.sendmsg(split(frame(b"sendmsg", 40_000)))
os.write(fd, frame(b"write"))
os.writev(fd, split(frame(b"writev", 20_000)))
client.sendall(frame(b"sendall", 100_000))
many = frame(b"as many buffers as the kernel takes", 41_000)
many = [many[:40_000]] + [bytes([byte]) for byte in many[40_000:]]
client.sendmsg(many + [b""] * (1024 - len(many)))

# From a file and from a pipe: no buffer of the program holds these. They stand inside a frame.
with tempfile.TemporaryFile() as file:
    file.write(b"f" * 30_000)
    file.flush()
    client.send(frame(b"", 30_000)[:7])
    sent = 0
    while sent < 30_000:
        sent += os.sendfile(fd, file.fileno(), sent, 30_000 - sent)
    client.send(b"\xce")
reader, writer = os.pipe()
client.send(frame(b"", 5_000)[:7])
os.write(writer, b"p" * 5_000)
spliced = 0
while spliced < 5_000:
    spliced += os.splice(reader, fd, 5_000 - spliced)
client.send(b"\xce")

# By other names.
other = os.dup(fd)
os.write(other, frame(b"dup"))
os.close(other)
third = os.dup2(fd, 200)
client.send(frame(b"after dup2"))
os.write(third, frame(b"dup2"))
pid = os.fork()
if pid == 0:
    client.send(frame(b"child"))
    os._exit(0)
os.waitpid(pid, 0)
client.send(frame(b"go"))


def exactly(count, receive):
    """A call may bring less than was asked for."""
    while count > 0:
        got = receive(count)
        assert got > 0, count
        count -= got


def into(count, call):
    return call([bytearray(3), bytearray(), bytearray(count - 3)] if count > 3 else [bytearray(count)])


client.recv(5, socket.MSG_PEEK)
exactly(1_000, lambda count: len(client.recv(count)))
exactly(1_000, lambda count: client.recv_into(bytearray(count), count))
exactly(1_000, lambda count: len(client.recvfrom(count)[0]))
client.recvmsg(100, 0, socket.MSG_PEEK)
exactly(1_000, lambda count: len(client.recvmsg(count)[0]))
exactly(50_000, lambda count: into(count, client.recvmsg_into)[0])
exactly(1_000, lambda count: len(os.read(fd, count)))
client.recv(100_000, socket.MSG_PEEK | socket.MSG_DONTWAIT)
exactly(50_000, lambda count: into(count, lambda buffers: os.readv(fd, buffers)))
exactly(5_000, lambda count: os.splice(fd, writer, count))
pid = os.fork()
if pid == 0:
    exactly(1_000, lambda count: len(client.recv(count)))
    os._exit(0)
os.waitpid(pid, 0)
exactly(100_000, lambda count: len(client.recv(count, socket.MSG_WAITALL)))
client.setblocking(False)
try:
    while client.recv(100):
        pass
except BlockingIOError:
    pass
client.setblocking(True)
while client.recv(100):
    pass
client.close()
