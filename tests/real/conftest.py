"""What all tests share: certificates, the real model server, and one gateway in front of it for the whole run."""

import os
import pathlib
import subprocess
import sys
import uuid

import pytest

from caller import VIAS, Caller
from gateway import BINARY, REPOSITORY, Gateway
from servers import Server, free_ports

HERE = pathlib.Path(__file__).resolve().parent
# Everything here is on this machine: no proxy that the environment may name.
os.environ["NO_PROXY"] = "*"

# Hosts that services go by, beside 127.0.0.1.
HOSTS = ("iris-aci.test", "streams.test", "kserve.test")
MODEL_SERVER = HERE / ".venv-model/bin/azmlinfsrv"


def pytest_collection_modifyitems(items):
    """test_life.py changes keys, ends the gateway and counts its records: it comes last."""
    items.sort(key=lambda item: item.path.name == "test_life.py")


@pytest.fixture(scope="session")
def certs(tmp_path_factory):
    """A development CA and what it signs, by the project's own script."""
    directory = tmp_path_factory.mktemp("certs")
    subprocess.run([REPOSITORY / "certs/gen.sh", "--token-key", directory, *HOSTS], check=True, timeout=30)
    return directory


@pytest.fixture(scope="session")
def model_url(tmp_path_factory):
    """azureml-inference-server-http, scoring irises with weights fitted just now."""
    directory = tmp_path_factory.mktemp("model")
    weights = [sys.executable, HERE / "model/train.py", HERE / "model/iris.csv", directory / "weights.json"]
    subprocess.run(weights, check=True, timeout=60)
    [port] = free_ports(1)
    server = Server(
        [MODEL_SERVER, "--entry_script", "score.py", "--port", str(port)], port, "/", directory / "server.log",
        HERE / "model", AML_APP_ROOT=str(HERE / "model"), AZUREML_MODEL_DIR=str(directory), WORKER_COUNT="2",
    )  # fmt: skip
    try:
        yield server.start().url
    finally:
        server.stop()


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


@pytest.fixture
def mark():
    """A client request id of this test's own."""
    return uuid.uuid4().hex
