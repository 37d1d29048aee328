"""One root takes another's place: from the roots that there are to the next step, and who would be lost by it.

Rule 1: everything that decides about it is in this file, and it does nothing: it has no clock, no disk and no store.
Rule 2: how far it has come is which files there are, and who holds what is what was seen: no word of it is stored.
Rule 3: a step waits for everybody who would be lost by it, unless a person names them. Whom it did not lose at first it
        does not lose later: the last step is held against the facts again.

    Trust -> Serve -> Drop

A machine that came with a certificate of the new root trusts it: the roots come with the certificate, in one file.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from provisioner.decision import Decision, Todo, Wait
from provisioner.world import Facts, World

TAKEN_S = 5.0  # until a running provisioner surely goes by the new files: a token of before names one root only
NAMED = 8  # in a sentence; the rest are counted


class Step(Enum):
    """What it does, for a person."""

    TRUST = "make a new root, trust it beside the old one, and sign certificates of machines and people with it"
    SERVE = "show the new root: the provisioner's own certificate becomes one of it, and the old key is no more"
    DROP = "trust the old root no more: whoever holds a certificate of it, and no other, is refused"


@dataclass(frozen=True, slots=True)
class Root:
    key: bytes  # the id of its key
    sha256: str
    since: float
    until: float


@dataclass(frozen=True, slots=True)
class Holder:
    """Somebody who would be lost: what is needed for whom."""

    names: tuple[str, ...]  # by which a person may give it up
    shown: str
    cure: str


@dataclass(frozen=True, slots=True)
class Person:
    """The youngest certificate that was made for this name and is neither over nor revoked."""

    name: str
    role: str
    made_at: float


@dataclass(frozen=True, slots=True)
class Have:
    roots: Sequence[Root]
    signer: bytes
    server: bytes
    world: World
    until: Mapping[str, float]  # of each machine: until when its youngest certificate lasts
    people: Sequence[Person]
    now: float

    @property
    def young(self) -> Root:
        return next(root for root in self.roots if root.key == self.signer)

    @property
    def machines(self) -> list[Facts]:
        """Those that hold a certificate that is not over and was not taken back."""
        enrolled = [facts for facts in self.world.known if facts.accepted_at is not None and not facts.revoked]
        return [facts for facts in enrolled if self.until.get(facts.id, 0.0) > self.now]


def steps(have: Have) -> tuple[Step, ...]:
    """All that is ahead."""
    if len(have.roots) == 1:
        return tuple(Step)
    return (Step.SERVE, Step.DROP) if have.signer != have.server else (Step.DROP,)


def behind(have: Have) -> list[Holder]:
    """Who would be lost by the next step, and what is to be done for each."""
    if steps(have)[0] is Step.TRUST:
        return []
    return [*_machines(have), *_people(have), *(_tokens(have) if have.signer != have.server else ())]


def plan(have: Have, lose: frozenset[str] = frozenset()) -> Decision[Step]:
    ahead = steps(have)
    left = [one for one in behind(have) if lose.isdisjoint(one.names)]
    if left:
        return Wait(f"{standing(have)}; not yet: {listed(one.shown for one in left)}")
    return Todo(ahead, standing(have))


def lost(have: Have, lose: frozenset[str], *, stolen: bool) -> list[str]:
    """Who is lost by going on all the same: a machine needs a new join token, a person a new credential."""
    if stolen:
        left = [*_machines(have), *_people(have), *_tokens(have)] if len(have.roots) > 1 else _everybody(have)
    else:
        left = [one for one in behind(have) if not lose.isdisjoint(one.names)]
    return [one.shown for one in left]


def standing(have: Have) -> str:
    """'2 of 3 machines came with a certificate of the new root'"""
    machines = have.machines
    if len(have.roots) == 1:
        return f"one root is trusted, and {len(machines)} of {len(machines)} machines hold a certificate of it"
    came = sum(facts.issuer == have.signer for facts in machines)
    return f"{came} of {len(machines)} machines came with a certificate of the new root"


def listed(names: Iterable[str]) -> str:
    """'a, b, c and 4 more'"""
    found = list(names)
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return ", ".join(found[:NAMED]) + more


def _machines(have: Have) -> list[Holder]:
    cure = "it renews by itself, within minutes of when it is connected"
    return [
        Holder((facts.id, facts.hostname), f"{facts.hostname or 'machine'} ({facts.id})", cure)
        for facts in have.machines
        if facts.issuer != have.signer
    ]


def _people(have: Have) -> list[Holder]:
    old = [person for person in have.people if person.made_at < have.young.since]
    return [
        Holder(
            (one.name,), f"{one.name} ({one.role})", f"provisioner credential {one.name} --role {one.role} --out FOLDER"
        )
        for one in old
    ]


def _tokens(have: Have) -> list[Holder]:
    """Those that are open and name the old root alone."""
    open_ = [token for token in have.world.tokens.values() if token.revoked_at is None and token.expires_at > have.now]
    old = [token for token in open_ if token.created_at < have.young.since + TAKEN_S]
    left = [token for token in old if not token.uses_allowed or len(token.used_by) < token.uses_allowed]
    return [
        Holder((one.id,), f"join token {one.id}", f"wait until it ends, or bedplate token revoke {one.id}")
        for one in left
    ]


def _everybody(have: Have) -> list[Holder]:
    machines = [Holder((facts.id,), f"{facts.hostname or 'machine'} ({facts.id})", "") for facts in have.machines]
    people = [Holder((one.name,), f"{one.name} ({one.role})", "") for one in have.people]
    return [*machines, *people, *_tokens(have)]
