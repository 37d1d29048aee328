"""Networks of a test's own: namespaces without names, joined by cables, in which packets can be lost without a trace.

Rule 1: a namespace lives as long as a process that waits for the test: whatever ends the test ends it too.
Rule 2: a cable loses packets in one direction where the sender believes in a hardware address that nobody has. Nothing
        is closed, no link goes down, and no end is told: as with a switch that forwards nothing. It takes root, and
        no module of the kernel.
"""

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

NOBODY = "02:00:00:00:ff:ff"


@dataclass(frozen=True)
class Namespace:
    pid: int  # of the process that holds it

    @property
    def inside(self) -> tuple[str, ...]:
        """Before a command that is to run in it."""
        return ("nsenter", f"--net=/proc/{self.pid}/ns/net")

    def ip(self, *arguments: str) -> None:
        command = [*self.inside, "ip", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


@contextlib.contextmanager
def namespace() -> Iterator[Namespace]:
    with subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin
        assert holder.stdout
        holder.stdin.write(b"ready\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == b"ready\n", "cannot make a network namespace: that takes root"
        made = Namespace(holder.pid)
        made.ip("link", "set", "lo", "up")
        yield made


@dataclass(frozen=True)
class Cable:
    """Between a hub and a spoke: 10.99.NUMBER.1 and 10.99.NUMBER.2."""

    hub: Namespace
    spoke: Namespace
    number: int

    def lose(self, *, up: bool, down: bool) -> None:
        """Up: what the spoke sends. Down: what it is sent."""
        for lost, sender, device, address in self._ways(up=up, down=down):
            if lost:
                sender.ip("neigh", "replace", address, "lladdr", NOBODY, "dev", device, "nud", "permanent")

    def mend(self) -> None:
        for _, sender, device, address in self._ways(up=True, down=True):
            sender.ip("neigh", "replace", address, "lladdr", _hardware(address), "dev", device, "nud", "reachable")

    def _ways(self, *, up: bool, down: bool) -> Iterator[tuple[bool, Namespace, str, str]]:
        yield up, self.spoke, "up0", f"10.99.{self.number}.1"
        yield down, self.hub, f"down{self.number}", f"10.99.{self.number}.2"


def cable(hub: Namespace, spoke: Namespace, number: int) -> Cable:
    device, here, there = f"down{number}", f"10.99.{number}.1", f"10.99.{number}.2"
    ends = ("type", "veth", "peer", "name", "up0", "netns", str(spoke.pid), "address", _hardware(there))
    hub.ip("link", "add", device, "address", _hardware(here), *ends)
    for end, name, address in ((hub, device, here), (spoke, "up0", there)):
        end.ip("address", "add", f"{address}/24", "dev", name)
        end.ip("link", "set", name, "up")
    return Cable(hub, spoke, number)


def _hardware(address: str) -> str:
    """'10.99.3.1' -> '02:00:00:63:03:01'"""
    return "02:00:00:" + ":".join(f"{int(part):02x}" for part in address.split(".")[1:])
