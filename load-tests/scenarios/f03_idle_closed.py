"""F03: replicas close connections that have been idle for one second, at the moment at which the gateway uses them.

Bursts of calls leave as many connections at rest; the next burst comes about a second later. A replica closes what is
overdue as soon as it has something to do, which is the first call of the burst, while the others are being sent. It counts
the calls that came in on a connection that it had closed: that is the race. It treats them as a closed socket does, by a
reset or by the end. A gateway may lose no call by it; it may also see to it that the race does not happen. That the play
brings it about is shown by the peers, which are played beside it.
"""

import asyncio
import random

from measure.faults import Row, Setup, ms, outcomes, percentile

KEEP_ALIVE_SECONDS = 1.0
BURST = 1000
# From the end of a burst to the next; bursts take some tenths of a second themselves.
PAUSES = (0.2, 1.1)
CALLS, QUICK_CALLS = 100_000, 10_000
# The peers show that the race happens, and for that need no more.
PEERS_CALLS, QUICK_PEERS_CALLS = 20_000, 5_000
MODE = {"seconds": 0.002, "keep_alive_seconds": KEEP_ALIVE_SECONDS}
SETUPS = [Setup("defaults", name, mode=MODE) for name in ("scoregate", "nginx", "haproxy", "envoy")]


def measure(stage):
    for setup in SETUPS:
        own, peers = (QUICK_CALLS, QUICK_PEERS_CALLS) if stage.quick else (CALLS, PEERS_CALLS)
        total = own if setup.gateway == "scoregate" else peers
        yield from stage.rows([setup], lambda run: play(run, total), judge)


async def play(run, total):
    pauses = random.Random(1)
    failures, counts, made, slowest, p99s = [], {}, 0, 0.0, []
    while made < total:
        calls = await run.callers.burst(BURST)
        made += len(calls)
        failures += [it for it in calls if not it.ok]
        for name, count in outcomes(calls).items():
            counts[name] = counts.get(name, 0) + count
        slowest = max(slowest, *(it.seconds for it in calls))
        p99s.append(percentile(calls, 0.99))
        await asyncio.sleep(pauses.uniform(*PAUSES))
    stats = [replica.stats() for replica in run.replicas]
    return {"calls": made, "failed": len(failures), "outcomes": counts, "slowest": slowest,
            "races": sum(it["late"] for it in stats), "idle_closes": sum(it["idle_closes"] for it in stats),
            "connections": sum(it["accepted"] for it in stats)}


def judge(setup, played):
    it = played.result
    figure = (f"{it['failed']} of {it['calls']} lost; {it['races']} calls met a connection that was closed under them; "
              f"{it['idle_closes']} of {it['connections']} connections were closed at rest; slowest call of a burst "
              f"{ms(it['slowest'])}")
    met = it["failed"] == 0 and it["connections"] < it["calls"] and it["idle_closes"] > 0 and not played.faults
    return Row(setup.title, setup.gateway, f"0 of {it['calls']} lost", "; ".join([figure, *played.faults]),
               setup.verdict(met), it | {"faults": played.faults})
