"""F08: the collector of the records falls ill in every way in turn: slow, too busy, failing, taking only a part.

No call may notice; what it has taken or refused for good is never sent again, what it puts off is; and when it is well again it
gets the rest, each record once.
"""

import asyncio

from measure import exporting

WELL_SECONDS, ILL_SECONDS, BACK_SECONDS = 30.0, 20.0, 15.0
QUICK_WELL_SECONDS, QUICK_ILL_SECONDS, QUICK_BACK_SECONDS = 6.0, 4.0, 3.0
ILLNESSES = [
    {"seconds": 3.0},
    {"status": 429, "retry_after": 2},
    {"status": 500},
    # Of three items one is taken, one put off and one refused.
    {"status": 206, "items": [200, 500, 400]},
]


def measure(stage):
    times = (QUICK_WELL_SECONDS, QUICK_ILL_SECONDS, QUICK_BACK_SECONDS) if stage.quick else (
        WELL_SECONDS, ILL_SECONDS, BACK_SECONDS)
    with exporting.Collector(stage.bench) as collector:
        setup = collector.setup("the collector is slow, 429, 500, 206")
        yield from stage.rows([setup], lambda run: play(run, collector, *times), exporting.judge)


async def play(run, collector, well, ill, back):
    async def fall_ill():
        await asyncio.sleep(well)
        for illness in ILLNESSES:
            await asyncio.to_thread(lambda: collector.order(**illness))
            await asyncio.sleep(ill)
        await asyncio.to_thread(collector.order)

    async with exporting.Watch(run) as watch:
        falling = asyncio.create_task(fall_ill())
        calls = await run.callers.steady(exporting.RATE, well + len(ILLNESSES) * ill + back)
        await falling
        begin = calls[0].due + well
        return await exporting.close_books(run, collector, watch, calls, begin, begin + len(ILLNESSES) * ill)
