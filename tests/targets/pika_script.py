"""pika without dramatiq: publishes messages of growing size to a queue of its own, takes them back one by one, and ends in order."""

import os

import pika

connection = pika.BlockingConnection(pika.URLParameters(os.environ["BROKER_URL"]))
channel = connection.channel()
queue = channel.queue_declare("", exclusive=True).method.queue
for power in range(19):
    channel.basic_publish("", queue, bytes(at % 251 for at in range(2**power)))
taken = 0
while taken < 19:
    method, _, body = channel.basic_get(queue, auto_ack=False)
    if method is not None:
        channel.basic_ack(method.delivery_tag)
        taken += 1
connection.close()
