"""F06: a replica, or both, answer every call with an error, until some seconds before the end.

Attempts must not multiply: at most 1.2 times the calls. One bad replica of two is taken out within two seconds and comes
back when it is well. Errors of the caller, 4xx, are never tried again, whatever the setting.
"""

import asyncio
from dataclasses import replace

from measure.faults import Row, Setup, envoy_retry, ms, outcomes

RATE = 200
BAD_AT, BAD_SECONDS, QUICK_BAD_SECONDS, AFTER_SECONDS = 1.0, 30.0, 6.0, 3.0
MOST_ATTEMPTS = 1.2
EJECTED_WITHIN = 2.0
# A replica that gets 100 calls a second and then none for this long has been taken out.
QUIET_SECONDS = 0.5

REPLAY = {"ROUTE": "retry: { replay: always, statuses: [500, 503] }"}
# What each of these means: status, how many of the two replicas are bad, whether one is to be taken out.
CASES = {"one of two says 500": (500, 1), "one of two says 503": (503, 1), "both say 503": (503, 2), "both say 429": (429, 2)}
SETUPS = [
    Setup("one of two says 500"),
    Setup("one of two says 503", settings=REPLAY),
    Setup("both say 503", settings=REPLAY),
    Setup("both say 429", settings=REPLAY),
    Setup("one of two says 503", "nginx", {"ROUTE": "proxy_next_upstream error timeout http_500 http_503 non_idempotent;"}),
    Setup("one of two says 503", "haproxy", {"ROUTE": "option redispatch 1\n    retry-on conn-failure 500 503\n"
          "    default-server check observe layer7 error-limit 5 on-error mark-down inter 10s"}),
    Setup("one of two says 503", "envoy", {
        "ROUTE": envoy_retry("5xx"),
        "CLUSTER": "outlier_detection: { consecutive_5xx: 5, interval: 1s, base_ejection_time: 10s, max_ejection_percent: 50 }"}),
]


def measure(stage):
    seconds = QUICK_BAD_SECONDS if stage.quick else BAD_SECONDS
    for setup in SETUPS:
        status, bad = CASES[setup.title]
        shown = f"{setup.title}, {'retried' if setup.settings else 'defaults'}"
        yield from stage.rows([setup], lambda run: play(run, status, bad, seconds),
                              lambda setup, played: judge(replace(setup, title=shown), played, status, bad))


async def play(run, status, bad, seconds):
    async def fall_ill():
        await asyncio.sleep(BAD_AT)
        for sick in run.replicas[:bad]:
            sick.order(status=status)
        await asyncio.sleep(seconds)
        for sick in run.replicas[:bad]:
            sick.order(status=200)

    falling = asyncio.create_task(fall_ill())
    calls = await run.callers.steady(RATE, BAD_AT + seconds + AFTER_SECONDS)
    await falling
    ill = calls[0].due + BAD_AT
    arrivals = [replica.arrivals() for replica in run.replicas]
    during = [it for it in calls if ill <= it.due < ill + seconds]
    return {"calls": len(calls), "outcomes": outcomes(calls), "attempts": sum(map(len, arrivals)),
            "calls_during": len(during), "attempts_during": sum(ill <= it < ill + seconds for it in sum(arrivals, [])),
            "failed": sum(not it.ok for it in calls), "ejected_after": quiet_after(arrivals[0], ill, ill + seconds),
            "ejections": run.metric("scoregate_replica_ejections_total") if run.running.observe else None}


def quiet_after(arrivals, begin, end):
    """Seconds from `begin` to the first long gap in the arrivals; `None` if there is none."""
    times = [begin, *(it for it in arrivals if begin <= it < end), end]
    return next((now - begin for now, then in zip(times, times[1:]) if then - now > QUIET_SECONDS), None)


def judge(setup, played, status, bad):
    it = played.result
    ratio = it["attempts_during"] / it["calls_during"]
    ejected = "never ejected" if it["ejected_after"] is None else f"ejected after {ms(it['ejected_after'])}"
    figure = f"{ratio:.2f} attempts a call; {it['failed']} of {it['calls']} failed"
    met, target = ratio <= MOST_ATTEMPTS, f"attempts ≤ {MOST_ATTEMPTS} a call"
    if status < 500:
        met, target = it["attempts"] == it["calls"], "one attempt a call"
    if bad == 1:
        figure += "; " + ejected
        met = met and it["ejected_after"] is not None and it["ejected_after"] <= EJECTED_WITHIN
        target += f", ejected within {ms(EJECTED_WITHIN)}"
    return Row(setup.title, setup.gateway, target, "; ".join([figure, *played.faults]),
               setup.verdict(met and not played.faults), it | {"ratio": ratio, "faults": played.faults})
