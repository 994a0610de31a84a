"""Azure ML SDK v2, unchanged, against the gateway: endpoints and deployments are made, scored, secured and deleted.

The SDK runs in a process of its own (sdk_v2_client.py): its requirements are not the tests', and it keeps the headers of
`invoke` for the whole process, so that each call that names a deployment gets a new one.
"""

import json
import os
import pathlib
import select
import subprocess
import time

import pytest

from gateway import eventually
from managed import ManagedGateway

HERE = pathlib.Path(__file__).resolve().parent
PYTHON = HERE / ".venv-sdk-v2/bin/python"
ANSWER_SECONDS = 60

SETOSA = {"data": [[5.1, 3.5, 1.4, 0.2]]}
WORKSPACE = "/subscriptions/sub/resourceGroups/rg/providers/Microsoft.MachineLearningServices/workspaces/ws"
API = "api-version=2022-05-01"


class Failed(Exception):
    """What the SDK raised."""

    def __init__(self, failed):
        super().__init__(f"{failed['type']} {failed['status']}: {failed['message']}")
        self.type, self.status, self.message = failed["type"], failed["status"], failed["message"]


class Sdk:
    """One process of the SDK with one credential; each function of sdk_v2_client.py is a method."""

    def __init__(self, gateway, token, home):
        home.mkdir()
        environment = {
            **os.environ,
            "HOME": str(home),
            "REQUESTS_CA_BUNDLE": str(gateway.certs / "ca.pem"),
            "NO_PROXY": "*",
        }
        self._log = home / "stderr.log"
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                [PYTHON, HERE / "sdk_v2_client.py", gateway.management, token],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=home, env=environment, text=True,
            )  # fmt: skip

    def __getattr__(self, function):
        return lambda **arguments: self._ask({"do": function, **arguments})

    def close(self):
        # It has nothing left to say, and takes seconds to say it.
        self._process.kill()
        self._process.communicate()

    def _ask(self, order):
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        readable, _, _ = select.select([self._process.stdout], [], [], ANSWER_SECONDS)
        line = self._process.stdout.readline() if readable else ""
        assert line, f"no answer to {order}:\n{self._log.read_text()}"
        answer = json.loads(line)
        if "failed" in answer:
            raise Failed(answer["failed"])
        return answer["done"]


@pytest.fixture(scope="module")
def managed(tmp_path_factory, certs):
    gateway = ManagedGateway(tmp_path_factory.mktemp("managed"), certs)
    try:
        gateway.start()
        yield gateway
    finally:
        gateway.kill()


@pytest.fixture(scope="module")
def new_sdk(managed, tmp_path_factory):
    """Makes processes of the SDK."""
    made = []

    def new(token=managed.owner):
        made.append(Sdk(managed, token, tmp_path_factory.mktemp("sdk") / "home"))
        return made[-1]

    yield new
    for sdk in made:
        sdk.close()


@pytest.fixture(scope="module")
def owner(new_sdk):
    return new_sdk()


@pytest.fixture(scope="module")
def reader(managed, new_sdk):
    return new_sdk(managed.token_of("rita", "Reader"))


@pytest.fixture(scope="module")
def flower(tmp_path_factory):
    """A request file, as `invoke` wants it."""
    path = tmp_path_factory.mktemp("request") / "flower.json"
    path.write_text(json.dumps(SETOSA))
    return str(path)


@pytest.fixture(scope="module")
def iris(owner, model_url):
    """An endpoint in key mode with all traffic on one of its two deployments."""
    owner.create_endpoint(name="iris", auth_mode="key", description="irises", tags={"team": "blue"})
    for name in ("blue", "green"):
        owner.create_deployment(name=name, endpoint="iris", upstream=model_url)
    return owner.update_endpoint(name="iris", traffic={"blue": 100})


def species(text):
    return json.loads(text)["species"]


def refused(function, **arguments):
    with pytest.raises(Failed) as failure:
        function(**arguments)
    return failure.value


def test_what_was_made_is_told_back(owner, managed, iris):
    assert iris["kind"] == "ManagedOnlineEndpoint" and iris["auth_mode"] == "key"
    assert iris["description"] == "irises" and iris["tags"] == {"team": "blue"}
    assert iris["location"] == "westeurope" and iris["provisioning_state"] == "Succeeded"
    assert iris["traffic"] == {"blue": 100}
    assert iris["scoring_uri"].startswith(f"https://127.0.0.1:{managed.port}/")
    assert iris["openapi_uri"] == iris["scoring_uri"].removesuffix("score") + "swagger.json"
    got = owner.get_endpoint(name="iris")
    assert got["traffic"] == {"blue": 100, "green": 0}
    assert {**got, "traffic": None, "properties": None} == {**iris, "traffic": None, "properties": None}
    assert owner.list_endpoints().count("iris") == 1
    assert owner.list_deployments(endpoint="iris") == ["blue", "green"]
    assert owner.workspace() == {"name": "ws", "location": "westeurope"}


def test_a_deployment_has_azures_limits_unless_it_asks_for_its_own(owner, iris, model_url):
    blue = owner.get_deployment(name="blue", endpoint="iris")
    assert blue["kind"] == "ManagedOnlineDeployment" and blue["endpoint"] == "iris"
    assert blue["model"].endswith("/models/m/versions/1")
    assert blue["environment"].endswith("/environments/e/versions/1")
    assert blue["properties"]["upstream"] == model_url
    assert (blue["instance_type"], blue["instance_count"]) == ("Standard_DS3_v2", 1)
    settings = blue["request_settings"]
    assert settings["request_timeout_ms"] == 5000 and settings["max_concurrent_requests_per_instance"] == 1
    asked = {"request_timeout_ms": 3000, "max_queue_wait_ms": 2000, "max_concurrent_requests_per_instance": 4}
    made = owner.create_deployment(name="slow", endpoint="iris", upstream=model_url, request_settings=asked)
    assert made["request_settings"] == asked
    assert owner.delete_deployment(name="slow", endpoint="iris") is None
    assert owner.list_deployments(endpoint="iris") == ["blue", "green"]


@pytest.mark.parametrize("named, served", [({}, "blue"), ({"deployment_name": "green"}, "green")])
def test_invoke_reaches_the_deployment_with_traffic_or_the_one_named(new_sdk, managed, iris, flower, named, served):
    def deployments():
        return [record["Deployment"] for record in managed.records() if record["Service"] == "iris"]

    before = len(deployments())
    answer = new_sdk().invoke(name="iris", request_file=flower, **named)
    assert species(answer) == ["setosa"]
    assert eventually("the record of the call", lambda: deployments()[before:]) == [served]


def test_traffic_moves_at_once_and_an_impossible_split_is_refused(owner, iris):
    moved = owner.update_endpoint(name="iris", traffic={"blue": 10, "green": 90})
    assert moved["traffic"] == {"blue": 10, "green": 90}
    assert owner.get_endpoint(name="iris")["traffic"] == {"blue": 10, "green": 90}
    for traffic, named in [({"blue": 60, "green": 60}, "properties.traffic"), ({"red": 100}, "properties.traffic.red")]:
        failure = refused(owner.update_endpoint, name="iris", traffic=traffic)
        assert failure.status == 400 and named in failure.message, failure
    assert owner.get_endpoint(name="iris")["traffic"] == {"blue": 10, "green": 90}
    assert owner.update_endpoint(name="iris", traffic={"blue": 100})["traffic"] == {"blue": 100}


def test_a_regenerated_key_is_new_and_the_old_one_is_refused(owner, managed, iris):
    def status(key):
        return managed.score(iris["scoring_uri"], key, SETOSA).status_code

    for slot, other in (("primary", "secondary"), ("secondary", "primary")):
        before = owner.keys(name="iris")
        assert [status(key) for key in before.values()] == [200, 200]
        assert owner.regenerate(name="iris", key_type=slot) is None
        after = owner.keys(name="iris")
        # The SDK sends the key in place as the new one.
        assert after[slot] != before[slot] and after[other] == before[other]
        assert status(before[slot]) == 401
        assert [status(key) for key in after.values()] == [200, 200]


def test_an_endpoint_in_token_mode_gives_tokens_that_score(owner, managed, iris, model_url, flower):
    owner.create_endpoint(name="iris-token", auth_mode="aml_token", properties={"upstream": model_url})
    owner.create_deployment(name="blue", endpoint="iris-token", upstream=model_url)
    endpoint = owner.update_endpoint(name="iris-token", traffic={"blue": 100})
    assert endpoint["auth_mode"] == "aml_token"
    token = owner.token(name="iris-token")
    assert time.time() < token["refresh"] < token["expiry"]
    assert managed.score(endpoint["scoring_uri"], token["token"], SETOSA).status_code == 200
    assert species(owner.invoke(name="iris-token", request_file=flower)) == ["setosa"]
    for wrong in (owner.keys(name="iris")["primary"], token["token"][:-4] + "AAAA", managed.owner):
        assert managed.score(endpoint["scoring_uri"], wrong, SETOSA).status_code == 401
    # A token opens its own endpoint only.
    assert managed.score(iris["scoring_uri"], token["token"], SETOSA).status_code == 401


def test_a_mode_without_an_issuer_is_refused_with_the_way_out(owner):
    failure = refused(owner.create_endpoint, name="iris-entra", auth_mode="aad_token")
    assert failure.status == 400 and "configuration" in failure.message, failure
    assert "iris-entra" not in owner.list_endpoints()


def test_a_kubernetes_endpoint_keeps_its_compute(owner):
    made = owner.create_endpoint(name="iris-k8s", auth_mode="key", compute="azureml:k8s")
    assert made["kind"] == "KubernetesOnlineEndpoint"
    assert owner.get_endpoint(name="iris-k8s")["kind"] == "KubernetesOnlineEndpoint"
    owner.delete_endpoint(name="iris-k8s")


def test_logs_say_where_they_are(owner, iris, model_url):
    assert model_url in owner.logs(name="blue", endpoint="iris")


def test_a_reader_sees_and_nothing_more(owner, reader, iris, model_url, flower):
    before = owner.keys(name="iris")
    assert reader.get_endpoint(name="iris")["name"] == "iris"
    assert "iris" in reader.list_endpoints()
    assert reader.get_deployment(name="blue", endpoint="iris")["name"] == "blue"
    reader.logs(name="blue", endpoint="iris")
    owner.create_endpoint(name="iris-reader", auth_mode="aml_token")
    for failure, action in [
        (refused(reader.keys, name="iris"), "onlineEndpoints/listKeys/action"),
        (refused(reader.regenerate, name="iris", key_type="primary"), "onlineEndpoints/listKeys/action"),
        (refused(reader.token, name="iris-reader"), "onlineEndpoints/token/action"),
        (refused(reader.invoke, name="iris", request_file=flower), "onlineEndpoints/listKeys/action"),
        (refused(reader.create_endpoint, name="ritas", auth_mode="key"), "onlineEndpoints/write"),
        (refused(reader.update_endpoint, name="iris", traffic={"green": 100}), "onlineEndpoints/write"),
        (refused(reader.create_deployment, name="red", endpoint="iris", upstream=model_url), "onlineEndpoints/write"),
        (refused(reader.delete_deployment, name="green", endpoint="iris"), "onlineEndpoints/"),
        (refused(reader.delete_endpoint, name="iris"), "onlineEndpoints/delete"),
    ]:
        assert failure.status == 403 and action in failure.message, failure
    # The SDK lists the keys before it regenerates one; the call itself is refused as well.
    assert owner.keys(name="iris") == before
    assert owner.get_endpoint(name="iris")["traffic"] == {"blue": 100, "green": 0}
    assert "ritas" not in owner.list_endpoints()


def test_regenerating_is_refused_to_a_reader_by_itself(managed, reader, owner, iris):
    token = managed.token_of("rolf", "Reader")
    path = f"{WORKSPACE}/onlineEndpoints/iris/regenerateKeys?{API}"
    answer = managed.manage("POST", path, {"keyType": "Primary"}, token=token)
    assert answer.status_code == 403 and "regenerateKeys" in answer.json()["error"]["message"]


def test_azure_monitors_client_tells_how_an_endpoint_went(managed, owner, reader, iris, flower):
    for _ in range(3):
        owner.invoke(name="iris", request_file=flower)

    def recorded():
        return [record for record in managed.records() if record["Service"] == "iris"]

    calls = len(recorded())
    names = ["Requests", "RequestLatency", "RequestLatency_P99"]

    def told():
        metrics = reader.metrics(endpoint="iris", names=names, aggregations=["Total", "Average", "Count"])
        [[labels, point]] = metrics["Requests"]
        return labels == {} and point.get("total", 0) >= calls and metrics

    # The gateway looks at its counts every five seconds.
    metrics = eventually("the calls show", told)
    [[_, latency]] = metrics["RequestLatency"]
    assert latency["count"] == metrics["Requests"][0][1]["total"] and latency["average"] > 0
    assert metrics["RequestLatency_P99"][0][1]["average"] > 0
    split = reader.metrics(endpoint="iris", names=["Requests"], filter="statusCode eq '200' and deployment eq '*'")
    by_label = {(labels["statusCode"], labels["deployment"]): point["total"] for labels, point in split["Requests"]}
    of_blue = sum(record["Deployment"] == "blue" and record["StatusCode"] == 200 for record in recorded())
    assert by_label["200", "blue"] == of_blue >= 3
    failure = refused(reader.metrics, endpoint="iris", names=["Wishes"])
    assert failure.status == 400 and "Requests" in failure.message
    assert refused(reader.metrics, endpoint="nothing", names=names).status == 404


def test_what_is_not_there_is_the_sdks_own_error(owner, new_sdk, iris, flower):
    assert refused(owner.get_endpoint, name="missing").type == "ResourceNotFoundError"
    assert refused(owner.get_deployment, name="missing", endpoint="iris").type == "ResourceNotFoundError"
    assert refused(owner.keys, name="missing").type == "ResourceNotFoundError"
    owner.delete_endpoint(name="missing")
    stranger = refused(new_sdk("nobodys-token").get_endpoint, name="iris")
    assert (stranger.type, stranger.status) == ("ClientAuthenticationError", 401)


def test_azures_rest_script_goes_through(managed, model_url):
    """PUT, poll what `AzureAsyncOperationUri` names, read the URI, score, delete: as Microsoft's REST samples do."""
    endpoint = f"{WORKSPACE}/onlineEndpoints/by-rest"
    put = managed.manage("PUT", f"{endpoint}?{API}", {"location": "x", "properties": {"authMode": "AMLToken"}})
    assert put.status_code == 201, put.text
    assert succeeded(managed, put) and put.headers["azure-asyncoperation"]
    properties = {
        "endpointComputeType": "Managed",
        "instanceType": "Standard_DS3_v2",
        "properties": {"upstream": model_url},
    }
    deployment = {"location": "x", "sku": {"capacity": 1, "name": "default"}, "properties": properties}
    assert succeeded(managed, managed.manage("PUT", f"{endpoint}/deployments/blue?{API}", deployment))
    # Names of collections and actions have no case.
    endpoint = endpoint.replace("resourceGroups", "resourcegroups").replace("onlineEndpoints", "OnlineEndpoints")
    patch = {"tags": {"by": "rest"}, "properties": {"traffic": {"blue": 100}}}
    etag = managed.manage("GET", endpoint).headers["etag"]
    assert managed.manage("PATCH", endpoint, patch, headers={"If-Match": etag}).status_code == 200
    stale = managed.manage("PATCH", endpoint, {"tags": {"by": None}}, headers={"If-Match": etag})
    assert stale.status_code == 412, stale.text
    got = managed.manage("GET", endpoint).json()
    assert got["tags"] == {"by": "rest"} and got["properties"]["traffic"] == {"blue": 100}
    token = managed.manage("POST", f"{endpoint}/TOKEN").json()
    assert managed.score(got["properties"]["scoringUri"], token["accessToken"], SETOSA).status_code == 200
    assert managed.manage("DELETE", endpoint).status_code == 200
    assert managed.manage("DELETE", endpoint).status_code == 204
    gone = managed.manage("GET", endpoint)
    assert gone.status_code == 404 and gone.json()["error"]["code"] == "ResourceNotFound"
    assert "retry-after" not in gone.headers


def succeeded(gateway, put):
    uri = put.json()["properties"]["properties"]["AzureAsyncOperationUri"]
    operation = gateway.manage("GET", uri)
    assert operation.status_code == 200, operation.text
    return operation.json()["status"] == "Succeeded"


def test_a_list_goes_on_at_its_next_link(managed, iris):
    for name in ("page-a", "page-b", "page-c"):
        body = {"tags": {"page": name}, "properties": {"authMode": "Key"}}
        assert managed.manage("PUT", f"{WORKSPACE}/onlineEndpoints/{name}", body).status_code == 201
    for query in ("tags=page&count=2", "tags=page&count=2&orderBy=CreatedAtAsc"):
        names, link, pages = [], f"{WORKSPACE}/onlineEndpoints?{query}", 0
        while link:
            page = managed.manage("GET", link).json()
            names += [endpoint["name"] for endpoint in page["value"]]
            pages += 1
            # Left out at the end, not null.
            link = page["nextLink"] if "nextLink" in page else None
        assert names == ["page-a", "page-b", "page-c"] and pages == 2
    one = managed.manage("GET", f"{WORKSPACE}/onlineEndpoints?tags=page%3Dpage-b").json()
    assert [endpoint["name"] for endpoint in one["value"]] == ["page-b"]


def test_what_is_deleted_is_gone_for_everybody(owner, managed, model_url):
    owner.create_endpoint(name="mayfly", auth_mode="key")
    owner.create_deployment(name="blue", endpoint="mayfly", upstream=model_url)
    endpoint = owner.update_endpoint(name="mayfly", traffic={"blue": 100})
    key = owner.keys(name="mayfly")["primary"]
    assert managed.score(endpoint["scoring_uri"], key, SETOSA).status_code == 200
    owner.update_endpoint(name="mayfly", traffic={})
    owner.delete_deployment(name="blue", endpoint="mayfly")
    assert owner.list_deployments(endpoint="mayfly") == []
    owner.delete_endpoint(name="mayfly")
    assert refused(owner.get_endpoint, name="mayfly").type == "ResourceNotFoundError"
    assert managed.score(endpoint["scoring_uri"], key, SETOSA).status_code in (401, 404)
