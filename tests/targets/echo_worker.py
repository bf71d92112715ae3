"""Messages both ways: what `echo` gets it sends on to `sink`, which stops the worker after ECHO_MESSAGES of them."""

import itertools
import os
import signal

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

broker = RabbitmqBroker(url=os.environ["BROKER_URL"])
dramatiq.set_broker(broker)

LAST = int(os.environ.get("ECHO_MESSAGES", "0"))
# next() on it is atomic: threads share it without a lock.
numbers = itertools.count(1)


@dramatiq.actor(queue_name="echo")
def echo(text):
    sink.send(text)


@dramatiq.actor(queue_name="sink")
def sink(text):
    if next(numbers) == LAST:
        os.kill(os.getppid(), signal.SIGTERM)
