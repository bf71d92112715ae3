"""pika without dramatiq: as much of AMQP as fits into a short run, two channels and an error among it."""

import os
import uuid

import pika

connection = pika.BlockingConnection(pika.URLParameters(os.environ["BROKER_URL"]))
queue = f"conversation-{uuid.uuid4()}"
channel = connection.channel()
channel.exchange_declare(queue, "fanout", auto_delete=True)
channel.queue_declare(queue, arguments={"x-max-length": 100})
channel.queue_bind(queue, queue)

other = connection.channel()
try:
    other.queue_declare(queue, arguments={"x-max-length": 7})
except pika.exceptions.ChannelClosedByBroker as error:
    assert error.reply_code == 406, error

channel.basic_publish(queue, "", b"unconfirmed")
channel.confirm_delivery()
# An empty body has no body frame, a long one has several.
for size in (0, 1, 1000, 300_000):
    channel.basic_publish("", queue, bytes(size), mandatory=True)
try:
    channel.basic_publish("", "nowhere", b"comes back", mandatory=True)
except pika.exceptions.UnroutableError:
    pass

channel.basic_qos(prefetch_count=3)
taken = 0
for method, _, _ in channel.consume(queue):
    taken += 1
    if taken == 1:
        channel.basic_nack(method.delivery_tag, requeue=True)
    elif taken == 2:
        channel.basic_reject(method.delivery_tag, requeue=False)
    else:
        channel.basic_ack(method.delivery_tag)
    if taken == 6:
        break
channel.cancel()
assert channel.basic_get(queue)[0] is None

channel.queue_purge(queue)
channel.queue_delete(queue)
connection.close()
