"""Histories of a fleet, for property tests: changes that can come to be, in an order in which they can."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import strategies as st

from provisioner.world import (
    Accepted,
    Answered,
    Asked,
    Audited,
    Certified,
    Change,
    CredentialRevoked,
    Forgotten,
    InventoryKept,
    Met,
    Noted,
    Parted,
    Revoked,
    SilenceNoted,
    TokenMade,
    TokenRevoked,
    TokenUsed,
    VitalsKept,
    VitalsMoved,
)

OF_MACHINES = (
    "accepted",
    "certified",
    "forgotten",
    "machine revoked",
    "met",
    "parted",
    "inventory",
    "again",
    "vitals",
    "moved",
    "silence",
)
KINDS = (
    "asked",
    *OF_MACHINES,
    "vitals",
    "vitals",
    "noted",
    "made",
    "revoked",
    "used",
    "answered",
    "audited",
    "taken back",
)
TEXTS = st.sampled_from(["", "gpu-01", "späne\n'\"", "0" * 40])
Draw = tuple[str, int, int, str]


@dataclass(slots=True)
class _Run:
    """Of an agent: its deltas count up, and no run comes back once there was another one."""

    id: bytes
    sequence: int = 0
    beside: int = 0  # deltas since the vitals were kept whole

    def whole(self, machine_id: str, number: int, at: float) -> VitalsKept:
        self.sequence, self.beside = self.sequence + 1 + number, 0
        return VitalsKept(machine_id, self.id, self.sequence, b"", b"p", number % 3, at)

    def moved(self, machine_id: str, at: float) -> VitalsMoved | None:
        if not self.sequence:
            return None
        self.sequence, self.beside = self.sequence + 1, self.beside + 1
        return VitalsMoved(machine_id, self.id, self.sequence, self.beside - 1, b"", at)


@dataclass(slots=True)
class _Teller:
    """Makes a change of each draw that makes sense by then."""

    machines: set[str] = field(default_factory=set)
    tokens: set[str] = field(default_factory=set)
    digests: set[bytes] = field(default_factory=set)
    runs: dict[str, "_Run"] = field(default_factory=dict)  # the agent's, of each machine
    at: float = 1.0

    def tell(self, draw: Draw) -> Change | None:
        kind, which, number, text = draw
        self.at += 0.25
        machine_id, token_id = f"m-{which}", f"t-{which % 2}"
        if kind == "asked":
            self.machines.add(machine_id)
            self._run(machine_id)
            key = bytes([number]) * 32
            return Asked(machine_id, number, key, b"e" * number, text, text, text, token_id, text, self.at)
        if kind in ("noted", "answered", "audited", "taken back"):
            return self._aside(kind, machine_id, number, text)
        if kind in ("made", "revoked", "used"):
            return self._token(kind, token_id, number)
        return self._machine(kind, machine_id, number, text) if machine_id in self.machines else None

    def _aside(self, kind: str, machine_id: str, number: int, text: str) -> Change:
        if kind == "noted":
            return Noted(f"machine.{number}", machine_id, text, text, "provisioner", self.at)
        if kind == "audited":
            return Audited("alice", "admin", text, f"r-{number}", machine_id, text, text, self.at)
        if kind == "taken back":
            return (
                CredentialRevoked("alice", "", self.at)
                if number % 2
                else CredentialRevoked("", f"{number:032x}", self.at)
            )
        return Answered("alice", f"{machine_id}-{number}", text, b"s" * 32, b"r", self.at)

    def _token(self, kind: str, token_id: str, number: int) -> Change | None:
        if kind == "made":
            if token_id in self.tokens:
                return None
            self.tokens.add(token_id)
            return TokenMade(token_id, b"s" * 32, self.at, self.at + 60, number, number % 2 == 0, "alice")
        if token_id not in self.tokens:
            return None
        if kind == "revoked":
            return TokenRevoked(token_id, self.at)
        return TokenUsed(token_id, bytes([number]) * 32, "m-0", self.at)

    def _machine(  # noqa: C901, PLR0911 - one arm a change
        self, kind: str, machine_id: str, number: int, text: str
    ) -> Change | None:
        digest, at = bytes([number]) * 32, self.at
        match kind:
            case "accepted":
                return Accepted(machine_id, at)
            case "certified":
                return Certified(machine_id, digest, f"{at}", at + 60, at)
            case "forgotten":
                return Forgotten(machine_id, at)
            case "machine revoked":
                return Revoked(machine_id, at)
            case "met":
                run_id = (self._run(machine_id) if number % 2 else self.runs[machine_id]).id
                return Met(machine_id, f"s-{number}", number, run_id, text, text, text, number - 2.5, at, b"k" * number)
            case "parted":
                return Parted(machine_id, f"s-{number}", text, at)
            case "silence":
                return SilenceNoted(machine_id, silent=number % 2 == 0, at=at)
            case "vitals":
                return self.runs[machine_id].whole(machine_id, number, at)
            case "moved":
                return self.runs[machine_id].moved(machine_id, at)
        if kind == "again" and digest not in self.digests:
            return None
        self.digests.add(digest)
        body = digest if kind == "inventory" else None
        return InventoryKept(machine_id, digest, body, text, text, text, number, text, number, text, text, at)

    def _run(self, machine_id: str) -> _Run:
        self.runs[machine_id] = _Run(f"{self.at:016}".encode())
        return self.runs[machine_id]


def _told(draws: Sequence[Draw]) -> list[Change]:
    teller = _Teller()
    return [change for draw in draws if (change := teller.tell(draw)) is not None]


DRAWS = st.tuples(st.sampled_from(KINDS), st.integers(0, 2), st.integers(0, 5), TEXTS)
HISTORIES = st.lists(DRAWS, max_size=60).map(_told)
