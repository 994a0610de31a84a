"""Two replicas of the real Azure ML inference server behind one service: one is killed and comes back under calls."""

import collections
import json
import subprocess
import sys
import threading

import pytest
import requests

from conftest import HERE, MODEL_SERVER
from gateway import eventually
from servers import Server, free_ports
from traffic import TrafficGateway

FLOWERS = {"data": [[5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]]}
SPECIES = ["setosa", "virginica"]
SETTINGS = """
limits: {{ concurrent_requests_per_replica: 1, queue_wait: 20s }}
deployments:
  - name: blue
    traffic: 100
    replicas: ["{0}", "{1}"]
    health:
      probe: {{ path: /, interval: 100ms, timeout: 5s, healthy: 1, unhealthy: 2, startup: 90s }}
      readiness: {{ body: '{{"data": [[5.1, 3.5, 1.4, 0.2]]}}', content_type: application/json, timeout: 20s }}
"""


@pytest.fixture(scope="module")
def unready(tmp_path_factory):
    """While this file is there, the second replica says that it is healthy and cannot score."""
    return tmp_path_factory.mktemp("unready") / "while"


@pytest.fixture(scope="module")
def replicas(tmp_path_factory, unready):
    """Two of them, each with two workers: that one call at a time is in each is the gateway's doing, not theirs."""
    directory = tmp_path_factory.mktemp("replicas")
    subprocess.run([sys.executable, HERE / "model/train.py", HERE / "model/iris.csv", directory / "weights.json"],
                   check=True, timeout=60)  # fmt: skip
    environment = {"AML_APP_ROOT": str(HERE / "model"), "AZUREML_MODEL_DIR": str(directory), "WORKER_COUNT": "2"}
    servers = [
        Server(
            [MODEL_SERVER, "--entry_script", "score.py", "--port", str(port)], port, "/", directory / f"{port}.log",
            HERE / "model", **environment, **({"UNREADY_WHILE": str(unready)} if second else {}),
        )
        for second, port in enumerate(free_ports(2))
    ]  # fmt: skip
    try:
        yield [server.start() for server in servers]
    finally:
        for server in servers:
            server.stop()


@pytest.fixture(scope="module")
def pair(tmp_path_factory, certs, replicas):
    settings = SETTINGS.format(*(server.url for server in replicas))
    gateway = TrafficGateway(tmp_path_factory.mktemp("gateway"), certs, {"pair": settings})
    try:
        gateway.start()
        eventually("both replicas are ready", lambda: in_state(gateway, "ready") == 2, seconds=60)
        yield gateway
    finally:
        gateway.kill()


def in_state(gateway, state):
    """How many replicas are in a state, by the gateway's own metrics."""
    lines = gateway.observe("/metrics").text.splitlines()
    found = [line for line in lines if line.startswith("scoregate_replicas{") and f'state="{state}"' in line]
    return sum(float(line.rpartition(" ")[2]) for line in found)


def score(gateway, order=FLOWERS):
    return requests.post(
        gateway.service("pair"), json=order, headers=gateway.bearer, verify=gateway.ca, timeout=60
    )


def replica_of(gateway, answer):
    """The port of the replica that answered."""
    return int(gateway.record(answer.headers["x-request-id"])["Replica"].rpartition(":")[2].rstrip("/"))


class Calls:
    """Calls one after another in the background, from several callers, until the end of the `with` block."""

    def __init__(self, gateway, callers=3):
        self.gateway = gateway
        self.statuses = collections.Counter()
        self.done = threading.Event()
        self.threads = [threading.Thread(target=self.keep_calling) for _ in range(callers)]

    def keep_calling(self):
        with requests.Session() as session:
            session.headers.update(self.gateway.bearer)
            while not self.done.is_set():
                self.statuses[self.outcome(session)] += 1

    def outcome(self, session):
        """The status, or that the answer was cut: its replica may die when it has been begun."""
        try:
            answer = session.post(self.gateway.service("pair"), json=FLOWERS, verify=self.gateway.ca, timeout=60)
        except requests.exceptions.ChunkedEncodingError:
            return "cut"
        return answer.status_code

    def more(self, count):
        """Waits for so many more answers."""
        wanted = sum(self.statuses.values()) + count
        eventually(f"{count} more calls", lambda: sum(self.statuses.values()) >= wanted, seconds=60)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        for thread in self.threads:
            thread.join()


def test_both_replicas_score(pair, replicas):
    answers = [score(pair) for _ in range(40)]
    assert [answer.json()["species"] for answer in answers] == [SPECIES] * 40
    assert {replica_of(pair, answer) for answer in answers} == {server.port for server in replicas}


def test_one_call_at_a_time_is_in_each_replica(pair, tmp_path):
    """Three callers, two replicas with two workers each: the third call waits at the gateway until a place is free."""
    started = [tmp_path / f"started-{n}" for n in range(3)]
    until = [tmp_path / f"until-{n}" for n in range(3)]
    answers = [None] * 3

    def call(number):
        answers[number] = score(pair, {"started": str(started[number]), "until": str(until[number])})

    threads = [threading.Thread(target=call, args=(number,)) for number in range(3)]
    try:
        for number in range(2):
            threads[number].start()
            eventually(f"call {number} is in a replica", started[number].exists)
        threads[2].start()
        eventually("the third call waits", lambda: metric(pair, "scoregate_admission_waiting") == 1)
        assert not started[2].exists()
        until[0].touch()
        eventually("the third call is in a replica", started[2].exists)
    finally:
        for path in until:
            path.touch()
        for thread in threads:
            if thread.ident:
                thread.join()
    assert [answer.status_code for answer in answers] == [200] * 3
    ports = [replica_of(pair, answer) for answer in answers]
    assert ports[0] != ports[1] and ports[2] == ports[0]
    waited = [pair.record(answer.headers["x-request-id"])["QueueMs"] for answer in answers]
    assert waited[2] > max(waited[:2])


def metric(gateway, name):
    lines = [line for line in gateway.observe("/metrics").text.splitlines() if line.startswith(name)]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


# Of one call at a time: the call in it, and one that connected while its processes were dying one after another.
MOST_LOST = 2


def test_a_replica_killed_under_calls_comes_back_when_it_can_score(pair, replicas, unready):
    """It is healthy long before that, and gets no call until it has scored."""
    with Calls(pair) as calls:
        calls.more(20)
        replicas[1].kill()
        calls.more(20)
        eventually("the gateway knows that it is gone", lambda: in_state(pair, "ready") == 1)
        lost = calls.statuses.total() - calls.statuses[200]
        assert lost <= MOST_LOST, calls.statuses
        unready.touch()
        replicas[1].start()
        seen = len(scored(replicas[1]))
        eventually("it was asked to score, and failed", lambda: "not loaded yet" in replicas[1].log.read_text())
        calls.more(30)
        assert in_state(pair, "ready") == 1
        unready.unlink()
        eventually("it is ready", lambda: in_state(pair, "ready") == 2, seconds=30)
        calls.more(40)
        assert calls.statuses.total() - calls.statuses[200] == lost, calls.statuses
    assert len(scored(replicas[1])) > seen
    assert losses(pair) == ["upstream_reset"] * lost, "a call that was not sent is not lost"


def losses(gateway):
    """Why calls failed, by the records."""
    return [record["Reason"] for record in gateway.records() if record["Reason"] != "ok"]


def scored(server):
    """Its log's lines on calls that it scored."""
    return [line for line in server.log.read_text().splitlines() if "POST /score" in line and " 200" in line]
