"""A gateway's life, in this order and after everything else: new key, record file renamed, drain, and the books at the end."""

import collections
import json
import signal
import threading

import requests

from gateway import eventually

FLOWER = '{"data": [[5.1, 3.5, 1.4, 0.2]]}'
JSON = {"Content-Type": "application/json"}
REQUIRED = {"HTTPMethod", "UserAgent", "ComputeType", "RequestUrl", "StatusCode", "RequestId", "Duration"}


def score(caller, key, session=None):
    headers = {**JSON, **caller.bearer(key)}
    if session:
        return caller.call_in(session, caller.service("iris-aks"), "POST", headers, FLOWER)
    return caller.call("requests", caller.service("iris-aks"), "POST", headers, FLOWER)


def test_a_key_is_switched_while_calls_run(caller, gateway):
    """A reload takes the new key up, refuses the old one, and no call with the other key notices."""
    statuses, done = collections.Counter(), threading.Event()

    def keep_calling():
        with requests.Session() as session:
            while not done.is_set():
                statuses[score(caller, gateway.secondary, session).status] += 1

    background = threading.Thread(target=keep_calling)
    background.start()
    try:
        eventually("calls run", lambda: statuses[200] >= 3)
        old, new = gateway.primary, "primary-Vt5nW0ayHc7Gf2e"
        gateway.set_primary(new)
        gateway.signal(signal.SIGHUP)
        eventually("the new key opens", lambda: score(caller, new).status == 200)
        refused = score(caller, old)
        assert (refused.status, refused.headers["x-scoregate-reason"]) == (401, "auth_invalid")
        before = statuses[200]
        eventually("calls still run", lambda: statuses[200] >= before + 3)
    finally:
        done.set()
        background.join()
    assert set(statuses) == {200}


def test_a_broken_file_changes_nothing(caller, gateway):
    good = gateway.config.read_text()
    try:
        gateway.config.write_text(good.replace("compute_type: ACI", "compute_type: MOON"))
        gateway.signal(signal.SIGHUP)
        eventually("the refusal shows", lambda: "MOON" in gateway.observe("/config/status").text)
        assert score(caller, gateway.primary).status == 200
        assert gateway.observe("/readyz").status_code == 200
    finally:
        gateway.config.write_text(good)
        gateway.signal(signal.SIGHUP)
    eventually("the good file is taken", lambda: "MOON" not in gateway.observe("/config/status").text)


def test_the_record_file_is_opened_anew(caller, gateway):
    """What logrotate does: rename, signal, and from then on records go to a new file."""
    score(caller, gateway.primary)
    current, rotated = gateway.workdir / "records.jsonl", gateway.workdir / "records.1.jsonl"
    current.rename(rotated)
    gateway.signal(signal.SIGUSR1)
    eventually("a new record file", current.exists)
    answer = score(caller, gateway.primary)
    eventually("the record is in the new file", lambda: answer.headers["x-request-id"] in current.read_text())


def test_metrics_are_served(gateway):
    text = gateway.observe("/metrics").text
    assert "scoregate_" in text
    assert gateway.observe("/livez").status_code == 200


def test_sigterm_lets_the_call_in_flight_finish(caller, gateway, tmp_path):
    """Readiness goes first, then the door is shut, and the call that is inside still gets its answer."""
    started, until = tmp_path / "started", tmp_path / "until"
    answers = []

    def slow():
        order = json.dumps({"started": str(started), "until": str(until)})
        headers = {**JSON, **caller.bearer(gateway.primary)}
        answers.append(caller.call("requests", caller.service("iris-aks"), "POST", headers, order))

    background = threading.Thread(target=slow)
    background.start()
    try:
        eventually("the model has the call", started.exists)
        gateway.signal(signal.SIGTERM)
        eventually("readiness is gone", lambda: gateway.observe("/readyz").status_code == 503)
        assert gateway.observe("/livez").status_code == 200
        eventually("new connections are refused", lambda: not gateway.accepts())
    finally:
        until.touch()
        background.join()
    assert [(answer.status, answer.json()) for answer in answers] == [(200, {"waited": True})]
    assert answers[0].headers["Connection"].lower() == "close"
    code, rest = gateway.wait_for_end()
    assert (code, rest) == (0, "")


def test_there_is_one_record_for_each_call(caller, gateway):
    records = gateway.records()
    assert len(records) == caller.calls
    assert len({record["RequestId"] for record in records}) == caller.calls


def test_every_record_has_the_required_fields(gateway):
    for record in gateway.records():
        assert REQUIRED <= set(record), record
        assert record["HTTPMethod"] in ("GET", "POST", "PUT", "DELETE")
        assert record["Duration"] > 0
        assert record["RequestUrl"]


def test_no_credential_is_in_a_record_or_a_log(caller, gateway):
    written = gateway.log + "".join(path.read_text() for path in gateway.record_files())
    assert written
    assert {gateway.primary, gateway.secondary} <= caller.secrets
    assert [secret for secret in caller.secrets if secret in written] == []
