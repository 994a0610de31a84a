"""Spans, logs and metrics as a receiver built on PyPI's opentelemetry-proto reads them, over both protocols.

The gateway is told where to by OpenTelemetry's own environment variables; its configuration says `otlp: {}` and little more.
"""

import collections
import http.server
import signal
import threading

import pytest
import requests
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from gateway import eventually
from otlp_receiver import GrpcReceiver, HttpReceiver, attributes
from traffic import MARK, TrafficGateway

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SETTINGS = 'deployments: [ {{ name: blue, traffic: 100, replicas: ["http://127.0.0.1:{port}"] }} ]'
RETRYING = "retry: {{ attempts: 2, replay: always, statuses: [503], budget: 100 }}\n" + SETTINGS


class Model(http.server.BaseHTTPRequestHandler):
    """Answers an OpenAI-style completion, or 503 if that is asked for; notes each traceparent."""

    protocol_version = "HTTP/1.1"
    parents = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.parents.append(self.headers["traceparent"])
        answer = b'{"object":"chat.completion","model":"tiny","usage":{"prompt_tokens":3,"completion_tokens":5}}'
        self.send_response(503 if body == b"fail" else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


class OtlpGateway(TrafficGateway):
    """Exports to `receiver`, as the environment says."""

    def __init__(self, workdir, certs, services, receiver):
        super().__init__(workdir, certs, services)
        self.receiver = receiver
        telemetry = f'telemetry: {{ spool: {{ path: "{workdir}/spool" }}, otlp: {{ gen_ai: true }}, records:'
        self.config.write_text(self.config.read_text().replace("telemetry: { records:", telemetry))

    def _environment(self):
        return {
            **super()._environment(),
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.receiver.port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": self.receiver.protocol,
            "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=red%20team",
            "OTEL_SERVICE_NAME": "scores",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
            "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        }


@pytest.fixture(scope="module")
def model():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Model)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module", params=[HttpReceiver, GrpcReceiver])
def told(request, tmp_path_factory, certs, model):
    """What the receiver has after three calls and the gateway's end, and the gateway's own records of them by mark."""
    receiver = request.param()
    services = {
        "plain": SETTINGS.format(port=model),
        "openai": "profile: openai\n" + SETTINGS.format(port=model),
        "again": RETRYING.format(port=model),
    }
    gateway = OtlpGateway(tmp_path_factory.mktemp("otlp"), certs, services, receiver)
    Model.parents.clear()
    try:
        gateway.start()

        def call(service, mark, path="score", data="{}", **headers):
            headers |= {MARK: mark, "Content-Type": "application/json", **gateway.bearer}
            requests.post(gateway.service(service, path), headers=headers, data=data, verify=gateway.ca, timeout=20)
            return gateway.marked(mark)

        records = {
            "traced": call("plain", "traced", path="score?code=s3cret", traceparent=f"00-{TRACE}-{CALLER}-01"),
            "chat": call("openai", "chat", path="v1/chat/completions"),
            "failed": call("again", "failed", data="fail"),
        }
        # Gauges of calls under way and the counts of this very export are there only while it runs.
        eventually("metrics", lambda: "http.server.request.duration" in receiver.metrics)
        eventually("all logs", lambda: len(receiver.logs) == len(records))
        page = gateway.observe("/metrics").text
        gateway.signal(signal.SIGTERM)
        code, _ = gateway.wait_for_end()
        assert code == 0, gateway.log
        yield receiver, records, page
    finally:
        gateway.kill()
        receiver.stop()


def spans_of(receiver, record):
    """The call's span and those of its attempts, in order."""
    trace_id = record.get("TraceId") or record["RequestId"].replace("-", "")
    spans = [span for span in receiver.spans if span.trace_id.hex() == trace_id]
    [server] = [span for span in spans if span.kind == Span.SPAN_KIND_SERVER]
    clients = [span for span in spans if span.kind == Span.SPAN_KIND_CLIENT]
    assert len(spans) == 1 + len(clients)
    return server, sorted(clients, key=lambda span: span.start_time_unix_nano)


def test_a_call_in_a_trace_is_a_span_between_the_callers_and_the_replicas(told):
    receiver, records, _ = told
    server, [client] = spans_of(receiver, records["traced"])
    assert (server.trace_id.hex(), server.parent_span_id.hex()) == (TRACE, CALLER)
    assert client.parent_span_id == server.span_id
    assert Model.parents[0] == f"00-{TRACE}-{client.span_id.hex()}-01"
    assert server.start_time_unix_nano <= client.start_time_unix_nano
    assert client.end_time_unix_nano <= server.end_time_unix_nano
    assert server.name == "POST /api/v1/service/plain/score"
    found = attributes(server.attributes)
    assert found["http.request.method"] == "POST"
    assert (found["url.path"], found["url.query"]) == ("/api/v1/service/plain/score", "code=***")
    assert (found["http.response.status_code"], found["network.protocol.version"]) == (200, "1.1")
    assert found["client.address"] == "127.0.0.1"
    assert "error.type" not in found and server.status.code == Status.STATUS_CODE_UNSET


def test_a_call_without_a_trace_begins_one(told):
    receiver, records, _ = told
    server, [client] = spans_of(receiver, records["chat"])
    assert server.parent_span_id == b""
    assert Model.parents[1].startswith(f"00-{server.trace_id.hex()}-{client.span_id.hex()}-")
    found = attributes(server.attributes)
    assert found["gen_ai.operation.name"] == "chat" and found["gen_ai.response.model"] == "tiny"
    assert (found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"]) == (3, 5)


def test_each_attempt_has_a_span(told):
    receiver, records, _ = told
    record = records["failed"]
    server, clients = spans_of(receiver, record)
    assert record["Attempts"] == len(clients) == 2
    assert [Model.parents[-2][36:52], Model.parents[-1][36:52]] == [span.span_id.hex() for span in clients]
    assert {span.parent_span_id for span in clients} == {server.span_id}
    assert [attributes(span.attributes).get("http.request.resend_count") for span in clients] == [None, 1]
    for span in (server, *clients):
        assert span.status.code == Status.STATUS_CODE_ERROR
    assert attributes(server.attributes)["error.type"] == record["Reason"]


def test_each_record_is_a_log_record_of_its_span(told):
    receiver, records, _ = told
    logs = {attributes(log.attributes)["scoregate.request.id"]: log for log in receiver.logs}
    assert set(logs) == {record["RequestId"] for record in records.values()} and len(receiver.logs) == len(records)
    for record in records.values():
        log, found = logs[record["RequestId"]], attributes(logs[record["RequestId"]].attributes)
        server, _ = spans_of(receiver, record)
        assert (log.trace_id, log.span_id) == (server.trace_id, server.span_id)
        assert (log.event_name, log.time_unix_nano) == ("scoregate.record", server.end_time_unix_nano)
        assert log.severity_text == ("INFO" if record["Reason"] == "ok" else "ERROR")
        for field, name in {
            "HTTPMethod": "http.request.method",
            "UserAgent": "user_agent.original",
            "ComputeType": "scoregate.compute_type",
            "StatusCode": "http.response.status_code",
            "Service": "scoregate.service",
            "Deployment": "scoregate.deployment",
            "Reason": "scoregate.reason",
            "EndedBy": "scoregate.ended_by",
            "Attempts": "scoregate.attempts",
            "RequestBytes": "http.request.body.size",
            "ResponseBytes": "http.response.body.size",
        }.items():
            assert found[name] == record[field], name
        assert found["scoregate.duration_ms"] == pytest.approx(record["Duration"])


def test_the_resource_and_the_headers_are_the_environments(told):
    receiver, _, _ = told
    for resource in receiver.resources:
        assert resource["service.name"] == "scores" and resource["deployment.environment.name"] == "test"
        assert resource["service.version"] and resource["service.instance.id"]
    assert {headers["x-tenant"] for headers in receiver.headers} == {"red team"}


def test_metrics_are_those_of_the_page_and_of_the_conventions(told):
    receiver, records, page = told
    on_the_page = {line.split()[2] for line in page.splitlines() if line.startswith("# TYPE ")}
    conventions = {"http.server.request.duration", "http.client.request.duration", "http.server.active_requests"}
    assert on_the_page | conventions == set(receiver.metrics)
    duration = receiver.metrics["http.server.request.duration"]
    assert duration.unit == "s"
    points = duration.histogram.data_points
    assert sum(point.count for point in points) == len(records)
    assert list(points[0].explicit_bounds)[:3] == [0.005, 0.01, 0.025]
    by_route = collections.Counter(attributes(point.attributes)["http.route"] for point in points)
    assert by_route["/api/v1/service/openai/v1/chat/completions"] == 1
    total = receiver.metrics["scoregate_requests_total"].sum
    assert total.is_monotonic and sum(point.as_double for point in total.data_points) == len(records)
