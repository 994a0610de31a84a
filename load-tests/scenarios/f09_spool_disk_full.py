"""F09: the collector is dead for so long that the disk of its spool is full, a disk of 16 MiB.

No call may notice. The oldest records make room for the newest, each of them counted; and when the collector is back it
gets what is left, each record once, so that in the end sent + spooled + dropped are all there were, exactly.
"""

import asyncio
import json

from measure import exporting
from measure.faults import Row, outcomes
from measure.small_disk import not_played, small_disk

# A record takes some 700 bytes of the spool.
DISK_MEBIBYTES, RATE, SECONDS = 16, 400, 90.0
QUICK_DISK_MEBIBYTES, QUICK_SECONDS = 2, 14.0
# More than the disk: what ends the spool is the disk. Its segments, which are given up as a whole, are a 64th of it.
SPOOL_SIZE = "32MiB"
# Taken from the spool when the others were given up: the exporter has a batch in its hand.
BATCH = 512
TITLE = "the spool's disk is full"


def measure(stage):
    if "scoregate" not in stage.options.only:
        return
    mebibytes, seconds = (QUICK_DISK_MEBIBYTES, QUICK_SECONDS) if stage.quick else (DISK_MEBIBYTES, SECONDS)
    with small_disk(stage.bench, mebibytes) as disk:
        if disk is None:
            yield not_played(TITLE)
            return
        with exporting.Collector(stage.bench) as collector:
            setup = collector.setup(TITLE, f"path: {disk.path}/spool, size: {SPOOL_SIZE}")
            yield from stage.rows([setup], lambda run: play(run, collector, seconds), judge)


async def play(run, collector, seconds):
    await asyncio.to_thread(collector.order, dead=True)
    async with exporting.Watch(run) as watch:
        calls = await run.callers.steady(RATE, seconds)
        full = watch.books[-1][1]
        await asyncio.to_thread(collector.order)
        await watch.caught_up(run.callers.calls)
        ids = await asyncio.to_thread(collector.ids)
        book = watch.books[-1][1]
    recorded = [json.loads(line)["RequestId"] for line in run.records(run.callers.calls)]
    taken = ids["taken"]
    # In the order of their coming: those taken before the last one that is missing were kept although younger ones went.
    last_missing = max((at for at, it in enumerate(recorded) if it not in taken), default=0)
    return {"calls": run.callers.calls, "outcomes": outcomes(calls), "failed": sum(not it.ok for it in calls),
            "book": book, "dropped_while_dead": full["dropped"], "spooled_while_dead": full["spooled"],
            "pages": len(watch.books), "wrong_pages": watch.wrong, "taken": len(taken),
            "taken_again": sum(count > 1 for count in taken.values()), "unknown": len(taken.keys() - set(recorded)),
            "older_than_dropped": sum(it in taken for it in recorded[:last_missing])}


def judge(setup, played):
    it = played.result
    book = it["book"]
    faults = list(played.faults)
    if it["wrong_pages"]:
        faults.append(f"{it['wrong_pages']} pages whose counts do not add up")
    if it["taken_again"] or it["unknown"]:
        faults.append(f"{it['taken_again']} records taken again, {it['unknown']} unknown")
    if book["delivered"] != it["taken"]:
        faults.append(f"the collector took {it['taken']}")
    if it["older_than_dropped"] > BATCH:
        faults.append(f"{it['older_than_dropped']} records sent that are older than dropped ones")
    figure = (f"{it['failed']} of {it['calls']} failed; {book['accepted']} accepted = {book['delivered']} sent + "
              f"{book['spooled']} spooled + {book['dropped']} dropped; {it['spooled_while_dead']} waited on the full disk")
    met = (not faults and it["failed"] == 0 and book["accepted"] == it["calls"] and it["dropped_while_dead"] > 0
           and book["accepted"] == book["delivered"] + book["spooled"] + book["dropped"])
    target = "0 failed, oldest dropped, sent + spooled + dropped = calls"
    return Row(setup.title, setup.gateway, target, "; ".join([figure, *faults]), setup.verdict(met), it | {"faults": faults})
