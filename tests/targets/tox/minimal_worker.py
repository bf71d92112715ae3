"""One actor, one queue."""

import os

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

broker = RabbitmqBroker(url=os.environ.get("BROKER_URL", "amqp://guest:guest@127.0.0.1:5670"))
dramatiq.set_broker(broker)


@dramatiq.actor
def count_words(text):
    print(f"counted {len(text.split())} words", flush=True)
