"""A call that is let in: what the model sees of it, and what the caller sees of the model."""

import hashlib
import json
import urllib.parse
import uuid

import pytest
import requests

FLOWERS = {"data": [[5.1, 3.5, 1.4, 0.2], [5.9, 3.0, 4.2, 1.5], [6.3, 3.3, 6.0, 2.5]]}
SPECIES = ["setosa", "versicolor", "virginica"]
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def score(caller, gateway, via):
    """Calls the AKS service's model with the right key, by each kind of client."""

    def call(data=None, method="POST", path="score", **headers):
        every = {**JSON, **caller.bearer(gateway.primary), **headers}
        return caller.call(via, caller.service("iris-aks", path), method, every, data)

    return call


def test_flowers_are_scored(score):
    answer = score(json.dumps(FLOWERS))
    assert answer.status == 200
    assert answer.json()["species"] == SPECIES
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["x-ms-run-function-failed"] == "False"
    assert "x-scoregate-reason" not in answer.headers


def test_the_answer_names_the_deployment_that_served(score):
    assert score(json.dumps(FLOWERS)).headers["azureml-model-deployment"] == "blue"


def test_a_caller_may_name_the_deployment(score, gateway):
    answer = score(json.dumps(FLOWERS), **{"azureml-model-deployment": "green"})
    assert answer.status == 200
    assert answer.headers["azureml-model-deployment"] == "green"
    assert gateway.record(answer.headers["x-request-id"])["Deployment"] == "green"


def test_get_with_a_query_string(score):
    query = urllib.parse.urlencode({"data": json.dumps(FLOWERS["data"])})
    answer = score(method="GET", path=f"score?{query}")
    assert answer.status == 200
    assert answer.json()["species"] == SPECIES


def test_swagger_sits_beside_score(score):
    answer = score(method="GET", path="swagger.json")
    assert answer.status == 200
    assert answer.json()["swagger"] == "2.0"
    assert score(method="GET", path="swagger.json?version=3").json()["openapi"].startswith("3.0")


def test_health_is_the_containers_root(score):
    answer = score(method="GET", path="")
    assert (answer.status, answer.body) == (200, b"Healthy")


def test_content_type_reaches_the_model_as_it_was_sent(score):
    """The stock server gives its script no body for this type: that is its affair, and none of the gateway's."""
    answer = score("a=1&b=2", **{"Content-Type": "application/x-www-form-urlencoded"})
    assert answer.status == 200
    assert answer.json()["bytes"] == 0
    assert answer.json()["seen"]["content-type"] == "application/x-www-form-urlencoded"


def test_no_content_type_is_added(caller, gateway, via):
    headers = caller.bearer(gateway.primary)
    answer = caller.call(via, caller.service("iris-aks"), "POST", headers, b"plain words")
    assert answer.json()["bytes"] == len("plain words")
    assert "content-type" not in answer.json()["seen"]


def test_a_body_of_one_mebibyte_arrives_whole(score, gateway):
    body = "0123456789abcdef" * 65536
    answer = score(body)
    assert answer.json()["bytes"] == 1 << 20
    assert answer.json()["sha256"] == hashlib.sha256(body.encode()).hexdigest()
    assert gateway.record(answer.headers["x-request-id"])["RequestBytes"] == 1 << 20


def test_a_chunked_body_arrives_whole(caller, gateway):
    pieces = [b"abc" * 1000, b"d", b"e" * 70000]
    headers = {**JSON, **caller.bearer(gateway.primary)}
    answer = caller.call("requests", caller.service("iris-aks"), "POST", headers, iter(pieces))
    assert answer.status == 200
    assert answer.json()["sha256"] == hashlib.sha256(b"".join(pieces)).hexdigest()


def test_expect_100_continue_is_answered(caller, gateway, tmp_path):
    body = tmp_path / "body"
    body.write_text(json.dumps(FLOWERS))
    _, trace = caller.curl(
        "--verbose", "--http1.1", "--expect100-timeout", "30", "--header", "Expect: 100-continue",
        "--header", f"Authorization: Bearer {gateway.primary}", "--data-binary", f"@{body}",
        "--header", "Content-Type: application/json", "--output", tmp_path / "answer", caller.service("iris-aks"),
    )  # fmt: skip
    assert "< HTTP/1.1 100" in trace
    assert "< HTTP/1.1 200" in trace
    assert json.loads((tmp_path / "answer").read_text())["species"] == SPECIES


def test_one_connection_serves_many_calls_though_the_container_closes_each(caller, gateway):
    """The stock container says `Connection: close` to everything; the caller must not notice."""
    with requests.Session() as session:
        headers = {**JSON, **caller.bearer(gateway.primary)}
        for _ in range(20):
            answer = caller.call_in(session, caller.service("iris-aks"), "POST", headers, json.dumps(FLOWERS))
            assert answer.status == 200
            assert answer.headers.get("Connection", "keep-alive").lower() != "close"
        pools = session.get_adapter(caller.url("/")).poolmanager.pools
        assert [(pools[key].num_requests, pools[key].num_connections) for key in pools.keys()] == [(20, 1)]


@pytest.mark.parametrize("version", ["1.1", "2"])
def test_curl_keeps_its_connection_too(caller, gateway, version, tmp_path):
    url = caller.service("iris-aks") + "?data=%5B%5B5.1,3.5,1.4,0.2%5D%5D&call=[1-20]"
    out, _ = caller.curl(
        f"--http{version}", "--header", f"Authorization: Bearer {gateway.primary}", "--output", tmp_path / "answer",
        "--write-out", "%{http_code} %{http_version} %{num_connects}\\n", url, calls=20,
    )  # fmt: skip
    lines = [line.split() for line in out.splitlines()]
    assert [line[:2] for line in lines] == [["200", version]] * 20
    assert sum(int(line[2]) for line in lines) == 1


@pytest.mark.parametrize("service", ["iris-aks", "iris-aci"])
def test_a_failing_model_is_502(caller, gateway, via, service):
    """As azureml-fe does it: exactly the container's 500 becomes 502."""
    headers = {**JSON, **(caller.bearer(gateway.primary) if service == "iris-aks" else {})}
    answer = caller.call(via, caller.service(service), "POST", headers, '{"raise": "no such flower"}')
    assert answer.status == 502
    record = gateway.record(answer.headers["x-request-id"])
    assert (record["StatusCode"], record["ModelStatusCode"], record["Reason"]) == (502, 500, "model_error")


@pytest.mark.parametrize("status", [404, 422])
def test_the_models_own_statuses_pass(score, gateway, status):
    answer = score(json.dumps({"status": status, "body": "says the model"}))
    assert (answer.status, answer.body) == (status, b"says the model")
    assert "x-scoregate-reason" not in answer.headers
    assert gateway.record(answer.headers["x-request-id"])["ModelStatusCode"] == status


def test_request_id_is_the_gateways_own(score):
    answer = score("words", **{"x-request-id": "mine"})
    made = answer.headers["x-request-id"]
    assert str(uuid.UUID(made)) == made
    assert answer.json()["seen"]["x-request-id"] == made
    assert answer.headers["x-ms-request-id"] == made


def test_client_request_id_is_cleaned_and_cut(score, gateway):
    answer = score("words", **{"x-ms-client-request-id": "an id/with (odd) letters_" + "x" * 60})
    clean = ("anidwithoddletters_" + "x" * 60)[:40]
    assert answer.headers["x-ms-client-request-id"] == clean
    assert answer.json()["seen"]["x-ms-client-request-id"] == clean
    assert gateway.record(answer.headers["x-request-id"])["ClientRequestId"] == clean


def test_trace_context_is_passed_on(score, gateway):
    trace = "0af7651916cd43dd8448eb211c80319c"
    answer = score("words", traceparent=f"00-{trace}-b7ad6b7169203331-01")
    assert answer.json()["seen"]["traceparent"].split("-")[1] == trace
    assert gateway.record(answer.headers["x-request-id"])["TraceId"] == trace


def test_aci_is_open_and_reached_by_its_host(caller, tmp_path):
    url = caller.url("/score", host="iris-aci.test")
    out, _ = caller.curl(
        "--resolve", f"iris-aci.test:{caller.gateway.port}:127.0.0.1", "--header", "Content-Type: application/json",
        "--data", json.dumps(FLOWERS), "--output", tmp_path / "answer", "--write-out", "%{http_code}", url,
    )  # fmt: skip
    assert out == "200"
    assert json.loads((tmp_path / "answer").read_text())["species"] == SPECIES


def test_aci_is_reached_by_path_as_well(caller, via):
    answer = caller.call(via, caller.service("iris-aci"), "POST", JSON, json.dumps(FLOWERS))
    assert answer.status == 200
    assert answer.json()["species"] == SPECIES
