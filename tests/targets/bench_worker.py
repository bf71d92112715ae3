"""An empty actor that times how long a known number of messages takes, then stops its worker.

BENCH_MESSAGES: how many; BENCH_RESULT: the file that receives {"first_ns", "last_ns", "messages"}, on the monotonic clock.
"""

import itertools
import json
import os
import signal
import time

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

broker = RabbitmqBroker(url=os.environ["BROKER_URL"])
dramatiq.set_broker(broker)

LAST = int(os.environ.get("BENCH_MESSAGES", "0"))
# next() on it is atomic: threads share it without a lock.
numbers = itertools.count(1)
first_ns = 0


@dramatiq.actor(queue_name="bench")
def nothing():
    global first_ns
    number = next(numbers)
    if number == 1:
        first_ns = time.monotonic_ns()
    if number == LAST:
        last_ns = time.monotonic_ns()
        result = os.environ["BENCH_RESULT"]
        with open(result + ".new", "w") as file:
            json.dump({"first_ns": first_ns, "last_ns": last_ns, "messages": LAST}, file)
        os.rename(result + ".new", result)
        os.kill(os.getppid(), signal.SIGTERM)
