"""An Application Insights ingestion server: it plays the replies that it is told to, and checks every item that it gets."""

import collections
import dataclasses
import gzip
import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import insights_schema

KEY = "99999999-8888-4777-8666-555555555555"
# What an exporter may send again (Azure's exporters have the same list).
TEMPORARY = {401, 403, 408, 429, 500, 502, 503, 504}
PATIENCE_SECONDS = 30


@dataclasses.dataclass(frozen=True)
class Play:
    """What is done with one request."""

    status: int = 200
    headers: tuple = ()
    # 206: the statuses of the items, in turn; what has 200 is taken.
    items: tuple = ()
    seconds: float = 0.0
    # Ends the connection instead of an answer.
    cut: bool = False


@dataclasses.dataclass
class Request:
    """One POST as it came."""

    at: float
    path: str
    headers: dict
    items: list
    play: Play


class Ingestion:
    """One server on a port of its own, which it keeps when it dies and comes back."""

    def __init__(self, certs=None):
        self.tls = None
        if certs:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(certs / "server.pem", certs / "server.key")
        self.lock = threading.Lock()
        self.script = collections.deque()
        self.requests = []
        # Ids of items (or names, of those without) that were taken, and that were refused for good; how often.
        self.taken, self.refused = collections.Counter(), collections.Counter()
        self.faults = []
        self.port, self.server = 0, None
        self.is_back()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.dies()

    @property
    def url(self):
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def connection_string(self):
        return f"InstrumentationKey={KEY};IngestionEndpoint={self.url}/"

    def plays(self, *plays):
        """Plays these, then takes everything."""
        with self.lock:
            self.script.extend(plays)

    def dies(self):
        """From now on nobody listens, and open connections end with their next request."""
        server, self.server = self.server, None
        if server:
            server.shutdown()
            server.server_close()

    def is_back(self):
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), handler(self))
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        if self.tls:
            # The handshake is for the thread of the connection: one that fails must not end the accepting.
            self.server.socket = self.tls.wrap_socket(
                self.server.socket, server_side=True, do_handshake_on_connect=False
            )
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def items(self, kind):
        """All items of a kind that were taken, in their order."""
        with self.lock:
            return [
                item
                for request in self.requests
                for item, status in zip(request.items, statuses(request))
                if status == 200 and item["data"]["baseType"] == kind
            ]

    def got(self, path, headers, body):
        """Checks a request and says what to do with it."""
        text = gzip.decompress(body) if headers.get("Content-Encoding") == "gzip" else body
        items = json.loads(text)
        found = [fault for item in items for fault in insights_schema.faults(item)]
        found += [f"an item of {size} bytes" for it in items if (size := len(json.dumps(it))) > insights_schema.ITEM_BYTES]
        if path != "/v2.1/track" or headers.get("Content-Type") != "application/json":
            found.append(f"{path} with {headers.get('Content-Type')}")
        with self.lock:
            self.faults += found
            play = self.script.popleft() if self.script else Play()
            request = Request(time.monotonic(), path, dict(headers), items, play)
            self.requests.append(request)
            for item, status in zip(items, statuses(request)):
                name = item["data"]["baseData"].get("id", item["name"])
                if status == 200:
                    self.taken[name] += 1
                elif status not in TEMPORARY and status // 100 != 3:
                    self.refused[name] += 1
        return play, request


def statuses(request):
    """What becomes of each item."""
    play = request.play
    if play.cut:
        return [503] * len(request.items)
    if play.status != 206:
        return [play.status] * len(request.items)
    return [play.items[at % len(play.items)] for at in range(len(request.items))]


def answer(request):
    """The body that ingestion answers with."""
    found = statuses(request)
    errors = [
        {"index": at, "statusCode": status, "message": "played"} for at, status in enumerate(found) if status != 200
    ]
    return json.dumps({"itemsReceived": len(found), "itemsAccepted": found.count(200), "errors": errors}).encode()


def handler(ingestion):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = PATIENCE_SECONDS

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.close_connection = ingestion.server is None
            if self.close_connection:
                return
            play, request = ingestion.got(self.path, self.headers, body)
            time.sleep(play.seconds)
            self.close_connection = play.cut
            if play.cut:
                return
            content = answer(request)
            self.send_response(play.status)
            for name, value in play.headers:
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    return Handler
