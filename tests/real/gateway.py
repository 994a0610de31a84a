"""A real scoregate process: its configuration, its start and end, and what it leaves behind."""

import json
import os
import pathlib
import select
import socket
import subprocess
import time

import requests

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("SCOREGATE_BIN", REPOSITORY / "target/debug/scoregate"))

START_SECONDS = 30
END_SECONDS = 30

CONFIG = """\
version: scoregate/v1
workspace: {{ subscription: sub, resource_group: rg, name: ws, location: westeurope }}
listeners:
  - name: public
    address: 127.0.0.1:0
    tls: {{ certificates: [ {{ cert: "{certs}/server.pem", key: "{certs}/server.key" }} ] }}
observe: {{ address: 127.0.0.1:0 }}
tokens: {{ issuer: "https://scoregate.test", signing_key: {{ file: "{certs}/token.key" }}, lifetime: 12h, leeway: 60s }}
drain: {{ delay: 100ms, timeout: 20s }}
log: {{ format: json, level: info }}
telemetry: {{ records: {{ file: {{ path: "{workdir}/records.jsonl" }} }} }}
services:
  - name: iris-aks
    compute_type: AKS
    limits: {{ concurrent_requests_per_replica: 8 }}
    keys: {{ primary: {{ file: "{workdir}/primary" }}, secondary: {{ env: IRIS_SECONDARY }} }}
    deployments:
      - {{ name: blue, traffic: 100, replicas: ["{model}"] }}
      - {{ name: green, traffic: 0, replicas: ["{model}"] }}
  - name: iris-aci
    compute_type: ACI
    hosts: [iris-aci.test]
    deployments:
      - {{ name: blue, traffic: 100, replicas: ["{model}"] }}
  - name: iris-token
    compute_type: AKS
    auth: token
    deployments:
      - {{ name: blue, traffic: 100, replicas: ["{model}"] }}
"""


def eventually(what, probe, seconds=10.0):
    """Asks `probe` until its answer is true and returns that answer; fails with `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds} s still not: {what}")
        time.sleep(0.02)


class Gateway:
    """One gateway process in a directory of its own, with the keys that open its services."""

    def __init__(self, workdir, certs, model_url):
        self.workdir = workdir
        self.certs = certs
        self.primary, self.secondary = "primary-3f9Kd02LmQ8sVb7", "secondary-Zx81PqRt6YwNc4"
        self.config = workdir / "scoregate.yaml"
        self.config.write_text(CONFIG.format(workdir=workdir, certs=certs, model=model_url))
        self.set_primary(self.primary)
        self.log_path = workdir / "gateway.log"
        self.process = None
        self.ready = None

    def set_primary(self, key):
        """Puts another primary key in its file; the gateway takes it up at its next reload."""
        (self.workdir / "primary").write_text(key + "\n")
        self.primary = key

    def start(self):
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [BINARY, "run", "-c", self.config], stdout=subprocess.PIPE, stderr=log, env=self._environment()
            )
        self.ready = json.loads(self._first_line())
        assert self.ready["event"] == "ready" and self.ready["pid"] == self.process.pid

    def mint(self, service, *options):
        """A token as an operator makes one, offline."""
        command = [BINARY, "tokens", "mint", "-c", self.config, "--service", service, "--subject", "tester", *options]
        done = subprocess.run(command, env=self._environment(), capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def signal(self, number):
        self.process.send_signal(number)

    def wait_for_end(self):
        """The exit code, and whatever came on standard output after the ready line."""
        rest, _ = self.process.communicate(timeout=END_SECONDS)
        return self.process.returncode, rest.decode()

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    @property
    def port(self):
        return int(self.ready["listeners"]["public"].rsplit(":", 1)[1])

    def accepts(self):
        """Whether the public port takes a connection. Nothing is sent on it, so it leaves no record."""
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
        except ConnectionError:
            return False
        return True

    def observe(self, path):
        """An answer of the port for metrics and health; no scoring call, so it leaves no record."""
        return requests.get(f"http://{self.ready['observe']}{path}", timeout=10)

    @property
    def log(self):
        return self.log_path.read_text()

    def record_files(self):
        return sorted(self.workdir.glob("records*.jsonl"))

    def records(self):
        """Every whole line of every record file so far."""
        texts = [path.read_text() for path in self.record_files()]
        return [json.loads(line) for text in texts for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def record(self, request_id):
        """The one record of a call; it is written off the request path, so a little later than the answer."""

        def find():
            return [record for record in self.records() if record["RequestId"] == request_id]

        found = eventually(f"a record of {request_id}", find)
        assert len(found) == 1
        return found[0]

    def _environment(self):
        return {**os.environ, "IRIS_SECONDARY": self.secondary}

    def _first_line(self):
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            readable, _, _ = select.select([self.process.stdout], [], [], 0.1)
            if readable:
                line = self.process.stdout.readline()
                if line:
                    return line
                break
        self.kill()
        raise AssertionError(f"the gateway did not get ready; its log:\n{self.log}")
