"""A master with workers and threads, as a target to attach to: python tree.py FOLDER PORT

Writes FOLDER/tree.json when the tree stands: {"master", "workers": [{"pid", "threads", "socket", "local_port"}]}. Each worker holds a
connection to 127.0.0.1:PORT and has sent "before N" on it. The master then reads orders from its standard input, a line each:
"fork" makes the first worker fork a child, which opens FOLDER/opened, writes "hello" to standard output and exits with 5;
"send" makes the first worker send a basic.ack of AMQP; "exit" ends all.
"""

import json
import os
import socket
import sys
import threading

# Frame of a method on channel 1, 13 bytes long: basic.ack (60, 80) of delivery 7.
ACK = b"\1" b"\0\1" b"\0\0\0\x0d" b"\0\x3c\0\x50" b"\0\0\0\0\0\0\0\7" b"\0" b"\xce"
folder, port = sys.argv[1], int(sys.argv[2])


def worker(number, orders, answers):
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(b"before %d" % number)
    for _ in range(2):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    threads = sorted(int(tid) for tid in os.listdir("/proc/self/task"))
    facts = {
        "pid": os.getpid(),
        "threads": threads,
        "socket": os.fstat(connection.fileno()).st_ino,
        "local_port": connection.getsockname()[1],
    }
    os.write(answers, (json.dumps(facts) + "\n").encode())
    while order := os.read(orders, 1):
        if order == b"f":
            child = os.fork()
            if child == 0:
                os.close(os.open(folder + "/opened", os.O_WRONLY | os.O_CREAT))
                os.write(1, b"hello\n")
                os._exit(5)
            os.waitpid(child, 0)
        elif order == b"s":
            connection.sendall(ACK)
            connection.recv(100)
        os.write(answers, b"done\n")
    os._exit(0)


workers = []
for number in range(3):
    order_reader, order_writer = os.pipe()
    answer_reader, answer_writer = os.pipe()
    if os.fork() == 0:
        os.close(order_writer)
        worker(number, order_reader, answer_writer)
    os.close(order_reader)
    os.close(answer_writer)
    workers.append((order_writer, os.fdopen(answer_reader)))
tree = {"master": os.getpid(), "workers": [json.loads(answers.readline()) for _, answers in workers]}
with open(folder + "/tree.json.new", "w") as file:
    json.dump(tree, file)
os.rename(folder + "/tree.json.new", folder + "/tree.json")
orders, answers = workers[0]
done = 0
for line in sys.stdin:
    if line == "exit\n":
        break
    os.write(orders, line[:1].encode())
    answers.readline()
    done += 1
    with open(folder + f"/done-{done}", "w"):
        pass
for orders, _ in workers:
    os.close(orders)
for _ in workers:
    os.wait()
