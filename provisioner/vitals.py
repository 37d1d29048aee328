"""What deltas make of a machine's vitals. Pure.

Rule: of a younger agent's vitals, sections that we do not know are left out: as unknown fields they would pile up.
"""

from bedplate.v1.snapshot_pb2 import Vitals
from bedplate.v1.uplink_pb2 import Delta

MAPS = tuple(entry.name for entry in Vitals.DESCRIPTOR.fields if entry.name != "host")


def applied(before: Vitals, delta: Delta) -> Vitals:
    """The vitals after a delta."""
    after = Vitals()
    if not delta.whole:
        after.CopyFrom(before)
    if delta.vitals.HasField("host"):
        after.host.CopyFrom(delta.vitals.host)
    for section in MAPS:
        getattr(after, section).MergeFrom(getattr(delta.vitals, section))
    for key in delta.gone:
        section, _, name = key.partition("/")
        if section in MAPS:
            getattr(after, section).pop(name, None)
    return after


def size(vitals: Vitals) -> int:
    """In entries."""
    return sum(len(getattr(vitals, section)) for section in MAPS)
