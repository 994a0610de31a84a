"""What deploy/ holds is well-formed and keeps its promises. (That its configurations pass `scoregate check` is tested in Rust.)"""

import pathlib
import re
import shutil
import subprocess
import sys

import kubernetes_validate
import pytest
import yaml

from gateway import REPOSITORY

DEPLOY = REPOSITORY / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
KUBERNETES = ("1.29", "1.37")


def documents(path):
    return list(yaml.safe_load_all(path.read_text()))


def one(path, kind):
    return next(document for document in documents(path) if document["kind"] == kind)


def config_of(path):
    return yaml.safe_load(one(path, "ConfigMap")["data"]["scoregate.yaml"])


def seconds(duration):
    number, unit = re.fullmatch(r"(\d+)(s|m)", duration).groups()
    return int(number) * {"s": 1, "m": 60}[unit]


@pytest.fixture(params=MANIFESTS, ids=lambda path: path.stem)
def manifest(request):
    return request.param


@pytest.mark.parametrize("version", KUBERNETES)
def test_manifests_fit_the_kubernetes_schemas(manifest, version):
    for document in documents(manifest):
        kubernetes_validate.validate(document, version, strict=True)


def test_pods_meet_pod_security_restricted(manifest):
    pod = one(manifest, "Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for container in pod["containers"] + pod.get("initContainers", []):
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}


def test_the_grace_period_covers_the_drain(manifest):
    drain = config_of(manifest)["drain"]
    grace = one(manifest, "Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace >= seconds(drain["delay"]) + seconds(drain["timeout"]) + 5


def test_ports_and_probes_are_those_of_the_configuration(manifest):
    config = config_of(manifest)
    gateway = one(manifest, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in gateway["ports"]}
    assert config["listeners"][0]["address"] == f"0.0.0.0:{ports['https']}"
    assert config["observe"]["address"] == f"0.0.0.0:{ports['observe']}"
    paths = {name: gateway[name]["httpGet"]["path"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert paths == {"startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/livez"}


def test_every_file_of_the_configuration_is_mounted(manifest):
    gateway = one(manifest, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    mounts = [pathlib.PurePath(mount["mountPath"]) for mount in gateway["volumeMounts"]]
    files = re.findall(r"/(?:etc|run)/[\w./-]+", one(manifest, "ConfigMap")["data"]["scoregate.yaml"])
    assert len(files) >= 4
    for file in [*files, gateway["args"][-1]]:
        assert pathlib.PurePath(file).parent in mounts, file


def test_the_model_starts_before_and_stops_after_the_gateway():
    pod = one(DEPLOY / "kubernetes/sidecar.yaml", "Deployment")["spec"]["template"]["spec"]
    (model,) = pod["initContainers"]
    assert model["restartPolicy"] == "Always"
    assert model["startupProbe"]["httpGet"]["port"] == 5001


def test_the_dockerfile_lints_clean():
    hadolint = pathlib.Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, DEPLOY / "Dockerfile"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_dockerfile_serves_a_numeric_user_and_the_mounted_configuration():
    text = (DEPLOY / "Dockerfile").read_text()
    assert "USER 65532:65532" in text
    for manifest in MANIFESTS:
        gateway = one(manifest, "Deployment")["spec"]["template"]["spec"]["containers"][0]
        assert f'CMD ["run", "-c", "{gateway["args"][-1]}"]' in text


def test_systemd_takes_the_unit(tmp_path):
    analyze = shutil.which("systemd-analyze")
    if not analyze:
        pytest.skip("no systemd-analyze on this machine")
    version = int(subprocess.run([analyze, "--version"], capture_output=True, text=True).stdout.split()[1])
    text = (DEPLOY / "systemd/scoregate.service").read_text()
    # The binary is not installed here, and notify-reload is younger than some systemds (253).
    text = text.replace("/usr/local/bin/scoregate", "/bin/true")
    if version < 253:
        text = text.replace("Type=notify-reload", "Type=notify")
    unit = tmp_path / "scoregate.service"
    unit.write_text(text)
    done = subprocess.run([analyze, "verify", "--man=no", unit], capture_output=True, text=True, timeout=60)
    complaints = [line for line in done.stderr.splitlines() if unit.name in line]
    assert (done.returncode, complaints) == (0, [])


def test_systemd_waits_for_the_drain():
    example = yaml.safe_load((DEPLOY / "example.yaml").read_text())
    (wait,) = re.findall(r"^TimeoutStopSec=(\d+)s$", (DEPLOY / "systemd/scoregate.service").read_text(), re.MULTILINE)
    assert int(wait) >= seconds(example["drain"]["delay"]) + seconds(example["drain"]["timeout"]) + 5
