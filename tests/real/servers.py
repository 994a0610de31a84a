"""Real servers as processes: started on a port of their own, waited for, killed and started again, ended by their pid."""

import os
import signal
import socket
import subprocess

import requests

from gateway import eventually

START_SECONDS = 90
END_SECONDS = 20


def free_ports(count):
    """Ports that are free now: these servers cannot bind port 0, and nobody else takes one that was free a moment ago."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


class Server:
    """One server, with all of its workers, on `port`; it is up when `path` is answered with 200."""

    def __init__(self, argv, port, path, log, cwd, **environment):
        self.argv, self.port, self.path, self.log, self.cwd = argv, port, path, log, cwd
        self.environment = {**os.environ, **environment}
        self.process = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        """Starts it and returns when it is up."""
        with open(self.log, "ab") as log:
            # A session of its own: a kill has to reach the workers, too.
            self.process = subprocess.Popen(
                self.argv, cwd=self.cwd, env=self.environment, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        eventually(f"{self.argv[0]} is up", self.up, seconds=START_SECONDS)
        return self

    def up(self):
        assert self.process.poll() is None, self.log.read_text()
        try:
            return requests.get(self.url + self.path, timeout=5).ok
        except requests.ConnectionError:
            return False

    def kill(self):
        """What happens to a container that is out of memory: every process of it is gone at once."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self):
        """The master ends its workers."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
