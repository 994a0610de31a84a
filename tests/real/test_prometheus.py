"""Real Prometheus scrapes a gateway that has all there is to count, and answers what the dashboard and the alerts ask; real
promtool takes the page and the alerts."""

import http.server
import json
import shutil
import signal
import subprocess
import threading
import time

import pytest
import requests
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from gateway import REPOSITORY, eventually
from managed import ManagedGateway
from servers import Server, free_ports

FOLDER = REPOSITORY / "deploy/observability"
RULES = FOLDER / "rules.yaml"
TRACE = "0af7651916cd43dd8448eb211c80319c"
ROUND_SECONDS = 60
OPENMETRICS = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"}

SERVICES = """
services:
  - name: iris
    compute_type: AKS
    keys: {{ primary: {{ file: "{workdir}/primary" }}, secondary: {{ file: "{workdir}/secondary" }} }}
    profile: openai
    limits: {{ concurrent_requests_per_replica: 4, rate_per_principal: {{ requests_per_second: 1000 }} }}
    retry: {{ attempts: 3, replay: always, statuses: [503] }}
    mirror: {{ deployment: green, percent: 50 }}
    data_collection: {{ sample: 1 }}
    deployments:
      - name: blue
        traffic: 100
        replicas: ["http://127.0.0.1:{model}", "http://127.0.0.1:{dead}"]
        ejection: {{ failures: 1, time: 1s, most_time: 1s, keep: 50 }}
        health: {{ probe: {{ path: /, interval: 1s, timeout: 1s, startup: 60s }} }}
      - {{ name: green, traffic: 0, replicas: ["http://127.0.0.1:{model}"] }}
  - name: outside
    compute_type: Managed
    hosts: [outside.test]
    auth: oidc
    oidc: {{ issuer: "https://issuer.test", jwks: {{ file: "{workdir}/keys.json" }} }}
    deployments: [ {{ name: blue, traffic: 100, replicas: ["http://127.0.0.1:{model}"] }} ]
"""
TELEMETRY = """telemetry:
  records: {{ file: {{ path: "{workdir}/records.jsonl" }} }}
  spool: {{ path: "{workdir}/spool" }}
  data_collection: {{ path: "{workdir}/collected" }}
  application_insights: {{ connection_string: {{ file: "{workdir}/insights" }} }}
"""
MANAGED = {
    "compute_type": "AKS",
    "auth": "key",
    "deployments": {"blue": {"traffic": 100}},
}
PROMETHEUS = """
global: {{ scrape_interval: 500ms, evaluation_interval: 500ms }}
rule_files: ["{rules}"]
scrape_configs:
  - {{ job_name: scoregate, static_configs: [ {{ targets: ["{observe}"] }} ] }}
"""
# Nothing of these happens here, and what never happened to a service has no series.
WITHOUT_DATA = ("scoregate_usage_unread_total", "scoregate_tunnels", "scoregate_retry_budget_exhausted_total")


class Model(http.server.BaseHTTPRequestHandler):
    """Answers as a language model does; each fifth call with 503."""

    protocol_version = "HTTP/1.1"
    calls = 0

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.reply(200, {})

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        Model.calls += 1
        usage = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
        self.reply(503 if Model.calls % 5 == 0 else 200, {"object": "chat.completion", "model": "m", "usage": usage})

    def reply(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def model():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Model)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()


@pytest.fixture(scope="module")
def counted(tmp_path_factory, certs, model):
    """A gateway with a management plane, declared services of many settings, and a collector that is away."""
    workdir = tmp_path_factory.mktemp("counted")
    gateway = ManagedGateway(workdir, certs)
    [dead] = free_ports(1)
    text = gateway.config.read_text().replace("services: []\n", "")
    text = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("telemetry:"))
    filled = (SERVICES + TELEMETRY).format(workdir=workdir, model=model, dead=dead)
    gateway.config.write_text(text + filled)
    (workdir / "secondary").write_text(gateway.secondary + "\n")
    (workdir / "keys.json").write_text('{"keys":[]}')
    key = "99999999-8888-4777-8666-555555555555"
    (workdir / "insights").write_text(f"InstrumentationKey={key};IngestionEndpoint=http://127.0.0.1:{dead}/")
    for secret in ("primary", "secondary", "insights"):
        (workdir / secret).chmod(0o600)
    try:
        gateway.start()
        spec = {**MANAGED, "deployments": {"blue": {"traffic": 100, "replicas": [f"http://127.0.0.1:{model}"]}}}
        made = gateway.manage("PUT", "/v1/workspaces/ws/services/rose", spec)
        assert made.status_code == 201, made.text
        end = {"expires_at": "2099-01-01T00:00:00Z"}
        renewed = gateway.manage("POST", "/v1/workspaces/ws/services/rose/keys/secondary/regenerate", end)
        assert renewed.status_code == 200, renewed.text
        traffic(gateway)
        yield gateway
    finally:
        gateway.kill()


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory, counted):
    folder = tmp_path_factory.mktemp("prometheus")
    config = folder / "prometheus.yaml"
    config.write_text(PROMETHEUS.format(rules=RULES, observe=counted.ready["observe"]))
    [port] = free_ports(1)
    server = Server(
        ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}", "--log.level=warn",
         f"--web.listen-address=127.0.0.1:{port}", "--enable-feature=exemplar-storage"],
        port, "/-/ready", folder / "prometheus.log", folder,
    )  # fmt: skip
    try:
        yield server.start()
    finally:
        server.stop()


def traffic(gateway):
    """Calls that go well, fail, are refused and go to no service."""
    base = f"https://127.0.0.1:{gateway.port}/api/v1/service"
    traced = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
    bearer = lambda key: {"Authorization": f"Bearer {key}"}  # noqa: E731
    with requests.Session() as session:
        fixed = {"json": {"a": 1}, "verify": gateway.certs / "ca.pem", "timeout": 30}
        post = lambda path, headers: session.post(base + path, headers=headers, **fixed)  # noqa: E731
        for key in (gateway.primary, gateway.primary, gateway.secondary, gateway.secondary):
            post("/iris/v1/chat/completions", {**bearer(key), **traced})
        post("/iris/score", bearer("wrong"))
        post("/nobody/score", {})
        post("/outside/score", bearer("no.such.token"))
        pair = gateway.manage("GET", "/v1/workspaces/ws/services/rose/keys").json()
        post("/rose/score", bearer(pair["primary"]["value"]))


def ask(prometheus, path, **parameters):
    answer = requests.get(f"{prometheus.url}/api/v1/{path}", params=parameters, timeout=10)
    assert answer.ok, (parameters, answer.text)
    return answer.json()["data"]


def queries():
    """Every question of the dashboard, as Grafana asks it with all instances and services picked."""
    dashboard = json.loads((FOLDER / "dashboard.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    variables = {"$__rate_interval": "30s", "$__range": "1m", "$instance": ".*", "$service": ".*"}
    for name, value in variables.items():
        asked = [query.replace(name, value) for query in asked]
    assert len(asked) > 50 and "$" not in "".join(asked)
    return asked


def promtool(*arguments, text=None):
    command = [shutil.which("promtool"), *arguments]
    return subprocess.run(command, input=text, cwd=FOLDER, capture_output=True, text=True, timeout=60)


def test_promtool_takes_the_alerts_and_they_do_as_their_tests_say():
    checked = promtool("check", "rules", "rules.yaml")
    assert checked.returncode == 0 and "SUCCESS" in checked.stdout, checked.stdout + checked.stderr
    tested = promtool("test", "rules", "rules_test.yaml")
    assert tested.returncode == 0 and "FAILED" not in tested.stdout, tested.stdout + tested.stderr


def test_promtool_has_nothing_to_say_about_the_page(counted):
    page = counted.observe("/metrics")
    assert page.headers["Content-Type"] == "text/plain; version=0.0.4"
    checked = promtool("check", "metrics", text=page.text)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_a_strict_reader_takes_the_page_as_open_metrics(counted):
    answer = requests.get(f"http://{counted.ready['observe']}/metrics", headers=OPENMETRICS, timeout=10)
    assert answer.headers["Content-Type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    kinds = {name: families[name].type for name in ("scoregate_requests", "scoregate_build", "scoregate_replicas")}
    assert kinds == {"scoregate_requests": "counter", "scoregate_build": "info", "scoregate_replicas": "gauge"}
    durations = families["scoregate_request_duration_seconds"]
    assert (durations.type, durations.unit) == ("histogram", "seconds")
    shown = [(sample.labels["service"], sample.exemplar) for sample in durations.samples if sample.exemplar]
    assert TRACE in {exemplar.labels["trace_id"] for service, exemplar in shown if service == "iris"}
    assert {service for service, _ in shown} >= {"", "iris", "outside", "rose"}
    # Both pages have the same families.
    text = counted.observe("/metrics").text
    named = {line.split(" ")[2] for line in text.splitlines() if line.startswith("# TYPE ")}
    suffix = {"counter": "_total", "info": "_info"}
    assert named == {name + suffix.get(family.type, "") for name, family in families.items()}


def test_prometheus_answers_all_that_the_dashboard_asks(counted, prometheus):
    missing = set(queries())
    for query in [query for query in missing if any(name in query for name in WITHOUT_DATA)]:
        ask(prometheus, "query", query=query)
        missing.remove(query)

    def answered():
        traffic(counted)
        missing.difference_update([query for query in missing if ask(prometheus, "query", query=query)["result"]])
        return not missing

    try:
        eventually("every question has an answer", answered, seconds=ROUND_SECONDS)
    finally:
        assert not missing
    [target] = ask(prometheus, "targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    value = lambda query: float(ask(prometheus, "query", query=query)["result"][0]["value"][1])  # noqa: E731
    p99 = value("histogram_quantile(0.99, sum by (le) (rate(scoregate_request_duration_seconds_bucket[1m])))")
    assert 0 < p99 < 30
    lost = "sum(scoregate_exporter_accepted_total) - sum(scoregate_exporter_records_total) - sum(scoregate_exporter_spooled)"
    assert value(lost) == 0


def test_exemplars_in_prometheus_lead_to_records(counted, prometheus):
    series = 'scoregate_request_duration_seconds_bucket{service=~"iris|rose"}'
    now = time.time()

    def found():
        traffic(counted)
        data = ask(prometheus, "query_exemplars", query=series, start=now - 600, end=time.time())
        ids = {exemplar["labels"]["trace_id"] for one in data for exemplar in one["exemplars"]}
        return ids if len(ids) > 1 else None

    ids = eventually("exemplars of traced and other calls", found, seconds=20)
    records = counted.records()
    known = {record.get("TraceId") or record["RequestId"].replace("-", "") for record in records}
    assert TRACE in ids and ids <= known


def test_every_alert_is_evaluated_and_one_is_raised(counted, prometheus):
    def evaluated():
        rules = [rule for group in ask(prometheus, "rules")["groups"] for rule in group["rules"]]
        return rules if all(rule["health"] != "unknown" for rule in rules) else None

    rules = eventually("all rules are evaluated", evaluated, seconds=20)
    named = {rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}
    assert {rule["name"] for rule in rules} == named
    assert [(rule["name"], rule["lastError"]) for rule in rules if rule["health"] != "ok"] == []

    def refused():
        alerts = ask(prometheus, "alerts")["alerts"]
        return [alert for alert in alerts if alert["labels"]["alertname"] == "ScoregateConfigRefused"]

    assert not refused()
    good = counted.config.read_text()
    try:
        counted.config.write_text(good.replace("compute_type: Managed", "compute_type: MOON"))
        counted.signal(signal.SIGHUP)
        [alert] = eventually("the refused configuration is told", refused, seconds=20)
    finally:
        counted.config.write_text(good)
        counted.signal(signal.SIGHUP)
    assert counted.ready["observe"] in alert["annotations"]["summary"]
    eventually("the alert is over", lambda: not refused(), seconds=20)
