"""What the store hands out, and how long it keeps it."""

from collections.abc import Mapping
from dataclasses import dataclass

DAY_S = 86400.0
NANOS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class VitalsRow:
    """A machine's vitals and problems as they stood after this delta of this run."""

    run_id: bytes
    sequence: int
    vitals: bytes  # bedplate.v1.Vitals
    problems: bytes  # bedplate.v1.Problems
    at: float


@dataclass(frozen=True, slots=True)
class Seen:
    """An inventory that a machine had, from when until when it was known to have it."""

    digest: bytes
    first_seen_at: float
    last_seen_at: float


@dataclass(frozen=True, slots=True)
class Event:
    revision: int
    at: float
    kind: str
    machine_id: str
    hostname: str
    because: str
    actor: str
    incarnation: int = 0  # the machine's; 0 where it concerns none, and in events of before there was this column
    count: int = 0  # for how many changes it stands, where that is more than one

    @property
    def at_ns(self) -> int:
        return round(self.at * NANOS)


@dataclass(frozen=True, slots=True)
class Sink:
    """Where events go to, and how far it has had them."""

    name: str
    revision: int
    lost: int  # events that were dropped before it had them


@dataclass(frozen=True, slots=True)
class Answer:
    """What a write was answered with."""

    method: str
    request_sha256: bytes
    response: bytes
    at: float


@dataclass(frozen=True, slots=True)
class Policy:
    """What is kept. A machine's current inventory always is."""

    inventories: int = 20  # for each machine
    inventory_s: float = 90 * DAY_S
    event_s: float = 90 * DAY_S
    undelivered_s: float = 90 * DAY_S  # so much longer for what a sink has not had
    answer_s: float = DAY_S


@dataclass(frozen=True, slots=True)
class Pruned:
    inventories: int
    events: int
    answers: int
    lost: Mapping[str, int]  # by sink: events that it had not had
