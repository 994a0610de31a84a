"""A gateway with a management plane: nothing is declared, all services come through its API."""

import os
import uuid

import requests

from gateway import Gateway

CONFIG = """\
version: scoregate/v1
workspace: {{ subscription: sub, resource_group: rg, name: ws, location: westeurope }}
listeners:
  - name: public
    address: 127.0.0.1:0
    tls: {{ certificates: [ {{ cert: "{certs}/server.pem", key: "{certs}/server.key" }} ] }}
management:
  address: 127.0.0.1:0
  tls: {{ certificates: [ {{ cert: "{certs}/server.pem", key: "{certs}/server.key" }} ] }}
  bootstrap_token: {{ env: SCOREGATE_BOOTSTRAP_TOKEN }}
store: {{ kind: embedded, path: "{workdir}/data" }}
observe: {{ address: 127.0.0.1:0 }}
drain: {{ delay: 100ms, timeout: 20s }}
log: {{ format: json, level: info }}
telemetry: {{ records: {{ file: {{ path: "{workdir}/records.jsonl" }} }} }}
services: []
"""


class ManagedGateway(Gateway):
    """One gateway process whose Owner is the bearer of `owner`."""

    owner = "owner-9d2c6b1e7f3a48505c1b"

    def __init__(self, workdir, certs):
        super().__init__(workdir, certs, model_url=None)
        self.config.write_text(CONFIG.format(workdir=workdir, certs=certs))

    @property
    def management(self):
        """Base URL of all management APIs."""
        return f"https://{self.ready['management']}"

    def manage(self, method, path, body=None, token=None, headers=None):
        """One call of a management API by no SDK."""
        headers = {"Authorization": f"Bearer {token or self.owner}", **(headers or {})}
        url = path if path.startswith("https:") else self.management + path
        return requests.request(
            method, url, json=body, headers=headers, verify=self.certs / "ca.pem", timeout=30, allow_redirects=False
        )

    def token_of(self, principal, role=None):
        """A management token for `principal`, who gets `role` in the workspace."""
        if role:
            grant = {"role": role, "grantee": {"principal": principal}, "scope": {"workspace": "ws"}}
            given = self.manage("PUT", f"/v1/role-assignments/{uuid.uuid4()}", grant)
            assert given.status_code == 201, given.text
        wanted = {"principal": principal, "description": "for a test", "lifetime_s": 3600}
        made = self.manage("POST", "/v1/management-tokens", wanted)
        assert made.status_code == 201, made.text
        return made.json()["token"]

    def score(self, uri, credential, body, headers=None):
        """One scoring call by no SDK."""
        headers = {"Authorization": f"Bearer {credential}", **(headers or {})}
        return requests.post(uri, json=body, headers=headers, verify=self.certs / "ca.pem", timeout=30)

    def _environment(self):
        return {**os.environ, "SCOREGATE_BOOTSTRAP_TOKEN": self.owner}
