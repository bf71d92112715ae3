"""What a step of a scenario may do to its worker, its queues and its broker. It knows neither what is expected nor who observes.

A step is a script with `lab`, `os`, `signal`, `subprocess`, `sys` and `time` imported. It is over when it ends, or when it calls stay().
"""

import base64
import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import uuid

import pika

_told = json.load(open(os.environ["LAB_TOLD"]))
_values = _told["values"]
amqp_url, admin_url = _values["amqp_url"], _values["admin_url"]
host, port = _values["host"], int(_values["port"])
management_port = int(_values["management_port"])
vhost, scene, venv = _values["vhost"], _values["scene"], _values["venv"]
closed_port = int(_values["closed_port"])
port_a, port_b, port_c, port_d = (int(_values["port_" + letter]) for letter in "abcd")
session, observer, broker_pid = _told["session"], _told["observer"], _told["broker_pid"]


def stay():
    """Tells that this step is done, and keeps the process, with all that it holds, until the scenario is over."""
    open(os.environ["LAB_READY"], "w").close()
    while True:
        signal.pause()


def until(condition, what="a condition", limit=60):
    """Waits until condition() is true, and returns what it returned."""
    end = time.monotonic() + limit
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > end:
            raise TimeoutError("waited in vain for " + what)
        time.sleep(0.05)


def path(name):
    """A file of the scene."""
    return os.path.join(scene, name)


# Queues and messages


def connect(url=None):
    """A connection of one's own. Its client is called `lab`."""
    parameters = pika.URLParameters(url or amqp_url)
    parameters.client_properties = {"connection_name": "lab"}
    return pika.BlockingConnection(parameters)


def declare(queue, durable=True, exclusive=False, auto_delete=False, **arguments):
    """A queue as somebody else would declare it: x_max_length=5 is the argument x-max-length. An exclusive one needs stay()."""
    connection = connect()
    arguments = {name.replace("_", "-"): value for name, value in arguments.items()}
    connection.channel().queue_declare(
        queue, durable=durable, exclusive=exclusive, auto_delete=auto_delete, arguments=arguments
    )
    if exclusive:
        _keep_alive(connection)
    else:
        connection.close()


def declare_as_dramatiq(queue):
    """A queue with its delay queue and its dead letters, as a worker declares them."""
    connection = connect()
    _declare_as_dramatiq(connection.channel(), queue)
    connection.close()


def _declare_as_dramatiq(channel, queue):
    dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": queue + ".XQ"}
    channel.queue_declare(queue, durable=True, arguments=dead)
    channel.queue_declare(queue + ".DQ", durable=True, arguments=dead)
    channel.queue_declare(queue + ".XQ", durable=True, arguments={"x-message-ttl": 604800000})


def message(queue, actor, *args, at=None, **options):
    """A message's body, as dramatiq writes it. at: its timestamp, in seconds since the epoch."""
    return json.dumps(
        {
            "queue_name": queue,
            "actor_name": actor,
            "args": args,
            "kwargs": {},
            "options": options,
            "message_id": str(uuid.uuid4()),
            "message_timestamp": int((at or time.time()) * 1000),
        }
    ).encode()


def publish(queue, actor, *args, count=1, body=None, at=None, url=None, **options):
    """Puts messages into a queue, which is declared as a worker would when it is not there. body: these bytes instead."""
    connection = connect(url)
    channel = connection.channel()
    try:
        channel.queue_declare(queue, passive=True)
    except pika.exceptions.ChannelClosedByBroker:
        channel = connection.channel()
        _declare_as_dramatiq(channel, queue.removesuffix(".DQ"))
    channel.confirm_delivery()
    for _ in range(count):
        channel.basic_publish(
            "",
            queue,
            message(queue.removesuffix(".DQ"), actor, *args, at=at, **options) if body is None else body,
            pika.BasicProperties(delivery_mode=2),
        )
    connection.close()


def purge(queue):
    """Throws away what is ready in a queue."""
    connection = connect()
    connection.channel().queue_purge(queue)
    connection.close()


def delete(queue):
    """Deletes a queue."""
    connection = connect()
    connection.channel().queue_delete(queue)
    connection.close()


def ready(queue):
    """How many messages wait in a queue; None when there is no such queue."""
    connection = connect()
    try:
        return connection.channel().queue_declare(queue, passive=True).method.message_count
    except pika.exceptions.ChannelClosedByBroker:
        return None
    finally:
        connection.close()


def consumers(queue):
    """How many consumers a queue has; None when there is no such queue."""
    connection = connect()
    try:
        return connection.channel().queue_declare(queue, passive=True).method.consumer_count
    except pika.exceptions.ChannelClosedByBroker:
        return None
    finally:
        connection.close()


def rival(queue, prefetch=0, ack=True, exclusive=False, priority=None, url=None):
    """Consumes a queue from now on, in a thread; needs stay(). With ack=False it takes messages and keeps them."""
    connection = connect(url)
    channel = connection.channel()
    channel.basic_qos(prefetch_count=prefetch)

    def take(channel, method, properties, body):
        if ack:
            channel.basic_ack(method.delivery_tag)

    arguments = {} if priority is None else {"x-priority": priority}
    channel.basic_consume(queue, take, exclusive=exclusive, arguments=arguments)
    threading.Thread(target=channel.start_consuming, daemon=True).start()


def _keep_alive(connection):
    def pump():
        while True:
            connection.process_data_events(time_limit=1)

    threading.Thread(target=pump, daemon=True).start()


# The broker


def api(method, path, body=None):
    """A request to the management API, as guest: api("PUT", f"/api/vhost-limits/{lab.vhost}/max-connections", {"value": 1})."""
    connection = http.client.HTTPConnection("127.0.0.1", management_port, timeout=30)
    headers = {
        "Authorization": "Basic " + base64.b64encode(b"guest:guest").decode(),
        "Content-Type": "application/json",
    }
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    text = answer.read()
    if answer.status >= 400:
        raise RuntimeError(f"{method} {path}: {answer.status} {text!r}")
    return json.loads(text) if text else None


def user(name, password, configure=".*", write=".*", read=".*", access=True):
    """A user called VHOST-NAME, with these permissions in the scenario's virtual host, or none at all. Removed with it."""
    full = f"{vhost}-{name}"
    api("PUT", f"/api/users/{full}", {"password": password, "tags": ""})
    if access:
        permissions = {"configure": configure, "write": write, "read": read}
        api("PUT", f"/api/permissions/{vhost}/{full}", permissions)
    return full


def ctl(*words):
    """rabbitmqctl on the scenario's node. For what changes the whole node, it must be one of its own."""
    tools = _told["tools"]
    command = [os.path.join(tools["folder"], "rabbitmqctl"), "--quiet", *words]
    environment = {**os.environ, **tools["environment"]}
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


# The observed processes


def _stat(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return int(fields[1]), int(fields[19])


def tree():
    """All processes of the observed command, as (pid, words), the oldest first."""
    parents, begun = {}, {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parents[int(entry)], begun[int(entry)] = _stat(entry)
            except OSError:
                pass
    found = [observer]
    for above in found:
        found.extend(pid for pid, parent in parents.items() if parent == above)
    return [(pid, _words(pid)) for pid in sorted(found[1:], key=lambda pid: (begun[pid], pid))]


def _words(pid):
    try:
        return open(f"/proc/{pid}/cmdline", "rb").read().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def _is_dramatiq(words):
    if len(words) > 1 and os.path.basename(words[1]) == "dramatiq":
        return True
    for word, after in zip(words[1:], words[2:]):
        if word == "-m":
            return after == "dramatiq"
        if not word.startswith("-"):
            return False
    return False


def master():
    """The process id of dramatiq's parent process; waits for it."""
    found = until(lambda: [pid for pid, words in tree() if _is_dramatiq(words)], "dramatiq's parent process")
    return found[0]


def workers():
    """The process ids of its worker processes, the oldest first; waits for the first."""
    above = master()

    def found():
        return [
            pid
            for pid, words in tree()
            if _stat(pid)[0] == above and "resource_tracker" not in " ".join(words)
        ]

    return until(found, "a worker process")


def kill(pid, number=signal.SIGTERM):
    """Sends a signal, from this very process."""
    os.kill(pid, number)


# Ports that behave oddly: {port_a} … {port_d} of the scenario


def listen(port, answer=b"", close=False, wait_for_bytes=True):
    """Accepts connections, waits for the first bytes, answers with these, and then closes or says nothing more. Needs stay()."""
    listener = socket.create_server(("127.0.0.1", port))
    kept = []

    def serve(peer):
        if wait_for_bytes:
            peer.recv(65536)
        peer.sendall(answer)
        if close:
            peer.close()

    def accept():
        while True:
            peer, _ = listener.accept()
            kept.append(peer)
            threading.Thread(target=serve, args=(peer,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def listen_full(port):
    """Listens, accepts nobody, and has its backlog full: who connects gets no answer at all. Needs stay()."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(0)
    kept = [listener]
    while True:
        one = socket.socket()
        one.settimeout(0.5)
        kept.append(one)
        try:
            one.connect(("127.0.0.1", port))
        except TimeoutError:
            break
    listen_full.kept = kept


def listen_tls(port):
    """Speaks TLS, with a certificate of its own making, and then says nothing. Needs stay()."""
    import ssl

    base = os.path.join(os.path.dirname(os.environ["LAB_TOLD"]), f"tls-{port}")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=broker.invalid"]
        + ["-keyout", base + ".key", "-out", base + ".crt"],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(base + ".crt", base + ".key")
    listener = socket.create_server(("127.0.0.1", port))
    kept = []

    def serve(peer):
        try:
            kept.append(context.wrap_socket(peer, server_side=True))
        except OSError:
            peer.close()

    def accept():
        while True:
            peer, _ = listener.accept()
            threading.Thread(target=serve, args=(peer,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def proxy(port, to=None):
    """Passes connections on to the broker. Needs stay(); a later step steers it with proxy_do()."""
    mode = _proxy_file(port)
    open(mode, "w").write("pass")
    listener = socket.create_server(("127.0.0.1", port))
    pairs = []

    def steer():
        return open(mode).read()

    def copy(source, target):
        try:
            while data := source.recv(65536):
                while steer() == "freeze":
                    time.sleep(0.05)
                target.sendall(data)
        except OSError:
            pass
        for one in (source, target):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def accept():
        while True:
            client, _ = listener.accept()
            if steer() == "cut":
                _reset(client)
                continue
            server = socket.create_connection(("127.0.0.1", to or globals()["port"]))
            pairs.append((client, server))
            for pair in ((client, server), (server, client)):
                threading.Thread(target=copy, args=pair, daemon=True).start()

    def cut():
        while True:
            if steer() in ("cut", "reset"):
                while pairs:
                    for one in pairs.pop():
                        _reset(one)
                if steer() == "reset":
                    open(mode, "w").write("pass")
            time.sleep(0.05)

    for task in (accept, cut):
        threading.Thread(target=task, daemon=True).start()


def proxy_do(port, what):
    """pass: as a wire does. freeze: nothing gets through any more. reset: all connections are reset, new ones pass. cut: those too."""
    temporary = _proxy_file(port) + ".new"
    open(temporary, "w").write(what)
    os.rename(temporary, _proxy_file(port))


def _proxy_file(port):
    return os.path.join(os.path.dirname(os.environ["LAB_TOLD"]), f"proxy-{port}")


def _reset(one):
    try:
        # The thread that reads it would keep it open.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        one.shutdown(socket.SHUT_RD)
        one.close()
    except OSError:
        pass
