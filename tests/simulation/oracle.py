"""What a person is told of a machine, worked out a second time: its phase, its events, the tokens that are good.

Rule: from the changes that are durable and the time alone. No function of the product's is called here.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bedplate.v1.fleet_pb2 import Phase
from bedplate.v1.uplink_pb2 import Problems
from provisioner.world import (
    Accepted,
    Asked,
    Forgotten,
    InventoryKept,
    Met,
    Noted,
    Parted,
    Revoked,
    SilenceNoted,
    TokenFacts,
    TokenMade,
    TokenRevoked,
    TokenUsed,
    VitalsKept,
    VitalsMoved,
    World,
)
from tests.simulation.broken import hold

APPEARED, CLEARED, FLAPPING = (f"machine.problem.{word}" for word in ("appeared", "cleared", "flapping"))
FLAP_WINDOW_S, MOST = 90.0, 3  # so short that a fleet outlives it several times
NONE, PENDING, ACCEPTED, PRESENT, SILENT = (  # looked up once: protobuf's names are slow to get
    Phase.PHASE_UNSPECIFIED,
    Phase.PHASE_PENDING,
    Phase.PHASE_ACCEPTED,
    Phase.PHASE_PRESENT,
    Phase.PHASE_SILENT,
)


@dataclass(slots=True)
class Seen:
    """One machine in one life."""

    accepted: bool = False
    forgotten: bool = False
    stream: str = ""
    epoch: int = 0
    heard: float | None = None
    silent: bool = False  # noted so
    told: dict[str, str] = field(default_factory=dict)  # problem -> the last word on it
    problems: frozenset[str] = frozenset()


@dataclass(slots=True)
class Token:
    made: TokenMade
    revoked: bool = False
    keys: set[bytes] = field(default_factory=set)


class Oracle:
    def __init__(self) -> None:
        self.machines: dict[str, Seen] = {}
        self.tokens: dict[str, Token] = {}
        self._words: dict[tuple[str, str], list[float]] = defaultdict(list)  # machine, problem -> when it was told
        self._moves: dict[tuple[str, str], list[float]] = defaultdict(list)  # machine, probe -> when it came or went
        self._refused_at = 0.0

    def change(self, change: Any) -> None:  # noqa: C901, PLR0912 - one arm a change
        seen = self.machines.get(getattr(change, "machine_id", ""))
        if isinstance(change, Asked):
            self._asked(change)
        elif isinstance(change, TokenMade):
            self.tokens[change.token_id] = Token(change)
        elif isinstance(change, TokenRevoked):
            self.tokens[change.token_id].revoked = True
        elif isinstance(change, TokenUsed):
            self.tokens[change.token_id].keys.add(change.key_sha256)
        elif seen is None or seen.forgotten:
            return
        elif isinstance(change, Noted):
            self._noted(change, seen)
        elif isinstance(change, Accepted):
            seen.accepted = True
        elif isinstance(change, Forgotten):
            seen.forgotten = True
        elif isinstance(change, Revoked):
            seen.stream = ""
        elif isinstance(change, SilenceNoted):
            seen.silent = change.silent
        elif isinstance(change, Met):
            seen.stream, seen.epoch, seen.heard = change.session, change.epoch, change.at
        elif isinstance(change, Parted):
            if seen.stream == change.session:
                seen.stream, seen.heard = "", change.at
        elif isinstance(change, VitalsKept | VitalsMoved | InventoryKept):
            seen.heard = change.at
            if isinstance(change, VitalsKept):
                self._problems(change, seen)

    def begins(self) -> None:
        """A life of the provisioner: what it counts of flaps is lost with the one before."""
        self._words.clear()

    def refused(self, now: float) -> None:
        """Something did not come to be: what the product has counted of problems is more than what is durable."""
        self._refused_at = now

    def word(self, name: str, world: World, now: float, silent_after_s: float) -> Phase.ValueType:
        """The phase that it has to be in."""
        seen = self.machines[name]
        if seen.forgotten:
            return NONE
        if not seen.accepted:
            return PENDING
        if seen.stream and seen.epoch == world.epoch:
            return PRESENT
        if seen.heard is None:
            return ACCEPTED
        since = seen.heard if seen.silent or seen.heard > world.started_at else world.started_at
        return PRESENT if now - since < silent_after_s else SILENT

    def same_tokens(self, tokens: Mapping[str, TokenFacts]) -> bool:
        """Whether these are the tokens that were made, and who came in by each."""
        known = {name: (token.revoked, token.keys) for name, token in self.tokens.items()}
        return known == {name: (facts.revoked_at is not None, facts.used_by) for name, facts in tokens.items()}

    def told_wrongly(self, name: str, problems: Sequence[str]) -> str:
        """A problem on which the last word is not how it stands; empty where there is none."""
        for problem, word in self.machines[name].told.items():
            there = problem.partition(" ")[0] in problems
            if word not in {FLAPPING, APPEARED if there else CLEARED}:
                return f"the last word on {problem} is {word}"
        return ""

    def good(self, token_id: str, key: bytes, at: float) -> str:
        """Why this token does not let this key in; empty where it does."""
        token = self.tokens.get(token_id)
        if token is None:
            return "nobody made it"
        if token.revoked or at >= token.made.expires_at + 10.0:  # it was good when it was looked at
            return "it is over"
        full = token.made.uses_allowed and len(token.keys | {key}) > token.made.uses_allowed
        return "it is used up" if full else ""

    # -- inside ----------------------------------------------------------------------------------------------------

    def _asked(self, change: Asked) -> None:
        if change.token_id:
            why = self.good(change.token_id, change.key_sha256, change.at)
            hold(not why, change.machine_id, "came in by token", change.token_id, "and", why)
        self.machines[change.machine_id] = Seen()
        for moves in (self._words, self._moves):  # another life: it is counted anew
            for key in [key for key in moves if key[0] == change.machine_id]:
                del moves[key]

    def _noted(self, change: Noted, seen: Seen) -> None:
        if change.kind.startswith("machine.problem.") and " problems: " not in change.because:
            problem, since = change.because.partition(":")[0], change.at - FLAP_WINDOW_S
            seen.told[problem] = change.kind
            times = self._words[change.machine_id, problem]
            times.append(change.at)
            lately = sum(at > since for at in times)
            hold(lately <= MOST + 2, change.machine_id, "has", lately, "events of", problem, "within the window")
            if change.kind == FLAPPING and self._refused_at < since - FLAP_WINDOW_S:
                moves = sum(at > since for at in self._moves[change.machine_id, problem.partition(" ")[0]])
                hold(moves >= MOST, change.machine_id, "flaps in", problem, "after", moves, "changes within the window")

    def _problems(self, change: VitalsKept, seen: Seen) -> None:
        now = frozenset(problem.probe for problem in Problems.FromString(change.problems).problems)
        for probe in seen.problems ^ now:
            self._moves[change.machine_id, probe].append(change.at)
        seen.problems = now
