"""Who a newcomer is: from what it shows, and from what is known.

Rule 1: this file does nothing: it has no clock, no randomness and no store.
Rule 2: a key is proof. The same key is the same machine, in the same life, unless that was forgotten.
Rule 3: evidence is weighed, never believed. It can make a newcomer wait for a person, or give a forgotten machine its
        name back in its next life; it never moves a machine that is known.

A newcomer waits for a person where it collides with a machine that is known: some kinds of identifiers agree, and no
more of them differ. So a serial number that is all there is to see is enough to wait, and so is a draw; one that a
whole batch has is not, nor is a NIC that moved. What two machines have in common that are let in though they collide is
a batch's as well: a person has said so, and it says nothing any more. To be a forgotten machine again takes more kinds
that agree than kinds that differ.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from provisioner.evidence import Kinds, alike, kinds, marked, marks, weight
from provisioner.world import REVOKED, Facts, World


@dataclass(frozen=True, slots=True)
class Newcomer:
    """Somebody whose key nobody knows, with a join token that is good."""

    key_sha256: bytes
    evidence: bytes  # bedplate.v1.Evidence
    token_id: str
    review: bool  # its token asks for a person
    again: str = ""  # the machine that its token is for; empty: it is for any newcomer
    peer: str = ""  # the address that it calls from


@dataclass(frozen=True, slots=True)
class Admit:
    """Who the newcomer is from now on."""

    machine_id: str
    incarnation: int
    accepted: bool
    because: str  # one sentence, for whoever reads the events; why it waits, where it waits


class _Met(NamedTuple):
    """A machine that is known, and has an identifier of those that are shown."""

    facts: Facts
    weight: int  # kinds that agree, less those that differ
    common: tuple[str, ...]  # 'serial number j1234', …; never empty

    @property
    def enrolled(self) -> bool:
        return self.facts.accepted_at is not None


def known(key_sha256: bytes, world: World) -> Facts | None:
    """The machine of this key, if it was not forgotten."""
    for facts in world.machines.values():
        if facts.key_sha256 == key_sha256 and facts.forgotten_at is None:
            return facts
    return None


def admit(newcomer: Newcomer, world: World, fresh_id: str) -> Admit:
    """`fresh_id` is the newcomer's name if it is nobody who was here before."""
    shown = kinds(newcomer.evidence)
    met = _meet(shown, world)
    not_believed = _revoked(newcomer.key_sha256, world) or _collision(met, newcomer.again)
    if because := not_believed or _unlike(newcomer, shown, world):
        return Admit(fresh_id, 1, accepted=False, because=because)
    if newcomer.again:
        because = f"its join token {newcomer.token_id} lets this machine in again, with a new key"
        return Admit(newcomer.again, world.machines[newcomer.again].incarnation + 1, accepted=True, because=because)
    former = _former(newcomer, shown, world)
    name, incarnation = (former.id, former.incarnation + 1) if former else (fresh_id, 1)
    besides = ("; it was here before and was forgotten" if former else "") + _outweighed(met)
    does = "asks for review" if newcomer.review else "lets it in"
    because = f"its join token {newcomer.token_id} {does}{besides}"
    return Admit(name, incarnation, accepted=not newcomer.review, because=because)


def foreign(key_sha256: bytes, shown: Kinds, world: World, but: str = "") -> str:
    """Why somebody is not to be believed: it has what is another machine's, and not `but`'s. Empty: it has nothing."""
    return _revoked(key_sha256, world) or _collision(_meet(shown, world), but)


def _revoked(key_sha256: bytes, world: World) -> str:
    for facts in world.machines.values():
        if facts.key_sha256 == REVOKED + key_sha256:
            return f"its key is the one of machine {facts.id} that was revoked; it comes in with a new one only"
    return ""


def _unlike(newcomer: Newcomer, shown: Kinds, world: World) -> str:
    """Why it is not the machine that its token is for."""
    if not newcomer.again:
        return ""
    facts, token = world.machines.get(newcomer.again), f"its join token {newcomer.token_id}"
    if facts is None or facts.forgotten_at is not None:
        return f"{token} is for machine {newcomer.again}, which was forgotten since"
    if not alike(shown, kinds(facts.evidence)):
        return f"{token} is for {_machine(facts)}, and most of what it shows is not that one's"
    return ""


def _machine(facts: Facts) -> str:
    """'machine m-4kq7zt2x (gpu-07)'"""
    return f"machine {facts.id}" + (f" ({facts.hostname})" if facts.hostname else "")


def pending(world: World) -> int:
    """How many wait for a person."""
    return sum(facts.accepted_at is None and facts.forgotten_at is None for facts in world.machines.values())


def _meet(shown: Kinds, world: World) -> list[_Met]:
    """The most alike first, and of equals the enrolled ones."""
    mine, met = marked(shown), list[_Met]()
    every = frozenset(mine)
    for facts in world.machines.values():
        if (common := every & marks(facts.evidence)) and facts.forgotten_at is None:  # cheap: thousands are looked at
            ordered = tuple(one for one in mine if one in common)
            met.append(_Met(facts, weight(shown, kinds(facts.evidence)), ordered))
    return sorted(met, key=lambda each: (-each.weight, not each.enrolled))


def _collision(met: Sequence[_Met], but: str) -> str:
    """Whose it is what somebody shows, but for what is a batch's, and for what the machine `but` has as well.

    Who comes to be a machine again meets the enrolled ones only: one that waits has shown nothing but words.
    """
    enrolled = [each for each in met if each.enrolled]
    excused = next((each.common for each in met if each.facts.id == but), ())
    for each in enrolled if but else met:
        if each.weight >= 0:
            told = [one for one in each.common if one not in excused and not _a_batch_s(one, each, enrolled)]
            if told:
                return f"it shows the {_rarest(told, met)} of {_machine(each.facts)}, whose key it does not have"
    return ""


def _a_batch_s(one: str, met: _Met, enrolled: Sequence[_Met]) -> bool:
    """Another that is let in has it, and collides with that one: no two such come in but by a person's word.

    That many have it is not enough: by showing it among much else, who has a join token could wear it out.
    """
    mine = kinds(met.facts.evidence)
    holders = (other.facts for other in enrolled if one in other.common and other.facts.id != met.facts.id)
    return any(weight(mine, kinds(other.evidence)) >= 0 for other in holders)


def _outweighed(met: Sequence[_Met]) -> str:
    """What somebody shows of a machine that it is not, so that a person can see it."""
    for each in met:
        if each.weight < 0:
            what = _rarest(each.common, met)
            return f"; it shows the {what} of {_machine(each.facts)} too, and more that is not that one's"
    return ""


def _rarest(common: Sequence[str], met: Sequence[_Met]) -> str:
    """What tells a person most: not the serial number of the whole batch, where there is more."""
    held = Counter(one for each in met for one in each.common)
    return min(common, key=held.__getitem__)


def _former(newcomer: Newcomer, shown: Kinds, world: World) -> Facts | None:
    """The forgotten machine that this is: by its key, else by most of what it shows; of several the last forgotten."""
    forgotten = [facts for facts in world.machines.values() if facts.forgotten_at is not None]
    same = [facts for facts in forgotten if facts.key_sha256 == newcomer.key_sha256]
    like = same or [facts for facts in forgotten if alike(shown, kinds(facts.evidence))]
    return max(like, key=lambda facts: facts.forgotten_at or 0.0, default=None)
