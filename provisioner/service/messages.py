"""From facts to the messages that people and tools get: pure. What a machine and a token are in brief says `brief`."""

from collections.abc import Mapping
from typing import Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from bedplate.v1 import fleet_pb2
from bedplate.v1.snapshot_pb2 import Inventory, Snapshot, Vitals
from bedplate.v1.uplink_pb2 import Problems
from provisioner import brief
from provisioner.brief import moment
from provisioner.conduct import Arrivals
from provisioner.filters import Row
from provisioner.phase import ACCEPTED, FORGOTTEN, PENDING, PRESENT, SILENT, word_of
from provisioner.service.ledger import Ledger
from provisioner.store import Event, VitalsRow
from provisioner.world import Facts

WORDS = {FORGOTTEN: "", PENDING: "pending", ACCEPTED: "accepted", PRESENT: "present", SILENT: "silent"}


def row(facts: Facts, ledger: Ledger, now: float) -> Row:
    return Row(facts, WORDS[word_of(facts, ledger.world, now, ledger.settings.silent_after_s)])


def rows(ledger: Ledger) -> list[Row]:
    """Of all machines that are known."""
    world, now, silent_after_s = ledger.world, ledger.now(), ledger.settings.silent_after_s
    return [Row(facts, WORDS[word_of(facts, world, now, silent_after_s)]) for facts in world.known]


def machine(facts: Facts, ledger: Ledger) -> fleet_pb2.Machine:
    return brief.machine(facts, ledger.world, ledger.now(), ledger.settings.silent_after_s)


def event(kept: Event) -> fleet_pb2.Event:
    return fleet_pb2.Event(
        revision=kept.revision,
        at=moment(kept.at),
        kind=kept.kind,
        machine_id=kept.machine_id,
        hostname=kept.hostname,
        because=kept.because,
        actor=kept.actor,
        incarnation=kept.incarnation,
        count=kept.count,
    )


class Standing(Protocol):
    """How a sink of events stands."""

    @property
    def name(self) -> str: ...
    @property
    def revision(self) -> int: ...
    @property
    def backlog(self) -> int: ...
    @property
    def lost(self) -> int: ...
    @property
    def working(self) -> bool: ...
    @property
    def because(self) -> str: ...


def sink(standing: Standing) -> fleet_pb2.Sink:
    return fleet_pb2.Sink(
        name=standing.name,
        delivered_revision=standing.revision,
        backlog=standing.backlog,
        lost=standing.lost,
        working=standing.working,
        because=standing.because,
    )


def ports(arrivals: Mapping[str, Arrivals]) -> list[fleet_pb2.Port]:
    return [
        fleet_pb2.Port(name=name, connections_with_a_call=those.called, connections=those.begun)
        for name, those in arrivals.items()
    ]


def snapshot(inventory: bytes | None, vitals: VitalsRow | None) -> Snapshot:
    """The latest of each, put together: it was taken when its vitals came in."""
    whole = Snapshot()
    if inventory is not None:
        whole.inventory.CopyFrom(Inventory.FromString(inventory))
    if vitals is not None:
        whole.taken_at.CopyFrom(moment(vitals.at) or Timestamp())
        whole.vitals.CopyFrom(Vitals.FromString(vitals.vitals))
        whole.problems.extend(Problems.FromString(vitals.problems).problems)
    return whole
