"""Callers that do not wait for each other: calls at a steady rate or in bursts, over HTTP/1.1 and HTTP/2, none retried.

An open loop: a call begins when it is due, however many are still under way, and its time counts from then. HTTP/1.1
calls take a kept connection if one is at rest, else a new one; HTTP/2 calls share a few connections.
"""

import asyncio
import importlib
import ssl
import time
import uuid
from dataclasses import dataclass, field

FEWEST_H2_CONNECTIONS = 2
# After the last call was due; what has no answer by then counts as never answered.
PATIENCE_SECONDS = 30
MARK = "x-ms-client-request-id"
HTTP1, HTTP2 = "http/1.1", "h2"


@dataclass
class Call:
    """One call and what came of it. Times are of the monotonic clock."""

    protocol: str
    due: float
    ended: float = 0.0
    status: int = 0
    headers: dict = field(default_factory=dict)
    body_bytes: int = 0
    # Why there was no whole answer; empty if there was one.
    fault: str = "unfinished"
    done: object = None
    # What it says of itself: a call that gets no answer is found in the records by it.
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def seconds(self):
        return self.ended - self.due

    @property
    def ok(self):
        return not self.fault and self.status == 200

    def end(self, fault=""):
        if self.ended:
            return
        self.ended, self.fault = time.monotonic(), fault
        self.done.set_result(None)


class Callers:
    """Everything needed to call one target; used within one event loop."""

    def __init__(self, target):
        self.target = target
        self.body = target.body.read_bytes()
        self.trust = {protocol: trust(target.certificate, protocol) for protocol in (HTTP1, HTTP2)}
        self.resting = []
        self.shared = []
        self.every = set()
        self.calls = 0
        self.under_way = 0
        self.peak = 0

    async def steady(self, rate, seconds, protocols=(HTTP1, HTTP2)):
        """`rate` calls a second for so long, the protocols in turn. Returns the calls when all have ended."""
        loop = asyncio.get_running_loop()
        begin = time.monotonic() + 0.01
        tasks = []
        for number in range(round(rate * seconds)):
            due = begin + number / rate
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            tasks.append(loop.create_task(self.call(protocols[number % len(protocols)], due)))
        return await self.gather(tasks)

    async def burst(self, count, protocols=(HTTP1, HTTP2)):
        """So many calls at once."""
        loop, due = asyncio.get_running_loop(), time.monotonic()
        return await self.gather([loop.create_task(self.call(protocols[number % len(protocols)], due))
                                  for number in range(count)])

    async def gather(self, tasks):
        done, late = await asyncio.wait(tasks, timeout=PATIENCE_SECONDS)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)
        return [task.result() for task in tasks]

    async def call(self, protocol, due=None):
        """One call. It never raises: what went wrong is in the result."""
        call = Call(protocol, due or time.monotonic())
        call.done = asyncio.get_running_loop().create_future()
        self.calls += 1
        self.under_way += 1
        self.peak = max(self.peak, self.under_way)
        try:
            connection = await (self.take() if protocol == HTTP1 else self.share())
            connection.send(call)
            await call.done
        except OSError as error:
            call.end(f"not sent: {error!r}")
        except asyncio.CancelledError:
            call.end("never answered")
        finally:
            self.under_way -= 1
        return call

    async def take(self):
        """A kept HTTP/1.1 connection, the one that rests for the shortest time first."""
        while self.resting:
            connection = self.resting.pop()
            if connection.open:
                return connection
        return await self.connect(HTTP1, Http1)

    async def share(self):
        """The HTTP/2 connection with the fewest calls on it, or one more if all are full."""
        self.shared = [it for it in self.shared if isinstance(it, asyncio.Future) or it.open]
        ready = [it for it in self.shared if not isinstance(it, asyncio.Future) and it.room(len(self.body))]
        opening = [it for it in self.shared if isinstance(it, asyncio.Future)]
        if ready and (len(self.shared) >= FEWEST_H2_CONNECTIONS or opening):
            best = min(ready, key=lambda it: it.taken)
        elif opening:
            best = await asyncio.shield(opening[0])
            if not best.room(len(self.body)):
                return await self.share()
        else:
            promise = asyncio.ensure_future(self.connect(HTTP2, http2().Http2))
            self.shared.append(promise)
            try:
                best = await asyncio.shield(promise)
            except BaseException:
                self.shared.remove(promise)
                raise
            self.shared[self.shared.index(promise)] = best
        best.taken += 1
        return best

    async def connect(self, protocol, kind):
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: kind(self), "127.0.0.1", self.target.port, ssl=self.trust[protocol], server_hostname="127.0.0.1")
        if connection.transport.get_extra_info("ssl_object").selected_alpn_protocol() != protocol:
            raise OSError(f"{protocol} was not negotiated")
        self.every.add(connection)
        return connection

    async def close(self):
        """Ends every connection and waits until that has been done."""
        for connection in list(self.every):
            connection.transport.abort()
        while self.every:
            await asyncio.sleep(0.01)


def http2():
    """The module that needs a library; only who calls over HTTP/2 has to have it."""
    return importlib.import_module(".http2", __package__)


def trust(certificate, protocol):
    context = ssl.create_default_context(cafile=certificate)
    context.set_alpn_protocols([protocol])
    return context


class Connection(asyncio.Protocol):
    """What both protocols share."""

    def __init__(self, callers):
        self.callers = callers
        self.transport = None
        self.open = True

    def connection_made(self, transport):
        self.transport = transport

    def eof_received(self):
        self.open = False

    def connection_lost(self, error):
        self.open = False
        self.callers.every.discard(self)
        self.fail(f"connection lost: {error!r}" if error else "connection closed")


class Http1(Connection):
    """One call at a time. The answer is framed by its length, by chunks, or by the end of the connection."""

    def __init__(self, callers):
        super().__init__(callers)
        target = callers.target
        self.head = (f"POST {target.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {target.key}\r\n"
                     f"Content-Type: application/json\r\nContent-Length: {len(callers.body)}\r\n{MARK}: ")
        self.current = None
        self.buffer = bytearray()
        self.left = None

    def send(self, call):
        if not self.open:
            raise OSError("closed before it was used")
        self.current, self.left = call, None
        self.transport.write(f"{self.head}{call.mark}\r\n\r\n".encode() + self.callers.body)

    def data_received(self, data):
        self.buffer += data
        while self.current and self.left is None and self.read_head():
            pass
        if self.current and self.left is not None:
            self.read_body()

    def read_head(self):
        """Reads one head, if it is there; an informational one is passed over."""
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        lines = bytes(self.buffer[:end]).decode("latin-1").split("\r\n")
        del self.buffer[:end + 4]
        status = int(lines[0].split(" ")[1])
        if status < 200:
            return True
        call = self.current
        call.status = status
        call.headers = {name.lower(): value.strip() for name, _, value in (it.partition(":") for it in lines[1:])}
        if "chunked" in call.headers.get("transfer-encoding", ""):
            self.left = "chunks"
        elif "content-length" in call.headers:
            self.left = int(call.headers["content-length"])
        else:
            self.left = "end"
        return True

    def read_body(self):
        if self.left == "chunks":
            return self.read_chunks()
        self.current.body_bytes += len(self.buffer)
        if self.left != "end":
            self.left -= len(self.buffer)
        self.buffer.clear()
        if self.left == 0:
            self.finish()
        return None

    def read_chunks(self):
        while (end := self.buffer.find(b"\r\n")) >= 0:
            size = int(bytes(self.buffer[:end]).split(b";")[0], 16)
            if len(self.buffer) < end + 2 + size + 2:
                return
            del self.buffer[:end + 2 + size + 2]
            if size == 0:
                return self.finish()
            self.current.body_bytes += size

    def finish(self):
        call, self.current = self.current, None
        if "close" in call.headers.get("connection", "").lower():
            self.open = False
            self.transport.close()
        else:
            self.callers.resting.append(self)
        call.end()

    def fail(self, why):
        if self.current:
            call, self.current = self.current, None
            call.end("" if self.left == "end" and "Error" not in why else why)
