"""F21: the disk of the record file is full for a while, and then has room again.

No call may notice. What cannot be written is dropped and counted, and with room the records go on by themselves: in the end
each call is in the file or among those counted as dropped.
"""

import asyncio
from dataclasses import replace

from measure.faults import RECORD_SECONDS, Row, Setup, Stage, ms, outcomes, percentile
from measure.small_disk import not_played, small_disk

RATE = 200
DISK_MEBIBYTES = 16
BEFORE_SECONDS, FULL_SECONDS, AFTER_SECONDS = 5.0, 20.0, 10.0
QUICK_FULL_SECONDS = 5.0
# From the return of room to the first record in the file, which comes with the next batch.
RESUMED_WITHIN = 2.0
TITLE = "the record file's disk is full"


def measure(stage):
    if "scoregate" not in stage.options.only:
        return
    seconds = QUICK_FULL_SECONDS if stage.quick else FULL_SECONDS
    with small_disk(stage.bench, DISK_MEBIBYTES) as disk:
        if disk is None:
            yield not_played(TITLE)
            return
        # The record file is in the bench's folder, as all that a gateway is told.
        there = Stage(replace(stage.bench, folder=disk.path), stage.options)
        yield from there.rows([Setup(TITLE)], lambda run: play(run, disk, seconds), judge)


async def play(run, disk, seconds):
    dropped = 0

    async def be_full():
        nonlocal dropped
        await asyncio.sleep(BEFORE_SECONDS)
        await asyncio.to_thread(disk.fill)
        await asyncio.sleep(seconds)
        dropped = run.metric("scoregate_records_total", outcome="dropped")
        disk.empty()
        size = run.running.log.stat().st_size
        loop = asyncio.get_running_loop()
        begin = loop.time()
        while run.running.log.stat().st_size == size and loop.time() < begin + 5 * RESUMED_WITHIN:
            await asyncio.sleep(0.02)
        return loop.time() - begin

    filling = asyncio.create_task(be_full())
    calls = await run.callers.steady(RATE, BEFORE_SECONDS + seconds + AFTER_SECONDS)
    resumed_after = await filling
    counts = await settled(run)
    run.dropped = counts["dropped"]
    full_at = calls[0].due + BEFORE_SECONDS
    room_at = full_at + seconds
    before = [it for it in calls if it.due < full_at]
    during = [it for it in calls if full_at <= it.due < room_at]
    return {"calls": run.callers.calls, "outcomes": outcomes(calls), "failed": sum(not it.ok for it in calls),
            "during": len(during), "dropped_while_full": int(dropped), "resumed_after": resumed_after,
            "p99_before": percentile(before, 0.99), "p99_during": percentile(during, 0.99), **counts}


async def settled(run):
    """The counts of the records once none is on its way any more, or after a while as they are."""
    deadline = asyncio.get_running_loop().time() + RECORD_SECONDS
    while True:
        counts = {it: int(run.metric("scoregate_records_total", outcome=it)) for it in ("written", "dropped")}
        counts["accepted"] = int(run.metric("scoregate_records_accepted_total"))
        complete = counts["accepted"] == run.callers.calls == counts["written"] + counts["dropped"]
        if complete or asyncio.get_running_loop().time() > deadline:
            return counts
        await asyncio.sleep(0.1)


def judge(setup, played):
    it = played.result
    faults = list(played.faults)
    if it["dropped"] > it["dropped_while_full"] + RATE * RESUMED_WITHIN:
        faults.append(f"{it['dropped'] - it['dropped_while_full']} more dropped when there was room")
    figure = (f"{it['failed']} of {it['calls']} failed; {it['accepted']} records = {it['written']} written + {it['dropped']} "
              f"dropped, of {it['during']} calls while the disk was full; resumed after {ms(it['resumed_after'])}; p99 "
              f"{ms(it['p99_before'])} before, {ms(it['p99_during'])} while full")
    met = (not faults and it["failed"] == 0 and it["accepted"] == it["calls"] == it["written"] + it["dropped"]
           and it["dropped"] > 0 and it["resumed_after"] <= RESUMED_WITHIN)
    target = f"0 failed, written + dropped = calls, resumed by itself within {ms(RESUMED_WITHIN)}"
    return Row(setup.title, setup.gateway, target, "; ".join([figure, *faults]), setup.verdict(met), it | {"faults": faults})
