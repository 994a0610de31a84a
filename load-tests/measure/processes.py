"""Processes under measurement: started on one CPU, accounted over all threads and children, ended by their pid."""

import os
import resource
import select
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from . import Failure

# Linux's CPU-time clock of another process: its pid inverted, shifted by 3, kind 2 (scheduler time, in nanoseconds).
# It counts every thread, also those that have ended since; see clock_getcpuclockid(3) and the kernel's
# include/linux/posix-timers.h.
CPUCLOCK_SCHED = 2

STOP_SECONDS = 10
OPEN_FILES = 65536
PORT_POLL_SECONDS = 0.02


class Process:
    """A started program and its children. Leaving the `with` block ends all of them."""

    def __init__(self, name, argv, cpu, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        self.name = name
        # setpriv and taskset replace themselves by the program, so the pid is the program's own; should this driver be
        # killed, the kernel ends the program.
        self.child = subprocess.Popen(["setpriv", "--pdeathsig", "TERM", "taskset", "-c", str(cpu), *map(str, argv)],
                                      stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)
        self.pid = self.child.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def pids(self):
        """The program's pid and those of all its descendants."""
        children = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                pid, rest = int(stat.parent.name), stat.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(rest[1]), []).append(pid)
        found = [self.pid]
        for pid in found:
            found.extend(children.get(pid, []))
        return found

    def cpu_ns(self):
        """CPU time so far, user and system, of every thread of every process, in nanoseconds."""
        return sum(time.clock_gettime_ns(~pid << 3 | CPUCLOCK_SCHED) for pid in self.pids())

    def memory(self):
        """Resident memory now, summed over the processes."""
        return sum((Memory.of(pid) for pid in self.pids()), Memory(0, 0))

    def fail_if_ended(self):
        if self.child.poll() is not None:
            raise Failure(f"{self.name} ended with status {self.child.returncode}")

    def stop(self):
        """SIGTERM, again after a while (scoregate takes that as 'now'), and in the end SIGKILL."""
        if self.child.poll() is not None:
            return
        children = [handle for pid in self.pids()[1:] if (handle := process_handle(pid)) is not None]
        for end in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
            self.child.send_signal(end)
            try:
                self.child.wait(STOP_SECONDS)
                break
            except subprocess.TimeoutExpired:
                continue
        for handle in children:
            end_orphan(handle)


@dataclass
class Memory:
    """KiB of one or more processes: `rss` counts shared pages in each, `pss` divides them among their users."""

    rss: int
    pss: int

    def __add__(self, other):
        return Memory(self.rss + other.rss, self.pss + other.pss)

    @staticmethod
    def of(pid):
        fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
        return Memory(int(fields["Rss"].split()[0]), int(fields["Pss"].split()[0]))


def process_handle(pid):
    """A handle that goes on meaning this process when its pid is used again; `None` if it has ended."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def end_orphan(handle):
    """Children end with their program; one that does not is killed. Closes the handle."""
    ended, _, _ = select.select([handle], [], [], STOP_SECONDS)
    if not ended:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        select.select([handle], [], [], STOP_SECONDS)
    os.close(handle)


def allow_open_files():
    """Two thousand held connections need descriptors on both sides; the gateways inherit the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def free_port():
    """A port that is free now. The peers cannot report a port they chose themselves, so one is chosen for them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(process, port, seconds=20):
    """Returns when something accepts on the port; fails when the process ends before, or in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        process.fail_if_ended()
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(PORT_POLL_SECONDS)
    raise Failure(f"{process.name} did not listen on port {port} within {seconds} s")


def busy_ns(cpu):
    """Nanoseconds since boot that a CPU was not idle, those that the hypervisor gave to others included."""
    tick = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith(f"cpu{cpu} "):
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, line.split()[1:9])
            return (user + nice + system + irq + softirq + steal) * tick
    raise Failure(f"/proc/stat has no line for cpu{cpu}")


def accepted_connections():
    """TCP connections that this machine has accepted since boot."""
    lines = Path("/proc/net/snmp").read_text().splitlines()
    names, values = (line.split() for line in lines if line.startswith("Tcp:"))
    return int(values[names.index("PassiveOpens")])
