"""A disk of a few MiB in memory, and something to fill it with: for faults of full disks."""

import os
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

from .faults import Row


class SmallDisk:
    """A mounted tmpfs. Mounting takes root."""

    def __init__(self, path):
        self.path = path
        self.ballast = path / "ballast"

    def fill(self):
        """Leaves no byte free."""
        with self.ballast.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(64 * 1024))
            except OSError:
                return

    def empty(self):
        """Gives back what `fill` took."""
        self.ballast.unlink(missing_ok=True)


@contextmanager
def small_disk(bench, mebibytes):
    """The disk for as long as the block lasts; `None` if this user may not have one."""
    path = Path(tempfile.mkdtemp(prefix="small-disk-", dir=bench.folder))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=0711", "small-disk", path]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        yield None
        return
    try:
        yield SmallDisk(path)
    finally:
        # Whoever still has a file open there is about to end.
        subprocess.run(["umount", "--lazy", path], check=False)


def not_played(title):
    """The row of a fault that needs a disk which is not to be had."""
    return Row(title, "scoregate", "", "not played: a small disk is a tmpfs, and mounting one takes root", None)
