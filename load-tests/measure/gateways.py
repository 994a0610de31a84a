"""The gateways compared: how each is started, what it is told, and how its access log reads."""

import http.client
import json
import re
import secrets
import select
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from . import Failure, install
from .processes import Process, free_port, wait_for_port

PEERS = Path(__file__).parent.parent / "peers"
READY_SECONDS = 20
# How a replica is written in each template, and what stands between two of them.
REPLICAS = {
    "nginx.conf": ("server 127.0.0.1:{port};", "\n        "),
    "haproxy.cfg": ("server replica-{port} 127.0.0.1:{port} pool-max-conn -1 pool-purge-delay 300s", "\n    "),
    "envoy.yaml": ("{{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }} }}", ", "),
    "scoregate.yaml": ('"http://127.0.0.1:{port}"', ", "),
}
# What a fault scenario adds to the route, the service's limits or the group of replicas; here for those that add nothing.
SETTINGS = {
    "ROUTE": "",
    "CLUSTER": "",
    "TELEMETRY": "",
    "WRITE_AHEAD": "false",
    # The peers bound nothing per replica; the load of `compare` runs up to 256 calls at once.
    "LIMITS": "concurrent_requests_per_replica: 1024, queue_wait: 5s",
}
# Every exporter there is, to what stands in for the model and takes all: the gateway's own work is measured, nothing else.
EXPORTERS = (
    "spool: {{ path: {folder}/spool, mode: {mode} }}\n"
    "  application_insights: {{ connection_string: {{ file: {folder}/connection-string }} }}\n"
    "  otlp: {{ endpoint: '{endpoint}', protocol: http/protobuf }}"
)
INSTRUMENTATION_KEY = "99999999-8888-4777-8666-555555555555"
# After the load: exporters send together, once a second, what little came meanwhile.
DELIVERY_SECONDS = 30
DELIVERY_POLL_SECONDS = 0.25
# Start-up work (a first resolve, worker threads, lazy tables) is over before memory is read.
SETTLE_SECONDS = 0.5


@dataclass(frozen=True)
class Gateway:
    """One product. `start` gets the bench, the CPU and the log's path and yields a `Running`."""

    name: str
    title: str
    start: object
    version: object
    # Names of the request id and the status in its log.
    request_id: str = "request_id"
    status: str = "status"
    # Waits until what so many calls left to do is done: it is to be accounted as well.
    settle: object = lambda running, calls: None


@dataclass
class Running:
    """A gateway that accepts connections."""

    process: Process
    port: int
    log: Path
    # Address of scoregate's metrics.
    observe: str = ""


@dataclass
class Bench:
    """What all gateways share in one comparison: a folder, a certificate, two keys, the upstream."""

    folder: Path
    gateway_cpu: int
    load_cpu: int
    service: str = "iris"
    keys: tuple = ("k1Zq8vTn3LxW0aRs7YbEu2MdHc5GfJp9", "w4NhXy6PzQ1oVt8KcSj3BmDr0LgAe7Ui")
    # Of the management plane's owner, in load-tests/manage.
    bootstrap_token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    upstream_port: int = field(default_factory=free_port)
    # Ports of the replicas, if there is not just the one upstream; and what stands in for `SETTINGS`.
    replica_ports: tuple = ()
    settings: dict = field(default_factory=dict)

    def __post_init__(self):
        self.certificate = self.folder / "server.pem"
        # HAProxy looks for the key of `server.pem` in `server.pem.key`; the others are told.
        self.certificate_key = self.folder / "server.pem.key"
        install.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                     "-days", "7", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
                     "-keyout", self.certificate_key, "-out", self.certificate])
        self.key_files = [self.folder / f"api-key-{n}" for n in (1, 2)]
        self.bootstrap_file = self.folder / "bootstrap-token"
        for path, secret in [*zip(self.key_files, self.keys), (self.bootstrap_file, self.bootstrap_token)]:
            path.write_text(secret)
            path.chmod(0o600)

    @property
    def score_path(self):
        return f"/api/v1/service/{self.service}/score"

    def render(self, template, log, port=0, **settings):
        """Fills the `@NAME@` places of a file under `peers/` and returns the path of the result."""
        text = (PEERS / template).read_text()
        replica, between = REPLICAS.get(template, ("", ""))
        ports = self.replica_ports or (self.upstream_port,)
        for place, value in {
            "REPLICAS": between.join(replica.format(port=it) for it in ports), **SETTINGS, **self.settings, **settings,
            "DIR": self.folder, "LOG": log, "PORT": port, "UPSTREAM_PORT": self.upstream_port,
            "CERT": self.certificate, "CERT_KEY": self.certificate_key,
            "API_KEY": self.keys[0], "API_KEY_2": self.keys[1],
            "API_KEY_FILE": self.key_files[0], "API_KEY_2_FILE": self.key_files[1],
            "SERVICE": self.service, "SCORE_PATH": self.score_path,
            "BOOTSTRAP_FILE": self.bootstrap_file, "STORE": self.folder / "store",
        }.items():
            text = text.replace(f"@{place}@", str(value))
        path = self.folder / template
        path.write_text(text)
        path.chmod(0o600)
        return path

    @contextmanager
    def upstream(self):
        """The model's stand-in, on the load generator's CPU."""
        config = self.render("upstream.conf", log="")
        with Process("upstream", [install.find("nginx"), "-p", self.folder, "-c", config], self.load_cpu) as process:
            wait_for_port(process, self.upstream_port)
            yield process

    @contextmanager
    def gateway(self, gateway):
        """A fresh process of a gateway, ready and at rest, with an empty log."""
        log = self.folder / f"{gateway.name}.log"
        log.unlink(missing_ok=True)
        errors = self.folder / f"{gateway.name}.err"
        with errors.open("wb") as stderr:
            try:
                with gateway.start(self, log, stderr) as running:
                    time.sleep(SETTLE_SECONDS)
                    running.process.fail_if_ended()
                    yield running
            except Failure as failure:
                said = errors.read_text(errors="replace").strip()[-2000:]
                raise Failure(f"{gateway.title}: {failure}\n{said}".strip()) from failure


@contextmanager
def listening(bench, name, argv, port, log, stderr, stdout=subprocess.DEVNULL):
    """A peer that was told its port."""
    with Process(name, argv, bench.gateway_cpu, stdout=stdout, stderr=stderr) as process:
        wait_for_port(process, port)
        yield Running(process, port, log)


@contextmanager
def start_nginx(bench, log, stderr):
    port = free_port()
    config = bench.render("nginx.conf", log, port)
    with listening(bench, "nginx", [install.find("nginx"), "-p", bench.folder, "-c", config], port, log, stderr) as it:
        yield it


@contextmanager
def start_haproxy(bench, log, stderr):
    port = free_port()
    argv = [install.find("haproxy"), "-db", "-f", bench.render("haproxy.cfg", log, port)]
    with log.open("ab") as stdout, listening(bench, "haproxy", argv, port, log, stderr, stdout) as it:
        yield it


@contextmanager
def start_envoy(bench, log, stderr):
    port = free_port()
    argv = [install.envoy(), "-c", bench.render("envoy.yaml", log, port), "--concurrency", "1", "--disable-hot-restart",
            "--log-level", "warning", "--file-flush-interval-msec", "1000"]
    with listening(bench, "envoy", argv, port, log, stderr) as it:
        yield it


@contextmanager
def start_scoregate(bench, log, stderr, **settings):
    argv = [install.SCOREGATE, "run", "-c", bench.render("scoregate.yaml", log, **settings)]
    with Process("scoregate", argv, bench.gateway_cpu, stdout=subprocess.PIPE, stderr=stderr) as process:
        with process.child.stdout as stdout:
            ready, _, _ = select.select([stdout], [], [], READY_SECONDS)
            line = stdout.readline() if ready else b""
            if not ready:
                raise Failure(f"no ready line on stdout within {READY_SECONDS} s")
            if not line:
                raise Failure(f"ended with status {process.child.wait(READY_SECONDS)} before its ready line")
            said = json.loads(line)
            yield Running(process, int(said["listeners"]["public"].rpartition(":")[2]), log, said["observe"])


def start_write_ahead(bench, log, stderr):
    """The record of a call is in the file before its answer is out."""
    return start_scoregate(bench, log, stderr, WRITE_AHEAD="true")


def start_exporting(bench, log, stderr):
    """Beside the record file every exporter is at work."""
    return start_scoregate(bench, log, stderr, TELEMETRY=exporters(bench, "write_behind"))


def start_exporting_ahead(bench, log, stderr):
    """The same, and the record is in the file and in every spool before the answer is out."""
    return start_scoregate(bench, log, stderr, WRITE_AHEAD="true", TELEMETRY=exporters(bench, "write_ahead"))


def exporters(bench, mode):
    endpoint = f"http://127.0.0.1:{bench.upstream_port}/"
    secret = bench.folder / "connection-string"
    secret.write_text(f"InstrumentationKey={INSTRUMENTATION_KEY};IngestionEndpoint={endpoint}")
    return EXPORTERS.format(folder=bench.folder, endpoint=endpoint, mode=mode)


def delivered(running, calls):
    """Waits until every exporter has delivered the records of so many calls."""
    deadline = time.monotonic() + DELIVERY_SECONDS
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection(running.observe, timeout=5)
        connection.request("GET", "/metrics")
        page = connection.getresponse().read().decode()
        connection.close()
        counts = re.findall(r'^scoregate_exporter_records_total\{.*outcome="delivered".*\} (\S+)$', page, re.MULTILINE)
        if counts and all(float(count) >= calls for count in counts):
            return
        time.sleep(DELIVERY_POLL_SECONDS)
    raise Failure(f"exporters delivered {', '.join(counts) or 'nothing'} of {calls} records within {DELIVERY_SECONDS} s")


def first_line(*argv):
    """The first line a program prints, wherever it prints it."""
    said = subprocess.run(list(map(str, argv)), capture_output=True, text=True, check=False, timeout=20)
    lines = (said.stdout + said.stderr).strip().splitlines()
    return lines[0].strip() if lines else "unknown"


def scoregate(name, title, start, **more):
    return Gateway(name, title, start, lambda: first_line(install.SCOREGATE, "version"), request_id="RequestId",
                   status="StatusCode", **more)


ALL = {
    gateway.name: gateway
    for gateway in (
        scoregate("scoregate", "scoregate", start_scoregate),
        Gateway("nginx", "nginx", start_nginx, lambda: first_line(install.find("nginx"), "-v")),
        Gateway("haproxy", "HAProxy", start_haproxy, lambda: first_line(install.find("haproxy"), "-v")),
        Gateway("envoy", "Envoy", start_envoy, lambda: first_line(install.envoy(), "--version").rpartition(": ")[2]),
    )
}
# scoregate otherwise than it comes, to be held against itself; measured only when asked for.
VARIANTS = {
    gateway.name: gateway
    for gateway in (
        scoregate("scoregate-write-ahead", "scoregate, write-ahead", start_write_ahead),
        scoregate("scoregate-exporting", "scoregate, exporting", start_exporting, settle=delivered),
        scoregate("scoregate-exporting-ahead", "scoregate, exporting, write-ahead", start_exporting_ahead, settle=delivered),
    )
}
KNOWN = ALL | VARIANTS
