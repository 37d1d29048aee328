"""Vitals as entries with names: "host", "links/eth0", "gpus/GPU-8f3c…". A delta is a few entries, each whole."""

from collections.abc import Callable
from operator import eq

from google.protobuf.message import Message

from bedplate.v1.snapshot_pb2 import Vitals

MAPS = tuple(field.name for field in Vitals.DESCRIPTOR.fields if field.name != "host")


def entries(vitals: Vitals) -> dict[str, Message]:
    """Every entry by its name."""
    found: dict[str, Message] = {"host": vitals.host} if vitals.HasField("host") else {}
    for section in MAPS:
        for name, entry in getattr(vitals, section).items():
            found[f"{section}/{name}"] = entry
    return found


def differs(before: Vitals, after: Vitals, same: Callable[[Message, Message], bool] = eq) -> tuple[Vitals, list[str]]:
    """The entries that are not the same, each whole, and the names of those that are no more: "links/eth1"."""
    some, gone = Vitals(), list[str]()
    if after.HasField("host") and not (before.HasField("host") and same(before.host, after.host)):
        some.host.CopyFrom(after.host)
    for section in MAPS:
        old, new = getattr(before, section), getattr(after, section)
        for name in new:
            if name not in old or not same(old[name], new[name]):
                getattr(some, section)[name].CopyFrom(new[name])
        gone += [f"{section}/{name}" for name in old if name not in new]
    return some, sorted(gone)


def drop(vitals: Vitals, key: str) -> None:
    """Take one entry out of vitals that we made ourselves."""
    section, _, name = key.partition("/")
    if section == "host":
        vitals.ClearField("host")
    else:
        getattr(vitals, section).pop(name, None)
