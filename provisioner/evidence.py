"""What evidence says of the hardware: identifiers, by their kind; and how two such weigh against each other.

Rule 1: this file does nothing: it has no clock, no randomness and no store.
Rule 2: what is blank, a placeholder or made up by software says nothing, and never matches anything.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from bedplate.v1.enrolment_pb2 import Evidence

# As firmware has them. Every maker spaces, hyphens and dots them his own way, and so only letters and digits are
# compared; what has fewer than four of these, or one again and again, is never an identifier, and is not listed.
PLACEHOLDERS: Final = frozenset(
    re.sub("[^a-z0-9]", "", line)
    for line in (
        "to be filled by o.e.m.",
        "to be set by oem",
        "to be determined",
        "default string",
        "default",
        "system serial number",
        "base board serial number",
        "chassis serial number",
        "system manufacturer",
        "serial number",
        "not specified",
        "not applicable",
        "not available",
        "not provided",
        "not present",
        "not settable",
        "not set",
        "not found",
        "not supported",
        "no asset tag",
        "no serial",
        "no serial number",
        "none",
        "null",
        "empty",
        "blank",
        "invalid",
        "unknown",
        "undefined",
        "unspecified",
        "not defined",
        "no enclosure",
        "filled by oem",
        "system product name",
        "serial",
        "unknow",
        "type2 - board serial number",
        "0123456789abcdef",
        "01234567890123456789ab",
        "03000200-0400-0500-0006-000700080009",  # the mainboard maker's sample, and below it with bytes swapped
        "00020003-0004-0005-0006-000700080009",
        "12345678-1234-5678-90ab-cddeefaabbcc",
        "12345678-1234-5678-1234-567812345678",
        "01234567-89ab-cdef-0123-456789abcdef",
        "00112233-4455-6677-8899-aabbccddeeff",
        "33221100-5544-7766-8899-aabbccddeeff",
        "fefefefe-fefe-fefe-fefe-fefefefefefe",
        "00000000-0000-0000-0000-000000000001",
    )
)
COUNTED: Final = re.compile("(?:[a-z]{1,4}(?=[0-9]{12}))?([0-9]{5,})")  # '12345', 'bsn12345678901234567'
UPWARDS: Final = "01234567890123456789012345678901234567890123456789"
DOWNWARDS: Final = UPWARDS[::-1]
SAMPLE_MACS: Final = frozenset(  # as makers ship them where nobody has burned in one
    {
        "00:11:22:33:44:55",
        "00:01:02:03:04:05",
        "00:02:03:04:05:06",
        "00:10:18:00:00:00",
        "00:90:4c:11:22:33",
        "00:e0:4c:00:00:01",
        "00:e0:4c:36:00:01",
        "00:e0:4c:68:00:01",
        "88:88:88:88:87:88",
    }
)
COUNTED_MACS: Final = "00:00:00:00:00:"
FEWEST_CHARACTERS: Final = 4
MAC: Final = re.compile(r"([0-9a-f]{2}):[0-9a-f]{2}:[0-9a-f]{2}:[0-9a-f]{2}:[0-9a-f]{2}:[0-9a-f]{2}", re.ASCII)
GROUP_OR_LOCAL: Final = 0b11  # bits of the first byte: for many, or given by software ("fa:…" in many servers at once)

Kinds = Mapping[str, frozenset[str]]


@lru_cache(maxsize=1 << 15)
def kinds(evidence: bytes) -> Kinds:
    """What evidence says about the hardware, by kind, without all that says nothing: {'serial number': {'j1234'}}.

    /etc/machine-id is not in it: a cloned image carries it to forty hosts.
    """
    shown = Evidence.FromString(evidence)
    who = shown.identity
    found = {
        "serial number": _texts(who.product_serial),
        "system UUID": _texts(who.product_uuid),
        "mainboard's serial number": _texts(who.board_serial),
        "chassis's serial number": _texts(who.chassis_serial),
        "BMC's MAC address": _macs((who.bmc_mac,)),
        "permanent MAC address": _macs(shown.permanent_macs),
    }
    return {kind: values for kind, values in found.items() if values}


def _texts(value: str) -> frozenset[str]:
    """' J1234 ' -> {'j1234'}; 'To be filled by O.E.M.' -> nothing

    How it is punctuated counts between two identifiers, and not between one and a placeholder.
    """
    text = " ".join(value.casefold().split())
    bare = re.sub("[^a-z0-9]", "", text).removeprefix("0x")
    if len(bare) < FEWEST_CHARACTERS or len(set(bare)) < 2 or bare in PLACEHOLDERS:  # noqa: PLR2004 - one letter
        return frozenset()
    counted = COUNTED.fullmatch(bare)
    if counted and (counted[1] in UPWARDS or counted[1] in DOWNWARDS):
        return frozenset()
    return frozenset({text})


def _macs(values: Iterable[str]) -> frozenset[str]:
    """Burned-in unicast addresses only."""
    found = set()
    for value in values:
        match = MAC.fullmatch(value.strip().lower())
        made_up = not match or int(match[1], 16) & GROUP_OR_LOCAL or len(set(match[0]) - {":"}) == 1
        if match and not made_up and match[0] not in SAMPLE_MACS and not match[0].startswith(COUNTED_MACS):
            found.add(match[0])
    return frozenset(found)


def marked(shown: Kinds) -> list[str]:
    """Each identifier as a person reads it, in their order: ['serial number j1234', …]"""
    return [f"{kind} {one}" for kind, found in shown.items() for one in sorted(found)]


@lru_cache(maxsize=1 << 15)
def marks(evidence: bytes) -> frozenset[str]:
    return frozenset(marked(kinds(evidence)))


def alike(one: Kinds, other: Kinds) -> bool:
    """More kinds agree than differ."""
    return weight(one, other) > 0


def weight(one: Kinds, other: Kinds) -> int:
    """The kinds that agree, less those that differ. Kinds that only one of them shows say nothing."""
    total = 0
    for kind in one.keys() & other.keys():
        total += -1 if one[kind].isdisjoint(other[kind]) else 1
    return total
