"""F28: three times as many calls as the replicas can serve, and then a normal load again.

The replicas go on at full work, what is too much is refused in time, and afterwards nothing lingers.
"""

import asyncio

from measure.faults import Row, Setup, ms, outcomes, percentile

SERVICE_SECONDS = 0.020
PLACES, REPLICAS = 2, 2
# What the places can serve if they are never empty.
CAPACITY = PLACES * REPLICAS / SERVICE_SECONDS
OVERLOAD_SECONDS, QUICK_SECONDS, NORMAL_SECONDS = 60.0, 8.0, 6.0
# While the queue fills.
RAMP_SECONDS = 1.0
QUEUE_WAIT = 0.500
REFUSED_WITHIN = QUEUE_WAIT + 0.050
GOODPUT = 0.90
NORMAL_WITHIN = 2.0
# How much the normal p99 may differ between two spells of a few seconds.
P99_SLACK = 0.010
SETUPS = [Setup("three times capacity", replicas=REPLICAS, settings={
    "LIMITS": f"concurrent_requests_per_replica: {PLACES}, queue_wait: {QUEUE_WAIT * 1000:.0f}ms"})]


def measure(stage):
    seconds = QUICK_SECONDS if stage.quick else OVERLOAD_SECONDS
    return stage.rows(SETUPS, lambda run: play(run, seconds), judge)


async def play(run, seconds):
    before = await run.callers.steady(CAPACITY / 2, NORMAL_SECONDS)
    # The next load begins on its time, whether or not all of the last one has been answered.
    heavy = asyncio.create_task(run.callers.steady(3 * CAPACITY, seconds))
    await asyncio.sleep(seconds)
    after = await run.callers.steady(CAPACITY / 2, NORMAL_WITHIN + NORMAL_SECONDS)
    calls = await heavy
    begin, end = calls[0].due + RAMP_SECONDS, calls[0].due + seconds
    served = [it for it in calls if it.ok and begin <= it.ended < end]
    refused = [it for it in calls if not it.ok]
    late = [it for it in after if it.due >= after[0].due + NORMAL_WITHIN]
    stats = [replica.stats() for replica in run.replicas]
    # Timers of the replicas run a little late: what they really took is what their places can be measured by.
    took = sum(it["busy_seconds"] for it in stats) / sum(it["calls"] for it in stats)
    return {"calls": len(calls), "outcomes": outcomes(calls), "refused": len(refused),
            "refused_otherwise": sum(it.status != 503 for it in refused),
            "without_retry_after": sum("retry-after" not in it.headers for it in refused),
            "goodput": len(served) / (end - begin), "capacity": PLACES * REPLICAS / took, "service_seconds": took,
            "slowest_refusal": max((it.seconds for it in refused), default=0.0),
            "most_in_a_replica": max(it["peak"] for it in stats),
            "p99_before": percentile(before, 0.99), "p99_after": percentile(late, 0.99),
            "failed_after": sum(not it.ok for it in late), "failed_before": sum(not it.ok for it in before)}


def judge(setup, played):
    it = played.result
    share = it["goodput"] / it["capacity"]
    figure = (f"goodput {it['goodput']:.0f}/s of {it['capacity']:.0f}/s ({share:.0%}); {it['refused']} of {it['calls']} "
              f"refused, the slowest after {ms(it['slowest_refusal'])}; p99 {ms(it['p99_after'])} from {NORMAL_WITHIN:.0f} s "
              f"after, {ms(it['p99_before'])} before; at most {it['most_in_a_replica']} in a replica")
    met = (share >= GOODPUT and it["slowest_refusal"] <= REFUSED_WITHIN and it["refused_otherwise"] == 0
           and it["most_in_a_replica"] <= PLACES and it["failed_before"] + it["failed_after"] == 0
           and it["p99_after"] <= it["p99_before"] + P99_SLACK)
    target = (f"goodput ≥ {GOODPUT:.0%} of capacity, refused as 503 within {ms(REFUSED_WITHIN)}, normal p99 "
              f"{NORMAL_WITHIN:.0f} s after")
    return Row(setup.title, setup.gateway, target, "; ".join([figure, *played.faults]),
               setup.verdict(met and not played.faults), it | {"faults": played.faults})
