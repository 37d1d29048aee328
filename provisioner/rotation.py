"""One root takes another's place: from the roots that there are to the next step, and who would be lost by it.

Rule 1: everything that decides about it is in this file, and it does nothing: it has no clock, no disk and no store.
Rule 2: how far it has come is which files there are, and who holds what is what was seen: no word of it is stored.
Rule 3: a step waits for everybody who would be lost by it, unless a person names them. Whom it did not lose at first it
        does not lose later: the last step is held against the facts again.
Rule 4: a machine that holds no certificate can be lost too: it waits, or was off for too long, and finds us by the root
        that its join token names. Once the new root is shown, a token that names the old one alone finds nobody, though
        the machine came back by it before.

    Trust -> Serve -> Drop

A machine that came with a certificate of the new root trusts it: the roots come with the certificate, in one file.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from provisioner.decision import Decision, Todo, Wait
from provisioner.world import Facts, TokenFacts, World

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
        return [facts for facts in self.world.known if self._holds(facts)]

    @property
    def without(self) -> list[Facts]:
        """Those that hold none, and come by the token that they have; whoever was revoked needs another anyway."""
        return [facts for facts in self.world.known if not facts.revoked and not self._holds(facts)]

    def _holds(self, facts: Facts) -> bool:
        """A certificate of this incarnation: what an earlier one had may last longer, and is worth nothing."""
        certified = facts.accepted_at is not None and facts.certified_at is not None and not facts.revoked
        return certified and self.until.get(facts.id, 0.0) > self.now

    def names_both(self, token: TokenFacts) -> bool:
        """Whether by this join token a machine finds us before and after the new root is shown."""
        return len(self.roots) > 1 and token.created_at >= self.young.since + TAKEN_S


def steps(have: Have) -> tuple[Step, ...]:
    """All that is ahead."""
    if len(have.roots) == 1:
        return tuple(Step)
    return (Step.SERVE, Step.DROP) if have.signer != have.server else (Step.DROP,)


def behind(have: Have) -> list[Holder]:
    """Who would be lost by the next step, and what is to be done for each."""
    if steps(have)[0] is Step.TRUST:
        return []
    return _left(have)


def plan(have: Have, lose: frozenset[str] = frozenset()) -> Decision[Step]:
    ahead = steps(have)
    left = [one for one in behind(have) if lose.isdisjoint(one.names)]
    if left:
        return Wait(f"{standing(have)}; not yet: {listed(one.shown for one in left)}")
    return Todo(ahead, standing(have))


def lost(have: Have, lose: frozenset[str], *, stolen: bool) -> list[str]:
    """Who is lost by going on all the same: a machine needs a new join token, a person a new credential."""
    if stolen:
        left = _left(have) if len(have.roots) > 1 else _everybody(have)
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


def _left(have: Have) -> list[Holder]:
    """Who finds us by the old root alone is lost when the new one is shown, and is not lost again when that is done."""
    if have.signer == have.server:
        return [*_machines(have), *_people(have)]
    return [*_machines(have), *_without(have), *_people(have), *_tokens(have)]


def _machines(have: Have) -> list[Holder]:
    cure = "it renews by itself, within minutes of when it is connected"
    return [
        Holder((facts.id, facts.hostname), f"{facts.hostname or 'machine'} ({facts.id})", cure)
        for facts in have.machines
        if facts.issuer != have.signer
    ]


def _without(have: Have) -> list[Holder]:
    """But for those that asked, with the key that they have, by tokens that name both roots and by no other.

    Which one lies on a host is not seen, nor by which one came who has a younger key since: those are named.
    """
    by_one, by_both = set[bytes](), set[bytes]()
    for token in have.world.tokens.values():
        (by_both if have.names_both(token) else by_one).update(token.used_by)
    found_anyway = by_both - by_one
    return [_absent(facts) for facts in have.without if facts.key_sha256 not in found_anyway]


def _absent(facts: Facts) -> Holder:
    forget = f"bedplate machine forget {facts.id}"
    if facts.accepted_at is None:
        why, cure = "pending", f"bedplate machine accept {facts.id} while it is on, or {forget}"
    elif facts.certified_at is None:
        why, cure = "no certificate yet", f"turn it on, and it comes by itself; if it is gone for good: {forget}"
    else:
        why = "its certificate is over"
        cure = f"turn it on with its join token or any other, and it comes by itself; if it is gone for good: {forget}"
    return Holder((facts.id, facts.hostname), f"{facts.hostname or 'machine'} ({facts.id}, {why})", cure)


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
    old = [token for token in open_ if not have.names_both(token)]
    left = [token for token in old if not token.uses_allowed or len(token.used_by) < token.uses_allowed]
    return [
        Holder((one.id,), f"join token {one.id}", f"wait until it ends, or bedplate token revoke {one.id}")
        for one in left
    ]


def _everybody(have: Have) -> list[Holder]:
    machines = [Holder((facts.id,), f"{facts.hostname or 'machine'} ({facts.id})", "") for facts in have.machines]
    people = [Holder((one.name,), f"{one.name} ({one.role})", "") for one in have.people]
    return [*machines, *_without(have), *people, *_tokens(have)]
