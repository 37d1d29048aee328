"""Watches: what changed after a revision, and then what changes.

Rule 1: state, not a queue. A watch of machines remembers how far it came; what it sends is the machine as it is when
        it is sent. Ten changes that a slow reader missed are one message.
Rule 2: whoever resumes from the revision of the last message that it got misses nothing: messages go out in the order
        of the revisions that called for them, each with that revision and none younger.
Rule 3: what cannot be resumed is said (OUT_OF_RANGE), and never passed over in silence.
"""

import asyncio
from collections.abc import AsyncGenerator

from bedplate.v1 import fleet_pb2 as pb
from provisioner import filters
from provisioner.access import RefusedError
from provisioner.filters import Filter
from provisioner.service import messages
from provisioner.service.finding import find_ever
from provisioner.service.ledger import Ledger
from provisioner.service.refusals import out_of_range

GATHER_S = 0.05  # changes that come together are looked at together
BATCH = 200  # events that are held for one reader at most


async def machines(ledger: Ledger, request: pb.WatchMachinesRequest) -> AsyncGenerator[pb.WatchMachinesResponse, None]:
    """Runs until the caller goes."""
    chosen, place = filters.parse(request.filter), request.from_revision
    _not_ahead(ledger, place)
    shown = set(ledger.world.machines) if place else set[str]()  # who resumes may have been shown any of them
    while True:
        world = ledger.world
        changed = sorted((facts.revision, key) for key, facts in world.machines.items() if facts.revision > place)
        for revision, machine_id in changed:
            if response := _told(ledger, chosen, machine_id, shown):
                response.revision = revision
                yield response
        place = max(place, world.machines_revision)
        while ledger.world.machines_revision <= place:
            await ledger.wait_past(ledger.world.revision)
        await asyncio.sleep(GATHER_S)


def _told(ledger: Ledger, chosen: Filter, machine_id: str, shown: set[str]) -> pb.WatchMachinesResponse | None:
    """What the reader is to be told of this machine as it is now; None where it was never shown and is not now."""
    facts = ledger.world.machines[machine_id]
    if facts.forgotten_at is None and chosen.through([messages.row(facts, ledger, ledger.now())]):
        shown.add(machine_id)
        return pb.WatchMachinesResponse(machine=messages.machine(facts, ledger))
    if machine_id not in shown:
        return None
    shown.discard(machine_id)
    return pb.WatchMachinesResponse(machine=messages.machine(facts, ledger), gone=True)


async def events(ledger: Ledger, request: pb.WatchEventsRequest) -> AsyncGenerator[pb.WatchEventsResponse, None]:
    """Runs until the caller goes."""
    machine_id = find_ever(ledger.world, request.machine).id if request.machine else ""
    place = ledger.world.revision if request.only_new else request.from_revision
    _not_ahead(ledger, place)
    if not place:
        place = await ledger.read(ledger.store.oldest_event_revision) - 1
    while True:
        newest = ledger.world.events_revision
        found = await ledger.read(ledger.store.events, after=place, machine_id=machine_id, limit=BATCH)
        if (oldest := await ledger.read(ledger.store.oldest_event_revision)) > place + 1:
            raise _cut(place, oldest, ledger.world.revision)
        for kept in found:
            yield pb.WatchEventsResponse(event=messages.event(kept))
            place = kept.revision
        if len(found) < BATCH:
            place = max(place, newest)
            while ledger.world.events_revision <= place:
                await ledger.wait_past(ledger.world.revision)


def _cut(place: int, oldest: int, newest: int) -> RefusedError:
    line = (
        f"cannot resume from revision {place}: events are kept from revision {oldest} on; "
        "begin again from 0, and list the machines to see where they stand"
    )
    return out_of_range(line, oldest - 1, newest)


def _not_ahead(ledger: Ledger, place: int) -> None:
    newest = ledger.world.revision
    if place > newest:
        line = (
            f"cannot resume from revision {place}: this fleet is at {newest}; "
            "its store was replaced by an older one, or this is another fleet: begin again from 0"
        )
        raise out_of_range(line, 0, newest)
