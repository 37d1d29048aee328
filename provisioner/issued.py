"""Certificates of people and tools: those that were made are in the audit, and those that were taken back in the world.

Rule: what is over is not told. Each lasts as long as every other, from when it was made.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from provisioner.chain import Entry
from provisioner.pki import PERSON_LIFETIME_S

ISSUING: Final = ("provisioner init", "provisioner credential")
NANOS: Final = 1e9


Revoked = Mapping[tuple[str, str], float]  # as in World


@dataclass(frozen=True, slots=True)
class Credential:
    name: str
    role: str
    serial_number: str
    made_at: float
    made_by: str
    revoked_at: float | None = None

    @property
    def expires_at(self) -> float:
        return self.made_at + PERSON_LIFETIME_S

    def under(self, revoked: Revoked) -> "Credential":
        """With what was taken back. A certificate is dated in whole seconds."""
        at, until = revoked.get(("", self.serial_number)), revoked.get((self.name, ""))
        if at is None and until is not None and int(self.made_at) <= until:
            at = until
        return replace(self, revoked_at=at)


def issued(entries: Iterable[Entry], revoked: Revoked, now: float) -> list[Credential]:
    """Oldest first."""
    found = [
        Credential(made["name"], made["role"], made["serial_number"], entry.at_ns / NANOS, entry.who)
        for entry in entries
        for made in json.loads(entry.after or "{}").get("certificates", ())
    ]
    return [one.under(revoked) for one in found if one.expires_at > now]


def good(found: Sequence[Credential]) -> list[Credential]:
    """The youngest of each name that was not taken back."""
    return list({one.name: one for one in found if one.revoked_at is None}.values())
