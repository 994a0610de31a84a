"""Clients that count: every call made through the gateway, by Python requests or by curl, must leave one record."""

import dataclasses
import json
import subprocess
import tempfile
import threading

import requests

VIAS = ("requests", "curl-h1", "curl-h2")
HTTP_VERSION = {"curl-h1": "1.1", "curl-h2": "2"}
TIMEOUT_SECONDS = 40


@dataclasses.dataclass
class Answer:
    """What came back; `headers` finds a name in any case."""

    status: int
    headers: requests.structures.CaseInsensitiveDict
    body: bytes
    via: str

    def json(self):
        return json.loads(self.body)


class Caller:
    """Calls one gateway. Every method that makes a call counts it."""

    def __init__(self, gateway):
        self.gateway = gateway
        self.calls = 0
        self.secrets = set()
        self._lock = threading.Lock()

    def url(self, path, host="127.0.0.1"):
        return f"https://{host}:{self.gateway.port}{path}"

    def service(self, name, path="score"):
        return self.url(f"/api/v1/service/{name}/{path}")

    def bearer(self, credential):
        """An Authorization header; the credential must afterwards be found in no log and no record."""
        # A token's header is the same for all and no secret: its signature is what must not show.
        self.secrets.add(credential.rsplit(".", 1)[-1])
        return {"Authorization": f"Bearer {credential}"}

    def call(self, via, url, method="POST", headers=None, data=None):
        """One call over a connection of its own, by one of `VIAS`."""
        headers = headers or {}
        if via == "requests":
            with requests.Session() as session:
                return self.call_in(session, url, method, headers, data)
        return self._curl(via, url, method, headers, data)

    def call_in(self, session, url, method="POST", headers=None, data=None):
        """One call by Python requests, over a connection that `session` may have kept."""
        self._count(1)
        answer = session.request(
            method, url, headers=headers, data=data, verify=str(self.gateway.certs / "ca.pem"), timeout=TIMEOUT_SECONDS
        )
        return Answer(answer.status_code, answer.headers, answer.content, "requests")

    def curl(self, *arguments, calls=1):
        """curl with `arguments`; its standard output and standard error. `calls` is how many calls they make."""
        self._count(calls)
        command = ["curl", "--silent", "--show-error", "--max-time", str(TIMEOUT_SECONDS)]
        command += ["--cacert", self.gateway.certs / "ca.pem", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS + 10)
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr

    def _curl(self, via, url, method, headers, data):
        version = HTTP_VERSION[via]
        arguments = [f"--http{version}", "--request", method, "--write-out", "%{header_json}%{json}"]
        for name, value in headers.items():
            arguments += ["--header", f"{name}: {value}"]
        with tempfile.NamedTemporaryFile() as sent, tempfile.NamedTemporaryFile() as received:
            if data is not None:
                sent.write(data.encode() if isinstance(data, str) else data)
                sent.flush()
                arguments += ["--data-binary", f"@{sent.name}"]
                if "Content-Type" not in headers:
                    arguments += ["--header", "Content-Type:"]
            out, _ = self.curl(*arguments, "--output", received.name, url)
            body = received.read()
        fields, end = json.JSONDecoder().raw_decode(out)
        facts = json.loads(out[end:])
        assert facts["http_version"] == version
        folded = requests.structures.CaseInsensitiveDict({name: ", ".join(values) for name, values in fields.items()})
        return Answer(facts["response_code"], folded, body, via)

    def _count(self, calls):
        with self._lock:
            self.calls += calls
