"""What deltas make of a machine's vitals. Pure.

Rule 1: vitals as they stood, and the deltas since, are the vitals: whoever needs them folds them. The other way round,
        nobody who only keeps them has to.
Rule 2: of a younger agent's vitals, sections that we do not know are left out: as unknown fields they would pile up.
"""

from collections.abc import Iterable

from bedplate.v1.snapshot_pb2 import Vitals
from bedplate.v1.uplink_pb2 import Delta

MAPS = tuple(entry.name for entry in Vitals.DESCRIPTOR.fields if entry.name != "host")


def folded(before: bytes, deltas: Iterable[bytes]) -> Vitals:
    """The vitals after these deltas."""
    vitals = Vitals.FromString(before)
    for body in deltas:
        delta = Delta.FromString(body)
        if delta.whole:
            vitals.Clear()
        _apply(vitals, delta)
    return vitals


def _apply(vitals: Vitals, delta: Delta) -> None:
    """Each entry of a delta is whole, and takes the place of what was there."""
    if delta.vitals.HasField("host"):
        vitals.host.CopyFrom(delta.vitals.host)
    for section in MAPS:
        getattr(vitals, section).MergeFrom(getattr(delta.vitals, section))
    for key in delta.gone:
        section, _, name = key.partition("/")
        if section in MAPS:
            getattr(vitals, section).pop(name, None)


def entries(vitals: Vitals) -> int:
    """How many there are."""
    return sum(len(getattr(vitals, section)) for section in MAPS)
