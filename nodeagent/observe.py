"""Observe: the machine at one instant, of all the parts that the probes gave.

Rule 1: the parts are put together in the order of the probes' names and everything in them is sorted, so that the same
        machine gives the same bytes.
Rule 2: the inventory holds nothing that moves by itself: its digest names the machine as it is built and set up.
Rule 3: a snapshot is not changed after it was handed out; the next look makes another.
"""

import hashlib
import threading
from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from bedplate.v1.snapshot_pb2 import Inventory, Problem, Snapshot
from nodeagent.host import Host
from nodeagent.probes import EVERYTHING, Answer, Frame, Probe, registry
from nodeagent.topology import topology


class Observer:
    """One host under observation. `observe` blocks for as long as the probes that are due take: call it in a thread."""

    def __init__(self, host: Host, probes: Sequence[Probe] | None = None) -> None:
        self._host = host
        self._frame = Frame(host, registry() if probes is None else probes)
        self._one_at_a_time = threading.Lock()
        self._digest = b""
        self._inventory = Inventory()

    def observe(self, now: float, woken: frozenset[str] = frozenset()) -> Snapshot:
        """The machine now. `now` is monotonic; `woken` holds the subsystems that had events, or is EVERYTHING."""
        with self._one_at_a_time:
            taken_at = Timestamp()
            taken_at.FromNanoseconds(self._host.clock_ns())
            snapshot = merged(self._frame.look(now, woken))
            snapshot.taken_at.CopyFrom(taken_at)
            self._place(snapshot.inventory)
            return snapshot

    def _place(self, inventory: Inventory) -> None:
        """Works the topology out, once for each inventory."""
        seen = digest(inventory)
        if seen != self._digest:
            self._digest = seen
            self._inventory = Inventory(topology=topology(inventory))
        inventory.MergeFrom(self._inventory)


def merged(answers: Sequence[Answer]) -> Snapshot:
    """All parts as one snapshot; problems by probe and part."""
    snapshot = Snapshot()
    problems: list[Problem] = []
    for answer in answers:
        snapshot.MergeFrom(answer.part)
        problems.extend(answer.problems)
    snapshot.problems.extend(sorted(problems, key=lambda p: (p.probe, p.part, p.kind, p.detail)))
    return snapshot


def scan(host: Host) -> Snapshot:
    """One look at everything."""
    return Observer(host).observe(0.0, EVERYTHING)


def digest(inventory: Inventory) -> bytes:
    """The name of an inventory."""
    return hashlib.sha256(inventory.SerializeToString(deterministic=True)).digest()
