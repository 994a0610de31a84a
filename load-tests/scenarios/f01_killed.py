"""F01: one of two replicas is killed with kill -9 while calls are in its hands, and comes back three seconds later.

100 calls a second that take 200 ms each, so that about ten are in its hands. Without replay these are lost, at once and
not one more; with replay none is. Nothing fails afterwards, nor when the replica is back.
"""

import asyncio
import time
from dataclasses import replace

from measure.faults import Row, Setup, envoy_retry, ms, outcomes

SERVICE_SECONDS = 0.200
RATE = 100
KILL_AT, BACK_AT, END_AT = 3.0, 6.0, 9.0
REFUSED_WITHIN = 0.050

SETUPS = [
    Setup("no replay"),
    Setup("replay", settings={"ROUTE": "retry: { replay: always }"}),
    Setup("no replay", "nginx"),
    Setup("replay", "nginx", {"ROUTE": "proxy_next_upstream error timeout non_idempotent;"}),
    Setup("no replay", "haproxy", {"ROUTE": "option redispatch 1"}),
    Setup("replay", "haproxy", {"ROUTE": "option redispatch 1\n    retry-on all-retryable-errors"}),
    Setup("no replay", "envoy", {"ROUTE": envoy_retry("connect-failure,refused-stream,reset-before-request")}),
    Setup("replay", "envoy", {"ROUTE": envoy_retry("connect-failure,refused-stream,reset")}),
]


def measure(stage):
    slow = [replace(setup, mode={"seconds": SERVICE_SECONDS}) for setup in SETUPS]
    return stage.rows(slow, play, judge)


async def play(run):
    async def kill():
        await asyncio.sleep(KILL_AT)
        before = time.monotonic()
        in_hand = run.replicas[0].kill()
        killed = time.monotonic()
        await asyncio.sleep(BACK_AT - KILL_AT)
        run.replicas[0].revive()
        return before, killed, in_hand

    killing = asyncio.create_task(kill())
    calls = await run.callers.steady(RATE, END_AT)
    before, killed, in_hand = await killing
    run.replicas[0].order(seconds=SERVICE_SECONDS)
    # Those begun while it was being killed may have been sent to it, too.
    in_hand += sum(before <= it.due <= killed for it in calls)
    failed = [it for it in calls if not it.ok]
    unrecorded = 0
    if run.running.observe:
        unrecorded = sum(record is None or record["StatusCode"] != it.status
                         for it, record in zip(failed, run.records_of(failed)))
    return {
        "calls": len(calls), "in_hand": in_hand, "failed": len(failed), "outcomes": outcomes(calls),
        "slowest_failure_after_kill": max((it.ended - killed for it in failed), default=0.0),
        "slowest": max(it.seconds for it in calls),
        "failed_at": sorted(round(it.due - killed, 3) for it in failed),
        "failed_later": sum(it.due > killed for it in failed),
        "failures_without_record": unrecorded,
    }


def judge(setup, played):
    it = played.result
    faults = list(played.faults)
    if it["failures_without_record"]:
        faults.append(f"{it['failures_without_record']} failures not in the records")
    figure = (f"{it['failed']} of {it['calls']} failed, {it['in_hand']} in hand; last failure "
              f"{ms(it['slowest_failure_after_kill'])} after the kill; slowest call {ms(it['slowest'])}")
    if setup.title == "replay":
        bound = 2 * SERVICE_SECONDS + 0.050
        target, met = f"0 failed, slowest ≤ {ms(bound)}", it["failed"] == 0 and it["slowest"] <= bound
    else:
        target = f"failed ≤ in hand, each within {ms(REFUSED_WITHIN)} of the kill, as 502"
        met = (it["failed"] <= it["in_hand"] and it["slowest_failure_after_kill"] <= REFUSED_WITHIN
               and set(it["outcomes"]) <= {"200", "502"} and it["failed_later"] == 0)
    return Row(setup.title, setup.gateway, target, "; ".join([figure, *faults]),
               setup.verdict(met and not faults), it | {"faults": faults})
