"""A real grpcio server with methods of all four kinds, called by a real grpcio client through the gateway over TLS.

Messages are plain bytes. What is asked of a method is in its first message: `fail` and `wait` have a meaning, all else is
given back.
"""

import concurrent.futures
import queue
import threading

import grpc
import pytest

from traffic import MARK, TrafficGateway

HOST = "streams.test"
SETTINGS = """
hosts: [streams.test]
grpc: [test.Echo]
deployments: [ {{ name: blue, traffic: 100, protocol: h2, replicas: ["http://127.0.0.1:{port}"] }} ]
"""
SECONDS = 20
LARGE = b"0123456789abcdef" * 200_000


class Echo:
    """What the server saw, beside its methods."""

    def __init__(self):
        self.seen = []
        self.waiting = threading.Event()
        self.ended = threading.Event()

    def handler(self):
        kinds = {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "ServerStream": grpc.unary_stream_rpc_method_handler(self.server_stream),
            "ClientStream": grpc.stream_unary_rpc_method_handler(self.client_stream),
            "Both": grpc.stream_stream_rpc_method_handler(self.both),
        }
        return grpc.method_handlers_generic_handler("test.Echo", kinds)

    def begin(self, context):
        self.seen.append(dict(context.invocation_metadata()))
        context.send_initial_metadata((("x-initial", "first"), ("x-initial-bin", b"\x00\xff")))
        context.set_trailing_metadata((("x-trailing", "last"), ("x-trailing-bin", b"\xfe\x01")))

    def unary(self, request, context):
        self.begin(context)
        if request == b"fail":
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as asked: näher")
        if request == b"wait":
            self.wait(context)
        return request

    def server_stream(self, request, context):
        self.begin(context)
        for number in range(5):
            yield request + b" %d" % number
        if request == b"fail":
            context.abort(grpc.StatusCode.DATA_LOSS, "after five")
        if request == b"wait":
            self.wait(context)

    def client_stream(self, requests, context):
        self.begin(context)
        return b",".join(requests)

    def both(self, requests, context):
        self.begin(context)
        for request in requests:
            yield request

    def wait(self, context):
        """Until the call is over for the client, too."""
        context.add_callback(self.ended.set)
        self.waiting.set()
        self.ended.wait(SECONDS)


@pytest.fixture(scope="module")
def echo():
    return Echo()


@pytest.fixture(scope="module")
def gate(tmp_path_factory, certs, echo):
    with concurrent.futures.ThreadPoolExecutor(max_workers=8) as pool:
        server = grpc.server(pool, options=[("grpc.max_receive_message_length", -1)])
        server.add_generic_rpc_handlers((echo.handler(),))
        settings = {"streams": SETTINGS.format(port=server.add_insecure_port("127.0.0.1:0"))}
        server.start()
        gateway = TrafficGateway(tmp_path_factory.mktemp("gateway"), certs, settings)
        try:
            gateway.start()
            yield gateway
        finally:
            gateway.kill()
            server.stop(None).wait()


@pytest.fixture
def channel(gate):
    with open(gate.ca, "rb") as file:
        trust = grpc.ssl_channel_credentials(root_certificates=file.read())
    options = [("grpc.default_authority", HOST), ("grpc.ssl_target_name_override", HOST), ("grpc.enable_retries", 0),
               ("grpc.max_receive_message_length", -1)]  # fmt: skip
    with grpc.secure_channel(gate.authority, trust, options) as channel:
        yield channel


@pytest.fixture
def key(gate, mark):
    return (("authorization", f"Bearer {gate.primary}"), (MARK, mark))


def test_unary(gate, channel, key, echo, mark):
    answer, call = channel.unary_unary("/test.Echo/Unary").with_call(
        b"one", timeout=SECONDS, metadata=(*key, ("x-mine", "yes"), ("x-mine-bin", b"\x01\x80"))
    )
    assert answer == b"one"
    assert (call.code(), call.details()) == (grpc.StatusCode.OK, "")
    initial, trailing = dict(call.initial_metadata()), dict(call.trailing_metadata())
    assert (initial["x-initial"], initial["x-initial-bin"]) == ("first", b"\x00\xff")
    assert (trailing["x-trailing"], trailing["x-trailing-bin"]) == ("last", b"\xfe\x01")
    seen = echo.seen[-1]
    assert (seen["x-mine"], seen["x-mine-bin"]) == ("yes", b"\x01\x80")
    assert "authorization" not in seen
    record = gate.marked(mark)
    assert (record["StatusCode"], record["Reason"], record["Service"]) == (200, "ok", "streams")


def test_a_stream_of_answers(channel, key):
    call = channel.unary_stream("/test.Echo/ServerStream")(b"n", timeout=SECONDS, metadata=key)
    assert list(call) == [b"n %d" % number for number in range(5)]
    assert call.code() is grpc.StatusCode.OK
    assert dict(call.trailing_metadata())["x-trailing"] == "last"


def test_a_stream_of_requests(channel, key):
    call = channel.stream_unary("/test.Echo/ClientStream")
    answer, call = call.with_call(iter([b"a", b"b", b"c"]), timeout=SECONDS, metadata=key)
    assert answer == b"a,b,c"
    assert dict(call.trailing_metadata())["x-trailing"] == "last"


def test_streams_both_ways_pass_each_message_as_it_comes(channel, key):
    """The next question is asked only when the last one has been answered."""
    questions = queue.Queue()
    call = channel.stream_stream("/test.Echo/Both")(iter(questions.get, None), timeout=SECONDS, metadata=key)
    for number in range(20):
        questions.put(b"%d" % number)
        assert next(call) == b"%d" % number
    questions.put(None)
    assert list(call) == []
    assert call.code() is grpc.StatusCode.OK


def test_a_large_message_goes_both_ways(channel, key):
    assert channel.unary_unary("/test.Echo/Unary")(LARGE, timeout=SECONDS, metadata=key) == LARGE


def test_the_servers_own_status_passes(channel, key):
    with pytest.raises(grpc.RpcError) as failed:
        channel.unary_unary("/test.Echo/Unary")(b"fail", timeout=SECONDS, metadata=key)
    assert (failed.value.code(), failed.value.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "as asked: näher")
    assert dict(failed.value.trailing_metadata())["x-trailing"] == "last"


def test_a_status_after_messages_passes(channel, key):
    call = channel.unary_stream("/test.Echo/ServerStream")(b"fail", timeout=SECONDS, metadata=key)
    messages = []
    with pytest.raises(grpc.RpcError) as failed:
        for message in call:
            messages.append(message)
    assert len(messages) == 5
    assert (failed.value.code(), failed.value.details()) == (grpc.StatusCode.DATA_LOSS, "after five")


@pytest.mark.parametrize("metadata", [(("authorization", "Bearer wrong"),), ()], ids=["wrong key", "no key"])
def test_a_call_without_the_key_is_unauthenticated(gate, channel, echo, mark, metadata):
    seen = len(echo.seen)
    with pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary("/test.Echo/Unary")(b"x", timeout=SECONDS, metadata=(*metadata, (MARK, mark)))
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert len(echo.seen) == seen
    record = gate.marked(mark)
    assert record["Reason"] == ("auth_invalid" if metadata else "auth_missing")


def test_what_is_not_opened_is_unimplemented(channel, key):
    with pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary("/test.Admin/Shutdown")(b"", timeout=SECONDS, metadata=key)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_deadline_passes_to_the_server(channel, key, echo):
    """The client gives up at its deadline, and the server hears of it."""
    echo.waiting.clear(), echo.ended.clear()
    with pytest.raises(grpc.RpcError) as late:
        channel.unary_unary("/test.Echo/Unary")(b"wait", timeout=1, metadata=key)
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert echo.waiting.is_set()
    assert echo.ended.wait(SECONDS), "the server did not hear that the call is over"


def test_a_cancelled_call_is_cancelled_at_the_server(gate, channel, key, echo, mark):
    echo.waiting.clear(), echo.ended.clear()
    call = channel.unary_stream("/test.Echo/ServerStream")(b"wait", timeout=SECONDS, metadata=key)
    assert [next(call) for _ in range(5)][4] == b"wait 4"
    assert echo.waiting.wait(SECONDS)
    call.cancel()
    assert echo.ended.wait(SECONDS), "the server did not hear that the call was cancelled"
    record = gate.marked(mark)
    assert (record["Reason"], record["EndedBy"]) == ("client_gone", "client")


def test_a_key_opens_no_other_service(gate, channel, key):
    """The same connection, another authority: no service goes by it."""
    with open(gate.ca, "rb") as file:
        trust = grpc.ssl_channel_credentials(root_certificates=file.read())
    options = [("grpc.default_authority", "localhost"), ("grpc.enable_retries", 0)]
    with grpc.secure_channel(gate.authority, trust, options) as other:
        with pytest.raises(grpc.RpcError) as refused:
            other.unary_unary("/test.Echo/Unary")(b"x", timeout=SECONDS, metadata=key)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
