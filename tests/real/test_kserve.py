"""MLServer, which speaks KServe v2 over REST and gRPC, called by the Triton client's libraries and by Python requests."""

import json
import shutil
import subprocess
import sys

import pytest
import requests

from conftest import HERE
from servers import Server, free_ports
from traffic import TrafficGateway

VENV = HERE / ".venv-mlserver/bin"
HOST = "kserve.test"
REST = """
profile: kserve-v2
deployments:
  - {{ name: blue, traffic: 100, replicas: ["http://127.0.0.1:{rest}"], paths: {{ score: /v2/models/iris/infer }} }}
"""
GRPC = """
profile: kserve-v2
hosts: [kserve.test]
deployments:
  - name: blue
    traffic: 100
    protocol: h2
    replicas: ["http://127.0.0.1:{grpc}"]
    paths: {{ score: /v2/models/iris/infer }}
"""
FLOWERS = [5.1, 3.5, 1.4, 0.2, 5.9, 3.0, 4.2, 1.5, 6.3, 3.3, 6.0, 2.5]
ORDER = {"inputs": [{"name": "flowers", "datatype": "FP64", "shape": [3, 4], "data": FLOWERS}]}
SPECIES = ["setosa", "versicolor", "virginica"]
PROTOCOLS = ["rest", "grpc"]


@pytest.fixture(scope="module")
def gate(tmp_path_factory, certs):
    """MLServer with one model, and a gateway with one service for each of its two ports."""
    directory = tmp_path_factory.mktemp("mlserver")
    weights = [sys.executable, HERE / "model/train.py", HERE / "model/iris.csv", directory / "weights.json"]
    subprocess.run(weights, check=True, timeout=60)
    for name in ("runtime.py", "model-settings.json"):
        shutil.copy(HERE / "kserve" / name, directory)
    rest, grpc, metrics = free_ports(3)
    ports = {"host": "127.0.0.1", "http_port": rest, "grpc_port": grpc, "metrics_port": metrics, "parallel_workers": 0}
    (directory / "settings.json").write_text(json.dumps(ports))
    server = Server(
        [VENV / "mlserver", "start", "."], rest, "/v2/models/iris/ready", directory / "server.log", directory,
        AZUREML_MODEL_DIR=str(directory),
    )  # fmt: skip
    services = {"iris-rest": REST.format(rest=rest), "iris-grpc": GRPC.format(grpc=grpc)}
    gateway = TrafficGateway(tmp_path_factory.mktemp("gateway"), certs, services)
    try:
        server.start()
        gateway.start()
        yield gateway
    finally:
        gateway.kill()
        server.stop()


@pytest.fixture(params=PROTOCOLS)
def ask(request, gate):
    """One call by the real client, over one of the protocols; what came of it, and its record."""

    def ask(what, key=None):
        before = len(gate.records())
        done = subprocess.run(
            [VENV / "python", HERE / "kserve/client.py", request.param, gate.authority, "/api/v1/service/iris-rest", HOST,
             gate.ca, key or gate.primary, what],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        records = gate.records()[before:]
        return json.loads(done.stdout), records

    ask.protocol = request.param
    return ask


def test_flowers_are_scored(ask):
    said, _ = ask("infer")
    assert said == {"species": SPECIES}


def test_the_model_tells_that_it_is_ready(ask):
    assert ask("ready")[0] == {"ready": True}


def test_the_models_metadata_is_open(ask):
    assert ask("metadata")[0] == {"name": "iris"}


def test_a_wrong_key_is_refused(ask):
    said, _ = ask("infer", key="wrong")
    assert said["status"] == {"rest": "401", "grpc": "StatusCode.UNAUTHENTICATED"}[ask.protocol]


def test_the_model_repository_is_closed(gate, ask):
    """Unloading is management: the server would do it, the gateway does not ask it to."""
    said, _ = ask("unload")
    assert said["status"] == {"rest": "404", "grpc": "StatusCode.UNIMPLEMENTED"}[ask.protocol]
    assert post(gate, "v2/models/iris/infer").status_code == 200


def post(gate, path, order=ORDER):
    url = gate.service("iris-rest", path)
    return requests.post(url, json=order, headers=gate.bearer, verify=gate.ca, timeout=30)


@pytest.mark.parametrize("path", ["score", "v2/models/iris/infer", "v2/models/iris/versions/v1/infer"])
def test_scoring_has_several_paths(gate, path):
    answer = post(gate, path)
    assert answer.status_code == 200, answer.text
    assert answer.json()["outputs"][0]["data"] == SPECIES
    record = gate.record(answer.headers["x-request-id"])
    assert (record["Service"], record["ModelStatusCode"], record["Reason"]) == ("iris-rest", 200, "ok")


def test_the_models_own_refusal_passes(gate):
    answer = post(gate, "score", {"inputs": [{"name": "f", "datatype": "FP64", "shape": [1, 3], "data": [1, 2, 3]}]})
    assert (answer.status_code, "4 measurements" in answer.text) == (400, True)
    assert "x-scoregate-reason" not in answer.headers


@pytest.mark.parametrize("path", ["v2/repository/index", "v2/repository/models/iris/unload", "metrics"])
def test_what_the_profile_does_not_open_is_not_found(gate, path):
    answer = post(gate, path)
    assert (answer.status_code, answer.headers["x-scoregate-reason"]) == (404, "unknown_service")
