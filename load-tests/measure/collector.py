"""A collector for the fault scenarios: takes what is posted to it as Application Insights does, and fails as it is told.

    python -m measure.collector PORT CONTROL

listens on 127.0.0.1:PORT for the gateway. On CONTROL, `POST /_mode` with a JSON object of `Mode`'s fields changes how it
behaves from then on, and `GET /_ids` tells the ids of all items so far: how often each was taken, and how often refused.
"""

import gzip
import json
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# What an exporter may send again.
TEMPORARY = {401, 403, 408, 429, 500, 502, 503, 504}


@dataclass
class Mode:
    """How batches are treated."""

    # Nobody listens, and open connections end with their next request.
    dead: bool = False
    status: int = 200
    # Before the answer.
    seconds: float = 0.0
    # Seconds in `Retry-After`; 0: none.
    retry_after: int = 0
    # Of a 206: the statuses of the items, in turn; what has 200 is taken.
    items: tuple = (200,)


class Collector:
    """What all connections share."""

    def __init__(self, port):
        self.port = port
        self.mode = Mode()
        self.server = None
        self.lock = threading.Lock()
        self.taken, self.refused = Counter(), Counter()
        self.batches = 0

    def order(self, mode):
        self.mode = Mode(**mode)
        if self.mode.dead and self.server:
            self.server.shutdown()
            self.server.server_close()
            self.server = None
        elif not self.mode.dead and not self.server:
            self.server = serve(self.port, ingestion(self))

    def take(self, items):
        """The status of the batch and those of its items."""
        mode = self.mode
        each = [mode.status] * len(items)
        if mode.status == 206:
            each = [mode.items[at % len(mode.items)] for at in range(len(items))]
        with self.lock:
            self.batches += 1
            for item, status in zip(items, each):
                if status == 200:
                    self.taken[item] += 1
                elif status not in TEMPORARY:
                    self.refused[item] += 1
        return mode, each


def serve(port, handler):
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def answer(self, status, content, **headers):
        data = json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def ingestion(collector):
    class Ingestion(Handler):
        def do_POST(self):
            batch = json.loads(gzip.decompress(self.body()))
            if collector.server is None:
                self.close_connection = True
                return
            mode, each = collector.take([item["data"]["baseData"]["id"] for item in batch])
            time.sleep(mode.seconds)
            errors = [{"index": at, "statusCode": status} for at, status in enumerate(each) if status != 200]
            wish = {"Retry_After": str(mode.retry_after)} if mode.retry_after else {}
            self.answer(mode.status, {"itemsReceived": len(each), "errors": errors}, **wish)

    return Ingestion


def control(collector):
    class Control(Handler):
        def do_POST(self):
            collector.order(json.loads(self.body()))
            self.answer(200, {})

        def do_GET(self):
            with collector.lock:
                self.answer(200, {"taken": collector.taken, "refused": collector.refused, "batches": collector.batches})

    return Control


def main():
    port, controlled = map(int, sys.argv[1:3])
    collector = Collector(port)
    collector.order({})
    serve(controlled, control(collector))
    threading.Event().wait()


if __name__ == "__main__":
    main()
