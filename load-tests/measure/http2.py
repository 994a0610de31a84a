"""The open loop's HTTP/2 connection; needs the library h2."""

import asyncio

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, ResponseReceived, StreamEnded, StreamReset, WindowUpdated
from h2.exceptions import ProtocolError

from .open_loop import MARK, Connection

# One HTTP/2 connection carries at most this many calls, so that bodies which the gateway does not read yet (64 KiB of
# them fill the connection's window) hold up no other call.
STREAMS = 48


class Http2(Connection):
    """Many calls at once."""

    def __init__(self, callers):
        super().__init__(callers)
        self.http = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.current = {}
        # Calls that were given this connection, also those that have not been sent yet.
        self.taken = 0
        target = callers.target
        self.head = [(":method", "POST"), (":scheme", "https"), (":authority", "127.0.0.1"), (":path", target.path),
                     ("authorization", f"Bearer {target.key}"), ("content-type", "application/json"),
                     ("content-length", str(len(callers.body)))]
        self.waiting = []
        self.flushing = False

    def connection_made(self, transport):
        super().connection_made(transport)
        self.http.initiate_connection()
        self.flush()

    def room(self, body_bytes):
        return self.open and self.taken < STREAMS and self.http.outbound_flow_control_window > body_bytes

    def send(self, call):
        if not self.open:
            raise OSError("closed before it was used")
        try:
            stream = self.http.get_next_available_stream_id()
            self.http.send_headers(stream, [*self.head, (MARK, call.mark)])
        except ProtocolError as error:
            raise OSError(f"HTTP/2: {error!r}") from error
        self.current[stream] = call
        if self.http.local_flow_control_window(stream) < len(self.callers.body):
            self.waiting.append(stream)
        else:
            self.http.send_data(stream, self.callers.body, end_stream=True)
        if not self.flushing:
            # Calls that begin together leave together, as a client that has many to make sends them.
            self.flushing = True
            asyncio.get_running_loop().call_soon(self.flush)

    def data_received(self, data):
        try:
            events = self.http.receive_data(data)
        except ProtocolError as error:
            self.open = False
            self.transport.abort()
            return self.fail(f"protocol error: {error!r}")
        for event in events:
            self.take_in(event)
        return self.flush()

    def take_in(self, event):
        call = self.current.get(getattr(event, "stream_id", None))
        if isinstance(event, ResponseReceived) and call:
            call.headers = dict(event.headers)
            call.status = int(call.headers[":status"])
        elif isinstance(event, DataReceived):
            self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if call:
                call.body_bytes += len(event.data)
        elif isinstance(event, StreamEnded):
            self.drop(event.stream_id, "")
        elif isinstance(event, StreamReset):
            # NO_ERROR after a whole answer only says that the rest of the request is not wanted (RFC 9113 8.1).
            self.drop(event.stream_id, f"stream reset, code {event.error_code}")
        elif isinstance(event, ConnectionTerminated):
            self.open = False
        elif isinstance(event, WindowUpdated):
            self.send_waiting()

    def send_waiting(self):
        for stream in list(self.waiting):
            if stream not in self.current:
                self.waiting.remove(stream)
            elif self.http.local_flow_control_window(stream) >= len(self.callers.body):
                self.waiting.remove(stream)
                self.http.send_data(stream, self.callers.body, end_stream=True)

    def drop(self, stream, fault):
        call = self.current.pop(stream, None)
        if call:
            self.taken -= 1
            call.end(fault)

    def fail(self, why):
        for stream in list(self.current):
            self.drop(stream, why)

    def flush(self):
        self.flushing = False
        if (data := self.http.data_to_send()) and self.transport:
            self.transport.write(data)
