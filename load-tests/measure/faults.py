"""A stage for faults: a fresh gateway with replicas of its own that can be killed, told to fail and asked what they saw.

Each play asserts, whatever it is about, that the gateway wrote one record for each call and that it holds no more file
descriptors afterwards than before.
"""

import asyncio
import http.client
import json
import os
import re
import signal
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from . import Failure, gateways
from .descriptors import Descriptors, unread
from .load import BODY_BYTES
from .open_loop import Callers
from .processes import Process, free_port, wait_for_port

PACKAGE_PARENT = Path(__file__).parent.parent
# After the callers have gone: a gateway may take a while to close what it held for them.
REST_SECONDS = 10
RECORD_SECONDS = 15
WARM_UP_CALLS = 8


@dataclass(frozen=True)
class Setup:
    """One gateway in one configuration. `settings` fills places of its template, see `gateways.SETTINGS`."""

    title: str
    gateway: str = "scoregate"
    settings: dict = field(default_factory=dict)
    replicas: int = 2
    # How the replicas behave at the start, see `replica.Mode`.
    mode: dict = field(default_factory=dict)
    # Ports of other servers that the gateway may keep a connection to, as to a replica.
    others: tuple = ()

    def verdict(self, met):
        """Only scoregate is held to the targets."""
        return met if self.gateway == "scoregate" else None


@dataclass
class Row:
    """One line of the table."""

    setup: str
    gateway: str
    target: str
    figure: str
    # True or False against the target; None where there is none, as for the peers and for what cannot be played here.
    met: bool | None
    data: dict = field(default_factory=dict)
    fault: str = ""


@dataclass
class Target:
    """What the callers need to know of a gateway."""

    port: int
    path: str
    key: str
    body: Path
    certificate: Path


@dataclass
class Played:
    """What a play came to: what its act returned, and what was wrong with the books."""

    result: object
    faults: list
    descriptors: dict


class Stage:
    """Where all plays of one command take place."""

    def __init__(self, bench, options):
        self.bench = bench
        self.options = options

    @property
    def quick(self):
        return self.options.quick

    def rows(self, setups, act, judge, play=None):
        """Plays each setup whose gateway was asked for; `judge` makes a row of it. One that cannot be played is a miss. `play`
        stands in for that of this stage."""
        for setup in setups:
            if setup.gateway not in self.options.only:
                continue
            try:
                yield judge(setup, (play or self.play)(setup, act))
            except Failure as failure:
                yield Row(setup.title, setup.gateway, "", "could not be played: " + " ".join(str(failure).split()), False)

    def play(self, setup, act):
        """Starts everything afresh, lets `act`, a coroutine that gets a `Run`, go on, and looks at the books."""
        with self.started(setup) as run:
            return asyncio.run(self.perform(setup, run, act))

    @contextmanager
    def started(self, setup):
        """A fresh gateway with fresh replicas."""
        ports = tuple(free_port() for _ in range(setup.replicas))
        bench = replace(self.bench, replica_ports=ports, settings=setup.settings)
        with ExitStack() as stack:
            replicas = [stack.enter_context(Replica(bench, port)) for port in ports]
            for replica in replicas:
                replica.order(**setup.mode)
            running = stack.enter_context(bench.gateway(gateways.ALL[setup.gateway]))
            yield Run(bench, running, replicas, setup.others)

    async def perform(self, setup, run, act):
        warm = await run.callers.burst(WARM_UP_CALLS)
        if wrong := [it for it in warm if not it.ok]:
            raise Failure(f"{setup.gateway}, {setup.title}: warm-up: {wrong[0].status} {wrong[0].fault}")
        await run.callers.close()
        await asyncio.sleep(0.2)
        for replica in run.replicas:
            replica.mark()
        before = run.descriptors()
        try:
            result = await act(run)
        finally:
            await run.callers.close()
        after = await run.at_rest(before)
        faults = [*run.descriptor_faults(before, after), *run.record_faults(gateways.ALL[setup.gateway])]
        return Played(result, faults, {"before": vars(before), "after": vars(after)})


class Run:
    """One gateway with its replicas and callers, during one play."""

    def __init__(self, bench, running, replicas, others=()):
        self.bench = bench
        self.running = running
        self.replicas = replicas
        self.servers = {*(it.port for it in replicas), *others}
        body = bench.folder / "body.json"
        body.write_bytes(b'{"data": [[5.9, 3.0, 4.2, 1.5]], "pad": "' + b" " * (BODY_BYTES - 43) + b'"}')
        target = Target(running.port, bench.score_path, bench.keys[0], body, bench.certificate)
        self.callers = Callers(target)
        self.began = time.monotonic()
        # Records that the gateway counted as dropped: of each a torn line may be left.
        self.dropped = 0

    def descriptors(self):
        return Descriptors.of(self.running.process.pids(), self.servers)

    async def at_rest(self, before):
        """The descriptors once those of the callers are gone, or after a while all the same."""
        deadline = time.monotonic() + REST_SECONDS
        while (now := self.descriptors()).own > before.own and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        return now

    def descriptor_faults(self, before, after):
        faults = []
        if after.own > before.own:
            faults.append(f"{after.own - before.own} file descriptors more than before")
        # A pool may keep what was in use at once, with each replica; beyond that it would be growing.
        most = max(self.callers.peak, WARM_UP_CALLS) * len(self.replicas)
        if (kept := after.pooled + after.half_closed) > most:
            faults.append(f"{kept} connections to replicas kept, of {most} at most in use at once")
        return faults

    def record_faults(self, gateway):
        """One record for each call but those dropped, each with an id of its own."""
        expected = self.callers.calls - self.dropped
        ids, torn = [], []
        for line in self.records(expected):
            try:
                ids.append(json.loads(line)[gateway.request_id])
            except (ValueError, KeyError) as error:
                torn.append(error)
        if len(torn) > self.dropped:
            return [f"a record that cannot be read: {torn[0]!r}"]
        if len(ids) != expected:
            return [f"{len(ids)} records for {expected} calls"]
        if len(set(ids)) != len(ids):
            return [f"{len(set(ids))} ids in {len(ids)} records"]
        return []

    def records(self, count):
        """The lines of the gateway's log once there are `count`, or after a while as many as there are."""
        deadline = time.monotonic() + RECORD_SECONDS
        while True:
            lines = self.running.log.read_bytes().splitlines() if self.running.log.exists() else []
            if len(lines) >= count or time.monotonic() > deadline:
                return lines
            time.sleep(0.1)

    def records_of(self, calls):
        """scoregate's records of some calls, in their order; `None` where there is none."""
        found = {record["ClientRequestId"]: record for record in map(json.loads, self.records(self.callers.calls))}
        return [found.get(it.mark) for it in calls]

    def metric(self, name, **labels):
        """The sum of scoregate's metric over the series that bear these labels; `None` if it has none."""
        connection = http.client.HTTPConnection(self.running.observe, timeout=5)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        series = re.findall(rf"^{name}(\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE)
        values = [float(value) for found, value in series
                  if all(f'{key}="{wanted}"' in found for key, wanted in labels.items())]
        return sum(values) if values else None


class Replica:
    """One replica as a process of its own, on the load's CPU."""

    def __init__(self, bench, port):
        self.bench = bench
        self.port = port
        self.counter = bench.folder / f"in-hand-{port}"
        self.mode = {}
        self.seen = 0
        self.start()
        wait_for_port(self.process, port)

    def start(self):
        self.counter.write_bytes(bytes(8))
        argv = ["env", f"PYTHONPATH={PACKAGE_PARENT}", sys.executable, "-m", "measure.replica", self.port, self.counter]
        self.process = Process("replica", argv, self.bench.load_cpu, stderr=None)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stop()

    def order(self, **mode):
        self.ask("POST", "/_mode", mode)

    def mark(self):
        """What was seen up to now is not part of the play."""
        self.seen = self.stats()["calls"]

    def stats(self):
        return self.ask("GET", "/_stats")

    def arrivals(self):
        """When each call of the play arrived, by the monotonic clock."""
        return self.stats()["arrivals"][self.seen:]

    def ask(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        connection.request(method, path, body=json.dumps(body or {}))
        answer = json.loads(connection.getresponse().read())
        connection.close()
        return answer

    def kill(self):
        """kill -9, as it stands. Returns how many calls it had in hand, those that it had not read yet included."""
        self.process.child.send_signal(signal.SIGSTOP)
        in_hand = int.from_bytes(self.counter.read_bytes()[:8], "little") + unread(self.port)
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.child.wait()
        self.seen = 0
        return in_hand

    def revive(self):
        """Starts it again on its port; it listens a moment later."""
        self.start()


def envoy_retry(retry_on):
    """Envoy's retries as its operators set them up: on another host than the one that failed."""
    return (f', retry_policy: {{ retry_on: "{retry_on}", num_retries: 2, host_selection_retry_max_attempts: 5, '
            "retry_host_predicate: [{ name: envoy.retry_host_predicates.previous_hosts, typed_config: { "
            '"@type": type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate } }] }')


def percentile(calls, share):
    """The time within which that share of the calls ended, in seconds."""
    times = sorted(it.seconds for it in calls)
    return times[min(len(times) - 1, int(len(times) * share))] if times else 0.0


def ms(seconds):
    return f"{seconds * 1000:.0f} ms"


def outcomes(calls):
    """How many calls came to what: statuses, and faults without their details."""
    counts = {}
    for it in calls:
        name = it.fault.partition(":")[0] if it.fault else str(it.status)
        counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items()))
