"""What the fault scenarios of exporters share: a collector that fails as it is told, and a watch over the gateway's books.

The books are right if on every page of metrics what was accepted is what was delivered, dropped and still spooled, and if in
the end the collector and the record file have the same ids.
"""

import asyncio
import http.client
import json
import re
import statistics
import sys
import tempfile
import time

from .faults import PACKAGE_PARENT, Row, Setup, ms, outcomes, percentile
from .processes import Process, free_port, wait_for_port

EXPORTER = "application_insights"
KEY = "99999999-8888-4777-8666-555555555555"
RATE = 200
# p99 is the median of those of windows this long: a pause of the callers' own spoils one of them.
WINDOW_SECONDS = 5.0
P99_MOVES = 0.05
MOST_MEMORY_KIB = 64 * 1024
CAUGHT_UP_WITHIN = 120.0
SAMPLE_SECONDS = 1.0
# Of ours beyond `CAUGHT_UP_WITHIN`: whoever is late is to be measured, too.
PATIENCE_SECONDS = 180.0
TARGET = (f"identity, 0 failed, p99 ≤ + {P99_MOVES:.0%}, memory ≤ + {MOST_MEMORY_KIB // 1024} MiB, "
          f"caught up ≤ {CAUGHT_UP_WITHIN:.0f} s")


class Collector:
    """The collector as a process of its own, on the load's CPU."""

    def __init__(self, bench):
        self.bench = bench
        self.port, self.control = free_port(), free_port()
        self.folder = tempfile.mkdtemp(prefix="exporting-", dir=bench.folder)
        self.secret = f"{self.folder}/connection-string"
        with open(self.secret, "w", encoding="utf-8") as file:
            file.write(f"InstrumentationKey={KEY};IngestionEndpoint=http://127.0.0.1:{self.port}/")

    def __enter__(self):
        argv = ["env", f"PYTHONPATH={PACKAGE_PARENT}", sys.executable, "-m", "measure.collector", self.port, self.control]
        self.process = Process("collector", argv, self.bench.load_cpu, stderr=None)
        wait_for_port(self.process, self.control)
        return self

    def __exit__(self, *_):
        self.process.stop()

    def setup(self, title, spool=""):
        """scoregate that sends its records here as well, over a spool of its own; `spool` is how that is, as YAML."""
        telemetry = (f"spool: {{ {spool or f'path: {self.folder}/spool'} }}\n  "
                     f"application_insights: {{ connection_string: {{ file: {self.secret} }} }}")
        return Setup(title, settings={"TELEMETRY": telemetry}, others=(self.port,))

    def order(self, **mode):
        self.ask("POST", "/_mode", mode)

    def ids(self):
        """How often each id was taken, how often each was refused for good, and how many batches came."""
        return self.ask("GET", "/_ids")

    def ask(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.control, timeout=30)
        connection.request(method, path, body=json.dumps(body or {}))
        answer = json.loads(connection.getresponse().read())
        connection.close()
        return answer


class Watch:
    """Reads the gateway's books and its memory once a second, until it is told to end."""

    def __init__(self, run):
        self.run = run
        self.books = []
        self.memory = []
        self.wrong = 0

    async def __aenter__(self):
        await self.sample()
        self.task = asyncio.create_task(self.go_on())
        return self

    async def __aexit__(self, *_):
        self.task.cancel()

    async def go_on(self):
        while True:
            await asyncio.sleep(SAMPLE_SECONDS)
            await self.sample()

    async def sample(self):
        book, memory = await asyncio.to_thread(self.read)
        self.wrong += book["accepted"] != book["delivered"] + book["dropped"] + book["spooled"]
        self.books.append((time.monotonic(), book))
        self.memory.append((time.monotonic(), memory))

    def read(self):
        return books(self.run.running.observe), self.run.running.process.memory().rss

    async def caught_up(self, records):
        """Waits until so many records were accepted and none waits. Returns when that was seen, or `None`."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            at, book = self.books[-1]
            if book["accepted"] >= records and not book["spooled"]:
                return at
            await asyncio.sleep(SAMPLE_SECONDS / 4)
        return None

    def growth(self, since):
        """KiB that the gateway had at most since then beyond what it had at most before."""
        before = max(memory for at, memory in self.memory if at <= since)
        return max([0, *(memory - before for at, memory in self.memory if at > since)])


def books(observe):
    """The counts of the exporter, of one page."""
    connection = http.client.HTTPConnection(observe, timeout=5)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return read_books(text)


def read_books(text):
    def value(name, more=""):
        found = re.search(rf'^scoregate_exporter_{name}{{exporter="{EXPORTER}"{more}}} (\S+)$', text, re.MULTILINE)
        return int(float(found.group(1)))

    outcome = {it: value("records_total", f',outcome="{it}"') for it in ("delivered", "dropped")}
    return {"accepted": value("accepted_total"), "spooled": value("spooled"), **outcome}


def usual_p99(calls):
    """The median of the p99s of windows: of calls in the order of their times, whole windows only if there is one."""
    size = round(RATE * WINDOW_SECONDS)
    windows = [calls[at:at + size] for at in range(0, len(calls) - size + 1, size)] or [calls]
    return statistics.median(percentile(window, 0.99) for window in windows)


async def close_books(run, collector, watch, calls, begin, back):
    """What a play came to: `calls` in the order of their times, the fault `begin`s and the collector is `back` then."""
    total = run.callers.calls
    caught_up = await watch.caught_up(total)
    ids = await asyncio.to_thread(collector.ids)
    recorded = {json.loads(line)["RequestId"] for line in run.records(total)}
    taken, refused = ids["taken"], ids["refused"]
    before = [it for it in calls if it.due < begin - 0.1]
    during = [it for it in calls if begin <= it.due < back]
    _, book = watch.books[-1]
    return {
        "calls": total, "outcomes": outcomes(calls), "failed": sum(not it.ok for it in calls), "book": book,
        "most_spooled": max(book["spooled"] for _, book in watch.books), "pages": len(watch.books), "wrong_pages": watch.wrong,
        "batches": ids["batches"], "taken": len(taken), "refused": len(refused),
        "taken_again": sum(count > 1 for count in taken.values()), "both": len(taken.keys() & refused.keys()),
        "unknown": len((taken.keys() | refused.keys()) - recorded), "missing": len(recorded - (taken.keys() | refused.keys())),
        "p99_before": usual_p99(before), "p99_during": usual_p99(during), "memory_growth_kib": watch.growth(begin),
        "caught_up_after": None if caught_up is None else max(0.0, caught_up - back),
    }


def judge(setup, played):
    it = played.result
    book = it["book"]
    faults = list(played.faults)
    if it["wrong_pages"]:
        faults.append(f"{it['wrong_pages']} pages whose counts do not add up")
    for what in ("taken_again", "both", "unknown", "missing"):
        if it[what]:
            faults.append(f"{it[what]} records {what.replace('_', ' ')}")
    if (book["delivered"], book["dropped"]) != (it["taken"], it["refused"]):
        faults.append(f"the collector took {it['taken']} and refused {it['refused']}")
    late = it["caught_up_after"] is None or it["caught_up_after"] > CAUGHT_UP_WITHIN
    moved = it["p99_during"] / it["p99_before"] - 1
    figure = (f"{book['accepted']} accepted = {book['delivered']} delivered + {book['dropped']} dropped + {book['spooled']} "
              f"spooled, {it['most_spooled']} at most; {it['failed']} of {it['calls']} failed; p99 {ms(it['p99_before'])} → "
              f"{ms(it['p99_during'])} ({moved:+.1%}); memory + {it['memory_growth_kib'] / 1024:.1f} MiB; "
              + ("never caught up" if it["caught_up_after"] is None else f"caught up after {it['caught_up_after']:.0f} s"))
    met = (not faults and not late and not it["failed"] and book["accepted"] == it["calls"] and moved <= P99_MOVES
           and it["memory_growth_kib"] <= MOST_MEMORY_KIB)
    return Row(setup.title, setup.gateway, TARGET, "; ".join([figure, *faults]), setup.verdict(met), it | {"faults": faults})
