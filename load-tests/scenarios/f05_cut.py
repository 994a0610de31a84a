"""F05: a replica ends its connection in mid-answer, by a reset or in silence, with a length or with chunks.

A caller must never take what came for a whole answer, and the record must say who ended it and after how many bytes. Where
the cut is known before the answer has begun for the caller, 502 is the better answer.
"""

from measure.faults import Row, Setup, outcomes
from measure.replica import PASSED

RATE = 100
SECONDS, QUICK_SECONDS = 2.0, 0.5
SETUPS = [Setup(f"{framing}, {end}", mode={"kind": "answer", "framing": framing, "end": end})
          for framing in ("length", "chunked") for end in ("close", "reset")]


def measure(stage):
    seconds = QUICK_SECONDS if stage.quick else SECONDS
    return stage.rows(SETUPS, lambda run: play(run, seconds), judge)


async def play(run, seconds):
    for replica in run.replicas:
        replica.order(kind="cut")
    calls = await run.callers.steady(RATE, seconds)
    attempts = sum(len(replica.arrivals()) for replica in run.replicas)
    records = run.records_of(calls)
    return {"calls": len(calls), "outcomes": outcomes(calls), "attempts": attempts,
            "clean_ends": sum(it.ok for it in calls),
            "refused": sum(not it.fault and it.status == 502 for it in calls),
            "cut_in_record": sum(told(record) for record in records),
            "other_records": [record for record in records if not told(record)][:3]}


def told(record):
    """Whether the record says that the replica ended the answer, after the bytes that were passed on if any were."""
    return (record is not None and record["Reason"] == "upstream_reset" and record["EndedBy"] == "upstream"
            and (record["ResponseBytes"] == PASSED or record["StatusCode"] == 502))


def judge(setup, played):
    it = played.result
    figure = (f"{it['clean_ends']} of {it['calls']} were taken for whole; {it['cut_in_record']} records say "
              f"upstream_reset, with {PASSED} bytes for all but the {it['refused']} answered 502; {it['attempts']} attempts")
    met = (it["clean_ends"] == 0 and it["cut_in_record"] == it["calls"] and it["attempts"] == it["calls"]
           and not played.faults)
    return Row(setup.title, setup.gateway, "no clean end, each in its record with its bytes, no second attempt",
               "; ".join([figure, *played.faults]), setup.verdict(met), it | {"faults": played.faults})
