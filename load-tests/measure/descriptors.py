"""File descriptors of a gateway: its own, pooled connections to replicas, and those that were left half closed."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

ESTABLISHED, CLOSE_WAIT = "01", "08"


@dataclass
class Descriptors:
    """`own` are all but connections to replicas; `half_closed` are connections to replicas that these have ended."""

    own: int = 0
    pooled: int = 0
    half_closed: int = 0

    @staticmethod
    def of(pids, ports):
        """Counts those of some processes, whose replicas listen on `ports`."""
        states = upstream_states(ports)
        found = Descriptors()
        for pid in pids:
            for link in read_links(pid):
                socket = re.fullmatch(r"socket:\[(\d+)\]", link)
                state = states.get(socket.group(1)) if socket else None
                if state is None:
                    found.own += 1
                elif state == CLOSE_WAIT:
                    found.half_closed += 1
                else:
                    found.pooled += 1
        return found


def read_links(pid):
    links = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(os.readlink(entry))
        except FileNotFoundError:
            continue
    return links


def upstream_states(ports):
    """Inode -> state of the TCP sockets whose other end is one of the ports (proc_net_tcp in the kernel's documents)."""
    states = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[2].rpartition(":")[2], 16) in ports:
            states[fields[9]] = fields[3]
    return states


def unread(port):
    """Connections accepted on a port whose reader has not read all that came."""
    count = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        received = int(fields[4].rpartition(":")[2], 16)
        if int(fields[1].rpartition(":")[2], 16) == port and fields[3] == ESTABLISHED and received:
            count += 1
    return count
