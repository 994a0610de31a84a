"""The scoring script: irises in, species out. Beside that it does on request what models do to gateways.

{"data": [[5.1, 3.5, 1.4, 0.2], ..]}   scores each flower
{"raise": "text"}                       fails as user code fails (the server answers 500)
{"status": 422, "body": "text"}         answers with that status
{"started": PATH, "until": PATH}        makes the first file, then answers when the second one exists

While the file UNREADY_WHILE is there, it cannot score: a model that takes longer to load than its server takes to start.
What is not JSON is described by its length and SHA-256. Answers tell which of the request's headers the model saw, so
that a test can say what the gateway passed on.
"""

import hashlib
import json
import math
import os
import pathlib
import time

from azureml_inference_server_http.api.aml_response import AMLResponse

SEEN = ("content-type", "x-request-id", "x-ms-client-request-id", "traceparent")
LONGEST_WAIT_SECONDS = 30

model = {}


def init():
    weights = pathlib.Path(os.environ["AZUREML_MODEL_DIR"], "weights.json")
    model.update(json.loads(weights.read_text()))


def run(data, request_headers):
    if os.path.exists(os.environ.get("UNREADY_WHILE", "")):
        raise RuntimeError("not loaded yet")
    headers = {name.lower(): value for name, value in request_headers.items()}
    seen = {name: headers[name] for name in SEEN if name in headers}
    try:
        order = json.loads(data)
    except ValueError:
        return {"bytes": len(data), "sha256": hashlib.sha256(data.encode()).hexdigest(), "seen": seen}
    if "raise" in order:
        raise RuntimeError(order["raise"])
    if "status" in order:
        return AMLResponse(order["body"], order["status"])
    if "until" in order:
        wait(pathlib.Path(order["started"]), pathlib.Path(order["until"]))
        return {"waited": True}
    flowers = order["data"] if isinstance(order["data"], list) else json.loads(order["data"])
    return {"species": [classify(flower) for flower in flowers], "seen": seen}


def classify(flower):
    inputs = [1.0] + [(x - m) / d for x, m, d in zip(flower, model["mean"], model["deviation"])]
    scores = [sum(w * x for w, x in zip(row, inputs)) for row in model["weights"]]
    assert all(math.isfinite(score) for score in scores)
    return model["classes"][scores.index(max(scores))]


def wait(started, until):
    started.touch()
    deadline = time.monotonic() + LONGEST_WAIT_SECONDS
    while not until.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{until} did not appear")
        time.sleep(0.01)
