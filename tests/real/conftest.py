"""What all tests share: certificates, the real model server, and one gateway in front of it for the whole run."""

import os
import pathlib
import socket
import subprocess
import sys

import pytest
import requests

from caller import VIAS, Caller
from gateway import BINARY, REPOSITORY, Gateway, eventually

HERE = pathlib.Path(__file__).resolve().parent
# Everything here is on this machine: no proxy that the environment may name.
os.environ["NO_PROXY"] = "*"

MODEL_SERVER = HERE / ".venv-model/bin/azmlinfsrv"


def pytest_collection_modifyitems(items):
    """test_life.py changes keys, ends the gateway and counts its records: it comes last."""
    items.sort(key=lambda item: item.path.name == "test_life.py")


@pytest.fixture(scope="session")
def certs(tmp_path_factory):
    """A development CA and what it signs, by the project's own script."""
    directory = tmp_path_factory.mktemp("certs")
    subprocess.run([REPOSITORY / "certs/gen.sh", "--token-key", directory, "iris-aci.test"], check=True, timeout=30)
    return directory


@pytest.fixture(scope="session")
def model_url(tmp_path_factory):
    """azureml-inference-server-http, scoring irises with weights fitted just now."""
    directory = tmp_path_factory.mktemp("model")
    weights = [sys.executable, HERE / "model/train.py", HERE / "model/iris.csv", directory / "weights.json"]
    subprocess.run(weights, check=True, timeout=60)
    with socket.socket() as probe:
        # The server cannot bind port 0; nobody else takes a port that was free a moment ago.
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "AML_APP_ROOT": str(HERE / "model"),
        "AZUREML_MODEL_DIR": str(directory),
        "WORKER_COUNT": "2",
    }
    with open(directory / "server.log", "wb") as log:
        server = subprocess.Popen(
            [MODEL_SERVER, "--entry_script", "score.py", "--port", str(port)],
            cwd=HERE / "model", env=environment, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}"

    def healthy():
        assert server.poll() is None, (directory / "server.log").read_text()
        try:
            return requests.get(url, timeout=5).ok
        except requests.ConnectionError:
            return False

    try:
        eventually("the model server is healthy", healthy, seconds=60)
        yield url
    finally:
        # The master ends its workers.
        server.terminate()
        server.wait(timeout=20)


@pytest.fixture(scope="session")
def gateway(tmp_path_factory, certs, model_url):
    """The gateway that all tests share; test_life.py ends it."""
    assert BINARY.exists(), f"{BINARY} is not there: cargo build, or name another in SCOREGATE_BIN"
    gateway = Gateway(tmp_path_factory.mktemp("gateway"), certs, model_url)
    try:
        gateway.start()
        yield gateway
    finally:
        gateway.kill()


@pytest.fixture(scope="session")
def caller(gateway):
    return Caller(gateway)


@pytest.fixture(params=VIAS)
def via(request):
    """Each kind of client in turn."""
    return request.param
