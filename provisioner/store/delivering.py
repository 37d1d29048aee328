"""How far each sink has had the events: one row a sink, moved only after the sink has confirmed.

Rule 1: the events are the outbox. Nothing is copied for a sink; it has a place in them.
Rule 2: a place only goes up, whoever is late with saying so.
"""

from collections.abc import Mapping

from sqlalchemy import Connection, case, delete, func, insert, select, update

from provisioner.store.rows import Sink
from provisioner.store.schema import counters, events, sinks


def sinks_of(connection: Connection) -> list[Sink]:
    columns = (sinks.c.name, sinks.c.revision, sinks.c.lost)
    return [Sink(*row) for row in connection.execute(select(*columns).order_by(sinks.c.name))]


def keep(connection: Connection, wanted: Mapping[str, bool], present: int) -> tuple[list[str], list[str]]:
    """Who is new, and who is gone. A new one begins behind `present`; where that is wanted, with the oldest event."""
    known = {sink.name for sink in sinks_of(connection)}
    new, gone = sorted(wanted.keys() - known), sorted(known - wanted.keys())
    oldest: int = connection.execute(select(counters.c.pruned_revision)).scalar_one()
    for name in new:
        connection.execute(insert(sinks).values(name=name, revision=oldest if wanted[name] else present, lost=0))
    for name in gone:
        connection.execute(delete(sinks).where(sinks.c.name == name))
    return new, gone


def move(connection: Connection, places: Mapping[str, int]) -> None:
    """Each of these sinks has had the events up to that revision."""
    for name, place in places.items():
        connection.execute(update(sinks).where(sinks.c.name == name, sinks.c.revision < place).values(revision=place))


def waiting(connection: Connection, after: int) -> int:
    """How many events are younger than that."""
    count: int = connection.execute(select(func.count()).where(events.c.revision > after)).scalar_one()
    return count


def slowest(connection: Connection) -> int | None:
    """Up to which revision every sink has had the events; None where there is no sink."""
    place: int | None = connection.execute(select(func.min(sinks.c.revision))).scalar()
    return place


def cut(connection: Connection, last: int) -> dict[str, int]:
    """The events up to `last` are about to go, delivered or not: how many of them each sink loses by that."""
    lost = {}
    for sink in sinks_of(connection):
        behind = (events.c.revision > sink.revision, events.c.revision <= last)
        if count := connection.execute(select(func.count()).where(*behind)).scalar_one():
            lost[sink.name] = count
    if lost:
        more = case(lost, value=sinks.c.name)
        connection.execute(update(sinks).where(sinks.c.name.in_(lost)).values(lost=sinks.c.lost + more, revision=last))
    return lost
