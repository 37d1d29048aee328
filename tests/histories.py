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
class _Teller:
    """Makes a change of each draw that makes sense by then."""

    machines: set[str] = field(default_factory=set)
    tokens: set[str] = field(default_factory=set)
    digests: set[bytes] = field(default_factory=set)
    at: float = 1.0

    def tell(self, draw: Draw) -> Change | None:
        kind, which, number, text = draw
        self.at += 0.25
        machine_id, token_id = f"m-{which}", f"t-{which % 2}"
        if kind == "asked":
            self.machines.add(machine_id)
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
        digest, run_id, at = bytes([number]) * 32, bytes([number % 2]) * 16, self.at
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
                return Met(machine_id, f"s-{number}", number, run_id, text, text, text, number - 2.5, at, b"k" * number)
            case "parted":
                return Parted(machine_id, f"s-{number}", text, at)
            case "silence":
                return SilenceNoted(machine_id, silent=number % 2 == 0, at=at)
            case "vitals":
                return VitalsKept(machine_id, run_id, number, b"v" * number, b"p", number % 3, at)
            case "moved":
                return VitalsMoved(machine_id, run_id, number, number, b"", at)
        if kind == "again" and digest not in self.digests:
            return None
        self.digests.add(digest)
        body = digest if kind == "inventory" else None
        return InventoryKept(machine_id, digest, body, text, text, text, number, text, number, text, text, at)


def _told(draws: Sequence[Draw]) -> list[Change]:
    teller = _Teller()
    return [change for draw in draws if (change := teller.tell(draw)) is not None]


DRAWS = st.tuples(st.sampled_from(KINDS), st.integers(0, 2), st.integers(0, 5), TEXTS)
HISTORIES = st.lists(DRAWS, max_size=60).map(_told)
