"""What a user of Azure ML SDK v1 does, and what is seen of it. Runs in the SDK's own environment, as a program:

    python sdk_v1.py SCENARIO < given.json > seen.json

`given` holds the gateway's management address, the tokens of several roles and the address of a model server. Judging
what was seen is the caller's part: nothing here decides a test.
"""

import contextlib
import json
import sys
import warnings
from types import SimpleNamespace

import requests

warnings.simplefilter("ignore")

from azureml.core import Workspace  # noqa: E402
from azureml.core.authentication import ArmTokenAuthentication  # noqa: E402
from azureml.core.compute import AksCompute  # noqa: E402
from azureml.core.model import Model  # noqa: E402
from azureml.core.webservice import AciWebservice, AksEndpoint, AksWebservice, Webservice  # noqa: E402

FLOWER = '{"data": [[5.1, 3.5, 1.4, 0.2]]}'
# Deploying a model that the SDK knows how to serve needs its id and framework, and uploads nothing.
MODEL = SimpleNamespace(id="iris:1", model_framework="Onnx")


def workspace(token):
    auth = ArmTokenAuthentication(token, cloud="AzureCloud")
    return Workspace("sub", "rg", "ws", auth=auth, _disable_service_check=True, _workspace_id="x")


def deploy(ws, name, config, **options):
    service = Model.deploy(ws, name, [MODEL], deployment_config=config, **options)
    service.wait_for_deployment(show_output=True)
    return service


def refusal(call):
    """How `call` was refused; None if it was not."""
    try:
        call()
    except Exception as error:  # What it is, is what the test wants to know.
        return f"{type(error).__name__}: {error}"
    return None


def status_of(service, credential=None, data=FLOWER):
    """The status of one scoring call, made without the SDK."""
    headers = {"Content-Type": "application/json"}
    if credential:
        headers["Authorization"] = f"Bearer {credential}"
    return requests.post(service.scoring_uri, data=data, headers=headers, timeout=30).status_code


def species(service):
    return service.run(FLOWER)["species"]


def aks(ws, given):
    """A service with keys of the user's own: used, replaced, changed over to tokens, changed, deleted."""
    seen = {}
    config = AksWebservice.deploy_configuration(
        compute_target_name="k", primary_key="P" * 32, secondary_key="S" * 32, tags={"team": "flowers"},
        properties={"upstream": given["upstream"]}, description="irises", replica_max_concurrent_requests=4,
        max_request_wait_time=700, scoring_timeout_ms=90_000, autoscale_enabled=True, autoscale_min_replicas=2,
        cpu_cores=1, namespace="models",
    )  # fmt: skip
    service = deploy(ws, "svc-aks", config)
    seen["deployed"] = {
        "class": type(service).__name__, "state": service.state, "tags": service.tags, "uri": service.scoring_uri,
        "swagger_uri": service.swagger_uri, "description": service.description, "namespace": service.namespace,
        "concurrent": service.max_concurrent_requests_per_container, "queue": service.max_request_wait_time,
        "timeout": service.scoring_timeout_ms, "autoscaler": service.autoscaler.serialize(),
        "cpu": service.container_resource_requirements.cpu, "auth": [service.auth_enabled, service.token_auth_enabled],
        "compute": service.compute_name,
    }  # fmt: skip
    seen["keys"] = service.get_keys()
    seen["run"] = species(service)
    seen["without a key"] = status_of(service)

    service.regen_key("Primary")
    primary, secondary = service.get_keys()
    seen["after regen"] = {
        "changed": primary != "P" * 32, "old": status_of(service, "P" * 32), "new": status_of(service, primary),
        "secondary": [secondary, status_of(service, secondary)],
    }  # fmt: skip
    service.regen_key("Secondary", set_key="T" * 32)
    seen["after set"] = {
        "keys": service.get_keys()[1], "old": status_of(service, "S" * 32), "new": status_of(service, "T" * 32),
        "primary": status_of(service, primary),
    }  # fmt: skip
    service.update(auth_enabled=False, token_auth_enabled=True)
    seen["modes after the switch"] = [service.auth_enabled, service.token_auth_enabled]
    seen["key after the switch"] = status_of(service, primary)
    token = service.get_access_token()
    seen["token opens"] = status_of(service, token.access_token)
    seen["run by token"] = species(service)

    service.update(
        description="tulips", tags={"team": "other"}, properties={"more": "yes"}, scoring_timeout_ms=1_000,
        replica_max_concurrent_requests=2, autoscale_enabled=True, autoscale_max_replicas=5, cpu_cores=2,
    )  # fmt: skip
    service.wait_for_deployment()
    again = Webservice(ws, "svc-aks")
    seen["updated"] = {
        "description": again.description, "tags": again.tags, "timeout": again.scoring_timeout_ms,
        "concurrent": again.max_concurrent_requests_per_container,
        "autoscaler": again.autoscaler.serialize(), "cpu": again.container_resource_requirements.cpu,
        "kept": [again.properties["upstream"] == given["upstream"], again.properties["more"], again.namespace],
        "modes": [again.auth_enabled, again.token_auth_enabled],
    }  # fmt: skip
    seen["too long"] = refusal(lambda: service.update(scoring_timeout_ms=300_001))
    seen["logs"] = service.get_logs()
    service.delete()
    seen["deleted"] = refusal(lambda: Webservice(ws, "svc-aks"))
    seen["deleted again"] = refusal(service.delete)
    seen["called after delete"] = status_of(again, token.access_token)
    return seen


def aci(ws, given):
    """An open service, then one with keys; and what this compute type does not have."""
    seen = {}
    properties = {"upstream": given["upstream"]}
    service = deploy(ws, "svc-aci", AciWebservice.deploy_configuration(properties=properties, location="westus"))
    seen["deployed"] = {
        "class": type(service).__name__, "state": service.state, "auth": service.auth_enabled,
        "location": service.location, "cpu": service.container_resource_requirements.cpu, "ssl": service.ssl_enabled,
    }  # fmt: skip
    seen["open"] = [species(service), status_of(service)]
    service.update(auth_enabled=True, tags={"a": "b"})
    seen["with keys"] = [service.auth_enabled, service.tags, species(service), status_of(service)]
    seen["token"] = refusal(service.get_token)
    seen["taken"] = refusal(lambda: deploy(ws, "svc-aci", AciWebservice.deploy_configuration()))
    anew = AciWebservice.deploy_configuration(properties=properties, description="anew")
    service = deploy(ws, "svc-aci", anew, overwrite=True)
    seen["overwritten"] = [service.description, service.auth_enabled, species(service)]
    url, headers = raw(given, "svc-aci")
    patch = [{"op": "replace", "path": "/aadAuthEnabled", "value": True}]
    answer = requests.patch(url, json=patch, headers=headers, timeout=30)
    seen["token mode"] = [answer.status_code, answer.json()]
    service.delete()
    seen["deleted"] = refusal(lambda: AciWebservice(ws, "svc-aci"))
    return seen


def endpoint(ws, given):
    """Versions behind one address: made, added, given their share, removed."""
    seen = {}
    properties = {"upstream": given["upstream"]}
    config = AksEndpoint.deploy_configuration(
        compute_target_name="k", version_name="first", traffic_percentile=40, properties=properties
    )
    service = deploy(ws, "svc-ab", config, deployment_target=AksCompute(ws, "k"))
    seen["deployed"] = [type(service).__name__, service.state, shares(service)]
    seen["run"] = species(service)
    service.create_version("second", models=[MODEL], traffic_percentile=20, properties=properties, tags={"v": "2"})
    service.wait_for_deployment()
    seen["second"] = shares(service)
    seen["concurrent"] = service.versions["second"].max_concurrent_requests_per_container
    service.update_version("second", traffic_percentile=30, description="better", tags={"v": "3"})
    second = service.versions["second"]
    seen["updated"] = [shares(service), second.description, second.tags]
    service.update_version("second", is_default=True, is_control_version_type=True)
    seen["default"] = [shares(service), [v.is_default for v in ordered(service)], [v.version_type for v in ordered(service)]]
    seen["run by both"] = species(service)
    seen["deployments"] = deployments(service, 40)
    seen["too much"] = refusal(lambda: service.create_version("third", models=[MODEL], traffic_percentile=50))
    service.delete_version("first")
    seen["first gone"] = shares(service)
    seen["last run"] = species(service)
    service.delete()
    seen["deleted"] = refusal(lambda: AksEndpoint(ws, "svc-ab"))
    return seen


def ordered(service):
    return [service.versions[name] for name in sorted(service.versions)]


def shares(service):
    return {name: version.traffic_percentile for name, version in service.versions.items()}


def deployments(service, calls):
    """Which deployments answered `calls` calls."""
    key = service.get_keys()[0]
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    with requests.Session() as session:
        answers = [session.post(service.scoring_uri, data=FLOWER, headers=headers, timeout=30) for _ in range(calls)]
    return sorted({answer.headers["azureml-model-deployment"] for answer in answers})


def token(ws, given):
    """Scoring by token; run in several time zones, which the SDK's own arithmetic depends on."""
    name = f"svc-{given['suffix']}"
    config = AksWebservice.deploy_configuration(
        compute_target_name="k", token_auth_enabled=True, auth_enabled=False, properties={"upstream": given["upstream"]}
    )
    service = deploy(ws, name, config)
    seen = {"runs": [species(service) for _ in range(2)]}
    token = service.get_access_token()
    seen["token"] = {
        "type": token.token_type, "refresh after": token.refresh_after.timestamp(), "expiry": token.expiry_on.timestamp()
    }  # fmt: skip
    seen["keys do not open"] = status_of(service, service.get_keys()[0])
    service.delete()
    return seen


def listing(ws, given):
    """Lists: by type, tags and properties, over several pages."""
    seen = {}
    upstream = {"upstream": given["upstream"]}
    aks_config = AksWebservice.deploy_configuration
    deploy(ws, "lst-one", aks_config(compute_target_name="k", tags={"list": "1", "x": "y"}, properties=upstream))
    deploy(ws, "lst-two", aks_config(compute_target_name="k", tags={"list": "1"}, properties={**upstream, "p": "q"}))
    deploy(ws, "lst-aci", AciWebservice.deploy_configuration(tags={"list": "1"}, properties=upstream))
    listed = lambda **filters: sorted(it.name for it in Webservice.list(ws, **filters))  # noqa: E731
    seen["by tag"] = listed(tags=["list"])
    seen["by type"] = [listed(compute_type=kind, tags=["list"]) for kind in ("AKS", "ACI", "AKSENDPOINT", "IOT")]
    seen["by value"] = [listed(tags=[["x", "y"]]), listed(tags=[["x", "z"]]), listed(tags=["list", "x"])]
    seen["by property"] = [listed(properties=[["p", "q"]]), listed(properties=["absent"])]
    seen["by model"] = [listed(model_name="iris", tags=["list"]), listed(model_id="iris:2")]
    seen["all"] = listed()
    url, headers = raw(given)
    payload = {"computeType": "ACI", "kvTags": {"bulk": ""}, "properties": upstream}
    with requests.Session() as session:
        session.headers.update(headers)
        for number in range(given["bulk"]):
            session.post(url, json={**payload, "name": f"blk-{number}"}, timeout=30).raise_for_status()
        pages, link = [], f"{url}?expand=true&tags=bulk&count=40"
        while link:
            page = session.get(link, timeout=30).json()
            pages.append(len(page["value"]))
            link = page.get("nextLink")
        seen["pages"] = pages
        seen["last page has a link"] = "nextLink" in page
        # The SDK's own list is longer than a page of the usual size.
        seen["bulk"] = len(listed(tags=["bulk"]))
        for number in range(given["bulk"]):
            session.delete(f"{url}/blk-{number}", timeout=30).raise_for_status()
    for name in ("lst-one", "lst-two", "lst-aci"):
        Webservice(ws, name).delete()
    seen["left"] = listed(tags=["list"])
    return seen


def roles(ws, given):
    """What a Reader and a Contributor may do with a service of the Owner's."""
    seen = {}
    config = AksWebservice.deploy_configuration(compute_target_name="k", properties={"upstream": given["upstream"]})
    deploy(ws, "svc-role", config)
    reader, contributor, stranger = (workspace(given[role]) for role in ("reader", "contributor", "stranger"))
    by_reader = AksWebservice(reader, "svc-role")
    seen["reader"] = {
        "reads": [by_reader.state, "svc-role" in [it.name for it in Webservice.list(reader)], bool(by_reader.get_logs())],
        "keys": refusal(by_reader.get_keys),
        "regenerate": refusal(lambda: by_reader.regen_key("Primary")),
        "update": refusal(lambda: by_reader.update(description="x")),
        "delete": refusal(by_reader.delete),
        "create": refusal(lambda: deploy(reader, "svc-reader", config)),
    }  # fmt: skip
    by_contributor = AksWebservice(contributor, "svc-role")
    by_contributor.update(auth_enabled=False, token_auth_enabled=True)
    by_reader.update_deployment_state()
    token = by_reader.get_access_token()
    seen["reader's token"] = [status_of(by_reader, token.access_token), species(by_reader)]
    seen["stranger"] = refusal(lambda: AksWebservice(stranger, "svc-role"))
    seen["nobody"] = refusal(lambda: AksWebservice(workspace("not-a-token"), "svc-role"))
    seen["contributor"] = [by_contributor.token_auth_enabled, len(by_contributor.get_keys())]
    by_contributor.delete()
    seen["deleted"] = refusal(lambda: Webservice(ws, "svc-role"))
    return seen


def odd(ws, given):
    """Wrong names, wrong modes, wrong members; and what is told about each."""
    seen = {"missing": refusal(lambda: Webservice(ws, "missing"))}
    aks_config = AksWebservice.deploy_configuration
    both = aks_config(compute_target_name="k", auth_enabled=True, token_auth_enabled=False)
    # The SDK refuses both modes by itself; this gets past it.
    both.token_auth_enabled = True
    both.validate_configuration = lambda: None
    seen["both modes"] = refusal(lambda: deploy(ws, "svc-odd", both))
    slow = aks_config(compute_target_name="k", scoring_timeout_ms=300_001)
    seen["too slow"] = refusal(lambda: deploy(ws, "svc-odd", slow))
    seen["not made"] = refusal(lambda: Webservice(ws, "svc-odd"))
    cluster = AksCompute(ws, "cluster")
    # Where the model is has to be said, or the gateway's configuration has to have a template for it.
    seen["no upstream"] = refusal(lambda: Model.deploy(ws, "svc-odd", [MODEL], deployment_target=cluster))
    service = deploy(ws, "svc-odd", aks_config(properties={"upstream": given["upstream"]}), deployment_target=cluster)
    seen["by cluster"] = [type(service).__name__, service.compute_name, service.auth_enabled]
    url, headers = raw(given, "svc-odd")
    with requests.Session() as session:
        session.headers.update(headers)
        patch = [
            {"op": "replace", "path": "/description", "value": "half"},
            {"op": "replace", "path": "/nonsense", "value": 1},
        ]
        answer = session.patch(url, json=patch, timeout=30)
        seen["half a patch"] = [answer.status_code, answer.json(), session.get(url, timeout=30).json()["description"]]
        answer = session.post(f"{url}/token", timeout=30)
        seen["token of a key service"] = [answer.status_code, answer.json()]
        answer = session.patch(url, json=[{"op": "replace", "path": "/aadAuthEnabled", "value": True}], timeout=30)
        seen["both modes by patch"] = [answer.status_code, answer.json()["message"]]
        other_case = url.replace("/resourceGroups/", "/RESOURCEGROUPS/").replace("/services/", "/Services/")
        seen["letter case"] = session.post(f"{other_case}/listKeys?api-version=9", timeout=30).status_code
        answer = session.post(f"{url}/regenerateKeys", json={"keyType": 2}, timeout=30)
        seen["third key"] = [answer.status_code, answer.json()["message"]]
        answer = session.post(f"{url}/regenerateKeys", json={"keyType": 1, "keyValue": "U" * 32}, timeout=30)
        operation = answer.headers["Operation-Location"]
        seen["key by number"] = [answer.status_code, service.get_keys()[1], session.get(operation, timeout=30).json()]
        answer = session.post(f"{url.rsplit('/', 1)[0]}/migrate", json={"serviceName": "svc-odd"}, timeout=30)
        seen["migrate"] = [answer.status_code, answer.json()["message"]]
        answer = session.post(f"{url.rsplit('/', 1)[0]}/list", json={"computeType": "AKS"}, timeout=30)
        seen["list by filter"] = "svc-odd" in [it["name"] for it in answer.json()["value"]]
        answer = session.get(f"{url}/nonsense", timeout=30)
        seen["no such call"] = [answer.status_code, answer.json()["code"], "Retry-After" in answer.headers]
    answer = requests.get(url, timeout=30)
    seen["no token"] = [answer.status_code, answer.json()["code"]]
    service.delete()
    return seen


def raw(given, name=None):
    """URL and headers of calls that the SDK has no method for."""
    base = (
        f"{given['management']}/modelmanagement/v1.0/subscriptions/sub/resourceGroups/rg/providers"
        "/Microsoft.MachineLearningServices/workspaces/ws/services"
    )
    headers = {"Authorization": f"Bearer {given['owner']}"}
    return (f"{base}/{name}" if name else base), headers


def main():
    scenario = {it.__name__: it for it in (aks, aci, endpoint, token, listing, roles, odd)}[sys.argv[1]]
    given = json.load(sys.stdin)
    # The SDK prints its progress.
    with contextlib.redirect_stdout(sys.stderr):
        seen = scenario(workspace(given["owner"]), given)
    json.dump(seen, sys.stdout)


if __name__ == "__main__":
    main()
