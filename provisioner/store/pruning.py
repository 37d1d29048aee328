"""What is forgotten in time: old inventories, old events, old answers. The world does not change by it.

Rule 1: the inventory that a machine has now is kept, however old.
Rule 2: how far the events were cut is kept, so that a watcher that resumes from before it can be told.
Rule 3: what a sink has not had is kept longer, and not for ever: what it loses then is counted.
Rule 4: events go by revision, up to the first that is young: what came by a wrong clock takes no younger one along.
Rule 5: what is to go is looked for while others write, and goes in slices, so that they write in between. A slice looks
        again at what it drops: a machine may have it again by then. After any of them all is as if there was no next.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from sqlalchemy import Column, Connection, bindparam, delete, exists, func, or_, select, update

from provisioner.store import delivering
from provisioner.store.rows import Policy, Pruned
from provisioner.store.schema import answers, counters, events, inventories, machines, seen

SLICE = 200  # rows: some hundredths of a second at most, for those with a body
Slice = Callable[[Connection], Pruned]  # in the caller's transaction


def plan(connection: Connection, now: float, policy: Policy, most: int) -> list[Slice]:
    """All that is to go by now, at most so many rows in each slice."""
    stale = _stale(connection, now - policy.inventory_s, policy.inventories)
    last = _last_event(connection, now, policy)
    answered = connection.execute(select(func.max(answers.c.at)).where(answers.c.at < now - policy.answer_s)).scalar()
    return [
        *(partial(_inventories, stale=stale[start : start + most]) for start in range(0, len(stale), most)),
        *(partial(_events, last=each) for each in _ends(connection, events.c.revision, last, most)),
        *(partial(_answers, last=each) for each in _ends(connection, answers.c.at, answered, most)),
    ]


def total(slices: Iterable[Pruned]) -> Pruned:
    inventories_gone = events_gone = answers_gone = 0
    lost = Counter[str]()
    for one in slices:
        inventories_gone += one.inventories
        events_gone += one.events
        answers_gone += one.answers
        lost.update(one.lost)
    return Pruned(inventories_gone, events_gone, answers_gone, dict(lost))


def _stale(connection: Connection, oldest: float, most: int) -> Sequence[tuple[str, bytes, float]]:
    """Machine, digest, and when the machine was last known to have it."""
    newest_first = (seen.c.last_seen_at.desc(), seen.c.first_seen_at.desc(), seen.c.digest)
    rank = func.row_number().over(partition_by=seen.c.machine_id, order_by=newest_first)
    ranked = select(seen.c.machine_id, seen.c.digest, seen.c.last_seen_at, rank.label("rank")).subquery()
    statement = (
        select(ranked.c.machine_id, ranked.c.digest, ranked.c.last_seen_at)
        .join(machines, machines.c.id == ranked.c.machine_id)
        .where(ranked.c.digest != machines.c.inventory_digest)
        .where(or_(ranked.c.last_seen_at < oldest, ranked.c.rank > most))
    )
    return [(row.machine_id, row.digest, row.last_seen_at) for row in connection.execute(statement)]


def _last_event(connection: Connection, now: float, policy: Policy) -> int | None:
    """The revision of the last one that is to go."""
    last, had = _old(connection, now - policy.event_s, now), delivering.slowest(connection)
    if had is not None:
        last = max(min(last, had), _old(connection, now - policy.event_s - policy.undelivered_s, now))
    revision: int | None = connection.execute(
        select(func.max(events.c.revision)).where(events.c.revision <= last)
    ).scalar()
    return revision


def _old(connection: Connection, at: float, now: float) -> int:
    """Up to which revision all events are older than that; 0 where none is. What came while the clock was wrong is as
    old as what is around it: it takes none of that with it, and keeps none.
    """
    last: int = connection.execute(select(func.max(events.c.revision)).where(events.c.at < at)).scalar() or 0
    age = events.c.at + 0.0  # so that they are read by revision: by age, all that are young would be
    younger = select(func.min(events.c.revision)).where(events.c.revision <= last, age >= at, age <= now)
    first: int | None = connection.execute(younger).scalar()
    return last if first is None else first - 1


def _ends(connection: Connection, column: Column[Any], last: float | None, most: int) -> list[Any]:
    """Where each slice of what is not above `last` ends: at every so manieth of them, and at `last` itself."""
    if last is None:
        return []
    number = func.row_number().over(order_by=column)
    below = select(column.label("end"), number.label("number")).where(column < last).subquery()
    ends = select(below.c.end).where(below.c.number % most == 0).order_by(below.c.number)
    return [*connection.execute(ends).scalars(), last]


def _inventories(connection: Connection, stale: Sequence[tuple[str, bytes, float]]) -> Pruned:
    """But for those that their machines were known to have again since."""
    rows = [{"machine": machine, "named": digest, "at": at} for machine, digest, at in stale]
    connection.execute(SEEN_GONE, rows)
    return Pruned(connection.execute(INVENTORY_GONE, rows).rowcount, 0, 0, {})


def _events(connection: Connection, last: int) -> Pruned:
    """How many are gone, and how many of them which sink had not had."""
    lost = delivering.cut(connection, last)
    gone = connection.execute(delete(events).where(events.c.revision <= last)).rowcount
    connection.execute(update(counters).values(pruned_revision=last))
    return Pruned(0, gone, 0, lost)


def _answers(connection: Connection, last: float) -> Pruned:
    return Pruned(0, 0, connection.execute(delete(answers).where(answers.c.at <= last)).rowcount, {})


HAS_NOW = exists().where(machines.c.id == seen.c.machine_id, machines.c.inventory_digest == seen.c.digest)
SEEN_GONE = delete(seen).where(
    seen.c.machine_id == bindparam("machine"),
    seen.c.digest == bindparam("named"),
    seen.c.last_seen_at == bindparam("at"),
    ~HAS_NOW,
)
INVENTORY_GONE = delete(inventories).where(
    inventories.c.digest == bindparam("named"), ~exists().where(seen.c.digest == inventories.c.digest)
)
