"""A disk of a few megabytes that only the test's own processes see: a tmpfs in a mount namespace of its own.

Rule: the namespace lives as long as a process that holds it; a program that dies and comes back finds the same disk.
"""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MOUNT = """
set -e
cp -a "$1" "$1.before"
mount -t tmpfs -o "size=$2,mode=0700" none "$1"
cp -a "$1.before/." "$1"
echo mounted
exec cat
"""
BALLAST = "ballast"


@dataclass(frozen=True, slots=True)
class SmallDisk:
    folder: Path
    holder: int

    @property
    def entry(self) -> tuple[str, ...]:
        """What a command has to begin with to see it."""
        user = () if os.geteuid() == 0 else ("--user", "--preserve-credentials")
        return ("/usr/bin/nsenter", "--target", str(self.holder), "--mount", *user, "--")

    @property
    def seen(self) -> Path:
        """The same folder, from where the test is."""
        return Path(f"/proc/{self.holder}/root{self.folder}")

    def fill(self, most: int = 1 << 30) -> None:
        """To the last byte, or with so many."""
        with (self.seen / BALLAST).open("ab", buffering=0) as file:
            for size in (1 << 12, 1):
                with contextlib.suppress(OSError):
                    while most >= size:
                        most -= file.write(bytes(size))

    def empty(self) -> None:
        """Room again."""
        (self.seen / BALLAST).unlink()


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[SmallDisk]:
    """In the place of this folder, with what is in it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    user = () if os.geteuid() == 0 else ("--map-root-user",)
    command = ["unshare", "--mount", *user, "sh", "-c", MOUNT, "sh", str(folder), size]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin
        assert holder.stdout
        assert holder.stdout.readline() == b"mounted\n"
        try:
            yield SmallDisk(folder, holder.pid)
        finally:
            holder.stdin.close()
