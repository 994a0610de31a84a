"""A real WebSocket server and a real client, both of the package `websockets`, with the gateway between them over TLS."""

import random
import socket
import struct
import threading

import pytest
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus
from websockets.sync.client import connect
from websockets.sync.server import serve

from gateway import eventually
from traffic import MARK, TrafficGateway

SETTINGS = """
websocket: true
deployments: [ {{ name: blue, traffic: 100, replicas: ["http://127.0.0.1:{port}"] }} ]
"""
CLOSED = """
deployments: [ {{ name: blue, traffic: 100, replicas: ["http://127.0.0.1:{port}"] }} ]
"""
SECONDS = 20
# Random: the two ends compress what they send.
LARGE = random.Random(1).randbytes(1 << 20)


class Server:
    """Echoes; some messages have a meaning, and so has the header `x-refuse`."""

    def __init__(self):
        self.requests = []
        self.closes = []
        self.echoing = 0

    def process_request(self, connection, request):
        self.requests.append(request)
        if status := request.headers.get("x-refuse"):
            return connection.respond(int(status), "refused by the model\n")
        return None

    def choose(self, _, offered):
        """Its own order counts; it does not insist on any."""
        return next((it for it in ("v2.test", "v1.test") if it in offered), None)

    def handle(self, connection):
        self.echoing += 1
        try:
            for message in connection:
                self.answer(connection, message)
        except (ConnectionClosedError, ConnectionResetError):
            pass
        finally:
            self.echoing -= 1
            self.closes.append((connection.close_code, connection.close_reason))

    def answer(self, connection, message):
        if message == "close":
            connection.close(4001, "enough")
        elif message == "reset":
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            # The library reads in a thread of its own: a mere close would wait for it.
            connection.socket.shutdown(socket.SHUT_RD)
            connection.socket.close()
            raise ConnectionResetError
        else:
            connection.send(message)


@pytest.fixture(scope="module")
def server():
    return Server()


@pytest.fixture(scope="module")
def gate(tmp_path_factory, certs, server):
    with serve(
        server.handle, "127.0.0.1", 0, process_request=server.process_request,
        select_subprotocol=server.choose, max_size=None,
    ) as listening:  # fmt: skip
        port = listening.socket.getsockname()[1]
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        services = {"echo": SETTINGS.format(port=port), "closed": CLOSED.format(port=port)}
        gateway = TrafficGateway(tmp_path_factory.mktemp("gateway"), certs, services)
        try:
            gateway.start()
            yield gateway
        finally:
            gateway.kill()
            listening.shutdown()
            thread.join()


@pytest.fixture
def dial(gate, mark):
    """Opens a connection through the gateway, with the right key unless told otherwise."""

    def dial(service="echo", headers=None, key=None, **options):
        return connect(
            gate.service(service, scheme="wss"), ssl=gate.trust(), open_timeout=SECONDS, max_size=None, proxy=None,
            additional_headers={"Authorization": f"Bearer {key or gate.primary}", MARK: mark, **(headers or {})}, **options,
        )  # fmt: skip

    return dial


def test_messages_go_both_ways(gate, dial, server, mark):
    with dial() as connection:
        for message in ("text", b"\x00\xff bytes", "", "ä€😀", LARGE, LARGE.hex()):
            connection.send(message)
            assert connection.recv(timeout=SECONDS) == message
    request = server.requests[-1]
    assert request.path == "/score"
    assert "authorization" not in request.headers
    record = gate.marked(mark)
    assert (record["StatusCode"], record["Reason"]) == (101, "ok")
    assert min(record["RequestBytes"], record["ResponseBytes"]) > 2 * len(LARGE)


def test_ping_is_answered_by_the_server(dial):
    with dial() as connection:
        assert connection.ping().wait(SECONDS)


def test_the_subprotocol_is_the_servers_choice(dial):
    with dial(subprotocols=["v1.test", "v3.test"]) as connection:
        assert connection.subprotocol == "v1.test"


def test_a_wrong_key_reaches_no_server(gate, dial, server, mark):
    seen = len(server.requests)
    with pytest.raises(InvalidStatus) as refused, dial(key="wrong"):
        pass
    assert refused.value.response.status_code == 401
    assert refused.value.response.headers["x-scoregate-reason"] == "auth_invalid"
    assert len(server.requests) == seen
    assert gate.marked(mark)["StatusCode"] == 401


def test_a_service_that_does_not_allow_it_makes_no_tunnel(gate, dial, mark):
    """The upgrade is not passed on; the server takes it for a plain call and refuses that."""
    with pytest.raises(InvalidStatus), dial("closed"):
        pass
    assert gate.marked(mark)["StatusCode"] != 101


def test_the_servers_refusal_passes(gate, dial, mark):
    with pytest.raises(InvalidStatus) as refused, dial(headers={"x-refuse": "403"}):
        pass
    assert refused.value.response.status_code == 403
    assert refused.value.response.body == b"refused by the model\n"
    assert gate.marked(mark)["ModelStatusCode"] == 403


def test_there_is_no_tunnel_before_the_server_agrees(gate, server):
    """What a client sends behind its upgrade, hoping for a tunnel, is never read as a call of the server's."""
    seen = len(server.requests)
    hidden = b"GET /admin HTTP/1.1\r\nHost: model\r\n\r\n"
    ask = (
        f"GET /api/v1/service/echo/score HTTP/1.1\r\nHost: {gate.authority}\r\nAuthorization: Bearer {gate.primary}\r\n"
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nx-refuse: 403\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", gate.port), timeout=SECONDS) as plain:
        with gate.trust().wrap_socket(plain, server_hostname="127.0.0.1") as client:
            client.sendall(ask.encode() + hidden)
            answer = b""
            while b"refused by the model" not in answer:
                piece = client.recv(65536)
                assert piece, answer
                answer += piece
    assert answer.startswith(b"HTTP/1.1 403")
    # A later call comes after whatever the hidden one might have set off.
    with connect(
        gate.service("echo", scheme="wss"), ssl=gate.trust(), proxy=None, additional_headers=gate.bearer
    ) as connection:
        connection.send("later")
        assert connection.recv(timeout=SECONDS) == "later"
    assert [request.path for request in server.requests[seen:]] == ["/score", "/score"]


def test_the_servers_close_code_passes(dial):
    with dial() as connection:
        connection.send("close")
        with pytest.raises(ConnectionClosedError) as closed:
            connection.recv(timeout=SECONDS)
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "enough")


def test_the_clients_close_code_passes(dial, server):
    with dial() as connection:
        connection.send("x")
        connection.recv(timeout=SECONDS)
        connection.close(4002, "mine")
    eventually("the server has seen this close", lambda: (4002, "mine") in server.closes)


def test_a_normal_close_is_normal(dial):
    with dial() as connection:
        pass
    with pytest.raises(ConnectionClosedOK):
        connection.recv(timeout=SECONDS)


def test_a_reset_by_the_server_is_no_clean_end(gate, dial, mark):
    with dial() as connection:
        connection.send("reset")
        with pytest.raises(ConnectionClosedError) as closed:
            connection.recv(timeout=SECONDS)
        assert closed.value.rcvd is None
    assert gate.marked(mark)["EndedBy"] == "upstream"


def test_a_client_that_is_gone_ends_the_servers_side(dial, server):
    eventually("no other connection is left", lambda: server.echoing == 0)
    with dial() as connection:
        connection.send("x")
        connection.recv(timeout=SECONDS)
        assert server.echoing == 1
        connection.socket.shutdown(socket.SHUT_RDWR)
        eventually("the server's side has ended", lambda: server.echoing == 0)
