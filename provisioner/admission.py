"""Who a newcomer is: from what it shows, and from what is known.

Rule 1: this file does nothing: it has no clock, no randomness and no store.
Rule 2: a key is proof. The same key is the same machine, in the same life, unless that was forgotten.
Rule 3: evidence is weighed, never believed. It can make a newcomer wait for a person, or give a forgotten machine its
        name back in its next life; it never moves a machine that is known.
Rule 4: what is blank, a placeholder or made up by software says nothing, and never matches anything.

One identifier in common with a machine that is known is enough to wait for a person: a serial number is not there twice
by right, and the one that has it first keeps it. One that two machines have which are both let in is that of a batch: a
person has said so, and it says nothing any more. To be a forgotten machine again takes more kinds of identifiers that
agree than kinds that differ: a NIC that moved does not carry the machine along.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from bedplate.v1.enrolment_pb2 import Evidence
from provisioner.world import REVOKED, Facts, World

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
A_BATCH: Final = 2  # machines that are let in and have one identifier: it is nobody's
MAC: Final = re.compile(r"([0-9a-f]{2}):[0-9a-f]{2}:[0-9a-f]{2}:[0-9a-f]{2}:[0-9a-f]{2}:[0-9a-f]{2}", re.ASCII)
GROUP_OR_LOCAL: Final = 0b11  # bits of the first byte: for many, or given by software ("fa:…" in many servers at once)

Kinds = Mapping[str, frozenset[str]]


@dataclass(frozen=True, slots=True)
class Newcomer:
    """Somebody whose key nobody knows, with a join token that is good."""

    key_sha256: bytes
    evidence: bytes  # bedplate.v1.Evidence
    token_id: str
    review: bool  # its token asks for a person
    again: str = ""  # the machine that its token is for; empty: it is for any newcomer


@dataclass(frozen=True, slots=True)
class Admit:
    """Who the newcomer is from now on."""

    machine_id: str
    incarnation: int
    accepted: bool
    because: str  # one sentence, for whoever reads the events; why it waits, where it waits


def known(key_sha256: bytes, world: World) -> Facts | None:
    """The machine of this key, if it was not forgotten."""
    for facts in world.machines.values():
        if facts.key_sha256 == key_sha256 and facts.forgotten_at is None:
            return facts
    return None


def admit(newcomer: Newcomer, world: World, fresh_id: str) -> Admit:
    """`fresh_id` is the newcomer's name if it is nobody who was here before."""
    shown = kinds(newcomer.evidence)
    key = newcomer.key_sha256
    if because := foreign(key, shown, world, newcomer.again) or _unlike(newcomer, shown, world):
        return Admit(fresh_id, 1, accepted=False, because=because)
    if newcomer.again:
        because = f"its join token {newcomer.token_id} lets this machine in again, with a new key"
        return Admit(newcomer.again, world.machines[newcomer.again].incarnation + 1, accepted=True, because=because)
    former = _former(newcomer, shown, world)
    name, incarnation = (former.id, former.incarnation + 1) if former else (fresh_id, 1)
    again = "; it was here before and was forgotten" if former else ""
    if newcomer.review:
        because = f"its join token {newcomer.token_id} asks for review{again}"
        return Admit(name, incarnation, accepted=False, because=because)
    return Admit(name, incarnation, accepted=True, because=f"its join token {newcomer.token_id} lets it in{again}")


def foreign(key_sha256: bytes, shown: Kinds, world: World, but: str = "") -> str:
    """Why somebody is not to be believed: it has what is another machine's, of all `but` one. Empty: it has nothing."""
    for facts in world.machines.values():
        if facts.key_sha256 == REVOKED + key_sha256:
            return f"its key is the one of machine {facts.id} that was revoked; it comes in with a new one only"
    if collision := _collision(shown, world, but):
        facts, what = collision
        return f"it shows the {what} of machine {facts.id}{_named(facts)}, whose key it does not have"
    return ""


def _unlike(newcomer: Newcomer, shown: Kinds, world: World) -> str:
    """Why it is not the machine that its token is for."""
    if not newcomer.again:
        return ""
    facts, token = world.machines.get(newcomer.again), f"its join token {newcomer.token_id}"
    if facts is None or facts.forgotten_at is not None:
        return f"{token} is for machine {newcomer.again}, which was forgotten since"
    if not alike(shown, kinds(facts.evidence)):
        return f"{token} is for machine {facts.id}{_named(facts)}, and most of what it shows is not that one's"
    return ""


def _named(facts: Facts) -> str:
    return f" ({facts.hostname})" if facts.hostname else ""


def pending(world: World) -> int:
    """How many wait for a person."""
    return sum(facts.accepted_at is None and facts.forgotten_at is None for facts in world.machines.values())


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


def _collision(shown: Kinds, world: World, but: str) -> tuple[Facts, str] | None:
    """The first machine that is known and shares an identifier, and which: 'serial number j1234'.

    Who comes to be a machine again meets the enrolled ones only: one that waits has shown nothing but words.
    """
    mine = frozenset().union(*shown.values())
    sharing = [
        facts
        for facts in world.machines.values()
        if not mine.isdisjoint(_marks(facts.evidence)) and facts.forgotten_at is None  # cheap: thousands are looked at
    ]
    for kind, value in ((name, one) for name in shown for one in sorted(shown[name]) if sharing):
        holders = [facts for facts in sharing if value in kinds(facts.evidence).get(kind, ())]
        enrolled = [facts for facts in holders if facts.accepted_at is not None]
        met = [facts for facts in (enrolled if but else holders) if facts.id != but]
        if met and len(enrolled) < A_BATCH:
            return met[0], f"{kind} {value}"
    return None


@lru_cache(maxsize=1 << 15)
def _marks(evidence: bytes) -> frozenset[str]:
    return frozenset().union(*kinds(evidence).values())


def _former(newcomer: Newcomer, shown: Kinds, world: World) -> Facts | None:
    """The forgotten machine that this is: by its key, else by most of what it shows; of several the last forgotten."""
    forgotten = [facts for facts in world.machines.values() if facts.forgotten_at is not None]
    same = [facts for facts in forgotten if facts.key_sha256 == newcomer.key_sha256]
    like = same or [facts for facts in forgotten if alike(shown, kinds(facts.evidence))]
    return max(like, key=lambda facts: facts.forgotten_at or 0.0, default=None)


def alike(one: Kinds, other: Kinds) -> bool:
    """More kinds agree than differ. Kinds that only one of them shows say nothing."""
    both = one.keys() & other.keys()
    agree = sum(not one[kind].isdisjoint(other[kind]) for kind in both)
    return agree > len(both) - agree
