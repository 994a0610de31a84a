"""The load: what is sent in each scenario, and what came of it."""

import http.client
import re
import ssl
import subprocess
from dataclasses import dataclass

from . import Failure, install
from .processes import accepted_connections

CONNECTIONS = 64
# New connections come in bursts of CONNECTIONS, this far apart: 1,280 a second, which every gateway keeps up with.
# h2load also opens new ones by itself when the gateway closes (`connection: close`, a closed loop), but then resumes
# the TLS session of the one before; connections opened by its rate option always shake hands in full.
BURST_PERIOD = "50ms"
BODY_BYTES = 1024
# The gateways differ in what they prefer (HAProxy takes AES-256 when offered); offering one suite makes them equal.
CIPHER = "TLS_AES_128_GCM_SHA256"
# An upper bound for one run of the generator; the requests are bounded by their number.
RUN_SECONDS = 300


@dataclass
class Outcome:
    """What one run of the load came to. `notes` are facts worth keeping beside the figures."""

    requests: int
    seconds: float
    notes: dict


@dataclass(frozen=True)
class Load:
    """h2load with a fixed number of POST requests, over 64 connections or each over one of its own."""

    key: str
    title: str
    arguments: tuple
    protocol: str
    requests: int
    quick_requests: int
    connection_each: bool = False
    warm_up = 2000

    def warm(self, target):
        """Opens upstream connections, fills caches. Returns how many requests that took."""
        return self.h2load(target, min(self.warm_up, self.quick_requests)).requests

    def drive(self, target, requests):
        """The measured run."""
        opened = accepted_connections()
        outcome = self.h2load(target, requests)
        opened = accepted_connections() - opened
        if self.connection_each and opened < requests:
            raise Failure(f"{self.title}: only {opened} connections were opened for {requests} requests")
        return outcome

    def h2load(self, target, requests):
        connections = ["-c", str(CONNECTIONS)]
        if self.connection_each:
            connections = ["-c", str(requests), "-r", str(CONNECTIONS), "--rate-period", BURST_PERIOD]
        argv = [install.find("h2load"), "-n", str(requests), *connections, "-t", "1",
                "--tls13-ciphers", CIPHER, "-d", str(target.body), "-H", "content-type: application/json",
                "-H", f"authorization: Bearer {target.key}", *self.arguments, target.url]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=RUN_SECONDS)
        except subprocess.TimeoutExpired as late:
            raise Failure(f"{self.title}: {requests} requests were not answered within {RUN_SECONDS} s") from late
        outcome, answered = parse_h2load(done.stdout)
        if answered != requests:
            raise Failure(f"{self.title}: {answered} of {requests} requests were answered 2xx\n{done.stdout[-600:]}")
        if outcome.notes["protocol"] != self.protocol:
            raise Failure(f"{self.title}: {outcome.notes['protocol']} was negotiated, not {self.protocol}")
        return outcome


@dataclass(frozen=True)
class IdleConnections:
    """Keep-alive TLS connections that made one call each and then rest; held until memory has been read."""

    key: str
    title: str
    requests: int
    quick_requests: int
    warm_up = 200

    def warm(self, target):
        """So that what only the first connections cost is not divided among the later ones."""
        for _ in range(self.warm_up):
            call(target)[0].close()
        return self.warm_up

    def drive(self, target, requests):
        held = [call(target)[0] for _ in range(requests)]
        target.while_held()
        for connection in held:
            connection.close()
        return Outcome(requests, 0.0, {})


# Enough requests that the 64 handshakes of a run stay near one percent of the CPU time that is divided by them.
ALL = {
    scenario.key: scenario
    for scenario in (
        Load("h1", "HTTP/1.1 keep-alive", ("--h1",), "http/1.1", 60_000, 8_000),
        Load("h2", "HTTP/2, 4 streams per connection", ("-m", "4"), "h2", 60_000, 8_000),
        Load("tls", "new TLS connection per request", ("--h1", "-H", "connection: close"), "http/1.1", 4_000, 800,
             connection_each=True),
        IdleConnections("idle", "idle TLS connections", 2_000, 400),
    )
}


@dataclass
class Target:
    """Where the load goes and with what."""

    port: int
    path: str
    key: str
    body: object
    trust: ssl.SSLContext
    # Called while the idle connections are open.
    while_held: object = None

    @property
    def url(self):
        return f"https://127.0.0.1:{self.port}{self.path}"


def call(target, key=None, agent="scoregate-compare"):
    """One call on a connection of its own. Returns the open connection, the status and the headers."""
    connection = http.client.HTTPSConnection("127.0.0.1", target.port, timeout=30, context=target.trust)
    connection.request("POST", target.path, body=target.body.read_bytes(),
                       headers={"Authorization": f"Bearer {key or target.key}", "Content-Type": "application/json",
                                "User-Agent": agent})
    answer = connection.getresponse()
    answer.read()
    return connection, answer.status, answer.headers


def parse_h2load(text):
    """The summary h2load prints, as an `Outcome`, and the number of 2xx answers."""
    def number(pattern):
        found = re.search(pattern, text, re.MULTILINE)
        if not found:
            raise Failure(f"h2load printed no {pattern!r}:\n{text[-600:]}")
        return found.group(1)

    seconds, unit = re.match(r"([\d.]+)(us|ms|s|m)$", number(r"^finished in (\S+?),")).groups()
    scale = {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60}[unit]
    outcome = Outcome(
        requests=int(number(r"^requests: (\d+) total")),
        seconds=float(seconds) * scale,
        notes={"protocol": number(r"^Application protocol: (\S+)"), "tls": number(r"^TLS Protocol: (\S+)"),
               "cipher": number(r"^Cipher: (\S+)"), "key_exchange": number(r"^Server Temp Key: (.+)$")},
    )
    return outcome, int(number(r"^status codes: (\d+) 2xx"))
