"""What survives a power cut: the store as `provisioner.store.Store` is used, without a file.

Rule: a batch is there whole once `write` returned, and not at all where it raised. What `World.after` makes of it, and
what an entry of the audit is, is the product's own; only bodies, histories, events and places are kept here.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from bedplate.v1.uplink_pb2 import Delta
from provisioner.chain import START, Entry, Link
from provisioner.store import StoreError, auditing
from provisioner.store.rows import Answer, Event, Seen, Sink, VitalsRow
from provisioner.vitals import folded
from provisioner.world import (
    Answered,
    Asked,
    Audited,
    Change,
    InventoryKept,
    Noted,
    VitalsKept,
    VitalsMoved,
    World,
)


@dataclass(slots=True)
class Platter:
    """Shared by all lives of the provisioner."""

    world: World = field(default_factory=lambda: World(epoch=0, started_at=0.0))
    rows: dict[str, VitalsRow] = field(default_factory=dict)
    seen: dict[str, dict[bytes, None]] = field(default_factory=dict)
    bodies: dict[bytes, bytes] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    sinks: dict[str, int] = field(default_factory=dict)  # up to which revision each has had them
    answers: dict[tuple[str, str], Answer] = field(default_factory=dict)
    audit: list[Entry] = field(default_factory=list)
    full: bool = False

    @property
    def head(self) -> Link:
        return Link(self.audit[-1].sequence, self.audit[-1].sha256) if self.audit else START

    def after(self, revision: int) -> int:
        """Where in `events` the first one is that is younger."""
        return bisect_right(self.events, revision, key=lambda event: event.revision)

    def empty(self) -> None:
        """There is room again."""
        self.full = False


class Disk:
    """One life's handle."""

    fleet = "fleet"

    def __init__(self, platter: Platter, told: Callable[[Mapping[str, int]], None]) -> None:
        self.platter = platter
        self.told = told
        self.world = platter.world

    def begin_epoch(self) -> int:
        self.platter.world = replace(self.platter.world, epoch=self.platter.world.epoch + 1)
        return self.platter.world.epoch

    def load(self, started_at: float) -> World:
        self.world = self.platter.world = replace(self.platter.world, started_at=started_at)
        return self.world

    def write(self, changes: Sequence[Change]) -> list[int]:
        if not changes:
            return []
        self._fence()
        first = self.world.revision + 1
        numbered = list(enumerate(changes, first))
        after = self.world.after(numbered)
        self._put_down(numbered, after)
        self.world = self.platter.world = after
        return [number for number, _ in numbered]

    def keep_sinks(self, wanted: Mapping[str, bool]) -> tuple[list[str], list[str]]:
        self._fence()
        new = sorted(wanted.keys() - self.platter.sinks)
        self.platter.sinks |= {name: 0 if wanted[name] else self.world.events_revision for name in new}
        return new, []

    def delivered(self, places: Mapping[str, int]) -> None:
        self._fence()
        self.told(places)
        for name, place in places.items():
            self.platter.sinks[name] = max(self.platter.sinks[name], place)

    def _fence(self) -> None:
        if self.platter.full:
            raise StoreError("cannot write store: No space left on device")
        if self.platter.world is not self.world:
            raise StoreError("cannot write store: another provisioner has taken it over")

    def _put_down(self, numbered: Iterable[tuple[int, Change]], after: World) -> None:
        platter = self.platter
        for number, change in numbered:
            match change:
                case VitalsKept():
                    row = VitalsRow(change.run_id, change.sequence, change.vitals, change.problems, change.at)
                    platter.rows[change.machine_id] = row
                case VitalsMoved():
                    self._move(change)
                case Asked():
                    platter.rows.pop(change.machine_id, None)
                case InventoryKept():
                    self._see(change)
                case Noted():
                    platter.events.append(_event(number, change, after))
                case Answered():
                    answer = Answer(change.method, change.request_sha256, change.response, change.at)
                    platter.answers.setdefault((change.caller, change.request_id), answer)
                case Audited():
                    platter.audit.append(auditing._entry(platter.head, change))
                case _:
                    pass

    def _see(self, change: InventoryKept) -> None:
        if change.body is not None:
            self.platter.bodies[change.digest] = change.body
        elif change.digest not in self.platter.bodies:
            raise AssertionError("an inventory without a body, and none is stored")
        self.platter.seen.setdefault(change.machine_id, {})[change.digest] = None

    def _move(self, change: VitalsMoved) -> None:
        row = self.platter.rows[change.machine_id]
        vitals = folded(row.vitals, [Delta.FromString(change.delta)]).SerializeToString(deterministic=True)
        self.platter.rows[change.machine_id] = replace(row, sequence=change.sequence, vitals=vitals, at=change.at)

    # -- reading ---------------------------------------------------------------------------------------------------

    def vitals(self, machine_id: str) -> VitalsRow | None:
        return self.platter.rows.get(machine_id)

    def inventory(self, digest: bytes) -> bytes | None:
        return self.platter.bodies.get(digest)

    def history(self, machine_id: str) -> list[Seen]:
        return [Seen(digest, 0.0, 0.0) for digest in self.platter.seen.get(machine_id, ())]

    def events(self, *, after: int = 0, machine_id: str = "", limit: int = 100) -> list[Event]:
        found = self.platter.events[self.platter.after(after) :]
        return [event for event in found if machine_id in {"", event.machine_id}][:limit]

    def oldest_event_revision(self) -> int:
        return 1

    def sinks(self) -> list[Sink]:
        return [Sink(name, place, 0) for name, place in sorted(self.platter.sinks.items())]

    def answered(self, caller: str, request_id: str) -> Answer | None:
        return self.platter.answers.get((caller, request_id))


def _event(number: int, noted: Noted, after: World) -> Event:
    facts = after.machines.get(noted.machine_id)
    return Event(
        number,
        noted.at,
        noted.kind,
        noted.machine_id,
        noted.hostname,
        noted.because,
        noted.actor,
        facts.incarnation if facts else 0,
        noted.count,
    )
