"""F02: one of two replicas is restarted in good order: it finishes what it has, refuses connections for 5 s, and is back.

Nothing that was not in its hands has been sent to it, so no call may fail, with replay or without.
"""

import asyncio

from measure.faults import Row, Setup, envoy_retry, ms, outcomes, percentile

RATE = 200
# One that refused is taken out for ten seconds, by scoregate and by nginx alike: the end is after that.
REFUSE_AT, REFUSE_SECONDS, END_AT = 2.0, 5.0, 16.0
SETUPS = [
    Setup("defaults"),
    Setup("defaults", "nginx"),
    Setup("redispatch", "haproxy", {"ROUTE": "option redispatch 1"}),
    Setup("retry before sending", "envoy", {"ROUTE": envoy_retry("connect-failure,refused-stream,reset-before-request")}),
]


def measure(stage):
    return stage.rows(SETUPS, play, judge)


async def play(run):
    async def restart():
        await asyncio.sleep(REFUSE_AT)
        run.replicas[0].order(refuse_seconds=REFUSE_SECONDS)

    restarting = asyncio.create_task(restart())
    calls = await run.callers.steady(RATE, END_AT)
    await restarting
    again = calls[0].due + REFUSE_AT + REFUSE_SECONDS
    arrivals = run.replicas[0].arrivals()
    return {"calls": len(calls), "failed": sum(not it.ok for it in calls), "outcomes": outcomes(calls),
            "slowest": max(it.seconds for it in calls), "p99": percentile(calls, 0.99),
            "served_after_return": sum(it > again for it in arrivals)}


def judge(setup, played):
    it = played.result
    figure = (f"{it['failed']} of {it['calls']} failed; slowest call {ms(it['slowest'])}; the replica served "
              f"{it['served_after_return']} after its return")
    met = it["failed"] == 0 and it["served_after_return"] > 0 and not played.faults
    return Row(setup.title, setup.gateway, "0 failed, and it is used again", "; ".join([figure, *played.faults]),
               setup.verdict(met), it | {"faults": played.faults})
