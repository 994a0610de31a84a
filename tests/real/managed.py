"""A scoregate process with a management plane: nothing is declared, services are made through an API."""

import os
import secrets
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
observe: {{ address: 127.0.0.1:0 }}
store: {{ kind: embedded, path: "{workdir}/store" }}
log: {{ format: json, level: info }}
telemetry: {{ records: {{ file: {{ path: "{workdir}/records.jsonl" }} }} }}
"""


class ManagedGateway(Gateway):
    """One gateway process whose first owner is known."""

    def __init__(self, workdir, certs):
        self.workdir = workdir
        self.certs = certs
        self.owner = "owner-" + secrets.token_urlsafe(24)
        self.config = workdir / "scoregate.yaml"
        self.config.write_text(CONFIG.format(workdir=workdir, certs=certs))
        self.log_path = workdir / "gateway.log"
        self.process = None
        self.ready = None

    @property
    def management(self):
        """Base of the management API's URLs."""
        return f"https://{self.ready['management']}"

    def token_of(self, role):
        """A management token for somebody new who holds `role` in the workspace."""
        principal = f"{role.lower()}-{uuid.uuid4()}"
        scope = {"workspace": "ws"}
        grant = {"role": role, "grantee": {"principal": principal}, "scope": scope}
        self._manage("PUT", f"/v1/role-assignments/{uuid.uuid4()}", grant)
        return self._token(principal)

    def token_without_role(self):
        """A management token for somebody new who may do nothing."""
        return self._token(f"stranger-{uuid.uuid4()}")

    def _token(self, principal):
        wanted = {"principal": principal, "description": "test", "lifetime_s": 3600}
        return self._manage("POST", "/v1/management-tokens", wanted)["token"]

    def _manage(self, method, path, body):
        answer = requests.request(
            method, self.management + path, json=body, headers={"Authorization": f"Bearer {self.owner}"},
            verify=str(self.certs / "ca.pem"), timeout=30,
        )  # fmt: skip
        assert answer.ok, answer.text
        return answer.json()

    def _environment(self):
        return {**os.environ, "SCOREGATE_BOOTSTRAP_TOKEN": self.owner}
