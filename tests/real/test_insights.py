"""Application Insights: the gateway's records and metrics against an ingestion server that plays every reply in turn, and beside
what Azure's own exporter sends there.

On every page of metrics the books must balance, and in the end the collector has taken or refused each record exactly once.
"""

import functools
import json
import os
import pathlib
import re
import signal
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests

from gateway import eventually
from ingestion import Ingestion, Play
from insights_schema import faults
from managed import ManagedGateway
from traffic import TrafficGateway

HERE = pathlib.Path(__file__).resolve().parent
REFERENCE = [HERE / ".venv-insights/bin/python", HERE / "insights_reference.py"]
SERVICE = 'deployments: [ {{ name: blue, traffic: 100, replicas: ["http://127.0.0.1:{port}"] }} ]'
CALLS = 6
# After an outage the exporter waits up to 30 s before it tries again.
SETTLE_SECONDS = 60
TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
# They tell of the machine that `ai.cloud.roleInstance` names already.
MACHINE_TAGS = {"ai.device.id", "ai.device.locale", "ai.device.type", "ai.internal.nodeName"}


def export_to(gateway, ingestion, settings=""):
    """Completes the configuration of a gateway that is to be started."""
    secret = gateway.workdir / "insights"
    secret.write_text(ingestion.connection_string)
    exporter = f"application_insights: {{ connection_string: {{ file: {secret} }}, {settings} }}"
    spool = f"spool: {{ path: {gateway.workdir}/spool }}"
    text = gateway.config.read_text()
    gateway.config.write_text(text.replace("telemetry: { records:", f"telemetry: {{ {spool}, {exporter}, records:"))


class InsightsGateway(TrafficGateway):
    """A gateway that sends to `ingestion` over a spool on the disk; `settings` is more of that section, as YAML."""

    def __init__(self, workdir, certs, model_port, ingestion, settings=""):
        super().__init__(workdir, certs, {"iris": SERVICE.format(port=model_port)})
        export_to(self, ingestion, settings)

    def score(self, calls=CALLS, **headers):
        """So many calls over one connection."""
        with requests.Session() as session:
            for _ in range(calls):
                answer = session.post(
                    self.service("iris"), "[1]", headers={**self.bearer, **headers}, verify=self.ca, timeout=20
                )
                assert answer.status_code == 200

    def books(self):
        """Accepted, delivered, dropped and spooled, of one page."""
        page = self.observe("/metrics").text

        def value(name, more=""):
            return int(float(re.search(rf'^scoregate_exporter_{name}{{exporter="application_insights"{more}}} (\S+)$',
                                       page, re.MULTILINE).group(1)))  # fmt: skip

        accepted, spooled = value("accepted_total"), value("spooled")
        delivered, dropped = (value("records_total", f',outcome="{it}"') for it in ("delivered", "dropped"))
        assert accepted == delivered + dropped + spooled, page
        return accepted, delivered, dropped, spooled

    def settled(self, accepted):
        """Waits until so many records were accepted and none waits; how many were delivered and dropped."""

        def probe():
            book = self.books()
            return book if book[0] == accepted and book[3] == 0 else None

        return eventually(f"{accepted} records settled", probe, seconds=SETTLE_SECONDS)[1:3]

    def requests_total(self):
        """Calls of the service, as /metrics has them."""
        page = self.observe("/metrics").text
        return sum(float(it) for it in re.findall(r'^scoregate_requests_total{service="iris".*} (\S+)$', page, re.MULTILINE))


class Model(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def model_port():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def started(tmp_path_factory, certs, model_port):
    """Starts gateways; all end with this file."""
    running = []

    def start(ingestion, settings=""):
        gateway = InsightsGateway(tmp_path_factory.mktemp("insights"), certs, model_port, ingestion, settings)
        running.append(gateway)
        gateway.start()
        return gateway

    yield start
    for gateway in running:
        gateway.kill()


@pytest.fixture(scope="module")
def ingestion():
    with Ingestion() as server:
        yield server


@pytest.fixture(scope="module")
def exporting(started, ingestion):
    """The gateway that every reply is played to."""
    return started(ingestion)


@pytest.fixture
def before(exporting, ingestion):
    """Nothing waits and nothing is left to play. How many records there were before."""
    accepted, _, _, _ = exporting.books()
    exporting.settled(accepted)
    assert not ingestion.script and not ingestion.faults
    return accepted


def check(gateway, *ingestions):
    """Each record was taken or refused exactly once, and every item was as the schema has it."""
    taken, refused = {}, {}
    for ingestion in ingestions:
        assert not ingestion.faults, ingestion.faults[:5]
        taken |= {name: taken.get(name, 0) + count for name, count in ingestion.taken.items()}
        refused |= {name: refused.get(name, 0) + count for name, count in ingestion.refused.items()}
    ids = {record["RequestId"] for record in gateway.records()}
    assert taken.keys() | refused.keys() == ids and not taken.keys() & refused.keys()
    assert all(count == 1 for count in [*taken.values(), *refused.values()])
    return len(taken), len(refused)


KEPT = {
    "cut off": [Play(cut=True)],
    "slow": [Play(seconds=3.0)],
    "401 and 403": [Play(401), Play(403)],
    "408": [Play(408)],
    "500, 502, 503, 504": [Play(500), Play(502), Play(503), Play(504)],
    "429 without a wish": [Play(429)],
    "206, nothing but later": [Play(206, items=(500,))],
}
LOST = {
    "400": [Play(400)],
    "402": [Play(402)],
    "404": [Play(404)],
    "439": [Play(439)],
    "206, a part never": [Play(206, items=(400, 200, 500))],
    "500, then 439": [Play(500), Play(439)],
}


@pytest.mark.parametrize("plays", KEPT.values(), ids=KEPT)
def test_what_may_be_sent_again_is_and_arrives_once(exporting, ingestion, before, plays):
    _, dropped_before, _ = exporting.books()[1:]
    ingestion.plays(*plays)
    exporting.score()
    delivered, dropped = exporting.settled(before + CALLS)
    assert not ingestion.script and dropped == dropped_before
    assert check(exporting, ingestion) == (delivered, dropped)


@pytest.mark.parametrize("plays", LOST.values(), ids=LOST)
def test_what_is_refused_for_good_is_dropped_and_counted(exporting, ingestion, before, plays):
    _, dropped_before, _ = exporting.books()[1:]
    ingestion.plays(*plays)
    exporting.score()
    delivered, dropped = exporting.settled(before + CALLS)
    assert not ingestion.script and dropped > dropped_before
    assert check(exporting, ingestion) == (delivered, dropped)


def test_the_collectors_wish_to_wait_is_obeyed(exporting, ingestion, before):
    seen = len(ingestion.requests)
    ingestion.plays(Play(429, headers=(("Retry-After", "2"),)))
    exporting.score()
    exporting.settled(before + CALLS)
    refused, again = ingestion.requests[seen:][:2]
    assert again.at - refused.at >= 2.0 and again.items == refused.items


def test_a_dead_collector_gets_everything_when_it_is_back(exporting, ingestion, before):
    ingestion.dies()
    exporting.score()
    eventually("all spooled", lambda: exporting.books()[3] == CALLS)
    ingestion.is_back()
    delivered, dropped = exporting.settled(before + CALLS)
    assert check(exporting, ingestion) == (delivered, dropped)


def test_a_permanent_redirect_is_followed_and_remembered(exporting, ingestion, before):
    with Ingestion() as other:
        ingestion.plays(Play(307, headers=(("Location", f"{other.url}/v2.1/track"),)))
        exporting.score()
        exporting.settled(before + CALLS)
        seen = len(ingestion.requests)
        exporting.score()
        delivered, dropped = exporting.settled(before + 2 * CALLS)
        assert sum(other.taken.values()) == 2 * CALLS and len(ingestion.requests) == seen
        assert check(exporting, ingestion, other) == (delivered, dropped)
        # And back, so that the others find it where it was.
        other.plays(Play(308, headers=(("Location", f"{ingestion.url}/v2.1/track"),)))
        exporting.score()
        exporting.settled(before + 3 * CALLS)
        assert sum(other.taken.values()) == 2 * CALLS
        ingestion.taken |= other.taken


def reference(*arguments, told=None, connection_string=""):
    """What Azure's own exporter prints."""
    done = subprocess.run(
        [*REFERENCE, *arguments], input=json.dumps(told) + "\n", capture_output=True, text=True, timeout=60,
        env={**os.environ, "APPLICATIONINSIGHTS_CONNECTION_STRING": connection_string},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_items_have_only_fields_that_azures_models_know_and_all_that_they_must(exporting, ingestion, before):
    exporting.score(1)
    exporting.settled(before + 1)
    models = json.loads(reference("models"))
    item = ingestion.items("RequestData")[-1]
    for found, model in ((item, "TelemetryItem"), (item["data"]["baseData"], "RequestData")):
        # Their discriminator is not on the wire.
        known = {name: required for name, required in models[model].items() if name != "kind"}
        assert found.keys() <= known.keys(), model
        assert {name for name, required in known.items() if required} <= found.keys(), model


@pytest.mark.parametrize("place, value", [
    ("time", "2026-11-24 10:28:52"), ("time", "2026-11-24T10:28:52+01:00"), ("iKey", "key"), ("name", "Request"),
    ("tags/ai.operation.id", "0af7"), ("tags/ai.operation.parentId", None), ("tags/ai.cloud.role", 7), ("extra", 1),
    ("data/baseType", "MessageData"), ("data/baseData/ver", 1), ("data/baseData/id", "x" * 129),
    ("data/baseData/duration", "12.5"), ("data/baseData/success", "true"), ("data/baseData/responseCode", 200),
    ("data/baseData/properties/StatusCode", 200), ("data/baseData/measurements/QueueMs", "0"),
    ("data/baseData/url", "u" * 2049), ("data/baseData/unknown", 1),
])  # fmt: skip
def test_the_schema_tells_what_is_wrong(exporting, ingestion, before, place, value):
    if not ingestion.items("RequestData"):
        exporting.score(1)
        exporting.settled(before + 1)
    item = json.loads(json.dumps(ingestion.items("RequestData")[-1]))
    assert not faults(item)
    *folders, name = place.split("/")
    functools.reduce(dict.__getitem__, folders, item)[name] = value
    assert faults(item)


def test_a_request_is_as_azures_exporter_would_send_it(exporting, before, ingestion):
    agent = "reference/1.0"
    exporting.score(1, **{"User-Agent": agent, "traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01"})
    exporting.settled(before + 1)
    ours = ingestion.items("RequestData")[-1]
    record = exporting.record(ours["data"]["baseData"]["id"])
    with Ingestion() as server:
        told = {"instance": ours["tags"]["ai.cloud.roleInstance"], "request": as_span(record, exporting), "event": EVENT}
        reference("send", told=told, connection_string=server.connection_string)
        assert not server.faults
        [theirs] = server.items("RequestData")

    assert ours.keys() == theirs.keys()
    assert {name: ours[name] for name in ("name", "iKey", "time")} == {name: theirs[name] for name in ("name", "iKey", "time")}
    assert theirs["tags"].keys() - ours["tags"].keys() == MACHINE_TAGS and ours["tags"].keys() <= theirs["tags"].keys()
    for name in ours["tags"].keys() - {"ai.internal.sdkVersion"}:
        assert ours["tags"][name] == theirs["tags"][name], name
    assert (theirs["tags"]["ai.operation.id"], theirs["tags"]["ai.operation.parentId"]) == (TRACE_ID, PARENT_ID)

    ours, theirs = ours["data"], theirs["data"]
    assert ours.keys() == theirs.keys() and ours["baseType"] == theirs["baseType"]
    ours, theirs = ours["baseData"], theirs["baseData"]
    # The caller's address, which theirs has for messages only.
    assert ours.keys() - theirs.keys() == {"source"} and theirs.keys() <= ours.keys()
    for name in ("ver", "name", "success", "responseCode", "url"):
        assert ours[name] == theirs[name], name
    assert {name: type(ours[name]) for name in theirs} == {name: type(value) for name, value in theirs.items()}
    # Microseconds, which the schema allows, instead of milliseconds.
    assert abs(milliseconds(ours["duration"]) - milliseconds(theirs["duration"])) <= 0.5
    assert ours["duration"].rpartition(".")[0] == theirs["duration"].rpartition(".")[0]
    # The id that the caller was told, instead of a span's.
    assert ours["id"] == record["RequestId"] and re.fullmatch("[0-9a-f]{16}", theirs["id"])


EVENT = {"name": "Microsoft.MachineLearningServices/workspaces/services/write", "properties": {"status": "Succeeded"}}


def as_span(record, gateway):
    """The span of a record's call, as OpenTelemetry's instrumentations write it."""
    path = record["RequestUrl"].partition(gateway.authority)[2]
    return {
        "trace_id": TRACE_ID, "parent_id": PARENT_ID, "time": record["Time"], "duration_ms": record["Duration"],
        "name": f"POST {path}",
        "attributes": {
            "http.request.method": record["HTTPMethod"], "url.scheme": "https", "url.path": path,
            "server.address": "127.0.0.1", "server.port": gateway.port, "client.address": record["ClientAddress"],
            "user_agent.original": record["UserAgent"], "http.response.status_code": record["StatusCode"],
        },
    }  # fmt: skip


def milliseconds(duration):
    days, hours, minutes, seconds = re.fullmatch(r"(\d+)\.(\d\d):(\d\d):(\d\d\.\d+)", duration).groups()
    return ((int(days) * 24 + int(hours)) * 60 + int(minutes)) * 60e3 + float(seconds) * 1e3


def test_metrics_add_up_and_are_as_azures_exporter_would_send_them(started):
    with Ingestion() as ingestion:
        gateway = started(ingestion, "metrics: { interval: 10s }")
        gateway.score()
        eventually("metrics", lambda: sum(calls_told(ingestion)) == CALLS, seconds=40)
        gateway.score(2)
        assert gateway.requests_total() == CALLS + 2
        gateway.signal(signal.SIGTERM)
        assert gateway.wait_for_end()[0] == 0
        # The last ones are of the end; in between none had grown, or those of a round.
        assert sum(calls_told(ingestion)) == CALLS + 2
        assert not ingestion.faults, ingestion.faults[:5]
        ours = ingestion.items("MetricData")

    with Ingestion() as server:
        told = {"instance": "host-1", "request": SPAN, "event": EVENT}
        reference("send", told=told, connection_string=server.connection_string)
        assert not server.faults
        theirs = server.items("MetricData")

    for name, reference_name, missing in (
        ("scoregate_requests_total", "calls", set()),
        ("scoregate_requests_in_flight", "in_flight", set()),
        # What a histogram of buckets does not know.
        ("scoregate_request_duration_seconds", "duration", {"min", "max"}),
    ):
        [our, *_], [their] = named(ours, name), named(theirs, reference_name)
        assert our.keys() == their.keys() and our["name"] == their["name"]
        assert their["tags"].keys() - our["tags"].keys() == MACHINE_TAGS and our["tags"].keys() <= their["tags"].keys()
        our, their = our["data"]["baseData"], their["data"]["baseData"]
        assert our.keys() == their.keys()
        assert their["metrics"][0].keys() - our["metrics"][0].keys() == missing
        assert our["metrics"][0].keys() <= their["metrics"][0].keys()
    assert sum(it["data"]["baseData"]["metrics"][0]["count"]
               for it in named(ours, "scoregate_request_duration_seconds")) == CALLS + 2  # fmt: skip


SPAN = {
    "trace_id": TRACE_ID, "parent_id": PARENT_ID, "time": "2026-11-24T10:28:52.123456Z", "duration_ms": 1.0,
    "name": "POST /score", "attributes": {},
}  # fmt: skip


def named(items, name):
    """The metrics of a name that are of the service."""
    return [
        item for item in items
        if item["data"]["baseData"]["metrics"][0]["name"] == name
        and item["data"]["baseData"]["properties"].get("service") == "iris"
    ]  # fmt: skip


def calls_told(ingestion):
    items = named(ingestion.items("MetricData"), "scoregate_requests_total")
    return [item["data"]["baseData"]["metrics"][0]["value"] for item in items]


def test_the_activity_log_arrives_as_events(tmp_path, certs):
    with Ingestion() as ingestion:
        gateway = ManagedGateway(tmp_path, certs)
        export_to(gateway, ingestion)
        try:
            gateway.start()
            gateway.token_of("alice", role="Reader")
            log = gateway.manage("GET", "/v1/activity?limit=100").json()["items"]
            assert len(log) >= 4
            eventually("all events", lambda: len(ingestion.items("EventData")) >= len(log))
        finally:
            gateway.kill()
        assert not ingestion.faults, ingestion.faults[:5]
        ours = {it["data"]["baseData"]["properties"]["sequence"]: it for it in ingestion.items("EventData")}

    assert ours.keys() == {str(event["sequence"]) for event in log}
    for event in log:
        item = ours[str(event["sequence"])]
        data = item["data"]["baseData"]
        assert data["name"] == item["tags"]["ai.operation.name"] == event["operation_name"]
        assert item["tags"]["ai.operation.id"] == event["operation_id"].replace("-", "")
        assert item["tags"]["ai.user.authUserId"] == data["properties"]["caller"] == event["caller"]
        assert item["tags"]["ai.location.ip"] == event["client_ip_address"]
        assert (data["properties"]["status"], data["properties"]["resourceId"]) == (event["status"], event["resource_id"])

    with Ingestion() as server:
        told = {"instance": "host-1", "request": SPAN, "event": EVENT}
        reference("send", told=told, connection_string=server.connection_string)
        [theirs] = server.items("EventData")
    assert item.keys() == theirs.keys() and item["name"] == theirs["name"]
    assert item["data"]["baseType"] == theirs["data"]["baseType"]
    assert theirs["data"]["baseData"].keys() - data.keys() == {"measurements"} and data.keys() <= theirs["data"]["baseData"].keys()


def test_a_collector_with_a_private_authority_is_trusted_only_if_that_is_named(started, certs):
    with Ingestion(certs) as ingestion:
        trusting = started(ingestion, f"ca: {certs}/ca.pem")
        trusting.score()
        assert trusting.settled(CALLS) == (CALLS, 0)
        assert check(trusting, ingestion) == (CALLS, 0)
        wary = started(ingestion)
        wary.score()
        eventually("a handshake failed", lambda: "TLS handshake failed" in wary.log)
        assert wary.books() == (CALLS, 0, 0, CALLS)
        assert sum(ingestion.taken.values()) == CALLS
