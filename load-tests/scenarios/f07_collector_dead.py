"""F07: the collector of the records dies and stays dead for the rest of the load but its last seconds.

No call may notice, neither by failing nor by waiting; what the collector misses waits on the disk, not in memory; and when it
is back it gets every record, each once.
"""

import asyncio

from measure import exporting

ALIVE_SECONDS, DEAD_SECONDS, BACK_SECONDS = 30.0, 90.0, 15.0
QUICK_ALIVE_SECONDS, QUICK_DEAD_SECONDS, QUICK_BACK_SECONDS = 6.0, 8.0, 3.0


def measure(stage):
    times = (QUICK_ALIVE_SECONDS, QUICK_DEAD_SECONDS, QUICK_BACK_SECONDS) if stage.quick else (
        ALIVE_SECONDS, DEAD_SECONDS, BACK_SECONDS)
    with exporting.Collector(stage.bench) as collector:
        setup = collector.setup("the collector is dead")
        yield from stage.rows([setup], lambda run: play(run, collector, *times), exporting.judge)


async def play(run, collector, alive, dead, back):
    async def die():
        await asyncio.sleep(alive)
        await asyncio.to_thread(collector.order, dead=True)
        await asyncio.sleep(dead)
        await asyncio.to_thread(collector.order)

    async with exporting.Watch(run) as watch:
        dying = asyncio.create_task(die())
        calls = await run.callers.steady(exporting.RATE, alive + dead + back)
        await dying
        begin = calls[0].due + alive
        return await exporting.close_books(run, collector, watch, calls, begin, begin + dead)
