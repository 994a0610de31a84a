"""A replica for the fault scenarios: scores after a set time, and fails in the ways that replicas fail.

    python -m measure.replica PORT COUNTER

listens on 127.0.0.1:PORT. `POST /_mode` with a JSON object of `Mode`'s fields changes how it behaves from then on,
`GET /_stats` tells what it has seen; neither is counted. COUNTER is a file whose first eight bytes are the number of
calls in hand: whoever kills this process can read it afterwards.
"""

import asyncio
import json
import mmap
import socket
import struct
import sys
import time
from dataclasses import dataclass

BODY = json.dumps({"predictions": ["versicolor"], "probabilities": [[0.01, 0.98, 0.01]], "model": "iris"}).encode()
# A cut answer announces ANNOUNCED bytes, or an endless number of chunks, and ends after PASSED.
ANNOUNCED, PASSED = 65536, 16384
CUT_AFTER_SECONDS = 0.02
REAP_SECONDS = 0.5
# After a restart was ordered: how long a connection at rest is still served, its last answer saying that it is the last.
WIND_UP_SECONDS = 1.0


@dataclass
class Mode:
    """How calls are treated."""

    kind: str = "answer"  # answer | silent | cut
    status: int = 200
    seconds: float = 0.020
    # Connections that have been idle for so long are closed when the replica next has something to do, or a little later;
    # 0: never.
    keep_alive_seconds: float = 0.0
    # How an answer is cut: what frames it, `length` or `chunked`, and how the connection ends, `close` or `reset`.
    framing: str = "length"
    end: str = "close"


class Replica:
    """What all connections share."""

    def __init__(self, port, counter):
        self.port = port
        self.mode = Mode()
        self.connections = set()
        # Connections at rest, with the time since when; the longest at rest first.
        self.resting = {}
        self.server = None
        self.counter = counter
        self.in_hand = 0
        self.peak = 0
        self.arrivals = []
        self.answered = 0
        self.busy_seconds = 0.0
        self.idle_closes = 0
        self.late = 0
        self.accepted = 0

    async def listen(self):
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(lambda: Connection(self), "127.0.0.1", self.port, backlog=4096,
                                               reuse_address=True)

    def count(self, change):
        self.in_hand += change
        self.peak = max(self.peak, self.in_hand)
        self.counter[:8] = struct.pack("<q", self.in_hand)

    def order(self, order):
        """Takes a new mode, or refuses connections for a while as a replica does that is being restarted."""
        refuse = order.pop("refuse_seconds", 0)
        self.mode = Mode(**{**vars(self.mode), **order})
        if refuse:
            self.server.close()
            loop = asyncio.get_running_loop()
            for connection in self.connections:
                connection.last = True
            loop.call_later(WIND_UP_SECONDS, self.wind_up)
            loop.call_later(refuse, lambda: asyncio.ensure_future(self.listen()))

    def wind_up(self):
        for connection in list(self.resting):
            connection.transport.close()

    def reap(self):
        """Closes what has been at rest for too long."""
        kept = self.mode.keep_alive_seconds
        until = time.monotonic() - kept
        while kept and self.resting:
            connection, since = next(iter(self.resting.items()))
            if since > until:
                return
            connection.close_idle()

    async def reap_now_and_then(self):
        while True:
            await asyncio.sleep(REAP_SECONDS)
            self.reap()

    def stats(self):
        return {"calls": len(self.arrivals), "answered": self.answered, "in_hand": self.in_hand, "peak": self.peak,
                "arrivals": self.arrivals, "busy_seconds": self.busy_seconds, "idle_closes": self.idle_closes,
                "late": self.late, "accepted": self.accepted}


class Connection(asyncio.Protocol):
    """One connection: requests one after another, each read whole before it is treated."""

    def __init__(self, replica):
        self.replica = replica
        self.loop = asyncio.get_running_loop()
        self.buffer = bytearray()
        self.transport = None
        self.began = None
        self.timer = None
        self.shut = False
        self.last = False

    def connection_made(self, transport):
        self.transport = transport
        self.replica.accepted += 1
        self.replica.connections.add(self)
        self.rest()

    def connection_lost(self, _):
        self.replica.connections.discard(self)
        self.replica.resting.pop(self, None)
        self.disarm()
        if self.began is not None:
            self.done()

    def eof_received(self):
        return False

    def data_received(self, data):
        if self.shut:
            # The race of the scenario F03: a call was sent when this end had already been closed.
            self.replica.late += 1
            if self.replica.late % 2:
                self.reset()
            self.transport.abort()
            return
        self.replica.resting.pop(self, None)
        self.replica.reap()
        self.buffer += data
        while self.began is None and (request := self.take()):
            self.treat(*request)

    def take(self):
        """The next whole request, as path and body; `None` if it is not there yet."""
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = bytes(self.buffer[:end]).decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        start = end + 4
        if "chunked" in fields.get("transfer-encoding", ""):
            close = self.buffer.find(b"\r\n0\r\n\r\n", start - 2)
            if close < 0:
                return None
            body, stop = b"", close + 7
        else:
            stop = start + int(fields.get("content-length", 0))
            if len(self.buffer) < stop:
                return None
            body = bytes(self.buffer[start:stop])
        del self.buffer[:stop]
        return head[0].split(" ")[1], body

    def treat(self, path, body):
        replica, mode = self.replica, self.replica.mode
        if path.startswith("/_stats"):
            return self.write(200, json.dumps(replica.stats()).encode())
        if path.startswith("/_mode"):
            replica.order(json.loads(body))
            return self.write(200, b"{}")
        if path == "/":
            return self.write(200, b"{}")
        self.began = time.monotonic()
        replica.arrivals.append(self.began)
        replica.count(1)
        if mode.kind == "answer":
            self.timer = self.loop.call_later(mode.seconds, self.answer, mode)
        elif mode.kind == "cut":
            self.timer = self.loop.call_later(mode.seconds, self.begin_and_cut, mode)
        return None

    def answer(self, mode):
        self.done()
        self.replica.answered += 1
        self.write(mode.status, BODY)

    def begin_and_cut(self, mode):
        piece = b"x" * PASSED
        framing = f"Content-Length: {ANNOUNCED}" if mode.framing == "length" else "Transfer-Encoding: chunked"
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{framing}\r\n\r\n".encode()
        self.transport.write(head + (piece if mode.framing == "length" else b"%x\r\n%s\r\n" % (PASSED, piece)))
        # Long enough for what was written to be passed on: a reset may overtake what has not been read yet.
        self.timer = self.loop.call_later(CUT_AFTER_SECONDS, self.cut, mode)

    def cut(self, mode):
        self.done()
        if mode.end == "reset":
            self.reset()
            self.transport.abort()
        else:
            self.transport.close()

    def done(self):
        self.replica.busy_seconds += time.monotonic() - self.began
        self.began = None
        self.replica.count(-1)

    def write(self, status, body):
        last = "Connection: close\r\n" if self.last else ""
        self.transport.write(b"HTTP/1.1 %d Said\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s" % (
            status, last.encode(), len(body), body))
        if self.last:
            self.transport.close()
        else:
            self.rest()

    def rest(self):
        self.replica.resting[self] = time.monotonic()

    def close_idle(self):
        """Half a close, so that a call that comes too late is seen here, and then gets what a closed socket gives."""
        self.replica.resting.pop(self)
        self.replica.idle_closes += 1
        self.shut = True
        self.transport.write_eof()

    def reset(self):
        linger = struct.pack("ii", 1, 0)
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    def disarm(self):
        if self.timer:
            self.timer.cancel()
            self.timer = None


async def main(port, path):
    with open(path, "r+b") as file:
        replica = Replica(port, mmap.mmap(file.fileno(), 8))
    await replica.listen()
    await replica.reap_now_and_then()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
