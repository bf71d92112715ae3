"""An object store: moto's S3 on a free port of 127.0.0.1, with a bucket `fleet`. Prints the port, and ends with its standard input. With
`hold`, the first upload to be completed is not answered; it prints `held` then"""

import sys
import threading

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

moto = DomainDispatcherApplication(create_backend_app)
held = threading.Event()


def store(environ, start_response):
    completes = environ["REQUEST_METHOD"] == "POST" and "uploadId=" in environ.get("QUERY_STRING", "")
    if completes and "hold" in sys.argv and not held.is_set():
        held.set()
        print("held", flush=True)
        threading.Event().wait()
    return moto(environ, start_response)


class Silent(WSGIRequestHandler):
    def log_request(self, *_):
        pass


server = make_server("127.0.0.1", 0, store, threaded=True, request_handler=Silent)
threading.Thread(target=server.serve_forever, daemon=True).start()
boto3.client("s3", endpoint_url=f"http://127.0.0.1:{server.port}", region_name="us-east-1").create_bucket(Bucket="fleet")
print(server.port, flush=True)
sys.stdin.read()
