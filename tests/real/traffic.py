"""A gateway for the servers of one file of tests: its services are given, all with the same key."""

import ssl

from gateway import Gateway, eventually

# What a caller sends to find its call in the records: not every client shows the id that the gateway gave.
MARK = "x-ms-client-request-id"
CONFIG = """\
version: scoregate/v1
workspace: {{ subscription: sub, resource_group: rg, name: ws, location: westeurope }}
listeners:
  - name: public
    address: 127.0.0.1:0
    tls: {{ certificates: [ {{ cert: "{certs}/server.pem", key: "{certs}/server.key" }} ] }}
observe: {{ address: 127.0.0.1:0 }}
drain: {{ delay: 100ms, timeout: 20s }}
log: {{ format: json, level: info }}
telemetry: {{ records: {{ file: {{ path: "{workdir}/records.jsonl" }} }} }}
services:
{services}
"""
# How every service begins; what follows is its own.
SERVICE = """\
  - name: {name}
    compute_type: AKS
    keys: {{ primary: {{ file: "{workdir}/primary" }}, secondary: {{ env: IRIS_SECONDARY }} }}
{settings}
"""


class TrafficGateway(Gateway):
    """One gateway process with `services`: name -> the rest of its settings, as YAML."""

    def __init__(self, workdir, certs, services):
        super().__init__(workdir, certs, model_url=None)
        texts = [
            SERVICE.format(workdir=workdir, name=name, settings=indented(settings))
            for name, settings in services.items()
        ]
        self.config.write_text(CONFIG.format(workdir=workdir, certs=certs, services="".join(texts)))

    @property
    def authority(self):
        return f"127.0.0.1:{self.port}"

    def marked(self, mark):
        """The one record of the call that was sent with `MARK: mark`."""

        def find():
            return [record for record in self.records() if record.get("ClientRequestId") == mark]

        found = eventually(f"a record of {mark}", find)
        assert len(found) == 1
        return found[0]

    def service(self, name, path="score", scheme="https"):
        return f"{scheme}://{self.authority}/api/v1/service/{name}/{path}"

    @property
    def bearer(self):
        return {"Authorization": f"Bearer {self.primary}"}

    @property
    def ca(self):
        return str(self.certs / "ca.pem")

    def trust(self):
        return ssl.create_default_context(cafile=self.ca)


def indented(text):
    return "".join(f"    {line}\n" for line in text.strip().splitlines())
