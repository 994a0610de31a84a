"""Azure ML SDK v1, unmodified, against the gateway: its web services are made, secured, called, changed and deleted.

The SDK has an environment of its own and is a program beside this one (sdk_v1.py): it does what a user does and tells what
it saw, here that is judged. Its scenarios do not touch each other's services and run at the same time: the SDK sleeps five
seconds for every key that it replaces.
"""

import concurrent.futures
import json
import os
import subprocess
import time

import pytest

from conftest import HERE
from managed import ManagedGateway

SDK_PYTHON = HERE / ".venv-sdk-v1/bin/python"
SCENARIOS = ("aks", "aci", "endpoint", "listing", "roles", "odd")
ZONES = {"utc": "UTC", "west": "America/Los_Angeles", "east": "Asia/Tokyo"}
TIMEOUT_SECONDS = 300
# The machine has two cores; most of the time of a scenario the SDK sleeps.
AT_ONCE = 4
BULK = 103
SETOSA = ["setosa"]


@pytest.fixture(scope="module")
def managed(tmp_path_factory, certs):
    gateway = ManagedGateway(tmp_path_factory.mktemp("managed"), certs)
    try:
        gateway.start()
        yield gateway
    finally:
        gateway.kill()


@pytest.fixture(scope="module")
def seen(tmp_path_factory, managed, certs, model_url):
    """What every scenario saw, by its name."""
    given = {
        "management": managed.management, "upstream": model_url, "bulk": BULK, "owner": managed.owner,
        "reader": managed.token_of("reader", "Reader"), "stranger": managed.token_of("stranger"),
        "contributor": managed.token_of("contributor", "Contributor"),
    }  # fmt: skip

    def run(name, scenario, zone="UTC"):
        home = tmp_path_factory.mktemp(f"home-{name}")
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(home), "TZ": zone, "NO_PROXY": "*",
            "REQUESTS_CA_BUNDLE": str(certs / "ca.pem"),
            "AZUREML_DISCOVERY_SERVICE_ENDPOINT": f"{managed.management}/discovery",
        }  # fmt: skip
        done = subprocess.run(
            [SDK_PYTHON, HERE / "sdk_v1.py", scenario], input=json.dumps({**given, "suffix": name}), cwd=home,
            env=environment, capture_output=True, text=True, timeout=TIMEOUT_SECONDS,
        )  # fmt: skip
        assert done.returncode == 0, f"{name}: {done.stderr[-4000:]}"
        return json.loads(done.stdout)

    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        futures = {name: pool.submit(run, name, name) for name in SCENARIOS}
        futures |= {name: pool.submit(run, name, "token", zone) for name, zone in ZONES.items()}
        concurrent.futures.wait(futures.values())
    return futures


@pytest.fixture
def of(seen):
    """What one scenario saw; fails the test if the scenario failed."""
    return lambda name: seen[name].result()


def test_a_service_is_deployed_as_it_was_described(of, managed):
    assert of("aks")["deployed"] == {
        "class": "AksWebservice", "state": "Healthy", "tags": {"team": "flowers"}, "description": "irises",
        "uri": f"https://127.0.0.1:{managed.port}/api/v1/service/svc-aks/score",
        "swagger_uri": f"https://127.0.0.1:{managed.port}/api/v1/service/svc-aks/swagger.json",
        "namespace": "models", "concurrent": 4, "queue": 700, "timeout": 90_000, "cpu": 1, "auth": [True, False],
        "autoscaler": {"autoscaleEnabled": True, "minReplicas": 2, "maxReplicas": 10, "refreshPeriodInSeconds": 1,
                       "targetUtilization": 70},
        "compute": "k",
    }  # fmt: skip
    assert of("aks")["run"] == SETOSA
    assert of("aks")["without a key"] == 401


def test_a_key_is_replaced_and_the_other_one_stays_good(of):
    aks = of("aks")
    assert aks["keys"] == ["P" * 32, "S" * 32]
    assert aks["after regen"] == {"changed": True, "old": 401, "new": 200, "secondary": ["S" * 32, 200]}
    assert aks["after set"] == {"keys": "T" * 32, "old": 401, "new": 200, "primary": 200}


def test_a_switch_from_key_to_token_is_one_change(of):
    aks = of("aks")
    assert aks["modes after the switch"] == [False, True]
    assert aks["key after the switch"] == 401
    assert aks["token opens"] == 200
    assert aks["run by token"] == SETOSA


def test_an_update_changes_what_it_names_and_keeps_the_rest(of):
    aks = of("aks")
    assert aks["updated"] == {
        "description": "tulips", "tags": {"team": "other"}, "timeout": 1_000, "concurrent": 2, "cpu": 2,
        "autoscaler": {"autoscaleEnabled": True, "minReplicas": 2, "maxReplicas": 5, "refreshPeriodInSeconds": 1,
                       "targetUtilization": 70},
        "kept": [True, "yes", "models"], "modes": [False, True],
    }  # fmt: skip
    assert "scoringTimeoutMs" in aks["too long"]


def test_logs_say_where_the_logs_are(of):
    assert "container logs" in of("aks")["logs"] and "svc-aks" in of("aks")["logs"]


def test_what_is_deleted_is_gone(of):
    aks = of("aks")
    assert "WebserviceNotFound" in aks["deleted"]
    assert aks["deleted again"] is None
    assert aks["called after delete"] == 404
    for name in ("aci", "endpoint", "roles"):
        assert "WebserviceNotFound" in of(name)["deleted"]


def test_an_aci_service_is_open_until_keys_are_switched_on(of):
    aci = of("aci")
    assert aci["deployed"] == {
        "class": "AciWebservice", "state": "Healthy", "auth": False, "location": "westus", "cpu": 0.1, "ssl": False
    }  # fmt: skip
    assert aci["open"] == [SETOSA, 200]
    assert aci["with keys"] == [True, {"a": "b"}, SETOSA, 401]


def test_an_aci_service_has_no_tokens(of):
    aci = of("aci")
    assert aci["token"].startswith("NotImplementedError")
    status, body = aci["token mode"]
    assert status == 400 and "not available on ACI" in body["error"]["message"]


def test_a_name_that_is_taken_is_taken_over_only_on_request(of):
    aci = of("aci")
    assert "exists already" in aci["taken"]
    assert aci["overwritten"] == ["anew", False, SETOSA]


def test_versions_of_an_endpoint_share_its_traffic(of):
    endpoint = of("endpoint")
    assert endpoint["deployed"] == ["AksEndpoint", "Healthy", {"first": 100.0}]
    assert endpoint["run"] == SETOSA
    assert endpoint["second"] == {"first": 80.0, "second": 20.0}
    assert endpoint["concurrent"] == 1
    assert endpoint["updated"] == [{"first": 70.0, "second": 30.0}, "better", {"v": "3"}]
    assert endpoint["default"] == [{"first": 70.0, "second": 30.0}, [False, True], ["Treatment", "Control"]]
    assert endpoint["run by both"] == SETOSA
    assert endpoint["deployments"] == ["first", "second"]
    assert "over 100" in endpoint["too much"]
    assert endpoint["first gone"] == {"second": 100.0}
    assert endpoint["last run"] == SETOSA


@pytest.mark.parametrize("name", ZONES)
def test_tokens_open_in_every_time_zone(of, name):
    token = of(name)
    assert token["runs"] == [SETOSA, SETOSA]
    assert token["keys do not open"] == 401


def test_a_token_says_when_to_get_the_next_one(of):
    token = of("utc")["token"]
    assert token["type"] == "Bearer"
    assert time.time() - TIMEOUT_SECONDS < token["refresh after"] < token["expiry"]
    assert token["expiry"] > time.time()
    # What the SDK makes of these times depends on the zone; what it was sent does not.
    assert abs(of("west")["token"]["expiry"] - token["expiry"]) < TIMEOUT_SECONDS


def test_lists_are_filtered_and_paged(of):
    listing = of("listing")
    assert listing["by tag"] == ["lst-aci", "lst-one", "lst-two"]
    assert listing["by type"] == [["lst-one", "lst-two"], ["lst-aci"], [], []]
    assert listing["by value"] == [["lst-one"], [], ["lst-one"]]
    assert listing["by property"] == [["lst-two"], []]
    assert listing["by model"] == [["lst-aci", "lst-one", "lst-two"], []]
    assert {"lst-aci", "lst-one", "lst-two"} <= set(listing["all"])
    assert sum(listing["pages"]) == BULK and len(listing["pages"]) >= 3
    assert not listing["last page has a link"]
    assert listing["bulk"] == BULK
    assert listing["left"] == []


@pytest.mark.parametrize("what", ["keys", "regenerate", "update", "delete", "create"])
def test_a_reader_is_refused(of, what):
    assert "Response Code: 403" in of("roles")["reader"][what]


def test_a_reader_reads_and_gets_a_token(of):
    roles = of("roles")
    assert roles["reader"]["reads"] == ["Healthy", True, True]
    assert roles["reader's token"] == [200, SETOSA]


def test_who_has_no_role_sees_nothing(of):
    roles = of("roles")
    assert "Response Code: 403" in roles["stranger"]
    assert "Response Code: 401" in roles["nobody"]
    assert roles["contributor"] == [True, 2]


def test_what_is_wrong_is_refused_by_its_name_and_changes_nothing(of):
    odd = of("odd")
    assert "WebserviceNotFound" in odd["missing"] and "WebserviceNotFound" in odd["not made"]
    assert "cannot both be on" in odd["both modes"]
    assert odd["both modes by patch"][0] == 400 and "cannot both be on" in odd["both modes by patch"][1]
    assert "scoringTimeoutMs" in odd["too slow"] and "300000" in odd["too slow"]
    status, body, description = odd["half a patch"]
    assert (status, description) == (400, None)
    assert body["error"]["message"].startswith("/nonsense") and body["code"] == "BadRequest"
    assert "Response Code: 400" in odd["no upstream"] and "replica_template" in odd["no upstream"]
    assert odd["third key"][0] == 400 and "keyType" in odd["third key"][1]
    status, body = odd["token of a key service"]
    assert status in (400, 409) and body["error"]["message"]
    assert odd["no such call"] == [404, "ResourceNotFound", False]
    assert odd["no token"] == [401, "AuthMissing"]
    assert odd["migrate"][0] == 400 and "SDK v2" in odd["migrate"][1]


def test_other_clients_of_this_api_are_served_too(of):
    odd = of("odd")
    assert odd["by cluster"] == ["AksWebservice", "cluster", True]
    assert odd["letter case"] == 200
    assert odd["list by filter"]
    status, secondary, operation = odd["key by number"]
    assert (status, secondary, operation["state"]) == (202, "U" * 32, "Succeeded")


def test_no_credential_is_in_any_log_or_record(of, managed):
    of("aks"), of("roles")
    written = managed.log + "".join(path.read_text() for path in managed.record_files())
    for credential in (managed.owner, "P" * 32, "S" * 32, "T" * 32, "U" * 32):
        assert credential not in written
