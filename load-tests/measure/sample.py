"""One sample: a fresh gateway, checked to do the whole job, put under one scenario, accounted, its log counted."""

import json
import ssl
import time
from dataclasses import dataclass

from . import Failure, load
from .processes import busy_ns

LOG_SECONDS = 15
LOG_POLL_SECONDS = 0.1
PROBE_AGENT = "scoregate-compare-probe"  # peers/upstream.conf logs what arrives with this name, and nothing else
WRONG_KEY = "x" * 32


@dataclass
class Sample:
    """The figures of one run. Memory is in KiB; shares are of one CPU, 0 to 1."""

    round: int
    gateway: str
    scenario: str
    requests: int
    seconds: float
    cpu_us_per_request: float
    requests_per_second: float
    gateway_share: float
    upstream_share: float
    # What other programs took of the gateway's CPU while it was measured: the noise.
    others_share: float
    rss_idle: int
    pss_idle: int
    rss_after: int
    pss_after: int
    connection_bytes: float
    calls: int
    records: int
    record_faults: list
    notes: dict


def take(bench, upstream, gateway, scenario, round_number, requests):
    """Measures one gateway in one scenario, once."""
    with bench.gateway(gateway) as running:
        idle = running.process.memory()
        target = target_of(bench, running)
        notes = check_same_job(bench, gateway, target)
        calls = 2 + scenario.warm(target)
        before = running.process.memory()

        # For idle connections memory is read while they are held, else right after the load.
        held = []
        target.while_held = lambda: held.append(running.process.memory())
        meter = Meter(bench, running.process, upstream)
        outcome = scenario.drive(target, requests)
        gateway.settle(running, calls + outcome.requests)
        used = meter.read()
        after = held[0] if held else running.process.memory()

        calls += outcome.requests
        records, faults = count_records(running.log, gateway, calls)
    seconds = outcome.seconds or used.seconds
    return Sample(
        round=round_number, gateway=gateway.name, scenario=scenario.key, requests=outcome.requests, seconds=seconds,
        cpu_us_per_request=used.gateway_ns / 1000 / outcome.requests, requests_per_second=outcome.requests / seconds,
        gateway_share=used.gateway_ns / 1e9 / used.seconds, upstream_share=used.upstream_ns / 1e9 / used.seconds,
        others_share=max(0.0, (used.cpu_busy_ns - used.gateway_ns) / 1e9 / used.seconds),
        rss_idle=idle.rss, pss_idle=idle.pss, rss_after=after.rss, pss_after=after.pss,
        connection_bytes=(after.rss - before.rss) * 1024 / outcome.requests if held else 0.0,
        calls=calls, records=records, record_faults=faults, notes=notes | outcome.notes,
    )


@dataclass
class Used:
    """Time spent between two readings."""

    seconds: float
    gateway_ns: int
    upstream_ns: int
    cpu_busy_ns: int


class Meter:
    """Reads the clocks now and again at `read`."""

    def __init__(self, bench, gateway, upstream):
        self.clocks = lambda: (time.monotonic(), gateway.cpu_ns(), upstream.cpu_ns(), busy_ns(bench.gateway_cpu))
        self.start = self.clocks()

    def read(self):
        return Used(*(now - then for now, then in zip(self.clocks(), self.start)))


def target_of(bench, running):
    """The running gateway as the load sees it; its certificate is verified by the probe calls."""
    body = bench.folder / "body.json"
    if not body.exists():
        row = '{"data": [[' + ", ".join(["5.9", "3.0", "4.2", "1.5"]) + "]]"
        body.write_text(row + " " * (load.BODY_BYTES - len(row) - 1) + "}")
    trust = ssl.create_default_context(cafile=bench.certificate)
    trust.set_alpn_protocols(["http/1.1"])
    return load.Target(running.port, bench.score_path, bench.keys[0], body, trust)


def check_same_job(bench, gateway, target):
    """One call with the right key and one with a wrong key: the answers, and what arrived at the upstream."""
    probe_log = bench.folder / "probe.log"
    probe_log.write_text("")
    status, headers = probe(target, target.key)
    if status != 200:
        raise Failure(f"the right key was answered {status}, not 200 (404 means that the path was not stripped)")
    arrived = json.loads(probe_log.read_text())
    if arrived["path"] != "/score" or arrived["body_bytes"] != str(load.BODY_BYTES):
        raise Failure(f"the upstream saw {arrived}, not /score with {load.BODY_BYTES} bytes")
    if not arrived["request_id"]:
        raise Failure("the upstream saw no x-request-id")
    refused, _ = probe(target, WRONG_KEY)
    if refused != 401:
        raise Failure(f"a wrong key was answered {refused}, not 401")
    if len(probe_log.read_text().splitlines()) != 1:
        raise Failure("the call with the wrong key reached the upstream")
    return {
        "upstream_protocol": arrived["protocol"],
        "authorization_forwarded": bool(arrived["authorization_forwarded"]),
        "forwarded_for_sent": bool(arrived["forwarded_for"]),
        "request_id_returned": headers.get("x-request-id") == arrived["request_id"],
    }


def probe(target, key):
    connection, status, headers = load.call(target, key, PROBE_AGENT)
    connection.close()
    return status, headers


def count_records(log, gateway, calls):
    """Lines in the access log once it is flushed, and what is wrong with them: each must be JSON and its id its own."""
    deadline = time.monotonic() + LOG_SECONDS
    while time.monotonic() < deadline:
        lines = log.read_bytes().splitlines() if log.exists() else []
        if len(lines) >= calls:
            break
        time.sleep(LOG_POLL_SECONDS)
    faults, ids, statuses = [], set(), {}
    for line in lines:
        try:
            record = json.loads(line)
            ids.add(record[gateway.request_id])
            status = int(record[gateway.status])
        except (ValueError, KeyError, TypeError) as error:
            faults.append(f"{error!r} in {line[:300].decode(errors='replace')}")
            break
        statuses[status] = statuses.get(status, 0) + 1
    if len(lines) != calls:
        faults.append(f"{len(lines)} records for {calls} calls")
    elif not faults and len(ids) != calls:
        faults.append(f"{len(ids)} different request ids in {calls} records")
    elif not faults and statuses != {200: calls - 1, 401: 1}:
        faults.append(f"statuses {statuses}, not one 401 and {calls - 1} times 200")
    return len(lines), faults


