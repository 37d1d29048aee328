"""Whose facts still count: a machine that was let in again, revoked or forgotten is in another life from then on.

Rule 1: who speaks for a machine speaks for one life of it. What such a one submits while that life ends, and what would
        come to be after the end, is nobody's fact.
Rule 2: what one stream says lies on what it said before, as a delta does. Once the store has refused something of it,
        what it has submitted behind that is nobody's fact either: the next stream begins with what is stored. So too
        where the end of a life is refused, and what was said behind it is gone already.
Rule 3: a life begins behind the last one. Whoever was looked at before that one began is not let in: two machines would
        be in one life. Nor is who was looked at as a known machine that is forgotten by then: a person has said so.
Rule 4: nor does anybody come in by a join token that a person has revoked by then.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from provisioner.changes import Asked, Change, Forgotten, Revoked, TokenRevoked, TokenUsed
from provisioner.errors import BedplateError
from provisioner.world import World

OVER = "this machine is not known here any more, or in a younger incarnation"
MEANWHILE = (
    "cannot let this machine in: it came in again, was revoked or forgotten, or its join token was revoked, while that "
    "was being decided; try again"
)
UNENDED = "cannot write store: what was to end this machine's life was refused, and with it what it said behind that"


class OverError(BedplateError):
    """The life is over that these facts are of."""


@dataclass(slots=True)
class Life:
    """Of a machine, as one stream speaks for it."""

    machine_id: str
    incarnation: int
    refused: bool = False  # something of it was


class Lives:
    """The life that each machine is in, change by change from a world on."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._now: dict[str, int] = {}
        self._ended = set[str]()  # tokens

    def goes_on(self, life: Life) -> bool:
        return not life.refused and self._of(life.machine_id) == life.incarnation

    def follow(self, changes: Iterable[Change]) -> bool:
        """Whether the lives that begin with these are younger than all before, of machines that are still known, and by
        tokens that nobody has revoked.
        """
        return all(
            self._begins(change) if isinstance(change, Asked) else self._lets_in(change.token_id)
            for change in changes
            if isinstance(change, Asked | TokenUsed)
        )

    def add(self, changes: Iterable[Change]) -> None:
        for change in changes:
            match change:
                case Asked():
                    self._now[change.machine_id] = change.incarnation
                case Forgotten():
                    self._now[change.machine_id] = 0
                case Revoked():
                    self._revoke(change.machine_id)
                case TokenRevoked():
                    self._ended.add(change.token_id)
                case _:
                    pass

    def _begins(self, asked: Asked) -> bool:
        younger = asked.incarnation > self._last(asked.machine_id)
        return younger and (not asked.again or self._of(asked.machine_id) > 0)

    def _lets_in(self, token_id: str) -> bool:
        token = self._world.tokens.get(token_id)
        return token_id not in self._ended and (token is None or token.revoked_at is None)

    def _last(self, machine_id: str) -> int:
        facts = self._world.machines.get(machine_id)
        return max(self._now.get(machine_id, 0), facts.incarnation if facts else 0)

    def _of(self, machine_id: str) -> int:
        """0 where it is nobody's."""
        facts = self._world.machines.get(machine_id)
        known = 0 if facts is None or facts.forgotten_at is not None else facts.incarnation
        return self._now.get(machine_id, known)

    def _revoke(self, machine_id: str) -> None:
        facts = self._world.machines.get(machine_id)
        if machine_id in self._now or not (facts and facts.revoked):
            self._now[machine_id] = self._of(machine_id) + 1
