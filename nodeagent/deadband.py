"""Which entries of the vitals left their dead band, so that a dial that only trembles is not news.

Rule 1: BANDS is all there is: a field that is not in it moves with any change, and so do counters, words and flags.
Rule 2: a field that appears or vanishes always moves: absent is not zero.
Rule 3: what is compared is what was last sent, not what was last seen: a slow drift leaves its band in the end.
Rule 4: an entry travels whole: a delta laid over the vitals before it gives the vitals after it, within the bands.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from bedplate.v1.snapshot_pb2 import Vitals
from nodeagent.vitals import differs, drop, entries

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Band:
    """How far a value may stray: the wider of `absolute`, in the field's own unit, and `relative` to the old value."""

    absolute: float
    relative: float = 0.0

    def holds(self, before: float, after: float) -> bool:
        if before == after or (math.isnan(before) and math.isnan(after)):
            return True
        return abs(after - before) <= max(self.absolute, self.relative * abs(before))


STILL = Band(0.0)
BANDS = {
    ("HostVitals", "load_1m"): Band(1.0, 0.25),
    ("HostVitals", "memory_available_bytes"): Band(64 * MIB, 0.10),
    ("HostVitals", "booted_at_s"): Band(5.0),  # the clock is steered; a reboot shows in boot_id
    ("GpuVitals", "celsius"): Band(3.0),
    ("GpuVitals", "watts"): Band(15.0, 0.10),
    ("GpuVitals", "memory_used_bytes"): Band(64 * MIB, 0.05),
    ("GpuVitals", "utilization_percent"): Band(10.0),
    ("FilesystemVitals", "free_bytes"): Band(4 * MIB, 0.05),  # narrow where little is left
}


def moved(before: Vitals, after: Vitals) -> tuple[Vitals, list[str]]:
    """The entries that left their dead band, each whole, and the names of those that are no more: "links/eth1"."""
    return differs(before, after, _near)


def apply(vitals: Vitals, changed: Vitals, gone: Iterable[str]) -> Vitals:
    """The vitals after a delta; what was handed in stays as it was."""
    after = Vitals()
    after.CopyFrom(vitals)
    for key in (*entries(changed), *gone):
        drop(after, key)
    after.MergeFrom(changed)
    return after


def _near(before: Message, after: Message) -> bool:
    """Whether every field is within its band."""
    if before == after:  # one comparison in C, and true of nearly all entries of a quiet machine
        return True
    kind = after.DESCRIPTOR.name
    old, new = _fields(before), _fields(after)
    return old.keys() == new.keys() and all(_still(kind, name, old[name], value) for name, value in new.items())


def _fields(message: Message) -> dict[str, Any]:
    """The fields that are present, by name."""
    return {field.name: value for field, value in message.ListFields()}


def _still(kind: str, name: str, before: Any, after: Any) -> bool:
    band = BANDS.get((kind, name), STILL)
    return band.holds(before, after) if isinstance(after, (int, float)) else bool(before == after)
