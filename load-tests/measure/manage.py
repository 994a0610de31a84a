"""The management plane under measurement: services made through the API, changes beside calls, what both cost."""

import http.client
import json
import select
import ssl
import subprocess
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

from . import Failure, install, load
from .gateways import READY_SECONDS, SETTLE_SECONDS
from .processes import Process

WORKSPACE = "bench"
CALLS_PER_SECOND = 1000
CLIENTS = 20
CHANGES_PER_SECOND = 5
READS = 3000


@dataclass
class Running:
    """A gateway with its management plane."""

    process: Process
    port: int
    management: int
    token: str
    trust: ssl.SSLContext


@contextmanager
def gateway(bench):
    """A fresh gateway with an empty store."""
    config = bench.render("scoregate-managed.yaml", bench.folder / "records")
    trust = ssl.create_default_context(cafile=bench.certificate)
    errors = bench.folder / "scoregate.err"
    with errors.open("wb") as stderr, Process("scoregate", [install.SCOREGATE, "run", "-c", config], bench.gateway_cpu,
                                              stdout=subprocess.PIPE, stderr=stderr) as process:
        with process.child.stdout as stdout:
            ready, _, _ = select.select([stdout], [], [], READY_SECONDS)
            line = stdout.readline() if ready else b""
            if not line:
                raise Failure(f"no ready line\n{errors.read_text(errors='replace')[-2000:]}")
            said = json.loads(line)
            ports = [int(address.rpartition(":")[2]) for address in (said["listeners"]["public"], said["management"])]
            time.sleep(SETTLE_SECONDS)
            yield Running(process, *ports, bench.bootstrap_token, trust)


class Api:
    """One keep-alive connection to the management API."""

    def __init__(self, running):
        self.connection = http.client.HTTPSConnection("127.0.0.1", running.management, timeout=60,
                                                      context=running.trust)
        self.headers = {"Authorization": f"Bearer {running.token}", "Content-Type": "application/json"}

    def call(self, method, path, body=None):
        """The answer's JSON and the milliseconds it took."""
        began = time.perf_counter()
        self.connection.request(method, path, body=None if body is None else json.dumps(body), headers=self.headers)
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise Failure(f"{method} {path}: {answer.status} {text[:500]}")
        return json.loads(text or b"null"), (time.perf_counter() - began) * 1000


def service(name):
    return f"/v1/workspaces/{WORKSPACE}/services/{name}"


def measure(bench, running, count, options, say):
    """Everything about one number of services."""
    api = Api(running)
    before = running.process.memory().rss
    spec = {"compute_type": "AKS", "deployments": {
        "default": {"traffic": 100, "replicas": [f"http://127.0.0.1:{bench.upstream_port}"]}}}
    began = time.monotonic()
    made = [api.call("PUT", service(f"svc-{n}"), spec)[1] for n in range(count)]
    seconds = time.monotonic() - began
    rss = running.process.memory().rss - before
    say(f"{count} services made in {seconds:.1f} s; {rss} KiB more memory")

    swaps = sorted(swap(bench, running, api) for _ in range(50))
    say(f"a regenerated key was in force after {median(swaps):.1f} ms (median), {swaps[-1]:.1f} ms at most")
    quiet, busy, changes = [], [], []
    for number in range(options.rounds):
        quiet.append(spell(bench, running, api, options.seconds, None))
        busy.append(spell(bench, running, api, options.seconds, changes))
        say(f"round {number + 1}/{options.rounds}: p99 {quiet[-1]['p99']} us quiet, {busy[-1]['p99']} us with changes")
    began = time.monotonic()
    for _ in range(READS):
        api.call("GET", service("svc-0"))
    reads = READS / (time.monotonic() - began)
    return {"services": count, "made_per_second": count / seconds, "make_ms_median": median(made),
            "bytes_per_service": rss * 1024 / count, "swap_ms": swaps, "quiet": quiet, "busy": busy,
            "change_ms_median": median(changes), "changes": len(changes), "reads_per_second": reads}


def swap(bench, running, api):
    """Milliseconds from asking for a new key to the first call that it opens; the old one must be dead by then."""
    path = service("svc-0") + "/keys"
    old = api.call("GET", path)[0]["primary"]["value"]
    target = load.Target(running.port, "/api/v1/service/svc-0/score", old, bench.folder / "body.json", running.trust)
    target.body.write_bytes(b"x" * load.BODY_BYTES)
    began = time.perf_counter()
    new = api.call("POST", path + "/primary/regenerate", {})[0]["value"]
    connection, status, _ = load.call(target, key=new)
    took = (time.perf_counter() - began) * 1000
    connection.close()
    connection, dead, _ = load.call(target, key=old)
    connection.close()
    if (status, dead) != (200, 401):
        raise Failure(f"after a regeneration the new key gave {status} and the old one {dead}")
    return took


def spell(bench, running, api, seconds, changes):
    """Calls at a steady rate for a while, with changes beside them if `changes` (their milliseconds) is given."""
    key = api.call("GET", service("svc-0") + "/keys")[0]["secondary"]["value"]
    log = bench.folder / "calls.log"
    log.unlink(missing_ok=True)
    requests = CALLS_PER_SECOND * seconds
    argv = ["taskset", "-c", str(bench.load_cpu), install.find("h2load"), "--h1", "-n", str(requests), "-c",
            str(CLIENTS), "--rps", str(CALLS_PER_SECOND // CLIENTS), "-t", "1", "-d", str(bench.folder / "body.json"),
            "-H", f"authorization: Bearer {key}", f"--log-file={log}",
            f"https://127.0.0.1:{running.port}/api/v1/service/svc-0/score"]
    done = threading.Event()
    changer = threading.Thread(target=change, args=(running, changes, done)) if changes is not None else None
    if changer:
        changer.start()
    try:
        said = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=seconds * 10 + 60)
    finally:
        done.set()
        if changer:
            changer.join()
    rows = [line.split("\t") for line in log.read_text().splitlines()]
    failed = [row for row in rows if row[1] != "200"]
    if failed or len(rows) != requests:
        raise Failure(f"{len(failed)} of {len(rows)} calls failed, {requests} were wanted\n{said.stdout[-600:]}")
    times = sorted(int(row[2]) for row in rows)
    return {"requests": requests, "p50": times[len(times) // 2], "p99": times[len(times) * 99 // 100],
            "max": times[-1]}


def change(running, changes, done):
    """Changes to other services than the called one, each a new snapshot."""
    api = Api(running)
    number = 0
    while not done.wait(1 / CHANGES_PER_SECOND):
        number += 1
        _, took = api.call("PATCH", service("svc-1"), {"description": f"change {number}"})
        changes.append(took)


def markdown(results, options):
    """The tables, with what they mean."""
    lines = ["# Management plane", "",
             f"{time.strftime('%Y-%m-%d')}, {options.rounds} rounds of {options.seconds} s each, {CALLS_PER_SECOND} calls/s, "
             f"{CHANGES_PER_SECOND} changes/s in the busy spells. Medians over the rounds; the gateway on one CPU, the load "
             "on another.", "",
             "| figure | " + " | ".join(f"{it['services']:,} services" for it in results) + " |",
             "| --- |" + " --- |" * len(results)]
    rows = [
        ("new key in force, old one dead, ms (median of 50)", lambda it: f"{median(it['swap_ms']):.1f}"),
        ("the same, slowest of 50, ms", lambda it: f"{it['swap_ms'][-1]:.1f}"),
        ("a change (PATCH, durable, in force), ms", lambda it: f"{it['change_ms_median']:.1f}"),
        ("p50 of calls, quiet, µs", lambda it: f"{median(spell['p50'] for spell in it['quiet']):.0f}"),
        ("p50 of calls, with changes, µs", lambda it: f"{median(spell['p50'] for spell in it['busy']):.0f}"),
        ("p99 of calls, quiet, µs", lambda it: f"{median(spell['p99'] for spell in it['quiet']):.0f}"),
        ("p99 of calls, with changes, µs", lambda it: f"{median(spell['p99'] for spell in it['busy']):.0f}"),
        ("p99 with changes / quiet", lambda it: f"{ratio(it):.2f}"),
        ("memory per service, bytes", lambda it: f"{it['bytes_per_service']:.0f}"),
        ("services made per second, one connection", lambda it: f"{it['made_per_second']:.0f}"),
        ("management reads per second, one connection", lambda it: f"{it['reads_per_second']:.0f}"),
    ]
    lines += [f"| {title} | " + " | ".join(read(it) for it in results) + " |" for title, read in rows]
    notes = ["No call failed and none was answered by another status than 200 in any spell.",
             "Memory per service is the growth of resident memory while they are made, store and records of the changes "
             "included; with few services it is mostly what the first calls of the API need."]
    return "\n".join([*lines, "", *notes, ""])


def ratio(result):
    """How much the p99 moves; at most 1.20 is wanted."""
    return median(it["p99"] for it in result["busy"]) / median(it["p99"] for it in result["quiet"])
