"""Starts a worker without dramatiq's command line."""

import logging
import signal

from dramatiq import Worker

from minimal_worker import broker

logging.basicConfig(level=logging.INFO)
stop = signal.SIGTERM, signal.SIGINT
signal.pthread_sigmask(signal.SIG_BLOCK, stop)
worker = Worker(broker, worker_threads=2)
worker.start()
signal.sigwait(stop)
worker.stop()
