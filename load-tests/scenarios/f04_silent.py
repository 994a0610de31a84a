"""F04: one of two replicas takes calls and never answers them, for a while.

Its calls get 504 at the scoring timeout, their places are free again, and those of the other replica are as ever.
"""

import asyncio

from measure.faults import Row, Setup, ms, outcomes, percentile

RATE = 200
TIMEOUT = 1.0
TOLERANCE = 0.100
# Places of one replica: what may hang in it at once.
PLACES = 16
SILENT_AT, ANSWERS_AT, END_AT = 2.0, 5.0, 9.0
SETUPS = [Setup("scoring timeout 1 s, 16 places a replica", settings={
    "LIMITS": f"concurrent_requests_per_replica: {PLACES}, queue_wait: 500ms, scoring_timeout: {TIMEOUT:.0f}s"})]


def measure(stage):
    return stage.rows(SETUPS, play, judge)


async def play(run):
    async def hush():
        await asyncio.sleep(SILENT_AT)
        run.replicas[0].order(kind="silent")
        await asyncio.sleep(ANSWERS_AT - SILENT_AT)
        run.replicas[0].order(kind="answer")

    hushing = asyncio.create_task(hush())
    calls = await run.callers.steady(RATE, END_AT)
    await hushing
    # More at once than one replica has places: that all are answered shows that none is still taken.
    again = await run.callers.burst(2 * PLACES)
    began = calls[0].due
    before = [it for it in calls if it.due < began + SILENT_AT - 0.1]
    during = [it for it in calls if began + SILENT_AT <= it.due < began + ANSWERS_AT and it.ok]
    timeouts = [it for it in calls if it.status == 504]
    # The scoring timeout begins when a call has got its place.
    waits = [it.seconds - record["QueueMs"] / 1000 for it, record in zip(timeouts, run.records_of(timeouts))]
    return {"calls": len(calls), "outcomes": outcomes(calls), "timeouts": len(timeouts),
            "earliest_504": min(waits, default=0.0),
            "latest_504": max(waits, default=0.0),
            "others": sum(not it.ok and it.status != 504 for it in calls),
            "p99_before": percentile(before, 0.99), "p99_of_the_other": percentile(during, 0.99),
            "answered_at_once_afterwards": sum(it.ok for it in again), "at_once_afterwards": len(again),
            "busy_afterwards": run.metric("scoregate_admission_busy")}


def judge(setup, played):
    it = played.result
    figure = (f"{it['timeouts']} times 504 after {ms(it['earliest_504'])} to {ms(it['latest_504'])}, {it['others']} other "
              f"failures of {it['calls']}; p99 of the other replica's {ms(it['p99_of_the_other'])}, before "
              f"{ms(it['p99_before'])}; afterwards {it['answered_at_once_afterwards']} of {it['at_once_afterwards']} at once")
    met = (it["timeouts"] > 0 and it["others"] == 0
           and TIMEOUT - TOLERANCE <= it["earliest_504"] and it["latest_504"] <= TIMEOUT + TOLERANCE
           and it["p99_of_the_other"] <= it["p99_before"] + 0.050
           and it["answered_at_once_afterwards"] == it["at_once_afterwards"] and not it["busy_afterwards"])
    target = f"504 at {ms(TIMEOUT)} ± {ms(TOLERANCE)}, places free, the other replica's p99 ≤ + 50 ms"
    return Row(setup.title, setup.gateway, target, "; ".join([figure, *played.faults]),
               setup.verdict(met and not played.faults), it | {"faults": played.faults})
