"""What deltas make of a machine's vitals. Pure.

Rule 1: vitals as they stood, and the deltas since, are the vitals: whoever needs them folds them. The other way round,
        nobody who only keeps them has to.
Rule 2: of a younger agent's vitals, sections that we do not know are left out: as unknown fields they would pile up.
"""

from collections.abc import Iterable

from google.protobuf.unknown_fields import UnknownFieldSet

from bedplate.v1.snapshot_pb2 import Vitals
from bedplate.v1.uplink_pb2 import Delta

MAPS = tuple(entry.name for entry in Vitals.DESCRIPTOR.fields if entry.name != "host")


def folded(before: bytes, deltas: Iterable[Delta]) -> Vitals:
    """The vitals after these deltas."""
    vitals = Vitals.FromString(before)
    for delta in deltas:
        apply(vitals, delta)
    return vitals


def apply(vitals: Vitals, delta: Delta) -> None:
    """Each entry of a delta is whole, and takes the place of what was there: those of maps do as they are merged."""
    if delta.whole:
        vitals.Clear()
    if delta.vitals.HasField("host"):
        vitals.ClearField("host")
    vitals.MergeFrom(known(delta.vitals))
    for key in delta.gone:
        section, _, name = key.partition("/")
        if section in MAPS:
            getattr(vitals, section).pop(name, None)


def known(vitals: Vitals) -> Vitals:
    """Without the sections that are not known here."""
    if not len(UnknownFieldSet(vitals)):
        return vitals
    known = Vitals()
    if vitals.HasField("host"):
        known.host.CopyFrom(vitals.host)
    for section in MAPS:
        getattr(known, section).MergeFrom(getattr(vitals, section))
    return known


def entries(vitals: Vitals) -> int:
    """How many there are."""
    return sum(len(getattr(vitals, section)) for section in MAPS)
