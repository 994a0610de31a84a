"""F10: the gateway is killed with kill -9 at load, while its collector is dead and records wait in the spool.

It is started again on the same files, and the collector is back. Written ahead, every call that was answered has its record in
the file, once, and is delivered, at least once. Otherwise what is missing was answered within the last second.
"""

import asyncio
import json
import os
import signal
import time

from measure import exporting, gateways
from measure.faults import Row, Setup, ms

RATE = 200
ALIVE_SECONDS, DEAD_SECONDS, QUICK_SECONDS = 10.0, 10.0, 3.0
# What may be sent twice: the batch that was in the exporter's hand.
BATCH = 512
LOST_WITHIN = 1.0
KEEPS_ALL = "written ahead"


def measure(stage):
    if "scoregate" not in stage.options.only:
        return
    for title, mode, write_ahead in ((KEEPS_ALL, "write_ahead", "true"), ("defaults", "write_behind", "false")):
        with exporting.Collector(stage.bench) as collector:
            setup = Setup(title, settings={
                "WRITE_AHEAD": write_ahead,
                "TELEMETRY": f"spool: {{ path: {collector.folder}/spool, mode: {mode} }}\n  "
                             f"application_insights: {{ connection_string: {{ file: {collector.secret} }} }}"})
            yield from stage.rows([setup], None, judge, lambda setup, _: play(stage, setup, collector))


def play(stage, setup, collector):
    alive, dead = (QUICK_SECONDS, QUICK_SECONDS) if stage.quick else (ALIVE_SECONDS, DEAD_SECONDS)
    with stage.started(setup) as run:
        answered, killed = asyncio.run(load_and_kill(run, collector, alive, dead))
        collector.order()
        errors = run.bench.folder / "scoregate-again.err"
        with errors.open("wb") as stderr, gateways.start_scoregate(run.bench, run.running.log, stderr) as again:
            caught_up = wait_until_delivered(again)
            book = exporting.books(again.observe)
        recorded = count_ids(run.running.log)
        taken = collector.ids()["taken"]
    return {
        "answered": len(answered), "caught_up": caught_up, "book": book,
        "not_recorded": lost(answered, recorded, killed), "not_delivered": lost(answered, taken, killed),
        "recorded_twice": sum(times > 1 for times in recorded.values()),
        "delivered_twice": sum(times > 1 for times in taken.values()),
    }


async def load_and_kill(run, collector, alive, dead):
    """The calls that were answered, by request id with the time, and when the kill was."""
    async def kill():
        await asyncio.sleep(alive)
        await asyncio.to_thread(collector.order, dead=True)
        await asyncio.sleep(dead)
        os.kill(run.running.process.pid, signal.SIGKILL)
        return time.monotonic()

    killing = asyncio.create_task(kill())
    # Still at full rate when it dies.
    calls = await run.callers.steady(RATE, alive + dead + 0.5)
    killed = await killing
    await run.callers.close()
    return {it.headers["x-request-id"]: it.ended for it in calls if it.ok}, killed


def wait_until_delivered(gateway):
    deadline = time.monotonic() + exporting.PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if not exporting.books(gateway.observe)["spooled"]:
            return True
        time.sleep(0.25)
    return False


def count_ids(log):
    """How often each id is in the record file; the kill may have left half a line."""
    counts = {}
    for line in log.read_bytes().splitlines():
        try:
            name = json.loads(line)["RequestId"]
        except ValueError:
            continue
        counts[name] = counts.get(name, 0) + 1
    return counts


def lost(answered, found, killed):
    """Of each answered call that was not found: how long before the kill it had its answer."""
    return sorted((killed - ended for name, ended in answered.items() if name not in found), reverse=True)


def judge(setup, it):
    def share(ages):
        return f"{len(ages)}" + (f" (the oldest answered {ms(ages[0])} before the kill)" if ages else "")

    missing = it["not_recorded"] + it["not_delivered"]
    figure = (f"of {it['answered']} answered calls {share(it['not_recorded'])} not in the file, {share(it['not_delivered'])} "
              f"not delivered; {it['recorded_twice']} twice in the file, {it['delivered_twice']} delivered twice")
    if setup.title == KEEPS_ALL:
        target, met = "none missing", not missing
    else:
        target, met = f"missing: answered ≤ {ms(LOST_WITHIN)} before the kill", max(missing, default=0.0) <= LOST_WITHIN
    book = it["book"]
    adds_up = book["accepted"] == book["delivered"] + book["dropped"] + book["spooled"] and not book["dropped"]
    met = met and adds_up and it["caught_up"] and not it["recorded_twice"] and it["delivered_twice"] <= BATCH
    return Row(setup.title, setup.gateway, f"{target}; none twice in the file, ≤ {BATCH} delivered twice", figure,
               setup.verdict(met and it["answered"] > 0), it)
