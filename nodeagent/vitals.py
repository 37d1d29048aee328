"""Vitals as entries with names: "host", "links/eth0", "gpus/GPU-8f3c…". A delta is a few entries, each whole."""

from collections.abc import Iterable

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


def chosen(vitals: Vitals, names: Iterable[str]) -> Vitals:
    """Only these entries."""
    some = Vitals()
    for key in names:
        section, _, name = key.partition("/")
        if section == "host":
            some.host.CopyFrom(vitals.host)
        else:
            getattr(some, section)[name].CopyFrom(getattr(vitals, section)[name])
    return some


def differs(before: Vitals, after: Vitals) -> tuple[Vitals, list[str]]:
    """The entries that are not the same to the bit, and the names of those that are no more."""
    old, new = entries(before), entries(after)
    changed = [key for key, entry in new.items() if key not in old or old[key] != entry]
    return chosen(after, changed), sorted(set(old) - set(new) - {"host"})


def drop(vitals: Vitals, key: str) -> None:
    """Take one entry out of vitals that we made ourselves."""
    section, _, name = key.partition("/")
    if section == "host":
        vitals.ClearField("host")
    else:
        getattr(vitals, section).pop(name, None)
