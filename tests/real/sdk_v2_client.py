"""Azure ML SDK v2 as its users have it, in a process and a virtual environment of its own.

    python sdk_v2_client.py BASE_URL TOKEN

Reads one JSON object a line, {"do": FUNCTION, ..arguments}, and writes one a line: {"done": ..} or {"failed": {"type",
"status", "message"}}. The functions are those below; each does what a user's script would, with public names only.
"""

import inspect
import json
import os
import sys
import time
from datetime import timedelta

from azure.ai.ml import MLClient
from azure.ai.ml.entities import (
    KubernetesOnlineEndpoint,
    ManagedOnlineDeployment,
    ManagedOnlineEndpoint,
    OnlineRequestSettings,
)
from azure.core.credentials import AccessToken
from azure.monitor.query import MetricsQueryClient


class Credential:
    """A management token, which the gateway takes as it is."""

    def __init__(self, token):
        self.token = token

    def get_token(self, *scopes, **options):
        return AccessToken(self.token, int(time.time()) + 3600)


def connect(base, token):
    """A client of the cloud that the gateway is."""
    metadata = {
        "resource_manager": base,
        "azure_portal": base,
        "active_directory": base,
        "aml_resource_id": base,
        "storage_endpoint": "storage.test",
        "registry_discovery_endpoint": base,
    }
    return MLClient(
        Credential(token), "sub", "rg", "ws", cloud="GatewayCloud", cloud_metadata=metadata, enable_telemetry=False
    )


class Functions:
    """What can be asked for."""

    def __init__(self, client, monitor):
        self._client = client
        self._monitor = monitor
        self._endpoints = client.online_endpoints
        self._deployments = client.online_deployments

    def workspace(self):
        workspace = self._client.workspaces.get("ws")
        return {"name": workspace.name, "location": workspace.location}

    def create_endpoint(self, name, auth_mode, compute=None, **fields):
        if compute:
            endpoint = KubernetesOnlineEndpoint(name=name, auth_mode=auth_mode, compute=compute, **fields)
        else:
            endpoint = ManagedOnlineEndpoint(name=name, auth_mode=auth_mode, **fields)
        return tell_endpoint(self._endpoints.begin_create_or_update(endpoint).result())

    def update_endpoint(self, name, **fields):
        """As the documentation does it: read, change, write."""
        endpoint = self._endpoints.get(name)
        for field, value in fields.items():
            setattr(endpoint, field, value)
        return tell_endpoint(self._endpoints.begin_create_or_update(endpoint).result())

    def get_endpoint(self, name):
        return tell_endpoint(self._endpoints.get(name))

    def list_endpoints(self):
        return [endpoint.name for endpoint in self._endpoints.list()]

    def delete_endpoint(self, name):
        return self._endpoints.begin_delete(name).result()

    def keys(self, name):
        keys = self._endpoints.get_keys(name)
        return {"primary": keys.primary_key, "secondary": keys.secondary_key}

    def regenerate(self, name, key_type):
        return self._endpoints.begin_regenerate_keys(name, key_type=key_type).result()

    def token(self, name):
        token = self._endpoints.get_keys(name)
        return {"token": token.access_token, "expiry": token.expiry_time_utc, "refresh": token.refresh_after_time_utc}

    def invoke(self, name, request_file, **options):
        return self._endpoints.invoke(name, request_file=request_file, **options)

    def metrics(self, endpoint, names, **options):
        """Of the last hour as one point: per metric and combination of labels what is known."""
        workspace = "/subscriptions/sub/resourceGroups/rg/providers/Microsoft.MachineLearningServices/workspaces/ws"
        hour = timedelta(hours=1)
        uri = f"{workspace}/onlineEndpoints/{endpoint}"
        answer = self._monitor.query_resource(uri, names, timespan=hour, granularity=hour, **options)
        return {
            metric.name: [[series.metadata_values, tell_point(series.data[0])] for series in metric.timeseries]
            for metric in answer.metrics
        }

    def create_deployment(self, name, endpoint, upstream, request_settings=None, **fields):
        deployment = ManagedOnlineDeployment(
            name=name,
            endpoint_name=endpoint,
            model="azureml:m:1",
            environment="azureml:e:1",
            instance_type="Standard_DS3_v2",
            instance_count=1,
            properties={"upstream": upstream},
            request_settings=OnlineRequestSettings(**request_settings) if request_settings else None,
            **fields,
        )
        made = self._deployments.begin_create_or_update(deployment, skip_script_validation=True).result()
        return tell_deployment(made)

    def get_deployment(self, name, endpoint):
        return tell_deployment(self._deployments.get(name, endpoint))

    def list_deployments(self, endpoint):
        return [deployment.name for deployment in self._deployments.list(endpoint)]

    def logs(self, name, endpoint):
        return self._deployments.get_logs(name, endpoint, lines=100)

    def delete_deployment(self, name, endpoint):
        return self._deployments.begin_delete(name, endpoint).result()


def tell_point(point):
    known = {name: getattr(point, name) for name in ("average", "minimum", "maximum", "total", "count")}
    return {name: value for name, value in known.items() if value is not None}


def tell_endpoint(endpoint):
    return {
        "kind": type(endpoint).__name__,
        "name": endpoint.name,
        "auth_mode": endpoint.auth_mode,
        "description": endpoint.description,
        "tags": endpoint.tags,
        "properties": endpoint.properties,
        "traffic": endpoint.traffic,
        "mirror_traffic": endpoint.mirror_traffic,
        "location": endpoint.location,
        "scoring_uri": endpoint.scoring_uri,
        "openapi_uri": endpoint.openapi_uri,
        "provisioning_state": endpoint.provisioning_state,
    }


def tell_deployment(deployment):
    settings = deployment.request_settings
    return {
        "kind": type(deployment).__name__,
        "name": deployment.name,
        "endpoint": deployment.endpoint_name,
        "tags": deployment.tags,
        "properties": deployment.properties,
        "model": deployment.model,
        "environment": deployment.environment,
        "instance_count": deployment.instance_count,
        "instance_type": deployment.instance_type,
        "provisioning_state": deployment.provisioning_state,
        "request_settings": {
            "request_timeout_ms": settings.request_timeout_ms,
            "max_queue_wait_ms": settings.max_queue_wait_ms,
            "max_concurrent_requests_per_instance": settings.max_concurrent_requests_per_instance,
        },
    }


def do(functions, order):
    known = dict(inspect.getmembers(functions, inspect.ismethod))
    try:
        return {"done": known[order.pop("do")](**order)}
    except Exception as error:
        status = getattr(error, "status_code", None)
        return {"failed": {"type": type(error).__name__, "status": status, "message": str(error)}}


def main():
    # The SDK prints dots while it waits; what is told goes past it.
    answers = os.fdopen(os.dup(1), "w")
    sys.stdout = sys.stderr
    base, token = sys.argv[1:]
    functions = Functions(connect(base, token), MetricsQueryClient(Credential(token), endpoint=base))
    for line in sys.stdin:
        print(json.dumps(do(functions, json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
